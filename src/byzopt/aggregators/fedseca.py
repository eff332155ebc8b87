"""FedSECA: signs elected by workers who mostly agree, and the mean of the cut values that have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from byzopt import accelerator, linalg
from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.weighing import median_value, row_norms, shrink, size_limits, whole
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import answer
from byzopt.errors import require
from byzopt.kernels import RankWindow


@RULES.register("fedseca")
@dataclass(frozen=True)
class FedSECA(Aggregator):
    """s_j times the mean of the cut sizes |v_ij| over the rows whose sign in column j is the elected s_j.

    Election: ω_ik is the mean over columns of sign(v_ij) sign(v_kj), a row's say is ρ_i = max(0, the mean
    over k of sign(ω_ik)), and s_j = sign(Σ_i ρ_i sign(v_ij)). Sizes: each row is cut to the median length of
    all rows, then each size to the median size of its column, and only the largest 1 - `sparsity` of each
    row's own values take part. A column in which no sign is elected, or nobody takes part, is 0.

    `f` only says how many rows may be dropped. Needs 2 f < n; no value of the answer exceeds the median size
    of its column. κ unproved: where honest signs are divided f rows decide the sign. Not
    translation-equivariant. Rows times c > 0 give c times the answer, but equal rows give that row thinned
    out, so that it is called scale-equivariant only for `sparsity` 0. With few workers or short rows most
    columns may be 0. Cost: about a dozen passes over the rows.
    Source: Benjamin, Asokan, Yaqub, Nandakumar, CVPR workshops 2025 (arXiv:2411.03861), equations 2 to 7,
    as CRYPTO-KU/FL-Byzantine-Library has them (`fedseca.py`), since the text was not within reach. Where we
    differ from that: a column without an elected sign is 0, as the formula says (there it is the mean of all
    rows); at least one value of each row takes part. `form = "released"` is what the authors' code does
    (`FedSECAΞByzantine` in JosephGeoBenjamin/FedSECA-ByzantineTolerance): only values that take part vote,
    and it is the rows as they came whose sizes are cut to the column's median, which is that of the rows cut
    in length. It takes the lower of two medians; its momentum over rounds is a server's step
    (`server_momentum`).

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        sparsity: γ, the share of each row's values that take no part, in [0, 1).
        form: As the paper's "equations" have it, or the "released" code.

    Examples:
        >>> import torch
        >>> from byzopt import FedSECA
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [-90.0, -90.0]])
        >>> FedSECA(f=1, sparsity=0.0)(rows)
        tensor([1.2906, 1.2906])
    """

    translation_equivariant = False
    convex = False
    columnwise = True

    f: int | None = None
    sparsity: float = 0.9
    form: Literal["equations", "released"] = "equations"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.sparsity < 1, "Parameter `sparsity` of FedSECA", "lie in [0, 1)", self.sparsity)

    @property
    def scale_equivariant(self) -> bool:
        return self.sparsity == 0

    def reduce(self, mixed: Mixed) -> Tensor:
        parts = []
        for elected, sizes, taken in self._elections(mixed):
            total = (sizes * taken).sum(dim=0)
            parts.append((elected * total / taken.sum(dim=0).clamp_min(1)).to(mixed.rows.dtype))
        return accelerator.joined(parts)

    def influence(self, mixed: Mixed) -> Tensor:
        """Every column is shared evenly by those who take part in it."""
        total = torch.zeros(mixed.m, dtype=torch.float64, device="cpu")
        for elected, _, taken in self._elections(mixed):
            taken &= elected != 0
            total += (taken.double() / taken.sum(dim=0).clamp_min(1)).sum(dim=1).cpu()
        return mixed.through(total / mixed.d)

    def _elections(self, mixed: Mixed) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Blocks of columns: elected signs `[b]`, cut sizes and who takes part `[m, b]`."""
        plain = whole(mixed)
        norms, say = row_norms(plain), _say(plain)
        cut = shrink(norms, median_value(norms)).unsqueeze(1)
        magnitudes = plain.rows.abs()
        limits = size_limits(magnitudes, 1 - self.sparsity)
        middle = RankWindow((plain.m - 1) // 2, plain.m // 2 + 1)
        for piece, block in plain.blocks(None if linalg.ordinary(cut) else torch.float64):
            signs, sizes = block.sign(), magnitudes[:, piece].to(block.dtype)
            released = self.form == "released"
            large = sizes >= limits
            elected = (say.to(signs) @ (signs.where(large, 0) if released else signs)).sign()
            short = sizes * cut.to(sizes)
            if accelerator.holds(short):
                typical = accelerator.columns(short, middle, None, None, short.dtype)[0]
            else:
                typical = answer(short, middle)
            taken = large & (signs == elected)  # also those without a sign, where none is elected
            yield elected, (sizes if released else short).minimum(typical), taken


def _say(plain: Mixed) -> Tensor:
    """n times ρ `[m]`, whole numbers, so that votes are counted without rounding."""
    total: Tensor | None = None
    for _, block in plain.blocks():
        signs = block.sign()
        held = accelerator.holds(signs)
        part = accelerator.products(signs, None, signs.dtype) if held else (signs @ signs.T).double()
        total = part if total is None else total + part
    assert total is not None
    (agreement,) = accelerator.fetch(total)
    return agreement.sign().sum(dim=1).clamp_min(0)
