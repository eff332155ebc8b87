"""An attack for `survive.py`, written for chains of `normalise`, `nnm` and `capped_nnm` before a mean.

Where the general search moves faulty rows by lot, this one follows the gradient of its objective through the
chain itself, from many starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators import NNM, Aggregator, CappedNNM, Mean, Normalise, rule_from
from byzopt.attacks.adaptive.autobyz import KEPT, SHARP, AutoByz, Memory
from byzopt.attacks.adaptive.candidates import candidates
from byzopt.attacks.adaptive.scene import Scene
from byzopt.attacks.adaptive.search import Best, evolve, refine
from byzopt.attacks.adaptive.trials import SPACES, Trials, seen
from byzopt.errors import require

PACE = 0.05  # of a step, in median lengths of the honest rows
TINY = 1e-300


@dataclass(frozen=True)
class Ascent(AutoByz):
    """The best rows of the general search and some by lot, each moved `steps` steps of Adam uphill.

    Args:
        chain: The chain that is attacked, as text; its f is the number of faulty workers.
        steps: Steps from each start.
        starts: Sets of rows from which it begins.
    """

    chain: str = "normalise >> capped_nnm(cap=0.5) >> mean"
    steps: int = 60
    starts: int = 24

    def _search(
        self, whole: Scene, trials: Trials, state: Memory, b: int, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        small = seen(whole, "span", generator)
        first = candidates(whole, b, state.last, generator)
        best = Best(lambda c: self._harm(small, trials, c), first)
        refine(best)
        evolve(best, generator)
        order = torch.randperm(len(first), generator=generator, device=generator.device).cpu()
        begun = torch.cat([best.top(self.starts // 2), first[order[: self.starts // 2]]])
        rows = self._climbed(small, small.rows(begun), trials)
        ways = small.dictionary  # rows in the span have coefficients
        away = (rows - small.mean).flatten(0, 1)
        found = torch.linalg.lstsq(ways.T, away.T, driver="gelsd").solution.T
        best.add(found.view(len(rows), b, -1))
        return best.top(KEPT), SPACES.index("span")

    def _climbed(self, small: Scene, rows: Tensor, trials: Trials) -> Tensor:
        """The best rows `[starts, b, k]` on the way uphill from `rows`."""
        chain = rule_from(self.chain, f=rows.shape[1])
        honest = small.honest.expand(len(rows), -1, -1)
        answer = through(chain, torch.cat([honest, rows], dim=1))
        sets = torch.empty_like(torch.cat([honest, rows], dim=1))
        sets[:, trials.honest], sets[:, trials.byzantine] = honest, rows
        met = trials.asks[0](sets, None)
        away = float((met - answer).norm() / met.norm())
        require(away < 1e-6, "The defence", f"be {self.chain}", f"answers that are {away:.2g} off")
        unit = float(small.honest.norm(dim=-1).median())
        x = cut(rows, unit).requires_grad_(True)  # longer rows count no more and turn more slowly
        kept, most = x.detach().clone(), torch.full((len(rows),), -torch.inf, dtype=rows.dtype, device="cpu")
        adam = torch.optim.Adam([x], lr=PACE * unit)
        for _ in range(self.steps):
            harm = self._felt(small, through(chain, torch.cat([honest, x], dim=1)))
            better = harm.detach() > most
            most = torch.where(better, harm.detach(), most)
            kept = torch.where(better[:, None, None], x.detach(), kept)
            adam.zero_grad()
            (-harm.sum()).backward()  # type: ignore[no-untyped-call]
            adam.step()
            x.data = cut(x.data, unit)
        return kept

    def _felt(self, small: Scene, answers: Tensor) -> Tensor:
        """The objective, with gradients."""
        unit = answers / answers.norm(dim=-1, keepdim=True).clamp_min(TINY)
        if self.objective == "workers":
            rows = small.honest / small.honest.norm(dim=-1, keepdim=True).clamp_min(TINY)
            return torch.tanh(-SHARP * (unit @ rows.T)).mean(dim=-1)
        against: Tensor = -unit @ (small.aim / small.aim.norm().clamp_min(TINY))
        return against


def cut(rows: Tensor, longest: float) -> Tensor:
    """The rows `[..., k]`, none of them longer than `longest`."""
    share: Tensor = longest / rows.norm(dim=-1, keepdim=True).clamp_min(TINY)
    return rows * share.clamp_max(1.0)


def through(chain: Aggregator, rows: Tensor) -> Tensor:
    """The answers `[K, k]` of the chain to sets of rows `[K, n, k]`, with gradients; who is whose neighbour,
    and whose length is the median, is held."""
    for stage in (*chain.stages, chain.last):
        if isinstance(stage, Normalise):
            lengths = rows.norm(dim=-1, keepdim=True)
            median = lengths.quantile(0.5, dim=-2, keepdim=True)
            rows = rows * (median / lengths.clamp_min(TINY)).clamp_max(stage.most)
        elif isinstance(stage, (NNM, CappedNNM)):
            near = torch.cdist(rows.detach(), rows.detach()).topk(rows.shape[-2] - stage.f, largest=False)
            shares = torch.zeros_like(rows @ rows.mT).scatter(-1, near.indices, 1 / near.indices.shape[-1])
            ways = shares.detach() @ rows - rows
            if isinstance(stage, CappedNNM):
                lengths = ways.norm(dim=-1, keepdim=True)
                most = stage.cap * lengths.quantile(0.5, dim=-2, keepdim=True)
                ways = ways * (most / lengths.clamp_min(TINY)).clamp_max(1.0)
            rows = rows + ways
        else:
            require(isinstance(stage, Mean), "A stage of the chain", "be one that this attack knows", stage)
    return rows.mean(dim=-2)
