"""What an estimator is: what honest workers compute from gradients, and send."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require
from byzopt.registry import Registry
from byzopt.rng import coin, stream

Need = Literal["replay", "full", "points"]
State = Any  # a typed tuple of tensors [n, d], fixed in structure for the whole run


@dataclass(frozen=True)
class Oracle:
    """Round t's gradients: `oracle(x)` gives `[n, d]` at `x` `[d]`, always on this round's one sample.

    `full(x)` gives full gradients where the task has them. `at(points)` gives each worker's gradient at a
    point of its own, on the same sample; `fresh(k)` is the same round on its k-th further sample, of which
    there are as many as the estimator's `samples` says. `seed` is the run's, for coins.

    Args:
        t: The round, from 1.
        grads: Gradients of all workers at a point: `[d] -> [n, d]`, always on this round's one sample.
        full: Full gradients of all workers: `[d] -> [n, d]`.
        seed: The run's, for common coins.
        grads_at: Gradients at points of workers' own: `[n, d] -> [n, d]`; None where there are none.
        sample: The oracle on the round's k-th sample; None where there is one sample alone.
        present: Who takes part in this round, `[n]`; None: everybody. Gradients of the others are 0.
        clip: Means of the gradients of single samples at a point, each clipped to a length: `[d]`, C and
            whether they are Poisson samples to `[n, d]`, and how many samples each is of, `[n]`; None where
            there are none.
        players: Whose gradients these are, of how many; None where workers are real, and draw by themselves.

    Returns:
        Called at `x` `[d]`, the gradients `[n, d]`.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle
        >>> targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> oracle = Oracle(1, grads=lambda x: x - targets, full=lambda x: x - targets)
        >>> oracle(torch.zeros(2))
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """

    t: int
    grads: Callable[[Tensor], Tensor]
    full: Callable[[Tensor], Tensor]
    seed: int = 0
    grads_at: Callable[[Tensor], Tensor] | None = None
    sample: Callable[[int], Oracle] | None = None
    present: Tensor | None = None
    clip: Callable[[Tensor, float, bool], tuple[Tensor, Tensor]] | None = None
    players: tuple[slice, int] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.grads(x)

    def at(self, points: Tensor) -> Tensor:
        """Gradients `[n, d]`, worker i's at its own `points[i]`, on this round's sample.

        Args:
            points: `[n, d]`; one point `[d]` is refused.

        Returns:
            Gradients `[n, d]`.

        Raises:
            InvalidInput: Points of another shape, and workers that have gradients at the common point alone.

        Examples:
            >>> import torch
            >>> from byzopt import Cohort, Quadratic
            >>> from byzopt.engines import GradientCount
            >>> task = Quadratic().build(Cohort.of(4), seed=0)
            >>> oracle = GradientCount().oracle(task, t=1, seed=0)
            >>> points = task.start().expand(4, -1)
            >>> torch.equal(oracle.at(points), oracle(task.start()))
            True
        """
        if self.grads_at is None:
            raise InvalidInput(
                "A worker that asks for gradients at a point of its own should have an engine that gives "
                "them. Found one that gives gradients at the server's point alone. Use the simulated engine."
            )
        return self.grads_at(points)

    def fresh(self, k: int) -> Oracle:
        """The same round on its k-th further sample, k in 0 .. samples - 1; 0 is this round's first.

        Args:
            k: Which sample of the round.

        Returns:
            An oracle of the same round.

        Raises:
            InvalidInput: A round has fewer samples.

        Examples:
            >>> import torch
            >>> from byzopt import Cohort, Quadratic
            >>> from byzopt.engines import GradientCount
            >>> task = Quadratic().build(Cohort.of(4), seed=0)
            >>> second = GradientCount().oracle(task, t=3, seed=0, samples=2).fresh(1)
            >>> x = task.start()
            >>> torch.equal(second(x), task.grads(x, task.draw(6)))  # round 3 has draws 5 and 6
            True
        """
        if self.sample is None:
            require(k == 0, "A further sample of a round", "be drawn where there are several", f"k = {k}")
            return self
        return self.sample(k)

    def clipped(self, x: Tensor, radius: float, poisson: bool = False) -> tuple[Tensor, Tensor]:
        """Means over each worker's samples of this round of their single gradients, clipped to a length.

        Args:
            x: The point, `[d]`.
            radius: The length to which the gradient of each sample is clipped.
            poisson: Whether a worker takes each of its samples by itself, in place of the round's minibatch.

        Returns:
            The means `[n, d]`, and of how many samples each is, `[n]`; of Poisson samples their sums over the
            number that is expected, and that number.

        Raises:
            InvalidInput: An engine or a task that has no gradients of single samples.

        Examples:
            >>> from byzopt import Cohort, LogisticRegression
            >>> from byzopt.engines import GradientCount
            >>> task = LogisticRegression(l2=0.0, batch=4).build(Cohort.of(3), seed=0)
            >>> means, counts = GradientCount().oracle(task, t=1, seed=0).clipped(task.start(), 0.1)
            >>> bool((means.norm(dim=1) <= 0.1).all()), counts.tolist()
            (True, [4.0, 4.0, 4.0])
        """
        if self.clip is None:
            raise InvalidInput(
                "Gradients of single samples should come from an engine that has them. Found one without. "
                "Use the simulated engine, or clip each message."
            )
        return self.clip(x, radius, poisson)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers `[n, d]` of this round, for the noise of simulated workers: worker i's are
        the same whoever else is played here.

        Args:
            like: Rows `[n, d]` of the shape, dtype and device that are wanted.

        Returns:
            Numbers in the shape of `like`.

        Raises:
            InvalidInput: Workers that are real, whose noise nobody else may know.

        Examples:
            >>> import torch
            >>> from byzopt import Cohort, Quadratic
            >>> from byzopt.engines import GradientCount
            >>> task, rows = Quadratic().build(Cohort.of(4), seed=0), torch.zeros(4, 20)
            >>> alone = GradientCount().oracle(task, t=3, seed=0, workers=slice(2, 3)).normal(rows[2:3])
            >>> torch.equal(alone, GradientCount().oracle(task, t=3, seed=0).normal(rows)[2:3])
            True
        """
        if self.players is None:
            raise InvalidInput(
                "Noise should be drawn by an engine that plays all workers. Found workers that are real, who "
                "would all draw the same from one seed. Use the simulated engine."
            )
        workers, n = self.players
        generator = stream(self.seed, "privacy", self.t, device=like.device)
        shape = (n, *like.shape[1:])
        return torch.randn(shape, dtype=like.dtype, generator=generator, device=like.device)[workers]

    def coin(self, p: float) -> bool:
        """The round's common coin, 1 with probability p: the one that the wire sees too."""
        return coin(self.seed, self.t, p)


