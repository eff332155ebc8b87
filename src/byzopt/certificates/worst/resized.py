"""The worst rows of one number of workers as a guess for another."""

from __future__ import annotations

import numpy as np

from byzopt.certificates.worst.certificate import WorstRows
from byzopt.certificates.worst.populations import Rows


def resized(one: WorstRows, n: int, f: int) -> Rows:
    """Rows `[n, d]`, the first f faulty, that stand where those of the certificate do, each as often in
    proportion; the very rows where n and f are the same."""
    rows = one.sent().numpy()
    honest, faulty = rows[one.honest], rows[list(one.faulty)]
    if (one.n, one.f) == (n, f):
        return np.concatenate([faulty, honest])
    return np.concatenate([_resampled(faulty if len(faulty) else honest, f), _resampled(honest, n - f)])


def _resampled(rows: Rows, count: int) -> Rows:
    """`count` of the rows `[m, d]`, evenly from all along their longest axis."""
    mean = rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
    order = np.argsort((rows - mean) @ axes[0], kind="stable")
    taken: Rows = rows[order[(2 * np.arange(count) + 1) * len(rows) // max(2 * count, 1)]]
    return taken


def in_dimension(rows: Rows, d: int) -> Rows:
    """Rows `[n, k]` in d coordinates: those that are added are zero, fewer are the principal ones."""
    k = rows.shape[1]
    if k <= d:
        return np.pad(rows, ((0, 0), (0, d - k)))
    mean = rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
    turned: Rows = rows @ axes[:d].T
    return turned if turned.shape[1] == d else np.pad(turned, ((0, 0), (0, d - turned.shape[1])))
