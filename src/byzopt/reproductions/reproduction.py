"""A reproduction: a paper's experiment as declared sweeps, its printed numbers, and when ours agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from byzopt.errors import InvalidInput, require, unknown
from byzopt.experiments.specs.overrides import merge
from byzopt.experiments.sweeps.grid import Point
from byzopt.experiments.sweeps.sweep import Sweep

Kind = Literal["printed", "chaotic", "bimodal", "unprinted"]
How = Literal["final", "tail", "least", "at", "first_below"]
EARLY: tuple[How, ...] = ("at", "first_below")  # what may be known before a run ends
Limit = Literal["", "at_least", "at_most"]
FitHow = Literal["slope", "crossing", "least"]


@dataclass(frozen=True)
class TableMeasure:
    """What is read off a run's records: `figure` times `scale`, called `name`.

    `how`: its "final" value, the mean over the "tail" of the last `at` records, the "least" one, the one "at"
    round `at`, or the first round at which it is "first_below" `at` (unscaled).
    """

    name: str
    figure: str
    how: How = "final"
    at: float = 0.0
    scale: float = 1.0
    digits: int = 1


@dataclass(frozen=True)
class Cell:
    """One cell of a paper's table: its label on every axis, settings of its own, what is printed there.

    `printed`: measure to mean and deviation over the paper's runs, where it gives one. `kind`: a "chaotic"
    cell is decided by the last bits of sums; a "bimodal" one is told by the share of runs above `mode`. With
    a `limit` what is printed is no value but what every run should be "at_least" or "at_most". `tolerance`
    is the cell's own, in the place of the part's.
    """

    at: tuple[str, ...]
    set: Mapping[str, Any] = field(default_factory=dict)
    printed: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    kind: Kind = "printed"
    limit: Limit = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class Expected:
    """What a fit should give for the cells with these labels on the axes that it leaves: `value`, or less."""

    at: tuple[str, ...]
    value: float
    or_less: bool = False


@dataclass(frozen=True)
class Fit:
    """A number made of several cells, of all those that agree on every axis but `over`.

    `how`, of the means over seeds of `measure` (default: the first): their log-log "slope" by size, the
    labels of `over` being numbers; the size of the "crossing" of `level`, between two sizes on log axes; or
    the "least" of them. With `then`, the log-log slope of those numbers by the sizes of that axis.
    `tolerance` and `relative`, a share of the expected value, are the verdict's room.
    """

    name: str
    over: str
    how: FitHow = "slope"
    measure: str = ""
    level: float = 0.0
    then: str = ""
    printed: tuple[Expected, ...] = ()
    tolerance: float = 0.25
    relative: float = 0.0
    digits: int = 2


@dataclass(frozen=True)
class Quick:
    """What `--quick` runs of a part: fewer seeds, other settings, some cells; `skip` leaves it all out.

    Settings of `spec` that are no tables go before what labels and cells set.
    """

    skip: bool = False
    seeds: tuple[int, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One table of a reproduction: cells over labelled axes, each run with every seed.

    `choices` maps an axis to its labels, and each label to the settings that it stands for, as
    `{attack = "bit_flip"}`; `by_seed` maps a label to settings by seed, on top. `spec` (on `base`) is what
    all runs share. The paper's deviations have divisor k - `ddof` for `runs` runs. `tolerance`, in the
    measure's unit, and `relative`, a share of the printed value, are room that the verdict gives beyond the
    spread over seeds. `fits` are numbers made of several cells. `beside` names whose numbers stand beside
    ours. `show`: the figures whose curves are drawn, a chart for each combination of all axes but the last,
    and for each of `against`: rounds, or another figure of records; with `map`, a heat map of the first
    measure over the last two axes. `shortened`: not the paper's protocol, so that no verdict is due but on
    what lies in its first `unchanged` rounds, which are those of the whole.
    """

    name: str
    protocol: str
    axes: tuple[str, ...]
    choices: Mapping[str, Mapping[str, Mapping[str, Any]]]
    cells: tuple[Cell, ...]
    measures: tuple[TableMeasure, ...]
    seeds: tuple[int, ...] = (0,)
    base: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    by_seed: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    source: str = ""
    runs: int = 3
    ddof: int = 0
    tolerance: float = 0.0
    relative: float = 0.0
    fits: tuple[Fit, ...] = ()
    beside: str = "paper"
    mode: float = 0.0
    show: tuple[str, ...] = ()
    against: tuple[str, ...] = ("rounds",)
    map: bool = False
    together: int = 16
    quick: Quick = Quick()
    shortened: bool = False
    unchanged: int = 0
    remarks: str = ""

    def __post_init__(self) -> None:
        bare = [axis for axis in self.axes if axis not in self.choices]
        require(not bare, "`choices`", "have a table for every axis", f"none for {', '.join(bare)}")
        for cell in self.cells:
            fits = len(cell.at) == len(self.axes)
            require(fits, f"A cell of part {self.name!r}", f"have labels for {self.axes}", cell.at)
            for axis, label in zip(self.axes, cell.at, strict=True):
                if label not in self.choices[axis]:
                    raise unknown(axis, label, list(self.choices[axis]))
        for fit in self.fits:
            for axis in filter(None, (fit.over, fit.then)):
                if axis not in self.axes:
                    raise unknown("axis", axis, list(self.axes))

    def point(self, cell: Cell, seed: int) -> Point:
        """The settings of one run of a cell."""
        settings: Point = {}
        for axis, label in zip(self.axes, cell.at, strict=True):
            settings |= self.choices[axis][label]
            settings |= self.by_seed.get(label, {}).get(str(seed), {})
        return settings | dict(cell.set) | {"seed": seed}

    @property
    def sweep(self) -> Sweep:
        """All cells with all seeds, as one axis of points."""
        points = [self.point(cell, seed) for cell in self.cells for seed in self.seeds]
        paths = dict.fromkeys(path for point in points for path in point)
        for point in points:
            missing = [path for path in paths if path not in point]
            require(not missing, f"Part {self.name!r}", "set the same settings in every cell", missing)
        walked = {path: [point[path] for point in points] for path in paths}
        name = f"{self.name}-{self.protocol}"
        return Sweep(name=name, base=self.base, spec=self.spec, zip=(walked,), together=self.together)


