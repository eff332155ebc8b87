"""Build the documentation site into build/site, strictly: a broken link or a missing anchor fails.

    python scripts/site.py [OPTIONS of mkdocs build]

Creates .venv if need be.
"""

import sys

from setup import become, install

if __name__ == "__main__":
    install("docs")
    print("The site goes to build/site; open index.html there.", flush=True)
    become("mkdocs", "build", "--strict", "--quiet", *sys.argv[1:])
