"""What a method is: what workers compute, what crosses the wire, what the server does with the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ClassVar, cast

from byzopt.aggregators import Aggregator, ClippedChanges, LastRows, PresentRows
from byzopt.aggregators.core.filters import Filter
from byzopt.errors import require
from byzopt.registry import Registry
from byzopt.servers import Step
from byzopt.servers.descent import check_rate
from byzopt.theory.premises import checked_premise
from byzopt.theory.privacy import Uses
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Broadcast, Channel, Downlink
from byzopt.workers import All, Estimator, Participants

EVERYBODY = All()


@dataclass(frozen=True)
class Method:
    """Orthogonal slots; any method of the field is a choice for each.

    Args:
        worker: What workers compute.
        wire: What crosses to the server, and what the server remembers of it.
        filter: What the server does with the rows.
        step: What the server does with the aggregate.
        down: How the server's point reaches the workers.
        participants: Who takes part in a round.

    Examples:
        >>> from byzopt import ByzNSGDM, Method, rule_from
        >>> method = ByzNSGDM().build(rule_from("median", f=3), lr=0.1, rounds=100)
        >>> isinstance(method, Method), type(method.worker).__name__
        (True, 'WorkerMomentum')
    """

    worker: Estimator
    wire: Channel
    filter: Filter
    step: Step
    down: Downlink = Broadcast()
    participants: Participants = EVERYBODY

    @property
    def needs_proxy(self) -> bool:
        """Whether its step or its filter needs a loss that the server owns."""
        return self.step.needs_proxy or self.filter.needs_proxy

    def among(self, participants: Participants) -> Method:
        """This method with these participants, its rule fitted to them.

        Args:
            participants: Who takes part in a round.

        Returns:
            The method; itself where everybody takes part.

        Raises:
            InvalidInput: Others than a method that chooses its participants itself has, and a rule that
                remembers every worker's rows.

        Examples:
            >>> from byzopt import RobustGD, rule_from
            >>> from byzopt.workers import Exactly
            >>> method = RobustGD().build(rule_from("median", f=2), lr=0.1).among(Exactly(8))
            >>> type(method.filter).__name__, method.participants.count
            ('PresentRows', 8)
        """
        if participants == EVERYBODY:
            return self
        remedy = "Set them among the method's own parameters, and leave `participants` out."
        free = self.participants == EVERYBODY
        require(free, "A method that chooses its participants", "be given no others", participants, remedy)
        filter: Filter = PresentRows(self.filter, participants.tolerated)
        if participants.absent == "keep":
            filter = LastRows(filter, participants.decay)
        if participants.clip is not None:
            filter = ClippedChanges(filter, participants.clip)
        return replace(self, filter=filter, participants=participants)


Build = Callable[..., Method]


class MethodRecipe(ABC):
    """A named method as plain data; `build` puts its parts together.

    Examples:
        >>> from byzopt import RobustGD, rule_from
        >>> RobustGD().build(rule_from("median", f=3), lr=0.1).step.lr
        0.1
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "build" in vars(cls):
            cls.build = _with_a_rate(cls.build)  # type: ignore[method-assign]
        if "promise" in vars(cls):
            cls.promise = _for_everybody(cls.promise)  # type: ignore[method-assign]

    @abstractmethod
    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        """The method with this rule on the server and this scale of its steps.

        `rounds`, the length of the run, is needed only by schedules with a horizon that do not set their own.
        Errors: `InvalidInput` for an `lr` that is no finite number above 0, whatever the method's step is.
        """

    def promise(self, known: Constants) -> Promise | None:
        """What theory says of this method on a problem with these constants. None: no theorem is known."""
        return None

    def privacy(self, uses: Uses) -> tuple[Promise, ...]:
        """What is guaranteed of the privacy of honest workers' data in a run that uses them so, by what is
        replaced. Default: nothing, for methods without noise."""
        return ()

    def noise_share(self, rounds: int, batch: int | None) -> float | None:
        """The deviation of one worker's noise in each coordinate, in a run of so many rounds with minibatches
        of so many samples (None: not known), over the length to which what it hides is clipped; None where
        that is not known. Default: 0, for methods without noise."""
        return 0.0

    def expulsion(self, known: Constants) -> tuple[str, ...]:
        """What this method's expulsions rest on, in sentences with the numbers of a run, and how much they
        bear. Default: none, for methods that expel nobody."""
        return ()


def _with_a_rate(build: Build) -> Build:
    """`build` with its `lr` looked at first, so that an error speaks of the method and not of its step."""

    @wraps(build)
    def checked(self: MethodRecipe, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        check_rate(lr, f"Parameter `lr` of {getattr(self, 'name', type(self).__name__)}")
        return build(self, rule, lr, rounds)

    return checked


def _for_everybody(promise: Callable[..., Promise | None]) -> Callable[..., Promise | None]:
    """`promise` with one more premise where a run samples its workers: no theorem here knows of that, but
    those of methods that sample by themselves."""

    @wraps(promise)
    def checked(self: MethodRecipe, known: Constants) -> Promise | None:
        found = promise(self, known)
        what = "every worker takes part in every round"
        if (
            found is None
            or known.participants == EVERYBODY.name
            or any(p.what == what for p in found.premises)
        ):
            return found
        premise = checked_premise(what, False, f"participants {known.participants}")
        return replace(found, premises=(*found.premises, premise), steps={})

    return checked


def with_counts(recipe: MethodRecipe, n: int | None, f: int | None) -> MethodRecipe:
    """The recipe with `n` and `f`, as far as known, where its theory needs them and it was not told."""
    known = {name: count for name, count in (("n", n), ("f", f)) if count is not None}
    blank = {name: count for name, count in known.items() if getattr(recipe, name, 0) is None}
    return cast(MethodRecipe, replace(cast(Any, recipe), **blank)) if blank else recipe


METHODS: Registry[MethodRecipe] = Registry("method", MethodRecipe)


def check_without_noise(method: Method, what: str) -> None:
    """Raise `InvalidInput` for a method whose workers add noise for privacy, where workers are real: all
    would draw it from one seed, which all know."""
    quiet = not (method.worker.noisy or method.wire.noisy)
    found = method.worker if method.worker.noisy else method.wire
    require(quiet, what, "add no noise", found, "Simulate it, or set its noise to 0.")


def check_quiet_jobs(method: Method, what: str) -> None:
    """Raise `InvalidInput` for a method with noise where workers answer each at its own pace: a budget is
    made for a number of rounds, and who is fast sends more messages than there are rounds."""
    quiet = not (method.worker.noisy or method.wire.noisy)
    rule = "add no noise: a worker may send more messages than there are rounds, so that no budget is known"
    found = method.worker if method.worker.noisy else method.wire
    require(quiet, what, rule, found, "Run it in rounds, without `asynchrony`, or set its noise to 0.")


def check_everybody(method: Method, what: str) -> None:
    """Raise `InvalidInput` for a method that samples its workers, where nobody draws such a sample."""
    remedy = "Choose a method without `participants`."
    found = method.participants
    require(found == EVERYBODY, what, "have everybody take part in every round", found, remedy)
