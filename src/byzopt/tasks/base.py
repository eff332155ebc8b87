"""What a task is: n workers' losses, their samples, their gradients, and how an iterate is measured.

A task draws a sample once per (worker, round), as a pure function of the seed and the round, and may be
asked for gradients at several points on that same sample. It holds no state that a round changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, require
from byzopt.layout import Layout
from byzopt.registry import Registry
from byzopt.theory.privacy import Uses

Batch = Any  # whatever a task needs to repeat its gradients on the same sample
Relabel = Callable[[Tensor, int], Tensor]  # (labels, number of classes) -> labels
Change = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # (inputs, labels, classes) -> both, changed


class Task(ABC):
    """n workers' losses over one flat parameter vector `[d]`.

    `replays`: whether the same batch gives gradients at several points, which variance reduction needs.

    Examples:
        >>> from byzopt import Cohort, Quartic, Task
        >>> task = Quartic().build(Cohort.of(4, 1), seed=0)
        >>> isinstance(task, Task), task.n, task.start().shape
        (True, 4, torch.Size([10]))
    """

    cohort: Cohort
    layout: Layout
    replays: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A fast way written for gradients that a class replaces is not that class's own.
        if vars(cls).keys() & {"grads", "grads_of"} and "rows_at" not in vars(cls):
            setattr(cls, "rows_at", Task.rows_at)  # noqa: B010  (mypy knows no assignment to a method)

    @property
    def n(self) -> int:
        """Number of workers."""
        return self.cohort.n

    def __repr__(self) -> str:
        """The class and its sizes: workers, those that lie, parameters."""
        cohort, layout = getattr(self, "cohort", None), getattr(self, "layout", None)
        if cohort is None or layout is None:  # a task that is still being made
            return object.__repr__(self)
        sizes = {"n": cohort.n, "byzantine": len(cohort.byzantine), "d": layout.d} | self._sizes()
        return f"{type(self).__name__}({', '.join(f'{name}={size}' for name, size in sizes.items())})"

    def _sizes(self) -> dict[str, Any]:
        """What else its `repr` tells."""
        return {}

    @abstractmethod
    def start(self) -> Tensor:
        """The starting point x^0 `[d]`; its dtype and device are those of the whole run."""

    @abstractmethod
    def draw(self, t: int) -> Batch:
        """All workers' samples of round t."""

    @abstractmethod
    def grads(self, x: Tensor, batch: Batch) -> Tensor:
        """Gradients `[n, d]` at `x` `[d]` on `batch`; row i is worker i. The same batch may be used again."""

    def grads_of(self, x: Tensor, batch: Batch, workers: slice) -> Tensor:
        """Some workers' gradients, `grads(x, batch)[workers]` to rounding. Default: taken from all."""
        return self.grads(x, batch)[workers]

    def grads_at(self, points: Tensor, batch: Batch, workers: slice = slice(None)) -> Tensor:
        """Gradients `[n, d]` of workers at points of their own `[n, d]`: row i is worker i's at `points[i]`.

        Of some `workers` alone, points and gradients are those workers', in order. How it is done is
        `rows_at`; one point `[d]` is refused, since `grads` is the call for it. Errors: `InvalidInput`.
        """
        k = len(range(self.n)[workers])
        wanted, found = (k, self.layout.d), tuple(points.shape)
        remedy = "For one point of all workers call `grads`."
        what, rule = "Points of workers' own", f"have shape {list(wanted)}, row i for worker i"
        require(found == wanted, what, rule, f"shape {list(found)}", remedy)
        return self.rows_at(points, batch, workers)

    def rows_at(self, points: Tensor, batch: Batch, workers: slice) -> Tensor:
        """What `grads_at` gives, for points that fit. Default: a call of `grads_of` for each worker."""
        who = range(self.n)[workers]
        each = zip(points, who, strict=True)
        return torch.cat([self.grads_of(point, batch, slice(i, i + 1)) for point, i in each])

    def clipped_grads(
        self, x: Tensor, batch: Batch, radius: float, workers: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Means `[k, d]` over each worker's samples of their single gradients at `x` `[d]`, each clipped to
        the length `radius`, plus what a regulariser adds to every one, unclipped; and of how many samples
        each mean is, `[k]`. Of a `poisson` sample it is the sum, divided by the number of samples that are
        expected, and that number. Errors: a task that has no samples."""
        raise InvalidInput(
            f"{type(self).__name__} has no gradients of single samples. Clip each message instead, "
            'per = "message".'
        )

    def poisson(self, t: int) -> Batch:
        """All workers' Poisson samples of draw t, for `clipped_grads` alone. Errors: a task without them."""
        raise InvalidInput(
            f'{type(self).__name__} has no Poisson samples. Take `sampling` = "walk", or a task on data.'
        )

    def uses(self, rounds: int) -> Uses:
        """How often so many rounds use one sample of an honest worker. Default: not known."""
        return Uses(rounds)

    @abstractmethod
    def measure(self, x: Tensor) -> dict[str, float]:
        """Figures of merit at `x` by name: always `loss`; `grad_norm` of the honest objective, `accuracy`
        (a share in [0, 1]), `perplexity`, ... where the task has them."""

    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """`loss`, and `accuracy` (a share in [0, 1]) where there is one, of each honest worker on all of its
        own data at `x` `[d]`, in the order of `cohort.honest`. Errors: a task that cannot tell."""
        raise InvalidInput(
            f"{type(self).__name__} has no figures of single workers. "
            "Write its `measure_workers`, or leave out `per_worker`."
        )

    def loss_of(self, x: Tensor, workers: Sequence[int]) -> float:
        """The mean over some workers, liars or not, of their losses at `x` `[d]` on all of their own data,
        regulariser included: what such workers can know. Errors: a task that cannot tell."""
        raise InvalidInput(
            f"An attack that knows its own loss needs a task that tells it. Found {type(self).__name__}. "
            "Write its `loss_of`, or use another attack."
        )

    def slope_of(self, x: Tensor, workers: Sequence[int]) -> Tensor:
        """The gradient `[d]` of `loss_of`: the mean of these workers' full gradients. Errors: as `full`."""
        batch = self.full()
        return torch.cat([self.grads_of(x, batch, slice(i, i + 1)) for i in workers]).mean(dim=0)

    def relabelled(self, workers: Sequence[int], relabel: Relabel) -> Task:
        """This task with the labels of some workers' samples changed. Errors: a task without labels."""
        raise InvalidInput(
            f"An attack that changes labels needs a task with labels. Found {type(self).__name__}. "
            "Use another attack."
        )

    def poisoned(self, workers: Sequence[int], change: Change, figure: str, goal: Change) -> Task:
        """This task with some workers' samples changed, and one more `figure` in `measure`: the accuracy on
        the test samples as `goal` makes them. Errors: a task without images."""
        raise InvalidInput(
            f"An attack that changes images needs a task with images. Found {type(self).__name__}. "
            "Use another attack."
        )

    def crowd(self, tasks: Sequence[Task]) -> Any:
        """The tasks of several runs, all of this one's type, as one `Crowd` faster than asking each in turn;
        None where there is no such way."""
        return None

    def full(self) -> Batch:
        """All of every worker's data as one batch, for methods that need full gradients."""
        raise InvalidInput(f"{type(self).__name__} has no full gradient. Use a method that needs none.")

    @property
    def passes(self) -> float:
        """What a full gradient counts in the ledger: its samples over those of a minibatch, on average over
        honest workers. Default: 1, for losses in closed form."""
        return 1.0

    def proxy(self) -> Callable[[Tensor], Tensor] | None:
        """A trusted loss that the server owns, a differentiable function of x `[d]`, or None."""
        return None

    @property
    def convexity(self) -> float:
        """A μ with which the objective is μ-strongly convex for certain; 0 where none is known."""
        return 0.0

    def stated(self) -> dict[str, Any]:
        """What the task knows for certain of the constants of theorems, by their names in
        `theory.promise.Constants`: values that hold everywhere, None where no finite one does. `least` is a
        number below the honest loss. What is not stated is estimated. Default: `convexity`, as `mu`."""
        return {"mu": self.convexity} if self.convexity else {}

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        """The mean over honest workers of their whole losses, regulariser included, and its gradient `[d]`.

        Errors: `InvalidInput` for a task that cannot give it.
        """
        raise InvalidInput(f"{type(self).__name__} has no objective in closed form. Use another task.")


class TaskRecipe(ABC):
    """A task as plain data; `build` makes the task for a cohort and a seed.

    `tested`: its figures, other than those called `validation_...`, are taken on samples held out for the
    end, so that nothing may be chosen by them. That is taken to be so of every class that does not say
    `tested: ClassVar[bool] = False` itself: what a class measures, no class above it can know.

    Examples:
        >>> from byzopt import Quartic, TaskRecipe
        >>> from byzopt.tasks import TASKS
        >>> TASKS.build({"name": "quartic", "d": 3}) == Quartic(d=3)
        True
    """

    name: ClassVar[str]
    tested: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "tested" not in vars(cls):
            cls.tested = True
        # A task that a class builds anew is not the one that a class above it builds on other data.
        if "build" in vars(cls) and "build_on" not in vars(cls):
            setattr(cls, "build_on", TaskRecipe.build_on)  # noqa: B010  (mypy knows no assignment to a method)
        # What a class reads or builds anew, no class above it can know.
        if vars(cls).keys() & {"build", "build_on", "loaded", "images"} and "pooled" not in vars(cls):
            setattr(cls, "pooled", TaskRecipe.pooled)  # noqa: B010

    @property
    def dimension(self) -> int | None:
        """d, where it is known before anything is built; None: only the built task knows."""
        return None

    @property
    def worker_bytes(self) -> int:
        """Bytes that one worker takes at least in a round, its row and its minibatch, as far as that is known
        before anything is built."""
        return 8 * (self.dimension or 0)

    def pooled(self) -> str | None:
        """What a worker's samples hold of other samples or other workers', and what to do about it, in words;
        empty where each is made of itself and fixed numbers. No privacy of one sample or of one worker is
        told otherwise. Default: None, not known."""
        return None

    def content(self) -> dict[str, str]:
        """What lies in the files that the task reads and users may change, by name: for each a text that is
        another where its content is, as its size and sha256. Runs note it, and one that was begun on other
        content is not gone on with. Default: nothing, for tasks that read no such files.

        Errors: `MissingData`, `InvalidInput`.
        """
        return {}

    @abstractmethod
    def build(self, cohort: Cohort, seed: int) -> Task:
        """The task. All its randomness comes from streams of `seed`."""

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> Task:
        """The task whose data, and who owns which of them, come from streams of `data_seed`, while the start,
        samples and noise come from those of `seed`. Errors: a task that does not tell the two apart."""
        raise InvalidInput(
            "A spec with `data_seed` should have a task that draws its data apart. "
            f"Found task {self.name!r}. Leave `data_seed` out, or write the recipe's `build_on`."
        )


class DataTaskRecipe(TaskRecipe):
    """A task whose data have a seed of their own, which is the run's where nothing else is said."""

    def build(self, cohort: Cohort, seed: int) -> Task:
        return self.build_on(cohort, seed, seed)

    @abstractmethod
    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> Task: ...


TASKS: Registry[TaskRecipe] = Registry("task", TaskRecipe)
