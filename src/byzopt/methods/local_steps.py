"""Local steps behind any rule: FedAvg, FedOpt and DiLoCo (arXiv:1602.05629, 2003.00295, 2311.08105).

    honest i : y_i <- x;  K times  y_i <- y_i - γ_c u_i;   send r_i = (x - y_i)/(γ_c K)
    server   : x <- x - γ Agg(r_1 .. r_n), γ = γ_s γ_c K, or another step along it

Rows are in the units of gradients, so that an attack, a rule's radius or an optimiser's ε means the same for
every K. Sending whole weights y_i, as some do, is the same for a rule that moves along with its rows, for the
server then answers Agg(y) = x - γ_c K Agg(r); not so for clipping, ARC, or centred clipping from 0.

What local steps do: with noise, a row is a mean of K gradients, so that the floor under attack falls as 1/K;
with data that differ, workers drift to their own optima, and on quadratics x ends where Σ B_i (a_i - x) = 0,
B_i = I - (I - γ_c H_i)^K (`theory.local_steps.fixed_point`), however many rounds there are. Of a robust rule:
FedRo (Allouah et al., arXiv:2402.12780) asks for γ_c <= 1/(16 L K) and γ_c γ_s <= 1/(36 L K); we know its
constants from notes alone, and claim no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.fields import check_kind
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.byz_nsgdm import RobustGD
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Clipped, Descent, NesterovMomentum, ServerAdam, ServerMomentum, Step
from byzopt.theory import local_steps
from byzopt.theory.premises import at_most, checked_premise, constant_premise, robust
from byzopt.theory.promise import Constants, Promise, promise
from byzopt.wire import Direct
from byzopt.workers import LocalAdamW, LocalSGD, Memory, Plain


def _check(recipe: Any, *positive: str) -> None:
    what = f"of {recipe.name}"
    require(recipe.steps >= 1, f"Parameter `steps` {what}", "be at least 1", recipe.steps)
    for name in positive:
        value = getattr(recipe, name)
        if value is not None:
            check_kind(f"Parameter `{name}` {what}", value, float)
            require(value > 0, f"Parameter `{name}` {what}", "be finite and positive", value)


@METHODS.register("fed_avg")
@dataclass(frozen=True)
class FedAvg(MethodRecipe):
    """K local steps of SGD at rate `lr`, and a server step as long as `server_lr` times their mean.

    `lr` is γ_c, and the server's γ = γ_s γ_c K with γ_s = `server_lr`: with the mean and γ_s = 1 this is
    FedAvg, x <- mean y_i. `momentum` is the workers' own, `memory` whether they keep it between rounds;
    `outer_momentum` β > 0 makes the server's step a heavy ball, v <- β v + Agg(r). K = 1 is `robust_gd`.

    Args:
        steps: Number K of local steps, each on a sample of its own.
        server_lr: γ_s, in units of the workers' mean walk.
        momentum: β of the workers' heavy ball, in [0, 1).
        memory: Whether that momentum is "reset" in each round or "kept".
        outer_momentum: β of the server's heavy ball, in [0, 1).
        schedule: Factors of `lr` by round, for workers and server.

    Examples:
        >>> from byzopt import Cohort, FedAvg, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = FedAvg(steps=5)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"], outcome.metrics["gradients"]
        (True, 100.0)
    """

    steps: int = 10
    server_lr: float = 1.0
    momentum: float = 0.0
    memory: Memory = "reset"
    outer_momentum: float = 0.0
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        _check(self, "server_lr")
        for name in ("momentum", "outer_momentum"):
            require(0 <= getattr(self, name) < 1, f"Parameter `{name}`", "lie in [0, 1)", getattr(self, name))

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        schedule = self.schedule.over(rounds)
        worker = LocalSGD(self.steps, lr, self.memory, schedule, self.momentum)
        outer = self.server_lr * lr * self.steps
        step: Step = Descent(outer, schedule)
        if self.outer_momentum:
            step = ServerMomentum(outer, schedule, 1 - self.outer_momentum, "heavy_ball")
        return Method(worker, Direct(), rule.as_filter(), step)

    def promise(self, known: Constants) -> Promise | None:
        """Theorem A where K = 1 makes it descent; else the steps of FedRo: its bound's constants we lack."""
        plain = not (self.momentum or self.outer_momentum)
        if self.steps == 1 and plain and self.server_lr == 1:
            return RobustGD(self.schedule).promise(known)
        momenta = f"β = {self.momentum:g} and {self.outer_momentum:g}"
        premises = [checked_premise("there is no momentum", plain, momenta)]
        premises += [*robust(known, "squared"), constant_premise(known, "lipschitz")]

        def steps() -> Promise:
            most = local_steps.fedro_steps(known.lipschitz or 0.0, self.steps, self.server_lr)
            held = at_most("the local step is at most 1/(16 L K) and 1/(36 L K γ_s)", known.lr, most)
            lacks = ("the constants of its bound are not known to us",)
            return Promise("", "", (held,), {"lr": most}, lacks=lacks)

        theorem = "FedRo, arXiv:2402.12780 (conditions from notes on the paper)"
        return promise(theorem, "mean ‖∇f‖²", premises, steps)


