"""Data sets of users: read from every format as they were written, refused by name where not sound."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from byzopt.cohort import Cohort
from byzopt.errors import ByzoptError, InvalidInput, MissingData, MissingExtra, UnknownName
from byzopt.experiments import Spec
from byzopt.experiments.trials.memory import build_task
from byzopt.tasks import DataSet
from byzopt.tasks.data import files
from byzopt.tasks.data.packages import _pairs as of_samples
from byzopt.tasks.data.pictures import picture
from byzopt.tasks.data.samples import checked
from byzopt.tasks.vision import resnet18, resnet20, vgg11
from tests.command import Command

COHORT = Cohort.of(4, 1)
NUMBERS = np.random.default_rng(0)
X, Y = NUMBERS.normal(size=(60, 5)), np.arange(60) % 3
BYTES = NUMBERS.integers(0, 256, size=(40, 6, 6, 3), dtype=np.uint8)
COLOURS = np.arange(40) % 2


def held(**fields: Any) -> Any:
    """The task on a set as it is, features in float64."""
    return DataSet(**{"scale": "none", "model": "linear", "dtype": "float64", "batch": 4} | fields).build(
        COHORT, 0
    )


def save_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def save_pt(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def tensors(task: Any) -> tuple[Any, ...]:
    return task.pool.inputs, task.pool.targets, *task._sets[""]


def matches(task: Any, *expected: Any) -> None:
    for found, wanted in zip(tensors(task), expected, strict=True):
        assert found.equal(torch.as_tensor(np.asarray(wanted)).to(found))


# Formats


def test_npz_and_tensors_are_read_as_they_were_written(tmp_path):
    first, rest = slice(40), slice(40, 60)
    parts = X[first], Y[first], X[rest], Y[rest]
    for names in (("x_train", "y_train", "x_test", "y_test"), ("x", "y", "test_images", "test_labels")):
        matches(
            held(data=save_npz(tmp_path / f"{names[0]}.npz", **dict(zip(names, parts, strict=True)))), *parts
        )
    made = tuple(map(torch.from_numpy, parts))
    matches(held(data=save_pt(tmp_path / "four.pt", made)), *parts)
    table = {"train_x": made[0], "train_y": made[1], "x_test": made[2], "y_test": made[3]}
    matches(held(data=save_pt(tmp_path / "table.pth", table)), *parts)
    two = [save_pt(tmp_path / f"{i}.pt", list(made[i : i + 2])) for i in (0, 2)]
    matches(held(data=two[0], test=two[1]), *parts)


def test_libsvm_labels_are_numbered_in_order_and_widths_agree(tmp_path):
    (tmp_path / "a.libsvm").write_text("-1 1:0.5 3:2\n+1 2:1\n-1 1:4\n+1 1:1\n+1 2:3\n", encoding="ascii")
    (tmp_path / "b.t").write_text("+1 4:7\n-1 1:1\n", encoding="ascii")
    task = held(data=str(tmp_path / "a.libsvm"), test=str(tmp_path / "b.t"))
    x = [[0.5, 0, 2, 0], [0, 1, 0, 0], [4, 0, 0, 0], [1, 0, 0, 0], [0, 3, 0, 0]]
    matches(task, x, [0, 1, 0, 1, 1], [[0, 0, 0, 7], [1, 0, 0, 0]], [1, 0])


def save_folder(path: Path, images: Any, labels: Any, names: tuple[str, ...]) -> Path:
    from PIL import Image

    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / names[label] / f"{i:03}.png")
    return path


def test_a_folder_of_images_has_a_class_a_folder(tmp_path):
    save_folder(tmp_path / "train", BYTES[:30], COLOURS[:30], ("cat", "dog"))
    save_folder(tmp_path / "test", BYTES[30:], COLOURS[30:], ("cat", "dog"))
    (tmp_path / "train" / "cat" / ".hidden").write_text("no image", encoding="ascii")
    order = np.argsort(COLOURS, kind="stable")
    flat = BYTES.transpose(0, 3, 1, 2).reshape(40, -1).astype(np.float32) / np.float32(255)
    train, test = order[order < 30], order[order >= 30]
    matches(held(data=str(tmp_path)), flat[train], COLOURS[train], flat[test], COLOURS[test])
    matches(
        held(data=str(tmp_path / "train"), test=str(tmp_path / "test")),
        *(flat[train], COLOURS[train], flat[test], COLOURS[test]),
    )
    assert held(data=str(tmp_path), size=4).layout.d == 2 * (4 * 4 * 3 + 1)
    assert held(data=str(tmp_path), pool=2).layout.d == 2 * (3 * 3 * 3 + 1)


def test_grey_images_have_one_channel_unless_another_has_colours(tmp_path):
    save_folder(tmp_path, BYTES[..., 0], COLOURS, ("a", "b"))
    assert held(data=str(tmp_path)).layout.d == 2 * (36 + 1)
    save_folder(tmp_path, BYTES[:1], [1], ("a", "b"))
    assert held(data=str(tmp_path)).layout.d == 2 * (3 * 36 + 1)


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 1, 6, 6), (40, 6, 6, 1)])
def test_channels_may_come_first_last_or_be_left_out(shape):
    grey, labels = checked((BYTES[..., 0].reshape(shape), COLOURS.reshape(40, 1)), "images")
    assert grey.equal(torch.from_numpy(BYTES[..., 0]).unsqueeze(1) / 255)
    assert labels.shape == (40,)


# What is made of them


def test_standard_has_mean_zero_and_variance_one_in_training_and_the_same_map_in_the_test(tmp_path):
    path = save_npz(tmp_path / "a.npz", x=np.c_[3 + 2 * X, np.full(60, 7.0)], y=Y)
    train, _, test, _ = tensors(held(data=path, scale="standard"))
    assert len(train) == 48
    assert train.mean(dim=0).abs().max() < 1e-14
    assert (train.var(dim=0, unbiased=False)[:5] - 1).abs().max() < 1e-14
    assert train[:, 5].equal(torch.zeros(48).double())
    raw, _, raw_test, _ = tensors(held(data=path))
    torch.testing.assert_close(test[:, :5], ((raw_test - raw.mean(0)) / raw.std(0, unbiased=False))[:, :5])
    images = save_npz(tmp_path / "b.npz", images=BYTES, labels=COLOURS)
    train = tensors(held(data=images, scale="standard"))[0].view(-1, 3, 36)
    assert train.mean(dim=(0, 2)).abs().max() < 1e-6  # the means were taken of float32 pixels


def test_the_test_is_held_out_by_the_seed_of_the_data(tmp_path):
    path = save_npz(tmp_path / "a.npz", x=X, y=Y)
    base = {"task": {"name": "data_set", "data": path, "scale": "none"}, "rule": "median", "n": 4, "f": 1}

    def built(**seeds: int) -> tuple[Any, ...]:
        return tensors(build_task(Spec.of(base | {"rounds": 1, "lr": 0.1} | seeds)))

    first, same, other = built(seed=1, data_seed=5), built(seed=2, data_seed=5), built(seed=1, data_seed=6)
    assert len(first[2]) == 12
    assert all(a.equal(b) for a, b in zip(first, same, strict=True))
    assert not first[2].equal(other[2])
    rows = torch.cat([first[0], first[2]]).double()
    assert len(rows.unique(dim=0)) == 60


def test_a_digest_ties_a_spec_to_the_content(tmp_path):
    path = save_npz(tmp_path / "a.npz", x=X, y=Y)
    good = files.digest(Path(path))
    held(data=path, digest=good)
    save_npz(tmp_path / "a.npz", x=X + 1, y=Y)
    with pytest.raises(InvalidInput, match=f"have the digest {good}. Found {files.digest(Path(path))}"):
        held(data=path, digest=good)
    matches(held(data=path, test=path), X + 1, Y, X + 1, Y)  # a file that changed is read anew
    folder = save_folder(tmp_path / "f", BYTES, COLOURS, ("a", "b"))
    before = files.digest(folder)
    (folder / "a" / "000.png").rename(folder / "a" / "999.png")
    assert files.digest(folder) != before


def test_no_two_folders_have_one_digest_because_bytes_look_like_names(tmp_path):
    for name, content in {"one": {"a": b"1b\x002"}, "two": {"a": b"1", "b": b"2"}}.items():
        (tmp_path / name).mkdir()
        for file, written in content.items():
            (tmp_path / name / file).write_bytes(written)
    assert files.digest(tmp_path / "one") != files.digest(tmp_path / "two")


def test_relative_paths_begin_in_the_working_directory_then_in_the_data_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZOPT_DATA_DIR", str(tmp_path))
    monkeypatch.chdir("/")
    save_npz(tmp_path / "mine.npz", x=X, y=Y)
    assert held(data="mine.npz").layout.d == 3 * 6


# What is not sound


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_is_ever_executed(tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    np.savez(tmp_path / "a.npz", x=trap, y=Y)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap(sprung)))
    torch.save({"x": Trap(sprung), "y": 0}, tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(pickle.dumps(Trap(sprung)))
    for name in "a.npz", "b.npz", "c.pt", "d.pt":
        with pytest.raises(InvalidInput, match=name):
            held(data=str(tmp_path / name))
    assert not sprung.exists()


FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"x": np.where(X > 2, np.nan, X), "y": Y}, "should be finite. Found NaN or Inf in"),
    "Inf": ({"x": np.where(X > 2, np.inf, X), "y": Y}, "should be finite. Found NaN or Inf in"),
    "lengths": ({"x": X, "y": Y[:-1]}, r"shape \[60\], one for each input. Found \[59\]"),
    "no samples": ({"x": X[:0], "y": Y[:0]}, r"with m >= 1. Found \[0, 5\]"),
    "no features": ({"x": X[:, 0], "y": Y}, r"shape \[m, features\].* Found \[60\]"),
    "too many axes": ({"x": X.reshape(60, 5, 1, 1, 1), "y": Y}, "shape"),
    "one hot": ({"x": X, "y": np.eye(3)[Y]}, r"Found \[60, 3\]"),
    "negative labels": ({"x": X, "y": Y - 1}, "whole numbers from 0.* Found -1. Number"),
    "targets": ({"x": X, "y": X[:, 0]}, "whole numbers from 0.*task of your own"),
    "NaN labels": ({"x": X, "y": np.where(Y > 1, np.nan, Y)}, "whole numbers from 0"),
    "wild labels": ({"x": X, "y": Y * 10**12}, "fewer classes than samples"),
    "texts": ({"x": X.astype(str), "y": Y}, "array of real numbers. Found an array of <U"),
    "complex": ({"x": X + 0j, "y": Y}, "array of real numbers"),
    "names": ({"a": X, "b": Y}, "should hold one of x_train and y_train.* Found a, b"),
    "test shape": (
        {"x": X, "y": Y, "x_test": X[:, :4], "y_test": Y},
        r"shape \[5\], as in training. Found \[4\]",
    ),
    "test labels": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y + 1},
        r"lie in 0..2, as in training. Found one of 3",
    ),
    "bytes, then floating": (
        {"x": BYTES, "y": COLOURS, "x_test": BYTES / 255, "y_test": COLOURS},
        "test inputs of .* be bytes, as in training. Found floating numbers.* one dtype",
    ),
    "floating, then bytes": (
        {"x": BYTES / 255, "y": COLOURS, "x_test": BYTES, "y_test": COLOURS},
        "be floating numbers, as in training. Found bytes",
    ),
    "whole, then bytes": (
        {"x": BYTES.astype(np.int32), "y": COLOURS, "x_test": BYTES, "y_test": COLOURS},
        "be whole numbers, as in training. Found bytes",
    ),
    "truth values, then whole": (
        {"x": X > 0, "y": Y, "x_test": (X > 0).astype(int), "y_test": Y},
        "be truth values, as in training. Found whole numbers",
    ),
    "one class": ({"x": X, "y": 0 * Y}, "two or more classes. Found one class, 0"),
    "one class, not the first": ({"x": X, "y": 0 * Y + 2}, "two or more classes. Found one class, 2"),
    "a class a sample": (
        {"x": X, "y": np.arange(60)},
        "fewer classes than samples. Found a class for each of 60.* task of your own",
    ),
    "endless labels": ({"x": X, "y": Y * 1e300}, "fewer classes than samples. Found a label 2e"),
    "two axes of channels": (
        {"x": np.zeros((40, 3, 8, 3)), "y": COLOURS},
        r"not such numbers on both. Found samples of shape \[3, 8, 3\].*pad the images",
    ),
    "an axis of one channel, images of one column": (
        {"x": np.zeros((40, 1, 8, 1)), "y": COLOURS},
        "Leave out an axis of one channel",
    ),
}


def test_parts_of_one_kind_may_differ_in_precision_and_a_test_may_be_small(tmp_path):
    for i, (kind, other) in enumerate([(np.float64, np.float32), (np.int64, np.int16), (bool, bool)]):
        x = (3 * X).astype(kind)
        path = save_npz(tmp_path / f"{i}.npz", x=x, y=Y, x_test=x[2:3].astype(other), y_test=Y[2:3])
        assert len(tensors(held(data=path))[2]) == 1
    assert len(tensors(held(data=save_npz(tmp_path / "b.npz", x=X, y=Y > 0)))[0]) == 48


def test_classes_that_no_sample_has_are_told(tmp_path):
    for name, labels, told in [("begin", Y + 1, "label 0,"), ("gap", 3 * Y + 1, "label 0, 2, 3, 5, 6,")]:
        with pytest.warns(UserWarning, match=told):
            held(data=save_npz(tmp_path / f"{name}.npz", x=X, y=labels))
    some = Y != 1
    with pytest.warns(UserWarning, match="No training sample .* label 1,"):
        held(data=save_npz(tmp_path / "t.npz", x=X[some], y=Y[some], x_test=X, y_test=Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held(data=save_npz(tmp_path / "a.npz", x=X, y=Y))


ROWS = {
    "1 1:2\n0 1:x\n1 1:1\n": "Found '1:x' in line 2.",
    "# what\n1 1:2\n\n0 3\n": "Found '3' in line 4.",
    "1 1:2\n0 2:1 2:3\n": "Found index 2 after index 2 in line 2.",
    "1 1:2\n0 -1:3\n": "Found '-1:3' in line 2.",
    "1 1:2\n0,1 1:3\n": "Found the label '0,1' in line 2.",
    "1 1:2\n0 1:3\n0.5 1:3 # half\n": "Found the label '0.5' in line 3. Targets of regressions",
    "1 1:2\nnan 1:3\n": "Found the label 'nan' in line 2.",
    "# nothing\n": "Found no row.",
}


@pytest.mark.parametrize("text", ROWS)
@pytest.mark.parametrize("end", ["libsvm", "svm.gz"])
def test_rows_that_are_not_sound_are_named_by_their_line(tmp_path, text, end):
    raw = text.encode("ascii")
    (tmp_path / f"bad.{end}").write_bytes(gzip.compress(raw) if end.endswith("gz") else raw)
    (tmp_path / "good.svm").write_text("1 1:2\n0 1:3\n1 1:4\n", encoding="ascii")
    for fields in ({"data": f"bad.{end}"}, {"data": "good.svm", "test": f"bad.{end}"}):
        with pytest.raises(InvalidInput, match=re.escape(ROWS[text])) as caught:
            held(**{key: str(tmp_path / name) for key, name in fields.items()})
        assert f"bad.{end}" in str(caught.value)
        assert "array" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_regression_on_whole_numbers_and_files_that_end_too_soon_are_refused(tmp_path):
    (tmp_path / "a.svm").write_text("7 1:2\n2 1:4\n1 1:3\n", encoding="ascii")
    with pytest.raises(InvalidInput, match=r"a\.svm should be .*fewer classes.* task of your own"):
        held(data=str(tmp_path / "a.svm"))
    short = gzip.compress(b"1 1:2\n0 1:3\n" * 500)[:-12]
    (tmp_path / "b.svm.gz").write_bytes(short)
    with pytest.raises(InvalidInput, match=r"LIBSVM file .*b\.svm\.gz .*cannot be read past line"):
        held(data=str(tmp_path / "b.svm.gz"))


def deep_png(kind: int, channels: int) -> bytes:
    """A PNG of 2 x 2 pixels with 16 bits a channel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = zlib.compress((b"\0" + bytes(range(4 * channels))) * 2)
    header = struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_images_of_more_than_eight_bits_are_refused_and_others_are_read(tmp_path):
    from PIL import Image

    for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        path = tmp_path / f"deep{kind}.png"
        path.write_bytes(deep_png(kind, channels))
        with pytest.raises(InvalidInput, match=rf"{path.name} should have 8 bits a channel.*\.npz"):
            picture(path, 0)
    for mode in ("I;16", "I", "F"):
        path = tmp_path / "deep.tiff"
        Image.new(mode, (2, 2)).save(path)
        with pytest.raises(InvalidInput, match=rf"8 bits a channel.*Found mode '{mode}'.*\.npz"):
            picture(path, 2)
    for mode, shape in {"1": (2, 2), "L": (2, 2), "LA": (2, 2), "P": (2, 2, 3), "RGBA": (2, 2, 3)}.items():
        Image.new(mode, (2, 2)).save(tmp_path / "plain.png")
        assert picture(tmp_path / "plain.png", 0).shape == shape
    Image.new("CMYK", (2, 2)).save(tmp_path / "print.jpg")
    assert picture(tmp_path / "print.jpg", 0).shape == (2, 2, 3)


