"""The page of a reproduction: words, tables, values seed by seed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from byzopt.attacks import NoAttack
from byzopt.escaping import markdown as prose
from byzopt.escaping import markdown_cell
from byzopt.experiments import Spec
from byzopt.reports.study.chart import Chart, slug
from byzopt.reproductions.fits import FittedValue
from byzopt.reproductions.reproduction import Part
from byzopt.reproductions.running import ReproducedTables
from byzopt.reproductions.searched import searched_of
from byzopt.reproductions.verdict import ComparedCell

SIDES = {"": "", "at_least": "≥ ", "at_most": "≤ "}
MOST_SEEDS = 10  # that a page shows one by one


def reproduction_markdown(account: ReproducedTables, drawn: Sequence[Chart] = ()) -> str:
    """The page: what the reproduction is, then its parts, with the charts that lie beside it."""
    it = account.reproduction
    text = [
        f"# {markdown_cell(it.title)}",
        "",
        f"Written by `byzopt reproduce {it.name}` from stored runs. Paper: {prose(it.paper)}.",
    ]
    text += ["", *prose(it.remarks.strip()).splitlines(), *_searched(it.name)]
    for part in it.parts:
        lines = drop_empty([line for line in account.lines if line.part is part and line.values])
        fits = [one for one in account.fitted if one.part is part]
        text += (
            _section(part, lines, fits, drawn, attacks_of(account, part))
            if lines
            else [*_headed(part), "Not run here."]
        )
    return "\n".join(text) + "\n"


def _searched(name: str) -> list[str]:
    """What searches leave of the presets of the same paper."""
    paper, _, shipped = name.partition("/")
    found = searched_of(paper) if shipped else {}
    lead = (
        "**Under attacks that search** each round for the rows to send (`autobyz`, in `byzopt stress "
        "PRESET`), on one seed. The tables below are of other attacks, which they name:"
    )
    return ["", lead, "", *(f"- `{preset}`: {told}" for preset, told in found.items())] if found else []


def attacks_of(account: ReproducedTables, part: Part) -> str:
    """On which attacks the verdicts of a part rest."""
    here = (runs for key, runs in account.found.items() if key[:2] == (part.name, part.protocol))
    return attack_sentence([run.spec for runs in here for run in runs])


def attack_sentence(specs: Sequence[Spec]) -> str:
    """On which attacks the verdicts of these runs rest, and that others may be worse; empty for no runs."""
    attacked = [spec for spec in specs if spec.cohort.byzantine and spec.attack != NoAttack()]
    names = list(dict.fromkeys(type(spec.attack).name for spec in attacked))
    if not names:
        return "Nobody attacks in these runs: the verdicts say nothing about liars." if specs else ""
    lead = "The verdicts rest on " + ", ".join(f"`{name}`" for name in names)
    if "autobyz" in names:
        return f"{lead}. `autobyz` searches each round, against the rule as it stands."
    return (
        f"{lead}, and on no attack that searches each round among all rows that liars could send, as "
        "`autobyz` does against the rule as it stands. Worse may exist; where there is a server, `byzopt "
        "stress` measures it."
    )


def drop_empty(lines: Sequence[ComparedCell]) -> list[ComparedCell]:
    """Without what a run never came to, a round or a level, and nothing is printed of."""
    came = {line.cell.at for line in lines if line.known}
    return [line for line in lines if line.known or line.printed or line.cell.at not in came]


def cell_columns(part: Part) -> list[str]:
    """The names of the columns of `row`; where nothing is printed, there is nothing beside ours."""
    theirs, apart = ([comparison_source(part)], ["difference"]) if _compared(part) else ([], [])
    return [*part.axes, "measure", *theirs, "ours", "runs", *apart, "verdict"]


def cell_row(line: ComparedCell) -> list[str]:
    """A line of a table as texts: labels, measure, the paper's, ours, difference, verdict."""
    digits = line.measure.digits
    paper = "-" if line.printed is None else SIDES[line.cell.limit] + _pair(*line.printed, digits)
    ours = "-" if line.mean is None else _pair(line.mean, line.deviation, digits)
    apart = "-" if line.difference is None else f"{line.difference:+.{digits}f}"
    texts = [*line.cell.at, line.measure.name]
    if _compared(line.part):
        return [*texts, paper, ours, str(len(line.values)), apart, line.verdict]
    return [*texts, ours, str(len(line.values)), line.verdict.replace("nothing printed", "")]


