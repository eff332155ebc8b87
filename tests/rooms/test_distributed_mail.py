"""Compressed messages between ranks: parity with the simulated engine, bytes counted, nobody trusted."""

from __future__ import annotations

import io
import random

import pytest
import torch

import byzopt.distributed.rank_worker as room
from byzopt.aggregators import rule_from
from byzopt.attacks import Adversary
from byzopt.attacks.flips import BitFlip
from byzopt.cohort import Cohort
from byzopt.distributed import RobustDM21, RobustOptimizer, RobustSGD, RobustVRDM21, Suspicion, communicator
from byzopt.distributed.compressed import CompressedMessages
from byzopt.engines import Simulated, begin, rounds
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.layout import Layout
from byzopt.methods import METHODS
from byzopt.servers import ServerContext
from byzopt.tasks import TASKS
from byzopt.wire import CHANNELS, COMPRESSORS, EF21, Compressor, ErrorFeedback, Link, TopK
from byzopt.wire.messages import message_bytes
from tests.compressors import Halves
from tests.products import sampled
from tests.ranks import play_ranks

N, ROUNDS, LR, SEED = 5, 6, 0.05, 3
TOP = {"name": "top_k", "k": 3}


def built(method):
    return METHODS.build(method).build(rule_from("nnm >> rfa", f=1), LR, ROUNDS)


def over_task(rank, method, topology):
    task = TASKS.build("quartic").build(Cohort.of(N, 0), seed=SEED)
    x = torch.nn.Parameter(task.start().clone())
    optimizer = RobustOptimizer([x], built(method), LR, topology=topology, seed=SEED)
    path = []
    for t in range(1, ROUNDS + 1):

        def closure(t=t):
            x.grad = task.grads(x.detach(), task.draw(t))[rank].clone()

        optimizer.step(closure)
        path.append(x.detach().clone())
    return torch.stack(path), optimizer.bits, optimizer.malformed


CASES = [
    ({"name": "byz_dm21", "compressor": TOP}, "server"),
    ({"name": "byz_dm21", "compressor": TOP}, "replicated"),
    ({"name": "byz_dm21", "compressor": TOP, "init": "zero", "weights": "ratio"}, "server"),
    ({"name": "byz_dm21", "compressor": TOP, "init": "released"}, "server"),
    ({"name": "byz_dm21", "compressor": {"name": "rand_k", "k": 2, "scaled": False}}, "server"),
    (
        {"name": "byz_dm21", "compressor": {"name": "rand_k", "k": 2, "scaled": False, "seeded": True}},
        "replicated",
    ),
    ({"name": "byz_dm21", "compressor": {"name": "shrunk", "inner": "natural"}}, "server"),
    ({"name": "byz_vr_dm21", "compressor": "scaled_sign"}, "server"),
    ({"name": "br_diana", "compressor": {"name": "qsgd", "levels": 4}}, "replicated"),
    ("br_csgd", "server"),
    ({"name": "byz_dm21", "compressor": Halves()}, "server"),
    ({"name": "byz_vr_dm21", "compressor": Halves(scope="tensor")}, "replicated"),
    ("ef_sign", "replicated"),
]


def over_all(rank):
    return [over_task(rank, *case) for case in CASES]


@pytest.fixture(scope="module")
def played():
    return play_ranks(N, over_all)


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: " ".join(map(str, CASES[case])))
def test_iterates_and_bits_are_those_of_the_simulated_engine(case, played):
    method, _ = CASES[case]
    cohort = Cohort.of(N, 0)
    task = TASKS.build("quartic").build(cohort, seed=SEED)
    recipe = built(method)
    engine = Simulated(task, recipe.worker, recipe.wire, Adversary(BitFlip(), cohort, 1), SEED)
    snapshots = list(
        rounds(recipe, engine, begin(recipe, task.start(), ServerContext(task.layout), N), ROUNDS)
    )
    path = torch.stack([snapshot.x for snapshot in snapshots])
    for found, bits, malformed in (of_rank[case] for of_rank in played):
        assert torch.allclose(found, path, rtol=1e-12, atol=1e-13)
        assert bits == snapshots[-1].state.bits
        assert not malformed


