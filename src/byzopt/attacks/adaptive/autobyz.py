"""AutoByz: each round the worst rows that a search finds against the live defence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.adaptive.candidates import candidates
from byzopt.attacks.adaptive.scene import EXTRAS, Scene, scene, unit
from byzopt.attacks.adaptive.search import Best, evolve, refine
from byzopt.attacks.adaptive.trials import SPACES, Ask, Guard, Trials, seen
from byzopt.attacks.base import ATTACKS, Knowledge, Remembering, View
from byzopt.cohort import Cohort

Objective = Literal["cos", "drift", "bias", "workers", "shrink", "dist"]
Budget = Literal["cheap", "full"]
KEPT = 6  # winners of a round with which the next one begins
DECAY = 0.98  # of the long-run mean
SHORT = 1e-3  # of the spread: answers that are shorter are taken for shorter than they are
SHARP = 30.0  # cosines beyond a thirtieth count as for or against a worker
LARGEST = 1e100  # length of all honest rows beyond which squares of theirs may overflow
JITTER = 1e-6  # of the spread: ties of exact copies decide no candidate
KEPT_NUMBERS = 1 << 18  # of jitter that is kept from round to round: two megabytes


class Memory(NamedTuple):
    """Long-run mean `[d]` of the honest mean, and of the variance for "bias"; the last winners
    `[6, b, h + 6]`; the space."""

    mean: Tensor
    variance: Tensor
    last: Tensor
    space: Tensor


@ATTACKS.register("autobyz")
@dataclass(frozen=True)
class AutoByz(Remembering):
    """The rows of most harm this round that a search finds against the server's rule as it stands.

    Faulty rows are m + C D: m the honest mean, D the honest deviations and six directions of the honest
    spread (`scene`), C searched: about a hundred first guesses (`candidates`), two rounds of refinement, and
    with `budget = "full"` an evolution strategy. Answers are taken in few coordinates where the rule is seen
    to give the same there: in the span of the rows for rules that commute with rotations; in 256 columns,
    drawn with chances as the square sums in them, and distances beside these, for coordinate rules (the best
    six then on whole rows); else on whole rows. The six winners of a round are tried again in the next one.
    Rules that draw lots are asked with draws of the attacker's own, but inside a guard, whose lots are known.
    What a rule refuses is a candidate that fails, and so is what a guard would expel a faulty worker for, if
    it came in this round and again in the next: who spends at once what a guard bears is soon gone. The guard
    is asked as its memory stands, which is brought into the same few coordinates. On a graph, whose rows are
    places, the moves of the nodes stand for rows and answers.

    `objective`: `"cos"` the least cosine between answer and m, by which a normalised step suffers; `"drift"`
    the least cosine with the long-run mean of m; `"bias"` the answer along one lasting direction, the
    long-run standard deviation; `"workers"` that the answer points against the own rows of as many honest
    workers as can be, by however little, which costs accuracy where data differ (a large loss may be that of
    a few of them); `"shrink"` the least cosine with m / ‖m‖ - x / ‖x‖, by which steps lead uphill and the
    model x towards 0. A network near 0 says the same of everything: what workers with unlike data then ask
    for differs most and has nearly no mean, so that there the rule is weak and the training stays; `"dist"`
    the largest distance of the answer from m, by which steps suffer that are as long as the answer. The
    attack proper is the worst of the objectives over whole runs. Nothing else is to be set. A heuristic: a
    lower bound on the worst rows. **Not searched**: what is no mixture of rows, as zeros where a worker's
    network has not fired. A rule that goes by these (`signguard`) sees all that is found, and falls to
    `turned_signs`.

    The idea of "shrink", lies that lead back instead of merely away, is that of Malinovsky et al.,
    arXiv:2311.14127, Section 5, whose liars lead back to the start.

    Cost: one to three hundred answers a round, most of them to a few coordinates.

    Args:
        objective: What is searched for: "cos", "drift", "bias", "workers", "shrink" or "dist".
        budget: "full", or one that leaves out the evolution strategy.

    Examples:
        >>> import torch
        >>> from byzopt import AutoByz, Median
        >>> rows = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)) + 1
        >>> rule = Median(f=2)
        >>> attacked = AutoByz()(rows, byzantine=2, rule=rule)
        >>> mean = rows[:7].mean(0)
        >>> bool((rule(attacked) - mean).norm() > (rule(rows) - mean).norm())
        True
    """

    objective: Objective = "cos"
    budget: Budget = "full"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest", "defence"})
    searches = True

    def start(self, cohort: Cohort, x: Tensor) -> Memory:
        zeros = torch.zeros(x.shape, dtype=torch.float64, device="cpu")
        shape = KEPT, len(cohort.byzantine), len(cohort.honest) + EXTRAS
        last = torch.zeros(shape, dtype=torch.float64, device="cpu")
        return Memory(zeros, zeros, last, torch.tensor(-1, device="cpu"))

    def step(self, state: Memory, view: View, generator: torch.Generator) -> tuple[Tensor, Memory]:
        honest = view.honest
        origin = view.x.double().cpu() if view.places else None
        rows = honest.double().cpu() if origin is None else honest.double().cpu() - origin
        if not float(torch.linalg.vector_norm(rows)) < LARGEST:  # the run is ending by itself
            return view.alike(honest.mean(dim=-2)), state
        mean, weight = rows.mean(dim=0), max(1 - DECAY, 1 / view.t)
        long = state.mean + weight * (mean - state.mean)
        variance = state.variance
        if self.objective == "bias":
            variance = variance + weight * (rows.var(dim=0, correction=0) - variance)
        shrinking = view.x.to(rows) if origin is None else -origin  # a step is minus a row, a move is one
        guard = _guard(view)
        whole = scene(rows, long, self._aim(rows, shrinking, mean, long, variance), _remembered(view))
        asks = _asks(view, origin)
        trials = Trials(asks, view.cohort.honest, view.cohort.byzantine, guard, _hides(view))
        best, space = self._search(whole, trials, state, view.b, generator)
        if not bool((rows != rows[0]).any()):  # of equal rows all spaces give the same: a later round tells
            space = -1
        forged = _jittered(whole, best[0])
        forged = (forged if origin is None else forged + origin).to(honest.device)
        return forged, Memory(long, variance, best, torch.tensor(space, device="cpu"))

    def _aim(self, rows: Tensor, shrinking: Tensor, mean: Tensor, long: Tensor, variance: Tensor) -> Tensor:
        """The direction against which the answer is turned; of all workers, the mean of theirs. An answer
        along `shrinking` leads the model towards 0."""
        if self.objective == "workers":
            lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            return torch.mean(rows / lengths.clamp_min(1e-300), dim=0)
        if self.objective == "shrink":
            return unit(mean) - unit(shrinking)
        return {"cos": mean, "dist": mean, "drift": long, "bias": -variance.sqrt()}[self.objective]

    def _search(
        self, whole: Scene, trials: Trials, state: Memory, b: int, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        first = candidates(whole, b, state.last, generator)
        space = int(state.space)
        if space < 0:
            space = SPACES.index(trials.space(whole, first[[1, 7, len(first) // 2]], generator))
        small = seen(whole, SPACES[space], generator)
        best = Best(lambda c: self._harm(small, trials, c), first)
        refine(best)
        if self.budget == "full" and SPACES[space] != "whole":
            evolve(best, generator)
        if SPACES[space] == "columns":
            best = Best(lambda c: self._harm(whole, trials, c), best.top(KEPT))
        return best.top(KEPT), space

    def _harm(self, at: Scene, trials: Trials, coefficients: Tensor) -> Tensor:
        """How much harm each candidate does `[K]`, on average over the defence's draws."""
        answers = trials.answers(at, coefficients)
        if self.objective == "workers":
            return at.opposed(answers, SHORT, SHARP).mean(dim=0)
        if self.objective == "dist":
            return at.distances(answers).mean(dim=0)
        return -at.cosines(answers, SHORT).mean(dim=0)


