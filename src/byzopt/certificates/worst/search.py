"""The search for the rows, honest and faulty, for which a rule is most wrong.

Structured families first, then populations of them in 1, 2 and 6 dimensions that mutate, where what is
worse is always accepted and what is better ever more seldom. No rows are counted whose error hangs on an
exact tie, unless nothing else is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.certificates.worst.answering import Answering
from byzopt.certificates.worst.certificate import STEADY, WorstRows, jittered
from byzopt.certificates.worst.families import Rows, drawn, two_clusters
from byzopt.certificates.worst.figures import Form, figures, honest_ratio
from byzopt.certificates.worst.mutations import mutated, mutations_for
from byzopt.rng import seed_of

DIMENSIONS = (1, 2, 6)
FAMILIES, POPULATIONS = 0.2, 0.55  # shares of the budget; what is left refines the worst
ELITE = 12  # of the families' worst begin a population
UNBOUNDED = 1e6  # from here on an error counts as unbounded, and the search ends
ROUNDED = (2, 3, 4, 6, 9)  # decimals, in spreads, to which rows are rounded if their error stays


@dataclass
class Best:
    """The worst rows so far `[n, d]`, faulty ones first, and their error."""

    figure: float = -inf
    rows: Tensor = field(default_factory=lambda: torch.empty(0, 0, device="cpu"))


class RowSearch:
    """Searches rows of n workers, f of them faulty, against `rule`, for one form of error; see
    `worst_rows`."""

    def __init__(
        self, rule: Aggregator, n: int, f: int, form: Form, ratio: float | None, budget: int, seed: int
    ) -> None:
        self.rule, self.n, self.f, self.form, self.ratio = rule, n, f, form, ratio
        self.answering = Answering(rule, n, f)
        self.left = budget
        self.numbers = np.random.default_rng(seed_of(seed, "worst rows", n, f, form))
        self.chains = 48 if answers_together(rule) else 12
        translates = rule.translation_equivariant and form != "turn"
        self.moves = mutations_for(translates, rule.scale_equivariant, rule.positional)
        self.steady, self.tied = Best(), Best()

    @property
    def ended(self) -> bool:
        """Whether the budget is spent, or the error is known to be unbounded."""
        return self.left <= 0 or self.steady.figure > UNBOUNDED

    def errors(self, rows: Tensor) -> Tensor:
        """The errors `[R]` of sets of rows `[R, n, d]`; the worst that do not hang on a tie are kept."""
        self.left -= len(rows)
        found = figures(self.form, rows, self.f, self.answering(rows)).nan_to_num(-inf)
        for at in found.argsort(descending=True).tolist():
            if not float(found[at]) > self.steady.figure * (1 + 1e-6):
                break
            if self._keep(rows[at], float(found[at])):
                break
        return found

    def _keep(self, rows: Tensor, figure: float) -> bool:
        if figure <= max(self.tied.figure, self.steady.figure) and self._same(rows, self.tied.rows):
            return False
        if self._is_steady(rows, figure):
            self.steady = Best(figure, rows)
            return True
        if figure > self.tied.figure:
            self.tied = Best(figure, rows)
        return False

    def _same(self, rows: Tensor, other: Tensor) -> bool:
        return rows.shape == other.shape and bool((rows == other).all())

    def _is_steady(self, rows: Tensor, figure: float) -> bool:
        sets = jittered(rows, list(range(self.f, self.n)))
        self.left -= len(sets)
        return bool((figures(self.form, sets, self.f, self.answering(sets)) >= STEADY * figure).all())

    def fitted(self, stack: Sequence[Rows]) -> Tensor:
        """Rows as they are scored: in units of the honest spread and about the honest mean, where the
        rule does not mind, and with the honest ratio that was asked for."""
        rows = torch.from_numpy(np.stack(stack))
        mean = rows[:, self.f :].mean(dim=1, keepdim=True)
        if self.form == "turn":
            assert self.ratio is not None
            factor = (self.ratio / honest_ratio(rows, self.f).clamp(1e-30, 1e30)).sqrt()
            rows = mean + (rows - mean) * factor.view(-1, 1, 1)
        elif self.rule.translation_equivariant:
            rows = rows - mean
        if self.rule.scale_equivariant:
            honest = rows[:, self.f :] - rows[:, self.f :].mean(dim=1, keepdim=True)
            spread = honest.square().sum(dim=2).mean(dim=1).sqrt()
            rows = rows / torch.where(spread > 0, spread, 1.0).view(-1, 1, 1)
        return rows

    def run(self, starts: Iterable[Rows]) -> None:
        """Spend the budget."""
        budget = self.left
        elite = self._families(starts, budget - int(FAMILIES * budget))
        for index, d in enumerate(DIMENSIONS):
            share = int(POPULATIONS * budget) * (index + 1) // len(DIMENSIONS)
            until = budget - int(FAMILIES * budget) - share
            population = self._population(elite, d)
            self.anneal(population, until, 0.3, 1.0)
        if self.steady.figure > -inf:
            again = [self.steady.rows.numpy()] * self.chains
            self.anneal(again, self.left // 2, 0.01, 0.3)
            self.anneal([self.steady.rows.numpy()] * self.chains, 0, 1e-4, 0.03)

    def _families(self, starts: Iterable[Rows], until: int) -> list[Rows]:
        seen: list[tuple[float, Rows]] = []
        candidates = self._candidates(starts)
        while self.left > until and not self.ended:
            stack: dict[int, list[Rows]] = {}
            for rows in islice(candidates, 4 * self.chains):
                for each in (rows, rows + 1e-4 * self.numbers.standard_normal(rows.shape)):
                    stack.setdefault(rows.shape[1], []).append(each)
            if not stack:
                break
            for same in stack.values():
                fitted = self.fitted(same)
                errors = self.errors(fitted)
                seen.extend((float(e), r.numpy()) for e, r in zip(errors, fitted, strict=True) if e > -inf)
            seen = sorted(seen, key=lambda pair: -pair[0])[: 20 * ELITE]
        spread = seen[: ELITE // 2] + seen[ELITE // 2 :: 39]  # the worst, and some that are less alike
        return [rows for _, rows in spread][:ELITE]

    def _candidates(self, starts: Iterable[Rows]) -> Iterable[Rows]:
        yield from starts
        for rows in two_clusters(self.n, self.f):
            yield self._moved(rows)
        while True:
            yield self._moved(drawn(self.n, self.f, self.numbers))

    def _moved(self, rows: Rows) -> Rows:
        """Rows away from the origin and in another unit, where the rule minds."""
        if not self.rule.scale_equivariant:
            rows = rows * 10 ** self.numbers.uniform(-2, 2)
        if self.form == "turn" or not self.rule.translation_equivariant:
            if rows.shape[1] == 1 and self.numbers.random() < 0.5:
                rows = np.pad(rows, ((0, 0), (0, 1)))
            size = self.numbers.choice([0.0, 0.5, 1.0, 3.0, 10.0, 1e4])
            way = self.numbers.standard_normal(rows.shape[1])
            if self.numbers.random() < 0.5:
                way = rows[self.numbers.integers(self.n)] - rows[self.f :].mean(axis=0)
            length = float(np.linalg.norm(way))
            rows = rows + size * way / length if length > 0 else rows
        return rows

    def _population(self, elite: Sequence[Rows], d: int) -> list[Rows]:
        known = [_in_dimension(rows, d) for rows in elite]
        return [
            known[chain // 2 % len(known)] if known and chain % 4 < 3 else self._random(d)
            for chain in range(self.chains)
        ]

    def _random(self, d: int) -> Rows:
        """Heavy or light tails, or a few clusters of random sizes."""
        rows = self.numbers.standard_normal((self.n, d))
        if self.numbers.random() < 0.5:
            centres = self.numbers.standard_normal((int(self.numbers.integers(2, 6)), d))
            rows = 0.01 * rows + centres[self.numbers.integers(len(centres), size=self.n)]
        return rows * np.exp(self.numbers.standard_normal((self.n, 1)))

    def anneal(self, population: Sequence[Rows], until: int, warm: float, largest: float) -> None:
        """Mutate the population until `until` of the budget are left, ever more reluctant to accept what
        is less bad.

        `warm` is the first temperature, of the logarithm of the error, `largest` the first size of a move.
        """
        rows = self.fitted(population)
        errors = self.errors(rows)
        begun = max(self.left - until, 1)
        step = 0
        while self.left > until and not self.ended:
            cool = 1e-3 ** (1 - max(self.left - until, 0) / begun)
            proposals = self.fitted(
                [
                    mutated(each, self.f, self.moves, largest * cool**0.5, self.numbers)
                    for each in rows.numpy()
                ]
            )
            offered = self.errors(proposals)
            chance = torch.from_numpy(self.numbers.random(len(rows))).log() * warm * cool
            accepted = offered.clamp(min=1e-30).log() - errors.clamp(min=1e-30).log() > chance
            rows = torch.where(accepted.view(-1, 1, 1), proposals, rows)
            errors = torch.where(accepted, offered, errors)
            step += 1
            if step % 25 == 0:  # the least bad third gives way to the worst
                order = errors.argsort(descending=True)
                third = len(rows) // 3
                rows[order[-third:]], errors[order[-third:]] = rows[order[:third]], errors[order[:third]]

    def certificate(self, best: Best, rule: str, tie: bool) -> WorstRows | None:
        """The rows as a certificate, with as few decimals as leave the error what it is; None without any."""
        if not isfinite(best.figure) and best.figure < 0:
            return None
        rows, figure = best.rows, best.figure
        for decimals in ROUNDED:
            rounded = best.rows.round(decimals=decimals)
            error = float(
                figures(self.form, rounded.unsqueeze(0), self.f, self.answering(rounded.unsqueeze(0)))[0]
            )
            if error >= figure * (1 - 1e-5) and (tie or self._is_steady(rounded, error)):
                rows = rounded
                break
        sent = self.answering.sent(rows)
        kept = tuple(tuple(row) for row in sent.tolist())
        faulty = self.answering.faulty
        draft = WorstRows(rule, self.n, self.f, self.form, figure, tie, self.ratio, faulty, kept)
        return WorstRows(**{**vars(draft), "figure": draft.replay(self.rule)})


def answers_together(rule: Aggregator) -> bool:
    """Whether many sets of rows cost the rule little more than one."""
    return rule.last.batched and all(stage.batched for stage in rule.stages)


def _in_dimension(rows: Rows, d: int) -> Rows:
    """Rows `[n, k]` in d coordinates: those that are added are zero, fewer are the principal ones."""
    k = rows.shape[1]
    if k <= d:
        return np.pad(rows, ((0, 0), (0, d - k)))
    mean = rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
    turned: Rows = rows @ axes[:d].T
    return turned if turned.shape[1] == d else np.pad(turned, ((0, 0), (0, d - turned.shape[1])))
