"""The operations of a process group that a `Communicator` is made of, for groups of torch and of torchft.

torch finds a group by its registry. torchft's groups (`torchft.process_group`), which are made anew for each
quorum, are in none: their methods are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from byzopt.errors import require

# Newer releases of torch call it by another name.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Primitives:
    """Operations of a `group` that torch knows (None: all ranks), by ranks of that group."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank, self.n = dist.get_rank(group), dist.get_world_size(group)
        self.backend = str(dist.get_backend(group)) if self.rank >= 0 else "none"
        inside = group is not None and self.rank >= 0
        self._names = dist.get_process_group_ranks(group) if inside else list(range(self.n))

    def all_reduce(self, data: Tensor) -> None:
        """Sum in place."""
        dist.all_reduce(data, group=self.group)

    def all_gather(self, whole: Tensor, local: Tensor) -> None:
        """Every rank's `local` into `whole`."""
        _all_gather(whole, local, group=self.group)

    def all_to_all(self, out: Tensor, data: Tensor, *splits: list[int]) -> None:
        """Piece j of `data` to rank j, pieces of `out` from all."""
        of: Any = dist.all_to_all_single
        of(out, data, *splits, group=self.group)

    def send(self, data: Tensor, rank: int, tag: int) -> Any:
        """Begin to send."""
        return dist.isend(data, self._names[rank], group=self.group, tag=tag)

    def receive(self, data: Tensor, rank: int, tag: int) -> Any:
        """Begin to receive."""
        return dist.irecv(data, self._names[rank], group=self.group, tag=tag)

    def gather(self, local: Tensor, parts: Sequence[Tensor] | None) -> None:
        """Every rank's `local` into the `parts` of rank 0."""
        dist.gather(local, None if parts is None else list(parts), dst=self._names[0], group=self.group)

    def broadcast(self, data: Tensor, source: int) -> None:
        """Rank source's data in place."""
        dist.broadcast(data, src=self._names[source], group=self.group)


class MethodPrimitives(Primitives):
    """Operations of a group that torch does not know."""

    def __init__(self, group: Any) -> None:
        made = _of_torch(group)
        self.group, self.rank, self.n = group, made.rank(), made.size()
        self.backend = str(group.getBackendName()).lower()

    def all_reduce(self, data: Tensor) -> None:
        self.group.allreduce([data], dist.AllreduceOptions()).wait()

    def all_gather(self, whole: Tensor, local: Tensor) -> None:
        parts = list(whole.view(self.n, -1).unbind(0))
        options: Any = dist.distributed_c10d
        self.group.allgather([parts], [local], options.AllgatherOptions()).wait()

    def all_to_all(self, out: Tensor, data: Tensor, *splits: list[int]) -> None:
        into, of = splits or ([], [])
        self.group.alltoall_base(out, data, into, of, dist.AllToAllOptions()).wait()

    def send(self, data: Tensor, rank: int, tag: int) -> Any:
        return self.group.send([data], rank, tag)

    def receive(self, data: Tensor, rank: int, tag: int) -> Any:
        return self.group.recv([data], rank, tag)

    def gather(self, local: Tensor, parts: Sequence[Tensor] | None) -> None:
        pending = [self.receive(parts[j], j, 0) for j in range(1, self.n)] if parts else []
        if parts is not None:
            parts[0].copy_(local)
        else:
            pending = [self.send(local, 0, 0)]
        for work in pending:
            work.wait()

    def broadcast(self, data: Tensor, source: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = source
        self.group.broadcast([data], options).wait()


def primitives_of(group: Any) -> Primitives:
    """The operations of a group, whoever has made it."""
    return MethodPrimitives(group) if is_remade(group) else Primitives(group)


def _of_torch(group: Any) -> Any:
    """torch's own group of this quorum, which is inside of torchft's, and knows the rank.

    Errors: `InvalidInput` before the first quorum, and for groups whose answers cannot be relied upon.
    """
    kind, made = type(group).__name__, group
    what, remedy = "A process group of torchft", "Pass the ProcessGroupGloo that the Manager was given."
    swallows = kind in ("ErrorSwallowingProcessGroupWrapper", "ManagedProcessGroup")
    found = f"{kind}, which goes on with what it has when an exchange fails"
    require(not swallows, what, "raise its errors", found, remedy)
    while is_remade(made):
        wait = "Call manager.start_quorum() and manager.wait_quorum(), or `configure`, before."
        require(getattr(made, "_pg", made) is not None, what, "have had a quorum", "none yet", wait)
        made = getattr(made, "parent", None)
        require(made is not None, what, "know which rank this is", kind, remedy)
    return made


def is_remade(group: Any) -> bool:
    """Whether a group is one of torchft's, which are made anew for each quorum."""
    return type(group).__module__.startswith("torchft")