class Estimator(ABC):
    """All workers' side of a method, vectorised: worker i's state is row i and touches no other row.

    `init` is round 1 and already emits rows, so that no gradient and no message goes uncounted. `needs` says
    what it asks of a task: `"replay"` gradients at two points on one sample, `"full"` full gradients,
    `"points"` gradients at points of workers' own (`Oracle.at`). `samples` K: round t has the task's draws
    (t-1) K + 1 .. t K, the k-th of which `Oracle.fresh(k)` is on.
    `coined`: the server tosses a coin for all each round, one bit of the broadcast. `counts_absence`: it sees
    to those who do not take part (`Oracle.present`) itself; what others remember stays as it was.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Estimator, Oracle
        >>> class Clipped(Estimator):
        ...     def init(self, x, oracle):
        ...         return oracle(x).clamp(-1, 1), ()
        ...
        ...     def step(self, state, x, oracle):
        ...         return self.init(x, oracle)
        >>> oracle = Oracle(1, grads=lambda x: 5 * x.expand(3, -1), full=None)
        >>> Clipped().init(torch.tensor([0.1, 1.0]), oracle)[0][0]
        tensor([0.5000, 1.0000])
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    coined: ClassVar[bool] = False
    counts_absence: ClassVar[bool] = False

    @property
    def samples(self) -> int:
        """How many samples of its own a worker draws in a round."""
        return 1

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @property
    def noisy(self) -> bool:
        """Whether it adds noise for privacy, which nobody else may know where workers are real."""
        return False

    @abstractmethod
    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The first messages `[n, d]` and the state after them."""

    @abstractmethod
    def step(self, state: State, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The messages `[n, d]` of a later round and the state after them."""

    def report(self, state: State) -> dict[str, float]:
        """Figures of the state, for records of simulations. Default: none."""
        return {}


ESTIMATORS: Registry[Estimator] = Registry("estimator", Estimator)
