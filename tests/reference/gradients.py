"""One worker's gradient by nothing but autograd: a copy of the module, seeded generators, one backward."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import torch

from byzopt.tasks.grads import lent_rng
from byzopt.tasks.grads.adopt import copied


def gradient(module, loss, x, inputs, targets, seed=0, training=True):
    """The gradient `[d]` at `x` of the loss on a batch, and the loss."""
    module, loss = copied(module).to(x.dtype).train(training), deepcopy(loss)
    trained = [p for p in module.parameters() if p.requires_grad]
    torch.nn.utils.vector_to_parameters(x.clone(), trained)
    coins = random.getstate(), np.random.get_state()
    with lent_rng(seed):
        random.seed(seed)
        np.random.seed(seed)
        value = loss(module(inputs), targets).reshape(())
        slopes = torch.autograd.grad(value, trained, materialize_grads=True)
    random.setstate(coins[0])
    np.random.set_state(coins[1])
    return torch.cat([slope.flatten() for slope in slopes]), float(value.detach())
