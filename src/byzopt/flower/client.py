"""The ClientApp of `RobustStrategy`: estimator and channel at the client, their memory in its Context."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from byzopt.errors import require
from byzopt.flower.client_state import load_state, save_state
from byzopt.flower.local import Local
from byzopt.flower.records import ARRAYS, BYZOPT, METRICS, PROTOCOL, Point, protocol_mark, to_arrays, to_point
from byzopt.layout import Layout
from byzopt.own_files import no_user_code
from byzopt.wire import CHANNELS, Channel, Link
from byzopt.workers import ESTIMATORS, Estimator, Oracle

Make = Callable[[Context], "Local | Callable[[Tensor, int], Tensor]"]


class Sending(NamedTuple):
    """How a client makes its message: by an estimator, over a channel."""

    estimator: Estimator
    channel: Channel


def client_app(
    make: Make, *, worker: Estimator | None = None, wire: Channel | None = None, mods: Any = None
) -> ClientApp:
    """A ClientApp that answers `RobustStrategy`.

    `make(context)` gives what this node computes: a `Local`, or just `gradient(x, t)`. It is called for every
    message, since Flower runs each in a fresh process; gradients are asked for with autograd on, at a copy of
    the point. Estimator and channel are those that the strategy names; `worker` and `wire` put own ones,
    which have no registered name, in their place.

    What the estimator remembers (a momentum, say) stays in `context.state`. A reply holds the message as the
    channel delivers it, under the model's own keys, two metrics (`gradients` asked for and `bits` as the
    channel counts them), and the mark of byzopt's protocol, by which the strategy knows it.

    Errors, which Flower reports to the server: `InvalidInput` when another strategy asks, or another module
    is trained there.

    Args:
        make: Called with Flower's context of a node, gives its `Local`, or `gradient(x, t)` alone.
        worker: An estimator without a registered name.
        wire: A channel without a registered name.
        mods: Flower's mods.

    Returns:
        The ClientApp.

    Examples:
        >>> from byzopt.flower import client_app
        >>> app = client_app(lambda context: lambda x, t: 2 * x)  # the gradient of ‖x‖²
        >>> type(app).__name__
        'ClientApp'
    """
    app = ClientApp(mods=mods)

    def local_of(context: Context) -> Local:
        made = make(context)
        return made if isinstance(made, Local) else Local(made)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request = _request(message)
        with no_user_code("a server's request"):
            estimator = worker or ESTIMATORS.build(json.loads(request["worker"]))
            sending = Sending(estimator, wire or CHANNELS.build(json.loads(request["wire"])))
        local, point = local_of(context), _point(message)
        _check_layout(local, point)
        row, metrics = _message(sending, local, point.x, int(request["t"]), context.state)
        content = {
            ARRAYS: to_arrays(row, point.layout),
            METRICS: MetricRecord(metrics),
            BYZOPT: protocol_mark(),
        }
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        local, point = local_of(context), _point(message)
        metrics = local.measure(point.x) if local.measure else {}
        content = {METRICS: MetricRecord(metrics), BYZOPT: protocol_mark()}
        return Message(RecordDict(content), reply_to=message)

    return app


def _request(message: Message) -> ConfigRecord:
    """What `RobustStrategy` asks for. Errors: `InvalidInput` where anyone else asks, or another release."""
    request = message.content.get(BYZOPT)
    what = "The strategy that asks a `client_app`"
    remedy = "Use RobustStrategy on the server; RobustFedAvg and FedAvg are for ClientApps that train."
    require(isinstance(request, ConfigRecord), what, "be RobustStrategy", "a message of another one", remedy)
    version, remedy = request.get("protocol"), "Install the same release of byzopt on both."
    require(version == PROTOCOL, what, f"speak version {PROTOCOL} of the protocol", version, remedy)
    return request


def _point(message: Message) -> Point:
    return to_point(message.content[ARRAYS], _request(message)["names"])


def _check_layout(local: Local, point: Point) -> None:
    if local.layout is not None and local.layout != point.layout:
        same = local.layout.d == point.layout.d and point.layout == Layout.flat(point.layout.d)
        what = "The server's model"
        require(same, what, f"have the arrays {local.layout}", point.layout, "Use the same module on both.")


def _message(
    sending: Sending, local: Local, x: Tensor, t: int, records: RecordDict
) -> tuple[Tensor, dict[str, int | float]]:
    """This client's row `[d]` and its metrics; round 1, or a client that remembers nothing, begins anew."""
    calls, samples = 0, sending.estimator.samples

    def on(k: int) -> Oracle:
        def counted(point: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return _row(lambda: local.gradient(point.clone(), (t - 1) * samples + 1 + k))

        def full(point: Tensor) -> Tensor:
            return _row(lambda: local.full_gradient(point.clone()))

        return Oracle(t, counted, full, grads_at=lambda points: counted(points[0]), sample=on)

    oracle = on(0)
    before = None if t == 1 else load_state(records, _example_state(sending, x))
    with torch.no_grad():
        if before is None:
            rows, memory = sending.estimator.init(x, oracle)
            channel_state = sending.channel.start(rows)
        else:
            rows, memory = sending.estimator.step(before[0], x, oracle)
            channel_state = before[1]
        link = Link(t, 0, local.layout or Layout.flat(len(x)))
        _, delivered, channel_state = sending.channel.send(channel_state, rows, link)
    save_state(records, (memory, channel_state))
    return delivered[0], {"gradients": calls, "bits": sending.channel.cost(link).bits}


def _row(gradient: Callable[[], Tensor]) -> Tensor:
    """A gradient `[d]` of the user's, taken with autograd on, as a row `[1, d]` without history."""
    with torch.enable_grad():
        return gradient().detach().unsqueeze(0)


def _example_state(sending: Sending, x: Tensor) -> tuple[Any, Any]:
    """The structure of the state after a first round, from gradients of zeros that go nowhere."""
    nothing = torch.zeros_like(x).unsqueeze(0)
    rows, memory = sending.estimator.init(x, _answering(nothing))
    return memory, sending.channel.start(rows)


def _answering(row: Tensor) -> Oracle:
    """An oracle that gives `row` `[1, d]` wherever and on whatever sample it is asked."""

    def answer(point: Tensor) -> Tensor:
        return row

    return Oracle(1, answer, answer, grads_at=answer, sample=lambda k: _answering(row))
