"""Attacks on clocks: what liars send, and when."""

from byzopt.attacks.clocks.base import CLOCK_ATTACKS, ClockAttack
from byzopt.attacks.clocks.paces import Flooding, LatePoison, Silence

__all__ = ["CLOCK_ATTACKS", "ClockAttack", "Flooding", "LatePoison", "Silence"]
