"""Tasks: what is minimised, by whom, on which data."""

from byzopt.tasks.base import TASKS, Task, TaskRecipe
from byzopt.tasks.data_set import DataSet
from byzopt.tasks.grads import WorkerGradients, sequence_cross_entropy
from byzopt.tasks.hard import HardLin, HardQuad
from byzopt.tasks.images import Digits, Mnist
from byzopt.tasks.logistic import LogisticRegression
from byzopt.tasks.modules import ModuleTask
from byzopt.tasks.own import task_recipe as _task_recipe  # noqa: F401  (functions as tasks)
from byzopt.tasks.partitions import (
    IID,
    PARTITIONS,
    Contiguous,
    Dirichlet,
    GammaSimilarity,
    LabelQuantity,
    LabelShards,
    LongTail,
    Partition,
    SortedByLabel,
    Strided,
    Unbalanced,
)
from byzopt.tasks.pool import Pool
from byzopt.tasks.proxies import PROXIES, Proxy, SampleProxy, ServerProxy, WorkerProxy
from byzopt.tasks.quadratic import Quadratic
from byzopt.tasks.quartic import Quartic
from byzopt.tasks.quartic_released import ReleasedQuartic
from byzopt.tasks.released import ReleasedMnist, ReleasedShakespeare
from byzopt.tasks.sampling import Sampler
from byzopt.tasks.text import Shakespeare

__all__ = [
    "IID",
    "PARTITIONS",
    "PROXIES",
    "TASKS",
    "Contiguous",
    "DataSet",
    "Digits",
    "Dirichlet",
    "GammaSimilarity",
    "HardLin",
    "HardQuad",
    "LabelQuantity",
    "LabelShards",
    "LogisticRegression",
    "LongTail",
    "Mnist",
    "ModuleTask",
    "Partition",
    "Pool",
    "Proxy",
    "Quadratic",
    "Quartic",
    "ReleasedMnist",
    "ReleasedQuartic",
    "ReleasedShakespeare",
    "SampleProxy",
    "Sampler",
    "ServerProxy",
    "Shakespeare",
    "SortedByLabel",
    "Strided",
    "Task",
    "TaskRecipe",
    "Unbalanced",
    "WorkerGradients",
    "WorkerProxy",
    "sequence_cross_entropy",
]
