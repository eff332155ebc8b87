"""The result of a run as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from byzopt.certificates.certified import error_bound_sentence, summarise_certificates
from byzopt.errors import Status
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.specs.plain_spec import PlainSpec

FIGURES = ("loss", "accuracy", "perplexity", "grad_norm")
NO_SUCCESS = "the starting point is the better answer"
NO_SPECS: Mapping[str, Spec] = {}
COLOURS = {Status.COMPLETED: "green", Status.CONVERGED: "green", Status.INTERRUPTED: "yellow"}


def outcome_table(spec: Spec, outcomes: Mapping[str, Outcome]) -> Table:
    """One row for each variant: what it was, how it ended, its final figures."""
    figures = [name for name in FIGURES if any(name in outcome.metrics for outcome in outcomes.values())]
    plain = PlainSpec(spec.data)
    table = Table(title=spec_title(plain), title_justify="left", title_style="bold")
    for name in ("variant", "method", "rule", "attack"):
        table.add_column(name, overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in (*figures, "rounds", "seconds"):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for name, variant in plain.variants.items():
        if name in outcomes:
            table.add_row(*_row(name, variant, outcomes[name], figures))
    return table


def outcome_notes(outcomes: Mapping[str, Outcome], specs: Mapping[str, Spec] = NO_SPECS) -> Iterator[str]:
    """Lines for each variant: why it ended so, whether the start was better, whom its server expelled, and
    what bounds the error of its aggregates. Without the `specs` only what was certified along the run is said
    of that."""
    for name, outcome in outcomes.items():
        if outcome.message:
            yield f"{name}: {outcome.message}"
        if outcome.risen:
            first, last = outcome.risen
            yield f"{name}: the loss rose from {first:.4g} at the start to {last:.4g}: {NO_SUCCESS}"
        yield from (f"{name}: {line}" for line in _expulsions(outcome, specs.get(name)))
        if outcome.status is Status.INTERRUPTED and outcome.records:
            yield f"{name}: the figures are those of round {outcome.records[-1]['t']:.0f}, the last measured"
        if name in specs:
            certified = error_bound_sentence(specs[name], outcome)
        else:
            certified = str(summarise_certificates(outcome.records) or "")
        if certified:
            yield f"{name}: {certified}"


def _expulsions(outcome: Outcome, spec: Spec | None) -> Iterator[str]:
    """Whom the server expelled, how many of these were honest, and whether anybody is left."""
    if not outcome.expelled:
        return
    yield "expelled workers " + ", ".join(f"{i} (round {t}, {why})" for i, t, why in outcome.expelled)
    if spec is None:
        return
    honest = sum(i in spec.cohort.honest for i, *_ in outcome.expelled)
    if honest:
        verb = "is" if honest == 1 else "are"
        yield f"{honest} of the {len(outcome.expelled)} expelled {verb} honest"
    if len(outcome.expelled) == spec.n:
        last = max(t for _, t, _ in outcome.expelled)
        yield f"nobody is left since round {last} of {outcome.rounds}: no row counted after it"


def last_line(outcomes: Mapping[str, Outcome]) -> str:
    """Which runs ended worse than they started, in a line; "" where none did."""
    names = [name for name, outcome in outcomes.items() if outcome.risen]
    which = "" if len(outcomes) == 1 else f": {'; '.join(names)}"
    return f"Worse at the end than at the start{which}" if names else ""


def spec_title(spec: PlainSpec) -> str:
    """What the run is about, in a line."""
    return f"{spec.data['task']['name']}: {_attackers(spec)} of {spec.data['n']} workers hostile"


def rule_names(spec: PlainSpec) -> str:
    """The rule by the names of its stages: `nnm >> krum`."""
    return " >> ".join(str(stage["name"]) for stage in spec.data["rule"])


def attack_of(spec: PlainSpec) -> str:
    """The attack's name; "none" where nobody attacks."""
    return str(spec.data["attack"]["name"]) if _attackers(spec) else "none"


def _attackers(spec: PlainSpec) -> int:
    attackers = spec.data.get("attackers", spec.data["f"])
    return attackers if isinstance(attackers, int) else len(attackers)


def _row(name: str, variant: PlainSpec, outcome: Outcome, figures: list[str]) -> list[str | Text]:
    colour = "red" if outcome.risen else COLOURS.get(outcome.status, "red")
    status = Text(outcome.ending.replace(", ", ",\n"), colour)
    about: list[str | Text] = [
        name,
        str(variant.data["method"]["name"]),
        rule_names(variant),
        attack_of(variant),
        status,
    ]
    values = [_figure(key, outcome.metrics.get(key)) for key in figures]
    return [*about, *values, str(outcome.rounds), f"{outcome.seconds:.1f}"]


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if name == "accuracy" else f"{value:.4g}"