@pytest.mark.parametrize("flaw", FLAWS)
def test_unsound_data_are_one_line_that_names_the_set(tmp_path, flaw):
    arrays, told = FLAWS[flaw]
    path = save_npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput, match=told) as caught:
        held(data=path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_damaged_or_of_another_kind_are_named(tmp_path):
    whole = Path(save_npz(tmp_path / "a.npz", x=X, y=Y)).read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npy").read_bytes())
    (tmp_path / "text.pt").write_text("no tensor", encoding="ascii")
    (tmp_path / "a.libsvm").write_text("1 1:x\n", encoding="ascii")
    save_pt(tmp_path / "three.pt", (torch.zeros(3), torch.zeros(3), torch.zeros(3)))
    save_pt(tmp_path / "sparse.pt", (torch.eye(4).to_sparse(), torch.arange(4)))
    for name in (
        "short.npz",
        "empty.npz",
        "one.npz",
        "text.pt",
        "a.libsvm",
        "three.pt",
        "sparse.pt",
        "one.npy",
    ):
        with pytest.raises(InvalidInput, match=name) as caught:
            held(data=str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_folders_that_are_not_sound_are_named(tmp_path):
    def refused(path: Path, told: str, **fields: Any) -> None:
        with pytest.raises(InvalidInput, match=told):
            held(data=str(path), **fields)

    refused(save_folder(tmp_path / "one", BYTES[:4], [0] * 4, ("a",)), "two or more classes")
    uneven = save_folder(tmp_path / "uneven", BYTES, COLOURS, ("a", "b"))
    save_folder(uneven, BYTES[:1, :4], [1], ("a", "b"))
    refused(uneven, "have one size.*Set `size`")
    held(data=str(uneven), size=6)
    broken = save_folder(tmp_path / "broken", BYTES, COLOURS, ("a", "b"))
    (broken / "b" / "001.png").write_bytes(b"\x89PNG no more")
    refused(broken, "001.png should be whole")
    (broken / "b" / "001.png").rename(broken / "b" / "notes.txt")
    refused(broken, "notes.txt")
    (broken / "b" / "notes.txt").unlink()
    (broken / "c").mkdir()
    refused(broken, "c should hold images")
    other = save_folder(tmp_path / "other", BYTES, COLOURS, ("a", "z"))
    refused(uneven, r"no other classes than the training. Found \['z'\]", test=str(other), size=6)


def test_what_is_not_there_or_not_asked_for_rightly_is_said(tmp_path):
    with pytest.raises(MissingData, match=r"nothing.npz.*BYZOPT_DATA_DIR"):
        held(data="nothing.npz")
    path = save_npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(InvalidInput, match=r"have the format of a.npz"):
        held(data=path, test=str(tmp_path))
    for wrong in (
        {"data": ""},
        {"data": "torchvision:CIFAR10", "size": 8},
        {"data": "medmnist:pathmnist", "digest": "0"},
        {"data": path, "test_share": 1.0},
        {"data": path, "size": -1},
        {"data": path, "model": "resnet20"},
        {"data": path, "pool": 2},
    ):
        with pytest.raises(InvalidInput):
            held(**wrong)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in its file system")
def test_a_pipe_is_no_data_set(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(MissingData, match="a file or a folder"):
        held(data=str(tmp_path / "a.npz"))


def test_nothing_is_written_for_a_run_on_unsound_data(tmp_path, byzopt: Command):
    path = save_npz(tmp_path / "a.npz", x=np.where(X > 2, np.nan, X), y=Y)
    spec = tmp_path / "my.toml"
    spec.write_text(
        f"rule = 'median'\nrounds = 2\nlr = 0.1\nn = 4\nf = 1\n[task]\nname = 'data_set'\ndata = '{path}'\n",
        encoding="utf-8",
    )
    done = byzopt("run", str(spec), "--out", str(tmp_path / "out"))
    assert done.status == 2
    assert "should be finite" in done.err
    assert not (tmp_path / "out").exists()


# Sets by name


class Fake(ModuleType):
    def __init__(self, name: str, **parts: Any) -> None:
        super().__init__(name)
        self.__dict__.update(parts)


class Samples:
    """Images and labels one by one, as torchvision has them."""

    def __init__(self, root: str, train: bool = True, transform: Any = None, download: bool = False) -> None:
        self.part = slice(30) if train else slice(30, 40)
        self.asked = download

    def __len__(self) -> int:
        return len(BYTES[self.part])

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return BYTES[self.part][i], int(COLOURS[self.part][i])


class SplitSamples(Samples):
    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        super().__init__(root, split == "train", download=download)


class Columns(dict):
    @property
    def column_names(self) -> list[str]:
        return list(self)


def load_dataset(path: str, config: str | None = None, **options: Any) -> dict[str, Columns]:
    if path == "broken":
        raise ConnectionError("no network\nat all")
    if path == "strange":
        return {"train": Columns(text=["a"], label=[0])}
    part = lambda who: Columns(img=list(BYTES[who]), label=COLOURS[who].tolist())  # noqa: E731
    return {"train": part(slice(30)), "validation" if config else "test": part(slice(30, 40))}


class Med:
    def __init__(self, split: str, root: str, download: bool) -> None:
        part = slice(30) if split == "train" else slice(30, 40)
        self.imgs, self.labels = BYTES[part], COLOURS[part].reshape(-1, 1)


@pytest.fixture
def packages(monkeypatch, tmp_path):
    monkeypatch.setenv("BYZOPT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BYZOPT_OFFLINE", "1")
    shown = SimpleNamespace(CIFAR10=Samples, SVHN=SplitSamples, folder=None)
    monkeypatch.setitem(sys.modules, "torchvision", Fake("torchvision", datasets=shown))
    fake = Fake("datasets", load_dataset=load_dataset, DownloadConfig=lambda **options: options)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    info = {"bloodmnist": {"python_class": "BloodMNIST"}}
    monkeypatch.setitem(sys.modules, "medmnist", Fake("medmnist", INFO=info, BloodMNIST=Med))


@pytest.mark.parametrize(
    "name",
    ["torchvision:CIFAR10", "torchvision:SVHN", "datasets:a/b", "datasets:a/b:c", "medmnist:bloodmnist"],
)
@pytest.mark.usefixtures("packages")
def test_a_package_s_set_is_read_by_its_name(name):
    flat = BYTES.transpose(0, 3, 1, 2).reshape(40, -1).astype(np.float32) / np.float32(255)
    matches(held(data=name), flat[:30], COLOURS[:30], flat[30:], COLOURS[30:])


def test_colours_of_a_palette_are_read_as_colours_and_samples_have_one_dtype():
    from PIL import Image

    image = Image.fromarray(BYTES[0]).convert("P")
    read, _ = of_samples([(image, 0)], "a set")
    assert np.array_equal(read[0], np.asarray(image.convert("RGB")))
    with pytest.raises(InvalidInput, match=r"one dtype. Found \['float64', 'uint8'\]"):
        of_samples([(BYTES[0], 0), (BYTES[0] / 255, 1)], "a set")


@pytest.mark.parametrize(
    "name, error, told",
    [
        ("torchvision:CIFAR11", UnknownName, "CIFAR10"),
        ("torchvision:folder", UnknownName, "CIFAR10"),
        ("medmnist:blood", UnknownName, "bloodmnist"),
        ("datasets:broken", MissingData, "datasets said: no network at all"),
        ("datasets:strange", InvalidInput, "inputs of datasets:strange should be called one of"),
    ],
)
@pytest.mark.usefixtures("packages")
def test_what_a_package_does_not_have_is_one_line(name, error, told):
    with pytest.raises(error, match=told) as caught:
        held(data=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["torchvision", "datasets", "medmnist"])
def test_a_package_that_is_absent_is_one_line_that_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtra, match=f"{package}:NAME needs {package}.*pip install {package}."
    ) as caught:
        held(data=f"{package}:NAME")
    assert isinstance(caught.value, ByzoptError)
    assert "\n" not in str(caught.value)


def test_the_real_datasets_package_reads_a_folder_of_images(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    save_folder(tmp_path / "set" / "train", BYTES[:30], COLOURS[:30], ("cat", "dog"))
    save_folder(tmp_path / "set" / "test", BYTES[30:], COLOURS[30:], ("cat", "dog"))
    ours, theirs = (tensors(held(data=f"{way}{tmp_path / 'set'}")) for way in ("", "datasets:"))
    for mine, other in zip(ours[::2], theirs[::2], strict=True):
        assert mine.sort(dim=0).values.equal(other.sort(dim=0).values)  # its order is its own


def test_the_real_medmnist_reads_its_file(tmp_path, monkeypatch):
    pytest.importorskip("medmnist")
    monkeypatch.setenv("BYZOPT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BYZOPT_OFFLINE", "1")
    (tmp_path / "medmnist").mkdir()
    images = NUMBERS.integers(0, 256, size=(20, 28, 28, 3), dtype=np.uint8)
    labels = np.arange(20).reshape(-1, 1) % 8
    parts = {
        f"{part}_{what}": value
        for part in ("train", "val", "test")
        for what, value in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "medmnist" / "bloodmnist.npz", **parts)
    found = tensors(held(data="medmnist:bloodmnist"))
    assert found[0].shape == (20, 3 * 28 * 28)
    assert found[1].tolist() == labels.flatten().tolist()


# Networks


@pytest.mark.parametrize(
    "network, shape, classes, count",
    [
        (resnet18, (3, 224, 224), 1000, 11_689_512),
        (resnet18, (3, 32, 32), 10, 11_173_962),
        (resnet20, (3, 32, 32), 10, 269_722),
        (vgg11, (3, 32, 32), 10, 9_231_114),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_networks_have_the_published_numbers_of_parameters(network, shape, classes, count, norm):
    made = network(shape, classes, norm, 0)
    assert sum(parameter.numel() for parameter in made.parameters()) == count
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules()) or norm == "batch"
    if network is vgg11:
        convolutions = [layer for layer in made.modules() if isinstance(layer, nn.Conv2d)]
        assert len(convolutions) == 8
        assert sum(p.numel() for layer in convolutions for p in layer.parameters()) == 9_220_480


@pytest.mark.parametrize("network, depth", [(resnet18, 18), (resnet20, 20), (vgg11, 9)])
def test_networks_are_as_deep_as_their_names_say(network, depth):
    made = network((3, 32, 32), 10, "group", 0)
    weighted = [layer for layer in made.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    shortcuts = [layer for layer in weighted if getattr(layer, "kernel_size", None) == (1, 1)]
    assert len(weighted) - len(shortcuts) == depth
    assert made(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_equal_seeds_start_equal_networks_and_no_global_generator_moves():
    before = torch.get_rng_state()
    first, same, other = (resnet20((1, 8, 8), 2, "group", seed) for seed in (0, 0, 1))
    weights = [next(one.parameters()) for one in (first, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert torch.get_rng_state().equal(before)


@pytest.mark.slow
def test_gradients_of_a_network_are_those_of_a_loop_over_workers(tmp_path):
    path = save_npz(tmp_path / "a.npz", images=BYTES, labels=COLOURS)
    task = DataSet(data=path, model="resnet20", batch=2).build(COHORT, 0)
    assert task.strategy == "grouped"
    x, batch = task.start(), task.draw(1)
    alone = torch.cat([task.grads_of(x, batch, slice(i, i + 1)) for i in range(4)])
    assert (task.grads(x, batch) - alone).norm() <= 2e-5 * alone.norm()  # float32, sums in another order


@pytest.mark.slow
def test_batch_norm_is_settled_as_for_every_module(tmp_path):
    path = save_npz(tmp_path / "a.npz", images=BYTES, labels=COLOURS)
    with pytest.warns(UserWarning, match="running statistics|Running statistics"):
        DataSet(data=path, model="resnet20", norm="batch", batch=4).build(COHORT, 0)
