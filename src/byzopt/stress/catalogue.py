"""The attacks of the ensemble, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from byzopt.attacks.limited import Threat
from byzopt.errors import InvalidInput, require, unknown
from byzopt.tasks import Task

NO_ATTACK = "no attack"
# By the name under which they are shown. Searched ones first: a short budget leaves the others unmeasured.
ENSEMBLE: dict[str, Mapping[str, Any]] = {
    "searched: cos": {"name": "autobyz", "objective": "cos"},
    "searched: drift": {"name": "autobyz", "objective": "drift"},
    "ipm x10": {"name": "ipm", "scale": 10.0},
    "ipm x0.5": {"name": "ipm", "scale": 0.5},
    "alie": {"name": "alie", "z": 1.5},
    "mimic": {"name": "mimic_variance"},
    "min-max": {"name": "min_max"},
    "sign flip": {"name": "sign_flip"},
    "label flip": {"name": "label_flip"},
    "searched: bias": {"name": "autobyz", "objective": "bias"},
    "optimal ipm": {"name": "optimal_ipm"},
    "optimal alie": {"name": "optimal_alie"},
}


def ensemble(
    task: Task, threat: Threat = "omniscient", only: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]]:
    """The attacks that can be made on a task by attackers who know what `threat` says, by name.

    Label flipping is left out where a task has no labels. `only` names those that are wanted; default: all.
    Errors: `InvalidInput` for an unknown threat, `UnknownName` for an unknown attack.

    Args:
        task: Whose attacks are asked for.
        threat: What attackers know.
        only: Names of the attacks that are wanted; empty: all.

    Returns:
        Each attack as plain data, by name.

    Raises:
        InvalidInput: An unknown threat.
        UnknownName: An unknown attack.

    Examples:
        >>> from byzopt import Cohort, Quartic
        >>> from byzopt.stress import ensemble
        >>> "label_flip" in ensemble(Quartic().build(Cohort.of(10, 2), seed=0))  # there are no labels
        False
    """
    for name in only:
        if name not in ENSEMBLE:
            raise unknown("attack of the ensemble", name, list(ENSEMBLE))
    known = get_args(Threat)
    require(threat in known, "The threat model", f"be one of {', '.join(known)}", repr(threat))
    attacks = {name: attack for name, attack in ENSEMBLE.items() if not only or name in only}
    if "label flip" in attacks and not _labelled(task):
        del attacks["label flip"]
    if threat == "omniscient":
        return attacks
    return {name: {"name": "limited", "attack": dict(a), "threat": threat} for name, a in attacks.items()}


def _labelled(task: Task) -> bool:
    try:
        task.relabelled(task.cohort.byzantine, lambda labels, classes: classes - 1 - labels)
    except InvalidInput:
        return False
    return True
