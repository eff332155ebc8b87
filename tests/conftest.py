"""Shared settings and fixtures: reproducible hypothesis, one thread, and no download of data."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from byzopt.registry import registries
from tests.command import Command, command
from tests.kernels_once import kept_in

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")
torch.set_num_threads(1)
os.environ["BYZOPT_OFFLINE"] = "1"
# What is made while tests are collected stays: searches for garbage would go through it and find none.
gc.disable()


def pytest_collection_finish() -> None:
    """From the first test on garbage is looked for, but not among what was there before it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def kernels_once(tmp_path_factory) -> Iterator[None]:
    """The session's processes share the machine code of kernels: ranks would make it each for themselves."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # that of all its workers
    (folder / "kernels").mkdir(exist_ok=True)
    with kept_in(folder / "kernels"):
        yield


@pytest.fixture
def byzopt(capfd) -> Command:
    """The command in this process: from its words to its exit status and what it said."""
    return command(capfd)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty directory, in which the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registering() -> Iterator[None]:
    """What the test registers, in any registry, is forgotten afterwards."""
    with ExitStack() as all_rooms:
        for room in registries():
            all_rooms.enter_context(room.temporarily())
        yield


@pytest.fixture
def read_only() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A directory, and a context in which this process is a user who may only read it."""
    folder = Path(tempfile.mkdtemp())

    @contextmanager
    def reading():
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(os.getuid())
            folder.chmod(0o755)
            for path in folder.rglob("*"):
                path.chmod(0o755)

    yield folder, reading
    shutil.rmtree(folder)
