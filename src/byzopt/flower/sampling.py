"""How many of the nodes that a round asks may be faulty, where so many of all nodes are."""

from __future__ import annotations

from logging import INFO

from byzopt.errors import require
from byzopt.flower.members import LOG
from byzopt.theory.sampling import least_sample, least_tolerance


def sample_tolerance(n: int, faulty: int, asked: int, rounds: int, confidence: float) -> int:
    """The least f with which no round of a run asks more than f faulty nodes, with this confidence: exact
    tails of the hypergeometric distribution, and the union bound over rounds (`theory.sampling`).

    Errors: `InvalidInput` where no f below half of those asked will do; it names how many have to be asked.
    """
    require(
        0 <= 2 * faulty < n, "Parameter `faulty_nodes`", f"be less than half of the n = {n} nodes", faulty
    )
    require(0 < confidence < 1, "Parameter `confidence`", "lie in (0, 1)", confidence)
    if asked == n:
        return faulty
    tolerated = least_tolerance(n, faulty, asked, rounds, confidence)
    least = least_sample(n, faulty, rounds, confidence)
    require(
        tolerated is not None,
        "The sample of a round",
        f"hold a majority of sound nodes in all {rounds} rounds with probability {confidence:g}, where "
        f"{faulty} of {n} are faulty",
        f"{asked} nodes",
        f"Ask at least {least}, a fraction of {(least or n) / n:.4g}.",
    )
    assert tolerated is not None
    LOG.log(
        INFO,
        "byzopt: a round asks %d of %d nodes, %d of which are faulty: at most %d of those asked, in all %d "
        "rounds with probability %g",
        *(asked, n, faulty, tolerated, rounds, confidence),
    )
    return tolerated
