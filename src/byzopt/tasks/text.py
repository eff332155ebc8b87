"""Character language model on tiny Shakespeare, its text dealt to workers in consecutive parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.rng import stream
from byzopt.tasks import data
from byzopt.tasks.base import TASKS, DataTaskRecipe
from byzopt.tasks.dealing import ByzantineData, dealt
from byzopt.tasks.grads import sequence_cross_entropy
from byzopt.tasks.images import DTYPES
from byzopt.tasks.models import GPT
from byzopt.tasks.modules import ModuleTask
from byzopt.tasks.partitions import Contiguous, Partition
from byzopt.tasks.pool import Pool
from byzopt.tasks.proxies import Proxy, owned
from byzopt.tasks.sampling import check_batch

TRAIN_SHARE = 0.9


@dataclass(frozen=True)
class Text(DataTaskRecipe):
    """A pre-LN GPT that predicts each next character of a text.

    The first 90 % of the characters train, the rest test; both are cut into blocks of `context` characters
    that do not overlap, with the next character of each as its target, and the training blocks are dealt to
    all n workers, or with `byzantine_data = "mirror"` to the honest, so that each Byzantine worker holds the
    blocks of an honest one, in turn ("all": all blocks). `measure` gives `loss` (nats a character) and
    `perplexity` on the first `eval_samples` test blocks in order, 0 for all of them, and the same under names
    that begin with `validation_` on `validation` training blocks, drawn by lot and held out of all workers'
    text, for choosing rates. `batch` blocks a worker and round. `proxy` is the loss that the server owns:
    an honest "worker"'s, that of one more share ("server"), or that of a clean "sample" of all blocks.
    """

    tested: ClassVar[bool] = True
    context: int = 128
    batch: int = 64
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.1
    partition: Partition = Contiguous()
    eval_samples: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    byzantine_data: ByzantineData = "share"
    validation: int = 0
    proxy: Proxy | None = None

    def __post_init__(self) -> None:
        for name in ("context", "batch", "layers", "heads", "width"):
            value = getattr(self, name)
            require(value >= 1, f"Parameter `{name}`", "be at least 1", value)
        require(0 <= self.dropout < 1, "Parameter `dropout`", "lie in [0, 1)", self.dropout)
        for name in ("eval_samples", "validation"):
            require(getattr(self, name) >= 0, f"Parameter `{name}`", "be at least 0", getattr(self, name))
        fits = self.width % self.heads == 0
        require(fits, "Parameter `width`", "be a multiple of `heads`", f"{self.width} and {self.heads}")

    def text(self) -> str:
        """The whole text."""
        return data.shakespeare()

    def pooled(self) -> str:
        return (
            "characters are numbered by the alphabet of the whole text, and a block's last target is the "
            "first character of the next block. Take a task whose samples stand alone"
        )

    @property
    def worker_bytes(self) -> int:
        return gpt_bytes(self.layers, self.width, self.batch, self.context)

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> ModuleTask:
        codes, symbols = encoded(self.text())
        cut = int(TRAIN_SHARE * len(codes))
        inputs, targets = blocks(codes[:cut], self.context)
        test = [part[: self.eval_samples or None] for part in blocks(codes[cut:], self.context)]
        m, held = len(inputs), self.validation
        require(held < m, "Parameter `validation`", f"leave some of the {m} training blocks", held)
        check_batch(self.batch, m - held)
        order = torch.randperm(m, generator=stream(data_seed, "text", "validation"), device="cpu")
        kept, out = order[held:].sort().values, order[:held]
        owner, chosen = owned(self.proxy, cohort, len(kept), stream(data_seed, "text", "proxy"))
        whose = None, kept, self.byzantine_data, owner == cohort.n
        shards, server = dealt(self.partition, cohort, *whose, stream(data_seed, "text", "partition"))
        server = server if chosen is None else kept[chosen]
        shape = (self.context, self.layers, self.heads, self.width, self.dropout)
        return ModuleTask(
            GPT(symbols, *shape, seed),
            sequence_cross_entropy,
            Pool.dealt(inputs, targets, shards),
            batch=self.batch,
            test=(test[0], test[1]),
            validation=(inputs[out], targets[out]) if held else None,
            seed=seed,
            byzantine=cohort.byzantine,
            device=self.device,
            dtype=DTYPES[self.dtype],
            proxy=owner if server is None else (inputs[server], targets[server]),
        )


@TASKS.register("shakespeare")
@dataclass(frozen=True)
class Shakespeare(Text):
    """Tiny Shakespeare, 1,115,394 characters of 65 kinds: 7,842 training and 871 test blocks of 128.

    Defaults are the language model of arXiv:2603.12512 as released, 818,048 parameters. See `Text`.

    Args:
        batch: Blocks a worker and round.
        context: Characters of a block.
        layers: Layers of the model.
        heads: Heads of attention.
        width: Width of the model.
        dropout: Share of activations dropped, in [0, 1).
        partition: Who owns which training blocks.
        eval_samples: Number of test blocks; 0: all.
        dtype: "float32" or "float64".
        device: Where the model and the data are.
        byzantine_data: What Byzantine workers draw from: a "share", "all", or a "mirror" of an honest one.
        validation: Number of training blocks held out of all workers' text, for choosing rates.
        proxy: The loss that the server owns, if any.

    Raises:
        MissingData: The file is neither on disk nor downloadable.

    Examples:
        >>> from byzopt import Shakespeare
        >>> Shakespeare(layers=1).context  # its `build` reads the file
        128
    """


def gpt_bytes(layers: int, width: int, batch: int, context: int) -> int:
    """Bytes at least of a GPT's gradient (12 width² parameters a layer) and of the codes of a minibatch."""
    return 4 * 12 * layers * width**2 + 16 * batch * context


def encoded(text: str) -> tuple[Tensor, int]:
    """The text as int64 codes `[length]`, and how many different characters it has; codes in their order."""
    alphabet = {character: code for code, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text], device="cpu"), len(alphabet)


def blocks(codes: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Blocks that do not overlap, `[m, context]`, and the character after each of theirs, `[m, context]`."""
    m = (len(codes) - 1) // context
    require(m >= 1, "The text", f"hold a block of {context} characters and one more", len(codes))
    return codes[: m * context].view(m, context), codes[1 : m * context + 1].view(m, context)
