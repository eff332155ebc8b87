"""What a method's expulsions rest on, in sentences with the numbers of a run, for `explain`."""

from __future__ import annotations

from byzopt.aggregators.guards.pairs import THREES
from byzopt.errors import counted
from byzopt.theory.promise import Constants

ALIKE = "all honest workers sample one distribution"


def by_pairs(known: Constants, p_fail: float, accepted: bool) -> tuple[str, ...]:
    """For guards that test workers against each other. `accepted`: whether data may differ."""
    n, f = known.n, known.f
    sentences = [
        f"no honest worker is expelled with probability {1 - p_fail:g}, whatever {counted(f, 'liar')} of {n} "
        f"do and whatever the noise is, while {ALIKE} (byzopt.theory.accusing; needs n > 2 f)"
    ]
    if n > THREES:
        sentences.append(f"beyond {THREES} workers only drift is seen, not noise that is too large")
    elif n == 2 * f + 1:
        sentences.append("with n = 2 f + 1, f liars who stand together and do not drift are not seen")
    return (*sentences, *differing(known, 0.0, accepted))


def likely(known: Constants, noise: float, chance: float) -> str:
    """For guards whose thresholds follow from a bound V on the noise and hold with some probability."""
    return (
        f"any honest worker is expelled with probability at most {chance:.2g}, whatever "
        f"{counted(known.f, 'liar')} of {known.n} do (n > 2 f), while {ALIKE} with noise up to V = {noise:g}"
    )


def differing(known: Constants, slack: float, accepted: bool) -> tuple[str, ...]:
    """What happens where workers' data differ: nothing up to ζ = `slack`."""
    bears = f"differences ‖∇f_i - ∇f‖ up to ζ = {slack:.2g}" if slack else "no differences between data"
    if not known.zeta:
        return (f"it bears {bears}",)
    sentence = f"it bears {bears}; here ζ = {known.zeta:.2g}"
    if known.zeta > slack:
        sentence += ", so that honest workers drift apart and may be expelled"
    return (sentence if accepted else f"{sentence}; the run is refused unless `method.differing` is set",)
