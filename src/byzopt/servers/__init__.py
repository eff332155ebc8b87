"""Server steps: ask/tell optimisers fed with aggregates."""

from byzopt.deprecation import former_names
from byzopt.servers.adaptive import ServerAdagrad, ServerAdam, ServerAdamW, ServerYogi
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.clipped import Clipped
from byzopt.servers.descent import Descent, LMOStep
from byzopt.servers.inner import INNERS, LBFGS, Exact, GradientDescent, Inner
from byzopt.servers.momentum import ServerMomentum
from byzopt.servers.nesterov import Extragradient, NesterovMomentum, ThreeSequences
from byzopt.servers.norms import NORMS, Euclidean, Norm, Sign, Spectral
from byzopt.servers.projected import ProjectedStep
from byzopt.servers.shaken import Shaken
from byzopt.servers.similarity import ExtragradientProx, SimilarityProx

__all__ = [
    "INNERS",
    "LBFGS",
    "NORMS",
    "STEPS",
    "Clipped",
    "Descent",
    "Euclidean",
    "Exact",
    "Extragradient",
    "ExtragradientProx",
    "GradientDescent",
    "Inner",
    "LMOStep",
    "NesterovMomentum",
    "Norm",
    "ProjectedStep",
    "ServerAdagrad",
    "ServerAdam",
    "ServerAdamW",
    "ServerContext",
    "ServerMomentum",
    "ServerYogi",
    "Shaken",
    "Sign",
    "SimilarityProx",
    "Spectral",
    "Step",
    "ThreeSequences",
]

__getattr__ = former_names(__name__, {"Site": ServerContext})
