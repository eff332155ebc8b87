"""What theory promises: a problem's constants in, a method's admissible parameters, bound and floor out."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from byzopt.errors import require


@dataclass(frozen=True)
class Constants:
    """What is known of a problem; None where it is not known. f stands for the honest workers' mean loss.

    `n` workers of which `f` may lie, `d` parameters, `rounds` T. `lipschitz` L of ∇f, `local` the root mean
    square of the L_i, `sample` mean-squared smoothness of a minibatch's loss, `passes` minibatches in a
    full pass, `l0` and `l1` of (L0, L1)-smoothness, `mu` of strong convexity (or of the PŁ inequality).
    `sigma` noise of one message (root mean square of its length), `bound` V its largest length, `zeta`
    heterogeneity; `g`, `b` of mean‖∇f_i - ∇f‖² <= G² + B² ‖∇f‖²; `delta` Δ, similarity of the server's
    proxy loss. `diameter` D of a ball around x^0 that holds x*, `gradient` M >= ‖∇f‖ on it, `gap` f(x^0) -
    f*, `star_gap` mean of f* - f_i* over the honest. `kappa_linear` and `kappa_squared` are the rule's.

    Errors: `InvalidInput` for a constant that is negative or not finite.
    """

    n: int
    f: int
    d: int
    rounds: int
    lipschitz: float | None = None
    local: float | None = None
    sample: float | None = None
    passes: float | None = None
    l0: float | None = None
    l1: float | None = None
    mu: float | None = None
    sigma: float | None = None
    bound: float | None = None
    zeta: float | None = None
    g: float | None = None
    b: float | None = None
    delta: float | None = None
    diameter: float | None = None
    gradient: float | None = None
    gap: float | None = None
    star_gap: float | None = None
    kappa_linear: float | None = None
    kappa_squared: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            good = value is None or (isfinite(value) and value >= 0)
            require(good, f"Constant `{name}`", "be finite and at least 0", value)


@dataclass(frozen=True)
class Promise:
    """What a theorem says with the constants filled in.

    `theorem` names it with its source; `measures` says which figure `bound` and `floor` bound (for instance
    "min ‖grad f‖", "gap", "mean ‖grad f‖²"). `steps` are admissible parameters by name; `bound` after all
    rounds with those, `floor` what remains as rounds grow; None where not covered, with the reason in
    `missing` (constants that are unknown, conditions that fail). `remarks` for people.
    """

    theorem: str
    measures: str
    steps: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    floor: float | None = None
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
