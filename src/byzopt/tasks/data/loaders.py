"""Data sets as tensors. Pixel scaling and train/validation cuts of papers belong to the tasks."""

from __future__ import annotations

import struct
from io import BytesIO
from math import prod

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import require, unknown
from byzopt.tasks.data.store import DATASETS

Labelled = tuple[Tensor, Tensor]
FEATURES = {"a9a": 123, "a9a.t": 123, "w8a": 300}
_TEST_EVERY = 5


def mnist() -> tuple[Labelled, Labelled]:
    """MNIST: train `(images uint8 [60000, 28, 28], labels int64 [60000])` and test (10000), in file order."""
    images, labels, test_images, test_labels = (
        parse_idx(file.read(), file.path) for file in DATASETS["mnist"]
    )
    return (images, labels.long()), (test_images, test_labels.long())


def digits() -> tuple[Labelled, Labelled]:
    """scikit-learn's bundled digits: train and test `(images float32 [m, 8, 8] in [0, 1], labels int64 [m])`.

    1,797 images in 10 classes. Every fifth sample of each label, in file order, is a test sample: the split
    is stratified and the same on every machine and in every version.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float() / 16
    labels = torch.from_numpy(bunch.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    for label in range(10):
        test[(labels == label).nonzero().squeeze(1)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return (images[~test], labels[~test]), (images[test], labels[test])


def shakespeare() -> str:
    """Tiny Shakespeare: 1,115,394 characters, 65 different ones."""
    return DATASETS["shakespeare"][0].read().decode("ascii")


def libsvm(name: str) -> Labelled:
    """A binary LIBSVM set as `(X float64 [m, d] dense, y int64 [m])`, in file order.

    `name`: "a9a" (32561 x 123), "a9a.t" (16281 x 123) or "w8a" (49749 x 300). y is 1 where the file says +1
    and 0 where it says -1. Errors: an unknown name.
    """
    if name not in FEATURES:
        raise unknown("LIBSVM data set", name, list(FEATURES))
    from sklearn.datasets import load_svmlight_file

    content = BytesIO(DATASETS[name][0].read())
    sparse, signs = load_svmlight_file(content, n_features=FEATURES[name], zero_based=False)
    return torch.from_numpy(sparse.toarray()), torch.from_numpy(signs > 0).long()


def parse_idx(content: bytes, what: str) -> Tensor:
    """An IDX file of unsigned bytes as a uint8 tensor; `what` names it in errors.

    Header, big-endian: two zero bytes, type 8 (unsigned byte), the number of axes r, then r sizes as 32-bit
    integers. Errors: another header, or a length that does not fit it.
    """
    require(len(content) >= 4, f"IDX file {what}", "have a header of 4 bytes", f"{len(content)} bytes")
    zero, kind, axes = struct.unpack_from(">HBB", content)
    known = zero == 0 and kind == 8 and axes >= 1
    require(known, f"IDX file {what}", "begin with 00 00 08 and its number of axes", content[:4].hex(" "))
    start = 4 + 4 * axes
    require(len(content) >= start, f"IDX file {what}", f"have a header of {start} bytes", len(content))
    shape = struct.unpack_from(f">{axes}I", content, 4)
    size = f"{len(content) - start} bytes"
    require(len(content) - start == prod(shape), f"IDX file {what}", f"hold {prod(shape)} values", size)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).view(shape)
