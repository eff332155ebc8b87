"""Local steps: the steps that FedRo asks for, and where drift ends on quadratics."""

from __future__ import annotations

from math import inf

from torch import Tensor

from byzopt.errors import require


def fedro_steps(lipschitz: float, steps: int, server_lr: float = 1.0) -> float:
    """The longest local step γ_c with γ_c <= 1/(16 L K) and γ_c γ_s <= 1/(36 L K).

    Source: Allouah et al., arXiv:2402.12780, as third-party notes on it have the conditions.

    Args:
        lipschitz: L of the gradients.
        steps: Number K of local steps.
        server_lr: γ_s.

    Returns:
        γ_c; infinite where L = 0.

    Raises:
        InvalidInput: Fewer than one step, or a γ_s that is not positive.

    Examples:
        >>> from byzopt.theory.local_steps import fedro_steps
        >>> round(1 / fedro_steps(lipschitz=1.0, steps=10), 6)
        360.0
    """
    require(steps >= 1 and server_lr > 0, "K and γ_s", "be positive", f"K = {steps}, γ_s = {server_lr}")
    if not lipschitz:
        return inf
    return min(1 / 16, 1 / (36 * server_lr)) / (lipschitz * steps)


def fixed_point(curvatures: Tensor, centres: Tensor, lr: float, steps: int) -> Tensor:
    """Where rounds of local steps on f_i = ½ (x - a_i)' H_i (x - a_i) end, the server taking the mean: the x
    with Σ B_i (a_i - x) = 0, B_i = I - (I - γ_c H_i)^K.

    With K = 1 that is the minimum of the mean loss; for larger K it is drawn to where workers that are flat
    weigh as much as steep ones, the plain mean of the a_i in the end.

    Args:
        curvatures: Diagonals of the H_i, `[n, d]`.
        centres: The a_i, `[n, d]`.
        lr: Length γ_c of a local step.
        steps: Number K of local steps.

    Returns:
        x `[d]`.

    Examples:
        >>> import torch
        >>> from byzopt.theory.local_steps import fixed_point
        >>> steep, flat = torch.tensor([[1.0], [0.1]]).double(), torch.tensor([[1.0], [0.0]]).double()
        >>> [round(float(fixed_point(steep, flat, 0.1, k)), 3) for k in (1, 1000)]
        [0.909, 0.5]
    """
    pull = 1 - (1 - lr * curvatures) ** steps
    weighted: Tensor = (pull * centres).sum(dim=0) / pull.sum(dim=0)
    return weighted
