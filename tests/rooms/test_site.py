"""The site: pages that are made for it, links out of docs/, the navigation, strictness of the build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # many processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site():
    """scripts/site_pages.py as a module."""
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "scripts" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_out_of_docs_lead_to_pages_of_the_site(site):
    text = "[a](../examples/own_task.py) [b](../README.md#two-commands) [c](specs.md) [d](https://x.org/y)"
    assert site.relinked(text, "tasks.md") == (
        "[a](source/examples/own_task.py.md) [b](index.md#two-commands) [c](specs.md) [d](https://x.org/y)"
    )
    assert site.relinked("[a](docs/specs.md#every-key)", "index.md") == "[a](specs.md#every-key)"
    changes = "project/changelog.md"
    assert site.relinked("[a](docs/specs.md) [b](#added)", changes) == "[a](../specs.md) [b](#added)"
    folder = site.relinked("[a](../examples/own_rule)", "sweeps.md")
    assert folder == "[a](source/examples/own_rule.md)"


def test_code_on_a_page_is_left_alone(site):
    text = "`[a](../README.md)`\n\n```text\n[a](../README.md)\n```\n"
    assert site.relinked(text, "tasks.md") == text


def test_a_bar_in_code_and_a_mean_with_its_deviation_stay_whole_in_tables(site):
    row = "| `scale` | `float \\| None` | 1.0 ± 0.1 |"
    assert site.table_row(row) == "| `scale` | <code>float &#124; None</code> | 1.0\u00a0±\u00a00.1 |"


def test_every_file_that_a_page_links_to_becomes_a_page_that_shows_it(site):
    made = site.generated()
    assert site.linked()
    for target in site.linked():
        page = made[f"source/{target}.md"]
        shown = ROOT / target
        assert shown.is_dir() or shown.read_text(encoding="utf-8").rstrip() in page


def test_every_module_with_public_names_has_an_api_page(site):
    made = site.generated()
    for name in ("aggregators", "attacks", "distributed", "errors", "flower", "theory.nsgdm"):
        assert f"::: byzopt.{name}\n" in made[f"api/{name}.md"]
        assert f"({name}.md)" in made["api/README.md"]


def test_the_gallery_holds_every_chart_of_every_reproduction_with_its_command(site):
    text = site.gallery()
    for picture in (ROOT / "docs" / "reproductions").glob("*/*.png"):
        assert f"({picture.relative_to(ROOT / 'docs').as_posix()})" in text
    sections = text.split("\n## ")[1:]
    assert all(re.search(r"```bash\nbyzopt (run|reproduce) \S+\n```", section) for section in sections)


def test_a_star_in_the_navigation_stands_for_the_pages_without_a_place(site):
    nav = [
        {"A": "a.md"},
        {"B": ["b/two.md", "b/*"]},
        {"C": "c/*"},
        {"None": "none/*"},
        {"Rest": ["*"]},
    ]
    names = ["a.md", "b/one.md", "b/two.md", "c/x/README.md", "c/x/deep.md", "z.md", "source/s.py.md"]
    assert site.expanded(nav, names) == [
        {"A": "a.md"},
        {"B": ["b/two.md", "b/one.md"]},
        {"C": ["c/x/README.md"]},
        {"Rest": ["z.md"]},
    ]


FAULTS = {
    "[a](nowhere.md)": "nowhere.md",
    "[a](#nothing)": "#nothing",
    "[a](../nowhere.py)": "nowhere.py",
    "![a](none.png)": "none.png",
    "[a][byzopt.attacks.Nobody]": "byzopt.attacks.Nobody",
}
MISSING = {"::: byzopt.nowhere": "byzopt.nowhere"}


@pytest.mark.parametrize("faults", [FAULTS, MISSING], ids=["links", "module"])
def test_the_build_is_strict(faults, tmp_path):
    pytest.importorskip("mkdocs")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("\n\n".join(["# Home", *faults]), encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    settings = settings.replace("hooks: [scripts/site_pages.py]\n", "")
    settings = settings.replace("paths: [src]", f"paths: [{ROOT / 'src'}]")
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for said in faults.values():
        assert said in done.stderr + done.stdout
