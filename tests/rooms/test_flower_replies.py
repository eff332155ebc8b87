"""Replies that nobody honest would send: each is refused with its reason, and none does any harm."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from byzopt.cohort import Cohort
from byzopt.layout import Layout
from byzopt.tasks import Quadratic

flwr = pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

from byzopt.flower import Local, RobustStrategy, client_app  # noqa: E402
from byzopt.flower.grid import ReplyByReplyGrid  # noqa: E402
from byzopt.flower.model import ModelArrays  # noqa: E402
from byzopt.flower.records import BYZOPT, protocol_mark, to_arrays  # noqa: E402
from byzopt.flower.replies import decode_gradient  # noqa: E402
from byzopt.flower.untrusted import BadReply  # noqa: E402
from byzopt.flower.weights import WeightsDecoder  # noqa: E402
from tests.flowers import PlayGrid, crash  # noqa: E402

LAYOUT = Layout(("a", "b"), ((2, 3), ()))
GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def asked():
    return Message(RecordDict(), 7, "train")


def reply(content):
    """A reply with this content, marked as one of `client_app` unless its mark is None."""
    if isinstance(content, Error):
        return Message(content, reply_to=asked())
    records = {BYZOPT: protocol_mark()} | content
    return Message(RecordDict({k: v for k, v in records.items() if v is not None}), reply_to=asked())


def arrays(**changes):
    given = {"a": Array(GOOD), "b": Array(np.array(7, dtype=np.float32))} | changes
    return ArrayRecord({name: array for name, array in given.items() if array is not None})


def raw(data=None, dtype="float32", shape=(2, 3), stype="numpy.ndarray"):
    return Array(dtype, shape, stype, Array(GOOD).data if data is None else data)


def test_good_replies_are_read_in_either_order_of_memory():
    wanted = torch.tensor([0, 1, 2, 3, 4, 5, 7], dtype=torch.float32)
    for a in (GOOD, np.asfortranarray(GOOD)):
        figures = MetricRecord({"bits": 3, "loss": 0.5})
        got = decode_gradient(
            reply({"arrays": arrays(a=Array(a)), "metrics": figures}), LAYOUT, torch.float32
        )
        assert torch.equal(got.row, wanted)
        assert got.metrics == {"bits": 3.0, "loss": 0.5}
    assert decode_gradient(reply({"arrays": arrays()}), LAYOUT, torch.float32).metrics == {}


HUGE = b"\x93NUMPY\x01\x00\x76\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 3), }".ljust(117) + b"\n"
)
PICKLE = b"\x93NUMPY\x01\x00\x76\x00" + (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }".ljust(117)
    + b"\ncos\nsystem\n(S'false'\ntR."
)
CODE = b"\x93NUMPY\x01\x00\x76\x00" + b"__import__('os').abort()".ljust(117) + b"\n"
BAD = {
    "another shape": (arrays(a=Array(GOOD.T.copy())), "shape"),
    "more dimensions": (arrays(b=Array(np.ones((1,), np.float32))), "shape"),
    "another dtype": (arrays(a=Array(GOOD.astype(np.float64))), "dtype"),
    "another byte order": (arrays(a=Array(GOOD.astype(">f4"))), "dtype"),
    "integers": (arrays(a=Array(GOOD.astype(np.int32))), "dtype"),
    "claims the dtype only": (arrays(a=raw(Array(GOOD.astype(np.int32)).data)), "dtype"),
    "a key missing": (arrays(b=None), "keys differ .*'b'"),
    "a key too many": (arrays(c=Array(GOOD)), "keys differ .*'c'"),
    "NaN": (arrays(a=Array(GOOD * np.float32("nan"))), "NaN"),
    "infinity": (arrays(a=Array(np.full((2, 3), np.inf, np.float32))), "NaN or Inf"),
    "too many bytes": (arrays(a=raw(Array(GOOD).data + b"\0" * 10_000_000)), "bytes in place of 24"),
    "too few bytes": (arrays(a=raw(Array(GOOD).data[:-1])), "bytes in place of 24"),
    "a huge claim": (arrays(a=raw(HUGE)), "shape"),
    "a huge claim outside": (arrays(a=raw(shape=(10**12, 10**12))), "shape"),
    "a pickle": (arrays(a=raw(PICKLE)), "dtype"),
    "code": (arrays(a=raw(CODE)), "header"),
    "an archive": (arrays(a=raw(b"PK\x03\x04" + b"\0" * 100)), "format"),
    "no bytes": (arrays(a=raw(b"")), "format"),
    "a header without end": (arrays(a=raw(b"\x93NUMPY\x01\x00\xff\xff")), "header"),
    "another way to write": (arrays(a=raw(stype="torch.save")), "format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays_are_refused_with_the_reason(name):
    record, reason = BAD[name]
    with pytest.raises(BadReply, match=reason):
        decode_gradient(reply({"arrays": record}), LAYOUT, torch.float32)


@pytest.mark.parametrize(
    "content, reason",
    [
        ({}, "records"),
        ({"weights": arrays()}, "records"),
        ({"arrays": arrays(), "more": ConfigRecord({"x": 1})}, "records"),
        ({"arrays": arrays(), "byzopt": MetricRecord()}, "no mark .* RobustFedAvg"),
        ({"arrays": arrays(), "byzopt": ConfigRecord()}, "version None .* in place of 1"),
        ({"arrays": arrays(), "byzopt": ConfigRecord({"protocol": 2})}, "version 2 .* in place of 1"),
        ({"arrays": arrays(), "byzopt": ConfigRecord({"protocol": 1, "content": "weights"})}, "'weights'"),
        ({"arrays": MetricRecord({"a": 1.0})}, "is a MetricRecord"),
        ({"arrays": arrays(), "metrics": ConfigRecord({"a": "x"})}, "is a ConfigRecord"),
        ({"arrays": arrays(), "metrics": MetricRecord({"a": float("nan")})}, "no finite number"),
        ({"arrays": arrays(), "metrics": MetricRecord({"a": [1.0]})}, "no finite number"),
        ({"arrays": arrays(), "metrics": MetricRecord({str(i): i for i in range(99)})}, "more than 32"),
        ({"arrays": arrays(), "metrics": MetricRecord({"x" * 99: 1})}, "more than 32"),
        (Error(2, "boom " * 10_000), r"error 2: (boom )+"),
        (Error(5), "no reason given"),
    ],
)
def test_bad_messages_are_refused_with_the_reason(content, reason):
    with pytest.raises(BadReply, match=reason) as caught:
        decode_gradient(reply(content), LAYOUT, torch.float32)
    assert len(str(caught.value)) < 400


def mangled(rng, data):
    """Bytes changed, cut, repeated or put in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if place < len(data):
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randrange(1, 40)]
            case 2:
                data[place:place] = rng.randbytes(rng.randrange(1, 20))
            case _:
                data += data[place:]
    return bytes(data)


