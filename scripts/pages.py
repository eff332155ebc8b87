"""Render docs/reproductions/*/README.md again from the numbers that are kept beside it, results.json.

A page is written by `byzopt reproduce` from stored runs. The runs themselves are not kept here, their values
are: after a change to verdicts, declarations or words this script judges those values again and rewrites the
pages. Charts stay as they were drawn, with the captions that they had.

    python scripts/pages.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from byzopt.errors import Status
from byzopt.experiments import Outcome, Spec
from byzopt.reports.reproduction import dump_results, fit_data
from byzopt.reports.reproduction_page import part_title, reproduction_markdown
from byzopt.reports.study.chart import Chart
from byzopt.reproductions.fits import FittedValue, fit_values
from byzopt.reproductions.loading import load_reproduction
from byzopt.reproductions.reproduction import Part
from byzopt.reproductions.running import CellRun, ReproducedTables
from byzopt.reproductions.verdict import ComparedCell, compare_cell

PAGES = Path(__file__).resolve().parent.parent / "docs" / "reproductions"
_SEEDS = re.compile(r" Seeds ([\d, ]+?)( to \d+)?\.$", re.MULTILINE)
_SHORT = "Shortened with `--quick`"
_CHART = re.compile(
    r"^!\[(?P<title>.*)\]\((?P<name>.*)\.png\)\n\n(?P=title)\. (?P<caption>.*)$", re.MULTILINE
)


def main() -> int:
    """Rewrite every page; with `--check` only say which ones are stale."""
    found = made()
    stale = [path for path, text in found.items() if path.read_text(encoding="utf-8") != text]
    for path in stale if "--check" not in sys.argv else ():
        path.write_text(found[path], encoding="utf-8")
    print("\n".join(str(path.relative_to(PAGES)) for path in stale) or "all pages are as they should be")
    return 1 if stale and "--check" in sys.argv else 0


def made() -> dict[Path, str]:
    """Every page and every results.json as it should be."""
    found = {}
    for results in sorted(PAGES.glob("*/results.json")):
        page = results.with_name("README.md")
        text, told = page.read_text(encoding="utf-8"), json.loads(results.read_text(encoding="utf-8"))
        account = account_of(text, told)
        found |= {page: rendered(text, account), results: dump_results(judged_again(told, account))}
    return found


def rendered(text: str, account: ReproducedTables) -> str:
    """The page that `text` should be, with the charts that it has."""
    charts = [
        Chart(found["name"], found["title"], found["caption"], None, ()) for found in _CHART.finditer(text)
    ]
    return reproduction_markdown(account, charts)


def account_of(text: str, told: dict[str, Any]) -> ReproducedTables:
    """What the values in a page's results.json come to today."""
    it = load_reproduction(told["reproduction"])
    it = it.chosen(quick=True) if _SHORT in text else it
    it = replace(it, parts=tuple(_seeded(part, text) for part in it.parts))
    values = {
        (one["part"], one["protocol"], tuple(one["at"]), one["measure"]): {
            int(seed): value for seed, value in one["values"].items()
        }
        for one in told["cells"]
    }
    lines, fits = list[ComparedCell](), list[FittedValue]()
    for part in it.parts:
        own = [
            compare_cell(part, cell, measure, found, len(part.seeds) - len(found))
            for cell in part.cells
            for measure in part.measures
            for found in [values.get((part.name, part.protocol, cell.at, measure.name), {})]
        ]
        lines += own
        fits += [one for fit in part.fits for one in fit_values(part, fit, own)]
    return ReproducedTables(it, _specs(told), tuple(lines), tuple(fits))


def _specs(told: dict[str, Any]) -> dict[tuple[str, str, tuple[str, ...]], list[CellRun]]:
    """The spec of a run of each cell, of which nothing else is kept."""
    lost = Outcome(Status.INTERRUPTED, 0, 0.0, ())
    found = {}
    for one in told["cells"]:
        if "spec" in one:
            seed, run = next(iter(one["runs"].items()))
            key = one["part"], one["protocol"], tuple(one["at"])
            found[key] = [CellRun(int(seed), run, Spec.of(one["spec"]), lost)]
    return found


def _seeded(part: Part, text: str) -> Part:
    """The part with the seeds that the page was written for."""
    section = text.partition(f"\n## {part_title(part)}\n")[2].partition("\n## ")[0]
    found = _SEEDS.search(section)
    if found is None or (found[1] == str(part.seeds[0]) and found[2]):
        return part
    return replace(part, seeds=tuple(int(seed) for seed in re.findall(r"\d+", found[1])))


def judged_again(told: dict[str, Any], account: ReproducedTables) -> dict[str, Any]:
    """The numbers of results.json with today's verdicts."""
    lines = {(li.part.name, li.part.protocol, li.cell.at, li.measure.name): li for li in account.lines}
    cells = []
    for one in told["cells"]:
        line = lines[one["part"], one["protocol"], tuple(one["at"]), one["measure"]]
        new = {"paper": line.printed, "verdict": line.verdict}
        cells.append({key: new.get(key, value) for key, value in one.items()})
    fits = {"fits": [fit_data(one) for one in account.fitted]} if account.fitted else {}
    return told | {"cells": cells} | fits


if __name__ == "__main__":
    raise SystemExit(main())
