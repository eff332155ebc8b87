"""Pages of the site that are not files under docs/, and links that lead out of docs/. A hook of mkdocs.yml.

The home page is README.md; the changelog and the notes for contributors stand beside it. Every module with
an `__all__` has an API page. Source files and examples that pages link to become pages of their own, so that
the site is complete without a repository behind it. The gallery shows the charts of the reproductions.
"""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "byzopt"
ABOVE = {
    name: place
    for name, place in [
        ("README.md", "index.md"),
        ("CHANGELOG.md", "project/changelog.md"),
        ("CONTRIBUTING.md", "project/contributing.md"),
    ]
    if (ROOT / name).exists()
}
BAR = "\\|"  # how Markdown writes a bar in a cell
INTERNAL = {"figures", "kernels", "own_files"}  # their `__all__` is for the package itself
LINK = re.compile(r"(?P<before>\]\()(?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<after>\))")
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
CHART = re.compile(r"^!\[(?P<title>.*)\]\((?P<name>.*\.png)\)\n\n(?P<caption>.*)$", re.MULTILINE)
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".md": "markdown",
    ".yml": "yaml",
    ".cff": "yaml",
    ".json": "json",
}
SKIPPED = "search:\n  exclude: true\nhide: [navigation]"  # front matter of pages that show a file


# What MkDocs calls.


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and put names in the navigation in place of every `/*`."""
    from mkdocs.structure.files import File

    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    names = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    config.nav = expanded(config.nav, names)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with links that lead to pages of the site; it begins with its title, not with a comment."""
    text = re.sub(r"\A\s*<!--.*?-->\s*", "", markdown, flags=re.DOTALL)
    text = relinked(text, page.file.src_uri) if origin(page.file.src_uri) else text
    return re.sub(r"^\|.*\|$", lambda row: table_row(row[0]), text, flags=re.MULTILINE)


# Pages.


def generated() -> dict[str, str]:
    """The text of every page that is no file under docs/, by its place on the site."""
    made = {place: (ROOT / name).read_text(encoding="utf-8") for name, place in ABOVE.items()}
    made |= {"gallery.md": gallery(), "api/README.md": api_index()}
    made |= {f"api/{module.removeprefix('byzopt.')}.md": api(module) for module in modules()}
    return made | {f"source/{path}.md": shown(ROOT / path) for path in sorted(linked())}


