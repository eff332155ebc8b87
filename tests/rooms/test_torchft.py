"""torchft's process groups, which are made anew for each quorum; where it is not installed, a stand-in's."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed import PrefixStore, TCPStore
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed import robust_all_reduce
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks


class StandIn:
    """A group with the methods of torchft's, of which torch's registry knows nothing."""

    def __init__(self):
        self.parent = dist.group.WORLD

    def getBackendName(self):  # noqa: N802  # torchft's name for it
        return "torchft-gloo"

    def __getattr__(self, name):
        return getattr(self.parent, name)


StandIn.__module__ = "torchft.process_group"


class Wrapping(StandIn):
    """One of torchft's groups around another one of them: its own rank is no rank of ours."""

    def __init__(self):
        self.parent = self._pg = StandIn()

    def rank(self):
        return 0


class Unconfigured(StandIn):
    """One that has had no quorum."""

    def __init__(self):
        self._pg = None

    @property
    def parent(self):
        raise AssertionError("process group not initialized")


class ManagedProcessGroup(StandIn):
    pass


class ProcessGroupBabyGloo:
    def rank(self):
        return 0


for each in (Wrapping, Unconfigured, ManagedProcessGroup, ProcessGroupBabyGloo):
    each.__module__ = "torchft.process_group"


def refusals(rank):
    found = []
    for group in (Unconfigured(), ManagedProcessGroup(), ProcessGroupBabyGloo()):
        try:
            robust_all_reduce(torch.ones(3), "median", group=group, f=1)
        except InvalidInput as error:
            found.append(str(error))
    answer = robust_all_reduce(torch.full((10,), float(rank)), "trimmed_mean", group=Wrapping(), f=1)
    return found, float(answer[3])


def test_groups_that_hide_errors_or_do_not_know_their_rank_are_refused_and_wrapped_ones_are_unwrapped():
    for (new, managed, baby), answer in play_ranks(4, refusals):
        assert "have had a quorum" in new
        assert "raise its errors" in managed
        assert "know which rank this is" in baby
        assert answer == 1.5


def beside(rank):
    found = []
    for topology in ("sharded", "replicated", "server"):
        row = torch.full((10,), float(rank))
        found.append(
            float(robust_all_reduce(row, "trimmed_mean", group=StandIn(), f=1, topology=topology)[3])
        )
    model = DistributedDataParallel(nn.Linear(3, 2))
    model.process_group = StandIn()
    for settings in ({}, {"deadline": 30.0}):
        try:
            harden(model, "median", f=1, **settings)
        except InvalidInput as error:
            found.append(str(error))
    return found


def test_a_group_that_torch_does_not_know_serves_by_its_methods_and_is_no_model_s():
    results = play_ranks(4, beside)
    for *answers, plain, timed in results:
        assert answers == [1.5] * 3
        assert plain == timed == results[0][3]
        assert "one of torchft" in plain


def replica(rank, port, queue):
    from torchft.process_group import ProcessGroupGloo

    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, is_master=False)
    # Each replica is a job of its own, of one rank; the group between them is torchft's.
    dist.init_process_group("gloo", store=PrefixStore(f"job {rank}", store), rank=0, world_size=1)
    group, found = ProcessGroupGloo(timeout=timedelta(seconds=60)), []
    for quorum, n in enumerate((4, 3, 2)):  # a replica less each time
        if rank >= n:
            break
        group.configure(f"127.0.0.1:{port}/{quorum}", f"replica {rank}", rank, n)
        for topology in ("sharded", "replicated", "server"):
            row = torch.full((10,), float(rank))
            try:
                out = robust_all_reduce(row, "trimmed_mean", group=group, f=1, topology=topology)
                found.append(float(out[3]))
            except InvalidInput:
                found.append(None)
    queue.put((rank, found))


def test_each_quorum_is_a_group_and_the_rule_is_checked_for_it():
    pytest.importorskip("torchft", reason="needs torchft")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    replicas = [context.Process(target=replica, args=(rank, store.port, queue)) for rank in range(4)]
    for one in replicas:
        one.start()
    results = dict(queue.get() for _ in replicas)
    for one in replicas:
        one.join()
    for rank, found in results.items():
        expected = [1.5] * 3 + [1.0] * 3 * (rank < 3) + [None] * 3 * (rank < 2)
        assert found == expected
