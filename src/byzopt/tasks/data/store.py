"""Data files: found on disk or downloaded, and always compared with a checksum of their decompressed content.

A file is looked for under the directory in the environment variable BYZOPT_DATA_DIR, then under the cache
(`$XDG_CACHE_HOME/byzopt`, usually `~/.cache/byzopt`), plain or compressed; then it is downloaded there, but
not while BYZOPT_OFFLINE is set.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from byzopt.errors import InvalidInput, MissingData, unknown

ENVIRONMENT = "BYZOPT_DATA_DIR"
OFFLINE = "BYZOPT_OFFLINE"
SUFFIXES = ("", ".gz", ".bz2", ".xz")
TIMEOUT = 15.0  # seconds without an answer, for each mirror
# A file's first bytes say how it is compressed; names are not to be trusted after a download.
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
_DAMAGE = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class DataFile:
    """One file: its path below a data directory, the sha256 of its decompressed content, its mirrors."""

    path: str
    digest: str
    urls: tuple[str, ...]

    def locate(self) -> Path | None:
        """Where the file lies on disk, plain or compressed, or None."""
        candidates = (root / f"{self.path}{suffix}" for root in roots() for suffix in SUFFIXES)
        return next((path for path in candidates if path.is_file()), None)

    def read(self) -> bytes:
        """The decompressed content.

        Errors: `InvalidInput` for a damaged file on disk, `MissingData` where there is none and no mirror
        gives it.
        """
        path = self.locate()
        if path is None:
            return self._download()
        try:
            return self._genuine(path.read_bytes())
        except _DAMAGE as error:
            raise InvalidInput(
                f"Data file {path} should hold {self.path} as published. Found {_reason(error)}. "
                "Replace it, or remove it to have it downloaded."
            ) from None

    def _genuine(self, raw: bytes) -> bytes:
        unpack = next((unpack for magic, unpack in _UNPACK.items() if raw.startswith(magic)), bytes)
        content = unpack(raw)
        checksum = sha256(content).hexdigest()
        if checksum != self.digest:
            size = f"{len(content)} bytes with sha256 {checksum[:12]}... in place of {self.digest[:12]}..."
            raise ValueError(f"a wrong checksum: {size}")
        return content

    def _download(self) -> bytes:
        failures = []
        offline = os.environ.get(OFFLINE, "").lower() not in ("", "0", "off", "no")
        if offline:
            failures.append(f"no mirror, as {OFFLINE} is set")
        for url in () if offline else self.urls:
            try:
                with urlopen(url, timeout=TIMEOUT) as response:
                    content = self._genuine(response.read())
            except (*_DAMAGE, HTTPException) as error:
                failures.append(f"{url} ({_reason(error)})")
            else:
                _store(content, _cache() / self.path)
                return content
        raise MissingData(
            f"Data file {self.path} should be on disk or downloadable. Looked in "
            f"{', '.join(map(str, roots()))}; tried {', '.join(failures)}. "
            f"Set {ENVIRONMENT} to a directory that holds {self.path} (plain, .gz, .bz2 or .xz)."
        )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "byzopt"


def roots() -> list[Path]:
    """The directories in which data files are looked for, in order."""
    chosen = os.environ.get(ENVIRONMENT)
    return [*([Path(chosen).expanduser()] if chosen else []), _cache()]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _store(content: bytes, path: Path) -> None:
    """Write at once or not at all. A cache that cannot be written is no reason to fail."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise


def _mnist(stem: str, digest: str) -> DataFile:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    )
    return DataFile(f"mnist/{stem}", digest, tuple(f"{mirror}/{stem}.gz" for mirror in mirrors))


def _libsvm(stem: str, digest: str) -> DataFile:
    site = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary"
    return DataFile(f"libsvm/{stem}", digest, (f"{site}/{stem}", f"{site}/{stem}.bz2", f"{site}/{stem}.xz"))


DATASETS: dict[str, tuple[DataFile, ...]] = {
    "mnist": (
        _mnist("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        _mnist("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        _mnist("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        _mnist("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    "shakespeare": (
        DataFile(
            "shakespeare/input.txt",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        ),
    ),
    "a9a": (_libsvm("a9a", "0934cce020907e80e8ac2b030d5849793a1d5993ef1765df76a4157c141db13a"),),
    "a9a.t": (_libsvm("a9a.t", "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9"),),
    "w8a": (_libsvm("w8a", "05af7655871a35d5bc89c755791b5338a9969cb604c9df045c811c5e5a45426e"),),
}


def find(name: str) -> Path | None:
    """Where data set `name` lies on disk (its file, or its directory if it has several), or None.

    A look only: nothing is read or downloaded. Errors: an unknown name.
    """
    if name not in DATASETS:
        raise unknown("data set", name, list(DATASETS))
    paths = [file.locate() for file in DATASETS[name]]
    if paths[0] is None or None in paths:
        return None
    return paths[0] if len(paths) == 1 else paths[0].parent


def available() -> dict[str, Path | None]:
    """Every data set that is no part of a package, and where it lies on disk or None."""
    return {name: find(name) for name in DATASETS}