def small(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(5, 4).double()


def backward(model, rank, t):
    generator = torch.Generator().manual_seed(100 * rank + t)
    model.zero_grad()
    model(torch.randn(8, 5, dtype=torch.float64, generator=generator)).square().sum().backward()


def counted(rank, topology):
    """Bytes that each step sends, and the sizes of all buffers that torch got."""
    seen, lent = [], communicator._bytes

    def spy(tensor):
        seen.append(tensor.numel() * tensor.element_size())
        return lent(tensor)

    model = small()
    optimizer = RobustDM21(model.parameters(), LR, f=1, compressor=TOP, topology=topology)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(communicator, "_bytes", spy)
        sent = []
        for t in range(4):
            before = optimizer.comm.sent
            backward(model, rank, t)
            optimizer.step()
            sent.append(optimizer.comm.sent - before)
    return sent, seen


@pytest.mark.parametrize("topology", ["server", "replicated"])
def test_what_crosses_is_what_the_compressor_emits(topology):
    size = message_bytes(COMPRESSORS.build(TOP), Layout.flat(24), 64)
    assert size == -(-3 * (64 + 5) // 8)
    header, status = 9 * 8 * (N - 1), 8 * (N - 1)
    for rank, (sent, sizes) in enumerate(play_ranks(N, counted, topology)):
        # Headers and messages, from this rank and from all; whether all could go on, and rank 0's answer.
        usual = {9 * 8 * N, size, size * N, 8 * N, 8 * 24}
        assert set(sizes) <= usual
        if topology == "replicated":
            assert sent == [header + size * (N - 1)] * 4
        elif rank:
            # Behind the message comes whether this rank could go on, and from rank 0 alone the answer.
            assert sent == [header + size + status] * 4
        else:
            assert sent == [header + status + 8 * 24] * 4


def continued(rank, topology):
    def trained(model, optimizer, steps):
        for t in steps:
            backward(model, rank, t)
            optimizer.step()
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def fresh(seed):
        model = small(seed)
        return model, RobustDM21(model.parameters(), LR, f=1, compressor=TOP, topology=topology)

    whole = trained(*fresh(0), range(8))
    model, optimizer = fresh(0)
    trained(model, optimizer, range(4))
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    model, optimizer = fresh(9)
    optimizer.load_state_dict(torch.load(buffer, weights_only=True))
    return whole, trained(model, optimizer, range(4, 8))


@pytest.mark.parametrize("topology", ["server", "replicated"])
def test_from_its_state_it_goes_on_bit_for_bit(topology):
    for whole, again in play_ranks(3, continued, topology):
        assert torch.equal(whole, again)


class Garbled(CompressedMessages):
    """What a rank sends whose memory is broken: bytes that mean nothing."""

    def __init__(self, *given):
        super().__init__(*given)
        self.payload[8:] = 127
        self.payload[:8] = 0 if isinstance(self.coder, Halves) else 255


def garbled(rank, topology, liars, compressor):
    model, watch = small(), Suspicion()
    optimizer = RobustDM21(model.parameters(), LR, f=1, compressor=compressor, topology=topology, watch=watch)
    for t in range(3):
        backward(model, rank, t)
        optimizer.step()
    before, parameters = optimizer.progress, [p.detach().clone() for p in model.parameters()]
    honest, refused = room.CompressedMessages, None
    if rank < liars:
        room.CompressedMessages = Garbled
    try:
        backward(model, rank, 3)
        optimizer.step()
    except TooManyFaults as error:
        refused = error.rows
        assert optimizer.progress is before
        assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))
    finally:
        room.CompressedMessages = honest
    reads = before.received is not None
    kept = reads and torch.equal(before.received.server[0], optimizer.progress.received.server[0])
    found = dict(optimizer.malformed), reads, kept, watch.ranks and watch.ranks[0].nonfinite_total
    backward(model, rank, 4)
    optimizer.step()  # the ranks are still in step
    return refused, *found, [p.detach() for p in model.parameters()]


READ = {"top_k": (TOP, "lie in"), "own": (Halves(), "Found IndexError")}


@pytest.mark.parametrize("read, topology", sampled(READ, ["server", "replicated"]))
def test_a_malformed_message_is_its_senders_fault(read, topology):
    compressor, why = READ[read]
    results = play_ranks(N, garbled, topology, 1, compressor)
    for rank, (refused, malformed, reads, kept, count, parameters) in enumerate(results):
        assert refused is None
        assert reads == (topology == "replicated" or rank == 0)
        if reads:
            assert list(malformed) == [0]
            assert why in malformed[0]
            assert kept
            assert count == 1
        for one, other in zip(parameters, results[0][-1], strict=True):
            assert torch.equal(one, other)
            assert one.isfinite().all()


@pytest.mark.parametrize("topology", ["server", "replicated"])
def test_more_of_them_than_f_stop_all_ranks_and_change_nothing(topology):
    for refused, *_ in play_ranks(N, garbled, topology, 2, TOP):
        assert tuple(refused) == (0, 1)


