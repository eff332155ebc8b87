"""Pre-aggregators, alone and in a row: `NNM(f=3) >> Bucketing()`. A rule at the end makes a chain of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.chain import Chain
from byzopt.aggregators.core.inputs import RowsLike, admit, as_rows, like, reiterable, restored
from byzopt.aggregators.core.mixing import MixingStage
from byzopt.aggregators.core.surroundings import isolated
from byzopt.aggregators.core.traits import GIVEN_ROWS
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import InvalidInput, said
from byzopt.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence


class PreAggregator(MixingStage):
    """A stage before a rule, to be joined to it by `>>`; called alone it gives the mixed rows.

    Examples:
        >>> import torch
        >>> from byzopt import NNM, Median, PreAggregator
        >>> isinstance(NNM(f=1), PreAggregator)
        True
        >>> (NNM(f=1) >> Median(f=1))(torch.ones(5, 2))
        tensor([1., 1.])
    """

    @overload
    def __call__(
        self, rows: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]
    ) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, rows: Tensor | Sequence[Tensor] | Sequence[Sequence[float]]) -> Tensor: ...
    @isolated
    def __call__(self, rows: RowsLike) -> Tensor | np.ndarray[Any, Any]:
        """The mixed rows `[m, d]` of a lone stage; dropped rows leave no mixed row."""
        rows = reiterable(rows)
        tensor = as_rows(rows)
        if self.foreign & GIVEN_ROWS:
            tensor = tensor.clone()  # as for rules
        stage, kept, unit = admit(self, tensor)
        mixed = Mixed(kept, unit, ordered=not self.positional)
        order, mixed = mixed.order, stage.apply(mixed.sorted())
        out = restored(mixed.materialise(), unit, tensor.dtype)
        if order is not None and len(out) == len(order):
            out = out[torch.from_numpy(order.argsort()).to(out.device)]  # row i of worker i
        return cast("Tensor", like(rows, out))

    @overload
    def __rshift__(self, after: PreAggregator) -> PreChain: ...
    @overload
    def __rshift__(self, after: Aggregator) -> Chain: ...
    def __rshift__(self, after: PreAggregator | Aggregator) -> PreChain | Chain:
        return PreChain((self,)) >> after


class ScalingStage(PreAggregator):
    """A stage that makes each row so long, `lengths(norms, unit)`, decided by the rows' lengths.

    Examples:
        >>> from byzopt import Clipping
        >>> from byzopt.aggregators import ScalingStage
        >>> isinstance(Clipping(), ScalingStage), Clipping().asks
        (True, 'squares')
    """

    asks = "squares"
    affine = False

    @abstractmethod
    def lengths(self, norms: Array, unit: float) -> Array:
        """How long each row is afterwards, `[..., m]`, by the rows' lengths in units of `unit`."""

    def mixing(self, geometry: Geometry) -> Tensor:
        norms = geometry.sq_norms.sqrt().numpy()
        return torch.from_numpy(self.scales(norms, geometry.unit)).diag_embed()


class PreChain:
    """Pre-aggregators in order, waiting for a rule: `NNM(f=3) >> Bucketing()`.

    Args:
        stages: In the order in which rows pass them.

    Examples:
        >>> from byzopt import NNM, Bucketing, Median, PreChain
        >>> before = NNM(f=1) >> Bucketing(s=2)
        >>> isinstance(before, PreChain), len((before >> Median(f=1)).stages)
        (True, 2)
    """

    def __init__(self, stages: Sequence[PreAggregator]) -> None:
        self.stages = tuple(stages)

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.stages))

    @overload
    def __rshift__(self, after: PreAggregator) -> PreChain: ...
    @overload
    def __rshift__(self, after: Aggregator) -> Chain: ...
    def __rshift__(self, after: PreAggregator | Aggregator) -> PreChain | Chain:
        if isinstance(after, PreAggregator):
            return PreChain((*self.stages, after))
        if isinstance(after, Chain):
            return Chain((*self.stages, *after.stages), after.rule)
        if isinstance(after, Aggregator):
            return Chain(self.stages, after)
        raise InvalidInput(
            "Behind `>>` should stand a rule or a pre-aggregator, as in `NNM(f=3) >> Median(f=3)`. "
            f"Found {said(after)}."
        )


PRE_AGGREGATORS: Registry[PreAggregator] = Registry("pre-aggregator", PreAggregator)
