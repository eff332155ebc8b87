"""What every registered attack keeps, whatever its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt.attacks import ATTACKS, Adversary, Attack
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.registry import plain
from byzopt.rng import stream

NAMES = list(ATTACKS)
# Attacks whose messages are numbers whenever those of the honest are.
FINITE = [name for name in NAMES if name not in ("nan", "inf", "crash")]
# Attacks that do not read the defence, whose own rounding would decide their search.
BLIND = [name for name in NAMES if not name.startswith("optimal")]
PLACES = {"front": (0, 1), "middle": (2, 4), "end": (5, 6), "one": (3,), "most": (0, 1, 2, 3, 4, 5)}
ROUNDS = 4


def middle(rows: Tensor) -> Tensor:
    return rows.median(dim=0).values


def messages(t: int, n: int = 7, d: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    rows = torch.randn(n, d, generator=stream(3, "rows", t), dtype=torch.float64) + 1
    return rows.to(dtype)


def play(
    attack: Attack, cohort: Cohort, sent: list[Tensor], seed: int = 0, f: int = 2
) -> Iterator[tuple[Tensor, Any]]:
    """What the server gets in rounds 1, 2, ... when workers mean to send `sent`, and the attack's states."""
    adversary = Adversary(attack, cohort, f)
    d = sent[0].shape[1]
    x = torch.linspace(1, 2, d, dtype=sent[0].dtype)
    state = adversary.start(x)
    for t, rows in enumerate(sent, start=1):
        out, state = adversary.speak(state, t, x + t, rows, stream(seed, "attack", t), middle)
        yield out, state


def received(attack: Attack, cohort: Cohort, sent: list[Tensor], seed: int = 0) -> list[Tensor]:
    return [rows for rows, _ in play(attack, cohort, sent, seed)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x.nan_to_num(7.5), y.nan_to_num(7.5)) for x, y in zip(a, b, strict=True))


def structure(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.shape, state.dtype
    if isinstance(state, tuple):
        return type(state), [structure(part) for part in state]
    return type(state)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_only_byzantine_rows_are_replaced(name: str, place: str) -> None:
    cohort = Cohort.of(7, PLACES[place])
    sent = [messages(t) for t in range(ROUNDS)]
    for meant, got in zip(sent, received(ATTACKS.build(name), cohort, sent), strict=True):
        assert got.shape == meant.shape
        assert torch.equal(got[list(cohort.honest)], meant[list(cohort.honest)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    sent = [messages(t, dtype=dtype) for t in range(ROUNDS)]
    assert all(rows.dtype == dtype for rows in received(ATTACKS.build(name), Cohort.of(7, 2), sent))


@pytest.mark.parametrize("name", BLIND)
def test_half_precision_is_the_rounded_single_precision(name: str) -> None:
    half = [messages(t, dtype=torch.bfloat16) for t in range(ROUNDS)]
    cohort = Cohort.of(7, 2)
    single = received(ATTACKS.build(name), cohort, [rows.float() for rows in half])
    assert same(received(ATTACKS.build(name), cohort, half), [rows.bfloat16() for rows in single])


@pytest.mark.parametrize("name", NAMES)
def test_messages_and_states_are_not_written_to(name: str) -> None:
    sent = [messages(t) for t in range(ROUNDS)]
    before = [rows.clone() for rows in sent]
    adversary = Adversary(ATTACKS.build(name), Cohort.of(7, 2), 2)
    x = torch.ones(5, dtype=torch.float64)
    state = adversary.start(x)
    for t, rows in enumerate(sent, start=1):
        first, _ = adversary.speak(state, t, x, rows, stream(0, t), middle)
        again, state = adversary.speak(state, t, x, rows, stream(0, t), middle)
        assert same([first], [again])
    assert same(sent, before)
    assert torch.equal(x, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_equal_generators_give_equal_rows_whatever_the_global_one_does(name: str) -> None:
    sent = [messages(t) for t in range(ROUNDS)]
    cohort = Cohort.of(7, 2)
    torch.manual_seed(1)
    one = received(ATTACKS.build(name), cohort, sent)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(one, received(ATTACKS.build(name), cohort, sent))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_declared_changes_nothing(name: str) -> None:
    attack, cohort = ATTACKS.build(name), Cohort.of(7, 2)
    sent = [messages(t) for t in range(ROUNDS)]
    hidden = [rows.clone() for rows in sent]
    for kind, workers in (("own", cohort.byzantine), ("honest", cohort.honest)):
        if kind not in attack.knows:
            for rows in hidden:
                rows[list(workers)] += 10
    liars = list(cohort.byzantine)
    seen = [[r[liars] for r in received(attack, cohort, rows)] for rows in (sent, hidden)]
    assert same(*seen)


@pytest.mark.parametrize("name", NAMES)
def test_state_keeps_its_structure(name: str) -> None:
    attack, cohort = ATTACKS.build(name), Cohort.of(7, 2)
    sent = [messages(t, dtype=torch.bfloat16) for t in range(ROUNDS)]
    begun = attack.start(cohort, sent[0][0])
    for _, state in play(attack, cohort, sent):
        assert structure(state) == structure(begun)


@pytest.mark.parametrize("name", FINITE)
def test_one_honest_worker_and_one_coordinate_give_numbers(name: str) -> None:
    sent = [messages(t, n=3, d=1) for t in range(ROUNDS)]
    rows = received(ATTACKS.build(name), Cohort.of(3, 2), sent)
    assert all(r.isfinite().all() for r in rows)


@pytest.mark.parametrize("name", FINITE)
def test_zero_rows_give_no_new_nan(name: str) -> None:
    sent = [torch.zeros(7, 5, dtype=torch.float64) for _ in range(ROUNDS)]
    rows = received(ATTACKS.build(name), Cohort.of(7, 2), sent)
    assert all(r.isfinite().all() for r in rows)


@pytest.mark.parametrize("name", NAMES)
def test_without_attackers_rows_stay_as_they_are(name: str) -> None:
    sent = [messages(t) for t in range(ROUNDS)]
    assert same(received(ATTACKS.build(name), Cohort.of(7), sent), sent)
    task = object()
    assert Adversary(ATTACKS.build(name), Cohort.of(7), 2).poison(task) is task


@pytest.mark.parametrize("name", NAMES)
def test_recipe_survives_plain_data(name: str) -> None:
    attack = ATTACKS.build(name)
    assert ATTACKS.build(plain(attack)) == attack
    with pytest.raises(InvalidInput):
        ATTACKS.build({"name": name, "no_such_key": 1})


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_written_by_a_person(name: str) -> None:
    cls = ATTACKS[name]
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}(")
