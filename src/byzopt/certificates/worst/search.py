"""The search for the rows, honest and faulty, for which a rule is most wrong.

Fixed families first. Then populations that mutate in 1, 2 and 6 dimensions, where what is worse is always
accepted and what is better ever more seldom: first clusters with faulty rows that follow them
(`structures`), then rows that move one by one, from the worst found so far. No rows are counted whose error
hangs on an exact tie, unless nothing else is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf, isfinite
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.certificates.worst.answering import Answering
from byzopt.certificates.worst.certificate import STEADY, WorstRows, jittered
from byzopt.certificates.worst.families import drawn, two_clusters
from byzopt.certificates.worst.figures import Form, figures, has_ratio, honest_ratio
from byzopt.certificates.worst.mutations import Loose, mutations_for
from byzopt.certificates.worst.populations import Map, Population, Rows
from byzopt.certificates.worst.structures import Structures
from byzopt.rng import seed_of

DIMENSIONS = (1, 2, 6)
# Dimensions of structures, and whether their clusters are simplices; the last two where answers are dear.
STRUCTURED = ((2, False), (4, False), (1, False), (2, True))
FAMILIES, STRUCTURES, LOOSE = 0.1, 0.45, 0.25  # shares of the budget; what is left refines the worst
ISLANDS = 6  # of structures, each with its own worst: none of them takes over all at once
ELITE = 12  # of the families' worst begin a population
UNBOUNDED = 1e6  # from here on an error counts as unbounded, and the search ends
ROUNDED = (2, 3, 4, 6, 9)  # decimals, in spreads, to which rows are rounded if their error stays


P = TypeVar("P", bound=Population)


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
        together = answers_together(rule)
        self.chains, self.structured = (48, 192) if together else (12, 12)
        self.translates = rule.translation_equivariant and form != "turn"
        self.moves = mutations_for(self.translates, rule.scale_equivariant, rule.positional)
        self.steady, self.tied = Best(), Best()

    @property
    def ended(self) -> bool:
        """Whether the budget is spent, or the error is known to be unbounded."""
        return self.left <= 0 or self.steady.figure > UNBOUNDED

    def errors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The errors `[R]` of sets of rows `[R, n, d]`, and the answers `[R, d]`; the worst that do not hang
        on a tie are kept."""
        self.left -= len(rows)
        answers = self.answering(rows)
        found = figures(self.form, rows, self.f, answers).nan_to_num(-inf)
        for at in found.argsort(descending=True).tolist():
            if not float(found[at]) > self.steady.figure * (1 + 1e-6):
                break
            if self._keep(rows[at], float(found[at])):
                break
        return found, answers

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

    def fitting(self, rows: Rows) -> Map:
        """What makes of sets of rows `[R, n, d]` those that are scored: in units of the honest spread and
        about the honest mean, where the rule does not mind, and with the honest ratio that was asked for."""
        honest = rows[:, self.f :]
        mean = honest.mean(axis=1, keepdims=True)
        spread = np.sqrt(np.square(honest - mean).sum(axis=2).mean(axis=1))[:, None, None]
        factor, back = np.ones_like(spread), mean
        if self.ratio is not None:
            ratio = honest_ratio(torch.from_numpy(rows), self.f).clamp(1e-30, 1e30).numpy()
            factor = np.sqrt(self.ratio / ratio)[:, None, None]
        elif self.translates:
            back = np.zeros_like(mean)
        if self.rule.scale_equivariant:
            unit = np.where(spread > 0, spread * factor, 1.0)
            factor, back = factor / unit, back / unit
        return mean, factor, back

    def judged(self, population: P) -> tuple[P, Tensor]:
        """The population as it is scored, and its errors `[R]`."""
        rows = population.rows(self.numbers)
        shift, factor, back = to = self.fitting(rows)
        errors, answers = self.errors(torch.from_numpy((rows - shift) * factor + back))
        return population.moved(to).answered(answers.numpy()), errors

    def run(self, starts: Iterable[Rows]) -> None:
        """Spend the budget."""
        budget = self.left
        elite = self._families(starts, budget - int(FAMILIES * budget))
        minds = not self.translates, not self.rule.scale_equivariant
        until = self.left
        kinds = STRUCTURED if answers_together(self.rule) else STRUCTURED[-2:]
        share = int(STRUCTURES * budget) // len(kinds)
        count = max(ISLANDS, min(self.structured, share // 8))
        for d, wide in kinds:
            until -= share
            drawn = Structures.drawn(count, self.n, self.f, d, wide, minds, self.numbers)
            self.anneal(drawn, until, 0.3, 1.0, ISLANDS)
        elite = [*self._worst(), *elite]
        for d in DIMENSIONS:
            until -= int(LOOSE * budget) // len(DIMENSIONS)
            self.anneal(self._loose(self._population(elite, d)), until, 0.3, 1.0)
        for worst in self._worst():
            if self.f:
                self.judged(self._loose(_alike(worst, self.f)))
            again = self._loose([worst] * self.chains)
            self.anneal(again, self.left // 2, 0.01, 0.3)
            self.anneal(again, 0, 1e-4, 0.03)

    def _worst(self) -> list[Rows]:
        return [self.steady.rows.numpy()] if self.steady.figure > -inf else []

    def _loose(self, sets: Sequence[Rows]) -> Loose:
        return Loose(np.stack(sets), self.f, self.moves)

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
                scored, errors = self.judged(self._loose(same))
                seen.extend((float(e), r) for e, r in zip(errors, scored.sets, strict=True) if e > -inf)
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

    def anneal(self, population: P, until: int, warm: float, largest: float, islands: int = 1) -> None:
        """Mutate the population until `until` of the budget are left, ever more reluctant to accept what
        is less bad.

        `warm` is the first temperature, of the logarithm of the error, `largest` the first size of a move. On
        each of the `islands` the least bad third gives way to the worst, now and then.
        """
        population, errors = self.judged(population)
        begun, step = max(self.left - until, 1), 0
        while self.left > until and not self.ended:
            cool = 1e-3 ** (1 - max(self.left - until, 0) / begun)
            proposed, offered = self.judged(population.mutated(largest * cool**0.5, self.numbers))
            chance = torch.from_numpy(self.numbers.random(len(errors))).log() * warm * cool
            accepted = offered.clamp(min=1e-30).log() - errors.clamp(min=1e-30).log() > chance
            population = population.chosen(proposed, accepted.numpy())
            errors = torch.where(accepted, offered, errors)
            step += 1
            if step % 25 == 0:
                order = _survivors(errors, islands)
                population, errors = population.taken(order.numpy()), errors[order]

    def certificate(self, best: Best, rule: str, tie: bool) -> WorstRows | None:
        """The rows as a certificate, with as few decimals as leave the error what it is; None without any."""
        if not isfinite(best.figure) and best.figure < 0:
            return None
        rows, figure = best.rows, best.figure
        for decimals in ROUNDED:
            rounded = best.rows.round(decimals=decimals)
            stack = rounded.unsqueeze(0)
            error = float(figures(self.form, stack, self.f, self.answering(stack))[0])
            same = self.ratio is None or has_ratio(rounded, self.f, self.ratio)
            if same and error >= figure * (1 - 1e-5) and (tie or self._is_steady(rounded, error)):
                rows = rounded
                break
        sent = self.answering.sent(rows)
        kept = tuple(tuple(row) for row in sent.tolist())
        faulty = self.answering.faulty
        draft = WorstRows(rule, self.n, self.f, self.form, figure, tie, self.ratio, faulty, kept)
        return WorstRows(**{**vars(draft), "figure": draft.replay(self.rule)})


def _alike(rows: Rows, f: int) -> list[Rows]:
    """The rows with all faulty ones where one of them stands, for each of them: ties that may be worse."""
    return [np.concatenate([np.tile(rows[j], (f, 1)), rows[f:]]) for j in range(f)]


def _survivors(errors: Tensor, islands: int) -> Tensor:
    """Indices `[R]`: in each of the islands the worst third stands in the place of the least bad one too."""
    order = torch.arange(len(errors), device="cpu")
    for island in order.chunk(islands):
        ranked, third = island[errors[island].argsort(descending=True)], len(island) // 3
        order[ranked[len(ranked) - third :]] = ranked[:third]
    return order


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
