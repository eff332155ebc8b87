"""The benchmark's published table: the page docs/results/board with its rows, and docs/results/benchmark.md.

    python benchmarks/board.py STORE ...

The stores (or files of rows) are those into which `byzopt benchmark run` has measured. All is drawn from
rows; nothing is typed in. What follows from the table is said in docs/which-rule.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from byzopt.benchmark import Row, by_cell, read_rows
from byzopt.benchmark.protocol import ATTACK_SET, PROTOCOL, cells
from byzopt.benchmark.ranking import current
from byzopt.reports.benchmark import save_board
from byzopt.reports.board import board_tables
from byzopt.reports.study.sheet import ReportTable

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
INTRODUCTION = """# The benchmark's table

**[The page](board/index.html)**: ranks, every attack, curves, and what was not run; its rows are in
[rows.json](board/rows.json). [Protocol and entries](../benchmark.md). Protocol {protocol}, attack set
{attack_set}.

Of the {all} cells of the core {run} have defences that were measured whole, on three seeds: differences of
some percent are chance. What is not in the tables was **not run**. What follows for your training:
[which rule](../which-rule.md).

Written by `python benchmarks/board.py` from the rows. Any of their figures is computed again by

```bash
byzopt benchmark replay docs/results/board/rows.json {entry} --cell {cell} --attack alie
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", nargs="+", type=Path)
    rows = [row for store in parser.parse_args().stores for row in read_rows(store)]
    save_board(rows, RESULTS / "board")
    (RESULTS / "benchmark.md").write_text(page(rows), encoding="utf-8")


def page(rows: list[Row]) -> str:
    """The page in Markdown."""
    placed, core = by_cell(current(rows)), [cell.name for cell in cells("core")]
    if not placed:
        raise SystemExit("No cell was measured whole under this protocol and attack set.")
    cell, places = next(iter(placed.items()))
    begin = INTRODUCTION.format(
        protocol=PROTOCOL,
        attack_set=ATTACK_SET,
        run=sum(name in placed for name in core),
        all=len(core),
        entry=places[0].row.entry,
        cell=cell,
    )
    return "\n".join([begin, *(section(one) for one in board_tables(rows))])


def section(found: ReportTable) -> str:
    """A table with its title and what it says."""
    head, texts, _ = found.joined
    lines = [head, ["---"] * len(head), *texts]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {found.title}\n\n{found.caption}\n\n{body}\n"


if __name__ == "__main__":
    main()
