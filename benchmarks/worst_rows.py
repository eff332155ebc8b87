"""The worst rows that are known for every rule, beside what is proved: docs/results/worst_rows.md.

    python benchmarks/worst_rows.py [--search [RULE ...]] [--size N F ...] [--again] [--seconds S]
                                    [--budget SETS] [--seed S]

Without --search the page is written from the certificates in the package, each replayed by one call. With
it the rules named (default: all) are searched first at every size, one after the other, for at most 60
seconds of the processor each. They begin from all that is known, of any rule at any size. What is found is
stored at once, so that the command may be stopped at any moment and goes on with what is not searched
yet; --again searches the rest too, and only what is worse is added.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from math import cos, radians
from pathlib import Path

from byzopt.aggregators import RULES, Aggregator, rule_from
from byzopt.certificates.breaking import rule_spelling
from byzopt.certificates.worst import (
    WorstRows,
    add_to_ledger,
    known_worst,
    proved_bounds,
    read_ledger,
    worst_rows,
)
from byzopt.errors import InvalidInput
from byzopt.theory import robustness

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "src" / "byzopt" / "certificates" / "worst" / "found"
PAGE = ROOT / "docs" / "results" / "worst_rows.md"
SIZES = ((20, 3), (11, 5), (50, 10))
BEHIND_NNM = ("trimmed_mean", "median", "geometric_median", "rfa", "krum", "centered_clipping")
CHAINS = tuple(f"nnm >> {name}" for name in BEHIND_NNM)
UNBOUNDED = 1e6
INTRODUCTION = """# The worst rows that are known

For each rule the largest errors of an answer over *all* rows that a search has tried, honest and faulty ones,
beside what is proved. Every figure is a certificate that comes with the package
(`byzopt.certificates.worst`): rows, replayed by one call in float64 when this page is written, and in
the tests.
`python benchmarks/worst_rows.py` makes the page, with `--search` it goes on searching.

- **squared**: ‖A - v̄‖² over the honest rows' mean ‖v_i - v̄‖²; **linear**: ‖A - v̄‖ over their mean ‖v_i - v̄‖.
  *Proved*: what it can be at most ([constants](../constants.md)).
- **turn**: the angle between the answer and v̄ where mean ‖v_i - v̄‖² = ‖v̄‖², in degrees: at 180° the step goes
  backwards. For rules that do not mind where the origin is it follows from the squared error: its sine is √κ₂
  where κ₂ < 1, and from κ₂ >= 1 on it is 180°.
- **A found figure is a lower bound**: worse rows may exist. The rows bear jitter of 1e-6 of their spread;
  figures that hang on how exact ties are broken are in parentheses, where they are more than 1 % larger.
- Rules that draw lots are searched with those of round 0, which the attacker knows; rules that trust a
  row, with that row honest. *Unbounded*: beyond 1e6. *Not searched*: nobody has looked yet.
- **How long was looked matters.** At n = 20, f = 3 half of the rules were searched for minutes and the
  others for about 4 seconds of the processor; at the other sizes for 0.1 to 3 seconds, from the worst rows
  of other sizes and rules and from families that are known to be bad. For 60 seconds more:
  `python benchmarks/worst_rows.py --search RULE --size 50 10 --again`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--search", nargs="*", metavar="RULE")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--size", nargs=2, type=int, action="append", metavar=("N", "F"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.search is not None:
        search(given.search or [*RULES, *CHAINS], given)
    PAGE.write_text(page(), encoding="utf-8")


def search(names: list[str], given: argparse.Namespace) -> None:
    """Search the rules, the first size first, and store what is found."""
    todo = [
        (name, rule, n, f)
        for n, f in given.size or SIZES
        for name, rule in able(names, n, f)
        if given.again or not known_worst(rule_spelling(rule), n, f, FOUND)
    ]
    for at, (name, rule, n, f) in enumerate(todo):
        print(f"{at + 1} of {len(todo)}: {name} at ({n}, {f}) ...", end=" ", flush=True)
        # Of what begins the search its own rows come last, so that they are tried first.
        starts = sorted(read_ledger(FOUND), key=lambda one: (one.rule == rule_spelling(rule), one.n == n))
        report = worst_rows(
            rule, n, f, budget=given.budget, seconds=given.seconds, seed=given.seed, starts=starts
        )
        added = add_to_ledger(FOUND, report.found)
        shown = ", ".join(f"{one.form} {one.figure:.5g}{' at a tie' * one.tie}" for one in added)
        print(f"{shown or 'nothing worse'}; {report.evaluations:,} sets of rows", flush=True)
        for why in report.failures:
            print(f"{name} at ({n}, {f}) broke: {why}", flush=True)


def able(names: list[str], n: int, f: int) -> Iterator[tuple[str, Aggregator]]:
    """Those of the rules that work with n and f."""
    for name in names:
        rule = rule_from(name, f=f)
        try:
            rule.check(n)
        except InvalidInput:
            continue
        yield name, rule


def page() -> str:
    """The tables of all sizes."""
    return "\n".join([INTRODUCTION, *(table(n, f) for n, f in SIZES)])


def table(n: int, f: int) -> str:
    """All rules at one size."""
    names = [*RULES, *CHAINS]
    ready = dict(able(names, n, f))
    least = f"{robustness.least_squared(n, f):.4g} squared and {robustness.least_linear(n, f):.4g} linear"
    few = ", ".join(f"`{name}`" for name in names if name not in ready) or "none"
    lines = [
        f"## n = {n}, f = {f}\n",
        f"No rule is below {least}. Too few workers for: {few}.\n",
        "| rule | squared | proved | linear | proved | turn |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rule in ready.items():
        known, bounds = known_worst(rule_spelling(rule), n, f), proved_bounds(rule, n, f)
        cells = [f"`{name}`"]
        for form in ("squared", "linear"):
            proved = bounds[form]
            cells += [cell(known, form), "none" if proved is None else f"{proved:.4g}"]
        lines.append(f"| {' | '.join([*cells, cell(known, 'turn')])} |")
    return "\n".join(lines) + "\n"


def cell(known: list[WorstRows], form: str) -> str:
    """The worst known of a form, as it replays."""
    steady = [one.replay() for one in known if one.form == form and not one.tie]
    tied = [one.replay() for one in known if one.form == form and one.tie]
    if not steady and not tied:
        return "not searched"
    texts = [shown(form, value) for value in steady]
    texts += [f"({shown(form, value)} at a tie)" for value in tied if value > 1.01 * max(steady, default=0.0)]
    return " ".join(texts)


def shown(form: str, value: float) -> str:
    if form == "turn":
        return f"{value:.0f}° (cos {cos(radians(value)):.2f})"
    return "unbounded" if value > UNBOUNDED else f"{value:.4g}"


if __name__ == "__main__":
    main()
