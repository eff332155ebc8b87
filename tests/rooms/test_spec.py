"""Specs: strict decoding, overrides, presets, canonical data and its id."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from byzopt.aggregators import NNM, Krum, Mean
from byzopt.attacks import ALIE, BitFlip
from byzopt.errors import InvalidInput, UnknownName
from byzopt.experiments import Spec, load
from byzopt.experiments.specs.loading import presets
from byzopt.experiments.specs.overrides import apply_settings, merge
from byzopt.experiments.specs.toml import dumps
from byzopt.methods import ByzNSGDM
from byzopt.schedules import Constant
from byzopt.tasks import Quartic

BASE = {"task": "quartic", "rule": "nnm >> krum", "attack": "bit_flip", "rounds": 10, "lr": 0.1}


def changed(*settings: str, **more: object) -> Spec:
    return Spec.of(apply_settings(BASE | more, settings))


def test_a_table_and_python_describe_the_same_spec():
    spec = Spec(Quartic(), NNM(f=3) >> Krum(f=3), ByzNSGDM(), BitFlip(), rounds=10, lr=0.1)
    assert spec == Spec.of(BASE)
    assert spec.id == Spec.of(BASE).id


def test_the_spec_s_f_fills_what_the_rule_leaves_out_and_nothing_else():
    assert changed("f=2").rule == NNM(f=2) >> Krum(f=2)
    assert changed("f=2", rule="nnm(f=4) >> krum").rule == NNM(f=4) >> Krum(f=2)


def test_an_integer_is_fine_where_a_float_is_wanted():
    assert changed("lr=1").lr == 1.0
    assert changed("lr=1").id == changed("lr=1.0").id


@pytest.mark.parametrize(
    "key, value",
    [
        ("rounds", 0),
        ("rounds", True),
        ("rounds", 10.0),
        ("rounds", "many"),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", -1),
        ("lr", 0),
        ("lr", True),
        ("f", 9),
        ("f", 12),
        ("f", -1),
        ("f", True),
        ("f", "x"),
        ("n", 0),
        ("n", 4),
        ("seed", 0.5),
        ("attackers", 20),
        ("attackers", [1, 1]),
        ("attackers", [25]),
        ("attackers", True),
        ("attackers", "all"),
        ("eval_every", 0),
        ("rule", "krum >> nnm"),
        ("rule", 3),
        ("task", {"d": 3}),
        ("stop", {"loss": "low"}),
        ("stop", {"loss": float("nan")}),
        ("compare", 3),
        ("compare", {"x": 3}),
        ("compare", {"main": {"lr": 0.2}}),
        ("compare", {"x": {"compare": {}}}),
        ("compare", {"x": {"lr": -1}}),
        ("method", {"name": "byz_nsgdm", "eta": True}),
    ],
)
def test_what_is_out_of_range_or_of_a_wrong_type_is_refused(key, value):
    with pytest.raises(InvalidInput):
        Spec.of(BASE | {key: value})


@pytest.mark.parametrize("key", ["task", "rule", "rounds", "lr"])
def test_what_has_no_default_is_required(key):
    with pytest.raises(InvalidInput, match=f"'{key}' is required"):
        Spec.of({k: v for k, v in BASE.items() if k != key})


@pytest.mark.parametrize(
    "setting, near",
    [
        ("round=3", "rounds"),
        ("taks.d=3", "task"),
        ("task.noise_varianc=0", "noise_variance"),
        ("method.ta=0.1", "eta"),
        ("attack=bit_flop", "bit_flip"),
        ("rule=nnm >> krumm", "krum"),
        ("task=quarticc", "quartic"),
        ("compare.x.metod.eta=1", "method"),
    ],
)
def test_unknown_keys_and_names_are_refused_with_a_near_one(setting, near):
    with pytest.raises(UnknownName, match=f"Did you mean.*'{near}'"):
        changed(setting)


def test_a_spec_without_a_data_seed_keeps_the_id_that_it_had():
    assert "data_seed" not in Spec.of(BASE).data
    # As `Spec.of(BASE).id` was before there was such a key.
    assert Spec.of(BASE).id == "00fd370184cce4e5"
    assert changed("data_seed=0").id != Spec.of(BASE).id
    assert Spec.of(changed("data_seed=3").data).id == changed("data_seed=3").id


@pytest.mark.parametrize("value", [-1, 0.5, True, "x"])
def test_a_data_seed_is_a_whole_number(value):
    with pytest.raises(InvalidInput, match="data_seed"):
        Spec.of(BASE | {"data_seed": value})


def test_a_setting_is_read_as_toml_and_else_as_text():
    assert changed("method.eta=0.05").method == ByzNSGDM(eta=0.05)
    assert changed("attack.name=alie").attack == ALIE()
    assert changed('attack={name = "alie", z = 2}').attack == ALIE(z=2)
    assert changed("attackers=[0, 5]").attackers == (0, 5)
    assert changed('rule="mean"').rule == changed("rule=mean").rule == Mean()
    assert changed("method.schedule=constant").method == ByzNSGDM(schedule=Constant())


def test_attacks_whose_names_are_toml_numbers_can_be_set():
    assert changed("attack=nan").attack.name == "nan"
    assert changed("attack.name=inf").attack.name == "inf"
    assert changed("compare.x.attack=nan").compare["x"].attack.name == "nan"


def test_another_name_drops_the_keys_of_the_old_component():
    alie = {"name": "alie", "z": 2.0}
    assert changed("attack.name=bit_flip", attack=alie).attack == BitFlip()
    assert changed("attack=bit_flip", attack=alie).attack == BitFlip()
    assert changed("attack.name=alie", attack=alie).attack == ALIE(z=2.0)


def test_a_name_is_set_before_its_keys_in_any_order_of_settings():
    for settings in (("attack.z=2", "attack=alie"), ("attack=alie", "attack.z=2")):
        assert changed(*settings).attack == ALIE(z=2.0)


def test_the_last_of_equal_settings_wins():
    assert changed("lr=1", "lr=2").lr == 2.0


@pytest.mark.parametrize("setting", ["lr", "=3", "a b=3", "lr.=3", ""])
def test_a_setting_without_a_key_is_refused(setting):
    with pytest.raises(InvalidInput, match="key=value"):
        changed(setting)


def test_keys_of_a_chain_cannot_be_set_one_by_one():
    with pytest.raises(InvalidInput, match="as a whole"):
        changed("rule.f=2")


def test_overrides_leave_what_they_are_given_alone():
    data = {"task": {"name": "quartic", "d": 3}}
    assert apply_settings(data, ["task.d=4"])["task"]["d"] == 4
    assert merge(data, {"task": {"d": 5}})["task"] == {"name": "quartic", "d": 5}
    assert data == {"task": {"name": "quartic", "d": 3}}


def test_variants_are_the_spec_with_their_overrides():
    spec = changed("lr=0.5", compare={"plain": {"rule": "mean", "attackers": 0, "method": {"eta": 1.0}}})
    plain = spec.compare["plain"]
    assert (plain.rule, plain.cohort.byzantine, plain.method) == (Mean(), (), ByzNSGDM(eta=1.0))
    assert (plain.lr, plain.attack, spec.rule) == (0.5, BitFlip(), NNM(f=3) >> Krum(f=3))


def test_attackers_may_be_named_and_differ_in_number_from_f():
    assert changed("attackers=[0, 5]").cohort.byzantine == (0, 5)
    assert changed("attackers=5").cohort.byzantine == (15, 16, 17, 18, 19)
    assert changed("attackers=0").cohort.byzantine == ()
    assert changed("f=2").cohort.byzantine == (18, 19)


VARIED = {
    "a b": {"rule": "mean", "attack": {"name": "alie", "z": 2.0}},
    "c": {"stop": {"loss": 1e-3}, "f": 2, "method": "robust_sgdm"},
}


def test_canonical_data_and_its_toml_text_describe_the_same_spec():
    spec = changed("stop.grad_norm=1e-3", compare=VARIED)
    assert Spec.of(spec.data).data == spec.data
    assert tomllib.loads(dumps(spec.data)) == spec.data


def test_the_id_depends_on_what_is_said_and_not_on_how():
    spelled = {"name": "quartic", "d": 10}
    assert changed(task=spelled).id == changed().id
    assert Spec.of(dict(reversed(BASE.items()))).id == changed().id
    ids = {changed(s).id for s in ("seed=0", "seed=1", "lr=0.2", "attackers=1", "compare.x.lr=1", "task.d=3")}
    assert len(ids) == 6


def test_the_id_is_the_same_in_another_process():
    code = f"from byzopt import Spec; print(Spec.of({BASE!r}).id)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == Spec.of(BASE).id


def test_every_preset_decodes_and_says_what_it_is():
    found = presets()
    assert {f"byz-nsgdm/{name}" for name in ("digits", "quartic", "mnist", "shakespeare")} <= set(found)
    for name, text in found.items():
        assert text
        assert load(name, ["attack.name=alie", "seed=7", "f=2"]).seed == 7


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="byz-nsgdm/digits"):
        load("byz-nsgdm/digit")
    with pytest.raises(InvalidInput, match="no file"):
        load(tmp_path / "none.toml")
    with pytest.raises(InvalidInput, match="readable"):
        load(tmp_path)
    for content in (b"n = ", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(InvalidInput, match="valid TOML"):
            load(tmp_path / "bad.toml")
