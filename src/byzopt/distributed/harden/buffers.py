"""Buffers that a forward pass writes, such as running statistics: they bypass every rule for gradients.

`DistributedDataParallel` gives all ranks those of rank 0, so that one batch with NaN on rank 0 destroys
everybody's. Here all ranks tell theirs after each synchronised backward pass, and all take the coordinate
median of the floats, and of whole numbers the value that most ranks have.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import Tensor, nn

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.settings import Buffers
from byzopt.errors import InvalidInput, TooManyFaults, require

SMALL = 1 << 16  # numbers up to which telling a buffer costs less than finding out whether it was written


class BufferSync:
    """The buffers of `module` (names in `ignored` are left alone), for at most f faulty ranks.

    Large ones are told only where some rank has written them. A rank that has NaN in what is told is left
    out; where these are more than f, all ranks go back to what they had agreed on last. NaN that all but f
    ranks have had since then, as in a place that nothing has been written to yet, is a value like others.
    """

    def __init__(
        self, comm: Communicator, module: nn.Module, mode: Buffers, f: int, ignored: set[str]
    ) -> None:
        self.comm, self.module, self.mode, self.f, self.ignored = comm, module, mode, f, ignored
        self._agreed: dict[str, Tensor] = {}
        if mode != "local":
            self._agreed = {name: buffer.detach().clone() for name, buffer in self._named().items()}

    @torch.no_grad()
    def agree(self, present: Tensor) -> None:
        """Make the buffers of all ranks equal to what those `present` `[n]` agree on. A collective.

        Errors, on all ranks: `TooManyFaults` where more than f have NaN, after all have gone back;
        `InvalidInput` where buffers differ in shape, or one has been written and the mode is "refuse".
        """
        named = self._named()
        if self.mode == "local" or not (named or self._agreed):
            return
        chosen = self._chosen(named)
        if self.mode == "refuse" and chosen:
            raise InvalidInput(
                f"With buffers='refuse' a forward pass should write none. Found {list(chosen)}. "
                "Say buffers='median' or 'local', or use layers without running statistics."
            )
        if not chosen:
            return
        with torch.autograd.grad_mode._unsafe_preserve_version_counter(tuple(chosen.values())):
            bad, unsettled = self._take(chosen, present)
        settled = {name: buffer for name, buffer in chosen.items() if name not in unsettled}
        self._agreed |= {name: buffer.detach().clone() for name, buffer in settled.items()}
        if len(bad) > (most := self._most(present)):
            raise TooManyFaults(
                f"Ranks with NaN in their buffers should be at most {most}. Found ranks {bad}. "
                f"All have gone back to the buffers before this step{_but(unsettled)}.",
                bad,
            )

    def _most(self, present: Tensor) -> int:
        """How many of the ranks that are present may have NaN: f, and less than half of them."""
        return max(0, min(self.f, (int(present.sum()) - 1) // 2))

    @torch.no_grad()
    def restore(self) -> None:
        """Set all buffers to what the ranks agreed on last; those that stay local are left alone."""
        self._go_back(self._named())

    def _go_back(self, named: dict[str, Tensor]) -> None:
        for name, buffer in named.items():
            if self._has_earlier(name, buffer):
                buffer.copy_(self._agreed[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The buffers that the ranks agreed on last, by name."""
        return {name: buffer.clone() for name, buffer in self._agreed.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state_dict` gave for what was agreed on last. The module's buffers stay as they are."""
        for name, before in self._agreed.items():
            if name in state and state[name].shape == before.shape:
                before.copy_(state[name])

    def _named(self) -> dict[str, Tensor]:
        found = self.module.named_buffers()
        return {name: buffer for name, buffer in found if name not in self.ignored and buffer.numel()}

    def _chosen(self, named: dict[str, Tensor]) -> dict[str, Tensor]:
        """The buffers to be told: the same on all ranks."""
        kinds = [(name, tuple(buffer.shape), str(buffer.dtype)) for name, buffer in named.items()]
        layout = int.from_bytes(blake2b(repr(kinds).encode(), digest_size=6).digest(), "little")
        doubtful = [n for n, b in named.items() if b.numel() > SMALL or self.mode == "refuse"]
        written = [name for name in doubtful if not self._is_agreed(name, named[name])]
        own = torch.tensor([layout, bool(written)], dtype=torch.float64, device="cpu")
        layouts, wrote = self.comm.all_gather(own).cpu().unbind(dim=1)
        odd = [rank for rank, each in enumerate(layouts.tolist()) if each != float(layouts.median())]
        require(not odd, "Buffers", "have the same names and shapes on all ranks", f"others on ranks {odd}")
        left = set(doubtful)
        if wrote.any():
            flags = torch.tensor([name in written for name in doubtful], dtype=torch.uint8, device="cpu")
            told = self.comm.all_gather(flags).cpu().any(dim=0).tolist()
            left = {name for name, yes in zip(doubtful, told, strict=True) if not yes}
        return {name: buffer for name, buffer in named.items() if name not in left}

    def _has_earlier(self, name: str, buffer: Tensor) -> bool:
        """Whether ranks have agreed on this buffer before, as it is shaped now."""
        before = self._agreed.get(name)
        return before is not None and (before.shape, before.dtype) == (buffer.shape, buffer.dtype)

    def _is_agreed(self, name: str, buffer: Tensor) -> bool:
        # Bytes, because NaN is not equal to NaN.
        return self._has_earlier(name, buffer) and torch.equal(_bytes(self._agreed[name]), _bytes(buffer))

    def _has_new_nan(self, name: str, buffer: Tensor) -> Tensor:
        """Whether there is NaN where there was none when ranks agreed last."""
        nan = _flat(buffer).isnan()
        if self._has_earlier(name, buffer):
            nan &= ~_flat(self._agreed[name]).isnan()
        return nan.any()

    def _take(self, chosen: dict[str, Tensor], present: Tensor) -> tuple[list[int], list[str]]:
        """Write what the ranks that are `present` agree on. The ranks with NaN, and the buffers that nobody
        has agreed on yet (new ones, or of a new shape), which stay each rank's own when all go back."""
        parts = [_bytes(buffer) for buffer in chosen.values()]
        new = torch.stack([self._has_new_nan(*each).cpu() for each in chosen.items()]).any()
        parts.append(new.to(parts[0]).view(1))
        told = self._told(chosen, torch.cat(parts))
        *columns, said = torch.split(told, [len(part) for part in parts], dim=1)
        rows = {
            name: piece.to(buffer.device)
            .clone(memory_format=torch.contiguous_format)
            .view(_flat(buffer).dtype)
            for (name, buffer), piece in zip(chosen.items(), columns, strict=True)
        }
        said = said.flatten().cpu() > 0
        broken = torch.stack([self._broken(matrix, present, said) for matrix in rows.values()]).any(dim=0)
        bad = (present & broken).nonzero().flatten().tolist()
        kept = present & ~broken
        back = len(bad) > self._most(present) or not kept.any()
        if back:
            unsettled = [name for name, buffer in chosen.items() if not self._has_earlier(name, buffer)]
            self._go_back(chosen)
            return bad, unsettled
        for name, buffer in chosen.items():
            buffer.copy_(_shaped(agreed(rows[name][kept.to(buffer.device)]), buffer))
        return bad, []

    def _told(self, chosen: Mapping[str, Tensor], own: Tensor) -> Tensor:
        """The bytes of these buffers on all ranks `[n, b]`, of which `own` are this rank's."""
        return self.comm.all_gather(own)

    def _broken(self, rows: Tensor, present: Tensor, said: Tensor) -> Tensor:
        """Which ranks have NaN `[n]` where it is not what all but f have had for long; those that have `said`
        so by themselves have."""
        nan, m = rows.isnan(), int(present.sum())
        usual = (nan & (present & ~said).to(nan.device)[:, None]).sum(dim=0) >= max(m - self.f, m // 2 + 1)
        return (nan & ~usual).any(dim=1).cpu() | said


def agreed(rows: Tensor) -> Tensor:
    """The coordinate median of rows `[m, b]` of floats; of whole numbers what most have.

    Infinite values count as they are, and NaN as the largest: with fewer than half of the rows faulty the
    middle is an honest value, or lies between two.
    """
    if not rows.dtype.is_floating_point:
        return rows.mode(dim=0).values
    ordered, m = rows.sort(dim=0).values, len(rows)
    low, high = ordered[(m - 1) // 2], ordered[m // 2]
    return torch.where(low == high, low, low / 2 + high / 2)


def check_mode(mode: Buffers) -> None:
    """Raise `InvalidInput` for what is no mode."""
    words = Buffers.__args__  # type: ignore[attr-defined]
    require(mode in words, "Parameter `buffers`", f"be one of {', '.join(words)}", repr(mode))


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


def _but(unsettled: list[str]) -> str:
    """What an error says of buffers without an earlier value."""
    return (
        f"; new ones have no earlier value, and stay as each rank has them: {unsettled}" if unsettled else ""
    )


def _flat(buffer: Tensor) -> Tensor:
    """The numbers of a buffer in a row, complex ones as pairs and truth values as bytes."""
    real = torch.view_as_real(buffer) if buffer.is_complex() else buffer
    return (real.to(torch.uint8) if real.dtype == torch.bool else real).detach().contiguous().reshape(-1)


def _bytes(buffer: Tensor) -> Tensor:
    return _flat(buffer).view(torch.uint8)


def _shaped(piece: Tensor, buffer: Tensor) -> Tensor:
    if buffer.is_complex():
        return torch.view_as_complex(piece.view(*buffer.shape, 2))
    return piece.view(buffer.shape)
