"""PyTorch Lightning with a robust rule where its DDP strategy averages: a callback of four lines.

torchrun --nproc-per-node 4 examples/frameworks/lightning_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/lightning_digits.py --faulty --undefended
"""

import argparse

import lightning
import torch
from digits import accuracy, digits, network
from torch.nn import functional
from torch.utils.data import DataLoader

from byzopt import harden


class Harden(lightning.Callback):
    """Hardens the model when Lightning has wrapped it; its own `ddp_comm_hook` is ignored on CPUs."""

    def __init__(self, rule, f):
        self.rule, self.f = rule, f

    def on_train_start(self, trainer, module):
        self.guard = harden(trainer.strategy.model, self.rule, f=self.f)


class Digits(lightning.LightningModule):
    def __init__(self, faulty):
        super().__init__()
        self.model, self.faulty = network(), faulty

    def training_step(self, batch, index):
        x, y = batch
        loss = functional.cross_entropy(self.model(x), y)
        return -10 * loss if self.faulty and self.global_rank == 1 else loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=4,
        strategy="ddp",
        max_epochs=6,
        gradient_clip_val=1.0,
        callbacks=[] if options.undefended else [Harden("rfa", f=1)],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits(options.faulty)
    share = digits(trainer.global_rank, trainer.world_size)
    trainer.fit(module, DataLoader(share, batch_size=32, shuffle=True))
    if trainer.is_global_zero:
        print(f"accuracy {accuracy(module.model):.3f}")


if __name__ == "__main__":
    main()
