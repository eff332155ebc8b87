"""The search for the rows, honest and faulty, for which a rule is most wrong.

Rows that are known and fixed families first. Then populations that mutate, where what is worse is always
accepted and what is better ever more seldom: first clusters with faulty rows that follow them
(`structures`), then rows that move one by one in 1, 2 and 6 dimensions, from the worst found so far. No rows
are counted whose error hangs on an exact tie, unless nothing else is found.
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
from byzopt.certificates.worst.allowance import Allowance
from byzopt.certificates.worst.answering import Answering
from byzopt.certificates.worst.certificate import STEADY, WorstRows, jittered
from byzopt.certificates.worst.described import described, joined
from byzopt.certificates.worst.families import alike, two_clusters
from byzopt.certificates.worst.figures import Form, figures, has_ratio, honest_ratio
from byzopt.certificates.worst.guesses import first_guesses
from byzopt.certificates.worst.mutations import Loose, mutations_for
from byzopt.certificates.worst.populations import Map, Population, Rows, survivors
from byzopt.certificates.worst.resized import in_dimension
from byzopt.certificates.worst.structures import Structures
from byzopt.rng import seed_of

DIMENSIONS = (1, 2, 6)
LENGTHS = 6  # at which faulty rows are tried on their way, where they look for the edge
# Dimensions of structures, whether their clusters are simplices, and at how many lengths their faulty rows
# are tried. The second where fewer than `FEW` sets of rows are affordable.
STRUCTURED = ((2, False, 1), (2, False, LENGTHS), (4, False, 1), (1, False, LENGTHS), (2, True, 1))
LEAN = ((1, False, LENGTHS), (2, False, LENGTHS))
FEW, STEPS = 20_000, 30  # steps: as many at least that a population gets, if it has to be small for it
FAMILIES, STRUCTURES, LOOSE = 0.15, 0.5, 0.15  # shares of what may be spent; what is left refines the worst
ISLANDS = 6  # of structures, each with its own worst: none of them takes over all at once
ELITE = 12  # of the families' worst begin a population
FIRST = 4  # sets of rows are answered before it is known what they cost
HARMS = 24  # sets of rows, and choices of who is faulty, where it counts who sends what
CHECKS = 4  # sets of rows of a stack, at most, that are looked at for ties
UNBOUNDED = 1e6  # from here on an error counts as unbounded, and the search ends
BACKWARDS = 179.999  # degrees: there is no larger turn
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
        self,
        rule: Aggregator,
        n: int,
        f: int,
        form: Form,
        ratio: float | None,
        allowance: Allowance,
        seed: int,
    ) -> None:
        self.rule, self.n, self.f, self.form, self.ratio = rule, n, f, form, ratio
        self.answering = Answering(rule, n, f)
        self.allowance = allowance
        self.numbers = np.random.default_rng(seed_of(seed, "worst rows", n, f, form))
        together = answers_together(rule)
        self.chains, self.structured = (48, 192) if together else (12, 12)
        self.translates = rule.translation_equivariant and form != "turn"
        self.moves = mutations_for(self.translates, rule.scale_equivariant, rule.positional)
        self.steady, self.tied = Best(), Best()

    @property
    def ended(self) -> bool:
        """Whether all is spent, or the error is known to be unbounded, or opposite to what it should be."""
        most = BACKWARDS if self.form == "turn" else UNBOUNDED
        return self.allowance.gone >= 1 or self.steady.figure > most

    def errors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The errors `[R]` of sets of rows `[R, n, d]`, and the answers `[R, d]`; the worst that do not hang
        on a tie are kept, and those that are seen to hang on one count as they are beside it."""
        self.allowance.spend(len(rows))
        answers = self.answering(rows)
        found = figures(self.form, rows, self.f, answers).nan_to_num(-inf)
        for at in found.argsort(descending=True)[:CHECKS].tolist():
            figure = float(found[at])
            if self.ratio is not None and not has_ratio(rows[at], self.f, self.ratio):
                found[at] = -inf  # what rounding has left of the honest rows
                continue
            if not figure > self.steady.figure * (1 + 1e-6):
                break
            least = self._shaken(rows[at])
            if least >= STEADY * figure:
                self.steady = Best(figure, rows[at])
                break
            if figure > self.tied.figure:
                self.tied = Best(figure, rows[at])
            found[at] = least
        return found, answers

    def _shaken(self, rows: Tensor) -> float:
        """The least error of the rows with jitter; minus infinity where a draw has none."""
        sets = jittered(rows, list(range(self.f, self.n)))
        self.allowance.spend(len(sets))
        errors = figures(self.form, sets, self.f, self.answering(sets))
        return float(errors.nan_to_num(-inf).min())

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

    def run(self, starts: Iterable[Rows], lying: Sequence[tuple[int, ...]] = ()) -> None:
        """Spend what may be spent. `lying`: who may be the faulty ones, where it counts who they are."""
        if self.rule.positional and not self.rule.trusts and self.f > 0:
            self._choose_faulty(lying)
        elite = self._families(starts, FAMILIES)
        minds = not self.translates, not self.rule.scale_equivariant
        until = FAMILIES
        few = self.allowance.sets < FEW
        kinds = LEAN if few else STRUCTURED
        for d, wide, lengths in kinds:
            until += STRUCTURES / len(kinds)
            share = (until - self.allowance.gone) / (STEPS * lengths)
            count = max(ISLANDS, self._together(self.structured // lengths, share))
            known = [] if wide else [in_dimension(rows, d) for rows in [*self._worst(), *elite][: count // 2]]
            some = Structures.drawn(count - len(known), self.n, self.f, d, wide, minds, self.numbers)
            if known:
                some = joined(described(np.stack(known), self.f, minds), some)
            self.anneal(some, until, 0.3, 1.0, max(1, min(ISLANDS, count // 8)), lengths)
        elite = [*self._worst(), *elite]
        dimensions = DIMENSIONS[:1] if few else DIMENSIONS
        for d in dimensions:
            until += LOOSE / len(dimensions)
            self.anneal(self._loose(self._population(elite, d)), until, 0.3, 1.0)
        for worst in self._worst():
            if self.f:
                self.judged(self._loose(alike(worst, self.f)))
            again = self._loose([worst] * self._together(self.chains, 0.02))
            self.anneal(again, (1 + self.allowance.gone) / 2, 0.01, 0.3)
            self.anneal(again, 1.0, 1e-4, 0.03)

    def _choose_faulty(self, lying: Sequence[tuple[int, ...]]) -> None:
        """Those who do most harm with some of the families: the attacker knows who goes where."""
        sets = list(two_clusters(self.n, self.f))
        some = torch.from_numpy(np.stack([sets[at] for at in self.numbers.permutation(len(sets))[:HARMS]]))
        others = [self.numbers.permutation(self.n)[: self.f].tolist() for _ in range(HARMS)]
        worst, failures = -inf, self.answering.failures
        for faulty in (*lying, self.answering.faulty, *map(sorted, others)):
            tried = Answering(self.rule, self.n, self.f, faulty)
            tried.failures = failures
            self.allowance.spend(len(some))
            harm = float(figures(self.form, some, self.f, tried(some)).nan_to_num(-inf).max())
            if harm > worst:
                worst, self.answering = harm, tried

    def _together(self, most: int, share: float) -> int:
        """How many sets of rows, at most, are answered at once, so that this costs a `share` of it all."""
        affordable = share * self.allowance.sets if self.allowance.spent else FIRST
        return max(1, int(min(most, affordable)))

    def _worst(self) -> list[Rows]:
        return [self.steady.rows.numpy()] if self.steady.figure > -inf else []

    def _loose(self, sets: Sequence[Rows]) -> Loose:
        return Loose(np.stack(sets), self.f, self.moves)

    def _families(self, starts: Iterable[Rows], until: float) -> list[Rows]:
        seen: list[tuple[float, Rows]] = []
        minds = self.form == "turn"
        candidates = first_guesses(self.rule, self.n, self.f, minds, starts, self.numbers)
        while True:  # what is known is tried first, however little may be spent
            stack: dict[int, list[Rows]] = {}
            for rows in islice(candidates, self._together(4 * self.chains, 0.02)):
                for each in (rows, rows + 1e-4 * self.numbers.standard_normal(rows.shape)):
                    stack.setdefault(rows.shape[1], []).append(each)
            for same in stack.values():
                scored, errors = self.judged(self._loose(same))
                seen.extend((float(e), r) for e, r in zip(errors, scored.sets, strict=True) if e > -inf)
            seen = sorted(seen, key=lambda pair: -pair[0])[: 20 * ELITE]
            if self.ended or self.allowance.gone >= until:
                break
        spread = seen[: ELITE // 2] + seen[ELITE // 2 :: 39]  # the worst, and some that are less alike
        return [rows for _, rows in spread][:ELITE]

    def _population(self, elite: Sequence[Rows], d: int) -> list[Rows]:
        known = [in_dimension(rows, d) for rows in elite]
        return [
            known[at // 2 % len(known)] if known and at % 4 < 3 else self._random(d)
            for at in range(self._together(self.chains, 0.02))
        ]

    def _random(self, d: int) -> Rows:
        """Heavy or light tails, or a few clusters of random sizes."""
        rows = self.numbers.standard_normal((self.n, d))
        if self.numbers.random() < 0.5:
            centres = self.numbers.standard_normal((int(self.numbers.integers(2, 6)), d))
            rows = 0.01 * rows + centres[self.numbers.integers(len(centres), size=self.n)]
        return rows * np.exp(self.numbers.standard_normal((self.n, 1)))

    def anneal(
        self, population: P, until: float, warm: float, largest: float, islands: int = 1, lengths: int = 1
    ) -> None:
        """Mutate the population until `until` of what may be spent is gone, ever more reluctant to accept
        what is less bad.

        `warm` is the first temperature, of the logarithm of the error, `largest` the first size of a move. On
        each of the `islands` the least bad third gives way to the worst, now and then. Of a move the worst
        of so many `lengths` of the faulty rows' way counts, so that an edge which moved is found again.
        """
        population, errors = self.judged(population)
        begun, step = self.allowance.gone, 0
        while (gone := self.allowance.gone) < until and not self.ended:
            cool = 1e-3 ** ((gone - begun) / (until - begun))
            changed = population.mutated(largest * cool**0.5, self.numbers)
            proposed, offered = self.judged(changed.lengths(lengths, self.numbers))
            if lengths > 1:
                best = offered.view(-1, lengths).argmax(dim=1) + torch.arange(
                    0, len(offered), lengths, device="cpu"
                )
                proposed, offered = proposed.taken(best.numpy()), offered[best]
            chance = torch.from_numpy(self.numbers.random(len(errors))).log() * warm * cool
            accepted = offered.clamp(min=1e-30).log() - errors.clamp(min=1e-30).log() > chance
            population = population.chosen(proposed, accepted.numpy())
            errors = torch.where(accepted, offered, errors)
            step += 1
            if step % 25 == 0:
                order = survivors(errors, islands)
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
            if same and error >= figure * (1 - 1e-5) and (tie or self._shaken(rounded) >= STEADY * error):
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
