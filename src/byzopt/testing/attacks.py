"""What every attack promises: it forges the Byzantine rows, and touches nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.attacks import Adversary, Attack, OwnLoss
from byzopt.cohort import Cohort
from byzopt.rng import stream
from byzopt.testing.checks import Requirement, equal, holds, normal

ROUNDS = 4
PLACES: tuple[tuple[int, ...], ...] = ((0, 1), (2, 4), (5, 6), (3,), (0, 1, 2, 3, 4, 5))
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_LOSS = OwnLoss.of(lambda x: (x * x.sin()).sum())  # for attacks that know that of their own data


def messages(n: int = 7, d: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """What n workers mean to send in each round, `[n, d]`."""
    return [(normal(n, d, seed=t) + 1).to(dtype) for t in range(ROUNDS)]


def play(attack: Attack, cohort: Cohort, sent: Sequence[Tensor], f: int = 2) -> Iterator[tuple[Tensor, Any]]:
    """The rows `[n, d]` that a server receives, round by round, and the attack's states."""
    adversary = Adversary(attack, cohort, f)
    x = torch.linspace(1, 2, sent[0].shape[1], dtype=sent[0].dtype, device="cpu")
    state = adversary.start(x)
    for t, rows in enumerate(sent, start=1):
        seen = (state, t, x + t, rows, stream(0, "attack", t), _defence)
        out, state = adversary.forge_rows(*seen, losses=_LOSS)
        yield out, state


def received(attack: Attack, cohort: Cohort, sent: Sequence[Tensor]) -> list[Tensor]:
    """The rows that the server receives in all rounds."""
    return [rows for rows, _ in play(attack, cohort, sent)]


def replaces_byzantine_rows_alone(attack: Attack) -> None:
    """Only the rows of Byzantine workers are replaced, wherever these workers stand."""
    for place in PLACES:
        cohort, sent = Cohort.of(7, place), messages()
        honest = list(cohort.honest)
        for meant, got in zip(sent, received(attack, cohort, sent), strict=True):
            holds(got.shape == meant.shape, f"rows of shape {list(got.shape)}")
            holds(equal(got[honest], meant[honest]), f"other rows of honest workers, with liars {place}")


def keeps_the_dtype(attack: Attack) -> None:
    """Rows keep their dtype, whether it is float64, float32, bfloat16 or float16."""
    for dtype in DTYPES:
        rows = received(attack, Cohort.of(7, 2), messages(dtype=dtype))
        holds(all(each.dtype == dtype for each in rows), f"{rows[0].dtype} for {dtype}")


def writes_to_nothing(attack: Attack) -> None:
    """Messages, the iterate and earlier states are not written to: a round repeats from its state."""
    sent, x = messages(), torch.ones(5, dtype=torch.float64, device="cpu")
    before = [rows.clone() for rows in sent]
    adversary = Adversary(attack, Cohort.of(7, 2), 2)
    state = adversary.start(x)
    for t, rows in enumerate(sent, start=1):
        first, _ = adversary.forge_rows(state, t, x, rows, stream(0, t), _defence, losses=_LOSS)
        again, state = adversary.forge_rows(state, t, x, rows, stream(0, t), _defence, losses=_LOSS)
        holds(equal(first, again), f"other rows when round {t} is repeated from the same state")
    holds(equal(sent, before), "honest messages that were changed")
    holds(equal(x, torch.ones_like(x)), "an iterate that was changed")


def draws_from_its_generator_alone(attack: Attack) -> None:
    """Its generator is its only source of randomness; torch's global one is not used."""
    sent, cohort, before = messages(), Cohort.of(7, 2), torch.get_rng_state()
    try:
        torch.manual_seed(1)
        first = received(attack, cohort, sent)
        torch.manual_seed(2)
        held = torch.get_rng_state()
        second = received(attack, cohort, sent)
        holds(equal(held, torch.get_rng_state()), "a draw from torch's global generator")
        holds(equal(first, second), "other rows under another global seed")
    finally:
        torch.set_rng_state(before)


def reads_what_it_declares_alone(attack: Attack) -> None:
    """Messages of kinds that `knows` does not name do not change what it forges, nor does a loss."""
    cohort, sent = Cohort.of(7, 2), messages()
    hidden = [rows.clone() for rows in sent]
    for kind, workers in (("own", cohort.byzantine), ("honest", cohort.honest)):
        if kind not in attack.knows:
            for rows in hidden:
                rows[list(workers)] += 10
    liars = list(cohort.byzantine)
    a, b = ([rows[liars] for rows in received(attack, cohort, each)] for each in (sent, hidden))
    holds(equal(a, b), f"other rows for messages that it may not read, with knows = {sorted(attack.knows)}")


def keeps_the_structure_of_its_state(attack: Attack) -> None:
    """The state keeps its structure, shapes and dtypes in all rounds, so that checkpoints can hold it."""
    cohort, sent = Cohort.of(7, 2), messages(dtype=torch.bfloat16)
    begun = structure(attack.start(cohort, sent[0][0]))
    for _, state in play(attack, cohort, sent):
        holds(structure(state) == begun, f"{structure(state)} after {begun}")


def stays_finite_on_one_coordinate_and_on_zeros(attack: Attack) -> None:
    """Finite messages become finite rows: of one honest worker, of one coordinate, of zeros."""
    zeros = [torch.zeros(7, 5, dtype=torch.float64, device="cpu")] * ROUNDS
    for cohort, sent in ((Cohort.of(3, 2), messages(3, 1)), (Cohort.of(7, 2), zeros)):
        rows = received(attack, cohort, sent)
        holds(all(bool(each.isfinite().all()) for each in rows), "rows with NaN or Inf")


def does_nothing_without_liars(attack: Attack) -> None:
    """With no Byzantine worker all rows stay as they are, and so does the task."""
    sent, task = messages(), object()
    holds(equal(received(attack, Cohort.of(7), sent), sent), "rows that were changed")
    holds(Adversary(attack, Cohort.of(7), 2).poison(task) is task, "another task")


def structure(state: Any) -> Any:
    """Types, shapes and dtypes of a state."""
    if isinstance(state, Tensor):
        return tuple(state.shape), state.dtype
    if isinstance(state, tuple):
        return type(state).__name__, tuple(structure(part) for part in state)
    return type(state).__name__


def _defence(rows: Tensor) -> Tensor:
    return rows.median(dim=0).values


def _finite(attack: Attack) -> str:
    return "" if attack.finite else "It declares that its rows need not be finite."


PROMISES = (
    Requirement(replaces_byzantine_rows_alone),
    Requirement(keeps_the_dtype),
    Requirement(writes_to_nothing),
    Requirement(draws_from_its_generator_alone),
    Requirement(reads_what_it_declares_alone),
    Requirement(keeps_the_structure_of_its_state),
    Requirement(stays_finite_on_one_coordinate_and_on_zeros, _finite),
    Requirement(does_nothing_without_liars),
)
