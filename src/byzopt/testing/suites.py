"""Which promises are asked of which part, and three ways to ask them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from byzopt.aggregators import Aggregator, PreAggregator
from byzopt.attacks import Attack
from byzopt.errors import InvalidInput, said
from byzopt.methods import MethodRecipe
from byzopt.tasks.base import TaskRecipe
from byzopt.testing import attacks, compressors, methods, recipes, rules, stages, tasks
from byzopt.testing.checks import BrokenPromise, Check, Requirement, Verified, label
from byzopt.wire import Compressor

SUITES: dict[type, tuple[Requirement, ...]] = {
    Aggregator: rules.PROMISES,
    PreAggregator: stages.PROMISES,
    Attack: attacks.PROMISES,
    TaskRecipe: tasks.PROMISES,
    MethodRecipe: methods.PROMISES,
    Compressor: compressors.PROMISES,
}


def promises_of(part: Any) -> tuple[Requirement, ...]:
    """What is promised of a part of this kind. Errors: `InvalidInput` for what is no part."""
    for kind, promises in SUITES.items():
        if isinstance(part, kind):
            return (*recipes.PROMISES, *promises)
    kinds = ", ".join(kind.__name__ for kind in SUITES)
    raise InvalidInput(f"A part to check should be an instance of one of {kinds}. Found {said(part)}.")


def checks_of(*parts: Any) -> list[Check]:
    """The checks of these parts: of each, every promise that applies to it.

    Args:
        parts: Rules, attacks and other parts.

    Returns:
        The checks, to be called one by one.

    Examples:
        >>> from byzopt.aggregators import Median
        >>> from byzopt.testing import checks_of
        >>> len(checks_of(Median(f=2))) > 10
        True
    """
    return [
        Check(part, promise) for part in parts for promise in promises_of(part) if not promise.spares(part)
    ]


def left_out(part: Any) -> dict[str, str]:
    """Promises that are not asked of this part, with the reason: what it declares of itself.

    Args:
        part: A rule, an attack or another part.

    Returns:
        The reason, by the promise's name.

    Examples:
        >>> from byzopt.aggregators import Median
        >>> from byzopt.testing import left_out
        >>> isinstance(left_out(Median(f=1)), dict)
        True
    """
    return {p.name: why for p in promises_of(part) if (why := p.spares(part))}


def parametrize(*parts: Any) -> Callable[[Any], Any]:
    """A decorator for pytest: the test function is called with each `check` of these parts.

    A number tells the ids of several parts of one name apart. Needs pytest.

    Args:
        parts: Rules, attacks and other parts.

    Returns:
        The decorator.

    Examples:
        In a test file:

            @parametrize(MyRule(f=1), MyAttack())
            def test_promises(check):
                check()
    """
    import pytest  # tests have it; the library does not need it

    checks = checks_of(*parts)
    labels = [label(part) for part in parts]
    numbers = {id(p): f"{i}-" for i, p in enumerate(parts) if labels.count(labels[i]) > 1}
    ids = [numbers.get(id(check.part), "") + check.name for check in checks]
    decorator: Callable[[Any], Any] = pytest.mark.parametrize("check", checks, ids=ids)
    return decorator


def verify(part: Any) -> Verified:
    """Asks a part for everything that its kind promises.

    Args:
        part: A rule, an attack or another part.

    Returns:
        The promises kept, and those left out with the reason.

    Raises:
        BrokenPromise: Some are broken; it lists all of them.

    Examples:
        >>> from byzopt.aggregators import Median
        >>> from byzopt.testing import verify
        >>> "inputs_are_not_written_to" in verify(Median(f=2)).kept
        True
    """
    kept, broken = [], []
    for check in checks_of(part):
        try:
            check()
            kept.append(check.promise.name)
        except BrokenPromise as error:
            broken.append(str(error))
    if broken:
        raise BrokenPromise("\n".join(broken))
    return Verified(tuple(kept), left_out(part))
