"""From the worst length of an error to the worst turn, for rules that do not mind where the origin is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from byzopt.aggregators import rule_from
from byzopt.certificates.worst.certificate import STEADY, WorstRows
from byzopt.errors import require


def turned(found: WorstRows, ratio: float, rule: Any = None) -> WorstRows:
    """The same rows about another honest mean v̄, with mean‖v_i - v̄‖² = `ratio` ‖v̄‖², so that the
    answer turns most.

    The error e of a translation-equivariant rule does not change with v̄. Where ‖e‖ < ‖v̄‖ the answer e +
    v̄ is farthest from v̄ when it is at a right angle to e, at an angle whose sine is √(κ · ratio), with
    κ = ‖e‖²/mean‖v_i - v̄‖²; else v̄ is opposite to e, and the answer points backwards. The mean gets a
    coordinate of its own for it.

    Args:
        found: A certificate in the form `squared`.
        ratio: How different honest rows are, positive.
        rule: The rule, where it is not the one that the certificate names.

    Returns:
        A certificate in the form `turn`, replayed, and at a tie where it does not bear jitter.

    Raises:
        InvalidInput: A `ratio` that is not positive.
    """
    require(ratio > 0, "The `ratio` of a turn", "be positive", ratio)
    rows, honest = found.sent(), found.honest
    rows = torch.nn.functional.pad(rows - rows[honest].mean(dim=0), (0, 1))
    variance = float(rows[honest].square().sum(dim=1).mean())
    error = rule_from(rule or found.rule, f=found.f)(rows) - rows[honest].mean(dim=0)
    away, length = float(torch.linalg.vector_norm(error)), (variance / ratio) ** 0.5
    if away >= length:
        mean = -error * (length / away)
    else:
        mean = -error
        mean[-1] += (length**2 - away**2) ** 0.5
    kept = tuple(tuple(row) for row in (rows + mean).tolist())
    moved = replace(found, form="turn", ratio=ratio, rows=kept)
    moved = replace(moved, figure=moved.replay(rule))
    # Jitter has a coordinate more here, which may break a tie that the shorter rows bore.
    return replace(moved, tie=moved.tie or min(moved.shaken(rule)) < STEADY * moved.figure)
