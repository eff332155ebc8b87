"""What somebody new to byzopt runs into: runs that got nowhere, settings that cannot work, and refusals that
have to say where and what to do."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from byzopt import Cohort, InvalidInput, Outcome, Status, UnknownName, load, rule_from, run, simulate
from byzopt.attacks import DBA, Backdoor
from byzopt.cli.run import result_data
from byzopt.errors import ChangedFile, DoubtfulSetting
from byzopt.experiments import MAIN, Spec
from byzopt.experiments.store.outcomes import outcome_of_summary, outcome_summary
from byzopt.experiments.sweeps import Sweep, run_sweep
from byzopt.reports import curves, tables
from byzopt.tasks import DataSet, Digits, Quadratic

SPEC = {"task": "quadratic", "method": "robust_gd", "rule": "mean", "rounds": 30, "lr": 0.3, "n": 10, "f": 2}
BAD = SPEC | {"attack": {"name": "ipm", "scale": 10.0}}


def ended(*losses: float, status: Status = Status.COMPLETED, first: int = 0) -> Outcome:
    records = tuple({"t": first + t, "loss": loss} for t, loss in enumerate(losses))
    return Outcome(status, len(losses), 0.0, records)


@pytest.mark.parametrize(
    "outcome, risen",
    [
        (ended(1.0, 1e5), True),
        (ended(1.0, 2.0, 0.5), False),
        (ended(1.0, 1.005), False),  # less than a hundredth
        (ended(1.0, 1.02), True),
        (ended(-2.0, -1.0), True),
        (ended(-1.0, -2.0), False),
        (ended(0.0, 0.0), False),
        (ended(0.0, 1e-9), True),
        (ended(1.0), False),  # the start alone
        (ended(1.0, 1e5, first=3), False),  # the start was not measured
        (ended(1.0, 1e5, status=Status.CONVERGED), True),
        (ended(1.0, 1e5, status=Status.DIVERGED), False),  # has said so already
        (ended(1.0, 1e5, status=Status.INTERRUPTED), False),  # has not ended
        (Outcome(Status.COMPLETED, 2, 0.0, ({"t": 0, "gap": 1.0}, {"t": 2, "gap": 2.0})), False),
    ],
)
def test_an_end_above_the_start_is_told_from_one_below(outcome, risen):
    assert (outcome.risen is not None) == risen
    assert outcome.ending == f"{outcome.status}{', worse than start' if risen else ''}"
    assert f"Outcome({outcome.ending}, " in repr(outcome)


def test_a_run_that_ends_worse_than_it_began_says_so_wherever_it_is_looked_at(here, byzopt):
    (here / "bad.toml").write_text("".join(f"{k} = {_toml(v)}\n" for k, v in BAD.items()))
    said = byzopt("run", "bad.toml", "--out", "out")
    assert said.status == 0
    assert "worse than start" in said.out
    assert "the starting point is the better answer" in said.out
    assert said.out.splitlines()[-1] == "Worse at the end than at the start"
    again = json.loads(byzopt("run", "bad.toml", "--out", "out", "--json").out)  # read back as it was stored
    assert again["status"] == "completed"
    assert again["worse_than_start"] is True


def test_a_run_that_gets_somewhere_is_not_called_worse(tmp_path):
    result = run(Spec.of(BAD | {"rule": "nnm >> rfa"}), out=tmp_path / "out")
    assert not result.main.risen
    assert not tables.last_line(result.outcomes)
    assert result_data(result, tmp_path)["worse_than_start"] is False
    assert "worse" not in curves._label(MAIN, tables.PlainSpec(result.spec.data), result.main)


def test_runs_that_were_stored_before_tell_it_too():
    outcome = ended(1.0, 1e5)
    assert outcome_of_summary(outcome_summary(outcome), outcome.records).risen == (1.0, 1e5)


def test_the_plot_of_a_run_that_got_nowhere_is_labelled():
    plain = tables.PlainSpec(Spec.of(BAD).data)
    assert curves._label(MAIN, plain, ended(1.0, 9.0)).endswith("(completed, worse than start)")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


DOUBTFUL = {
    "more attackers than are tolerated": {"attackers": 4},
    "a rule that trusts a liar": {"rule": "fltrust", "attackers": [0]},
    "noise that drowns all": {"method": {"name": "safe_dshb", "epsilon": 0.01}},
    "noise in differences": {"method": {"name": "clip21", "epsilon": 0.01}},
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_python_warns_of_what_cannot_work_as_the_command_does(name):
    spec = Spec.of(BAD | {"rounds": 2} | DOUBTFUL[name])
    with pytest.warns(DoubtfulSetting) as told:
        run(spec)
    (sentence,) = {str(one.message) for one in told}
    assert len(told) == 1
    assert told[0].filename == __file__
    task = Quadratic().build(spec.cohort, 0)
    with pytest.warns(DoubtfulSetting) as said:
        simulate(task, spec.rule, 0.3, 2, 2, spec.method, spec.attack)
    assert [str(one.message) for one in said] == [sentence]


def test_python_warns_of_a_graph_that_does_not_bear_what_is_asked_of_it():
    spec = load("byz-nsgdm/quartic", compare=False)
    data = {k: v for k, v in spec.data.items() if k != "rule"} | {
        "rounds": 2,
        "eval_every": 1,
        "f": 1,
        "attackers": 1,
    }
    ring = Spec.of(data | {"graph": {"topology": "ring", "mixer": "gossip"}, "method": "robust_gd"})
    with pytest.warns(DoubtfulSetting, match="neighbours"):
        run(ring)


def test_settings_that_can_work_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Spec.of(BAD | {"rounds": 2}))
        run(Spec.of(BAD | {"rounds": 2, "method": {"name": "safe_dshb", "noise_multiplier": 0.01}}))


def test_noise_is_measured_by_what_a_batch_leaves_of_it():
    task = {"name": "digits", "model": "linear", "batch": 16, "partition": "iid"}
    method = {"name": "safe_dshb", "epsilon": 20.0, "delta": 1e-4}
    spec = {"task": task, "rule": "median", "rounds": 2, "lr": 0.1, "n": 20, "f": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Spec.of(spec | {"method": method | {"per": "sample"}}))
    with pytest.warns(DoubtfulSetting, match="little but noise is left"):
        run(Spec.of(spec | {"method": method}))


@pytest.mark.parametrize("rule", ["lasa", "nnm >> lasa", "fail_closed(rule='lasa')"])
def test_a_rule_by_layers_without_them_is_told_of(rule):
    task = Digits(model="linear").build(Cohort.of(10, 2), 0)
    with pytest.warns(DoubtfulSetting, match=r"layers=\[640, 10\]"):
        simulate(task, rule, 0.1, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(task, "lasa(layers=[640, 10])", 0.1, 1, 2)


SPELLINGS = {
    "gas(median)": "write gas(rule='median')",
    "gas(rule=median)": "write gas(rule='median')",
    "gas(nnm >> krum)": "write gas(rule='nnm >> krum')",
    "rlr(rule=krum, threshold=2)": "write rlr(rule='krum')",
    "krum(3)": "write krum(f=3)",
    "nnm(3) >> krum": "write nnm(f=3)",
    "rfa(start=bulk)": "write start='bulk'",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_rule_that_is_nearly_spelled_right_is_shown_how_to(text):
    with pytest.raises(InvalidInput) as refused:
        rule_from(text, f=2)
    assert SPELLINGS[text] in str(refused.value)


def test_what_is_shown_can_be_spelled():
    for text in SPELLINGS.values():
        if "'" in text and "start" not in text:
            rule_from(
                text.removeprefix("write ").replace("krum')", "krum', threshold=2)")
                if "rlr" in text
                else text[6:],
                f=2,
            )


@pytest.mark.parametrize("attack", [Backdoor(), DBA()])
@pytest.mark.parametrize(
    "shape, said",
    [
        ((5, 3 * 8 * 8), "as of 3 x 8 x 8 pixels laid flat"),
        ((5, 7), "7 values in a row, which is no side x side"),
        ((5, 1, 4, 6), "Cut the images to squares"),
    ],
)
def test_samples_that_are_no_square_images_are_named_for_what_they_are(attack, shape, said):
    with pytest.raises(InvalidInput, match=f"The samples of {attack.name} should be square") as refused:
        attack.triggered(torch.ones(shape))
    assert said in str(refused.value)


def test_square_images_of_all_kinds_get_the_trigger():
    for shape in [(5, 64), (5, 8, 8), (5, 3, 8, 8)]:
        marked = Backdoor(size=1).triggered(torch.arange(float(np.prod(shape))).reshape(shape))
        assert marked.shape == shape
        assert (marked.flatten(1)[:, -1] == marked.max()).all()


def test_a_folder_that_is_no_set_of_images_is_named_and_not_what_lies_in_it(here):
    for name in ("docs", "src"):
        (here / name).mkdir()
        (here / name / "notes.md").write_text("x")
    with pytest.raises(InvalidInput, match="should be a folder that holds a folder of images for each class"):
        DataSet(data=".").build(Cohort.of(4, 1), 0)


@pytest.fixture
def samples(here):
    """A data set in a file, and a spec on it."""

    def write(seed: int) -> None:
        drawn = np.random.default_rng(seed)
        np.savez(here / "own.npz", x=drawn.normal(size=(60, 4)).astype("float32"), y=np.arange(60) % 2)

    write(0)
    data = {"name": "data_set", "data": "own.npz", "model": "linear", "batch": 8}
    return write, {"task": data, "rule": "median", "rounds": 6, "lr": 0.1, "n": 5, "f": 1, "eval_every": 1}


def test_a_wrong_digest_is_told_from_one_that_is_none(samples):
    task = samples[1]["task"] | {"digest": "abc"}
    with pytest.raises(InvalidInput, match="no sha256, which has 64 hexadecimal digits") as refused:
        run(Spec.of(samples[1] | {"task": task}))
    right = str(refused.value).split('digest = "')[1].split('"')[0]
    assert run(Spec.of(samples[1] | {"task": task | {"digest": right}})).status is Status.COMPLETED


def test_a_run_on_data_that_were_edited_is_neither_gone_on_with_nor_shown(samples, here):
    write, data = samples
    spec = Spec.of(data)
    assert run(spec, out="begun", on_round=lambda name, t: t == 3).interrupted
    run(spec, out="done")
    write(1)
    for place in ("begun", "done"):
        with pytest.raises(ChangedFile, match=r"another own\.npz, with 1\d{3} bytes, sha256"):
            run(spec, out=place)
    assert run(spec, out="done", fresh=True).status is Status.COMPLETED
    assert run(spec, out="done").status is Status.COMPLETED
    write(0)  # the old content is back
    result = run(spec, out="begun")
    whole = run(spec, out="whole")
    assert result.main.records == whole.main.records
    (here / "own.npz").unlink()
    assert run(spec, out="whole").main.records == whole.main.records  # a result needs no data


def test_a_file_that_only_looks_newer_is_the_same(samples):
    write, data = samples
    run(Spec.of(data), out="done")
    write(0)
    assert run(Spec.of(data), out="done").status is Status.COMPLETED


def test_a_sweep_refuses_a_store_of_runs_on_other_data(samples):
    write, data = samples
    sweep = Sweep(spec=data, grid={"seed": [0, 1]})
    run_sweep(sweep, "store", jobs=0)
    write(1)
    with pytest.raises(ChangedFile, match="in the store store should be of the data"):
        run_sweep(sweep, "store", jobs=0)
    write(0)
    assert run_sweep(sweep, "store", jobs=0).finished


def test_a_sweep_that_was_stopped_does_not_go_on_with_other_data(samples):
    write, data = samples
    sweep, rounds = Sweep(spec=data, grid={"seed": [0, 1]}), iter(range(99))
    run_sweep(sweep, "store", jobs=0, stopped=lambda: next(rounds) > 2)
    write(1)
    with pytest.raises(ChangedFile, match="The checkpoint"):
        run_sweep(sweep, "store", jobs=0)


MISTAKES = {  # what is wrong in a spec's file -> how the refusal begins
    "lr = -1": "In my.toml: The step scale `lr`",
    "lrr = 1": "In my.toml: Unknown key 'lrr'",
    'rule = "medain"': "In my.toml: Unknown rule",
    'task = {name = "quadratic", dd = 3}': "In my.toml, in task 'quadratic': Unknown key",
    'attack = "ipn"': "In my.toml: Unknown attack",
    "[compare.x]\nf = 9": "In variant 'x' of my.toml: ",
    '[compare.x]\nrule = "krumm"': "In variant 'x' of my.toml: Unknown rule",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_refusal_names_the_file_that_it_is_about(line, here):
    key = line.partition(" ")[0]
    spec = {"task": '"quadratic"', "rule": '"mean"', "rounds": "2", "lr": "0.1", "n": "5", "f": "1"}
    lines = [f"{k} = {v}" for k, v in spec.items() if k != key]
    (here / "my.toml").write_text("\n".join([*lines, line]))
    with pytest.raises(InvalidInput) as refused:
        load("my.toml")
    assert str(refused.value).startswith(MISTAKES[line])


def test_a_refusal_names_the_settings_beside_the_file(here):
    with pytest.raises(InvalidInput, match="In byz-nsgdm/digits with lr=-1: The step scale"):
        load("byz-nsgdm/digits", ["lr=-1"])
    with pytest.raises(UnknownName, match=r"In byz-nsgdm/digits with seed=1, x{92}\.\.\.: Unknown key"):
        load("byz-nsgdm/digits", ["seed=1", f"{'x' * 200}=1"])


def test_a_sweep_names_its_file(here, byzopt):
    (here / "a.toml").write_text('task = "quadratic"\nrule = "mean"\nrounds = 2\nlr = -1\nn = 5\nf = 1\n')
    (here / "s.toml").write_text('base = "a.toml"\ngrid = {seed = [0]}\n')
    said = byzopt("sweep", "s.toml", "--dry-run")
    assert said.status == 2
    assert said.err.startswith("byzopt: error: Sweep s.toml: At seed = 0: ")


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: run(SPEC), "made by Spec.of"),
        (lambda: run(5), "be the path of a TOML file, or a preset's name"),
        (lambda: run(Spec.of(SPEC), out=5), "`out` of run should be the path"),
        (lambda: run(Spec.of(SPEC), on_record=5), "`on_record` of run should be a function"),
        (lambda: run(Spec.of(SPEC), on_round="x"), "`on_round` of run should be a function"),
        (lambda: Spec.of(None), "The data of the spec should be a table"),
        (lambda: Spec.of([SPEC]), "The data of the spec should be a table"),
        (lambda: load("byz-nsgdm/quartic", "rounds=3"), "Give a list of texts"),
        (lambda: load("byz-nsgdm/quartic", {"rounds": 3}), "Give a list of texts"),
    ],
)
def test_values_of_another_kind_are_refused_in_a_sentence(call, said):
    with pytest.raises(InvalidInput) as refused:
        call()
    assert said in str(refused.value)


def test_a_component_in_the_place_of_a_kind_is_found(byzopt):
    said = byzopt("list", "krum")
    assert said.status == 2
    assert "'krum' is one of `byzopt list rules`." in said.err
    assert "is one of" not in byzopt("list", "krumm").err