@dataclass(frozen=True)
class Reproduction:
    """A paper's table or figure: its parts, and a page's worth of words about them."""

    name: str
    title: str
    paper: str
    parts: tuple[Part, ...]
    remarks: str = ""

    def chosen(
        self, cells: Sequence[str] = (), seeds: Sequence[int] = (), quick: bool = False
    ) -> Reproduction:
        """The same with fewer cells, other seeds, or shortened.

        Each of `cells` is words separated by commas, which must all be among a cell's labels, its part's name
        and its part's protocol; a cell is kept that one of them keeps. Errors: words that keep nothing.
        """
        parts = [_quick(part) for part in self.parts if not part.quick.skip] if quick else list(self.parts)
        kept = [replace(part, cells=_kept(part, cells)) for part in parts]
        kept = [replace(part, seeds=tuple(seeds)) if seeds else part for part in kept if part.cells]
        if not kept:
            known = sorted({word for part in parts for cell in part.cells for word in _words(part, cell)})
            found = " or ".join(cells) or "--quick"
            raise InvalidInput(
                f"The cells of {self.name} should be some. Found none for {found}. "
                f"Known words: {', '.join(known)}."
            )
        return replace(self, parts=tuple(kept))


def _quick(part: Part) -> Part:
    quick = part.quick
    short = replace(part, spec=merge(part.spec, quick.spec), seeds=quick.seeds or part.seeds)
    short = replace(short, shortened=part.shortened or bool(quick.spec))
    single = {key: value for key, value in quick.spec.items() if not isinstance(value, Mapping)}
    cells = _kept(part, quick.cells) if quick.cells else part.cells
    whole = replace(short, cells=cells, spec=part.spec)
    short = replace(short, cells=tuple(replace(cell, set={**cell.set, **single}) for cell in cells))
    return replace(short, unchanged=_unchanged(short, whole)) if quick.spec else short


def _unchanged(short: Part, whole: Part) -> int:
    """How many rounds of a shortened part are those of the whole, measured at the same rounds.

    All of them, if nothing but the number of rounds was changed and nothing hangs on it, as a schedule may. 0
    where nothing is measured before the end.
    """
    if not any(measure.how in EARLY for measure in whole.measures):
        return 0
    for one, other in zip(short.sweep.specs(), whole.sweep.specs(), strict=True):
        ends = {"rounds": one.rounds}
        same = one.rounds <= other.rounds and one.data == other.data | ends
        steps = [spec.method.build(spec.rule, spec.lr, spec.rounds) for spec in (one, other)]
        if not same or steps[0] != steps[1]:
            return 0
    return min((spec.rounds for spec in short.sweep.specs()), default=0)


def _kept(part: Part, wanted: Sequence[str]) -> tuple[Cell, ...]:
    asked = [{word.strip().lower() for word in one.split(",")} for one in wanted]
    return tuple(cell for cell in part.cells if not asked or any(a <= _words(part, cell) for a in asked))


def _words(part: Part, cell: Cell) -> set[str]:
    return {word.lower() for word in (*cell.at, part.name, part.protocol)}
