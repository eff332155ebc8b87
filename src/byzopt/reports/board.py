"""The benchmark's tables: overall, cell by cell, what was chosen, what was run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from statistics import fmean

from byzopt.benchmark.entries import shipped_entries
from byzopt.benchmark.protocol import ATTACK_SET, PROTOCOL, REFERENCE, TUNED_AGAINST, Cell, cells
from byzopt.benchmark.ranking import Overall, Place, by_cell, current, overall
from byzopt.benchmark.rows import Row, Setting, is_current, once, trusts
from byzopt.benchmark.scoring import complete, figures
from byzopt.experiments.sweeps.runs import point_text
from byzopt.reports.study.figures_of import Figure, figure_of
from byzopt.reports.study.sheet import Cell as Entry
from byzopt.reports.study.sheet import ReportTable
from byzopt.stress.catalogue import NO_ATTACK

NOT_RUN = "not run"
KNOWN, PACE = ("best known", "by"), "round / mean's"  # columns that are there where they say something


def board_tables(rows: Sequence[Row]) -> list[ReportTable]:
    """All tables of the benchmark, the ranking first.

    Rows of another protocol or attack set are named and not ranked.
    """
    kept = current(rows)
    placed = by_cell(kept)
    ranked = overall(kept, placed)
    trusting = {row.entry for row in kept if trusts(row)}
    tables = [overall_table([one for one in ranked if one.entry not in trusting], "")]
    if any(one.entry in trusting for one in ranked):
        mine = [one for one in ranked if one.entry in trusting]
        tables.append(overall_table(mine, " that trust data of their own"))
    tables += [cell_table(Cell.of(name), places, kept) for name, places in placed.items()]
    tables += [*settings_tables(kept), coverage_table(kept), *_outdated(rows)]
    return [one for one in tables if one.rows]


def overall_table(ranked: Sequence[Overall], kind: str) -> ReportTable:
    """The defences over the cells that count."""
    rows: list[tuple[Entry, ...]] = [
        (
            one.entry,
            rank_text(one.rank, one.tied),
            100 * one.share,
            f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            f"{one.cells} of {one.counted}",
            one.title,
        )
        for one in ranked
    ]
    text = (
        "Share: how much of the way from knowing nothing (0) to training by the mean without attack (100) is "
        "left under the worst attack, mean over the cells that were run. The interval holds 95 % of what "
        "resampled seeds give, the same seeds in all cells. A rank is one more than how many defences are "
        "better in 97.5 % of the resamples, and no better than that of one with a larger share; = marks a "
        "tie with another. Cells count in which at least half of the defences were measured; "
        "only defences with a score in all of these have a rank."
    )
    head = ("defence", "rank", "share", "interval", "cells", "what it is")
    name = "overall" + kind.replace(" ", "-")
    return ReportTable(name, f"Defences{kind}", text, head, rows, {"share": ".1f"})


def cell_table(cell: Cell, placed: Sequence[Place], rows: Sequence[Row]) -> ReportTable:
    """The defences in one cell, best first; those that were not measured whole at the end."""
    figure = figure_of(cell.rules.figure)
    mean = next((row for row in rows if (row.cell, row.entry) == (cell.name, REFERENCE)), None)
    body = [_line(one, figure, mean) for one in placed]
    body += [
        (_named(kept), "-", None, state(kept), *[None] * 7)
        for kept in rows
        if kept.cell == cell.name and not complete(kept)
    ]
    label = f"{figure.label[:1].lower()}{figure.label[1:]}"
    head: tuple[str, ...] = (
        "defence", "rank", f"worst {label}", "interval", "worst attack", "each seed", *KNOWN,
        "without attack", "lost without attack", PACE,
    )  # fmt: skip
    digits = dict.fromkeys(
        (f"worst {label}", "best known", "without attack", "lost without attack"), figure.digits or ".3g"
    )
    liars = f"{cell.f} of {cell.n} workers lie"
    text = (
        f"{cell.rules.title}, data dealt by {cell.partition}; {liars}. Figures are means over the last tenth "
        f"of {cell.spec['rounds']} rounds and over seeds. Lost without attack: beside the mean's. "
    )
    outside, timed = any(one.row.outside for one in placed), any(one.row.slower for one in placed)
    if outside:
        text += "Best known: the worst that any attack has done, those entered by others too. "
    text += "Round: computing time beside the mean's. " if timed else "Times of rounds were not measured. "
    if any(len(one.row.rules) > 1 for one in placed):
        text += "A defence with lots draws some: its figures are means over two draws of them, too."
    text += _differing(cell, rows)
    dropped = {*(() if outside else KNOWN), *(() if timed else (PACE,))}
    told = [i for i, name in enumerate(head) if name not in dropped]
    head, body = tuple(head[i] for i in told), [tuple(line[i] for i in told) for line in body]
    return ReportTable(f"cell-{cell.name}", cell.name, text, head, body, {**digits, PACE: ".2f"})


def settings_tables(rows: Iterable[Row]) -> Iterator[ReportTable]:
    """Which setting each defence was given in each cell, and what the others came to."""
    body: list[tuple[Entry, ...]] = []
    for row in rows:
        figure = figure_of(row.figure)
        scores = [
            f"{_setting_text(one)}: "
            + ("failed" if one.score is None else f"{figure.unit(one.score):{figure.digits or '.3g'}}")
            for one in row.tries
        ]
        if row.tries:
            best = max(row.tries, key=lambda one: _worth(one.score, row.rises))
            body.append((row.cell, _named(row), _setting_text(best), "; ".join(scores)))
    text = (
        f"Chosen by the worst of {', '.join(TUNED_AGAINST)} in the last round, on a seed that no other "
        "figure has, and on samples held out of training where the task measures on test samples. Every "
        "defence names three settings; attackers have none. The mean, which defends against nothing, is "
        "tuned without attack."
    )
    yield ReportTable("settings", "Settings", text, ("cell", "defence", "chosen", "tried"), body)


def coverage_table(rows: Sequence[Row]) -> ReportTable:
    """What was run of the core, and of what else there are rows: a line for each cell."""
    names = list(dict.fromkeys([*(one.name for one in cells("core")), *(row.cell for row in rows)]))
    entries = list(dict.fromkeys([*shipped_entries(), *(row.entry for row in rows)]))
    found = {(row.cell, row.entry): row for row in rows}
    body: list[tuple[Entry, ...]] = []
    for name in names:
        kinds: dict[str, list[str]] = {"whole": [], "in part": [], "does not fit": [], NOT_RUN: []}
        for entry in entries:
            row = found.get((name, entry))
            kind = NOT_RUN if row is None else "does not fit" if row.refused else "in part"
            kind = "whole" if row is not None and complete(row) else kind
            kinds[kind].append(f"{entry} ({state(row)})" if kind == "in part" else entry)
        body.append((name, *(_listed(kind, len(entries)) for kind in kinds.values())))
    text = (
        f"Every cell of the core and every entry that comes with byzopt; protocol {PROTOCOL}, attack set "
        f"{ATTACK_SET}. What is not run is not known."
    )
    return ReportTable("coverage", "What was run", text, ("cell", *kinds), body)


def state(row: Row | None) -> str:
    """How far a row is."""
    if row is None:
        return NOT_RUN
    if row.refused:
        return "does not fit"
    whole = len(Cell.of(row.cell).attacks)
    outside = f", {len(row.outside)} of others" if row.outside else ""
    return f"{len(row.hits)} of {whole} attacks{outside}"


def _listed(names: Sequence[str], every: int) -> str:
    return f"all {every}" if len(names) == every else ", ".join(names) or "none"


def rank_text(rank: int | None, tied: bool) -> str:
    """A rank for people: `2`, `2 =` for one of several; `-` for none."""
    return "-" if rank is None else f"{rank} =" if tied else str(rank)


def _line(one: Place, figure: Figure, mean: Row | None) -> tuple[Entry, ...]:
    row, score = one.row, one.score
    seeds = figures(row, row.hits[score.attack])
    digits = figure.digits or ".3g"
    lost = None
    if mean is not None and NO_ATTACK in mean.hits:
        calm, mine = figure.unit(fmean(figures(mean, mean.hits[NO_ATTACK]))), figure.unit(score.clean)
        lost = calm - mine if row.rises else mine - calm
    return (
        _named(row),
        rank_text(one.rank, one.tied),
        figure.unit(score.value),
        f"{figure.unit(score.low):{digits}} to {figure.unit(score.high):{digits}}",
        score.attack,
        ", ".join(f"{figure.unit(value):{digits}}" for value in seeds),
        figure.unit(score.known),
        score.known_attack,
        figure.unit(score.clean),
        lost if lost is None or isfinite(lost) else None,
        row.slower,
    )


def _differing(cell: Cell, rows: Sequence[Row]) -> str:
    """How much honest data differ in a cell, and what follows from it whatever the rule."""
    known = next((row.different for row in rows if row.cell == cell.name and row.different), None)
    if known is None:
        return ""
    ratio = cell.f / (cell.n - 2 * cell.f)
    listed = ", ".join(f"{h:.3g} (r h = {ratio * h:.3g}) at round {t:.0f}" for t, h in known)
    return (
        f" Honest full gradients differ by h = var/‖m‖² = {listed} of a training by the mean; where r h, "
        f"with r = f/(n - 2 f) = {ratio:.3g}, is 1 or more, no rule whatever can promise that its answer "
        "points the right way."
    )


def _setting_text(tried: Setting) -> str:
    """A setting with its rates to six digits: they are products with a task's unit."""
    rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in tried.setting.items()}
    return point_text(rounded)


def _named(row: Row) -> str:
    marks = (", lots" if len(row.rules) > 1 else "") + (", trusted data" if trusts(row) else "")
    return f"{row.entry}{marks}"


def _worth(score: float | None, rises: bool) -> float:
    return float("-inf") if score is None else score if rises else -score


def _outdated(rows: Sequence[Row]) -> Iterator[ReportTable]:
    old = [row for row in once(rows) if not is_current(row)]
    body: list[tuple[Entry, ...]] = [(row.cell, row.entry, row.protocol, row.attack_set) for row in old]
    text = "Taken under another protocol or attack set: not comparable, and not ranked."
    yield ReportTable("outdated", "Earlier rows", text, ("cell", "entry", "protocol", "attack set"), body)
