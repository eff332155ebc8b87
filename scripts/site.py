"""Build the documentation site into build/site, strictly: a broken link or a missing anchor fails.

    python scripts/site.py [OPTIONS of mkdocs build]

Creates .venv if need be.
"""

import os
import sys

from setup import become, install

if __name__ == "__main__":
    install("docs")
    print(
        "The site goes to build/site. With search: python -m http.server --directory build/site", flush=True
    )
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # which of two successors to move to is no matter of a build
    become("mkdocs", "build", "--strict", "--quiet", *sys.argv[1:])
