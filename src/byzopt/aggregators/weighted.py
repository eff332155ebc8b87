"""Rules with trusted weights for workers, none of whom may weigh too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import frexp, isfinite, ldexp
from typing import Any, cast

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require

_ROUNDING = 1e-12


@WRAPPERS.register("weighted")
@dataclass(frozen=True)
class Weighted(RuleWrapper):
    """`rule` with worker i counting `weights[i]` times, cut so that nobody's share of all exceeds `cap`.

    With whole weights that no cap touches, the answer is the rule's on rows repeated that many times, with
    the weight of the f heaviest workers in place of f. Every f workers, whoever they are, then hold less than
    half of the weight, which is checked, and the rule keeps its guarantee with counts read as weights: the
    trimmed mean, MeaMed and Phocas give up that weight, the medians withstand it. Works for Mean, Median,
    TrimmedMean, MeaMed, Phocas, GeometricMedian, RFA, Medoid, NormClipping and SignMajority, and for rules
    of other packages that define `weighted_form`. Refused for rules that count neighbours or subsets (Krum,
    MDA, ...): a heavy row is its own near neighbour there, so weight alone would choose it. RFA starts from
    whole rows, so that repeated rows agree in the limit only.

    `weights` are the server's own knowledge, at least 0; what clients declare of themselves (sample counts)
    must not be put there as it is (`byzopt.flower.RobustFedAvg` cuts it first), and nothing is read from
    rows. `cap` in (0, 1] is a share: weights above a level L are cut to L, where L is `cap` of what is left
    in all. Default 1/(2 f + 1), so that f workers cannot hold half; 1/3 where the rule's f is left out, and
    then f is the most that the capped weights allow. It is never taken below an even share. Rows that are not
    finite take their weights with them, and the cap is drawn again for those left.

    The rule may stand behind stages that keep rows in place (NNM, clipping), not behind bucketing:
    `InvalidInput`. Breakdown point: the largest number of workers who always hold less than half, or f for
    rules that use their f. κ unproved (theirs is about the plain mean of the honest). Cost: that of the rule,
    columns being sorted. The weighted form of the geometric median is that of arXiv:1912.13445.

    Args:
        rule: What answers.
        weights: Of the workers, at least 0, one for each row.
        cap: Largest share of all that one worker may have, in (0, 1]; None: 1/(2 f + 1).

    Raises:
        InvalidInput: A rule that has no weighted form, a stage before it that moves rows, weights with
            which f workers would hold half.

    Examples:
        >>> import torch
        >>> from byzopt import Mean, Weighted
        >>> rows = torch.tensor([[1.0], [2.0], [3.0]])
        >>> Weighted(Mean(), weights=(2.0, 1.0, 1.0), cap=0.5)(rows)
        tensor([1.7500])
    """

    positional = True
    by_value = False
    by_worker = True

    rule: Aggregator
    weights: tuple[float, ...]
    cap: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(RULES[name].__name__ for name in RULES if has_weighted_form(RULES[name]))
        what = f"have a `weighted_form`, as {known} do"
        require(has_weighted_form(type(self.rule)), "The rule in Weighted", what, repr(self.rule))
        weights = tuple(map(float, cast(Any, self.weights)))
        object.__setattr__(self, "weights", weights)
        what = "Parameter `weights` of Weighted"
        require(all(0 <= w < float("inf") for w in weights), what, "be finite and at least 0", weights)
        require(sum(weights) > 0 and isfinite(sum(weights)), what, "have a positive, finite sum", weights)
        share = self.cap is None or 0 < self.cap <= 1
        require(share, "Parameter `cap` of Weighted", "lie in (0, 1]", self.cap)

    def capped_weights(self) -> Tensor:
        """The weights after the cap, `[n]`, in a unit (a power of two) in which the largest is near 1."""
        unit = ldexp(1.0, frexp(max(self.weights))[1] - 1)
        cap = 1 / (2 * (1 if self._free else self.rule.tolerance(len(self.weights))) + 1)
        return capped(torch.tensor(self.weights, dtype=torch.float64, device="cpu") / unit, self.cap or cap)

    def tolerance(self, n: int) -> int:
        f = self.rule.tolerance(n)
        return min(f, _outweighed(self.capped_weights())) if self._free else f

    def breakdown(self, n: int) -> int:
        return min(self.rule.breakdown(n), _outweighed(self.capped_weights()))

    def check(self, n: int) -> None:
        what = "Parameter `weights` of Weighted"
        require(len(self.weights) == n, what, f"have one entry for each of the {n} rows", len(self.weights))
        self.rule.check(n)
        f, weights = self.tolerance(n), self.capped_weights()
        share = float(_heaviest(weights)[f] / weights.sum())
        numbers = f"{share:.3g} of it with f = {f}, n = {n}"
        remedy = "Lower f or `cap`, or spread the weights."
        require(
            f <= _outweighed(weights), what, "leave the f heaviest less than half of all", numbers, remedy
        )

    def restricted(self, kept: Tensor) -> Weighted:
        left = tuple(w for w, stays in zip(self.weights, kept.tolist(), strict=True) if stays)
        require(sum(left) > 0, "Workers with finite rows", "have some weight", f"weights {left}")
        return replace(self, rule=self.rule.restricted(kept), weights=left)

    def reduce(self, mixed: Mixed) -> Tensor:
        form, heavy = self._form(mixed)
        return form.reduce(heavy)

    def influence(self, mixed: Mixed) -> Tensor:
        form, heavy = self._form(mixed)
        return form.influence(heavy)

    @property
    def _free(self) -> bool:
        """Whether the rule's f is left out."""
        return getattr(self.rule, "f", 0) is None

    def _form(self, mixed: Mixed) -> tuple[Aggregator, Mixed]:
        """The weighted rule, and the rows that have weight."""
        mixing, weights = mixed.mixing, self.capped_weights()
        if mixing is not None:
            placed = mixing.shape[0] == mixing.shape[1] and bool((mixing.diag() >= mixing.amax(dim=1)).all())
            require(placed, "Stages before Weighted", "keep rows in place", "one that moves them", "Drop it.")
        heaviest = float(_heaviest(weights)[self.tolerance(mixed.m)])
        if not (weights > 0).all():
            mixed = mixed.then(
                torch.eye(mixed.m, dtype=torch.float64, device="cpu")[weights > 0], affine=True
            )
        return self.rule.weighted_form(weights[weights > 0], heaviest), mixed


