"""Per-worker gradients of one round, in the fastest way that is right for the module."""

from byzopt.tasks.grads.adopt import trainable_copy
from byzopt.tasks.grads.choice import Strategy, WorkerGradients
from byzopt.tasks.grads.evaluation import Metric, accuracy, classes, default_metrics
from byzopt.tasks.grads.losses import Loss, adopted_loss, sequence_cross_entropy
from byzopt.tasks.grads.randomness import lent_rng
from byzopt.tasks.grads.softmax import Softmax

__all__ = [
    "Loss",
    "Metric",
    "Softmax",
    "Strategy",
    "WorkerGradients",
    "accuracy",
    "adopted_loss",
    "classes",
    "default_metrics",
    "lent_rng",
    "sequence_cross_entropy",
    "trainable_copy",
]
