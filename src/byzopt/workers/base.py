"""What an estimator is: what honest workers compute from gradients, and send."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from byzopt.errors import InvalidInput, require
from byzopt.registry import Registry
from byzopt.rng import coin

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

    @abstractmethod
    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The first messages `[n, d]` and the state after them."""

    @abstractmethod
    def step(self, state: State, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The messages `[n, d]` of a later round and the state after them."""


ESTIMATORS: Registry[Estimator] = Registry("estimator", Estimator)
