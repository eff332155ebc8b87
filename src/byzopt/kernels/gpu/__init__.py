"""Kernels for rows on a GPU, by Triton; where it is absent or a kernel does not fit, the answer is None."""

from byzopt.kernels.gpu.columns import blends, columns
from byzopt.kernels.gpu.launching import interpreted, interpreting, runs_on, state
from byzopt.kernels.gpu.products import products, squares

__all__ = ["blends", "columns", "interpreted", "interpreting", "products", "runs_on", "squares", "state"]
