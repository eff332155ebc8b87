"""Buffers that a forward pass writes, such as running statistics: they bypass every rule for gradients.

`DistributedDataParallel` gives all ranks those of rank 0, so that one batch with NaN on rank 0 destroys
everybody's. Here all ranks tell theirs after each synchronised backward pass, and all take the coordinate
median of the floats, and of whole numbers the value that most ranks have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.settings import Buffers
from byzopt.errors import InvalidInput, TooManyFaults, require


class BufferSync:
    """The buffers of `module` (names in `ignored` are left alone), for at most f faulty ranks.

    Only those are told that some rank has written since the last time. A rank that has NaN in one of them is
    left out; where these are more than f, all ranks go back to what they had agreed on last.
    """

    def __init__(
        self, comm: Communicator, module: nn.Module, mode: Buffers, f: int, ignored: set[str]
    ) -> None:
        self.comm, self.module, self.mode, self.f, self.ignored = comm, module, mode, f, ignored
        self._seen: dict[str, tuple[int, int]] = {}
        self._agreed: dict[str, Tensor] = {}
        self._remember(self._named())

    def _named(self) -> dict[str, Tensor]:
        found = self.module.named_buffers()
        return {name: buffer for name, buffer in found if name not in self.ignored and buffer.numel()}

    def written(self) -> list[bool]:
        """Which buffers have been written, or exchanged, on this rank since the last agreement."""
        return [self._seen.get(name) != _mark(buffer) for name, buffer in self._named().items()]

    @torch.no_grad()
    def agree(self, part: bool = True) -> None:
        """Make all ranks' buffers equal. A collective. `part` is False on a rank that has nothing to say.

        Errors, on all ranks: `TooManyFaults` where more than f have NaN, after all have gone back;
        `InvalidInput` where a buffer has been written and the mode is "refuse".
        """
        named = self._named()
        if self.mode == "local" or not named:
            return
        told = self.comm.all_gather(torch.tensor([float(part), *self.written()], dtype=torch.float64))
        present = (told[:, 0] > 0).cpu()
        touched = told[:, 1:].cpu().any(dim=0).tolist()
        chosen = {name: buffer for (name, buffer), yes in zip(named.items(), touched, strict=True) if yes}
        if not chosen or not present.any():
            return
        if self.mode == "refuse":
            raise InvalidInput(
                f"With buffers='refuse' a forward pass should write none. Found {list(chosen)}. "
                "Say buffers='median' or 'local', or use layers without running statistics."
            )
        with _unsafe_preserve_version_counter(tuple(chosen.values())):
            bad = self._take(chosen, present)
        self._remember(chosen)
        if len(bad) > self.f:
            raise TooManyFaults(
                f"Ranks with NaN in their buffers should be at most f = {self.f}. Found ranks {bad}. "
                "All have gone back to the buffers before this step.",
                bad,
            )

    def _take(self, chosen: dict[str, Tensor], present: Tensor) -> list[int]:
        """Write what the ranks that are `present` agree on; the ranks with NaN."""
        views = {name: _flat(buffer) for name, buffer in chosen.items()}
        rows = {
            dtype: self.comm.all_gather(torch.cat([v for v in views.values() if v.dtype == dtype]))
            for dtype in dict.fromkeys(view.dtype for view in views.values())
        }
        broken = torch.stack([matrix.isnan().any(dim=1).cpu() for matrix in rows.values()]).any(dim=0)
        bad = (present & broken).nonzero().flatten().tolist()
        if len(bad) > self.f:
            for name, buffer in chosen.items():
                buffer.copy_(self._agreed[name])
            return bad
        for dtype, matrix in rows.items():
            middle = agreed(matrix[(present & ~broken).to(matrix.device)])
            same = [(chosen[name], len(view)) for name, view in views.items() if view.dtype == dtype]
            for (buffer, _), piece in zip(same, torch.split(middle, [k for _, k in same]), strict=True):
                buffer.copy_(_shaped(piece, buffer))
        return bad

    def _remember(self, named: dict[str, Tensor]) -> None:
        for name, buffer in named.items():
            self._seen[name] = _mark(buffer)
            if self.mode == "median":
                self._agreed[name] = buffer.detach().clone()


def agreed(rows: Tensor) -> Tensor:
    """The coordinate median of rows `[m, b]` of floats without NaN; of whole numbers what most have.

    Infinite values count as they are: with fewer than half of the rows faulty the middle is an honest value,
    or lies between two.
    """
    if not rows.dtype.is_floating_point:
        return rows.mode(dim=0).values
    ordered, m = rows.sort(dim=0).values, len(rows)
    low, high = ordered[(m - 1) // 2], ordered[m // 2]
    return torch.where(low == high, low, low / 2 + high / 2)


def _mark(buffer: Tensor) -> tuple[int, int]:
    return id(buffer), buffer._version


def _flat(buffer: Tensor) -> Tensor:
    """The numbers of a buffer in a row, complex ones as pairs and truth values as bytes."""
    real = torch.view_as_real(buffer) if buffer.is_complex() else buffer
    return (real.to(torch.uint8) if real.dtype == torch.bool else real).detach().reshape(-1)


def _shaped(piece: Tensor, buffer: Tensor) -> Tensor:
    if buffer.is_complex():
        return torch.view_as_complex(piece.view(*buffer.shape, 2))
    return piece.view(buffer.shape)


def check_buffers(module: nn.Module, mode: Buffers) -> None:
    """Raise what the mode "refuse" can tell before the first step."""
    tracking = [name for name, each in module.named_modules() if getattr(each, "track_running_stats", False)]
    require(
        mode != "refuse" or not tracking,
        "A model with buffers='refuse'",
        "have no layers with running statistics",
        f"{tracking}",
        "Say buffers='median' or 'local', or track_running_stats=False.",
    )