@pytest.mark.parametrize(
    "compressor", [TOP, "natural", "scaled_sign", {"name": "qsgd", "levels": 3}], ids=str
)
def test_fuzzed_messages_touch_nobody_elses_row(compressor):
    """10,000 in all: noise, and good messages with a few bits flipped. Wrong lengths cannot cross at all."""
    inner = COMPRESSORS.build(compressor)
    channel = CHANNELS.build({"name": "diana", "compressor": compressor}) if inner.unbiased else EF21(inner)
    layout, dice = Layout.flat(11), random.Random(5)
    rows = torch.randn(3, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = channel.start(rows)
    mails = []
    for i in range(3):
        lane = Link(2, SEED, layout, only=(i, 3))
        sent, _, _ = channel.send(channel.start(rows[i : i + 1]), rows[i : i + 1], lane)
        mails.append(CompressedMessages(channel, lane, sent, start))
    good = torch.stack([mail.payload for mail in mails])
    malformed = {}
    expected, kept = mails[0].read(good, malformed), mails[0].memory
    assert not malformed
    refused = 0
    for k in range(2500):
        parcels = good.clone()
        if k % 2:
            parcels[1] = torch.tensor(list(dice.randbytes(good.shape[1])), dtype=torch.uint8)
        else:
            for _ in range(dice.randint(1, 4)):
                parcels[1, dice.randrange(good.shape[1])] ^= 1 << dice.randrange(8)
        mails[0].memory, malformed = start, {}
        found = mails[0].read(parcels, malformed)
        assert torch.equal(found[::2], expected[::2])
        assert torch.equal(mails[0].memory.server[::2], kept.server[::2])
        if malformed:
            refused += 1
            assert list(malformed) == [1]
            assert found[1].isnan().all()
            assert torch.equal(mails[0].memory.server[1], start.server[1])
        else:
            assert found[1].isfinite().all()
    assert refused > 0 or compressor == "scaled_sign"


def refusals(rank):
    model = small()
    with pytest.raises(InvalidInput, match="server"):
        RobustSGD(model.parameters(), LR, f=1, wire=ErrorFeedback())
    both_ways = built("byz_ef21_bc")
    with pytest.raises(InvalidInput, match="broadcast"):
        RobustOptimizer(model.parameters(), both_ways, LR, topology="server")
    optimizer = RobustVRDM21(model.parameters(), LR, f=1, compressor=TOP)
    backward(model, rank, 0)
    optimizer.step()
    with pytest.raises(InvalidInput, match="closure"):
        optimizer.step()
    wired = RobustSGD(model.parameters(), LR, 0.9, f=0, wire=ErrorFeedback(TopK(k=2)), topology="server")
    backward(model, rank, 1)
    wired.step()
    return wired.bits


def own_refusals(rank):
    class Bare(Halves):
        write = Compressor.write

    class Long(Halves):
        def write(self, block, out, width, draw):
            out.integers(0, 1)
            super().write(block, out, width, draw)

    for kind, what in ((Bare, "Bare should have a layout of bits"), (Long, "as many bits as `size`")):
        with pytest.raises(InvalidInput, match=what):
            RobustDM21(small().parameters(), LR, f=1, compressor=kind())
    return True


def test_a_compressor_that_cannot_be_sent_is_refused_when_the_optimizer_is_made():
    assert all(play_ranks(2, own_refusals))


def nonfinite(rank, compressor):
    """What ranks make of a rank whose gradient is not finite, whatever is left of it in its message."""
    model = small()
    optimizer = RobustDM21(model.parameters(), LR, f=1, compressor=compressor, topology="replicated")
    for t in range(3):
        backward(model, rank, t)
        if t == 1 and rank == 2:
            next(model.parameters()).grad[0, 0] = torch.nan
        optimizer.step()
        if t == 1:
            told = dict(optimizer.malformed)
    return told, optimizer.malformed, torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize(
    "compressor",
    [{"name": "rand_k", "k": 1, "scaled": False}, {"name": "shrunk", "inner": "natural"}, Halves()],
    ids=str,
)
def test_a_gradient_that_is_not_finite_costs_its_rank_the_round_and_nothing_else(compressor):
    results = play_ranks(4, nonfinite, compressor)
    for told, after, parameters in results:
        assert list(told) == [2]
        assert not after
        assert parameters.isfinite().all()
        assert torch.equal(parameters, results[0][-1])


def test_what_cannot_be_is_refused_and_other_optimizers_take_channels():
    for bits in play_ranks(3, refusals):
        assert bits == 2 * (32 + 5)
