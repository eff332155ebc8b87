"""Promises of theory in print and as plain data: never a bound without what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzopt.theory.promise import Constants, Promise


def plain_promise(promise: Promise) -> dict[str, Any]:
    """A promise as plain data: every premise with its verdict; `bound` and `floor` are null unless all stand.

    `vacuous` (and `vacuous_floor`): no less than `trivial`, what the figure is at the start. `estimated` are
    the premises that rest on estimates, `missing` the reasons for what is null."""
    data = asdict(promise)
    data["premises"] = [dict(premise) for premise in data["premises"]]
    for name in ("missing", "estimated"):
        data[name] = list(getattr(promise, name))
    data |= {name: getattr(promise, name) for name in ("vacuous", "vacuous_floor")}
    return finite(data)


def plain_constants(known: Constants) -> dict[str, Any]:
    """Constants as plain data; `exact` names those that hold for certain."""
    return finite(asdict(known)) | {"exact": sorted(known.exact)}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that JSON has: "inf" for an infinite one, null for one that is none."""

    def told(value: Any) -> Any:
        if isinstance(value, float) and not isfinite(value):
            return None if value != value else ("inf" if value > 0 else "-inf")
        return finite(value) if isinstance(value, dict) else value

    return {key: told(value) for key, value in values.items()}


def short_number(value: float | None) -> str:
    """A number in short, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def steps_line(promise: Promise) -> str:
    """Admissible parameters; upper edges of steps are rounded down, so that they may be typed back."""
    from byzopt.theory.premises import below

    return ", ".join(f"{key} = {below(value)}" for key, value in promise.steps.items())


def bound_words(promise: Promise, what: str = "bound") -> str:
    """The bound, or the floor, with what keeps it from being one."""
    value, vacuous = getattr(promise, what), promise.vacuous if what == "bound" else promise.vacuous_floor
    if value is None:
        return "none" if promise.broken else "-"
    if vacuous:
        return f"vacuous ({value:.4g}; trivially {short_number(promise.trivial)}, as at the start)"
    return f"{value:.4g}"


def privacy_lines(budget: Promise) -> list[str]:
    """A guarantee of privacy in print."""
    noise = budget.steps["noise_multiplier"]
    out = [
        f"{budget.theorem}, {budget.measures}:",
        f"  ε: {bound_words(budget)} (noise multiplier {noise:.6g})",
    ]
    out += [f"  premise {premise.verdict}: {premise}" for premise in budget.premises]
    return out + [f"  remark: {remark}" for remark in budget.remarks]


def lines(promise: Promise, lr: float | None) -> list[str]:
    """A promise in print."""
    if promise.theorem == "none":
        return ["No theorem is known."]
    out = [f"{promise.theorem}, on {promise.measures}:"]
    run = "" if lr is None else f" (the spec has lr = {lr:g})"
    out.append(f"  admissible: {steps_line(promise) or '-'}{run}")
    rests = " (rests on estimates, see below)" if promise.estimated else ""
    for what in ("bound", "floor"):
        words = bound_words(promise, what)
        out.append(f"  {what}: {words}{rests if getattr(promise, what) is not None else ''}")
    out += [f"  premise {premise.verdict}: {premise}" for premise in promise.premises]
    out += [f"  missing: {reason}" for reason in promise.lacks]
    return out + [f"  remark: {remark}" for remark in promise.remarks]
