"""The server's side of a run: the model, and what the nodes' replies do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from statistics import median_low
from typing import Any, NamedTuple

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators import Aggregator
from byzopt.aggregators.core.filters import At, RoundRule
from byzopt.distributed.diagnostics import RoundDiagnostics, diagnose_rows
from byzopt.errors import ByzoptError, TooManyFaults, require
from byzopt.flower.members import Turn
from byzopt.flower.records import ARRAYS, ORDERS, Point, written
from byzopt.flower.replies import Refused, decoded
from byzopt.methods import Method
from byzopt.registry import plain
from byzopt.servers import Site

Faults = dict[int, str]  # node id -> reason


class Progress(NamedTuple):
    """What a server carries from round to round."""

    t: int
    step: Any
    filter: Any


class Server:
    """A method over `nodes`, of which `k` are asked in a round. A round that fails changes nothing.

    `faults[t]` are the nodes that counted as faulty in round t, and why.
    """

    def __init__(
        self,
        method: Method,
        point: Point,
        nodes: Sequence[int],
        k: int,
        f: int | None,
        proxy: Callable[[Tensor], Tensor] | None,
    ) -> None:
        partial = k == len(nodes) or isinstance(method.filter, RoundRule)
        what, remedy = "A filter that remembers workers", "Leave out `sample`."
        require(partial, what, "hear all of them in every round", f"{k} of {len(nodes)}", remedy)
        self.method, self.layout, self.nodes, self.f = method, point.layout, tuple(nodes), f
        step = method.step.init(point.x, Site(point.layout, proxy))
        self.progress = Progress(0, step, method.filter.init(point.x, k))
        self.faults: dict[int, Faults] = {}

    @property
    def x(self) -> Tensor:
        """The point `[d]` at which nodes are asked next."""
        return self.method.step.ask(self.progress.step)

    @property
    def answer(self) -> Tensor:
        """The model `[d]` that the method would return now."""
        return self.method.step.answer(self.progress.step)

    def orders(self, x: Tensor, t: int) -> RecordDict:
        """What a node is told in round t: the model `x` `[d]`, and how to make its message."""
        parts = {"worker": self.method.worker, "wire": self.method.wire}
        told: dict[str, Any] = {slot: json.dumps(plain(part)) for slot, part in parts.items()}
        told |= {"t": t, "names": list(self.layout.names)}
        return RecordDict({ARRAYS: written(x, self.layout), ORDERS: ConfigRecord(told)})

    def take(self, turn: Turn, replies: Iterable[Message]) -> tuple[dict[str, float], RoundDiagnostics]:
        """One round: its figures and its diagnostics.

        Errors: `TooManyFaults`, naming nodes and reasons; `ByzoptError` for a step to NaN or Inf.
        """
        rows, faults, figures = self._heard(turn, replies)
        self.faults[turn.t] = faults
        state, at = self.progress, At(turn.t, self.x)
        rule = self._rule(at)
        try:
            _count(turn, faults, self._tolerance(rule, len(rows)))
            g, memory = self.method.filter.step(state.filter, rows, at)
        except TooManyFaults as error:
            raise _named(error, turn, faults) from None
        step = self.method.step.tell(state.step, g)
        if not self.method.step.ask(step).isfinite().all():
            raise ByzoptError(f"The model should be finite after round {turn.t}. Found NaN or Inf. Lower lr.")
        diagnostics = self._diagnostics(turn, rule, rows)
        self.progress = Progress(turn.t, step, memory)
        own = {"faulty": float(len(faults)), "aggregate_norm": float(linalg.norm(g))}
        return figures | self.method.step.report(step) | own, diagnostics

    def _heard(self, turn: Turn, replies: Iterable[Message]) -> tuple[Tensor, Faults, dict[str, float]]:
        """Rows `[k, d]`, NaN where a node is faulty; the faulty ones; figures of the others."""
        x = self.x
        rows = x.new_full((len(turn.nodes), len(x)), torch.nan)
        told, faults = turn.sorted(replies)
        figures = []
        for i, node in enumerate(turn.nodes):
            if node in faults:
                continue
            try:
                row, own = decoded(told[node], self.layout, x.dtype)
            except Refused as error:
                faults[node] = str(error)
                continue
            rows[i] = row.to(x.device)
            figures.append(own)
        return rows, faults, medians(figures)

    def _rule(self, at: At) -> Aggregator | None:
        filter = self.method.filter
        return filter.now(self.progress.filter, at) if isinstance(filter, RoundRule) else None

    def _tolerance(self, rule: Aggregator | None, k: int) -> int:
        if rule is not None:
            return rule.tolerance(k)
        return (k - 1) // 2 if self.f is None else self.f

    def _diagnostics(self, turn: Turn, rule: Aggregator | None, rows: Tensor) -> RoundDiagnostics:
        """The diagnostics on all nodes, from that on those asked."""
        part = diagnose_rows(turn.t, rule, rows)
        place = torch.tensor([self.nodes.index(node) for node in turn.nodes], device="cpu")
        weights = torch.zeros(len(self.nodes), dtype=torch.float64, device="cpu")
        remote = torch.zeros_like(weights)
        weights[place], remote[place] = part.weights, part.remote
        dropped = tuple(int(place[i]) for i in part.dropped)
        absent = tuple(i for i, node in enumerate(self.nodes) if node not in turn.nodes)
        apart = torch.full((len(self.nodes), len(self.nodes)), torch.nan, dtype=torch.float64, device="cpu")
        if part.apart is not None:
            apart[place.unsqueeze(1), place] = part.apart
        return RoundDiagnostics(turn.t, weights, remote, dropped, absent, apart, part.f)


def medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The medians of figures that more than half of the nodes give: a mean would be any one liar's choice."""
    names = sorted({name for figures in found for name in figures})
    given = {name: [figures[name] for figures in found if name in figures] for name in names}
    return {name: median_low(values) for name, values in given.items() if 2 * len(values) > len(found)}


def _count(turn: Turn, faults: Faults, most: int) -> None:
    lost = [i for i, node in enumerate(turn.nodes) if node in faults]
    if len(lost) > most or len(lost) == len(turn.nodes):
        raise TooManyFaults(f"at most f = {most} of {len(turn.nodes)}", lost)


def _named(error: TooManyFaults, turn: Turn, faults: Faults) -> TooManyFaults:
    """The error with node ids and reasons in the place of rows."""
    nodes = [turn.nodes[i] for i in error.rows]
    told = "; ".join(f"node {node}: {faults.get(node, 'its row looks faulty')}" for node in nodes[:16])
    return TooManyFaults(
        f"Round {turn.t} should have no more faulty nodes than the rule tolerates. Found {len(nodes)} of "
        f"{len(turn.nodes)} ({told}). The model is as it was before. Raise f, or look into these nodes.",
        error.rows,
    )
