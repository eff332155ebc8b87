"""The method behind `RobustFedAvg`: what becomes of the differences that clients' training makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from byzopt.aggregators import Aggregator
from byzopt.aggregators.core.filters import check_unseen_data
from byzopt.errors import InvalidInput, require
from byzopt.methods import METHODS, Method, MethodRecipe
from byzopt.methods.base import check_everybody, check_without_noise, with_counts
from byzopt.servers import STEPS, Descent, ServerMomentum, Step
from byzopt.wire import Broadcast, Direct
from byzopt.workers import Plain, WorkerMomentum

AnyMethod: TypeAlias = "str | Mapping[str, Any] | MethodRecipe | Method | None"
AnyStep: TypeAlias = "str | Mapping[str, Any] | Step | None"


class MethodChoice(NamedTuple):
    """What a user says of the method: a whole one, or a server step and the clients' momentum."""

    method: AnyMethod
    server: AnyStep
    server_learning_rate: float
    server_momentum: float
    momentum: float

    def check(self) -> None:
        """Errors: `InvalidInput` for settings out of range, or two that say the same thing."""
        for name in ("server_momentum", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"Parameter `{name}`", "lie in [0, 1)", value)
        plain = self.server_learning_rate == 1.0 and self.server_momentum == 0.0
        if self.server is not None and not plain:
            raise InvalidInput(
                "A server step should have its own settings. Found `server` beside `server_learning_rate` or "
                "`server_momentum`. Give them to the step, as in server=ServerAdam(lr=0.1)."
            )
        if self.method is not None and (self.server is not None or self.server_momentum or self.momentum):
            raise InvalidInput(
                "A method should say itself what momentum and steps are. Found `method` beside `server`, "
                "`server_momentum` or `momentum`. Leave one of them out."
            )

    def build(self, rule: Aggregator | None, n: int, f: int | None, rounds: int | None) -> Method:
        """The method with this rule, for n clients in a round and `rounds` rounds.

        Errors: `InvalidInput` for a method that needs more of a client than trained weights.
        """
        if isinstance(self.method, Method):
            method = self.method
        elif self.method is None:
            method = self._plain(rule)
        else:
            ready = isinstance(self.method, MethodRecipe)
            recipe: Any = self.method if ready else METHODS.build(self.method)
            method = with_counts(recipe, n, f).build(_given(rule), self.server_learning_rate, rounds)
        check_unseen_data(method.filter)
        uncompressed = method.wire == Direct() and isinstance(method.down, Broadcast)
        remedy = "Take a method without compression, or RobustStrategy with client_app."
        require(uncompressed, "A method behind RobustFedAvg", "send whole rows", method.wire, remedy)
        check_everybody(method, "A method behind RobustFedAvg")
        check_without_noise(method, "A method behind RobustFedAvg")
        return method

    def _plain(self, rule: Aggregator | None) -> Method:
        worker = WorkerMomentum(1 - self.momentum, start="first_gradient") if self.momentum else Plain()
        return Method(worker, Direct(), _given(rule).as_filter(), self._step())

    def _step(self) -> Step:
        if self.server is not None:
            return self.server if isinstance(self.server, Step) else STEPS.build(self.server)
        if self.server_momentum:
            return ServerMomentum(self.server_learning_rate, eta=1 - self.server_momentum, form="heavy_ball")
        return Descent(self.server_learning_rate)


def _given(rule: Aggregator | None) -> Aggregator:
    if rule is None:
        raise InvalidInput("RobustFedAvg should have a rule. Found none. Write rule='rfa', say.")
    return rule
