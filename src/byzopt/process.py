"""What a process that trains wants of its system, for whoever starts one."""

from __future__ import annotations

import ctypes
import sys

# How idle OpenMP threads wait: they spin for some microseconds, which spares most wake-ups, and then sleep.
# Threads that spin for long make a machine with other work several times slower; threads that sleep at once
# make training on an idle one twice as slow. Read when torch is loaded, so it has to be set before.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_memory() -> None:
    """Have glibc keep what is freed for what is asked for next; elsewhere nothing happens.

    By default every large tensor is mapped anew and cleared page by page, which takes several times as long
    as a pass over it: rows of 96 MB, copied, took 45 ms, and 8 ms where memory is kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
