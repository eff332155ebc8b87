"""Objects of a kind that are alive in this process, whoever made them: found among all that there are."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any


def living(*kinds: type) -> list[Any]:
    """The instances of classes, and of those below them, that Python's collector knows.

    Classes are told by identity: asking `isinstance` of every object of a process that has loaded torch takes
    a second.

        >>> from byzopt.distributed.living import living
        >>> class Mine: ...
        >>> mine = Mine()
        >>> living(Mine) == [mine]
        True
    """
    known = {id(each) for kind in kinds for each in _below(kind)}
    return [each for each in gc.get_objects() if id(type(each)) in known]


def _below(kind: type) -> Iterator[type]:
    yield kind
    below: list[type] = type.__subclasses__(kind)
    for each in below:
        yield from _below(each)
