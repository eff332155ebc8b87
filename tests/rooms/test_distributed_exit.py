"""A rank ends in good order, however late gloo's thread lets go of the last buffers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from byzopt.distributed import communicator

# Every notification from a thread of gloo is held up until `go` or for a second, so that the thread still
# has its tensors while the main thread goes on. `go` does not give up the interpreter's lock.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int slow = 0, gone = 0;
void slowly(void) { slow = 1; }
void go(void) { gone = 1; usleep(20000); }
void _ZNSt18condition_variable10notify_allEv(void *self) {
  static void (*notify)(void *);
  void *library = dlopen("libstdc++.so.6", RTLD_NOW);
  if (!notify) notify = dlsym(library, "_ZNSt18condition_variable10notify_allEv");
  notify(self);
  if (!slow || getpid() == (int)syscall(SYS_gettid)) return;
  for (int i = 0; i < 1000 && !gone; i++) usleep(1000);
}
"""
SCRIPT = """
import atexit, ctypes, os, sys
shim = ctypes.PyDLL(os.environ["LD_PRELOAD"])
atexit.register(shim.go)  # the last thing before the interpreter ends
import torch, torch.distributed as dist
from byzopt.distributed.communicator import Communicator

dist.init_process_group("gloo", store=dist.FileStore(sys.argv[1], 1), rank=0, world_size=1)
held = [dist.group.WORLD]
held.append(held)  # as in a DistributedDataParallel model: there until the very end
comm = Communicator()
getattr(comm, sys.argv[2])(torch.ones(9))
shim.slowly()
getattr(comm, sys.argv[2])(torch.ones(9))
dist.destroy_process_group()
print("done")
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, to slow down gloo's thread")
@pytest.mark.parametrize("collective", ["gather", "broadcast"])
@pytest.mark.slow
def test_a_late_thread_does_not_kill_the_rank(tmp_path, collective):
    (tmp_path / "shim.c").write_text(SHIM)
    shim = str(tmp_path / "shim.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, str(tmp_path / "shim.c"), "-ldl"], check=True)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), collective]
    environment = {**os.environ, "LD_PRELOAD": shim, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_loan_is_known_for_as_long_as_somebody_has_it():
    owner = torch.ones(3, requires_grad=True)
    owner.grad = communicator._loaned(torch.zeros(3))  # held by C++ alone, as by gloo's thread
    assert len(communicator._loans) == 1
    owner.grad = None
    assert not communicator._loans
