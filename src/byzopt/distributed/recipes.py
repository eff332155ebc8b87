"""Optimizers by name: `RobustNSGDM`, `RobustDM21`, `RobustVRDM21` and `RobustSGD`."""

from __future__ import annotations

from typing import Any

from byzopt.aggregators import Aggregator, rule_from
from byzopt.distributed.models import Params
from byzopt.distributed.optimizer import RobustOptimizer
from byzopt.distributed.topologies import Topology, Watch
from byzopt.errors import require
from byzopt.methods import METHODS, Method
from byzopt.servers import Descent, Step
from byzopt.wire import Channel, Direct
from byzopt.workers import Plain, WorkerMomentum


class RobustNSGDM(RobustOptimizer):
    """Normalised SGD with worker momentum behind a robust rule (arXiv:2603.12512, Algorithm 1).

    `rule` by name or as a recipe, with tolerance `f`; further settings are those of
    `byzopt.methods.ByzNSGDM` (`eta`, `schedule`, `norm`, `momentum`, `start`, `order`, `cutoff`), as recipes
    or plain data. `rounds` is the length of the run, for schedules with a horizon. The rest as in
    `RobustOptimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        *,
        rule: Aggregator | str = "nnm >> rfa",
        f: int | None = None,
        rounds: int | None = None,
        group: Any = None,
        topology: Topology = "sharded",
        watch: Watch = None,
        same_data: bool = False,
        **settings: Any,
    ) -> None:
        def method() -> Method:
            return METHODS.build({"name": "byz_nsgdm", **settings}).build(
                tolerant(rule, f), lr or 1.0, rounds
            )

        super().__init__(params, method, lr, group=group, topology=topology, watch=watch, same_data=same_data)


class RobustDM21(RobustOptimizer):
    """Error feedback with double momentum: what a rank sends is compressed (arXiv:2603.15144).

    Settings are those of `byzopt.methods.ByzDM21` (`eta`, `eta_v`, `eta_u`, `weights`, `compressor`, `init`,
    `schedule`), as recipes or plain data. `topology`: "server" (rank 0 keeps every rank's g_i, sends the
    aggregate to all) or "replicated" (every rank keeps them). The rest as in `RobustNSGDM`.
    """

    recipe = "byz_dm21"

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        *,
        rule: Aggregator | str = "nnm >> rfa",
        f: int | None = None,
        rounds: int | None = None,
        group: Any = None,
        topology: Topology = "server",
        watch: Watch = None,
        seed: int = 0,
        same_data: bool = False,
        **settings: Any,
    ) -> None:
        def method() -> Method:
            return METHODS.build({"name": self.recipe, **settings}).build(
                tolerant(rule, f), lr or 1.0, rounds
            )

        given = {"group": group, "topology": topology, "watch": watch}
        super().__init__(params, method, lr, **given, seed=seed, same_data=same_data)


class RobustVRDM21(RobustDM21):
    """As `RobustDM21` with STORM's correction. `step` needs a closure: it takes two gradients on one
    sample."""

    recipe = "byz_vr_dm21"


class RobustSGD(RobustOptimizer):
    """SGD whose average of gradients is a robust rule, with momentum on the workers' side.

    `lr`, `momentum` μ and `weight_decay` λ mean what they mean in `torch.optim.SGD`: v <- μ v + g + λ x from
    v = g + λ x, on every rank for itself, and x <- x - lr Agg(v_1 .. v_n); with the mean as rule it is that
    optimizer, also with several groups. In the convention of
    this library that is a heavy ball of η = 1 - μ. `step` puts another server step in the place of descent
    (then `lr` is the step's own unless given), `wire` a channel in the place of the plain one: compressed
    messages need topology "server" or "replicated". The rest as in `RobustDM21`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | None = None,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        rule: Aggregator | str = "nnm >> rfa",
        f: int | None = None,
        step: Step | None = None,
        wire: Channel | None = None,
        group: Any = None,
        topology: Topology = "sharded",
        watch: Watch = None,
        seed: int = 0,
        same_data: bool = False,
    ) -> None:
        def method() -> Method:
            require(0 <= momentum < 1, "Parameter `momentum`", "lie in [0, 1)", momentum)
            worker = WorkerMomentum(1 - momentum, "heavy_ball", "first_gradient") if momentum else Plain()
            server = step or Descent(1.0)
            return Method(worker, wire or Direct(), tolerant(rule, f).as_filter(), server)

        rate = float(getattr(step, "lr", 1e-3)) if lr is None else lr
        given = {"group": group, "topology": topology, "watch": watch, "weight_decay": weight_decay}
        super().__init__(params, method, rate, **given, seed=seed, same_data=same_data)


def tolerant(rule: Aggregator | str, f: int | None) -> Aggregator:
    """The rule of that name or recipe; `f`, where given, fills what a name leaves out."""
    return rule_from(rule, **({} if f is None else {"f": f}))
