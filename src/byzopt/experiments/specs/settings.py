"""The numbers of a run, by the same rules whether a spec or a call of `simulate` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byzopt.errors import InvalidInput, require, said
from byzopt.fields import check_kind
from byzopt.figures import in_percent

KINDS: dict[str, Any] = {
    "n": int,
    "f": int,
    "rounds": int,
    "seed": int,
    "lr": float,
    "eval_every": int | None,
    "per_worker": bool,
}


def check_settings(
    n: int,
    f: int,
    rounds: int,
    lr: float,
    seed: int,
    eval_every: int | None,
    stop: Mapping[str, float],
    per_worker: bool,
) -> None:
    """Raise `InvalidInput` unless a run can be made on these terms; what they mean is said at `Spec`."""
    given: dict[str, Any] = {"n": n, "f": f, "rounds": rounds, "seed": seed, "lr": lr}
    given |= {"eval_every": eval_every, "per_worker": per_worker}
    for name, value in given.items():
        check_kind(f"Parameter `{name}`", value, KINDS[name])
    require(f >= 0, "Parameter `f`", "be at least 0", f)
    found = f"f = {f} with n = {n}"
    require(2 * f < n, "Parameter `f`", "satisfy 2 f < n", found, "Lower f or add workers.")
    require(rounds >= 1, "Parameter `rounds`", "be at least 1", rounds)
    require(seed >= 0, "Parameter `seed`", "be at least 0", seed)
    require(lr > 0, "The step scale `lr`", "be finite and positive", lr)
    require(eval_every is None or eval_every >= 1, "Parameter `eval_every`", "be at least 1", eval_every)
    if not isinstance(stop, Mapping):
        raise InvalidInput(f"`stop` should be a table of figures and values. Found {said(stop)}.")
    for name, value in stop.items():
        check_kind(f"The value of {said(name)} in `stop`", value, float)
        flaw = in_percent(str(name), value)
        if flaw:
            raise InvalidInput(f"`stop` cannot hold {name} = {value:g}: {flaw}")
