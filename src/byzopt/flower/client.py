"""The ClientApp of a robust strategy: estimator and channel at the client, their memory in its Context."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from byzopt.errors import require
from byzopt.flower.local import Local
from byzopt.flower.memory import keep, recall
from byzopt.flower.records import ARRAYS, METRICS, ORDERS, Point, read, written
from byzopt.layout import Layout
from byzopt.wire import CHANNELS, Channel, Link
from byzopt.workers import ESTIMATORS, Estimator, Oracle

Make = Callable[[Context], "Local | Callable[[Tensor, int], Tensor]"]


def client_app(
    make: Make, *, worker: Estimator | None = None, wire: Channel | None = None, mods: Any = None
) -> ClientApp:
    """A ClientApp that answers `RobustStrategy`.

    `make(context)` gives what this node computes: a `Local`, or just `gradient(x, t)`. It is called for every
    message, since Flower runs each in a fresh process. Estimator and channel are those that the strategy
    names; `worker` and `wire` put own ones, which have no registered name, in their place.

    What the estimator remembers (a momentum, say) stays in `context.state`. A reply holds the message as the
    channel delivers it, under the model's own keys, and two figures: `gradients` asked for and `bits` as the
    channel counts them.
    """
    app = ClientApp(mods=mods)

    def own(context: Context) -> Local:
        made = make(context)
        return made if isinstance(made, Local) else Local(made)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        orders = message.content[ORDERS]
        estimator = worker or ESTIMATORS.build(json.loads(orders["worker"]))
        parts = (estimator, wire or CHANNELS.build(json.loads(orders["wire"])))
        local, point = own(context), _point(message)
        _check(local, point)
        said, figures = _said(parts, local, point.x, int(orders["t"]), context.state)
        content = {ARRAYS: written(said, point.layout), METRICS: MetricRecord(figures)}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        local, point = own(context), _point(message)
        figures = local.measure(point.x) if local.measure else {}
        return Message(RecordDict({METRICS: MetricRecord(figures)}), reply_to=message)

    return app


def _point(message: Message) -> Point:
    return read(message.content[ARRAYS], message.content[ORDERS]["names"])


def _check(local: Local, point: Point) -> None:
    if local.layout is not None and local.layout != point.layout:
        same = local.layout.d == point.layout.d and point.layout == Layout.flat(point.layout.d)
        what = "The server's model"
        require(same, what, f"have the arrays {local.layout}", point.layout, "Use the same module on both.")


def _said(
    parts: tuple[Estimator, Channel], local: Local, x: Tensor, t: int, records: RecordDict
) -> tuple[Tensor, dict[str, int | float]]:
    """This client's row `[d]` and its figures; round 1, or a client that remembers nothing, begins anew."""
    (estimator, channel), calls = parts, 0

    def counted(point: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return local.gradient(point, t).unsqueeze(0)

    oracle = Oracle(t, counted, lambda point: local.whole(point).unsqueeze(0))
    state = None if t == 1 else recall(records, _rehearsed(parts, x))
    with torch.no_grad():
        if state is None:
            said, memory = estimator.init(x, oracle)
            wire = channel.start(said)
        else:
            said, memory = estimator.step(state[0], x, oracle)
            wire = state[1]
        link = Link(t, 0, local.layout or Layout.flat(len(x)))
        _, heard, wire = channel.send(wire, said, link)
    keep(records, (memory, wire))
    return heard[0], {"gradients": calls, "bits": channel.cost(link).bits}


def _rehearsed(parts: tuple[Estimator, Channel], x: Tensor) -> tuple[Any, Any]:
    """The structure of the state after a first round, from gradients of zeros that go nowhere."""
    nothing = torch.zeros_like(x).unsqueeze(0)
    zeros = Oracle(1, lambda point: nothing, lambda point: nothing)
    said, memory = parts[0].init(x, zeros)
    return memory, parts[1].start(said)
