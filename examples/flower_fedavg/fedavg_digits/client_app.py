"""The ClientApp: plain Flower, without a word of byzopt. Only the mod `faults` is there to break nodes."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader

from fedavg_digits.faults import faults
from fedavg_digits.task import Net, images, test, train

app = ClientApp(mods=[faults])


def received(message: Message) -> Net:
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


def partition(context: Context):
    return images(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    net, data = received(message), partition(context)
    loader = DataLoader(data, batch_size=int(context.run_config["batch-size"]), shuffle=True)
    loss = train(net, loader, int(context.run_config["local-epochs"]), message.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    data = partition(context)
    loss, accuracy = test(received(message), DataLoader(data, batch_size=256))
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(data)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
