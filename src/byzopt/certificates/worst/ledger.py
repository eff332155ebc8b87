"""The worst rows that are known, in JSON files with a certificate a line, to which only worse ones are
added."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import isfinite
from pathlib import Path

from byzopt.certificates.worst.certificate import WorstRows, read_certificate
from byzopt.errors import ByzoptError, InvalidInput
from byzopt.files import write_atomically

WORSE = 1e-4  # by which relative margin a finding has to be worse than what is known
LARGEST = 32 * 2**20  # bytes of a ledger's file


def shipped() -> Traversable:
    """The folder of the ledger that comes with the package."""
    return files(__package__).joinpath("found")


def read_ledger(folder: Traversable | None = None) -> list[WorstRows]:
    """All certificates in a folder, default the package's. Errors: `InvalidInput` for a file that is no
    ledger."""
    folder = shipped() if folder is None else folder
    if not folder.is_dir():
        return []
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".json"))
    return [one for name in names for one in _read(folder.joinpath(name))]


def known_worst(rule: str, n: int, f: int, folder: Traversable | None = None) -> list[WorstRows]:
    """The certificates of one rule, spelled as `rule_spelling` does, at n workers with f faulty ones."""
    folder = shipped() if folder is None else folder
    found = _read(folder.joinpath(_file_name(rule)))
    return [one for one in found if (one.rule, one.n, one.f) == (rule, n, f)]


def add_to_ledger(folder: Path, found: Iterable[WorstRows]) -> list[WorstRows]:
    """Add what is worse than everything of its kind in the folder, in its place; gives what was added.

    What is in the folder counts by the error that the rule makes on its rows now, not by the `figure` that
    the file states. Errors: `InvalidInput` for a file that is no ledger and for a turn whose ratio is not
    that of its rows, before anything is added; `OSError`.
    """
    added, found = [], list(found)
    for one in found:
        one.require_ratio()
    for one in found:
        path = folder / _file_name(one.rule)
        ledger = {other.key: other for other in _read(path)}
        before = ledger.get(one.key)
        if before is None or one.figure > _now(before) * (1 + WORSE):
            ledger[one.key] = one
            lines = [
                json.dumps(each.data(), allow_nan=False) for _, each in sorted(ledger.items(), key=_place)
            ]
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())
            added.append(one)
    return added


def _now(one: WorstRows) -> float:
    """The error on these rows, with jitter too at a tie; none where the rule no longer answers to them."""
    try:
        errors = [one.replay(), *(one.shaken() if one.tie else ())]
    except ByzoptError:
        return 0.0
    return max((error for error in errors if isfinite(error)), default=0.0)


def _place(item: tuple[tuple[object, ...], WorstRows]) -> tuple[str, ...]:
    _, one = item
    return one.rule, f"{one.n:06d}", f"{one.f:06d}", one.form, str(one.tie), str(one.ratio)


def _file_name(rule: str) -> str:
    """`nnm(f=3) >> krum(f=3, extra=1)` is in `nnm_krum_extra_1.json`, whatever its f."""
    plain = re.sub(r"\bf=\d+(, )?", "", rule)
    return "_".join(re.findall(r"[\w.-]+", plain))[:120] + ".json"


def _read(file: Traversable) -> list[WorstRows]:
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        text = opened.read(LARGEST + 1)
    try:
        data = json.loads(text) if len(text) <= LARGEST else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, list):
        raise InvalidInput(f"A ledger of worst rows should be a JSON list of certificates. Found: {file}.")
    try:
        return [read_certificate(one) for one in data]
    except InvalidInput as error:
        raise InvalidInput(f"{error} It is in the ledger {file}: mend or delete it.") from None
