"""Where specs come from: a TOML file or a preset, with settings on top."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from byzopt.errors import InvalidInput, UnknownName, require, said, unknown
from byzopt.experiments.specs import toml
from byzopt.experiments.specs.overrides import anchor, apply_settings
from byzopt.experiments.specs.spec import Spec
from byzopt.files import read as read_file

SWEEP = ".sweep.toml"  # how the file of a sweep's preset ends
SHOWN = 100  # letters of settings in a message
MOST = 1 << 20  # bytes of a file that says what to run
_ENDS = {"spec": ".toml", "sweep": SWEEP}  # of the files of presets
# Top-level keys of which one kind of file has at least one, and the other none.
_OWN = {"spec": {"task", "rule"}, "sweep": {"base", "spec", "grid", "zip"}}
_COMMAND = {"spec": "run", "sweep": "sweep"}  # that plays such a file or preset
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def load(source: str | Path, settings: Iterable[str] = (), compare: bool = True) -> Spec:
    """The spec in a TOML file or of a preset, with `key=value` settings; `compare=False` drops its variants.

    Files with parts of your own that the spec names lie relative to it, those in settings to the working
    directory; their code is run.

    Errors: `UnknownName` for no such preset or file; `InvalidInput` for a file that cannot be read, is no
    TOML or is no valid spec.

    Args:
        source: Path of a TOML file, or name of a preset.
        settings: Changes, each as `key=value`.
        compare: Whether to keep the variants.

    Returns:
        The spec.

    Raises:
        UnknownName: No such preset or file.
        InvalidInput: A file that cannot be read, is no TOML or is no valid spec.

    Examples:
        >>> from byzopt import load
        >>> load("byz-nsgdm/digits", ["rounds=10", "rule=median"], compare=False).rounds
        10
    """
    remedy = "A spec in plain data is made by Spec.of." if isinstance(source, Mapping) else ""
    named = isinstance(source, (str, Path))
    require(named, "What to load", "be the path of a TOML file, or a preset's name", said(source), remedy)
    listed = not isinstance(settings, (str, Mapping))
    remedy = 'Give a list of texts, as ["rounds=10", "attack.name=alie"].'
    require(listed, "Settings", "be texts that read `key=value`", said(settings), remedy)
    settings = list(settings)
    data = apply_settings(read_spec(source), settings)
    kept = data if compare else {key: value for key, value in data.items() if key != "compare"}
    told = ", ".join(settings)
    changes = f" with {told[:SHOWN]}{'...' if len(told) > SHOWN else ''}" if told else ""
    return Spec.of(kept, f"{source}{changes}")


def presets() -> dict[str, str]:
    """Every preset, `paper/task`, and the first comment line of its file."""
    return {name: _text(place).partition("\n")[0].lstrip("# ") for name, place in sorted(_places().items())}


def sweeps() -> dict[str, str]:
    """Every preset of a sweep, and the first comment line of its file."""
    places = sorted(_places(SWEEP).items())
    return {name: _text(place).partition("\n")[0].lstrip("# ") for name, place in places}


def read_spec(source: str | Path) -> dict[str, Any]:
    """The plain data of a spec's file or preset."""
    return _read(source, "spec")


def read_sweep(source: str | Path) -> dict[str, Any]:
    """The plain data of a sweep's file or preset."""
    return _read(source, "sweep")


def _read(source: str | Path, kind: str) -> dict[str, Any]:
    places, other = _places(_ENDS[kind]), "spec" if kind == "sweep" else "sweep"
    place = places.get(str(source))
    if place is None and not path_exists(source):
        if str(source) in _places(_ENDS[other]):
            raise UnknownName(_mistaken(source, kind, other))
        if str(source).endswith(".toml"):
            raise InvalidInput(f"A {kind} should be a TOML file or a preset. Found no file {str(source)!r}.")
        raise UnknownName(f"{unknown('preset', str(source), list(places))} There is no such file either.")
    what = f"{kind.capitalize()} {source}"
    data = toml.loads(_text(place) if place else read_user_text(Path(source), what), what)
    if not _OWN[kind] & data.keys() and _OWN[other] & data.keys():
        raise InvalidInput(_mistaken(source, kind, other))
    return data if place else anchor(data, Path(source).parent)


def _mistaken(source: str | Path, kind: str, other: str) -> str:
    remedy = f"`byzopt {_COMMAND[other]} {source}` takes it"
    return f"{str(source)!r} should be a {kind}. Found a {other}: {remedy}."


def path_exists(source: str | Path) -> bool:
    """Whether a path leads to something; a name that no file can have does not."""
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        return False


def read_user_text(path: Path, what: str) -> str:
    """The text of a file that a user names, with or without a byte order mark.

    Errors: `InvalidInput` for what is no file of text of at most `MOST` bytes. Pipes and devices are not
    even opened: they may wait for ever.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(_KINDS.get(stat.S_IFMT(mode), "something else"))
        return read_file(path, MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} should be valid TOML, in UTF-8. Found: {error}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{what} should be a readable file. Found: {reason}.") from None


def _text(place: Traversable) -> str:
    return place.read_text(encoding="utf-8")


def _places(ending: str = ".toml") -> dict[str, Traversable]:
    """Presets whose files end so; a sweep's is none of a spec's."""
    found = shipped_files(files("byzopt.experiments") / "presets", ending).items()
    return {name: file for name, file in found if ending == SWEEP or not file.name.endswith(SWEEP)}


def shipped_files(folder: Traversable, ending: str = ".toml") -> dict[str, Traversable]:
    """The files in the folders of such a folder, by `paper/name`, that end so."""
    return {
        f"{paper.name}/{file.name.removesuffix(ending)}": file
        for paper in folder.iterdir()
        if paper.is_dir()
        for file in paper.iterdir()
        if file.name.endswith(ending)
    }
