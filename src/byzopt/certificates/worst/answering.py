"""A rule's answers to many sets of rows, of which it may refuse some."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.errors import ByzoptError


class Answering:
    """A rule whose faulty rows come first, though the workers `faulty` send them: `order` says who sends
    what. By default these are the first whom the rule does not trust.

    `failures` holds the messages of errors without a name, and of answers that are not finite; `refusals`
    counts the sets that the rule refused by a named error.
    """

    def __init__(self, rule: Aggregator, n: int, f: int, faulty: Sequence[int] | None = None) -> None:
        self.rule = rule
        if faulty is None:
            faulty = [worker for worker in range(n) if worker not in rule.trusts][:f]
        senders = [*faulty] + [worker for worker in range(n) if worker not in faulty]
        self.faulty = tuple(faulty)
        self.order = torch.tensor(senders, device="cpu").argsort()  # row i is worker i's
        self.failures: dict[str, Tensor] = {}
        self.refusals = 0

    def sent(self, rows: Tensor) -> Tensor:
        """Rows `[..., n, d]` in the order of the workers."""
        return rows[..., self.order, :]

    def __call__(self, rows: Tensor) -> Tensor:
        """The answers `[R, d]` to `rows` `[R, n, d]`, NaN where there is none."""
        sent = self.sent(rows)
        try:
            answers = self.rule.batch(sent)
        except Exception:  # one of the sets: which, and why, is seen one by one
            answers = torch.stack([self._alone(each) for each in sent])
        for at in (~answers.isfinite().all(dim=1)).nonzero().flatten().tolist():
            if not answers[at].isnan().all():
                self.failures.setdefault("The answer is not finite", sent[at])
        return answers

    def _alone(self, sent: Tensor) -> Tensor:
        try:
            answer = self.rule(sent)
        except ByzoptError:
            self.refusals += 1
        except Exception as error:
            self.failures.setdefault(f"{type(error).__name__}: {error}", sent)
        else:
            return torch.where(answer.isnan().all(), torch.inf, answer)  # NaN throughout means: no answer
        return torch.full(sent.shape[1:], torch.nan, dtype=sent.dtype, device="cpu")
