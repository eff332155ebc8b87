"""A spec says everything that a run depends on. Recipe in Python, strict table in TOML; one id for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from byzopt.aggregators import Aggregator, rule_data, rule_from
from byzopt.attacks import ATTACKS, Adversary, Attack, Base, Placement
from byzopt.cohort import Cohort
from byzopt.engines import ENGINES, Asynchrony, EngineRecipe, Graph, InProcess
from byzopt.engines.asynchrony import check_clock, check_intake
from byzopt.engines.graph import check_rule, check_server
from byzopt.engines.searching import check_heard, check_wire
from byzopt.errors import UnknownName, require, said, unknown
from byzopt.experiments.specs.attacks import attack_recipe
from byzopt.experiments.specs.overrides import USUAL, merge
from byzopt.experiments.specs.plain_spec import MAIN, MOST_RECORDS, content_hash
from byzopt.experiments.specs.settings import check_settings
from byzopt.fields import check_kind
from byzopt.methods import METHODS, Method, MethodRecipe
from byzopt.own_files import KEY, within
from byzopt.registry import Registry, decode, plain
from byzopt.tasks import TASKS, TaskRecipe
from byzopt.workers import PARTICIPANTS, All, Participants

__all__ = ["MAIN", "RISING", "Spec"]

RISING = frozenset({"accuracy"})  # figures that are better when larger; all others fall
ROOMS: dict[str, Registry[Any]] = {
    "task": TASKS,
    "method": METHODS,
    "attack": ATTACKS,
    "engine": ENGINES,
    "participants": PARTICIPANTS,
}
# Keys that are written only where they differ.
LATER: dict[str, Any] = {
    "per_worker": False,
    "engine": InProcess(),
    "participants": All(),
    "graph": None,
    "asynchrony": None,
    "data_seed": None,
}


@dataclass(frozen=True)
class Spec:
    """One experiment: a method with a rule on a task under an attack, and what to run beside it.

    `n` workers; `f` the server's tolerance, which fills a rule's missing `f`; `attackers` the true ones, a
    count (the last workers) or their ids, by default `f` of them. `rounds` at step scale `lr`. Figures are
    taken every `eval_every` rounds (default: rounds/50, at least 1), before the first and after the last.
    `stop` maps figures to the values at which the run has converged, for instance `{"grad_norm": 1e-3}`.
    `placement` says where the adversary acts: on the server's rows (`"free"`), on rows that the wire then
    compresses (`"state"`), or on messages (`"message"`); `base` is for parity: see `Adversary`. `per_worker`
    adds each honest worker's loss, and accuracy where there is one, on its own data to every record
    (`loss_worker_0`). `data_seed` is that of the data and of who owns which, where it is not `seed`, so that
    runs may differ in all else that is drawn. `engine` is what plays the workers, `participants` who of them
    takes part in a round. With a `graph` there is no server: f is how many Byzantine neighbours each node
    tolerates, and the rule is the mean unless the graph's mixer applies another. With `asynchrony` the server
    hears workers one at a time, and a round is a step of the server. `compare` names specs that are run
    beside this one; in plain data these are tables of what differs. Parts are recipes, or what names one: a
    registered name, a table, a part of your own (its class, a function that makes a task, `"file.py:part"`).

    Errors: `InvalidInput` (`UnknownName` for keys and names) for anything out of range.

    Args:
        task: Losses and data.
        rule: What the server does with the rows.
        method: What workers send and how the server steps.
        attack: What the Byzantine workers send.
        rounds: Number of communication rounds.
        lr: Scale of the server's steps, > 0.
        n: Number of workers.
        f: Number of faulty workers that the server tolerates, 2 f < n.
        attackers: How many attack, the last ones, or which; None: `f` of them.
        seed: Of all that is drawn.
        eval_every: Rounds between two measurements; None: rounds/50, at least 1.
        stop: Values at which the run has converged, by figure.
        placement: Where the adversary acts: "free", "state" or "message".
        base: "own", or "last_honest" for parity with released code.
        per_worker: Whether records hold each honest worker's figures on its own data.
        engine: Who carries points to the workers and rows back.
        participants: Who takes part in a round; everybody by default.
        data_seed: Of the data and of who owns which; None: `seed`.
        graph: Who hears whom, where there is no server; None: a server hears all.
        asynchrony: How long workers take, and when the server steps; None: all answer in every round.
        compare: Specs that are run beside this one, by name.

    Raises:
        InvalidInput: Anything out of range.
        UnknownName: A name or a key that does not exist.

    Examples:
        >>> from byzopt import Spec
        >>> spec = Spec.of({"task": "quartic", "rule": "nnm >> krum", "rounds": 10, "lr": 0.1, "f": 2})
        >>> spec.rule, len(spec.id) > 8
        (NNM(f=2) >> Krum(f=2, extra=0, power=2), True)
    """

    task: TaskRecipe
    rule: Aggregator
    method: MethodRecipe
    attack: Attack
    rounds: int
    lr: float
    n: int = 20
    f: int = 3
    attackers: int | tuple[int, ...] | None = None
    seed: int = 0
    eval_every: int | None = None
    stop: Mapping[str, float] = field(default_factory=dict)
    placement: Placement = "free"
    base: Base = "own"
    per_worker: bool = False
    engine: EngineRecipe = InProcess()
    participants: Participants = All()
    data_seed: int | None = None
    graph: Graph | None = None
    asynchrony: Asynchrony | None = None
    compare: Mapping[str, Spec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, room in ROOMS.items():
            object.__setattr__(self, key, room.recipe(getattr(self, key)))
        object.__setattr__(self, "rule", rule_from(self.rule, f=self.f))
        numbers = (self.n, self.f, self.rounds, self.lr, self.seed, self.eval_every)
        check_settings(*numbers, self.stop, self.per_worker)
        check_kind("Parameter `data_seed`", self.data_seed, int | None)
        good = self.data_seed is None or self.data_seed >= 0
        require(good, "Parameter `data_seed`", "be at least 0", self.data_seed)
        require(MAIN not in self.compare, "A variant", f"not be named {MAIN!r}", MAIN)
        nested = [name for name, variant in self.compare.items() if variant.compare]
        require(not nested, "A variant", "have no variants of its own", nested)
        records = sum(one.rounds // one.interval for one in (self, *self.compare.values()))
        remedy = "Raise `eval_every`."
        found = f"{records:,} with its variants"
        require(records <= MOST_RECORDS, "A run", f"hold at most {MOST_RECORDS:,} records", found, remedy)
        self.participants.check(self.n)
        if self.graph is None:
            self.rule.check(self.n)
            check_server(self.attack)
        else:
            check_rule(self.graph, self.rule)
        if self.asynchrony is None:
            check_clock(self.attack)
        else:
            self._check_asynchrony(self.asynchrony)
        if self.placement != "free" and self.attack.searches:
            check_wire(self.attack, self.placement, self.built().wire)
        Adversary(self.attack, self.cohort, self.f, self.placement, self.base)

    def _check_asynchrony(self, asynchrony: Asynchrony) -> None:
        what = "A run on a clock"
        require(self.graph is None, what, "have a server", "a graph", "Leave out one of the two.")
        everybody, remedy = self.participants == All(), "Let the clock say who is slow."
        require(everybody, what, "have everybody take part", self.participants, remedy)
        require(self.engine == InProcess(), what, "have the simulated engine", self.engine)
        check_intake(asynchrony, self.rule, self.n, self.f)
        check_heard(self.attack, asynchrony.intake)

    @classmethod
    def of(cls, data: Mapping[str, Any], what: str = "the spec") -> Spec:
        """The spec that plain data describe; `compare` holds tables of overrides. `what` errors call it."""
        require(isinstance(data, Mapping), f"The data of {what}", "be a table", said(data))
        compare = data.get("compare", {})
        good = isinstance(compare, Mapping)
        require(good, f"In {what}: `compare`", "be a table of variants", said(compare))
        base = USUAL | {key: value for key, value in data.items() if key != "compare"}
        main = _decoded(base, what)
        variants = {}
        of = "" if what == "the spec" else f" of {what}"
        for name, changes in compare.items():
            good = isinstance(changes, Mapping) and "compare" not in changes
            require(good, f"Variant {name!r}{of}", "be a table of overrides", said(changes))
            variants[name] = _decoded(merge(base, changes), f"variant {name!r}{of}")
        with within(f"In {what}"):
            return replace(main, compare=variants)

    @property
    def cohort(self) -> Cohort:
        """Who takes part, and who of them lies."""
        return Cohort.of(self.n, self.f if self.attackers is None else self.attackers)

    def built(self) -> Method:
        """The method as it is run: with this rule and these participants."""
        return self.method.build(self.rule, self.lr, self.rounds).among(self.participants)

    @property
    def interval(self) -> int:
        """Rounds between two measurements."""
        return max(1, self.rounds // 50) if self.eval_every is None else self.eval_every

    @property
    def data(self) -> dict[str, Any]:
        """Canonical plain data: every value spelled out; `Spec.of(spec.data).data == spec.data`."""
        main = self._own()
        variants = {
            name: {key: value for key, value in variant._own().items() if value != main.get(key)}
            for name, variant in self.compare.items()
        }
        kept = {key: value for key, value in (main | {"compare": variants}).items() if value != {}}
        for key, usual in LATER.items():
            if getattr(self, key) == usual:
                del kept[key]  # so that specs keep the ids that they had before there was such a key
        return kept

    @property
    def id(self) -> str:
        """A hash of the canonical data: equal for equal specs on every machine."""
        return content_hash(self.data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Other processes build the parts of a user's own again, from the files that they are in."""
        has_own_parts = any(KEY in table for table in _tables(self.data))
        return (Spec.of, (self.data,)) if has_own_parts else super().__reduce_ex__(protocol)

    def on(self, engine: EngineRecipe) -> Spec:
        """This spec and its variants on that engine."""
        compare = {name: variant.on(engine) for name, variant in self.compare.items()}
        return replace(self, engine=engine, compare=compare)

    def variants(self) -> dict[str, Spec]:
        """This spec and those beside it, by name."""
        return {MAIN: replace(self, compare={})} | dict(self.compare)

    def _own(self) -> dict[str, Any]:
        attackers = self.f if self.attackers is None else self.attackers
        data = {"n": self.n, "f": self.f, "attackers": plain(attackers), "seed": self.seed}
        data |= {"rounds": self.rounds, "lr": float(self.lr), "eval_every": self.interval}
        data |= {"placement": self.placement, "base": self.base, "per_worker": self.per_worker}
        data |= {"rule": rule_data(self.rule), "stop": dict(self.stop)}
        data |= {key: _plain(getattr(self, key)) for key in ("graph", "asynchrony")}
        data |= {"data_seed": self.data_seed}
        return data | {key: plain(getattr(self, key)) for key in ROOMS}


