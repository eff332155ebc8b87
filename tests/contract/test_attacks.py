"""What every registered attack promises. A new attack is tested by being registered."""

from __future__ import annotations

import pytest
import torch

from byzopt.attacks import ATTACKS
from byzopt.cohort import Cohort
from byzopt.testing import parametrize
from byzopt.testing.attacks import messages, received
from byzopt.testing.checks import equal

# Attacks that do not read the defence, whose own rounding would decide their search.
BLIND = [name for name in ATTACKS if not name.startswith("optimal")]


@parametrize(*(ATTACKS.build(name) for name in ATTACKS))
def test_what_every_attack_promises(check):
    check()


@pytest.mark.parametrize("name", BLIND)
def test_half_precision_is_the_rounded_single_precision(name: str) -> None:
    half = messages(dtype=torch.bfloat16)
    cohort, attack = Cohort.of(7, 2), ATTACKS.build(name)
    single = received(attack, cohort, [rows.float() for rows in half])
    assert equal(received(attack, cohort, half), [rows.bfloat16() for rows in single])
