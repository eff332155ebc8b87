"""Where an attack may search against the server's rule: where the rule combines the rows that it sees."""

from __future__ import annotations

from byzopt.attacks import Attack, Placement
from byzopt.errors import require
from byzopt.intakes import Intake
from byzopt.wire import Channel, Direct, Identity

PLAIN = "Take an attack that does not search (alie, ipm, sign_flip)"


def check_wire(attack: Attack, placement: Placement, wire: Channel) -> None:
    """Raise `InvalidInput` for an attack that searches in front of a wire that changes what it sends."""
    whole = type(wire) is Direct and type(wire.compressor) is Identity
    require(
        placement == "free" or whole or not attack.searches,
        _who(attack),
        "have placement 'free': behind this wire the rule gets other rows",
        repr(placement),
        f"{PLAIN}, or placement = 'free'.",
    )


def check_heard(attack: Attack, intake: Intake) -> None:
    """Raise `InvalidInput` for an attack that searches where an intake is the rule."""
    require(
        intake.uses_rule or not attack.searches,
        _who(attack),
        "have a rule that combines rows",
        f"intake {intake.name!r}, which judges each row as it comes",
        f"{PLAIN}, or intake 'unique'.",
    )


def _who(attack: Attack) -> str:
    name = getattr(attack, "name", type(attack).__name__)
    return f"Attack {name!r}, which searches for rows against the server's rule,"
