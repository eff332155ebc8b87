"""Clients that count by what they claim to have: never more than a cap, since a claim costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import median_low

import torch

from byzopt.aggregators import Aggregator, Chain, Weighted
from byzopt.errors import InvalidInput, require

FEW = 64  # rows on which a rule may be tried beforehand at no cost


def capped_claims(claims: Sequence[float], cap: float) -> list[float]:
    """Claims cut to `cap` times their lower median, which lies among the honest ones' while less than half of
    the clients lie; all alike where nothing is left of them."""
    middle = median_low(claims)
    weights = [min(claim, cap * middle) if middle else 0.0 for claim in claims] if isfinite(cap) else claims
    return list(weights) if sum(weights) > 0 else [1.0] * len(claims)


def weighted_rule(rule: Aggregator, weights: Sequence[float]) -> Aggregator:
    """The rule, or the chain, with row i counting `weights[i]` times.

    Errors: `InvalidInput` for a rule that has no weighted form.
    """
    if isinstance(rule, Chain):
        return Chain(rule.stages, Weighted(rule.rule, tuple(weights)))
    return Weighted(rule, tuple(weights))


def check_weightable(rule: Aggregator, k: int, cap: float, key: str) -> None:
    """Errors: `InvalidInput` unless the rule can count k rows with weights, and the cap is at least 1."""
    require(cap >= 1, "Parameter `weight_cap`", "be at least 1", cap)
    example = torch.eye(k, 2, dtype=torch.float64, device="cpu")
    try:
        weighted_rule(rule, [1.0] * k)(example)
    except InvalidInput as error:
        raise InvalidInput(
            f"Clients can count by {key!r} only behind a rule that has a weighted form. {error} "
            "Or leave `weighted_by_key` out, and all clients count alike."
        ) from None
