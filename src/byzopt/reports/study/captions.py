"""What a caption says of the runs behind it: how many workers, how many of them tolerated and hostile, which
seeds, and whether they got anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from byzopt.reports.study.cases import Case

MOST = 10  # that are named one by one


def describe_cases(cases: Iterable[Case]) -> str:
    """`n = 20 workers, f = 3 tolerated, 3 attackers; seeds 0, 1 and 2.`, as far as the cases tell, and how
    many ended worse than they started."""
    cases = list(cases)
    known = [case.setting for case in cases if case.setting is not None]
    parts = []
    if known:
        parts.append(f"n = {numbers_text(one.n for one in known)} workers")
        parts.append(f"f = {numbers_text(one.f for one in known)} tolerated")
        hostile = numbers_text(one.attackers for one in known)
        parts.append("no attackers" if hostile == "0" else f"{hostile} attacker{'s' * (hostile != '1')}")
    risen = sum(case.outcome.risen is not None for case in cases)
    worse = f" {risen} of {len(cases)} runs ended with a higher loss than they started with." if risen else ""
    return (
        "; ".join([", ".join(parts)] * bool(parts) + [seeds_text(case.seed for case in cases)]) + "." + worse
    )


def seeds_text(numbers: Iterable[int]) -> str:
    """`seed 0`, `seeds 0, 1 and 2`, `seeds 0 to 29`."""
    ordered = sorted(set(numbers))
    return f"seed{'s' * (len(ordered) > 1)} {numbers_text(ordered)}"


def numbers_text(numbers: Iterable[int]) -> str:
    """Numbers once each, by size; many as their range."""
    ordered = sorted(set(numbers))
    if len(ordered) > MOST:
        whole = ordered == list(range(ordered[0], ordered[-1] + 1))
        return f"{ordered[0]} to {ordered[-1]}" + ("" if whole else f" ({len(ordered)} of them)")
    return _and([str(one) for one in ordered])


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
