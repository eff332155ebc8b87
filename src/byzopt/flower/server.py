"""The server's side of a run: a method's rule and step over the rows of named nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from logging import WARNING
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule, StatelessFilter
from byzopt.distributed.diagnostics import RoundDiagnostics, diagnose_rows
from byzopt.errors import ByzoptError, TooManyFaults, require
from byzopt.flower.members import LOG, Faults, RoundRequests
from byzopt.flower.records import Point
from byzopt.methods import Method
from byzopt.servers import ServerContext


class ServerState(NamedTuple):
    """What a server carries from round to round: the last round, the states of step and filter, and by how
    much `[d]` others have moved the model between rounds."""

    t: int
    step: Any
    filter: Any
    moved: Tensor | None


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
        proxy: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        partial = k == len(nodes) or isinstance(method.filter, RoundRule)
        what, remedy = "A filter that remembers workers", "Ask all nodes in every round."
        require(partial, what, "hear all of them in every round", f"{k} of {len(nodes)}", remedy)
        _check_trust(method.filter, nodes, k)
        _warn_of_tolerance(method.filter, k, f)
        self.method, self.layout, self.nodes, self.f, self.proxy = (
            method,
            point.layout,
            tuple(nodes),
            f,
            proxy,
        )
        step = method.step.init(point.x, ServerContext(point.layout, proxy))
        self.state = ServerState(0, step, method.filter.begin(point.x, k, proxy), None)
        self.faults: dict[int, Faults] = {}

    @property
    def x(self) -> Tensor:
        """The point `[d]` at which nodes are asked next."""
        return self._placed(self.method.step.ask(self.state.step))

    @property
    def answer(self) -> Tensor:
        """The model `[d]` that the method would return now."""
        return self._placed(self.method.step.answer(self.state.step))

    def move_to(self, answer: Tensor) -> None:
        """Go on from another model `[d]` than the last answer: somebody has changed it between two rounds.

        Errors: `InvalidInput` where the server has a loss of its own, which does not move along.
        """
        what = "A model behind a step with a loss of its own"
        remedy = "Leave the arrays as the strategy returns them."
        require(self.proxy is None, what, "stay what the step made it", "another one", remedy)
        self.state = self.state._replace(moved=answer - self.method.step.answer(self.state.step))

    def _placed(self, x: Tensor) -> Tensor:
        return x if self.state.moved is None else x + self.state.moved

    def aggregate(
        self, asked: RoundRequests, rows: Mapping[int, Tensor], faults: Faults, filter: Filter | None = None
    ) -> tuple[dict[str, float], RoundDiagnostics]:
        """One round from the `rows` `[d]` of nodes that are not faulty: its metrics and its diagnostics.

        `filter` takes the place of the method's in this round; it has no memory.

        Errors: `TooManyFaults`, naming nodes and reasons; `ByzoptError` for a step to NaN or Inf.
        """
        self.faults[asked.t] = faults
        state, at = self.state, RoundContext(asked.t, self.x)
        stacked = at.x.new_full((len(asked.nodes), len(at.x)), torch.nan)
        for i, node in enumerate(asked.nodes):
            if node in rows:
                stacked[i] = rows[node]
        current, memory = (self.method.filter, state.filter) if filter is None else (filter, ())
        rule = current.now(memory, at) if isinstance(current, RoundRule) else None
        try:
            _check_count(asked, faults, self._tolerance(rule, len(stacked)))
            aggregate, after = current.step(memory, stacked, at)
        except TooManyFaults as error:
            raise _with_reasons(error, asked, faults) from None
        step = self.method.step.tell(state.step, aggregate)
        if not self.method.step.ask(step).isfinite().all():
            raise ByzoptError(
                f"The model should be finite after round {asked.t}. Found NaN or Inf. Lower lr."
            )
        diagnostics = self._diagnostics(asked, rule, stacked)
        self.state = ServerState(asked.t, step, after if filter is None else state.filter, state.moved)
        metrics = {"faulty": float(len(faults)), "aggregate_norm": float(linalg.norm(aggregate))}
        return self.method.step.report(step) | metrics, diagnostics

    def _tolerance(self, rule: BaseAggregator | None, k: int) -> int:
        if rule is not None:
            return rule.tolerance(k)
        return (k - 1) // 2 if self.f is None else self.f

    def _diagnostics(
        self, asked: RoundRequests, rule: BaseAggregator | None, rows: Tensor
    ) -> RoundDiagnostics:
        """The diagnostics on all nodes, from those on the nodes that were asked."""
        part = diagnose_rows(asked.t, rule, rows)
        place = torch.tensor([self.nodes.index(node) for node in asked.nodes], device="cpu")
        weights = torch.zeros(len(self.nodes), dtype=torch.float64, device="cpu")
        remote = torch.zeros_like(weights)
        weights[place], remote[place] = part.weights, part.remote
        dropped = tuple(int(place[i]) for i in part.dropped)
        absent = tuple(i for i, node in enumerate(self.nodes) if node not in asked.nodes)
        apart = torch.full((len(self.nodes), len(self.nodes)), torch.nan, dtype=torch.float64, device="cpu")
        if part.apart is not None:
            apart[place.unsqueeze(1), place] = part.apart
        return RoundDiagnostics(asked.t, weights, remote, dropped, absent, apart, part.f)


def _check_trust(filter: Filter, nodes: Sequence[int], k: int) -> None:
    """Say which node a rule trusts. Errors: `InvalidInput` where its row is another node's each round."""
    for i in filter.rule.trusts if isinstance(filter, StatelessFilter) else ():
        what, remedy = "A rule that trusts a row", "Ask all nodes, or take a rule that trusts nobody."
        require(k == len(nodes), what, "find the same node there each round", f"{k} of {len(nodes)}", remedy)
        LOG.log(WARNING, "byzopt: the rule trusts row %d, which is node %d", i, nodes[i])


def _warn_of_tolerance(filter: Filter, k: int, f: int | None) -> None:
    """Say where the rule bears fewer faulty nodes than the user wants it to."""
    if isinstance(filter, StatelessFilter) and filter.rule.tolerance(k) < (f or 0):
        words = "byzopt: %r tolerates %d faulty nodes of %d, not f = %d: the run is not defended against f"
        LOG.log(WARNING, words, filter.rule, filter.rule.tolerance(k), k, f)


def _check_count(asked: RoundRequests, faults: Faults, most: int) -> None:
    lost = [i for i, node in enumerate(asked.nodes) if node in faults]
    if len(lost) > most or len(lost) == len(asked.nodes):
        raise TooManyFaults(f"at most f = {most} of {len(asked.nodes)}", lost)


def _with_reasons(error: TooManyFaults, asked: RoundRequests, faults: Faults) -> TooManyFaults:
    """The error with node ids and reasons in the place of rows; nodes of one reason together."""
    nodes_by_reason: dict[str, list[int]] = {}
    for i in error.rows:
        node = asked.nodes[i]
        nodes_by_reason.setdefault(faults.get(node, "its row looks faulty"), []).append(node)
    reasons = "; ".join(
        f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(map(str, nodes[:16]))}: {reason}"
        for reason, nodes in list(nodes_by_reason.items())[:16]
    )
    return TooManyFaults(
        f"Round {asked.t} should have no more faulty nodes than the rule tolerates. Found {len(error.rows)} "
        f"of {len(asked.nodes)} ({reasons}). The model is as it was before. "
        "Raise f, or look into these nodes.",
        error.rows,
    )
