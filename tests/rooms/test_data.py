"""Data files: lookup order, checksums, downloads from a server on this machine, and strict parsing."""

from __future__ import annotations

import bz2
import gzip
import lzma
import socket
import struct
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from byzopt.errors import InvalidInput, MissingData, UnknownName
from byzopt.tasks import data
from byzopt.tasks.data import DATASETS, DataFile

CONTENT = b"the whole file\n" * 100
DIGEST = sha256(CONTENT).hexdigest()
PACKED = {
    "": CONTENT,
    ".gz": gzip.compress(CONTENT),
    ".bz2": bz2.compress(CONTENT),
    ".xz": lzma.compress(CONTENT),
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(data.find(name) is None, reason=f"{name} is not on disk (BYZOPT_DATA_DIR)")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/good": PACKED[""],
            "/good.gz": PACKED[".gz"],
            "/wrong": CONTENT + b"one more line\n",
            "/short": CONTENT,
            "/short.gz": PACKED[".gz"][:-10],
        }
        self.server.asked.append(self.path)
        body = answers.get(self.path)
        if body is None:
            return self.send_error(404)
        self.send_response(200)
        # "/short" promises more than it sends: a connection that breaks.
        self.send_header("Content-Length", str(len(body) + 50 * (self.path == "/short")))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty data directory and an empty cache, chosen by the environment."""
    monkeypatch.setenv("BYZOPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("BYZOPT_OFFLINE")
    return tmp_path / "data", tmp_path / "cache" / "byzopt"


def put(root: Path, content: bytes, suffix: str = "") -> Path:
    path = root / f"set/file{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def file_at(*urls: str) -> DataFile:
    return DataFile("set/file", DIGEST, urls)


def served(server: ThreadingHTTPServer, *names: str) -> DataFile:
    return file_at(*(f"http://127.0.0.1:{server.server_port}/{name}" for name in names))


# Files on disk


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_is_read_plain_or_in_any_compression(places, suffix):
    put(places[0], PACKED[suffix], suffix)
    assert file_at().read() == CONTENT


def test_a_name_that_lies_about_compression_does_not_matter(places):
    put(places[0], CONTENT, ".gz")
    assert file_at().read() == CONTENT


def test_the_data_directory_comes_before_the_cache_and_the_cache_before_a_download(places, server):
    file = served(server, "good")
    in_cache = put(places[1], CONTENT)
    assert file.locate() == in_cache
    in_directory = put(places[0], PACKED[".gz"], ".gz")
    assert file.locate() == in_directory
    assert file.read() == CONTENT
    assert server.asked == []


def test_without_the_variable_the_cache_below_home_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("BYZOPT_DATA_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = put(tmp_path / ".cache" / "byzopt", CONTENT)
    assert file_at().locate() == path


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_truncated_file_on_disk_is_an_error_that_names_it(places, suffix):
    path = put(places[0], PACKED[suffix][:-12], suffix)
    with pytest.raises(InvalidInput, match="should hold set/file as published") as caught:
        file_at().read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_file_on_disk_is_an_error_and_is_not_replaced(places, server):
    path = put(places[0], CONTENT[:-1])
    with pytest.raises(InvalidInput, match="wrong checksum"):
        served(server, "good").read()
    assert path.read_bytes() == CONTENT[:-1]
    assert server.asked == []


# Downloads


@pytest.mark.parametrize("name", ["good", "good.gz"])
def test_a_download_is_checked_and_kept_in_the_cache(places, server, name):
    file = served(server, name)
    assert file.read() == CONTENT
    assert [path.name for path in places[1].rglob("*") if path.is_file()] == ["file"]
    assert file.read() == CONTENT
    assert server.asked == [f"/{name}"]


@pytest.mark.parametrize("broken", ["wrong", "short", "short.gz", "absent"])
def test_a_broken_mirror_is_passed_over_for_the_next(places, server, broken):
    assert served(server, broken, "good.gz").read() == CONTENT
    assert server.asked == [f"/{broken}", "/good.gz"]


@pytest.mark.parametrize(
    "broken, reason",
    [("wrong", "wrong checksum"), ("short", "IncompleteRead"), ("short.gz", "ended"), ("absent", "404")],
)
def test_a_file_no_mirror_gives_is_one_clear_line_and_leaves_nothing_behind(places, server, broken, reason):
    with pytest.raises(MissingData, match=reason) as caught:
        served(server, broken).read()
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ["set/file", str(places[0]), str(places[1]), f"/{broken}"])
    assert "Set BYZOPT_DATA_DIR to a directory that holds set/file" in message
    assert not list(places[1].rglob("*"))


@pytest.mark.parametrize(
    "value, allowed", [("1", False), ("yes", False), ("0", True), ("", True), ("off", True)]
)
def test_nothing_is_downloaded_where_that_is_forbidden(places, server, monkeypatch, value, allowed):
    monkeypatch.setenv("BYZOPT_OFFLINE", value)
    if allowed:
        assert served(server, "good").read() == CONTENT
    else:
        with pytest.raises(MissingData, match="tried no mirror, as BYZOPT_OFFLINE is set"):
            served(server, "good").read()
        assert server.asked == []


def test_without_a_network_the_error_says_what_was_tried(places):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MissingData, match=f"http://127.0.0.1:{port}/file .*refused"):
        file_at(f"http://127.0.0.1:{port}/file").read()


def test_a_cache_that_cannot_be_written_does_not_stop_a_download(places, server):
    places[1].parent.mkdir(parents=True)
    places[1].write_text("a file where the cache directory should be")
    assert served(server, "good").read() == CONTENT


def test_a_write_that_fails_half_way_leaves_no_part_behind(places, server, monkeypatch):
    def full_disk(*paths: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    assert served(server, "good").read() == CONTENT
    assert not [path for path in places[1].rglob("*") if path.is_file()]


# What `byzopt doctor` asks


def test_nothing_is_found_in_empty_places(places):
    assert data.available() == dict.fromkeys(DATASETS)


def test_find_names_the_file_or_the_directory_of_a_complete_set(places):
    a9a = places[0] / "libsvm/a9a.gz"
    a9a.parent.mkdir(parents=True)
    a9a.touch()
    mnist = places[0] / "mnist"
    mnist.mkdir()
    first, *others = DATASETS["mnist"]
    (places[0] / first.path).touch()
    assert data.find("a9a") == a9a
    assert data.find("mnist") is None
    for file in others:
        (places[0] / file.path).touch()
    assert data.find("mnist") == mnist


@pytest.mark.parametrize("ask", [data.find, data.libsvm])
def test_an_unknown_set_is_refused_with_a_hint(ask):
    with pytest.raises(UnknownName, match="'a9a'"):
        ask("a9b")


def test_every_file_has_a_full_digest_and_a_mirror_over_https():
    for file in (file for files in DATASETS.values() for file in files):
        assert len(bytes.fromhex(file.digest)) == 32
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)


# Parsing


def idx(shape: tuple[int, ...], values: bytes, head: bytes = b"\0\0\x08") -> bytes:
    return head + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


def test_idx_gives_the_values_in_their_shape():
    tensor = data.parse_idx(idx((2, 3), bytes(range(6))), "f")
    assert tensor.dtype == torch.uint8
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "header of 4 bytes. Found 0"),
        (idx((2,), b"ab", head=b"\0\0\x0d"), "begin with 00 00 08"),
        (idx((2,), b"ab", head=b"\1\0\x08"), "begin with 00 00 08"),
        (b"\0\0\x08\0", "number of axes"),
        (b"\0\0\x08\3" + bytes(6), "header of 16 bytes. Found 10"),
        (idx((2, 3), bytes(5)), "hold 6 values. Found 5"),
        (idx((2, 3), bytes(7)), "hold 6 values. Found 7"),
    ],
)
def test_idx_with_a_wrong_header_or_length_is_an_error(content, match):
    with pytest.raises(InvalidInput, match=match):
        data.parse_idx(content, "f")


def test_digits_are_split_by_label_without_overlap():
    (images, labels), (test_images, test_labels) = data.digits()
    assert (len(images), len(test_images)) == (1442, 355)
    assert images.dtype == torch.float32
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert images.shape[1:] == (8, 8)
    share = test_labels.bincount() / (test_labels.bincount() + labels.bincount())
    assert (share - 0.2).abs().max() < 0.01
    joined = torch.cat([images, test_images]).flatten(1)
    assert len(joined.unique(dim=0)) == 1797


def test_digits_are_the_same_every_time():
    for first, second in zip(data.digits(), data.digits(), strict=True):
        assert all(a.equal(b) for a, b in zip(first, second, strict=True))


@needs("mnist")
def test_mnist_is_read_whole():
    (images, labels), (test_images, test_labels) = data.mnist()
    assert (images.shape, images.dtype) == ((60_000, 28, 28), torch.uint8)
    assert (test_images.shape, test_labels.shape) == ((10_000, 28, 28), (10_000,))
    assert labels.dtype == torch.int64
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


@needs("shakespeare")
def test_shakespeare_has_its_published_size():
    text = data.shakespeare()
    assert (len(text), len(set(text))) == (1_115_394, 65)
    assert text.startswith("First Citizen:\n")


@pytest.mark.parametrize(
    "name, shape, positive",
    [
        pytest.param("a9a", (32561, 123), 7841, marks=needs("a9a")),
        pytest.param("a9a.t", (16281, 123), 3846, marks=needs("a9a.t")),
        pytest.param("w8a", (49749, 300), 1479, marks=needs("w8a")),
    ],
)
def test_libsvm_sets_are_dense_with_labels_zero_and_one(name, shape, positive):
    features, labels = data.libsvm(name)
    assert (tuple(features.shape), features.dtype) == (shape, torch.float64)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [shape[0] - positive, positive]
    assert set(features.unique().tolist()) == {0.0, 1.0}


@needs("a9a")
def test_the_first_row_of_a9a_is_the_files_first_line():
    features, labels = data.libsvm("a9a")
    ones = [3, 11, 14, 19, 39, 42, 55, 64, 67, 73, 75, 76, 80, 83]
    assert (features[0].nonzero().squeeze(1) + 1).tolist() == ones
    assert labels[0] == 0
