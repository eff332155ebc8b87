"""Rows of which only the numbers are known, described as clusters with followers."""

from __future__ import annotations

from typing import Any

import numpy as np

from byzopt.certificates.worst.populations import Rows
from byzopt.certificates.worst.structures import MOST, PARTS, Places, Structures

SPREAD_OUT = 1e-9  # of the honest spread: nearer places are one


def described(sets: Rows, f: int, minds: tuple[bool, bool]) -> Structures:
    """Sets of rows `[R, n, d]`, the first f faulty, as structures that are about the same.

    Honest rows go to `MOST` clusters, and each faulty row goes on the line through two places that it is
    nearest to; of several such lines that on which it stands where faulty rows like to be.
    """
    count, _, d = sets.shape
    honest, faulty = sets[:, f:], sets[:, :f]
    points, homes = clusters(honest)
    mean = honest.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(honest - mean).sum(axis=2).mean(axis=1))
    spots = np.concatenate([points, mean, np.zeros_like(mean)], axis=1)
    if not minds[0]:
        spots = spots[:, :-1]  # the origin is no place
    start, end, part = _on_lines(spots, faulty, np.maximum(spread, 1e-300))
    answers = np.zeros((count, d))
    radii = np.zeros((count, MOST))
    return Structures(points, radii, homes, start, end, part, answers, answers.copy(), False, minds)


def clusters(honest: Rows) -> tuple[Rows, Places]:
    """At most `MOST` points `[R, k, d]` and which of them each row of `[R, N, d]` is nearest to, `[R, N]`:
    every next one is the row that is farthest from those before it, then means are taken."""
    count, _, d = honest.shape
    each = np.arange(count)
    points = np.empty((count, MOST, d))
    points[:, 0] = honest[:, 0]
    for k in range(1, MOST):
        away = np.square(honest[:, :, None] - points[:, None, :k]).sum(axis=3).min(axis=2)
        points[:, k] = honest[each, away.argmax(axis=1)]
    homes = np.square(honest[:, :, None] - points[:, None]).sum(axis=3).argmin(axis=2)
    member = homes[:, None] == np.arange(MOST)[:, None]  # [R, k, N]
    size = member.sum(axis=2)[..., None]
    means = (member.astype(np.float64) @ honest) / np.maximum(size, 1)
    return np.where(size > 0, means, points), homes


def joined(first: Structures, second: Structures) -> Structures:
    """Both, one after the other."""
    fields: dict[str, Any] = dict(vars(first))
    for name, mine in vars(first).items():
        if isinstance(mine, np.ndarray):
            fields[name] = np.concatenate([mine, getattr(second, name)])
    return Structures(**fields)


def _on_lines(spots: Rows, faulty: Rows, spread: Rows) -> tuple[Places, Places, Rows]:
    """For rows `[R, f, d]` the two of the places `[R, s, d]` and the part of the way between them."""
    count, s, _ = spots.shape
    way = spots[:, None] - spots[:, :, None]  # [R, start, end, d]
    length = np.square(way).sum(axis=3)
    from_start = faulty[:, :, None] - spots[:, None]  # [R, f, start, d]
    along = np.einsum("rfsd,rsed->rfse", from_start, way)
    apart = length > (SPREAD_OUT * spread[:, None, None]) ** 2
    part = np.where(apart[:, None], along / np.where(apart, length, 1.0)[:, None], 0.0)
    off = from_start[:, :, :, None] - part[..., None] * way[:, None]
    miss = np.sqrt(np.square(off).sum(axis=4)) / spread[:, None, None, None]
    liked = np.abs(part[..., None] - np.array(PARTS)).min(axis=4) / np.maximum(np.abs(part), 1)
    best = (np.round(miss, 6) + 1e-6 * liked).reshape(count, -1, s * s).argmin(axis=2)
    chosen = np.take_along_axis(part.reshape(count, -1, s * s), best[..., None], axis=2)[..., 0]
    return best // s, best % s, chosen
