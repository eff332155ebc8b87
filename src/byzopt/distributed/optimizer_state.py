"""What an optimizer over ranks carries from step to step, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from warnings import warn

from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.errors import InvalidInput, require
from byzopt.states import freeze, thaw


class OptimizerState(NamedTuple):
    """Finished rounds `t`, the states of the method's four parts (None before the first message), bits sent,
    the last aggregate, and what is remembered of all ranks' messages, where compressed ones are received."""

    t: int
    step: Any
    filter: Any
    worker: Any | None
    wire: Any | None
    bits: float
    last: Tensor | None = None
    received: Any | None = None


def saved(
    state: OptimizerState, comm: Communicator, recipe: str, groups: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The state as plain data and tensors, with whose it is."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    who = {"rank": comm.rank, "ranks": comm.n, "recipe": recipe}
    return {**who, "state": freeze(state), "param_groups": settings}


def loaded(
    state_dict: Mapping[str, Any],
    comm: Communicator,
    recipe: str,
    begun: OptimizerState,
    template: OptimizerState,
) -> tuple[OptimizerState, bool]:
    """The state in the structure of `template` (of `begun`, if before round 1), and whether the parts that
    belong to one rank alone have to start afresh, of which this warns.

    Errors: `InvalidInput` for the state of another method or model.
    """
    given = state_dict.get("recipe")
    require(given == recipe, "A state", f"be of {recipe}", repr(given), "Load it into the same optimizer.")
    frozen = OptimizerState(*state_dict["state"])
    ranks, rank = state_dict.get("ranks"), state_dict.get("rank")
    same_ranks = ranks == comm.n
    own = rank == comm.rank and (same_ranks or not frozen.received)
    if frozen.t == 0:
        return thaw(tuple(frozen), begun), False
    bare: dict[str, Any] = {"filter": None, "worker": None, "wire": None, "received": None}
    common: OptimizerState = thaw(tuple(frozen._replace(**bare)), template._replace(**bare))
    filter_state, kept = _filter_state(frozen.filter, begun.filter, same_ranks)
    parts = {name: _part(own, frozen, template, name) for name in ("worker", "wire", "received")}
    if not own or not kept:
        whose = f"rank {rank} of {ranks}" if not own else f"a job of {ranks} ranks"
        what = "its momentum and its channel start" if not own else "what the filter remembers starts"
        who = f"rank {comm.rank} of {comm.n}"
        warn(f"The state is that of {whose} and not of {who}: {what} afresh.", stacklevel=4)
    return common._replace(filter=filter_state, **parts), not own


def _part(own: bool, frozen: OptimizerState, template: OptimizerState, name: str) -> Any:
    """A part of the state, None where it has not begun or is another rank's."""
    part = getattr(frozen, name)
    return thaw(part, getattr(template, name)) if own and part is not None else None


def _filter_state(frozen: Any, like: Any, same_ranks: bool) -> tuple[Any, bool]:
    """The filter's state, and whether it could be kept: one about other ranks cannot."""
    try:
        return thaw(frozen, like), True
    except InvalidInput:
        if same_ranks:
            raise
        return like, False
