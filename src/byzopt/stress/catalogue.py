"""The attacks of the ensemble, in the order in which they are tried, and others that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from byzopt.aggregators.core.spelling import stages_of
from byzopt.attacks import ATTACKS
from byzopt.attacks.limited import Threat
from byzopt.errors import InvalidInput, UnknownName, require, unknown
from byzopt.experiments.specs.overrides import anchor
from byzopt.registry import plain
from byzopt.tasks import Task

NO_ATTACK = "no attack"
# By the name under which they are shown. One searched attack, the cheap ones, then all other searched ones.
ENSEMBLE: dict[str, Mapping[str, Any]] = {
    "searched: cos": {"name": "autobyz", "objective": "cos"},
    "ipm x10": {"name": "ipm", "scale": 10.0},
    "ipm x0.5": {"name": "ipm", "scale": 0.5},
    "alie": {"name": "alie", "z": 1.5},
    "mimic": {"name": "mimic_variance"},
    "min-max": {"name": "min_max"},
    "sign flip": {"name": "sign_flip"},
    "label flip": {"name": "label_flip"},
    "turned signs": {"name": "turned_signs", "against": "shrink"},
    "searched: shrink": {"name": "autobyz", "objective": "shrink"},
    "searched: workers": {"name": "autobyz", "objective": "workers"},
    "searched: drift": {"name": "autobyz", "objective": "drift"},
    "searched: bias": {"name": "autobyz", "objective": "bias"},
    "searched: dist": {"name": "autobyz", "objective": "dist"},
    "optimal ipm": {"name": "optimal_ipm"},
    "optimal alie": {"name": "optimal_alie"},
    "trapsetter": {"name": "trapsetter"},
}
# What a task must have, without which an attack is left out.
NEEDS = {"label flip": "the task has no labels", "trapsetter": "the task tells no worker's loss"}
# They ask the rule, or for losses, many times a round.
LATER = ("autobyz", "optimal_ipm", "optimal_alie", "trapsetter")


def ensemble(
    task: Task, threat: Threat = "omniscient", only: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]]:
    """The attacks that can be made on a task by attackers who know what `threat` says, by name.

    Label flipping is left out where a task has no labels, and Trapsetter where it tells no worker's loss,
    unless they were asked for by name. `only` names those
    that are wanted, default all of the ensemble: its names, and beside them any registered attack (`ipm`,
    `"ipm(scale=3)"`) and attacks of one's own (`"parts.py:Swing"`). Where the ensemble and the registry share
    a name it is the ensemble's.

    Args:
        task: Whose attacks are asked for.
        threat: What attackers know.
        only: Names of the attacks that are wanted; empty: all.

    Returns:
        Each attack as plain data, by name.

    Raises:
        InvalidInput: An unknown threat, what is no attack, flipped labels where a task has none, or a trap
            where it tells no loss.
        UnknownName: An unknown attack.

    Examples:
        >>> from byzopt import Cohort, Quartic
        >>> from byzopt.stress import ensemble
        >>> "label_flip" in ensemble(Quartic().build(Cohort.of(10, 2), seed=0))  # there are no labels
        False
    """
    known = get_args(Threat)
    require(threat in known, "The threat model", f"be one of {', '.join(known)}", repr(threat))
    attacks = {name: _attack(name) for name in only or ENSEMBLE}
    for name, has, what in (("label flip", _labelled, "have labels"), ("trapsetter", _tells, "tell losses")):
        if name in attacks and not has(task):
            require(not only, f"The task of {name!r}", what, "none", "Leave that attack out.")
            del attacks[name]
    if threat == "omniscient":
        return attacks
    return {name: {"name": "limited", "attack": dict(a), "threat": threat} for name, a in attacks.items()}


def is_searched(attack: Mapping[str, Any]) -> bool:
    """Whether an attack, as plain data, is among those that cost far more than a round of training."""
    inner = attack.get("attack", attack)
    return isinstance(inner, Mapping) and inner["name"] in LATER


def is_cheap(name: str) -> bool:
    """Whether an attack is known to cost about what a training without attack costs: one's own may not."""
    return name == NO_ATTACK or (name in ENSEMBLE and not is_searched(ENSEMBLE[name]))


def _attack(text: str) -> Mapping[str, Any]:
    """The attack of the ensemble, the registry or a user's file that a text names, as plain data."""
    if text in ENSEMBLE:
        return ENSEMBLE[text]
    try:
        (stage,) = stages_of(text)
    except ValueError:  # no spelling of a single part
        stage = text
    try:
        attack = plain(ATTACKS.build(anchor(stage, Path())))
    except UnknownName as error:
        raise (unknown("attack", text, sorted({*ENSEMBLE, *ATTACKS})) if stage == text else error) from None
    tried = "be one that attacks: without any is always tried"
    require(attack["name"] != "none", "An attack to try", tried, repr(text))
    return dict(attack)


def _labelled(task: Task) -> bool:
    try:
        task.relabelled(task.cohort.byzantine, lambda labels, classes: classes - 1 - labels)
    except InvalidInput:
        return False
    return True


def _tells(task: Task) -> bool:
    try:
        task.loss_of(task.start(), task.cohort.byzantine)
    except InvalidInput:
        return False
    return True
