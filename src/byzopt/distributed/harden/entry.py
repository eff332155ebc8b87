"""`harden`: one function for all wrappers, which dispatches on what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.amp import GradScaler

from byzopt.aggregators import Aggregator
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden import ddp, fsdp
from byzopt.distributed.harden.agreement import Trouble, require_same
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.settings import Buffers, Excess, Scope, Settings, Wire
from byzopt.distributed.topologies import Watch
from byzopt.errors import InvalidInput
from byzopt.workers import Estimator


class Wrapper(NamedTuple):
    """A kind of model that can be hardened.

    `takes(model)` says whether it is one; `comm(model)` gives its workers' collectives; `check(model,
    settings)` raises what is wrong on this rank, and returns what all ranks must have alike; `attach(model,
    comm, guard)` changes how the model reduces, when all ranks have agreed.
    """

    takes: Callable[[Any], bool]
    comm: Callable[[Any], Communicator]
    check: Callable[[Any, Settings], str]
    attach: Callable[[Any, Communicator, Guard], None]


WRAPPERS: list[Wrapper] = [
    Wrapper(ddp.takes, ddp.communicator, ddp.check, ddp.attach),
    Wrapper(fsdp.takes, fsdp.communicator, fsdp.check, fsdp.attach),
]


def harden(
    model: nn.Module,
    rule: Aggregator | str,
    f: int | None = None,
    *,
    momentum: float | Estimator = 0.0,
    buffers: Buffers = "median",
    excess: Excess = "raise",
    wire: Wire | None = None,
    watch: Watch = None,
    scaler: GradScaler | None = None,
    scope: Scope | None = None,
    deadline: float | None = None,
) -> Guard:
    """Let `rule` stand where `model` averages gradients over its n ranks, of which f may send anything.

    `model` is a `DistributedDataParallel` model, perhaps compiled, or one of `fully_shard` (FSDP2), of which
    the root is to be given; with HSDP the workers are the replicas. Optimizer, schedule, accumulation, mixed
    precision, clipping and checkpoints stay the script's: they see a gradient that f faulty ranks cannot
    move far. The gradient is that of `robust_all_reduce` on all parameters as one vector.

    `rule` by name or as a recipe; f fills what a name leaves out. `momentum` β: every rank averages its own
    gradients, m <- β m + (1 - β) g, before the exchange; or any `Estimator` that makes what it sends of one
    gradient a round, number by number (`WorkerMomentum` with a schedule, `DoubleMomentum`). `buffers`: float
    buffers that a forward pass writes are, after each backward, the coordinate median over ranks ("median"),
    left to each rank ("local"), or not allowed ("refuse"). `excess`: when more ranks than f send what is not
    finite, `backward` raises `TooManyFaults` on all ranks ("raise"), or all get zeros ("skip"); where a
    `GradScaler` is at work all get the same non-finite gradient, so that all scalers back off. `wire="bf16"`
    sends columns in half the bytes of float32, each number off by at most 2⁻⁸ of itself (the guide says where
    not); `wire="int8"` in a quarter, in blocks of 64 numbers that share a scale: each number is off by at
    most half a step of that scale, which is 1/254 of the largest magnitude in its block (in bfloat16 2/254 at
    most). All ranks, the sender too, decide on the numbers as they arrive. Answers come back in the same way,
    with the same error once more. A number that is not finite stays so, and its block with it. `watch` is
    called with the `RoundDiagnostics` of each round, or of every `watch.every`-th. `scaler` need only be told
    where the process has several, or one that is not this model's.

    `scope`, for `fully_shard` alone: "unit" decides for each unit that FSDP reduces, at no cost in memory;
    "model" decides once for all parameters as one vector, and holds the shards of all ranks' gradients until
    backward has ended: n times the memory of the sharded gradient.

    With a `deadline` in seconds, for `DistributedDataParallel` alone, a rank that is dead, stopped or later
    than that counts like one that is not finite, and the others go on, as long as more than half of the ranks
    live and the rule bears it; else all raise `TooManyFaults`. Every rank then sends its whole gradient to
    every other, after backward, and holds n of them. One that comes back takes parameters, buffers and the
    states of optimizers, schedulers and scaler as more than f others have them. Scripts then count
    `guard.rounds`, and not their own steps.

    A collective. Errors, the same on all ranks and before anything is changed: `InvalidInput` for a rule
    that n ranks cannot serve or that needs whole rows, for other kinds of models, for parameters or settings
    that differ between ranks, for a model that has a comm hook, and for what bypasses the reduction of
    gradients (SyncBatchNorm, sparse gradients, tensor parallelism).

    Args:
        model: A `DistributedDataParallel` model, perhaps compiled, or the root of a `fully_shard` one.
        rule: What is done with the ranks' gradients, by name or as a recipe.
        f: Number of faulty ranks tolerated, where the rule does not say it.
        momentum: β in [0, 1) of the average that each rank takes of its own gradients, or an estimator.
        buffers: What becomes of float buffers that a forward pass writes: "median", "local" or "refuse".
        excess: Where more ranks than f send what is not finite: "raise", or "skip" the step.
        wire: How columns are sent: "bf16", in two bytes a number, or "int8", in a little more than one; None:
            as they are.
        watch: Called with the diagnostics of each round; None: nobody watches.
        scope: With `fully_shard`, what the rule decides for at a time: "unit" (default) or "model".
        scaler: The script's `GradScaler`, where the process has others; None: any that is enabled.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.

    Returns:
        Counts of the model's rounds; its `remove` makes the model as it was.

    Raises:
        InvalidInput: What cannot work together, before anything is changed.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.nn.parallel import DistributedDataParallel
        >>> from byzopt.distributed import harden
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> model = DistributedDataParallel(torch.nn.Linear(2, 1))
        >>> guard = harden(model, "median", f=0)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> guard.rounds
        1
        >>> dist.destroy_process_group()
    """
    settings = Settings(rule, f, momentum, buffers, excess, wire, watch, scaler, scope, deadline)
    inner, trouble = unwrapped(model), Trouble()
    wrapper = next((each for each in WRAPPERS if each.takes(inner)), None)
    comm, alike = Communicator(), ""
    with trouble.noted():
        if wrapper is None:
            raise InvalidInput(_refusal(inner))
        comm = wrapper.comm(inner)
        settings = settings.checked(comm.n)
        alike = wrapper.check(inner, settings)
    trouble.shared(comm.everyone)
    every = comm.everyone
    require_same(every, settings.plan, "what they say to harden", "Say the same on every rank.")
    require_same(every, alike, "the parameters of their models", "Build the same model on every rank.")
    guard = Guard(comm, settings)
    assert wrapper is not None
    wrapper.attach(inner, comm, guard)
    return guard


def unwrapped(model: Any) -> Any:
    """The model inside of `torch.compile`."""
    return getattr(model, "_orig_mod", model)


def _refusal(model: Any) -> str:
    kind = type(model).__name__
    remedy = "Wrap the model first: model = DistributedDataParallel(model)."
    if kind == "FullyShardedDataParallel":
        remedy = "FSDP1 reduces gradients where no hook can see the ranks' own: use fully_shard (FSDP2)."
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    inside = [name for name, part in parts if any(each.takes(part) for each in WRAPPERS)]
    if inside:
        remedy = f"Its part {inside[0]!r} is one: give that."
    kinds = "a DistributedDataParallel one, or the root of a fully_shard one"
    return f"A model to harden should be {kinds}. Found {kind}. {remedy}"