def _compared(part: Part) -> bool:
    return any(cell.printed for cell in part.cells)


def comparison_source(part: Part) -> str:
    """Whose numbers stand beside those of the runs, for people: orientation figures are no paper's."""
    return f"{part.beside} (our own)" if part.beside == "orientation" else part.beside


def verdict_counts(lines: Sequence[ComparedCell | FittedValue]) -> str:
    """How many lines have which verdict, numbers of runs aside."""
    counts = Counter(re.split("[:;]", line.verdict)[0] for line in lines)
    if set(counts) <= {"nothing printed"}:
        return "Nothing printed to compare with."
    others = {comparison_source(line.part) for line in lines} - {"paper"}
    whose = f" beside {', '.join(sorted(others))}" if others else ""
    return f"Verdicts{whose}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + "."


def part_title(part: Part) -> str:
    """A part's name for people."""
    return f"{part.name}, {part.protocol.replace('-', ' ')}"


def part_slug(part: Part) -> str:
    """A part's name in names of files."""
    return slug(f"{part.name}-{part.protocol}")


def fit_columns(part: Part) -> list[str]:
    """The names of the columns of `fit_row`."""
    expected = comparison_source(part) if part.beside == "orientation" else "expected"
    return ["of several cells", "at", expected, "ours", "difference", "verdict"]


def fit_row(one: FittedValue) -> list[str]:
    """A line of the table of fits as texts."""
    digits, expected = one.fit.digits, one.expected
    at = ", ".join(f"{axis} {label}" for axis, label in one.labels.items()) or "all"
    wanted = "-" if expected is None else f"{'≤ ' * expected.or_less}{expected.value:.{digits}f}"
    ours = "-" if one.value is None else _pair(one.value, one.spread, digits)
    known = one.value is not None and expected is not None
    apart = f"{one.value - expected.value:+.{digits}f}" if known else "-"  # type: ignore[operator, union-attr]
    return [one.fit.name, at, wanted, ours, apart, one.verdict]


def _section(
    part: Part,
    lines: Sequence[ComparedCell],
    fits: Sequence[FittedValue],
    drawn: Sequence[Chart],
    attacks: str,
) -> list[str]:
    text = [*_headed(part), *prose(part.remarks.strip()).splitlines(), ""]
    if part.shortened:
        what = f"only what the first {part.unchanged} rounds decide" if part.unchanged else "nothing"
        text += [f"Shortened with `--quick`: {what} is compared.", ""]
    whose = "Printed" if part.beside == "paper" else comparison_source(part).capitalize()
    text += [f"{markdown_cell(whose)}: {prose(part.source) or 'nothing'}. Seeds {_seeds_said(part)}.", ""]
    text += [attacks, ""] if attacks else []
    if fits:
        text += [*_table(fit_columns(part), [fit_row(one) for one in fits]), "", verdict_counts(fits), ""]
    text += _table(cell_columns(part), [cell_row(line) for line in lines])
    missing = len(part.cells) - len({line.cell.at for line in lines})
    text += ["", verdict_counts(lines) + (f" Cells not run: {missing}." if missing else "")]
    if len(part.seeds) > MOST_SEEDS:
        text += ["", "Every seed's value is in results.json."]
    elif len(part.seeds) > 1:
        text += ["", "Seed by seed:", "", *_seeds(part, lines)]
    for chart in drawn:
        if chart.name.startswith(part_slug(part)):
            title, caption = markdown_cell(chart.title), markdown_cell(chart.caption)
            text += ["", f"![{title}]({chart.name}.png)", "", f"{title}. {caption}"]
    return text


def _headed(part: Part) -> list[str]:
    return ["", f"## {markdown_cell(part_title(part))}", ""]


def _seeds_said(part: Part) -> str:
    seeds = part.seeds
    if len(seeds) > MOST_SEEDS and seeds == tuple(range(len(seeds))):
        return f"0 to {len(seeds) - 1}"
    return ", ".join(map(str, seeds))


def _seeds(part: Part, lines: Sequence[ComparedCell]) -> list[str]:
    seeds = part.seeds
    body = [
        [*line.cell.at, line.measure.name, *(_number(line.values.get(seed)) for seed in seeds)]
        for line in lines
    ]
    return _table([*part.axes, "measure", *(f"seed {seed}" for seed in seeds)], body)


def _table(names: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(names)
    return [f"| {' | '.join(map(markdown_cell, cells))} |" for cells in (names, rule, *body)]


def _pair(mean: float, spread: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
