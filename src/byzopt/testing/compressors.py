"""What every compressor promises: its constants hold, its draws repeat, its cost is what it says."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from byzopt.layout import Layout
from byzopt.testing.checks import Requirement, equal, holds, normal
from byzopt.wire import Compressor, Link

D, DRAWS = 31, 4000


def vectors() -> tuple[Tensor, ...]:
    """Vectors `[d]` on which the constants are tried: dense, sparse, constant, zero, tiny."""
    dense = normal(D)
    sparse = dense * (torch.arange(D, device="cpu") % 7 == 0)
    return dense, sparse, torch.full_like(dense, -1.5), torch.zeros_like(dense), dense * 1e-30


def keeps_shapes_dtypes_and_inputs(compressor: Compressor) -> None:
    """Rows `[n, d]` keep their shape and dtype and are not written to."""
    for dtype in (torch.float32, torch.float64):
        rows = normal(3, D, dtype=dtype)
        before = rows.clone()
        out = compressor(rows, _link())
        holds(equal(rows, before), "rows that were written to")
        holds(out.dtype == dtype and out.shape == rows.shape, f"{out.dtype} {list(out.shape)}")
        holds(out.isfinite().all(), "NaN or Inf in the answer to finite rows")


def draws_as_the_round_says(compressor: Compressor) -> None:
    """Its draw is a function of seed and round: the same to the bit, whatever the global seed is; and a
    process that plays one worker draws that worker's numbers."""
    rows, link, before = normal(6, D), _link(), torch.get_rng_state()
    try:
        torch.manual_seed(1)
        first = compressor(rows, link)
        torch.manual_seed(2)
        holds(equal(first, compressor(rows, link)), "another answer in the same round")
        for i in range(len(rows)):
            alone = compressor(rows[i : i + 1], link._replace(only=(i, len(rows))))
            holds(equal(alone[0], first[i]), f"another answer where worker {i} is alone")
    finally:
        torch.set_rng_state(before)


def _draws_of(compressor: Compressor, a: Tensor) -> Tensor:
    """`a` `[D]` compressed in `DRAWS` independent draws: those of as many workers, or where workers share a
    round's draw, of as many rounds."""
    if not compressor.one_draw:
        return compressor(a.expand(DRAWS, D), _link())
    rounds = [compressor(a.unsqueeze(0), _link()._replace(t=t)) for t in range(1, DRAWS + 1)]
    return torch.cat(rounds)


def contracts_as_it_says(compressor: Compressor) -> None:
    """E‖C(a) - a‖² <= (1 - α)‖a‖² with its α, up to four standard errors of the mean over draws."""
    alpha = compressor.least_alpha(_link().layout)
    holds(alpha is not None, "no α")
    for a in vectors():
        rows = a.expand(DRAWS, D)
        away = (_draws_of(compressor, a) - rows).square().sum(dim=1)
        room = 4 * float(away.std()) / sqrt(DRAWS) + 1e-12 * float(a.square().sum())
        limit = (1 - (alpha or 0.0)) * float(a.square().sum())
        holds(float(away.mean()) <= limit + room, f"{float(away.mean())} where {limit} is allowed")


def is_unbiased_as_it_says(compressor: Compressor) -> None:
    """E Q(a) = a, and E‖Q(a) - a‖² <= ω‖a‖², up to five standard errors of the mean over draws."""
    omega = compressor.largest_omega(_link().layout)
    holds(omega is not None, "no ω")
    for a in vectors():
        rows = a.expand(DRAWS, D)
        answers = _draws_of(compressor, a)
        room = 5 * answers.std(dim=0) / sqrt(DRAWS) + 1e-12 * a.abs()
        holds(((answers.mean(dim=0) - a).abs() <= room).all(), "a mean away from the vector")
        away = (answers - rows).square().sum(dim=1)
        limit = (omega or 0.0) * float(a.square().sum()) * (1 + 1e-12)
        holds(
            float(away.mean()) <= limit + 5 * float(away.std()) / sqrt(DRAWS),
            f"{float(away.mean())} of {limit}",
        )


def counts_its_bits(compressor: Compressor) -> None:
    """A message costs a whole number of bits, at least one; it holds between 1 and d coordinates."""
    for d in (1, 7, D):
        layout = Layout.flat(d)
        bits, kept = compressor.bits(layout), compressor.coordinates(layout)
        holds(isinstance(bits, int) and bits >= 1, f"{bits} bits at d = {d}")
        holds(1 <= kept <= d, f"{kept} coordinates at d = {d}")


def works_on_each_tensor_or_on_all(compressor: Compressor) -> None:
    """With `scope` "tensor" every tensor of the layout is compressed as if it were alone."""
    layout = Layout(("a", "b"), ((4, 5), (11,)))
    rows = normal(2, layout.d)
    out = compressor(rows, Link(1, 0, layout))
    holds(out.shape == rows.shape and out.isfinite().all(), f"{list(out.shape)}")
    if compressor.scope == "tensor" and not compressor.random:
        parts = [
            compressor(part, Link(1, 0, Layout.flat(part.shape[1])))
            for part in torch.split(rows, [20, 11], dim=1)
        ]
        holds(equal(out, torch.cat(parts, dim=1)), "another answer than tensor by tensor")


def _link() -> Link:
    return Link(1, 0, Layout.flat(D))


def _contractive(compressor: Compressor) -> str:
    good = compressor.contracts and compressor.least_alpha(Layout.flat(D)) is not None
    return "" if good else "It declares no contraction."


def _unbiased(compressor: Compressor) -> str:
    return "" if compressor.unbiased else "It declares that it is biased."


PROMISES = (
    Requirement(keeps_shapes_dtypes_and_inputs),
    Requirement(draws_as_the_round_says),
    Requirement(contracts_as_it_says, _contractive),
    Requirement(is_unbiased_as_it_says, _unbiased),
    Requirement(counts_its_bits),
    Requirement(works_on_each_tensor_or_on_all),
)
