"""Optimizers by name: `RobustNSGDM`, `RobustDM21`, `RobustVRDM21` and `RobustSGD`."""

from __future__ import annotations

from typing import Any

from byzopt.aggregators import Aggregator, rule_from
from byzopt.distributed.harden.settings import Buffers
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

    Args:
        params: The model's parameters, or a `DistributedDataParallel` model.
        lr: Scale of the server's step.
        rule: What is done with the ranks' vectors, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        rounds: Length of the run, for schedules with a horizon.
        group: Process group of the ranks; None: all.
        topology: "sharded", "server" or "replicated".
        watch: Called with the diagnostics of each step; None: nobody watches.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.
        buffers: What becomes of a model's buffers at each step: "median", "local" or "refuse".
        settings: Those of `byzopt.methods.ByzNSGDM`.

    Raises:
        InvalidInput: As `RobustOptimizer`.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import RobustNSGDM
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> before = model.weight.detach().clone()
        >>> optimizer = RobustNSGDM(model.parameters(), lr=0.5, rule="mean", f=0)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> round(float((model.weight.detach() - before).norm()), 4)  # a step of fixed length
        0.5
        >>> dist.destroy_process_group()
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
        deadline: float | None = None,
        buffers: Buffers = "median",
        **settings: Any,
    ) -> None:
        def method() -> Method:
            return METHODS.build({"name": "byz_nsgdm", **settings}).build(
                tolerant(rule, f), lr or 1.0, rounds
            )

        given: dict[str, Any] = {"group": group, "topology": topology, "watch": watch, "buffers": buffers}
        super().__init__(params, method, lr, **given, same_data=same_data, deadline=deadline)


class RobustDM21(RobustOptimizer):
    """Error feedback with double momentum: what a rank sends is compressed (arXiv:2603.15144).

    Settings are those of `byzopt.methods.ByzDM21` (`eta`, `eta_v`, `eta_u`, `weights`, `compressor`, `init`,
    `schedule`), as recipes or plain data. `topology`: "server" (rank 0 keeps every rank's g_i, sends the
    aggregate to all) or "replicated" (every rank keeps them). The rest as in `RobustNSGDM`.

    Args:
        params: The model's parameters, or a `DistributedDataParallel` model.
        lr: Scale of the server's step.
        rule: What is done with the ranks' vectors, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        rounds: Length of the run, for schedules with a horizon.
        group: Process group of the ranks; None: all.
        topology: "server" or "replicated".
        watch: Called with the diagnostics of each step; None: nobody watches.
        seed: Of compressors that draw.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.
        buffers: What becomes of a model's buffers at each step: "median", "local" or "refuse".
        settings: Those of `byzopt.methods.ByzDM21`.

    Raises:
        InvalidInput: As `RobustOptimizer`.

    Examples:
        Under `torchrun`, in the place of an optimizer of PyTorch:

            optimizer = RobustDM21(model, lr=0.1, f=1, eta=0.1, compressor={"name": "top_k", "ratio": 0.1})
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
        deadline: float | None = None,
        buffers: Buffers = "median",
        **settings: Any,
    ) -> None:
        def method() -> Method:
            return METHODS.build({"name": self.recipe, **settings}).build(
                tolerant(rule, f), lr or 1.0, rounds
            )

        given: dict[str, Any] = {"group": group, "topology": topology, "watch": watch, "buffers": buffers}
        super().__init__(params, method, lr, **given, seed=seed, same_data=same_data, deadline=deadline)


class RobustVRDM21(RobustDM21):
    """As `RobustDM21` with STORM's correction. `step` needs a closure: it takes two gradients on one
    sample.

    Args:
        params: The model's parameters, or a `DistributedDataParallel` model.
        lr: Scale of the server's step.
        rule: What is done with the ranks' vectors, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        rounds: Length of the run, for schedules with a horizon.
        group: Process group of the ranks; None: all.
        topology: "server" or "replicated".
        watch: Called with the diagnostics of each step; None: nobody watches.
        seed: Of compressors that draw.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.
        buffers: What becomes of a model's buffers at each step: "median", "local" or "refuse".
        settings: Those of `byzopt.methods.ByzVRDM21`.

    Raises:
        InvalidInput: As `RobustOptimizer`.

    Examples:
        Under `torchrun`; the closure zeroes gradients, takes the loss, calls `backward` and returns it:

            optimizer = RobustVRDM21(model, lr=0.1, f=1)
            loss = optimizer.step(closure)
    """

    recipe = "byz_vr_dm21"


class RobustSGD(RobustOptimizer):
    """SGD whose average of gradients is a robust rule, with momentum on the workers' side.

    `lr`, `momentum` μ and `weight_decay` λ mean what they mean in `torch.optim.SGD`: v <- μ v + g + λ x from
    v = g + λ x, on every rank for itself, and x <- x - lr Agg(v_1 .. v_n); with the mean as rule it is that
    optimizer, also with several groups. In the convention of
    this library that is a heavy ball of η = 1 - μ. `step` puts another server step in the place of descent
    (then `lr` is the step's own unless given), `wire` a channel in the place of the plain one: compressed
    messages need topology "server" or "replicated". The rest as in `RobustDM21`.

    Args:
        params: The model's parameters, or a `DistributedDataParallel` model.
        lr: Rate, as of `torch.optim.SGD`.
        momentum: μ in [0, 1), as of `torch.optim.SGD`.
        rule: What is done with the ranks' vectors, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        step: The server's step; None: descent.
        wire: The channel; None: vectors are sent as they are.
        weight_decay: Multiple of the parameters that is added to the gradient, as in `torch.optim.SGD`.
        group: Process group of the ranks; None: all.
        topology: "sharded", "server" or "replicated".
        watch: Called with the diagnostics of each step; None: nobody watches.
        seed: Of compressors that draw.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.
        buffers: What becomes of a model's buffers at each step: "median", "local" or "refuse".

    Raises:
        InvalidInput: As `RobustOptimizer`.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import RobustSGD
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> before = model.weight.detach().clone()
        >>> optimizer = RobustSGD(model.parameters(), lr=0.1, rule="mean", f=0)
        >>> model(torch.ones(1, 2)).sum().backward()  # of gradient (1, 1)
        >>> optimizer.step()
        >>> bool(torch.allclose(model.weight, before - 0.1))
        True
        >>> dist.destroy_process_group()
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
        deadline: float | None = None,
        buffers: Buffers = "median",
    ) -> None:
        def method() -> Method:
            require(0 <= momentum < 1, "Parameter `momentum`", "lie in [0, 1)", momentum)
            worker = WorkerMomentum(1 - momentum, "heavy_ball", "first_gradient") if momentum else Plain()
            server = step or Descent(1.0)
            return Method(worker, wire or Direct(), tolerant(rule, f).as_filter(), server)

        rate = float(getattr(step, "lr", 1e-3)) if lr is None else lr
        given: dict[str, Any] = {"group": group, "topology": topology, "watch": watch, "buffers": buffers}
        given["weight_decay"] = weight_decay
        super().__init__(params, method, rate, **given, seed=seed, same_data=same_data, deadline=deadline)


def tolerant(rule: Aggregator | str, f: int | None) -> Aggregator:
    """The rule of that name or recipe; `f`, where given, fills what a name leaves out."""
    return rule_from(rule, **({} if f is None else {"f": f}))
