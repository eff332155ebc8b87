"""torchft with a robust rule: its manager says who is there, and the rule is over the gradients of those.

torchrun --nproc-per-node 4 examples/frameworks/torchft_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/torchft_digits.py --faulty --undefended
torchrun --nproc-per-node 5 examples/frameworks/torchft_digits.py --faulty --killed -f 2

Every process is a replica of one rank. With --killed the last one dies in step 20.
"""

import argparse
import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from digits import accuracy, digits, network
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torchft import Manager, Optimizer, ProcessGroupGloo
from torchft.coordination import LighthouseServer

from byzopt.distributed import robust_all_reduce
from byzopt.errors import TooManyFaults

STEPS, DEATH, PATIENCE = 60, 20, timedelta(seconds=30)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    parser.add_argument("--killed", action="store_true")
    parser.add_argument("-f", type=int, default=1)
    options = parser.parse_args()
    rank, n, f = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), options.f
    torch.set_num_threads(1)
    agent = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if rank == 0:  # in a cluster it is a service of its own
        # A replica that is alive, though slow, is waited for: else it would be one more fault.
        wait = int(1000 * PATIENCE.total_seconds())
        lighthouse = LighthouseServer(bind="[::]:0", min_replicas=n - f, join_timeout_ms=wait)
        agent.set("lighthouse", lighthouse.address())
    model = network()
    inner = torch.optim.AdamW(model.parameters(), lr=3e-3)
    group, own = ProcessGroupGloo(timeout=PATIENCE), dist.TCPStore("localhost", 0, is_master=True)
    manager = Manager(
        pg=group,
        min_replica_size=n - f,  # with fewer there are more faults than f, and no step is made
        use_async_quorum=False,  # a replica that comes back has its state before it sends a gradient
        load_state_dict=lambda state: (
            model.load_state_dict(state["model"]),
            inner.load_state_dict(state["inner"]),
        ),
        state_dict=lambda: {"model": model.state_dict(), "inner": inner.state_dict()},
        replica_id=f"replica_{rank}",
        lighthouse_addr=agent.get("lighthouse").decode(),
        store_addr="localhost",
        store_port=own.port,
        rank=0,
        world_size=1,
        timeout=PATIENCE,
    )
    optimizer = Optimizer(manager, inner)
    agent.add("ready", 1)
    while agent.add("ready", 0) < n:  # the first quorum is of all
        time.sleep(0.05)
    x, y = digits(rank, n).tensors
    lie = -10 if options.faulty and rank == 1 else 1
    while manager.current_step() < STEPS:
        t = manager.current_step()
        if options.killed and t == DEATH and rank == n - 1:
            os._exit(0)
        generator = torch.Generator().manual_seed(1000 * rank + t)
        batch = torch.randint(len(x), (32,), generator=generator)
        optimizer.zero_grad()  # a new quorum
        (lie * functional.cross_entropy(model(x[batch]), y[batch])).backward()
        combine(manager, group, model, None if options.undefended else "rfa", n, f)
        optimizer.step()  # where the manager finds that all went well
    if rank == 0:
        print(f"accuracy {accuracy(model):.3f} with {manager.num_participants()} of {n} replicas")
    agent.add("done", 1)  # others may still want what this one has sent, and rank 0 has the lighthouse
    end = time.monotonic() + PATIENCE.total_seconds()
    while agent.add("done", 0) < manager.num_participants() and time.monotonic() < end:
        time.sleep(0.05)
    os._exit(0)  # a farewell of the group would wait for the dead


def combine(manager, group, model, rule, n, f):
    """In the place of the manager's average: the rule's answer to the gradients of the present quorum. Of the
    f faults that it is to bear, those replicas that are missing have been some already."""
    gradients = [p.grad for p in model.parameters()]
    flat = parameters_to_vector(gradients)
    if rule is None:
        manager.allreduce(flat).wait()
    else:
        manager.wait_quorum()
        left = f - (n - manager.num_participants())
        try:
            flat = robust_all_reduce(flat, rule, group=group, f=left)
        except TooManyFaults:
            raise  # on all replicas
        except RuntimeError as error:  # of gloo: a replica has died. The next quorum is without it
            manager.report_error(error)
    vector_to_parameters(flat, gradients)


if __name__ == "__main__":
    main()
