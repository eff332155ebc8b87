"""What searches leave of presets: stored figures are of runs that there are, and stand where users look."""

from __future__ import annotations

import json

import pytest

from byzopt.experiments import load
from byzopt.experiments.specs.loading import presets
from byzopt.reports.reproduction_page import reproduction_markdown
from byzopt.reproductions.loading import load_reproduction
from byzopt.reproductions.running import ReproducedTables
from byzopt.reproductions.searched import (
    CALM,
    OWN,
    PresetRun,
    preset_runs,
    searched_sentence,
    worst_search,
)
from byzopt.stress import ENSEMBLE, stress

RUNS = [run for runs in preset_runs().values() for run in runs]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.preset} {run.kind}")
def test_each_figure_is_of_a_preset_under_the_attack_that_it_names(run):
    own = load(run.preset, compare=False).attack.name
    named = {CALM: "none", OWN: own} | {kind: attack["name"] for kind, attack in ENSEMBLE.items()}
    assert run.attack == named[run.kind]
    assert run.figures
    assert run.figures.get("accuracy") is None or 0 <= run.figures["accuracy"] <= 1
    assert len(run.run) == 16
    assert sum((one.preset, one.kind) == (run.preset, run.kind) for one in RUNS) == 1


def made(kind: str, status: str = "completed", **figures: float | None) -> PresetRun:
    return PresetRun("p/q", kind, "autobyz", figures, status, "0" * 16)


def test_the_worst_search_is_that_of_least_accuracy_or_largest_loss_and_a_failure_is_worse_still():
    accuracies = [
        made(OWN, accuracy=0.1),
        made("searched: a", accuracy=0.5),
        made("searched: b", accuracy=0.4),
    ]
    assert worst_search(accuracies).kind == "searched: b"
    losses = [made("searched: a", loss=0.5), made("searched: b", loss=0.4)]
    assert worst_search(losses).kind == "searched: a"
    assert worst_search([*losses, made("searched: c", "diverged", loss=None)]).kind == "searched: c"
    assert worst_search([made(CALM, loss=1.0), made(OWN, loss=2.0)]) is None


def test_every_preset_says_what_a_search_leaves_or_that_it_was_not_measured(byzopt):
    listed = {one["name"]: one for one in json.loads(byzopt("list", "presets", "--json").out)["presets"]}
    assert set(listed) == set(presets())
    for name, one in listed.items():
        measured = worst_search(preset_runs()[name]) is not None
        assert one["searched"] == searched_sentence(name)
        assert ("leaves" in one["searched"] and "under its own" in one["searched"]) == measured
        assert ("was not measured" in one["searched"]) != measured


def test_the_page_of_a_paper_says_it_of_its_presets_and_no_others():
    it = load_reproduction("byz-nsgdm/table1")
    page = reproduction_markdown(ReproducedTables(it, {}, ()))
    for name in presets():
        assert (f"- `{name}`: {searched_sentence(name)}" in page) == name.startswith("byz-nsgdm/")
    none = reproduction_markdown(ReproducedTables(load_reproduction("gossip/breakdown"), {}, ()))
    assert "Under attacks that search" not in none


@pytest.mark.slow
def test_a_stored_figure_is_met_again(tmp_path):
    name, kind = "asynchrony/quadratic", "searched: shrink"
    told = next(run for run in preset_runs()[name] if run.kind == kind)
    found = stress(load(name, compare=False), tmp_path, attacks=[kind])
    value = found.of(found.rules[0], kind).value
    # Hundreds of float64 rounds whose choices are by comparison: other processors change last bits alone.
    assert value == pytest.approx(told.figures["loss"], rel=1e-6)
