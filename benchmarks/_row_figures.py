"""Rules that go by figures of single rows, and the shortest that does the same in torch, unchecked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt import aggregators as ag
from byzopt.aggregators import Aggregator

SIZES = (
    (4, 10),
    (4, 1_000),
    (20, 1_000),
    (20, 10_000),
    (33, 100_000),
    (100, 1_000),
    (100, 10_000),
    (100, 100_000),
    (300, 10_000),
    (1_000, 10_000),
    (3_000, 3),
    (3_000, 1_000),
)
TAU = 1.0
BESIDE = """Ours / torch's, and their ratio. Torch's `foolsgold` is no more than cosines, in float32, and one
weighted sum; ours takes float64 products, which tell rows apart whose angle is a millionth. No way of torch's
looks whether rows are finite.
"""


def nearest(rows: Tensor, sizes: Tensor, f: int) -> Tensor:
    kept = sizes.topk(len(rows) - f, largest=False).indices
    weights = torch.zeros(len(rows)).index_fill_(0, kept, 1 / len(kept))
    return weights @ rows


def cge(rows: Tensor, f: int) -> Tensor:
    return nearest(rows, rows.norm(dim=1), f)


def monna(rows: Tensor, f: int) -> Tensor:
    return nearest(rows, (rows - rows[0]).norm(dim=1), f)


def norm_clipping(rows: Tensor, f: int) -> Tensor:
    norms = rows.norm(dim=1)
    return ((norms.median() / norms).clamp_max(1) / len(rows)) @ rows


def fltrust(rows: Tensor, f: int) -> Tensor:
    norms = rows.norm(dim=1)
    trust = (rows @ rows[0] / (norms * norms[0])).clamp_min(0)
    trust[0] = 0
    return (trust / trust.sum() * norms[0] / norms) @ rows


def clipped(rows: Tensor, f: int) -> Tensor:
    return ((TAU / rows.norm(dim=1)).clamp_max(1) / len(rows)) @ rows


def cosines(rows: Tensor, f: int) -> Tensor:
    """What FoolsGold cannot do without: the cosines, here in float32, and a weighted sum."""
    units = rows / rows.norm(dim=1, keepdim=True)
    return (units @ units.T)[0] @ rows


PLAIN: dict[str, tuple[Callable[[int], Aggregator], Callable[[Tensor, int], Tensor]]] = {
    "cge": (lambda f: ag.CGE(f=f), cge),
    "monna": (lambda f: ag.MoNNA(f=f), monna),
    "norm_clipping": (lambda f: ag.NormClipping(), norm_clipping),
    "fltrust": (lambda f: ag.FLTrust(), fltrust),
    "centered_clipping(start = zero)": (lambda f: ag.CenteredClipping(tau=TAU, start="zero"), clipped),
    "clipping >> mean": (lambda f: ag.Clipping(tau=TAU) >> ag.Mean(), clipped),
    "foolsgold": (lambda f: ag.FoolsGold(), cosines),
}