def fuzzed(rng):
    """A reply that is wrong somewhere, or nearly right."""
    record = {}
    for name, shape in (("a", (2, 3)), ("b", ())):
        if rng.random() < 0.05:
            name = rng.choice(("", "c", "a" * 1000, "\0"))
        kind = rng.choice(("float32",) * 6 + ("float64", "object", "", "int8"))
        claimed = shape if rng.random() < 0.8 else tuple(rng.choice((0, -1, 1, 2, 10**18)) for _ in range(3))
        value = np.full(shape, rng.choice((0.0, 1e30, -1.0, np.nan)), np.float32)
        stype = "numpy.ndarray" if rng.random() < 0.95 else rng.choice(("", "pickle"))
        data = Array(value).data
        record[name] = Array(kind, claimed, stype, mangled(rng, data) if rng.random() < 0.7 else data)
    key = "arrays" if rng.random() < 0.95 else "array"
    content = {key: ArrayRecord(record)}
    if rng.random() < 0.3:
        content["metrics"] = MetricRecord({"bits": rng.choice((1, -1, 2**62, float("inf"), float("nan")))})
    return content


def test_ten_thousand_mangled_replies_are_rows_of_numbers_or_refused():
    rng, read, reasons = random.Random(0), 0, set()
    for _ in range(10_000):
        try:
            got = decode_gradient(reply(fuzzed(rng)), LAYOUT, torch.float32)
        except BadReply as error:
            reasons.add(str(error))
        else:
            read += 1
            assert got.row.shape == (7,)
            assert got.row.dtype == torch.float32
            assert got.row.isfinite().all()
    assert 50 < read < 5000
    assert {"array", "keys", "NaN", "records", "metric"} <= {reason.split(" ")[0] for reason in reasons}
    assert max(map(len, reasons)) < 600


