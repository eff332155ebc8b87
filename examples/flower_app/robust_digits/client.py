"""The ClientApp. A node started with `faulty="lies"` sends its gradient backwards, ten times as long.

One started with `faulty="crashes"` does not get so far.
"""

from __future__ import annotations

from flwr.app import Context

from byzopt.flower import Local, client_app
from robust_digits.task import images, loss, net


def make(context: Context) -> Local:
    part, parts = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    faulty = context.node_config.get("faulty")
    if faulty == "crashes":
        raise RuntimeError("out of order")
    local = Local.of_module(net(), loss, images(part, parts), batch=64, seed=part)
    if faulty == "lies":
        return Local(lambda x, t: -10 * local.gradient(x, t))
    return local


app = client_app(make)
