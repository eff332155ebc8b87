"""Where runs go on the cores: measured once, kept in the cache, measured anew for other cores."""

from __future__ import annotations

import json

import pytest

from byzopt.experiments.sweeps import cores
from byzopt.experiments.sweeps.cores import LayoutRates, ProcessLayout


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def measurements(monkeypatch):
    """Measurements that take no time; how often one was taken."""
    taken: list[int] = []

    def measured(cores: int) -> LayoutRates:
        taken.append(cores)
        return LayoutRates(ProcessLayout(cores, 1), {f"{cores} x 1": 5.0})

    monkeypatch.setattr(cores, "measure_layouts", measured)
    return taken


def test_the_layout_is_measured_once_and_kept(measurements):
    assert cores.best_layout() == cores.best_layout() == ProcessLayout(cores.available_cores(), 1)
    assert len(measurements) == 1
    cores.layout_rates(fresh=True)
    assert len(measurements) == 2


def test_other_cores_or_a_damaged_file_are_measured_anew(measurements, monkeypatch):
    cores.best_layout()
    monkeypatch.setattr(cores, "available_cores", lambda: 64)
    assert cores.best_layout() == ProcessLayout(64, 1)
    (cores.cache_directory() / cores.NAME).write_text("no json")
    assert cores.best_layout() == ProcessLayout(64, 1)
    (cores.cache_directory() / cores.NAME).write_text(json.dumps({"cores": 64}))
    assert cores.best_layout() == ProcessLayout(64, 1)
    assert len(measurements) == 4


@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"[" * 100_000, b"1" * 5000, b"\xff", b'{"cores": 64, "best": [1], "rates": []}'),
        *(b'{"cores": 64, "best": [%d, 1], "rates": {}}' % count for count in (0, 65, 10**9)),
    ],
)
def test_no_content_of_the_cache_does_harm(content, measurements, monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: 64)
    cores.cache_directory().mkdir(parents=True, exist_ok=True)
    (cores.cache_directory() / cores.NAME).write_bytes(content)
    assert cores.best_layout() == ProcessLayout(64, 1)
    assert measurements == [64]


def test_a_cache_that_cannot_be_written_is_no_failure(measurements, monkeypatch, own_cache):
    (own_cache / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache / "file"))
    assert cores.best_layout() == ProcessLayout(cores.available_cores(), 1)


@pytest.mark.parametrize(
    "rates, best",
    [
        ({(1, 4): 10.0, (2, 2): 15.0, (4, 1): 20.0}, (4, 1)),
        ({(1, 4): 10.0, (2, 2): 9.0, (4, 1): 10.5}, (1, 4)),
    ],
)
def test_the_fastest_wins_and_ties_go_to_fewer_processes(rates, best, monkeypatch):
    monkeypatch.setattr(cores, "rounds_per_second", lambda layout, seconds: rates[tuple(layout)])
    found = cores.measure_layouts(4)
    assert found.best == best
    assert len(found.rates) == 3


def test_one_process_really_works():
    assert cores.rounds_per_second(ProcessLayout(1, 1), 0.05) > 0
