"""Flower: any method of byzopt as the strategy of a ServerApp, and the ClientApp that belongs to it.

    app = ServerApp()                                  app = client_app(make)  # make(context) -> Local

    @app.main()
    def main(grid, context):
        strategy = RobustStrategy("nnm >> rfa", method="byz_nsgdm", lr=0.1, f=3, n=20)
        result = strategy.start(grid, arrays_of(module), num_rounds=100, timeout=60)

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
from byzopt.flower.local import Local
from byzopt.flower.records import arrays_of
from byzopt.flower.result import RobustResult
from byzopt.flower.strategy import RobustStrategy

__all__ = ["Local", "RobustResult", "RobustStrategy", "arrays_of", "client_app"]
