"""Parts in users' own files: in specs, sweeps and commands; identity, trust, errors by file and line."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from byzopt import Attack, Quartic, Spec, load, run, simulate
from byzopt.aggregators import GeometricRule, Krum, rule_from
from byzopt.attacks import ATTACKS
from byzopt.certificates.breaking.report import rule_spelling
from byzopt.cohort import Cohort
from byzopt.errors import ChangedFile, InvalidInput, UnknownName
from byzopt.experiments.specs.overrides import parse_setting
from byzopt.experiments.store.table import rows
from byzopt.experiments.sweeps import Sweep, load_sweep, plan_sweep, run_sweep
from byzopt.methods import METHODS
from byzopt.own_files import UserError, no_user_code
from byzopt.tasks import TASKS
from byzopt.wire import COMPRESSORS

PARTS = '''\
"""Parts of somebody's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from byzopt import Attack, ModuleTask, Task
from byzopt.aggregators import RULES, GeometricRule, PreAggregator
from byzopt.engines import Engine, Exchange
from byzopt.methods import Method, MethodRecipe
from byzopt.servers import Descent
from byzopt.tasks.quartic import Quartic
from byzopt.wire import EF21, Compressor, Direct
from byzopt.workers import Plain
from helper import WIDTH

open(Path(__file__).with_name("ran"), "a").close()


def make_task(cohort, seed, *, width: int = WIDTH, samples=8) -> Task:
    """Linear regression on noise."""
    from helper import noise

    data = [(noise(samples, width, seed, i), noise(samples, 1, seed, -i - 1)) for i in range(cohort.n)]
    model, loss = torch.nn.Linear(width, 1), torch.nn.functional.mse_loss
    return ModuleTask(model, loss, data, byzantine=cohort.byzantine, batch=4)


@dataclass(frozen=True)
class Even(GeometricRule):
    """Every row alike."""

    f: int
    share: float = 1.0

    def weights(self, geometry):
        return torch.full((geometry.m,), self.share / geometry.m, dtype=torch.float64)


@RULES.register("a_name_of_its_own")
@dataclass(frozen=True)
class Named(Even):
    """Even, with a name for plugins."""


@dataclass(frozen=True)
class Far(Attack):
    """Rows of one large number."""

    scale: float = 10.0

    def forge(self, view, generator):
        return view.like.fill_(self.scale)


@dataclass(frozen=True)
class Signs(Compressor):
    """The longest magnitude by d, with signs."""

    scope: str = "global"

    def compress(self, rows, noise):
        return (rows.abs().amax(dim=-1, keepdim=True) / rows.shape[-1]).copysign(rows)

    def alpha(self, d):
        return 1 / d**2

    def size(self, d, width=32):
        return d + width


@dataclass(frozen=True)
class Squeezed(MethodRecipe):
    """Gradient descent on compressed differences."""

    compressor: Compressor = Signs()

    def build(self, rule, lr, rounds=None):
        return Method(Plain(), EF21(self.compressor), rule.as_filter(), Descent(lr))


class InTurn(Engine):
    def __init__(self, task, bits: float = 32.0):
        self.task, self.bits = task, bits

    @property
    def n(self):
        return self.task.n

    def exchange(self, state, x, t, defence, last=None):
        return Exchange(self.task.grads(x, self.task.draw(t)), 1.0, self.bits * len(x)), state