def _jittered(whole: Scene, best: Tensor) -> Tensor:
    """The winner's rows `[b, d]`, no two of them equal to the last bit."""
    rows = whole.rows(best)
    noise = _kept_noise(*rows.shape) if rows.numel() <= KEPT_NUMBERS else _noise(*rows.shape)
    jittered: Tensor = rows + JITTER * whole.spread / rows.shape[1] ** 0.5 * noise
    return jittered


def _noise(b: int, d: int) -> Tensor:
    drawn = torch.Generator("cpu").manual_seed(0)
    return torch.randn(b, d, dtype=torch.float64, generator=drawn, device="cpu")


_kept_noise = lru_cache(maxsize=4)(_noise)


def _asks(view: View, origin: Tensor | None) -> list[Ask]:
    """The defence as functions of sets of rows `[K, n, k]`, measured from `origin` as its answers are, and of
    what it remembers: one for each draw of the attacker's own."""
    defence = _defence(view)
    draws = getattr(defence, "draws", None)  # of a rule in a defence's place it is a trait
    known = draws() if callable(draws) else [defence]
    return [_ask(each, origin) for each in known]


def _ask(defence: Any, origin: Tensor | None) -> Ask:
    batch: Callable[..., Tensor] = getattr(defence, "batch", None) or _stacked(defence)

    def ask(sets: Tensor, vectors: Tensor | None) -> Tensor:
        if origin is not None:
            return batch(sets + origin).to(origin) - origin
        return batch(sets) if vectors is None else batch(sets, vectors)

    return ask


def _guard(view: View) -> Guard | None:
    """The defence, if it may expel workers."""
    defence = _defence(view)
    return defence if getattr(defence, "expels", False) else None


def _remembered(view: View) -> Tensor | None:
    """What the defence says that it remembers, `[m, d]`."""
    told: Tensor | None = getattr(_defence(view), "vectors", None)
    return told


def _hides(view: View) -> bool:
    """Whether it may remember what it does not say."""
    return bool(getattr(_defence(view), "hides", False))


def _defence(view: View) -> Any:
    return getattr(view.defence, "single", view.defence)


def _stacked(defence: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda sets: torch.stack([defence(rows) for rows in sets])
