"""A certificate of how bad a rule can be: rows, which of them are faulty, and the error of the answer to
them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators import rule_from
from byzopt.certificates.worst.figures import FORMS, Form, figures, has_ratio
from byzopt.errors import require, said
from byzopt.rng import stream

JITTER = 1e-6  # of the honest rows' spread
DRAWS = 8  # of such jitter
STEADY = 0.99  # of the error is left under every draw, or the certificate is at a tie


@dataclass(frozen=True)
class WorstRows:
    """Rows for which `rule` is off by `figure`, in the given `form` (see `figures`).

    `rows` are those of all n workers, `faulty` the f who lie. With `tie`, the error hangs on how exact
    ties are broken: rows that differ by `JITTER` may be harmless. `ratio` is mean‖v_i - v̄‖²/‖v̄‖² for a
    `turn`, else None.
    """

    rule: str
    n: int
    f: int
    form: Form
    figure: float
    tie: bool
    ratio: float | None
    faulty: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]

    @property
    def key(self) -> tuple[str, int, int, str, bool, float | None]:
        """What it is the worst known of."""
        return self.rule, self.n, self.f, self.form, self.tie, self.ratio

    def replay(self, rule: Any = None) -> float:
        """The error of the rule as it is now, or of another, by one call in float64. Errors: those of the
        call."""
        return self._errors(self.sent().unsqueeze(0), rule)[0]

    def shaken(self, rule: Any = None) -> list[float]:
        """The same under `DRAWS` draws of jitter: Gaussian, of `JITTER` times the honest rows' spread."""
        return self._errors(jittered(self.sent(), self.honest), rule)

    @property
    def honest(self) -> list[int]:
        """The workers who do not lie."""
        return [worker for worker in range(self.n) if worker not in self.faulty]

    def sent(self) -> Tensor:
        """The rows `[n, d]`."""
        return torch.tensor(self.rows, dtype=torch.float64, device="cpu")

    def require_ratio(self) -> None:
        """Refuse a turn whose honest rows do not differ as its ratio says, or whose mean is rounding.
        Errors: `InvalidInput`."""
        ordered = self.sent()[[*self.faulty, *self.honest]]
        if self.form == "turn":
            good = self.ratio is not None and has_ratio(ordered, self.f, self.ratio)
            rule = "be mean‖v_i - v̄‖²/‖v̄‖² of its honest rows, of which v̄ is more than rounding"
            require(good, f"`ratio` of a certificate of the turn of {self.rule}", rule, self.ratio)
        else:
            other = f"`ratio` of a certificate of the form {self.form}"
            require(self.ratio is None, other, "be null", self.ratio)

    def _errors(self, sets: Tensor, rule: Any) -> list[float]:
        built, order = rule_from(rule or self.rule, f=self.f), [*self.faulty, *self.honest]
        answers = torch.stack([built(rows) for rows in sets])
        return [float(error) for error in figures(self.form, sets[:, order], self.f, answers)]

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def read_certificate(data: Any) -> WorstRows:
    """A certificate from plain data: types are right, numbers finite, rows fit n and f, and the honest ones
    the ratio. Whether its `figure` is true only `replay` tells. Errors: `InvalidInput` where it is none."""
    names = {field.name for field in fields(WorstRows)}
    good = isinstance(data, Mapping) and set(data) == names
    require(good, "A certificate", f"be a table of {', '.join(sorted(names))}", said(data))
    n, f, form, ratio, faulty, rows = (data[key] for key in ("n", "f", "form", "ratio", "faulty", "rows"))
    wrong = {
        "rule": (isinstance(data["rule"], str), "be text"),
        "n": (_whole(n), "be a whole number"),
        "f": (_whole(f) and _whole(n) and 0 <= f < n, "be a whole number, 0 <= f < n"),
        "form": (isinstance(form, str) and form in FORMS, f"be one of {', '.join(FORMS)}"),
        "figure": (_finite(data["figure"]) and data["figure"] >= 0, "be a finite number, at least 0"),
        "tie": (isinstance(data["tie"], bool), "be true or false"),
        "ratio": (ratio is None or (_finite(ratio) and ratio > 0), "be null or a finite number above 0"),
        "faulty": (
            _listed(faulty) and _workers(faulty, n, f),
            "be f different workers of 0..n-1",
        ),
        "rows": (_listed(rows) and len(rows) == n and _equal(rows), "be n rows of as many finite numbers"),
    }
    for name, (fits, rule) in wrong.items():
        require(fits, f"`{name}` of a certificate", rule, said(data[name]))
    numbers = {"figure": float(data["figure"]), "ratio": None if ratio is None else float(ratio)}
    found = tuple(tuple(map(float, row)) for row in rows)
    read = WorstRows(**{**data, **numbers, "rows": found, "faulty": tuple(faulty)})
    read.require_ratio()
    return read


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    """Whether it is a number that a float64 holds."""
    return (isinstance(value, float) or _whole(value)) and abs(value) <= sys.float_info.max  # NaN is not


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _workers(faulty: Any, n: Any, f: Any) -> bool:
    if not _whole(n):
        return False
    return all(_whole(each) and 0 <= each < n for each in faulty) and len(set(faulty)) == len(faulty) == f


def _equal(rows: Any) -> bool:
    if not all(_listed(row) and row and all(map(_finite, row)) for row in rows):
        return False
    return len({len(row) for row in rows}) == 1


def jittered(rows: Tensor, honest: list[int], draws: int = DRAWS) -> Tensor:
    """`draws` copies of rows `[n, d]`, each with other jitter: `[draws, n, d]`."""
    kept = rows[honest]
    spread = (kept - kept.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    noise = torch.randn(draws, *rows.shape, dtype=rows.dtype, generator=stream(0, "jitter"), device="cpu")
    return rows + JITTER * spread * noise
