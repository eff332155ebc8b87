"""What lies in the files that a run reads: noted with it, so that a run that was begun on other content under
the same path is neither gone on with nor shown as this one."""

from __future__ import annotations

from collections.abc import Mapping

from byzopt.errors import ByzoptError, ChangedFile
from byzopt.experiments.specs.spec import Spec


def content_of(spec: Spec) -> dict[str, str]:
    """What the files of a spec's tasks and of its variants' hold, by name. Errors: as of the tasks."""
    found: dict[str, str] = {}
    for task in dict.fromkeys(one.task for one in spec.variants().values()):
        found |= task.content()
    return found


def known_content(spec: Spec) -> dict[str, str]:
    """The same, and nothing where the files cannot be read now: there is nothing to compare."""
    try:
        return content_of(spec)
    except (ByzoptError, OSError):
        return {}


def check_content(then: Mapping[str, str], now: Mapping[str, str], what: str, remedy: str) -> None:
    """Raise `ChangedFile` where a file holds something else by now. What was not noted then is not looked at,
    as in runs that were stored before byzopt noted it."""
    for name in then.keys() & now.keys():
        if then[name] != now[name]:
            raise ChangedFile(
                f"{what} should be of the data that the spec names. Found a run on another {name}, with "
                f"{then[name]}; it holds {now[name]} now. {remedy}"
            )
