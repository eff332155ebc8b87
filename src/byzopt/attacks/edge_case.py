"""Edge-case backdoors: the least usual pictures of a class, which the model is to take for another."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import require


@ATTACKS.register("edge_case")
@dataclass(frozen=True)
class EdgeCase(Attack):
    """Own honest messages on data whose edge cases have the label `target`; times `scale`, cut to `bound`.

    Edge cases are the `share` of the samples of class `source` (None: of each class but `target`) that lie
    furthest from that class's mean, at least one: a worker's among its own samples, those of the figure among
    the test samples. No pixel is changed, and honest workers have few such samples to speak against them. The
    poisoned task measures `backdoor_success`: the share of the test set's edge cases taken for `target`.

    `scale` 1 is the paper's black-box attack; n/b stands for model replacement. `bound`, a length, is its
    projected attack (PGD), which stays within a ball about the server's point: on messages, a length.

    Source: Wang et al., "Attack of the tails", NeurIPS 2020 (arXiv:2007.05084), definition 1 and section 3.
    Where we differ: the paper takes edge cases from other data sets (planes of one airline, digits of another
    hand), and ranks samples by a mixture of Gaussians on a network's features; here the samples at hand are
    ranked by their distance from their class's mean, and none are added: where liars hold few of them they
    weigh little. On `digits`, with 3 of 10 workers lying and the plain mean, `share` 0.1 changes nothing, and
    `share` 1 with `scale` 5 succeeds in 97 % of the cases. A worker without samples of `source` sends honest
    rows.

    Args:
        target: Label that edge cases get.
        source: Class that they are taken from; None: all others.
        share: Share of a class's samples that are edge cases, in (0, 1].
        scale: Factor of the message, > 0.
        bound: Largest length of the message; None: none.

    Raises:
        InvalidInput: A task without samples and labels, and a class that there is not.

    Examples:
        >>> from byzopt import Cohort, Digits, EdgeCase, simulate
        >>> task = Digits(model="linear", batch=8).build(Cohort.of(4, 1), seed=0)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=2, f=1, attack=EdgeCase(target=1, source=7))
        >>> "backdoor_success" in outcome.metrics
        True
    """

    target: int = 0
    source: int | None = None
    share: float = 0.1
    scale: float = 1.0
    bound: float | None = None
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def __post_init__(self) -> None:
        require(self.target >= 0, "Parameter `target` of edge_case", "be at least 0", self.target)
        other = self.source is None or (self.source >= 0 and self.source != self.target)
        require(other, "Parameter `source` of edge_case", "be another class than `target`", self.source)
        require(0 < self.share <= 1, "Parameter `share` of edge_case", "lie in (0, 1]", self.share)
        require(self.scale > 0, "Parameter `scale` of edge_case", "be positive", self.scale)
        bounded = self.bound is None or self.bound > 0
        require(bounded, "Parameter `bound` of edge_case", "be positive", self.bound)

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return task.poisoned(workers, self.infect, "backdoor_success", self.goal)

    def infect(self, samples: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The samples as they are, their edge cases with the label `target`."""
        return samples, labels.index_fill(0, self.edge(samples, labels, classes), self.target)

    def goal(self, samples: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The edge cases alone, and what the attacker wants them taken for."""
        found = self.edge(samples, labels, classes)
        what = "The test samples of an edge-case backdoor"
        require(len(found) > 0, what, "show the class that it is taken from", "none")
        return samples[found], torch.full_like(labels[found], self.target)

    def edge(self, samples: Tensor, labels: Tensor, classes: int) -> Tensor:
        """The places of the edge cases among `samples` `[m, ...]`, in order."""
        real = samples.is_floating_point() and samples.ndim > 1 and labels.ndim == 1
        kind = f"samples {tuple(samples.shape)} of {samples.dtype}"
        require(real, "The samples of an edge-case backdoor", "be vectors or images with a label each", kind)
        for name in ("target", "source"):
            value = getattr(self, name)
            known = value is None or value < classes
            require(known, f"Parameter `{name}` of edge_case", f"lie in 0..{classes - 1}", value)
        flat, places = samples.flatten(1).double(), [labels.new_zeros(0, dtype=torch.long)]
        for one in range(classes) if self.source is None else (self.source,):
            mine = (labels == one).nonzero().flatten()
            if one != self.target and len(mine):
                away = linalg.norm(flat[mine] - flat[mine].mean(dim=0))
                few = max(1, ceil(self.share * len(mine) - 1e-9))
                places.append(mine[away.argsort(descending=True, stable=True)[:few]])
        return torch.cat(places).sort().values

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        rows = self.scale * view.own
        if self.bound is None:
            return rows
        lengths = linalg.norm(rows).unsqueeze(-1)
        return rows * (self.bound / lengths).clamp(max=1).to(rows.dtype).nan_to_num(nan=1.0)