def _plain(part: Any) -> Any:
    return None if part is None else plain(part)


def _tables(data: Any) -> Iterator[Mapping[str, Any]]:
    """All tables in plain data."""
    if isinstance(data, Mapping):
        yield data
    for value in data.values() if isinstance(data, Mapping) else data:
        if isinstance(value, (Mapping, list)):
            yield from _tables(value)


def _decoded(data: Mapping[str, Any], what: str) -> Spec:
    return decode(Spec, _parts(data, what), what)


def _parts(data: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Plain data with the recipes that its tables and names describe."""
    known = [f.name for f in fields(Spec)]
    for key in data:
        if key not in known:
            raise UnknownName(f"In {what}: {unknown('key', key, known)}")
    values = dict(data)
    if isinstance(values.get("graph"), Mapping):
        values["graph"] = decode(Graph, values["graph"], f"`graph` of {what}")
        values.setdefault("rule", "mean")
    if isinstance(values.get("asynchrony"), Mapping):
        values["asynchrony"] = decode(Asynchrony, values["asynchrony"], f"`asynchrony` of {what}")
        if not values["asynchrony"].intake.uses_rule:
            values.setdefault("rule", "mean")
    with within(f"In {what}"):
        return _recipes(values)


def _recipes(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with recipes in place of names and tables of parts."""
    counts = {
        "n": values.get("n", Spec.n),
        "f": values.get("f", Spec.f),
    }  # for methods whose theory needs them
    filled = {"method": counts}
    if "attack" in values:
        placed = (values.get("graph") is not None, values.get("asynchrony") is not None)
        values["attack"] = attack_recipe(values["attack"], *placed)
    for key, room in ROOMS.items():
        if key in values and not isinstance(values[key], room.base):
            values[key] = room.build(values[key], **filled.get(key, {}))
    if "rule" in values:
        values["rule"] = rule_from(values["rule"], f=values.get("f", Spec.f))
    return values
