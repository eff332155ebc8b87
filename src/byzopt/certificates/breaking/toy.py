"""Rows, an attack on them, the rule's answer, and how far that is from the honest mean."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators import Aggregator
from byzopt.attacks import Adversary, Attack, Remembering
from byzopt.certificates.breaking.finding import EvaluationFailed, EvaluationStatus, Finding
from byzopt.certificates.breaking.rows import ROWS
from byzopt.cohort import Cohort
from byzopt.errors import BadAnswer, ByzoptError, unknown
from byzopt.registry import plain
from byzopt.rng import stream

ROUNDS = 8  # that an attack with memory gets
PACE = 0.1  # of the toy iterate that the live answers move
FAR = 1e8  # from where on it dwarfs the honest rows' dispersion, and the evaluation ends


@dataclass(frozen=True)
class OneRound:
    """One round (several, where an attack has memory): errors of the answer over the honest dispersion.

    Workers 0 .. f - 1 are Byzantine, which favours them in ties. `squared` is ‖a - v̄‖² over mean‖v_i - v̄‖²,
    `linear` ‖a - v̄‖ over mean‖v_i - v̄‖, honest rows v_i only; the worst round counts.
    """

    rule: Aggregator
    n: int
    f: int
    d: int
    forms = ("squared", "linear")
    budget = 10_000

    @property
    def places(self) -> tuple[str, ...]:
        """Kinds of honest rows."""
        return tuple(ROWS)

    def play(self, attack: Attack, rows: str, seed: int) -> Finding:
        """The finding of one evaluation."""
        if rows not in ROWS:
            raise unknown("kind of rows", rows, list(ROWS))
        try:
            worst = self._rounds(attack, rows, seed)
        except EvaluationFailed as end:
            return Finding(plain(attack), rows, seed, end.verdict, message=str(end))
        return Finding(plain(attack), rows, seed, EvaluationStatus.MEASURED, worst)

    def _rounds(self, attack: Attack, rows: str, seed: int) -> dict[str, float]:
        adversary = Adversary(attack, Cohort.of(self.n, range(self.f)), self.f)
        x = torch.zeros(self.d, dtype=torch.float64, device="cpu")
        state, worst = adversary.start(x), dict.fromkeys(self.forms, 0.0)
        for t in range(1, (ROUNDS if isinstance(attack, Remembering) else 1) + 1):
            rule = self.rule.at(t)
            meant = x + ROWS[rows](self.n, self.f, self.d, stream(seed, "break", rows, t))
            generator = stream(seed, "break", "attack", t)
            try:
                sent, state = adversary.forge_rows(state, t, x, meant, generator, rule)
            except ByzoptError as error:
                raise EvaluationFailed(EvaluationStatus.UNFIT, error) from None
            except Exception as error:  # an attack that searches calls the rule
                raise EvaluationFailed(EvaluationStatus.BROKEN, error) from error
            answer = _answer(rule, sent)
            seen = error_ratios(answer, meant[self.f :])
            worst = {form: max(worst[form], seen[form]) for form in self.forms}
            x = x - PACE * answer
            if float(linalg.norm(x)) > FAR:
                break
        return worst


def error_ratios(answer: Tensor, honest: Tensor) -> dict[str, float]:
    """The squared and the linear ratio of an answer `[d]` to honest rows `[h, d]`.

    Equal honest rows leave no error: then a ratio is 0 up to rounding, and infinite beyond.
    """
    mean = honest.mean(dim=0)
    away, spread = float(linalg.norm(answer - mean)), torch.linalg.vector_norm(honest - mean, dim=1)
    rounding = 16 * torch.finfo(honest.dtype).eps * float(honest.abs().max())
    if float(spread.max()) <= rounding:
        ratio = 0.0 if away <= rounding * honest.shape[1] else inf
        return {"squared": ratio, "linear": ratio}
    linear = away / float(spread.mean())
    rooted = away / float(spread.square().mean().sqrt())
    return {"squared": rooted * rooted, "linear": linear}


def _answer(rule: Aggregator, sent: Tensor) -> Tensor:
    try:
        answer = rule(sent)
    except BadAnswer as error:
        raise EvaluationFailed(EvaluationStatus.BROKEN, error) from None
    except ByzoptError as error:
        raise EvaluationFailed(EvaluationStatus.REFUSED, error) from None
    except Exception as error:
        raise EvaluationFailed(EvaluationStatus.BROKEN, error) from error
    if answer.shape != sent.shape[1:] or not answer.isfinite().all():
        raise EvaluationFailed(EvaluationStatus.BROKEN, f"The answer is not finite: {answer[:8].tolist()}.")
    return answer