'''
HELPER = """\
import torch

WIDTH = 3


def noise(rows, columns, *seed):
    generator = torch.Generator().manual_seed(hash(seed) % 2**31)
    return torch.randn(rows, columns, generator=generator)
"""
SPEC = """\
n = 8
f = 2
rounds = 6
lr = 0.01
rule = "nnm >> ../parts/own.py:Even(share=0.5)"
method = {name = "../parts/own.py:Squeezed"}

[task]
name = "../parts/own.py:make_task"
width = 4

[attack]
name = "../parts/own.py:Far"
scale = 3

[compare.usual]
rule = "krum"
attack = {scale = 1.0}
"""


@pytest.fixture
def place(here):
    """`parts/own.py` with a helper beside it, and `specs/spec.toml`, which names it."""
    for path, text in {"parts/own.py": PARTS, "parts/helper.py": HELPER, "specs/spec.toml": SPEC}.items():
        (here / path).parent.mkdir(exist_ok=True)
        (here / path).write_text(text)
    return here


@pytest.fixture
def own(place):
    return str(place / "parts" / "own.py")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# Specs.


def test_a_spec_names_parts_of_every_kind_relative_to_itself(place):
    spec = load(place / "specs" / "spec.toml")
    assert spec.data["task"] == {
        "name": "own.py:make_task",
        "source": spec.data["attack"]["source"],
        "width": 4,
        "samples": 8,
    }
    assert Spec.of(spec.data).data == spec.data
    assert spec.attack.scale == 3.0
    assert spec.variants()["usual"].attack.scale == 1.0
    done = run(spec)
    assert done.status == "completed"
    assert done.compare["usual"].metrics["loss"] != done.metrics["loss"]


def test_they_are_told_apart_by_their_code_and_not_by_where_they_lie(place, tmp_path):
    first = load(place / "specs" / "spec.toml")
    (place / "moved").mkdir()
    for name in ("parts", "specs"):
        (place / name).rename(place / "moved" / name)
    moved = load(place / "moved" / "specs" / "spec.toml")
    assert moved.data["task"]["source"]["path"] != first.data["task"]["source"]["path"]
    assert moved.id == first.id
    edit(place / "moved/parts/helper.py", "WIDTH = 3", "WIDTH = 4")
    after_helper = load(place / "moved" / "specs" / "spec.toml")
    edit(place / "moved/parts/own.py", "self.share / geometry.m", "self.share / (geometry.m + 1)")
    after_both = load(place / "moved" / "specs" / "spec.toml")
    (place / "moved/parts/unrelated.py").write_text("x = 1\n")
    assert len({first.id, after_helper.id, after_both.id}) == 3
    assert load(place / "moved" / "specs" / "spec.toml").id == after_both.id
    assert run(after_helper).metrics != run(after_both).metrics


def test_in_settings_they_are_relative_to_the_working_directory(own, place):
    (path, value) = parse_setting("rule=nnm >> parts/own.py:Even")
    assert (path, value) == (["rule"], ["nnm", own + ":Even"])
    spec = load("byz-nsgdm/digits", ["attack=parts/own.py:Far", "attack.scale=2", "rule=parts/own.py:Even"])
    assert (spec.attack.scale, type(spec.rule).__name__, spec.rule.f) == (2.0, "Even", 3)


@pytest.mark.parametrize(
    "spelling",
    ["{}:Even", "nnm >> {}:Even", "nnm>>'{}:Even'(f=1)", "fail_closed(rule='{}:Even')",
     "fail_closed(rule='nnm >> {}:Even(f=2)')", ["nnm", {"name": "{}:Even", "f": 1}]],
    ids=str,
)  # fmt: skip
def test_rules_are_spelled_in_every_way(spelling, own):
    text = json.loads(json.dumps(spelling).replace("{}", own))
    rule = rule_from(text, f=2)
    assert "Even" in repr(rule)
    assert rule(torch.ones(7, 3)).shape == (3,)


def test_a_path_may_hold_spaces(own, place):
    (place / "with space").mkdir()
    for name in ("own.py", "helper.py"):
        (place / "with space" / name).write_text((place / "parts" / name).read_text())
    assert type(rule_from(f"nnm >> '{place}/with space/own.py:Even'", f=1).rule).__name__ == "Even"
    spelled = SPEC.replace("../parts/own.py:Even(", "'../with space/own.py:Even'(")
    (place / "specs" / "spec.toml").write_text(spelled)
    assert run(load(place / "specs" / "spec.toml")).status == "completed"


def test_an_engine_and_a_compressor_in_a_file(own):
    data = {
        "task": f"{own}:make_task",
        "n": 8,
        "f": 2,
        "attackers": 0,
        "rule": "krum",
        "rounds": 5,
        "lr": 0.01,
    }
    spec = Spec.of(data | {"method": "robust_gd", "engine": {"name": f"{own}:InTurn", "bits": 1}})
    assert run(spec).metrics["bits"] == 5 * 4
    method = {"name": "byz_ef21", "compressor": f"{own}:Signs"}
    assert run(Spec.of(data | {"method": method})).metrics["bits"] == 5 * (32 + 4)


def test_a_class_that_registers_a_name_in_its_file_keeps_out_of_the_registry(own):
    assert type(rule_from(f"{own}:Named", f=1)).__name__ == "Named"
    with pytest.raises(UnknownName):
        rule_from("a_name_of_its_own", f=1)


# Functions that make tasks.


def file(place, text, name="mine.py"):
    (place / name).write_text(text)
    return str(place / name)


def test_a_functions_parameters_are_strict_keys(own, here):
    recipe = TASKS.build({"name": f"{own}:make_task", "width": 5})
    assert (recipe.width, recipe.samples) == (5, 8)
    assert recipe == TASKS.build({"name": f"{own}:make_task", "width": 5})
    assert hash(recipe) == hash(TASKS.build({"name": f"{own}:make_task", "width": 5}))
    for wrong, message in [
        ({"widht": 5}, "Did you mean 'width'"),
        ({"width": "5"}, "`width` should be a whole number"),
        ({"width": float("nan")}, "`width` should be a finite number"),
        ({"seed": 3}, "Unknown key 'seed'"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            TASKS.build({"name": f"{own}:make_task", **wrong})


@pytest.mark.parametrize(
    ("signature", "message"),
    [("**options", "each have a name"), ("*options", "each have a name"), ("name", "not be called")],
)
def test_parameters_that_a_table_cannot_set_are_refused(signature, message, here):
    path = file(here, f"def make({signature}):\n    pass\n")
    with pytest.raises(InvalidInput, match=message):
        TASKS.build(f"{path}:make")


def test_values_may_be_lists_and_keys_required(here):
    text = "from byzopt import Quartic\ndef make(cohort, sizes: list[int], seed=0, extra=[1]):\n"
    path = file(
        here, text + "    extra.append(len(sizes))\n    return Quartic(d=sum(sizes)).build(cohort, seed)\n"
    )
    with pytest.raises(InvalidInput, match="'sizes' is required"):
        TASKS.build(f"{path}:make")
    recipe = TASKS.build({"name": f"{path}:make", "sizes": [2, 3]})
    for _ in range(2):
        assert recipe.build(Cohort.of(4), 0).layout.d == 5
    assert recipe.extra == [1]
    assert hash(recipe) == hash(TASKS.build({"name": f"{path}:make", "sizes": [2, 3]}))


def test_what_it_returns_is_looked_at(here):
    text = "from byzopt import Cohort, Quartic\ndef none(): ...\ndef recipe(): return Quartic(d=2)\n"
    path = file(here, text + "def few(): return Quartic().build(Cohort.of(3), 0)\n")
    with pytest.raises(InvalidInput, match=r"`none` should return a Task\. Found None"):
        TASKS.build(f"{path}:none").build(Cohort.of(4), 0)
    with pytest.raises(InvalidInput, match=r"have the spec's workers, n = 4, Byzantine \[3\]. Found n = 3"):
        TASKS.build(f"{path}:few").build(Cohort.of(4, 1), 0)
    assert TASKS.build(f"{path}:recipe").build(Cohort.of(4), 0).layout.d == 2


def test_what_it_draws_follows_from_the_seed_alone(own):
    recipe = TASKS.build(f"{own}:make_task")
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    starts = [recipe.build(Cohort.of(4), seed).start() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_task_class_is_a_recipe_too(here):
    text = (
        "from byzopt.tasks.quartic import QuarticTask\nimport torch\nclass Own(QuarticTask):\n"
        "    tested = False\n    def __init__(self, cohort, seed, d: int = 3):\n"
        "        super().__init__(cohort, d, 0.0, torch.zeros(cohort.n, d).double(), seed)\n"
    )
    recipe = TASKS.build({"name": f"{file(here, text)}:Own", "d": 5})
    assert not recipe.tested
    assert recipe.build(Cohort.of(4), 0).start().shape == (5,)


# Objects in Python.


@dataclass(frozen=True)
class Middle(GeometricRule):
    """All rows alike."""

    f: int = 1

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


class Sharper(Krum):
    """Has a registered name above it, and is another rule."""


@dataclass(frozen=True)
class Nothing(Attack):
    """Rows of zeros."""

    def forge(self, view, generator):
        return view.like.zero_()


def small(cohort, seed, d: int = 4):
    return Quartic(d=d).build(cohort, seed)


DATA = {"n": 8, "f": 2, "rounds": 5, "lr": 0.01, "method": "robust_gd"}


def test_specs_take_objects_and_their_code_is_in_the_identity():
    spec = Spec(task=small, rule=Middle(), attack=Nothing(), **DATA)
    assert spec.data["task"]["name"] == "test_own_files.py:small"
    assert spec.data["attack"] == {"name": "test_own_files.py:Nothing", "source": spec.data["task"]["source"]}
    again = Spec.of(DATA | {"task": {"name": small}, "rule": Middle, "attack": Nothing})
    assert again.data["rule"] == [spec.data["rule"][0] | {"f": 2}]
    assert Spec.of(spec.data).data == spec.data
    assert run(spec).status == "completed"
    wide = Spec.of(DATA | {"task": {"name": small, "d": 7}, "rule": ["nnm", Middle(3)], "attack": "none"})
    assert wide.task.build(wide.cohort, 0).layout.d == 7
    assert wide.data["rule"][1]["name"] == "test_own_files.py:Middle"


def test_a_class_below_a_registered_one_is_not_taken_for_it():
    usual, own = (Spec.of(DATA | {"task": "quartic", "rule": rule}) for rule in (Krum(2), Sharper(2)))
    assert own.data["rule"][0]["name"] == "test_own_files.py:Sharper"
    assert usual.id != own.id


def test_a_local_class_runs_and_cannot_be_found_again_elsewhere(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Local(Nothing):
        pass

    spec = Spec.of(DATA | {"task": "quartic", "rule": "krum", "attack": Local()})
    done = run(spec, out=tmp_path / "out")
    assert run(spec, out=tmp_path / "out").main.records == done.main.records
    monkeypatch.setattr("byzopt.own_files.origins._CLASSES", {})  # another process
    with pytest.raises(ChangedFile, match="give it again, in Python"):
        load(tmp_path / "out" / "spec.toml")


def test_code_that_nobody_can_tell_is_refused_where_it_has_to_be_told():
    scope = {}
    exec("from dataclasses import dataclass\nfrom byzopt import Attack\n"
         "@dataclass(frozen=True)\nclass Typed(Attack):\n"
         "    def forge(self, view, generator): return view.own\n", scope)  # fmt: skip
    typed = scope["Typed"]()
    task = Quartic().build(Cohort.of(8, 2), 0)
    assert simulate(task, "krum", 0.01, 5, 2, "robust_gd", attack=typed).status == "completed"
    with pytest.raises(InvalidInput, match="should be defined in a file"):
        _ = Spec.of(DATA | {"task": "quartic", "rule": "krum", "attack": typed}).id


def test_what_is_no_recipe_is_refused(here):
    path = file(here, "from dataclasses import dataclass\nfrom byzopt import Attack\nx = 1\ndef f(): ...\n"
                "class Loose(Attack):\n    def forge(self, view, generator): return view.own\n"
                "@dataclass(frozen=True)\nclass Open(Attack):\n    z: float = 1.0\n")  # fmt: skip
    for name, message in [
        ("x", "should be a class that extends Attack. Found 1"),
        ("f", "should be a class that extends Attack"),
        ("Loose", "be a frozen dataclass"),
        ("Open", r"write what its base class leaves open\. Found Open without forge"),
        ("missing", "Unknown part 'missing'"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            ATTACKS.build(f"{path}:{name}")
    with pytest.raises(UnknownName, match="should be named with a part of it"):
        ATTACKS.build(path)
    with pytest.raises(InvalidInput, match="no such file"):
        ATTACKS.build(f"{here}/none.py:x")
    with pytest.raises(InvalidInput, match="or a function that returns a Task"):
        TASKS.build(f"{path}:x")
    with pytest.raises(InvalidInput, match="A task should be a name"):
        Spec.of(DATA | {"task": Quartic().build(Cohort.of(8), 0), "rule": "krum"})


# What files import.


def test_local_imports_are_private_hashed_and_lazy(here):
    pack = here / "pack"
    (pack / "deep").mkdir(parents=True)
    (pack / "__init__.py").write_text("from . import one\nfrom .one import VALUE as RAISED\n")
    (pack / "one.py").write_text("from .deep.two import TWO\nVALUE = TWO + 1\n")
    (pack / "deep" / "two.py").write_text("TWO = 2\n")  # a folder without an __init__.py
    path = file(here, "import pack, pack.one as one\nfrom pack.deep import two\nfrom byzopt import Quartic\n"
                "import random\n\ndef make(cohort, d: int = pack.RAISED):\n    from late import LATE\n"
                "    assert (one.VALUE, two.TWO, random.x) == (3, 2, 5)\n"
                "    return Quartic(d=d + LATE).build(cohort, 0)\n")  # fmt: skip
    (here / "late.py").write_text("LATE = 10\n")
    (here / "random.py").write_text("x = 5\n")  # as for a script, what lies beside comes first
    recipe = TASKS.build(f"{path}:make")
    assert recipe.build(Cohort.of(4), 0).layout.d == 13
    import random
    import sys

    assert hasattr(random, "Random")
    assert "pack" not in sys.modules
    assert "late" not in sys.modules
    hashes = {Spec.of(DATA | {"task": f"{path}:make", "rule": "krum"}).data["task"]["source"]["sha256"]}
    for name in ("pack/deep/two.py", "pack/__init__.py", "late.py", "random.py"):
        (here / name).write_text((here / name).read_text() + "\n# edited\n")
        hashes.add(Spec.of(DATA | {"task": f"{path}:make", "rule": "krum"}).data["task"]["source"]["sha256"])
    assert len(hashes) == 5


def test_a_part_that_a_helper_defines_is_found_again(here):
    (here / "pack").mkdir()
    file(here / "pack", PARTS[: PARTS.index("def make_task")].replace("from helper import WIDTH", "")
         + PARTS[PARTS.index("@dataclass(frozen=True)\nclass Signs") :], "__init__.py")  # fmt: skip
    path = file(here, "from pack import Squeezed\n")
    spec = Spec.of(DATA | {"task": "quartic", "rule": "krum", "method": f"{path}:Squeezed"})
    assert spec.data["method"]["name"] == "mine.py:Squeezed"
    assert spec.data["method"]["compressor"]["name"] == "mine.py:pack.Signs"
    assert Spec.of(spec.data).data == spec.data
    assert Spec.of(spec.data).method == spec.method


@pytest.mark.parametrize("name", ["my.own-parts.py", "pack/__init__.py", "pack/inner.py"])
def test_a_file_may_be_called_anything_and_is_in_no_package(name, here):
    (here / "pack").mkdir()
    text = "from .size import SIZE\nimport size\nfrom byzopt import Quartic\n"
    path = file(here, text + "def make(cohort): return Quartic(d=SIZE + size.SIZE).build(cohort, 0)\n", name)
    file(Path(path).parent, "SIZE = 2\n", "size.py")
    assert TASKS.build(f"{path}:make").build(Cohort.of(4), 0).layout.d == 4


def test_files_of_one_name_live_side_by_side(here):
    for k in (1, 2):
        (here / str(k)).mkdir()
        file(here / str(k), f"SIZE = {k}\n", "size.py")
        file(here / str(k), "from byzopt import Quartic\nfrom size import SIZE\n"
             "def make(cohort): return Quartic(d=SIZE).build(cohort, 0)\n")  # fmt: skip
    for k in (1, 2):
        assert TASKS.build(f"{here}/{k}/mine.py:make").build(Cohort.of(4), 0).layout.d == k


# Stored runs.


def test_a_stored_spec_runs_again_and_not_with_other_code(place):
    path = place / "specs" / "spec.toml"
    first = run(path, out=place / "out")
    stored = place / "out" / "spec.toml"
    assert load(stored).id == load(path).id
    assert run(stored).metrics == first.metrics
    edit(place / "parts" / "helper.py", "WIDTH = 3", "WIDTH = 5")
    with pytest.raises(ChangedFile, match=r"own.py and what it imports .* Found other code"):
        load(stored)
    with pytest.raises(ChangedFile, match="the same spec with other code"):
        run(path, out=place / "out")
    (place / "parts" / "own.py").unlink()
    with pytest.raises(ChangedFile, match="should be there, because the run was made with it"):
        load(stored)


def test_a_run_goes_on_with_the_same_code_only(place):
    path = place / "specs" / "spec.toml"
    whole = run(path, out=place / "whole")
    assert run(path, out=place / "parts-of-it", on_round=lambda name, t: t == 3).interrupted
    edit(place / "parts" / "own.py", '"""Every row alike."""', '"""Every row, alike."""')
    with pytest.raises(ChangedFile):
        run(path, out=place / "parts-of-it")
    edit(place / "parts" / "own.py", '"""Every row, alike."""', '"""Every row alike."""')
    assert run(path, out=place / "parts-of-it").main.records == whole.main.records


def test_reading_a_store_runs_nobodys_code(place, byzopt):
    run(place / "specs" / "spec.toml", out=place / "store" / "one")
    trace = place / "parts" / "ran"
    edit(place / "parts" / "own.py", '"""Parts of', '"""The parts of')  # so that no module is there already
    trace.unlink()
    found = rows(place / "store").rows
    assert [row["task"] for row in found] == ["own.py:make_task"] * 2
    assert found[0]["rule"].startswith("nnm >> own.py:Even@")
    for words in (["query", "store"], ["report", "store", "--bound"]):
        byzopt(*words)
    other = Spec.of(DATA | {"task": "quartic", "rule": "krum"})
    with pytest.raises(InvalidInput, match="Choose another --out"):
        run(other, out=place / "store" / "one")
    assert not trace.exists()
    (place / "parts" / "own.py").unlink()
    assert len(rows(place / "store").rows) == 2


def test_names_from_a_network_are_not_followed(own):
    with no_user_code("a request"):
        for room, name in ((COMPRESSORS, "Signs"), (METHODS, "Squeezed"), (TASKS, "make_task")):
            with pytest.raises(InvalidInput, match="named in a request should come with byzopt or a plugin"):
                room.build(f"{own}:{name}")
        with pytest.raises(InvalidInput, match="named in a request"):
            METHODS.build({"name": "byz_ef21", "compressor": f"{own}:Signs"})
        with pytest.raises(InvalidInput, match="named in a request"):
            rule_from(f"nnm >> {own}:Even", f=1)


@pytest.mark.parametrize(
    "source", [3, {}, {"sha256": 3}, {"sha256": "x", "more": "y"}, {"path": "x"}], ids=str
)
def test_sources_of_another_shape_are_refused(source, own):
    with pytest.raises(InvalidInput):
        ATTACKS.build({"name": f"{own}:Far", "source": source})


# Sweeps.

SWEEP = """\
[spec]
task = {name = "../parts/own.py:make_task"}
method = "robust_gd"
n = 8
f = 2
rounds = 4
lr = 0.01

[grid]
rule = ["krum", "nnm >> ../parts/own.py:Even", {name = "../parts/own.py:Even", share = 0.5}]
attack = [{name = "../parts/own.py:Far", scale = 2.0}, "none"]
"""


@pytest.mark.slow
def test_sweeps_name_them_in_grids_and_play_them_in_processes(place):
    (place / "specs" / "sweep.toml").write_text(SWEEP)
    sweep = load_sweep(place / "specs" / "sweep.toml")
    here = run_sweep(sweep, place / "here", jobs=0)
    there = run_sweep(sweep, place / "there", jobs=1)
    assert here.counts == there.counts == {"completed": 6}
    for run_id in here.stored:
        one, other = (place / where / run_id / "records.parquet" for where in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()
    edit(place / "parts" / "own.py", "self.share / geometry.m", "self.share / (geometry.m + 1)")
    again = load_sweep(place / "specs" / "sweep.toml").expand().runs
    assert not {run.id for run in again} & set(here.stored)


def test_sweeps_take_objects():
    sweep = Sweep(
        spec=DATA | {"task": {"name": small, "d": 3}},
        grid={
            "rule": [Middle(2), Middle, "krum", rule_from("nnm >> krum", f=2)],
            "attack": [Nothing, "none"],
        },
    )
    runs = sweep.expand().runs
    assert len(runs) == 6  # `Middle(2)` and `Middle` are one: a spec's f fills it in
    json.dumps([run.point for run in runs])
    assert json.loads(json.dumps(sweep.data))["spec"]["task"]["name"] == "test_own_files.py:small"
    again = pickle.loads(pickle.dumps(runs))
    assert [run.spec.data for run in again] == [run.spec.data for run in runs]


def test_what_worker_processes_cannot_find_is_refused_before_any_work(tmp_path):
    @dataclass(frozen=True)
    class Local(Nothing):
        pass

    sweep = Sweep(spec=DATA | {"task": "quartic", "rule": "krum", "attack": Local}, grid={"seed": [0]})
    with pytest.raises(InvalidInput, match=r"Local.* jobs=0"):
        run_sweep(sweep, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert run_sweep(sweep, tmp_path / "store", jobs=0).counts == {"completed": 1}


@pytest.mark.slow
def test_a_file_that_is_edited_while_its_sweep_begins_ends_it_in_its_name(place):
    (place / "specs" / "sweep.toml").write_text(SWEEP)
    plan = plan_sweep(load_sweep(place / "specs" / "sweep.toml"), place / "store")
    edit(place / "parts" / "own.py", '"""Every row alike."""', '"""Every row, alike."""')
    with pytest.raises(ChangedFile, match=r"own.py and what it imports .* What has ended is stored"):
        run_sweep(plan, place / "store", jobs=1)


def test_the_example_runs():
    example = Path(__file__).resolve().parents[2] / "examples" / "own_parts" / "spec.toml"
    done = run(load(example, ["rounds=60"]))
    assert done.metrics["accuracy"] > 0.8 > done.compare["undefended mean"].metrics["accuracy"]


def test_an_error_in_one_run_of_a_sweep_names_its_file_and_line(place):
    edit(place / "parts" / "own.py", "return view.like.fill_(self.scale)", "return view.like.fill_(1 / 0)")
    (place / "specs" / "sweep.toml").write_text(SWEEP)
    swept = run_sweep(load_sweep(place / "specs" / "sweep.toml"), place / "store", jobs=0)
    failed = [one.message for one in swept.stored.values() if one.kind == "failed"]
    line = (place / "parts" / "own.py").read_text().split("\n").index(
        "        return view.like.fill_(1 / 0)"
    ) + 1
    assert len(failed) == 3
    assert all(f"own.py, line {line}: ZeroDivisionError: division by zero" in message for message in failed)


# Errors, and the commands.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class InTurn", "class In Turn", "SyntaxError"),
        ("open(Path(", "exit(3), open(Path(", "SystemExit: 3"),
        ("WIDTH\n\nopen", "WIDHT\n\nopen", "ImportError: cannot import name 'WIDHT'"),
        ("from helper", "from helpre", "ModuleNotFoundError: No module named 'helpre'"),
        ("    from helper import noise", "    raise OSError('no such thing')", "OSError: no such thing"),
        ("batch=4", "batch=400", "Parameter `batch` should be at most"),
        ("return view.like.fill_(self.scale)", "return self.nothing", "has no attribute 'nothing'"),
        ("self.share / geometry.m", "self.share / geometry.z", "has no attribute 'z'"),
        ("return Method(", "return Methot(", "NameError: name 'Methot' is not defined"),
        ("/ rows.shape[-1]", "/ rows.shape['x']", "TypeError"),
    ],
)  # fmt: skip
def test_errors_in_a_users_file_are_one_line_with_its_place(old, new, message, place, byzopt):
    path = place / "parts" / "own.py"
    line = path.read_text()[: path.read_text().index(old)].count("\n") + 1
    edit(path, old, new)
    done = byzopt("run", "specs/spec.toml", "--out", "out")
    assert done.status == 2
    told = [one for one in done.err.splitlines() if "error:" in one]
    assert len(told) == 1
    assert f"own.py, line {line}: " in told[0]
    assert message in told[0]
    assert "Traceback" not in done.err
    assert not (place / "out").exists()


def test_an_error_in_a_helper_names_the_helper(place, byzopt):
    edit(place / "parts" / "helper.py", "WIDTH = 3", "WIDTH = 3 / 0")
    with pytest.raises(UserError, match=r"helper.py, line 3: ZeroDivisionError"):
        load(place / "specs" / "spec.toml")


def test_commands_take_them(place, byzopt):
    listed = json.loads(byzopt("list", "parts/own.py", "--json").out)
    names = {kind: [one["name"] for one in parts] for kind, parts in listed.items()}
    assert names == {
        "rules": ["own.py:Even", "own.py:Named"],
        "attacks": ["own.py:Far"],
        "methods": ["own.py:Squeezed"],
        "tasks": ["own.py:make_task"],
        "compressors": ["own.py:Signs"],
        "engines": ["own.py:InTurn"],
    }
    assert "Gradient descent on compressed differences." in byzopt("explain", "parts/own.py:Squeezed").out
    assert byzopt("audit", "specs/spec.toml", "--rounds", "2").status == 0
    game = ["--n", "7", "--f", "2", "--attack", "parts/own.py:Far", "--json"]
    found = byzopt("break", "nnm >> parts/own.py:Even", *game)
    assert json.loads(found.out)["attack"]["name"] == "own.py:Far"
    # As the search spells it in the commands that replay its games.
    spelled = rule_spelling(rule_from("nnm >> parts/own.py:Even(share=0.5)", f=1))
    assert spelled == f"nnm(f=1) >> {place / 'parts' / 'own.py'}:Even(f=1, share=0.5)"
    assert rule_spelling(rule_from(spelled)) == spelled