def test_mangled_weights_are_numbers_or_refused():
    rng, decoded = random.Random(2), 0
    model = ModelArrays.of(arrays(n=Array(np.array(3))))
    for _ in range(3_000):
        content = fuzzed(rng)
        for record in content.values():
            if isinstance(record, ArrayRecord):
                record["n"] = Array(np.array(rng.choice((3, -3, 2**62, 0.5, True))))
        try:
            got = WeightsDecoder(model, "arrays")(reply(content | {"byzopt": None}))
        except BadReply:
            continue
        decoded += 1
        assert got.x.shape == (7,)
        assert got.x.isfinite().all()
        assert got.buffers["n"].dtype == np.int64
    assert 5 < decoded < 2000


def test_a_server_under_mangled_replies_keeps_to_the_others():
    task = Quadratic().build(Cohort.of(9), 0)
    rng = random.Random(1)
    app = client_app(lambda context: Local.of_task(task, int(context.node_config["partition-id"])))

    def mangles(asked, answer):
        (name, array), *_ = answer.content["arrays"].items()
        spoilt = Array(array.dtype, array.shape, array.stype, mangled(rng, array.data[:100]) + array.data[:7])
        answer.content["arrays"] = ArrayRecord({name: spoilt})
        return [answer]

    found = []
    for way in (mangles, crash):
        grid = PlayGrid(app, 9, dict.fromkeys((0, 4, 7), way))
        strategy = RobustStrategy("nnm >> rfa", f=3)
        result = strategy.start(grid, to_arrays(task.start(), task.layout), num_rounds=20)
        assert all(set(faults) == {grid.nodes[i] for i in (0, 4, 7)} for faults in result.faults.values())
        found.append(strategy.answer)
    assert torch.equal(*found)


class Wire:
    """What Flower's own grid does with replies that cannot be put together."""

    def __init__(self):
        self.pulled = []

    def push_messages(self, messages):
        return [None if message.metadata.dst_node_id == 3 else str(i) for i, message in enumerate(messages)]

    def pull_messages(self, ids):
        self.pulled.append(ids)
        (place,) = ids
        if place == "1":
            raise ValueError("Class name (Array) and object type (Bomb) do not match.")
        if place == "4":
            raise ConnectionError("refused")
        return [] if place == "2" else [reply({"arrays": arrays()})]


def test_a_malformed_reply_is_an_error_of_its_sender_alone():
    messages = [Message(RecordDict(), node, "train") for node in (7, 8, 9, 3)]
    replies = ReplyByReplyGrid(Wire()).send_and_receive(messages, timeout=0.3)
    assert [message.has_error() for message in replies] == [False, True]
    assert replies[1].metadata.src_node_id == 8
    with pytest.raises(BadReply, match=r"malformed: .*Bomb"):
        decode_gradient(replies[1], LAYOUT, torch.float32)


def test_no_connection_is_nobodys_fault():
    messages = [Message(RecordDict(), node, "train") for node in (10, 11, 12, 13, 14)]
    with pytest.raises(ConnectionError):
        ReplyByReplyGrid(Wire()).send_and_receive(messages, timeout=0.3)
