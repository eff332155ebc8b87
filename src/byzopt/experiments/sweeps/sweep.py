"""A sweep: a spec whose settings span a grid. Its runs are a pure function of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from byzopt.aggregators import Aggregator, rule_data
from byzopt.errors import InvalidInput, UnknownName, require, said
from byzopt.experiments.specs.loading import read_spec, read_sweep
from byzopt.experiments.specs.overrides import assign_settings, merge, parse_setting
from byzopt.experiments.specs.plain_spec import content_hash
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.sweeps.grid import Point, axis_values, grid_points, setting_path
from byzopt.experiments.sweeps.runs import Expansion, Run, SkippedPoint, point_text, run_id
from byzopt.experiments.sweeps.tuning import Tune
from byzopt.own_files import UserError, within
from byzopt.registry import decode, is_part, plain


@dataclass(frozen=True)
class Sweep:
    """A grid over anything in a spec, seeds included.

    `base` is a preset or a spec's file whose keys are the start (its variants are left out); `spec` holds
    keys on top of it. `grid` maps settings (`rule`, `attack.scale`, `seed`) to lists, of which every
    combination is run; each table of `zip` holds lists of one length that walk together, and counts as one
    axis of the product. `leave_out` are tables of settings: points that agree with one of them are not run.
    `incompatible` says what becomes of points that are no valid spec: "refuse" the sweep, or "skip" them.
    `together` is how many runs at most advance in one batch. `tune`: see `Tune`.

    Errors: `InvalidInput`, before any run; unknown keys and names always refuse the sweep.
    """

    name: str = ""
    base: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    zip: tuple[Mapping[str, Any], ...] = ()
    leave_out: tuple[Mapping[str, Any], ...] = ()
    incompatible: Literal["refuse", "skip"] = "refuse"
    together: int = 16
    tune: Tune | None = None

    def __post_init__(self) -> None:
        require(self.together >= 1, "Parameter `together`", "be at least 1", self.together)
        require("compare" not in self.spec, "A sweep's spec", "have no variants", "`compare`", "Use `grid`.")
        fits = self.name == "" or (self.name.replace("-", "").replace("_", "").isalnum())
        require(fits, "A sweep's `name`", "hold letters, digits, - and _", said(self.name))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sweep:
        """The sweep that plain data describe."""
        tune = data.get("tune")
        require(tune is None or isinstance(tune, Mapping), "`tune`", "be a table", said(tune))
        sweep = decode(cls, {key: value for key, value in data.items() if key != "tune"}, "the sweep")
        return replace(sweep, tune=decode(Tune, tune, "`tune`")) if tune is not None else sweep

    @property
    def data(self) -> dict[str, Any]:
        """Plain data with everything spelled out but what is left at its default."""
        usual = {f.name: getattr(Sweep(), f.name) for f in fields(self)}
        return {f.name: _plain(v) for f in fields(self) if (v := getattr(self, f.name)) != usual[f.name]}

    @property
    def id(self) -> str:
        """A hash of the sweep's data."""
        return content_hash(self.data)

    def changed(self, settings: Iterable[str]) -> Sweep:
        """This sweep with `key=value` settings: on an axis of the grid its values, a list or a single one;
        else what all runs share. Errors: a setting on a `zip`, whose lists are one axis, or below an axis."""
        settings = list(settings)
        if not settings:
            return self
        axes, shared = axis_values(self.grid, "grid"), []
        places = {setting_path(path): path for path in axes}
        walked = {setting_path(path) for table in self.zip for path in axis_values(table, "zip")}
        for path, value in map(parse_setting, settings):
            known, spelled = tuple(path), ".".join(path)
            require(known not in walked, "A setting", "be on no `zip`", spelled, "Change the file.")
            above = [".".join(at) for at in (*places, *walked) if at == known[: len(at)] and at != known]
            require(not above, "A setting", "be no part of what an axis sets", spelled, f"It sets {above}.")
            if known in places:
                axes[places[known]] = value if isinstance(value, list) else [value]
            else:
                shared.append((path, value))
        spec = assign_settings(self._start(), shared) if shared else self.spec
        return replace(self, base=None if shared else self.base, spec=spec, grid=axes)

    def expand(self) -> Expansion:
        """All runs: a pure function of the sweep and of the file or preset that `base` names."""
        start = self._start()
        runs: dict[str, Run] = {}
        skipped = []
        for point in grid_points(self.grid, self.zip):
            if any(_agrees(point, table) for table in self.leave_out):
                continue
            try:
                spec = _spec(start, point)
            except (UnknownName, UserError):
                raise
            except InvalidInput as error:
                if self.incompatible == "refuse":
                    raise InvalidInput(
                        f'At {point_text(point)}: {error} Leave it out, or set incompatible = "skip".'
                    ) from None
                skipped.append(SkippedPoint(_plain(point), str(error)))
            else:
                run = Run(run_id(spec), spec, _plain(point))
                runs.setdefault(run.id, run)
        require(bool(runs), "A sweep", "have a run", "none", skipped[0].reason if skipped else "")
        if self.tune:
            self.tune.check(list(runs.values()))
        return Expansion(tuple(runs.values()), tuple(skipped))

    def specs(self) -> list[Spec]:
        """The spec at every point, in the order of the grid, equal ones too."""
        start = self._start()
        return [_spec(start, point) for point in grid_points(self.grid, self.zip)]

    def _start(self) -> dict[str, Any]:
        base = {k: v for k, v in (read_spec(self.base) if self.base else {}).items() if k != "compare"}
        return merge(base, self.spec)


def load_sweep(source: str | Path, settings: Iterable[str] = ()) -> Sweep:
    """The sweep in a TOML file or of a preset, `changed`; a `base` that is a file lies relative to it."""
    data = read_sweep(source)
    base = data.get("base")
    if isinstance(base, str) and (beside := Path(source).parent / base).is_file():
        data = data | {"base": str(beside)}
    with within(f"Sweep {source}"):
        return Sweep.of(data).changed(settings)


def _spec(start: Mapping[str, Any], point: Point) -> Spec:
    return Spec.of(assign_settings(start, [(setting_path(path), value) for path, value in point.items()]))


def _plain(value: Any) -> Any:
    """Settings as plain data, recipes and parts of a user's own too."""
    if isinstance(value, Aggregator):
        return rule_data(value)
    if isinstance(value, Mapping):
        return plain({key: one if is_part(one) else _plain(one) for key, one in value.items()})
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else plain(value)


def _agrees(point: Point, table: Mapping[str, Any]) -> bool:
    unknown = [path for path in table if path not in point]
    require(not unknown, "`leave_out`", "name settings of the grid", unknown, f"Known: {', '.join(point)}.")
    return all(point[path] == value for path, value in table.items())
