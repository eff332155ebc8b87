"""Variance reduction with full gradients: L-SVRG, PAGE, MARINA's differences, and full gradients alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from byzopt.errors import require
from byzopt.workers.base import ESTIMATORS, Estimator, Need, Oracle


def check_chance(p: float) -> None:
    """Raise `InvalidInput` unless the chance of a full gradient lies in (0, 1]."""
    require(0 < p <= 1, "Parameter `p`", "lie in (0, 1]", p)


@ESTIMATORS.register("full")
@dataclass(frozen=True)
class Full(Estimator):
    """∇f_i(x): every worker's full gradient, without noise or memory. A full pass each round.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Full, Oracle
        >>> oracle = Oracle(1, grads=None, full=lambda x: 2 * x.expand(3, -1))
        >>> Full().init(torch.ones(2), oracle)[0][0]
        tensor([2., 2.])
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"full"})
    batched = True

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, tuple[()]]:
        return oracle.full(x), ()

    def step(self, state: tuple[()], x: Tensor, oracle: Oracle) -> tuple[Tensor, tuple[()]]:
        return oracle.full(x), ()


class SVRGState(NamedTuple):
    """The reference point `[d]`, and every worker's full gradient there, `[n, d]`."""

    w: Tensor
    full: Tensor


@ESTIMATORS.register("lsvrg")
@dataclass(frozen=True)
class LSVRG(Estimator):
    """∇ℓ_i(x; ξ) - ∇ℓ_i(w; ξ) + ∇f_i(w) on one sample; after it w <- x with probability p. w = x^0 first.

    Two gradients a round, and a full pass when the coin falls. Source: Kovalev et al., arXiv:1901.08689;
    Byz-LSVRG, arXiv:2303.04560. Where we differ: one coin for all workers, so that they share w.

    Args:
        p: Chance in a round that the reference point w moves, in (0, 1].

    Examples:
        >>> import torch
        >>> from byzopt.workers import LSVRG, Oracle
        >>> oracle = Oracle(1, grads=lambda x: x.expand(3, -1), full=lambda x: x.expand(3, -1))
        >>> rows, state = LSVRG(p=0.1).init(torch.ones(2), oracle)
        >>> rows[0]
        tensor([1., 1.])
    """

    p: float = 0.01
    needs: ClassVar[frozenset[Need]] = frozenset({"replay", "full"})
    coined: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_chance(self.p)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, SVRGState]:
        full = oracle.full(x)
        return full, SVRGState(x, full)

    def step(self, state: SVRGState, x: Tensor, oracle: Oracle) -> tuple[Tensor, SVRGState]:
        row = oracle(x) - oracle(state.w) + state.full
        return row, SVRGState(x, oracle.full(x)) if oracle.coin(self.p) else state


class PageState(NamedTuple):
    """h `[n, d]`, and the point of the round before, `[d]`."""

    h: Tensor
    x: Tensor


@ESTIMATORS.register("page")
@dataclass(frozen=True)
class Page(Estimator):
    """h <- ∇f_i(x) with probability p (a common coin), else h + ∇ℓ_i(x; ξ) - ∇ℓ_i(x_old; ξ) on one sample.

    h is sent. h = ∇f_i(x^0) first. A full pass, or two gradients. Source: Li et al., arXiv:2008.10898.

    Args:
        p: Chance of full gradients in a round, in (0, 1].

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, Page
        >>> oracle = Oracle(1, grads=None, full=lambda x: 2 * x.expand(3, -1))
        >>> Page(p=0.1).init(torch.ones(2), oracle)[0][0]  # round 1 is full
        tensor([2., 2.])
    """

    p: float = 0.1
    needs: ClassVar[frozenset[Need]] = frozenset({"replay", "full"})
    coined: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_chance(self.p)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, PageState]:
        h = oracle.full(x)
        return h, PageState(h, x)

    def step(self, state: PageState, x: Tensor, oracle: Oracle) -> tuple[Tensor, PageState]:
        h = oracle.full(x) if oracle.coin(self.p) else state.h + (oracle(x) - oracle(state.x))
        return h, PageState(h, x)


class MarinaState(NamedTuple):
    """The point of the round before, `[d]`; the full gradient there, `[n, d]`, where that is what differs."""

    x: Tensor
    full: Tensor | None


@ESTIMATORS.register("marina")
@dataclass(frozen=True)
class Differences(Estimator):
    """∇f_i(x) when the common coin falls (chance p, and in round 1), else Δ_i: what changed since last round.

    `differences="sample"`: Δ_i = ∇ℓ_i(x; ξ) - ∇ℓ_i(x_old; ξ) on one sample, two gradients;
    `differences="full"`: ∇f_i(x) - ∇f_i(x_old), a full pass every round, or two where workers may have been
    absent in the round before (`anew`). For the channels `marina` and `marina2` at the same `p`. Source:
    Gorbunov et al., arXiv:2102.07845; arXiv:2206.00529.

    Args:
        p: Chance of full gradients in a round, in (0, 1].
        differences: Whether they are of one "sample" or "full".
        anew: Whether full gradients at x_old are taken again, not remembered.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Differences, Oracle
        >>> oracle = Oracle(1, grads=None, full=lambda x: 2 * x.expand(3, -1))
        >>> Differences(p=0.1).init(torch.ones(2), oracle)[0][0]  # round 1 is full
        tensor([2., 2.])
    """

    p: float = 0.1
    differences: Literal["sample", "full"] = "sample"
    anew: bool = False
    needs: ClassVar[frozenset[Need]] = frozenset({"replay", "full"})
    coined: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_chance(self.p)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, MarinaState]:
        full = oracle.full(x)
        return full, self._at(x, full)

    def step(self, state: MarinaState, x: Tensor, oracle: Oracle) -> tuple[Tensor, MarinaState]:
        if oracle.coin(self.p):
            return self.init(x, oracle)
        if state.full is None:
            at = oracle.full if self.differences == "full" else oracle
            return at(x) - at(state.x), self._at(x, None)
        full = oracle.full(x)
        return full - state.full, self._at(x, full)

    def _at(self, x: Tensor, full: Tensor | None) -> MarinaState:
        return MarinaState(x, full if self.differences == "full" and not self.anew else None)
