"""Shared settings and fixtures: reproducible hypothesis, one thread, and no download of data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.command import Command, command

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")
torch.set_num_threads(1)
os.environ["BYZOPT_OFFLINE"] = "1"


@pytest.fixture
def byzopt(capfd) -> Command:
    """The command in this process: from its words to its exit status and what it said."""
    return command(capfd)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty directory, in which the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
