"""How bad can it get: a training of one's own under an ensemble of attacks, the searched one among them."""

from byzopt.stress.catalogue import ENSEMBLE, ensemble
from byzopt.stress.difference import Difference
from byzopt.stress.running import Stress, stress
from byzopt.stress.verdict import Trial, worst

__all__ = ["ENSEMBLE", "Difference", "Stress", "Trial", "ensemble", "stress", "worst"]
