"""What is proved of a rule, for the numbers that are asked about: the least over all routes, or nothing."""

from __future__ import annotations

from byzopt.aggregators.core.certificate import Source
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.theory.robustness import NOTHING, Coefficients, both, carried, closed


class Proved(Stage):
    """A rule's robustness coefficients, and those of single answers.

    A rule overrides `proved`, and `answered` and `certifiable` where single answers may be certified.
    """

    trusts: tuple[int, ...] = ()  # rows that must be honest for the coefficients to hold

    def kappa_linear(self, n: int, f: int | None = None) -> float | None:
        """Proved linear coefficient: ‖Agg - v̄‖ <= κ · mean‖v_i - v̄‖ over every n - f rows.

        `f` faulty rows among n; default: as many as the rule is set to tolerate. None where nothing is
        proved, as for more faulty rows than the rule tolerates: `unproved` says why. Where the rule `trusts`
        rows, only sets that hold them count.
        """
        return self.coefficients(n, f).linear

    def kappa_squared(self, n: int, f: int | None = None) -> float | None:
        """Proved squared coefficient: ‖Agg - v̄‖² <= κ₂ · mean‖v_i - v̄‖², as for `kappa_linear`."""
        return self.coefficients(n, f).squared

    def coefficients(self, n: int, f: int | None = None) -> Coefficients:
        """All that is proved for f faulty rows among n, the least over all routes.

        Errors: `InvalidInput` when the rule cannot work on n rows.
        """
        self.check(n)
        most = self.tolerance(n)
        f = most if f is None else f
        if not 0 <= f <= most or 2 * f >= n:
            return NOTHING
        found = closed(self.proved(n, f), n, f)
        if f < most and 2 * most < n and not self.trusts:
            # What holds for more faulty rows holds for fewer, and may be the only thing that is proved.
            found = both(found, carried(closed(self.proved(n, most), n, most), n, most, f))
        return found

    def unproved(self, n: int, f: int | None = None) -> str:
        """Why no coefficient is known for f faulty rows among n; empty where one is."""
        most = self.tolerance(n)
        f = most if f is None else f
        if f > most:
            return f"{self!r} tolerates {most} faulty rows of {n}, not {f}"
        if 2 * f >= n:
            return f"nothing is proved where {f} rows of {n}, half of them or more, are faulty"
        return "" if self.coefficients(n, f).squared is not None else f"no coefficient is proved for {self!r}"

    def proved(self, n: int, f: int) -> Coefficients:
        """What the rule's own lemmas prove for f faulty rows among n, f at most what it tolerates, 2 f < n.

        For rules to override; default: nothing. `coefficients` adds whatever follows from it.
        """
        return NOTHING

    def answered(self, mixed: Mixed, f: int, source: Source) -> Coefficients:
        """What is proved, of the whole, for the answer to these rows, f of which are faulty.

        `source` says what they were made of. Default: what always holds.
        """
        return source.whole(self.coefficients(mixed.m, f))

    def certifiable(self, n: int, f: int) -> bool:
        """Whether single answers may be certified where f of n rows are faulty."""
        return self.coefficients(n, f).squared is not None

    def behind(self, n: int, f: int) -> tuple[int, int]:
        """How many rows reach the last rule, and how many faulty ones it has to bear for f of the n."""
        return n, f

    def whole(self, found: Coefficients, n: int, f: int) -> Coefficients:
        """What is proved of the whole on n rows, f of them faulty, where `found` is of its last rule."""
        return found