def modules() -> list[str]:
    """The public modules: those of the package with an `__all__`, and all of `byzopt.theory`."""
    found = [path for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    found += PACKAGE.glob("*/__init__.py")
    public = [path for path in found if "\n__all__ = " in path.read_text(encoding="utf-8")]
    public += [path for path in PACKAGE.glob("theory/*.py") if path.stem != "__init__"]
    names = (_module(path) for path in public)
    return sorted(name for name in names if name.rpartition(".")[2] not in INTERNAL)


def api(module: str) -> str:
    """The API page of a module."""
    head = f"---\ntitle: {module}\n---\n\n"
    return f"{head}# {module}\n\n::: {module}\n    options:\n      show_root_heading: false\n"


def api_index() -> str:
    """What modules there are, each with the first sentence of its docstring."""
    lines = [f"- [`{name}`]({name.removeprefix('byzopt.')}.md): {_summary(name)}\n" for name in modules()]
    return (
        "---\ntitle: Modules\n---\n\n# API\n\nAll that is public. What the errors, cohort, aggregators, "
        "attacks, methods, tasks and experiments modules export can be imported from `byzopt` itself too.\n\n"
        + "".join(lines)
        + "\nWhat specs and the command line know by name, with every parameter: "
        "[rules](../reference/rules.md), [attacks](../reference/attacks.md), "
        "[methods, tasks and their parts](../reference/others.md).\n"
    )


def gallery() -> str:
    """All charts of the reproductions, with the command that draws each page's."""
    text = (
        "# Gallery\n\nEvery chart was drawn from stored runs by the command above it. "
        "`--stored` draws again from a store and runs nothing.\n\n"
        "## Digits under attack\n\n```bash\nbyzopt run byz-nsgdm/digits\n```\n\n"
        "![Loss and test accuracy on digits while 3 of 20 workers send -10 times the honest mean]"
        "(images/demo.png)\n"
    )
    for page in sorted((DOCS / "reproductions").glob("*/README.md")):
        source = page.read_text(encoding="utf-8")
        charts = list(CHART.finditer(source))
        command = re.search(r"`(byzopt reproduce [^`]*)`", source)
        title = re.search(r"^# (.*)$", source, re.MULTILINE)
        if not charts or command is None or title is None:
            continue
        folder = page.parent.relative_to(DOCS).as_posix()
        text += f"\n## [{title[1]}]({folder}/README.md)\n\n```bash\n{command[1]}\n```\n\n"
        text += '<div class="gallery" markdown>\n\n'
        for chart in charts:
            picture = f"{folder}/{chart['name']}"
            text += f"[![{chart['title']}]({picture})]({picture})<br>{chart['title']}\n\n"
        text += "</div>\n"
    return text


def shown(path: Path) -> str:
    """A page that shows a file, or all files of a folder."""
    name = path.relative_to(ROOT).as_posix()
    files = [path] if path.is_file() else [ROOT / one for one in tracked(name)]
    text = f"---\ntitle: {name}\n{SKIPPED}\n---\n\n# {name}\n"
    for file in files:
        body = file.read_text(encoding="utf-8").rstrip()
        heading = "" if path.is_file() else f"\n## {file.relative_to(path).as_posix()}\n"
        text += f"{heading}\n~~~~~~{LANGUAGES.get(file.suffix, 'text')}\n{body}\n~~~~~~\n"
    return text


def table_row(row: str) -> str:
    """A row of a table with bars in code as entities; a mean stays on one line with its deviation."""

    def code(found: re.Match[str]) -> str:
        return f"<code>{escape(found[1]).replace(BAR, '&#124;')}</code>" if BAR in found[1] else found[0]

    return re.sub(r"`([^`]*)`", code, row).replace(" ± ", "\u00a0±\u00a0")


def tracked(folder: str) -> list[str]:
    """The files of a folder of the repository, without what was built there."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    return subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


# Links.


def linked() -> set[str]:
    """The files and folders outside docs/ that some page links to, by their paths in the repository."""
    pages = [*DOCS.rglob("*.md"), *(ROOT / name for name in ABOVE)]
    targets = {
        target
        for page in pages
        for part in CODE.split(page.read_text(encoding="utf-8"))[::2]
        for link in LINK.finditer(part)
        if (target := target_of(page.relative_to(ROOT).as_posix(), link["path"]))
    }
    return {target for target in targets if outside(target)}


def outside(target: str) -> bool:
    """Whether a path in the repository is neither a page of the site nor below docs/."""
    return target not in ABOVE and not target.startswith("docs/") and (ROOT / target).exists()


def origin(place: str) -> str | None:
    """The path in the repository of the file that the page at `place` is made of; None for generated text."""
    above = {place: name for name, place in ABOVE.items()}
    if place in above:
        return above[place]
    return f"docs/{place}" if (DOCS / place).exists() else None


def target_of(source: str, path: str) -> str | None:
    """The path in the repository that a link of the file `source` leads to; None for other links."""
    if not path or "://" in path or path.startswith(("mailto:", "/")):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def relinked(markdown: str, place: str) -> str:
    """The text of the page at `place` with every link led to its page on the site."""
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _led(link, place), part) for part in parts[::2]]
    return "".join(parts)


def _led(link: re.Match[str], place: str) -> str:
    target = target_of(origin(place) or "", link["path"])
    if target is None:
        return link[0]
    if target in ABOVE:
        new = ABOVE[target]
    elif outside(target):
        new = f"source/{target}.md"
    elif (ROOT / target / "README.md").exists():
        new = f"{target}/README.md".removeprefix("docs/")
    else:
        new = target.removeprefix("docs/")
    relative = posixpath.relpath(new, posixpath.dirname(place) or ".")
    return f"{link['before']}{relative}{link['anchor'] or ''}{link['after']}"


# Navigation.


def expanded(nav: list[Any], names: Iterable[str]) -> list[Any]:
    """The navigation with the pages that a trailing `*` stands for: all of that folder without a place."""
    free = sorted({name for name in names if not name.startswith("source/")} - set(_places(nav)))
    return [kept for entry in nav for kept in _entries(entry, free)]


def _places(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    return [place for one in inner for place in _places(one)]


def _entries(entry: Any, free: list[str]) -> list[Any]:
    """What stands in the navigation for one entry: nothing for a section without pages."""
    if isinstance(entry, str):
        return _below(entry.removesuffix("*"), free) if entry.endswith("*") else [entry]
    ((title, inner),) = entry.items()
    if isinstance(inner, str) and not inner.endswith("*"):
        return [entry]
    kept = [page for one in ([inner] if isinstance(inner, str) else inner) for page in _entries(one, free)]
    return [{title: kept}] if kept else []


def _below(folder: str, free: list[str]) -> list[str]:
    """The pages in a folder, and the front pages of the folders in it."""
    inside = [name.removeprefix(folder) for name in free if name.startswith(folder)]
    return [
        folder + name for name in inside if "/" not in (name.removesuffix("/README.md") if folder else name)
    ]


# Modules.


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _summary(module: str) -> str:
    path = PACKAGE.parent / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
