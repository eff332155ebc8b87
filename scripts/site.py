"""Build the documentation site into build/site, strictly: a broken link or a missing anchor fails.

    python scripts/site.py [OPTIONS of mkdocs build]

Creates .venv if need be. Then open build/site/index.html.
"""

import sys

from setup import become, install

if __name__ == "__main__":
    install("docs")
    become("mkdocs", "build", "--strict", "--quiet", *sys.argv[1:])
