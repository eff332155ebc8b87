"""Flower: robust rules behind ClientApps that train, and any method of byzopt as a strategy.

For a Flower app as it is, whose clients train and return weights:

    strategy = RobustFedAvg(rule="rfa", f=1)            # where FedAvg() was, in the ServerApp

For clients that answer with gradients, as the theorems have it:

    strategy = RobustStrategy("rfa", method="byz_nsgdm", lr=0.1, f=3, n=20)     # in the ServerApp
    app = client_app(make)     # the ClientApp, with make(context) -> Local

Needs the extra `flower`.
"""

from byzopt.errors import MissingExtra

try:
    import flwr.app
    import flwr.serverapp.strategy  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        f'byzopt.flower needs flwr. Found: {error}. Run pip install "byzopt[flower]".'
    ) from None

from byzopt.flower.client import client_app
from byzopt.flower.fedavg import RobustFedAvg
from byzopt.flower.local import Local
from byzopt.flower.records import arrays_of
from byzopt.flower.result import RobustResult
from byzopt.flower.strategy import RobustStrategy

__all__ = ["Local", "RobustFedAvg", "RobustResult", "RobustStrategy", "arrays_of", "client_app"]
