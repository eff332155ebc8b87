"""Rows of LIBSVM: `label index:value index:value ...`, with `#` before a comment."""

from __future__ import annotations

import bz2
import gzip
import zlib
from math import isfinite
from pathlib import Path
from typing import IO, cast

import numpy as np

from byzopt.errors import InvalidInput, require
from byzopt.tasks.data.samples import REGRESSION, Loaded

LARGEST = 1 << 31  # numbers of a set that is sparse in its file
_RULE = "have rows `label index:value index:value ...`, with a whole number for each label"


def read_rows(path: Path, test: Path | None) -> Loaded:
    """Rows as wide as the widest of both files; labels are numbered in order: -1 and +1 are 0 and 1.

    Errors: `InvalidInput` that names the file and, where it is one, the line.
    """
    from sklearn.datasets import load_svmlight_files

    paths = [path, *([] if test is None else [test])]
    try:
        read = load_svmlight_files([str(one) for one in paths])
    except (ValueError, IndexError, OverflowError, EOFError, OSError, zlib.error) as error:
        flaws = ((one, _first_flaw(one)) for one in paths)
        where, flaw = next((pair for pair in flaws if pair[1]), (path, " ".join(str(error).split())[:200]))
        raise InvalidInput(f"LIBSVM file {where} should {_RULE}. Found {flaw}.") from None
    for one, sparse, labels in zip(paths, read[::2], read[1::2], strict=True):
        require(len(labels) > 0, f"LIBSVM file {one}", _RULE, "no row")
        whole = bool((np.isfinite(labels) & (labels == np.round(labels))).all())
        require(whole, f"LIBSVM file {one}", _RULE, "" if whole else _first_flaw(one), REGRESSION)
        numbers = sparse.shape[0] * sparse.shape[1]
        require(numbers <= LARGEST, f"LIBSVM file {one}", f"hold at most {LARGEST:,} numbers", f"{numbers:,}")
    known = np.unique(read[1])
    parts = []
    for sparse, labels in zip(read[::2], read[1::2], strict=True):
        other = sorted(set(labels.tolist()) - set(known.tolist()))
        require(not other, f"Test set {test}", "hold the labels of the training alone", other[:5])
        parts.append((sparse.toarray(), np.searchsorted(known, labels)))
    return Loaded(*parts)


def _first_flaw(path: Path) -> str:
    """What is wrong in the first line that is no row with a whole number for its label; empty: nothing is."""
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                flaw = _flaw(line.split(b"#")[0].split())
                if flaw:
                    return f"{flaw} in line {number}"
    except (OSError, EOFError, zlib.error):
        return f"that it cannot be read past line {number}"
    return ""


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return cast(IO[bytes], bz2.open(path, "rb")) if path.suffix.lower() == ".bz2" else path.open("rb")


def _flaw(words: list[bytes]) -> str:
    if not words:
        return ""
    if not _number(words[0]).is_integer():
        return f"the label {_shown(words[0])}"
    last = -1
    for word in words[1:]:
        index, colon, value = word.partition(b":")
        if index == b"qid" and colon:
            continue
        if not (index.isdigit() and colon and isfinite(_number(value))):
            return _shown(word)
        if int(index) <= last:
            return f"index {int(index)} after index {last}"
        last = int(index)
    return ""


def _number(word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _shown(word: bytes) -> str:
    return repr(word[:40].decode("utf-8", "replace"))
