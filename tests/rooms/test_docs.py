"""The pages: generated ones are fresh, links lead somewhere, Python compiles, TOML is a valid spec."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from byzopt.aggregators import PRE_AGGREGATORS, RULES, WRAPPERS
from byzopt.attacks import ATTACKS
from byzopt.experiments import Spec
from byzopt.experiments.specs.loading import read_spec
from byzopt.experiments.specs.overrides import merge
from byzopt.experiments.sweeps import Sweep
from byzopt.reproductions.loading import load_reproduction
from byzopt.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if "reference" not in page.parts]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
NAMES_WRITTEN = [page.relative_to(ROOT).as_posix() for page in WRITTEN]
BASE = "byz-nsgdm/digits"  # the spec that fragments on a page are taken to change


def generator():
    """scripts/docs.py as a module."""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated():
    """The reference pages by name, as scripts/docs.py writes them."""
    return generator().pages()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    bare = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head) for head in heads)
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in bare}


def test_committed_reference_pages_are_what_the_generator_writes():
    docs = generator()
    wanted = generated()
    found = {
        page.relative_to(docs.REFERENCE).as_posix(): page.read_text(encoding="utf-8")
        for page in docs.REFERENCE.rglob("*.md")
    }
    stale = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    assert not stale, f"Out of date under docs/reference: {', '.join(stale)}. Run: {docs.COMMAND}"


@pytest.mark.parametrize(
    ("folder", "room"),
    [("rules", RULES), ("pre_aggregators", PRE_AGGREGATORS), ("wrappers", WRAPPERS), ("attacks", ATTACKS)],
    ids=["rules", "pre_aggregators", "wrappers", "attacks"],
)
def test_every_recipe_has_a_page_and_a_line_in_an_index(folder, room):
    pages = generated()
    index = pages["attacks.md" if folder == "attacks" else "rules.md"]
    for name in room:
        assert f"{folder}/{name}.md" in pages
        assert f"({folder}/{name}.md)" in index


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_page_states_its_cost(name):
    assert "**Cost**" in generated()[f"rules/{name}.md"]


def test_imports_that_reference_pages_name_work():
    for page in generated().values():
        for line in re.findall(r"^`(from byzopt\S* import \w+)`", page, re.MULTILINE):
            exec(line, {})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES_WRITTEN)
def test_python_blocks_compile(page):
    for source in blocks(page, "python"):
        compile(source, str(page), "exec")


def test_examples_of_the_page_on_tasks_run():
    with TASKS.temporarily():  # the page registers a task
        for source in blocks(ROOT / "docs" / "tasks.md", "python"):
            exec(source, {})


GUIDES = [page for page in WRITTEN if page.parent.name == "guides" and blocks(page, "python")]


@pytest.mark.parametrize("page", GUIDES, ids=[page.stem for page in GUIDES])
def test_examples_of_guides_run_and_import_what_is_public(page, here, registering):
    for source in blocks(page, "python"):
        assert len(source.splitlines()) <= 40
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("byzopt"):
                public = import_module(node.module).__all__
                assert {name.name for name in node.names} <= {*public}, node.module
        exec(compile(source, str(page), "exec", dont_inherit=True), {"__name__": "guide"})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_toml_blocks_are_specs_or_valid_changes_of_one(page, tmp_path):
    for text in blocks(page, "toml"):
        data = tomllib.loads(text)
        if page.name == "sweeps.md" or "grid" in data:
            assert Sweep.of(data).expand().runs
            continue
        if "part" in data:
            (tmp_path / "it.toml").write_text(text)
            assert load_reproduction(tmp_path / "it.toml").parts[0].sweep.expand().runs
            continue
        whole = data.keys() >= {"task", "rule", "rounds", "lr"}
        assert Spec.of(data if whole else merge(read_spec(BASE), data)).id


def test_a_spec_with_an_unknown_key_would_be_noticed():
    with pytest.raises(ValueError, match="roundz"):
        Spec.of(merge(read_spec(BASE), {"roundz": 3}))
