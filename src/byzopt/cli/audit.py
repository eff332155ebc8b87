"""`byzopt audit`: a run watched from outside, its measured oracle beside the proved one, and what follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.options import at_least
from byzopt.cli.parameters import AsJson, MoreSettings, Settings, SpecName

if TYPE_CHECKING:
    from byzopt.certificates.audit import Audit
    from byzopt.theory.promise import Promise

LINES = 12  # rounds that the table shows


def command(
    spec: SpecName,
    more: MoreSettings = None,
    settings: Settings = None,
    rounds: Annotated[
        int | None, typer.Option(callback=at_least(1), help="Rounds to watch. Default: the spec's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a rule's error oracle (zeta^2, alpha) in a run, and say what each theorem then promises.

    Per round kappa-hat = |g - m|^2 / variance of the honest rows, m their mean, and |g - m| / mean distance
    to m, against the proved coefficients; over the run G, B; on the task L, mu, Delta. Variants of the spec
    are left out.
    """
    from byzopt.certificates.audit import audit
    from byzopt.cli.progress import StageProgress, remark
    from byzopt.experiments import load

    loaded = load(spec, [*(settings or ()), *(more or ())], compare=False)
    remark({spec: loaded})
    with StageProgress() as tell:
        result = audit(loaded, rounds, tell)
    if as_json:
        print(json.dumps(audit_data(result), allow_nan=False))
    else:
        _print(result)


def audit_data(result: Audit) -> dict[str, Any]:
    """The audit as plain data: "inf" for what is infinite, null in place of what is unknown."""
    from byzopt.cli.promises import finite, plain_constants, plain_promise

    hats = {"kappa_hat": result.kappa_hat, "linear_hat": result.linear_hat}
    hats |= {"zeta_squared": result.zeta_squared, "alpha": result.alpha}
    return {
        "rounds": [finite(r._asdict()) for r in result.rounds],
        **finite(hats),
        "certified": finite(
            {
                "worst_squared": result.worst[0],
                "worst_linear": result.worst[1],
                "median_squared": result.middle[0],
                "median_linear": result.middle[1],
            }
        ),
        "kappa": result.kappa,
        "linear": result.linear,
        "G": result.pair.g,
        "B": result.pair.b,
        "constants": plain_constants(result.known),
        "proved": {name: plain_promise(promise) for name, promise in result.proved.items()},
        "measured": {name: plain_promise(promise) for name, promise in result.measured.items()},
        "with_certificates": plain_promise(result.certified) if result.certified else None,
        "message": result.message,
    }


def _print(result: Audit) -> None:
    from rich.table import Table

    from byzopt.certificates.audit import kappa_times
    from byzopt.cli import terminal
    from byzopt.cli.promises import lines

    console = terminal.console(width=160)
    title = f"Largest kappa-hat {result.kappa_hat:.4g}; {_proved(result.kappa)}"
    title += (
        f". In the linear form {result.linear_hat:.4g}; {_proved(result.linear)}.\nCertified of the answers: "
    )
    title += f"worst {result.worst[0]:.4g}, median {result.middle[0]:.4g}; linear {result.worst[1]:.4g}, "
    title += f"{result.middle[1]:.4g} (inf: not certified)"
    table = Table("round", title=title, title_justify="left")
    for name in (
        "kappa-hat",
        "certified",
        "linear",
        "certified",
        "variance",
        "|m|",
        "error",
        "zeta^2",
        "alpha",
    ):
        table.add_column(name, justify="right")
    step = max(1, -(-len(result.rounds) // LINES))
    for r in [*result.rounds[:-1:step], *result.rounds[-1:]]:
        oracle = (kappa_times(r.kappa_hat, result.pair.g**2), kappa_times(r.kappa_hat, result.pair.b**2))
        hats = (r.kappa_hat, r.certified, r.linear_hat, r.certified_linear)
        figures = (*hats, r.variance, r.grad_norm, r.error, *oracle)
        table.add_row(str(r.t), *(f"{value:.4g}" for value in figures))
    console.print(table)
    pair = f"G = {result.pair.g:.4g}, B = {result.pair.b:.4g}"
    print(f"Over the run: {pair}, zeta^2 = {result.zeta_squared:.4g}, alpha = {result.alpha:.4g}")
    print("\n".join(known_lines(asdict(result.known))))
    titles = {"the proved coefficients": result.proved, "those measured in this run": result.measured}
    for title, promises in titles.items():
        print(f"\nWith {title}, {result.method}:")
        print("\n".join(lines(promises[result.method], result.known.lr)))
        others = {name: promise for name, promise in promises.items() if name != result.method}
        console.print(promise_table(f"Other methods, with {title} and their own steps", others))
    if result.certified is not None and result.certified.theorem != "none":
        print(f"\nWith the coefficients certified of this run's answers, {result.method}:")
        print("\n".join(lines(result.certified, result.known.lr)))
    if result.message:
        print(f"The run ended early: {result.message}")


def _proved(kappa: float | None) -> str:
    return "none is proved" if kappa is None else f"proved {kappa:.4g}"


def known_lines(values: Mapping[str, Any]) -> list[str]:
    """Known constants in a line, those that are estimates marked by ~, and what was corrected about them."""
    names = {"lipschitz": "L", "delta": "Delta", "kappa_squared": "kappa2", "kappa_linear": "kappa"}
    skipped = ("convex", "lr", "horizon")
    counts = ("n", "f", "d", "rounds", "attackers", "tolerated", "kappa_squared", "kappa_linear")
    exact = {*values["exact"], *(("g", "b") if {"pairs", "zeta"} & set(values["exact"]) else ())}
    parts = []
    for name, value in values.items():
        if isinstance(value, (int, float)) and name not in skipped:
            sign = "=" if name in exact or name in counts else "~"
            parts.append(f"{names.get(name, name)} {sign} {value:.4g}")
    line = "On this task (~: estimated): " + ", ".join(parts)
    return [line, *(f"  corrected: {note}" for note in values["notes"])]


def promise_table(title: str, promises: Mapping[str, Promise]) -> Any:
    """A table of promises by method; of several reasons why there is none it shows the first."""
    from rich.table import Table

    from byzopt.cli.promises import bound_words, steps_line

    table = Table("method", "theorem", title=title, title_justify="left")
    for name in ("bound", "floor"):
        table.add_column(name, justify="right")
    table.add_column("what it rests on, or what is missing")
    for name, promise in promises.items():
        missing, more = promise.missing, len(promise.missing) - 1
        about = [missing[0] + (f" (and {more} more, see --json)" if more else "")] if missing else []
        if not promise.broken:
            about += [f"steps {steps_line(promise)}"] if promise.steps else []
            about += [f"rests on {len(promise.estimated)} estimates"] if promise.estimated else []
        words = (bound_words(promise), bound_words(promise, "floor"), "; ".join(about))
        table.add_row(name, promise.theorem.partition(" (")[0], *words)
    return table