@METHODS.register("fed_opt")
@dataclass(frozen=True)
class FedOpt(MethodRecipe):
    """A server optimiser on the aggregate: FedAdam, FedYogi, FedAdagrad, AdamW, momentum, ... behind a rule.

    `server` is any step with a scale `lr`, whose own `lr` the run's takes the place of. `clip` λ cuts the
    aggregate to that length in front of it. With `steps` K > 1 workers take local steps at `local_lr`; rows
    are in the units of gradients, and so are the server's v and τ (the paper's are K `local_lr` times that).
    **An adaptive server remembers attacks** in its v: see `server_adam`. No theorem behind a robust rule is
    known to us.

    Args:
        server: The server's step.
        clip: Length λ to which the aggregate is cut before it; None: it is not.
        steps: Number K of local steps.
        local_lr: Length of a local step, where K > 1.
        momentum: β of the workers' heavy ball, in [0, 1).
        memory: Whether that momentum is "reset" in each round or "kept".

    Examples:
        >>> from byzopt import Cohort, FedOpt, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = FedOpt(clip=1.0)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    server: Step = ServerAdam()
    clip: float | None = None
    steps: int = 1
    local_lr: float = 0.01
    momentum: float = 0.0
    memory: Memory = "reset"

    def __post_init__(self) -> None:
        _check(self, "local_lr", "clip")
        remedy = "Take one whose lr is a scale, such as server_adam, server_yogi or server_momentum."
        require(hasattr(self.server, "lr"), "The server of fed_opt", "have an `lr`", self.server, remedy)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        step = cast(Step, replace(cast(Any, self.server), lr=lr))
        if self.clip is not None:
            step = Clipped(lr, step, self.clip)
        plain = self.steps == 1 and not self.momentum
        worker = LocalSGD(self.steps, self.local_lr, self.memory, Constant(), self.momentum)
        return Method(Plain() if plain else worker, Direct(), rule.as_filter(), step)


@METHODS.register("diloco")
@dataclass(frozen=True)
class DiLoCo(MethodRecipe):
    """K local steps of AdamW at rate `lr`, and an outer step with Nesterov momentum along the rule's answer.

    The outer gradient is x - y, `lr` K times a row; the outer step is PyTorch's SGD with Nesterov momentum
    at rate `outer_lr`. Workers keep AdamW's moments between rounds ("kept"), or not. The defaults are those
    that we know of the paper from notes: K = 500, outer rate 0.7, momentum 0.9. `outer_momentum` 0 is
    descent. No theorem is known to us.

    Args:
        steps: Number K of local steps.
        outer_lr: Rate of the outer step, in units of the workers' walk.
        outer_momentum: β of the outer Nesterov momentum, in [0, 1).
        memory: Whether AdamW's moments are "kept" by the workers or "reset" in each round.
        beta_1: β1 of AdamW, in [0, 1).
        beta_2: β2 of AdamW, in [0, 1).
        eps: ε of AdamW, > 0.
        wd: Decoupled weight decay of AdamW.

    Examples:
        >>> from byzopt import Cohort, DiLoCo, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = DiLoCo(steps=10, wd=0.0)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.01, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    steps: int = 500
    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    memory: Memory = "kept"
    beta_1: float = 0.9
    beta_2: float = 0.999
    eps: float = 1e-8
    wd: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "outer_lr")
        beta = self.outer_momentum
        require(0 <= beta < 1, "Parameter `outer_momentum`", "lie in [0, 1)", beta)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        adamw = (self.beta_1, self.beta_2, self.eps, self.wd)
        worker = LocalAdamW(self.steps, lr, self.memory, Constant(), *adamw)
        outer = NesterovMomentum(self.outer_lr * lr * self.steps, self.outer_momentum)
        return Method(worker, Direct(), rule.as_filter(), outer)
