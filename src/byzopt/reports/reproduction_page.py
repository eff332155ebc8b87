"""The page of a reproduction: words, tables, values seed by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from byzopt.experiments.reproduce import Account
from byzopt.experiments.reproduction import Part
from byzopt.experiments.verdict import Line
from byzopt.reports.study.chart import Chart, slug


def markdown(account: Account, drawn: Sequence[Chart] = ()) -> str:
    """The page: what the reproduction is, then its parts, with the charts that lie beside it."""
    it = account.reproduction
    text = [
        f"# {it.title}",
        "",
        f"Written by `byzopt reproduce {it.name}` from stored runs. Paper: {it.paper}.",
    ]
    text += ["", *it.remarks.strip().splitlines()]
    for part in it.parts:
        lines = [line for line in account.lines if line.part is part and line.values]
        text += _section(part, lines, drawn) if lines else ["", f"## {titled(part)}", "", "Not run here."]
    return "\n".join(text) + "\n"


def columns(part: Part) -> list[str]:
    """The names of the columns of `row`."""
    return [*part.axes, "measure", part.beside, "ours", "runs", "difference", "verdict"]


def row(line: Line) -> list[str]:
    """A line of a table as texts: labels, measure, the paper's, ours, difference, verdict."""
    digits = line.measure.digits
    paper = "-" if line.printed is None else _pair(*line.printed, digits)
    ours = "-" if line.mean is None else _pair(line.mean, line.deviation, digits)
    apart = "-" if line.difference is None else f"{line.difference:+.{digits}f}"
    return [*line.cell.at, line.measure.name, paper, ours, str(len(line.values)), apart, line.verdict]


def summary(lines: Sequence[Line]) -> str:
    """How many lines have which verdict."""
    counts = Counter(line.verdict.partition(":")[0] for line in lines)
    return "Verdicts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + "."


def titled(part: Part) -> str:
    """A part's name for people."""
    return f"{part.name}, {part.protocol.replace('-', ' ')}"


def tag(part: Part) -> str:
    """A part's name in names of files."""
    return slug(f"{part.name}-{part.protocol}")


def _section(part: Part, lines: Sequence[Line], drawn: Sequence[Chart]) -> list[str]:
    text = ["", f"## {titled(part)}", "", *part.remarks.strip().splitlines(), ""]
    if part.shortened:
        text += ["Shortened with `--quick`: nothing is compared.", ""]
    text += [f"Printed: {part.source or 'nothing'}. Seeds {', '.join(map(str, part.seeds))}.", ""]
    text += _table(columns(part), [row(line) for line in lines])
    run = len({line.cell.at for line in lines})
    told = summary(lines) + (
        f" {len(part.cells) - run} more cells were not run." if run < len(part.cells) else ""
    )
    text += ["", told, "", "Seed by seed:", "", *_seeds(part, lines)]
    for chart in drawn:
        if chart.name.startswith(tag(part)):
            text += ["", f"![{chart.title}]({chart.name}.png)", "", f"{chart.title}. {chart.caption}"]
    return text


def _seeds(part: Part, lines: Sequence[Line]) -> list[str]:
    seeds = part.seeds
    body = [
        [*line.cell.at, line.measure.name, *(_number(line.values.get(seed)) for seed in seeds)]
        for line in lines
    ]
    return _table([*part.axes, "measure", *(f"seed {seed}" for seed in seeds)], body)


def _table(names: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *body)]


def _pair(mean: float, spread: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
