"""Per-worker gradients of one round, in the fastest way that is right for the module."""

from byzopt.tasks.grads.choice import Strategy, WorkerGradients
from byzopt.tasks.grads.losses import Loss, sequence_cross_entropy
from byzopt.tasks.grads.randomness import lent_rng
from byzopt.tasks.grads.softmax import Softmax

__all__ = ["Loss", "Softmax", "Strategy", "WorkerGradients", "lent_rng", "sequence_cross_entropy"]
