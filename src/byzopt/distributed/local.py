"""Local steps: ranks train alone for a while, then a rule combines how far each has come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import RoundContext, RoundRule, check_unseen_data
from byzopt.distributed.agreement import HeaderSummary, exchange_headers, share_error
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline import DeadlineTransport
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.harden.agreement import require_same
from byzopt.distributed.harden.buffers import BufferSync, check_buffers
from byzopt.distributed.harden.settings import Buffers
from byzopt.distributed.header import Header, fingerprint, recipe_text
from byzopt.distributed.models import averaging, wrappings
from byzopt.distributed.reduce import aggregate, header_of, require_distinct
from byzopt.distributed.timed_local import check_timed, timed_sync
from byzopt.distributed.topologies import Exchange, Topology, Watch, check_topology
from byzopt.errors import TooManyFaults, require

Outer = Callable[[Iterable[Tensor]], Optimizer]


def nesterov(parameters: Iterable[Tensor]) -> Optimizer:
    """DiLoCo's outer optimizer: Nesterov momentum 0.9 and a rate of 0.7 (arXiv:2311.08105, section 3.1)."""
    return torch.optim.SGD(parameters, lr=0.7, momentum=0.9, nesterov=True)


class LocalSteps:
    """Every `every` steps, a robust rule over all ranks' pseudo-gradients, and an outer optimizer's step.

    Each rank trains its own copy of `model` with an optimizer of its own. In every H-th `step` rank i tells
    Δ_i = x - x_i, the point x that all last agreed on less where it has come; the rule's answer to these rows
    is the gradient of the outer optimizer, whose new x all ranks go on from. With every=1, plain SGD inside,
    `outer` a step of length 1, and the mean, that is synchronous SGD; with nobody's rule but the mean it is
    DiLoCo (arXiv:2311.08105).

        local = LocalSteps(model, every=50, rule="nnm >> rfa", f=1)
        for x, y in batches:
            loss(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            local.step()

    All ranks call `step` equally often, after whatever their optimizers have done. A rank whose Δ is not
    finite is left out of that round, and goes on from the common x like all others: its optimizer's own
    state is its script's to mend (`on_fault` tells it). Where more ranks than the rule tolerates have a Δ or
    buffers that are not finite, all go back to x and to the buffers that they last agreed on, and
    `excess="raise"` raises `TooManyFaults` on all ranks; with "skip" they go on from there.

    With a `deadline` in seconds a rank that is dead, stopped or later than that counts like one whose Δ is
    not finite, in `dropped` and in `missing` `[n]`, and the others go on, as long as more than half of the
    ranks live and the rule bears it; else all raise `TooManyFaults`. All ranks then send their whole Δ to all
    others, whatever the `topology`. A rank that comes back lets go of its Δ and makes the outer steps of the
    others; one that was away for long takes their point and outer optimizer, as more than f of them have
    these, and counts `returned`. Scripts then loop over `rounds`, the exchanges, and buffers are each rank's
    own.

    Gradients that are averaged in every step cannot be defended any more. So what averages those of `model`
    over ranks of `group` is refused: a `DistributedDataParallel` or FSDP model in it, or alive around it; and
    in the first exchange whose Δ are finite and not zero all refuse where those of n - f ranks are equal to
    the last bit, and nothing has moved. `same_data=True` says that ranks take the same data on purpose.

    Args:
        model: This rank's copy, not wrapped, which the script calls itself: no averages in between.
        every: H, the number of steps between two exchanges.
        rule: What is done with the pseudo-gradients, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        outer: Makes the outer optimizer of the tensors that hold x. Default: DiLoCo's.
        group: Process group of the ranks; None: all.
        topology: "sharded", "server" or "replicated": how vectors cross.
        buffers: What becomes of float buffers at an exchange: "median", "local" or "refuse".
        excess: Where more ranks than f have what is not finite: "raise", or "skip" the exchange.
        watch: Called with the diagnostics of each exchange; None: nobody watches.
        on_fault: Called on a rank whose Δ was left out, or that is one of too many with what is not finite
            (before `TooManyFaults` is raised), so that it can start its optimizer afresh.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from an exchange; None: all are waited for.

    Raises:
        InvalidInput: The same on all ranks: a wrapped or sharded model, also where only a part is, or where
            the wrapper is alive elsewhere; a rule that n ranks cannot serve or that expels ranks for good;
            ranks that do not begin at one point, or that differ in settings.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import LocalSteps
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> model = torch.nn.Linear(2, 1)
        >>> local = LocalSteps(model, every=2, rule="median", f=0)
        >>> [local.step() for _ in range(4)]
        [False, True, False, True]
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        model: nn.Module,
        every: int,
        rule: Aggregator | str,
        f: int | None = None,
        *,
        outer: Outer = nesterov,
        group: Any = None,
        topology: Topology = "sharded",
        buffers: Buffers = "median",
        excess: Literal["raise", "skip"] = "raise",
        watch: Watch = None,
        on_fault: Callable[[], None] | None = None,
        same_data: bool = False,
        deadline: float | None = None,
    ) -> None:
        self.comm = Communicator(group)

        def prepare() -> tuple[RoundRule, FlatParameters, str, int]:
            whole = isinstance(every, int) and not isinstance(every, bool) and every >= 1
            require(whole, "Parameter `every`", "be a whole number, at least 1", every)
            require(excess in ("raise", "skip"), "Parameter `excess`", "be 'raise' or 'skip'", repr(excess))
            wrapped = hasattr(model, "no_sync") or hasattr(model, "set_requires_gradient_sync")
            found, remedy = type(model).__name__, "Pass the module itself: local steps need no averages."
            require(isinstance(model, nn.Module) and not wrapped, "A model", "not be wrapped", found, remedy)
            self._require_local(model)
            recipe = rule_from(rule, **({} if f is None else {"f": f}))
            lifted = recipe.as_filter()
            check_topology(topology, lifted)
            check_unseen_data(lifted)
            recipe.check(self.comm.n)
            check_buffers(model, buffers)
            check_timed(model, deadline, buffers)
            flat = FlatParameters([{"params": list(model.parameters())}])
            tolerated = min(recipe.tolerance(self.comm.n), (self.comm.n - 1) // 2)
            return cast(RoundRule, lifted), flat, recipe_text(recipe), tolerated

        self.filter, self.flat, plan, self.tolerated = share_error(self.comm, prepare)
        self.model, self.every, self.topology, self.excess = model, every, topology, excess
        self.watch, self.on_fault, self.taken, self.rounds = watch, on_fault, 0, 0
        self.dropped, self.skipped = [0] * self.comm.n, 0
        self.missing, self.returned = [0] * self.comm.n, 0
        self._compared, self._wrappings = same_data, -1
        self._plan = f"{plan} {every} {excess} {same_data}"
        require_same(self.comm, str(deadline), "their deadlines", "Say the same on every rank.")
        self.point = self._common()
        self.outer = outer([self.point])
        self._state: Any = self.filter.init(torch.zeros(0, device="cpu"), self.comm.n)
        self.buffers = BufferSync(self.comm, model, buffers, self.tolerated, set())
        self._transport = None if deadline is None else DeadlineTransport(deadline, group)

    def _require_local(self, model: nn.Module) -> None:
        """Raise `InvalidInput` where gradients of the model are averaged before a rule can compare them."""
        what, rule = "A model with local steps", "keep its gradients on its rank"
        found = ", ".join(averaging(model, self.comm.group))
        remedy = (
            "Call the module itself, let go of what wraps it (`del ddp`), and have nothing wrapped in it."
        )
        require(not found, what, rule, f"{found} over the same parameters, which averages them", remedy)

    def _common(self) -> Tensor:
        """The point at which all ranks begin. Errors, on all: `InvalidInput` where they do not."""
        mine = self.flat.read()
        remedy = "Seed all ranks alike before the model is built, or load one checkpoint on all."
        bits = hashlib.sha256(mine.cpu().view(torch.uint8).numpy().tobytes()).hexdigest()
        require_same(self.comm, bits, "the point where they begin", remedy)
        return nn.Parameter(mine.clone())

    def step(self) -> bool:
        """Count a local step; every H-th one is an exchange. Returns whether it was.

        Raises:
            TooManyFaults: More ranks than the rule tolerates are not finite; then all are back at the point
                and the buffers that they last agreed on, and the next steps may be tried.
            InvalidInput: Ranks that have taken other numbers of steps, parameters that have changed shape, or
                gradients that were averaged already.
        """
        self.taken += 1
        if self.taken % self.every:
            return False
        self.sync()
        return True

    @torch.no_grad()
    def sync(self) -> None:
        """Exchange now. A collective; errors as of `step`."""
        if self._transport is not None:
            timed_sync(self, self._transport)
            return
        faulty: set[int] = set()
        outcome: tuple[Tensor, Any] | TooManyFaults
        try:
            outcome = self._answer(faulty)
            self.buffers.agree(torch.ones(self.comm.n, dtype=torch.bool, device="cpu"))
        except TooManyFaults as error:
            outcome = error
            faulty.update(error.rows)
        self.rounds += 1
        self._settle(outcome, faulty, spoilt=self.comm.rank in faulty)

    def _settle(
        self,
        outcome: tuple[Tensor, Any] | TooManyFaults,
        faulty: set[int],
        spoilt: bool,
        hard: bool = False,
    ) -> None:
        """Make the outer step with an answer and the rule's next state, or go back. `spoilt`: this rank has
        sent what is not finite; `hard`: an excess of faults is raised whatever `excess` says."""
        if isinstance(outcome, TooManyFaults):
            self.skipped += 1
            self.buffers.restore()
        else:
            answer, self._state = outcome
            self._compared = self._compared or self._mark > 0
            self._advance(answer)
        self.flat.write(self.point)
        for rank in faulty:
            self.dropped[rank] += 1
        if spoilt and self.on_fault is not None:
            self.on_fault()
        if isinstance(outcome, TooManyFaults) and (hard or self.excess == "raise"):
            raise outcome

    def _advance(self, answer: Tensor) -> None:
        """Make the outer optimizer's step along the `answer` `[d]`."""
        self.point.grad = answer.view_as(self.point)
        with torch.enable_grad():
            self.outer.step()
        self.outer.zero_grad()

    def _answer(self, faulty: set[int]) -> tuple[Tensor, Any]:
        """The rule's answer to all pseudo-gradients, and its next state. Ranks left out join the `faulty`."""
        summary, (vec, told) = exchange_headers(self.comm, self._told)
        self._require_distinct(summary, told)
        done = aggregate(self.comm, vec, self.topology, told, summary)
        faulty.update(told.malformed, (~summary.sizes.isfinite()).nonzero().flatten().tolist())
        return done.out.to(self.point.device), done.state

    def _told(self) -> tuple[Header, tuple[Tensor, Exchange]]:
        """What this rank says before the exchange, and its pseudo-gradient with what else it takes along."""
        same = self.flat.serves([{"params": list(self.model.parameters())}])
        require(same, "The model", "have the parameters it had", "others", "Build LocalSteps anew.")
        gone = self.point.detach() - self.flat.read()
        if self._wrappings != (now := wrappings(self.model)):  # it may have been wrapped since
            self._require_local(self.model)
            self._wrappings = now
        self._mark = 0.0 if self._compared else fingerprint(gone)
        at = RoundContext(self.rounds + 1, self.point)
        exchange = Exchange(self.filter, self._state, at, {}, self.watch)
        taken = self.taken if self._transport is None else 0  # a rank that was away has its own count
        header, kept = header_of(self.comm, gone, self.topology, exchange, f"{self._plan} {taken}")
        return header._replace(fingerprint=self._mark), kept

    def _require_distinct(self, summary: HeaderSummary, told: Exchange) -> None:
        """Raise `InvalidInput` in the first exchange whose pseudo-gradients are not 0, if they are one."""
        what, remedy = "Pseudo-gradients of the ranks", "Call the module itself, not a wrapper."
        require_distinct(summary.equal, self.comm.n, told, what, "the first exchange", remedy)

    def close(self) -> None:
        """With a deadline: say goodbye to the other ranks, for which this one is missing from now on."""
        if self._transport is not None:
            self._transport.close()

    def state_dict(self) -> dict[str, Any]:
        """The common point and buffers, the outer optimizer and the counters: the same on all ranks."""
        return {
            "point": self.point.detach().clone(),
            "outer": self.outer.state_dict(),
            "buffers": self.buffers.state_dict(),
            "taken": self.taken,
            "rounds": self.rounds,
            "dropped": list(self.dropped),
            "skipped": self.skipped,
            "missing": list(self.missing),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; the model's own parameters are the script's to load. Errors: `InvalidInput`."""
        point = state.get("point")
        fits = isinstance(point, Tensor) and point.shape == self.point.shape
        found = tuple(point.shape) if isinstance(point, Tensor) else type(point).__name__
        require(fits, "The point in a state", f"have shape {list(self.point.shape)}", found)
        with torch.no_grad():
            self.point.copy_(cast(Tensor, point))
        self.outer.load_state_dict(state["outer"])
        self.buffers.load_state_dict(state.get("buffers", {}))
        self.taken, self.rounds = int(state["taken"]), int(state["rounds"])
        for name in ("dropped", "missing"):
            counts = list(state.get(name, ()))
            setattr(self, name, counts if len(counts) == self.comm.n else [0] * self.comm.n)
        self.skipped = int(state["skipped"])
