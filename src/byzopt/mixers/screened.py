"""Screening by a rule: each node applies a robust rule to its own row and its neighbours'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt import kernels
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.kinds import CoordinateRule, RankRule
from byzopt.errors import InvalidInput, require
from byzopt.graphs import Network
from byzopt.mixers.base import MIXERS, Hearing, Mixer
from byzopt.mixers.distances import CHUNK, SMALL


@MIXERS.register("screen")
@dataclass(frozen=True)
class Screen(Mixer):
    """x_i <- x_i + α (rule(x_i, neighbours) - x_i): any rule of the library on every node's neighbourhood.

    With `rule = "trimmed_mean"`, `"median"`, `"krum"` or `"bulyan"` and order "combine_adapt" this is BRIDGE.
    BRIDGE-T trims the neighbours alone and always keeps the own row (`own = "beside"`). Weights of edges do
    not count. Rules that trust a row trust the own one, which is the first (`trusted` 0, own "among"). Those
    with a weight for each worker are refused, as a neighbourhood is not all workers.
    Source: Fang, Yang, Bajwa, arXiv:1908.08098.

    Args:
        alpha: α in (0, 1], how far towards the rule's answer.
        own: "among": the own row is one of those screened; "beside": it is averaged with the answer for the
            N neighbours, which weighs N - 2b of its weight.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort, TrimmedMean
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import Hearing, Screen
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(5, byzantine=1))
        >>> lie = torch.tensor([[1e6]], dtype=torch.float64)
        >>> Screen().mix(Hearing(network, 1, rows, lie, rule=TrimmedMean(f=1)))[0].item()  # (1 + 2 + 3) / 3
        2.0
    """

    uses_rule: ClassVar[bool] = True

    alpha: float = 1.0
    own: Literal["among", "beside"] = "among"

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "Parameter `alpha` of screen", "lie in (0, 1]", self.alpha)

    def check(self, network: Network, b: int, rule: BaseAggregator) -> None:
        beside = self.own == "beside"
        own = not beside and rule.trusts == (0,)
        remedy = "Let it trust row 0, with own = 'among', or take another rule."
        what = "have no place for each worker but its own, the first"
        require(own or not rule.by_worker, "The rule of mixer screen", what, repr(rule), remedy)
        for i in sorted(network.cohort.honest, key=lambda i: network.degrees[i]):
            rows = network.degrees[i] + (0 if beside else 1)
            try:
                rule.check(rows)
            except InvalidInput as error:
                what = "neighbours" if beside else "rows, its own among them"
                raise InvalidInput(f"On node {i}, which has {rows} {what}: {error}") from None
            return  # those with more have enough

    def mix(self, hearing: Hearing) -> Tensor:
        _ = hearing.missing  # refused with the senders' names, not with places in a neighbourhood
        assert hearing.rule is not None  # the loop fills it in for mixers that use one
        out, edges = torch.empty_like(hearing.rows), hearing.edges > 0
        told = hearing.rows if hearing.per_receiver else torch.cat([hearing.rows, hearing.lies], dim=-2)
        for size, nodes in _by_size(edges):
            senders = edges[nodes].nonzero()[:, 1].view(len(nodes), size)
            if self.own == "among":  # the own row first
                senders = torch.cat([nodes.unsqueeze(1), senders], dim=1)
            answers = _ranked(hearing, told, senders)
            if answers is None:
                numbers = senders.shape[1] * hearing.rows.shape[:-2].numel() * told.shape[-1]
                each = max(1, CHUNK // max(1, numbers))
                parts = zip(torch.split(nodes, each), torch.split(senders, each), strict=True)
                answers = torch.cat([_screened(hearing, told, *some) for some in parts], dim=-2)
            if self.own == "beside":
                count = size - 2 * hearing.b
                own = hearing.rows[..., nodes, :]
                answers = own + count / (count + 1) * (answers - own)
            out[..., nodes, :] = answers
        return hearing.rows + self.alpha * (out - hearing.rows)


def _by_size(edges: Tensor) -> list[tuple[int, Tensor]]:
    """Nodes with equally many neighbours, and how many."""
    sizes = edges.sum(dim=1)
    return [(int(size), (sizes == size).nonzero().flatten()) for size in sorted(set(sizes.tolist()))]


def _ranked(hearing: Hearing, told: Tensor, senders: Tensor) -> Tensor | None:
    """Order statistics of long rows that are told to all alike, taken from where these lie, for all receivers
    in one call: `[k, d]`. None where that cannot be, or some row is not finite."""
    rule, (k, m), d = hearing.rule, senders.shape, told.shape[-1]
    plain = told.ndim == 2 and not hearing.per_receiver and m * d > SMALL and kernels.supports(told)
    if not (plain and _columnwise(rule) and isinstance(rule, RankRule) and rule.direct):
        return None
    answers = told.new_empty(k, d)
    fits = kernels.reduces_sets(told, m)
    whole = fits and kernels.reduce_tall_sets(told, senders.numpy(), rule.plan(m), answers)
    return answers if whole else None


def _screened(hearing: Hearing, told: Tensor, nodes: Tensor, senders: Tensor) -> Tensor:
    """What the rule makes of the set of rows of each of `nodes`: `[..., k, d]`.

    To a rule that answers each column by itself the long rows of all these nodes are one set of still longer
    ones, which is one call; where a row is not finite sets go by themselves.
    """
    rule, (k, m), d = hearing.rule, senders.shape, told.shape[-1]
    assert rule is not None
    if _columnwise(rule) and told.ndim == 2 and m * d > SMALL and bool(hearing.arrived.all()):
        if hearing.per_receiver:
            wide = _sets(hearing, told, nodes, senders).transpose(0, 1).reshape(m, k * d)
        else:
            wide = told.index_select(0, senders.T.reshape(-1)).view(m, k * d)
        answers: Tensor = rule(wide)
        return answers.view(k, d)
    sets = _sets(hearing, told, nodes, senders)
    return rule.batch(sets.reshape(-1, m, d)).view(*sets.shape[:-2], d)


def _columnwise(rule: BaseAggregator | None) -> bool:
    """Whether it is a rule of this library that answers each column by itself."""
    return isinstance(rule, CoordinateRule) and not rule.foreign


def _sets(hearing: Hearing, told: Tensor, nodes: Tensor, senders: Tensor) -> Tensor:
    """What each of `nodes` hears from its `senders` `[k, m]`: `[..., k, m, d]`. `told` is what is said to all
    alike."""
    rows, lies = hearing.rows, hearing.lies
    if not hearing.per_receiver:
        return told[..., senders, :]
    honest = rows.unsqueeze(-3).expand(*rows.shape[:-2], len(nodes), *rows.shape[-2:])
    told = torch.cat([honest, lies[..., nodes, :].transpose(-3, -2)], dim=-2)
    return told.gather(-2, senders.unsqueeze(-1).expand(*told.shape[:-2], senders.shape[1], told.shape[-1]))
