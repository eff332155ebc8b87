"""Single kernels on a device, beside plain torch and the reading of the rows; decisions kept on the device.

For `device.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from _device_counts import F
from _device_steps import Bench, Found
from byzopt import accelerator, kernels, rule_from
from byzopt.kernels import RankWindow

SIZES = [(20, 1_000_000), (20, 10_000_000), (64, 4_000_000), (100, 1_000_000), (1000, 100_000)]


def kernel_times(bench: Bench, bandwidth: float) -> Found:
    """What `byzopt.accelerator` does in one pass over the rows, with Triton's kernels and without."""
    lines: Found = []
    for n, d in [(20, 20_000)] if bench.small else SIZES:
        rows, f = bench.rows(n, d), (n - 1) // 3
        middle, inner = RankWindow((n - 1) // 2, n // 2 + 1), RankWindow(f, n - f)
        mixing = torch.softmax(bench.rows(n, n).double(), dim=1)
        steps: dict[str, Callable[[], object]] = {
            "products of pairs": lambda rows=rows: accelerator.products(rows, None, torch.float32),
            "squared norms": lambda rows=rows: accelerator.squares(rows, torch.float32),
            "a weighted sum": lambda rows=rows, w=mixing[:1]: accelerator.blended(w, rows, torch.float32),
        }
        for name, plan in (
            ("median", middle),
            ("trimmed mean", inner),
            ("mean around the median", middle._replace(around=n - f)),
        ):
            steps[name] = lambda rows=rows, plan=plan: _columns(rows, plan, None)
        steps["median of mixed rows"] = lambda rows=rows, plan=middle, w=mixing: _columns(rows, plan, w)
        for name, step in steps.items():
            ours = bench.ms(step)
            with kernels.disabled():
                plain = bench.ms(step)
            floor = 4e-6 * n * d / bandwidth
            line = {
                "kernel": name,
                "n": n,
                "d": d,
                "ms": ours,
                "in plain torch": plain,
                "rows read once": floor,
            }
            lines.append(line | {"plain / ours": plain / ours, "ours / read once": ours / floor})
    return lines


def _columns(rows: Tensor, plan: RankWindow, mixing: Tensor | None) -> Tensor:
    return accelerator.columns(rows, plan, mixing, None, torch.float32)[0]


def decisions(bench: Bench) -> Found:
    """The same rule with its n x n numbers decided on the host, on the device, and there as a CUDA graph.

    Only the first is how byzopt works: the others look at nothing, and so see no row that is not finite.
    """
    lines: Found = []
    for n, d in [(20, 20_000)] if bench.small else SIZES[:2]:
        rows = bench.rows(n, d)
        for name, decide in (("krum", _krum), ("nnm >> rfa", _nnm_rfa)):
            rule: Any = rule_from(name, f=F)

            def step(rows: Tensor = rows, decide: Callable[[Tensor], Tensor] = decide) -> Tensor:
                weights = decide(accelerator.products(rows, None, torch.float32))
                return accelerator.blended(weights, rows, torch.float32)

            line: dict[str, Any] = {"rule": name, "n": n, "d": d}
            line["on the host, ms"] = bench.ms(lambda rule=rule, rows=rows: rule(rows))
            line["on the device, ms"] = bench.ms(step)
            line["as a graph, ms"] = bench.ms(_graph(step)) if bench.device.type == "cuda" else None
            lines.append(line | {"difference": float((step() - rule(rows)).abs().max())})
    return lines


def _graph(step: Callable[[], Tensor]) -> Callable[[], object]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _distances(products: Tensor) -> Tensor:
    squares = products.diagonal()
    return (squares[:, None] + squares[None, :] - 2 * products).clamp_min(0)


def _krum(products: Tensor) -> Tensor:
    n = len(products)
    near = _distances(products).sort(dim=1).values[:, 1 : n - F - 1].sum(dim=1)
    return torch.zeros_like(products[:1]).scatter(1, near.argmin().view(1, 1), 1.0)


def _nnm_rfa(products: Tensor) -> Tensor:
    n = len(products)
    near = _distances(products).topk(n - F, dim=1, largest=False).indices
    mixing = torch.zeros_like(products).scatter(1, near, 1.0 / (n - F))
    mixed = mixing @ products @ mixing.T
    weights = torch.full_like(products[0], 1.0 / n)
    for _ in range(8):
        along = mixed @ weights
        apart = (mixed.diagonal() - 2 * along + weights @ along).clamp_min(0).sqrt().clamp_min(0.1)
        weights = 1 / apart / (1 / apart).sum()
    return (weights @ mixing)[None]