def has_weighted_form(rule: type[Aggregator]) -> bool:
    """Whether rules of this class say what they become where rows count with a weight each."""
    return rule.weighted_form is not Aggregator.weighted_form


def capped(weights: Tensor, cap: float) -> Tensor:
    """Weights `[n]` with all above a level L cut to L, where L is `cap` of their sum: nobody's share is more.

    Where fewer than 1/`cap` workers have weight they are made equal: an even share is the least cap there is.
    """
    ordered = weights[weights > 0].sort(descending=True).values
    rest = ordered.flip(0).cumsum(dim=0).flip(0)
    for cut, (weight, left) in enumerate(zip(ordered.tolist(), rest.tolist(), strict=True)):
        room = 1 - cut * cap
        level = cap * left / room if room > _ROUNDING else 0.0
        if weight <= level * (1 + _ROUNDING):
            return weights.clamp_max(level) if cut else weights
    return weights.clamp_max(float(ordered[-1]))


def _heaviest(weights: Tensor) -> Tensor:
    """The weight of the 0, 1, ... n heaviest workers together."""
    return torch.cat(
        [
            torch.zeros(1, dtype=torch.float64, device="cpu"),
            weights.sort(descending=True).values.cumsum(dim=0),
        ]
    )


def _outweighed(weights: Tensor) -> int:
    """The most workers who hold less than half of the weight, whoever they are."""
    return int((_heaviest(weights) < weights.sum() / 2 * (1 - _ROUNDING)).sum()) - 1
