"""Data sets in files of users: `.npz`, `.pt`, LIBSVM, and folders of images. No file is executed.

What is not there or not as it should be is one error that names the file.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from byzopt.errors import InvalidInput, MissingData, require
from byzopt.tasks.data.pictures import ENDS, picture
from byzopt.tasks.data.rows import read_rows
from byzopt.tasks.data.samples import Loaded, LoadedPictures, Pair
from byzopt.tasks.data.store import ENVIRONMENT, roots

TRAIN = (
    *(("x_train", "y_train"), ("train_images", "train_labels"), ("train_x", "train_y")),
    *(("x", "y"), ("inputs", "labels"), ("inputs", "targets"), ("images", "labels")),
    *(("data", "labels"), ("data", "targets"), ("features", "labels")),
)
TEST = (("x_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y"))
Stamp = tuple[int, int, int]
LIBSVM = (".libsvm", ".svm", ".svmlight", ".txt", ".t")
_DAMAGE = (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, zipfile.BadZipFile)


def locate(name: str) -> Path:
    """Where a set lies: at this path, or below a data directory. Errors: `MissingData`."""
    given = Path(name).expanduser()
    places = [given, *([] if given.is_absolute() else [root / given for root in roots()])]
    for path in places:
        if path.is_file() or path.is_dir():
            return path.absolute()
    looked = ", ".join(str(path.absolute()) for path in places)
    raise MissingData(
        f"Data set {name!r} should be a file or a folder of images. Looked for {looked}. "
        f"Give its path, or set {ENVIRONMENT} to the directory that holds it."
    )


def read(path: Path, test: Path | None = None, size: int = 0) -> Loaded:
    """What a file or folder holds, with the test set that it brings or that lies at `test`; images of folders
    are brought to `size` x `size` pixels where that is not 0.

    Errors: `InvalidInput` for another format, and for what is damaged.
    """
    reader = _reader(path)
    if test is not None:
        same = reader is _reader(test)
        require(same, f"Test set {test}", f"have the format of {path.name}", test.name)
    try:
        return reader(path, test, size)
    except InvalidInput:
        raise
    except (*_DAMAGE, pickle.UnpicklingError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidInput(f"Data set {path} should be whole and hold arrays alone. Found: {told}") from None


def check_folder(path: Path) -> None:
    """Raise `InvalidInput` for a folder that does not look like one of images, with other files in it."""
    if not path.is_dir():
        return
    inside = _subfolders(path)
    split = any(folder.name == "train" for folder in inside)
    parts = [folder for folder in inside if folder.name in ("train", "test")] if split else [path]
    for folder in (one for part in parts for one in _subfolders(part)):
        file = next(_files(folder), None)
        if file is not None and file.suffix.lower() not in ENDS:
            raise InvalidInput(
                f"Data set {path} should be a folder that holds a folder of images for each class, "
                f"and nothing else. Found {file.relative_to(path)} in it. Name the folder or the file "
                "of the data set itself."
            )


@lru_cache(maxsize=64)
def content(path: Path, stamp: Stamp) -> str:
    """What lies at a path, as runs note it: its size and digest. `stamp` is the path's, by which what was
    read already is known."""
    return f"{stamp[1]} bytes, sha256 {digest(path)}"


def digest(path: Path) -> str:
    """A sha256 of a file's bytes; of a folder, of its files' names, each with the sha256 of its bytes."""
    if path.is_file():
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    names = {file.relative_to(path).as_posix(): file for file in _files(path)}
    total = sha256()
    for name, file in sorted(names.items()):
        told = name.encode("utf-8", "surrogateescape") + b"\0"
        total.update(told + bytes.fromhex(digest(file)))  # 32 bytes: where the next name begins is known
    return total.hexdigest()


def stamp(path: Path) -> Stamp:
    """What changes when a set does: how many files there are, their size, and the time of the last change."""
    told = [file.stat() for file in ([path] if path.is_file() else _files(path))]
    return len(told), sum(one.st_size for one in told), max((one.st_mtime_ns for one in told), default=0)


def _reader(path: Path) -> Callable[[Path, Path | None, int], Loaded]:
    if path.is_dir():
        return _images
    ends = [suffix.lower() for suffix in path.suffixes]
    last = ends[-1] if ends else ""
    if last == ".npz":
        return _npz
    if last in (".pt", ".pth"):
        return _torch
    if last in LIBSVM or (last in (".gz", ".bz2") and ends[-2:-1] and ends[-2] in LIBSVM):
        return _libsvm
    known = f".npz, .pt, .pth or {', '.join(LIBSVM)} (also .gz, .bz2), or be a folder of images"
    raise InvalidInput(f"A data set's file should end in {known}. Found {path.name!r}.")


def _npz(path: Path, test: Path | None, size: int) -> Loaded:
    if test is not None:
        return Loaded(_npz(path, None, size).train, _npz(test, None, size).train)
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        raise ValueError("one array without names; save inputs and labels with numpy.savez")
    with content:
        return _named(content, path)


def _torch(path: Path, test: Path | None, size: int) -> Loaded:
    if test is not None:
        return Loaded(_torch(path, None, size).train, _torch(test, None, size).train)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping):
        return _named(content, path)
    good = isinstance(content, (tuple, list)) and len(content) in (2, 4)
    rule = "be a table, or 2 or 4 tensors: inputs, labels, then those of the test"
    require(good, f"What {path} holds", rule, type(content).__name__)
    return Loaded((content[0], content[1]), (content[2], content[3]) if len(content) == 4 else None)


def _named(content: Mapping[str, Any], path: Path) -> Loaded:
    """Inputs and labels by the names that they usually have."""

    def first(names: tuple[tuple[str, str], ...]) -> Pair | None:
        found = next((pair for pair in names if pair[0] in content and pair[1] in content), None)
        return None if found is None else (content[found[0]], content[found[1]])

    train = first(TRAIN)
    if train is None:
        wanted = ", ".join(f"{x} and {y}" for x, y in TRAIN)
        held = ", ".join(sorted(map(str, content))) or "nothing"
        raise InvalidInput(f"Data set {path} should hold one of {wanted}. Found {held}.")
    return Loaded(train, first(TEST))


def _libsvm(path: Path, test: Path | None, size: int) -> Loaded:
    return read_rows(path, test)


def _images(path: Path, test: Path | None, size: int) -> Loaded:
    inside = {entry.name for entry in path.iterdir() if entry.is_dir()}
    if "train" in inside:
        path, test = path / "train", test or (path / "test" if "test" in inside else None)
    classes = _classes(path)
    parts = [_folder(one, classes, size) for one in (path, test) if one is not None]
    return LoadedPictures(*parts)


def _classes(path: Path) -> list[str]:
    names = [folder.name for folder in _subfolders(path)]
    require(
        len(names) >= 2, f"Folder {path}", "hold a folder of images for each of two or more classes", names
    )
    return names


def _folder(path: Path, classes: list[str], size: int) -> Pair:
    """Images `[m, height, width]` or, if one has colours, `[m, height, width, 3]`; a label a folder."""
    other = sorted(set(_classes(path)) - set(classes))
    require(not other, f"Folder {path}", "hold no other classes than the training", other)
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(_files(path / name)) if (path / name).is_dir() else []
        require(bool(files), f"Folder {path / name}", "hold images", "none")
        images += [picture(file, size) for file in files]
        labels += [label] * len(files)
    shapes = sorted({image.shape[:2] for image in images})
    remedy = "Set `size` to bring them to one."
    require(len(shapes) == 1, f"All images in {path}", "have one size", shapes[:5], remedy)
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
    return np.stack(images), np.array(labels)


def _subfolders(path: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(path: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden."""
    for file in path.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file
