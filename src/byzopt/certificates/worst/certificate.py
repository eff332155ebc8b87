"""A certificate of how bad a rule can be: rows, which of them are faulty, and the error of the answer to
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators import rule_from
from byzopt.certificates.worst.figures import Form, figures
from byzopt.errors import InvalidInput, require, said
from byzopt.rng import stream

JITTER = 1e-6  # of the honest rows' spread
DRAWS = 8  # of such jitter
STEADY = 0.99  # of the error is left under every draw, or the certificate is at a tie


@dataclass(frozen=True)
class WorstRows:
    """Rows for which `rule` is off by `figure`, in the given `form` (see `figures`).

    `rows` are those of all n workers, `faulty` the f who lie. With `tie`, the error hangs on how exact
    ties are broken: rows that differ by `JITTER` may be harmless. `ratio` is mean‖v_i - v̄‖²/‖v̄‖² for a
    `turn`,
        else None.
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

    def _errors(self, sets: Tensor, rule: Any) -> list[float]:
        built, order = rule_from(rule or self.rule, f=self.f), [*self.faulty, *self.honest]
        answers = torch.stack([built(rows) for rows in sets])
        return [float(error) for error in figures(self.form, sets[:, order], self.f, answers)]

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def read_certificate(data: Any) -> WorstRows:
    """A certificate from plain data. Errors: `InvalidInput` where it is none."""
    names = {field.name for field in fields(WorstRows)}
    good = isinstance(data, Mapping) and set(data) == names
    require(good, "A certificate", f"be a table of {', '.join(sorted(names))}", said(data))
    try:
        rows = tuple(tuple(map(float, row)) for row in data["rows"])
        found = WorstRows(**{**data, "rows": rows, "faulty": tuple(map(int, data["faulty"]))})
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"A certificate should have rows of numbers. Found: {error}.") from None
    fits = len(rows) == found.n and len({*map(len, rows)}) == 1 and len(found.faulty) == found.f
    require(fits, "A certificate", "have n equal rows, f of them faulty", said(data))
    return found


def jittered(rows: Tensor, honest: list[int], draws: int = DRAWS) -> Tensor:
    """`draws` copies of rows `[n, d]`, each with other jitter: `[draws, n, d]`."""
    kept = rows[honest]
    spread = (kept - kept.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    noise = torch.randn(draws, *rows.shape, dtype=rows.dtype, generator=stream(0, "jitter"), device="cpu")
    return rows + JITTER * spread * noise
