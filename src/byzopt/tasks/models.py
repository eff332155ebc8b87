"""The papers' models, initialised from a seed of their own and never from the global generator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from byzopt.errors import require
from byzopt.rng import seed_of
from byzopt.tasks.grads import lent_rng


def mlp(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Linear layers of `sizes` with ReLU between them, as `(784, 128, 64, 10)`: 109,386 parameters.

    Two sizes give linear softmax. PyTorch's default initialisation.
    """
    require(
        len(sizes) >= 2 and min(sizes) >= 1, "The sizes of an MLP", "be two or more positive", list(sizes)
    )
    layers: list[nn.Module] = []
    with lent_rng(seed_of(seed, "model", "mlp")):
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mnist_cnn(seed: int) -> nn.Sequential:
    """The CNN of the code released with arXiv:2603.12512: `[b, 1, 28, 28]` to `[b, 10]`.

    1,199,882 parameters. No ReLU after the second convolution, as released. PyTorch's default initialisation.
    """
    with lent_rng(seed_of(seed, "model", "cnn")):
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.25),
            nn.Flatten(),
            nn.Linear(9216, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a symbol sees itself and what came before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
        p = self.dropout if self.training else 0.0
        # The fused kernels of a GPU draw one mask for all workers' samples, of which none has a share.
        with sdpa_kernel(SDPBackend.MATH) if p else nullcontext():
            seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        mixed: Tensor = self.out(seen.transpose(-3, -2).flatten(-2))
        return mixed


class Block(nn.Module):
    """Pre-LN transformer block: x + attention(LN x), then x + MLP(LN x) with exact GELU and width 4 times."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.before_attention(x)))
        added: Tensor = self.drop(self.mlp(self.before_mlp(x)))
        return x + added


class GPT(nn.Module):
    """Character transformer: symbols `[b, T]`, T <= `context`, to logits `[b, T, symbols]`.

    Learned positions, an output head tied to the symbols' table, no bias there, dropout at embeddings,
    attention weights, attention and MLP outputs. Weights N(0, 0.02²), biases 0, gains 1. With 65 symbols,
    context 128, 4 layers, 4 heads, width 128: 818,048 parameters (the code released with arXiv:2603.12512).
    """

    def __init__(
        self, symbols: int, context: int, layers: int, heads: int, width: int, dropout: float, seed: int
    ) -> None:
        super().__init__()
        require(width % heads == 0, "Parameter `width`", "be a multiple of `heads`", f"{width} and {heads}")
        with lent_rng(seed_of(seed, "model", "gpt")):
            self.symbols = nn.Embedding(symbols, width)
            self.positions = nn.Embedding(context, width)
            self.drop = nn.Dropout(dropout)
            self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, symbols, bias=False)
            self.head.weight = self.symbols.weight
            self.apply(_small_normal)

    def forward(self, symbols: Tensor) -> Tensor:
        # Positions of every sample, not of one for all: then their gradients split by worker.
        places = torch.arange(symbols.shape[-1], device=symbols.device).expand(symbols.shape)
        x = self.drop(self.symbols(symbols) + self.positions(places))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def _small_normal(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
