"""Server steps: ask/tell optimisers fed with aggregates."""

from byzopt.servers.base import STEPS, Site, Step
from byzopt.servers.descent import Descent, LMOStep
from byzopt.servers.norms import NORMS, Euclidean, Norm, Sign, Spectral

__all__ = ["NORMS", "STEPS", "Descent", "Euclidean", "LMOStep", "Norm", "Sign", "Site", "Spectral", "Step"]
