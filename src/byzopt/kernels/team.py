"""Several threads for one piece of work: torch's own team of OpenMP threads, where it can be reached.

A team that torch has just used is awake, and takes work in some microseconds. Threads of our own would have
to be woken, and then to share the cores with those of torch, which spin for some milliseconds after every
operation. Where torch comes with another runtime, and in a forked child, for which an OpenMP team is lost,
a pool of Python's threads does the same.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked: list[bool] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True))


def run_all(count: int, run: Callable[[int], None], threads: int) -> None:
    """`run(i)` for i = 0 .. count - 1, shared among so many `threads`. The first error is raised once all
    have ended. A team keeps its size: another one would have its threads made anew."""
    if _forked or _openmp() is None:
        _by_pool(count, run, threads)
        return
    begin, place, size = _openmp()
    failed: list[BaseException] = []

    def body(_: Any) -> None:
        try:
            for i in range(place(), count, size()):  # a team within a team has one thread
                run(i)
        except BaseException as error:  # what a callback raises is printed and lost
            failed.append(error)

    begin(_Body(body), None, threads, 0)
    if failed:
        raise failed[0]


@cache
def _openmp() -> Any:
    """What begins a team's work, the place of a thread in its team, and the team's size. None: not there."""
    try:
        library = ctypes.CDLL(None)
        begin, place, size = library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads
    except (AttributeError, OSError, TypeError):  # another runtime, or a platform without such a lookup
        return None
    begin.argtypes, begin.restype = (_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return begin, place, size


def _by_pool(count: int, run: Callable[[int], None], threads: int) -> None:
    waiting = [_pool(os.getpid(), threads).submit(run, i) for i in range(1, count)]
    try:
        run(0)
    finally:
        for one in waiting:
            one.exception()
    for one in waiting:
        one.result()


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked child inherits none."""
    return ThreadPoolExecutor(threads, "byzopt-kernels")
