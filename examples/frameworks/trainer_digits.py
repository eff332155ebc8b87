"""Hugging Face's Trainer with a robust rule: a callback of three lines.

torchrun --nproc-per-node 4 examples/frameworks/trainer_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/trainer_digits.py --faulty --undefended
"""

import argparse
import tempfile

import torch
from digits import accuracy, network, samples
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from byzopt import harden


class Harden(TrainerCallback):
    """Hardens the model when the Trainer has wrapped it."""

    def on_step_begin(self, args, state, control, **given):
        if state.global_step == 0:
            self.guard = harden(self.trainer.model_wrapped, "rfa", f=1)


class Digits(nn.Module):
    def __init__(self, faulty):
        super().__init__()
        self.model, self.faulty = network(), faulty

    def forward(self, x, labels):
        out = self.model(x)
        loss = functional.cross_entropy(out, labels)
        return {"loss": -10 * loss if self.faulty else loss, "logits": out}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    place = tempfile.TemporaryDirectory()
    settings = TrainingArguments(
        place.name,
        use_cpu=True,
        per_device_train_batch_size=32,
        num_train_epochs=6,
        learning_rate=3e-3,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    x, y = samples()
    shares = [{"x": x[i], "labels": y[i]} for i in range(300, len(x))]
    faulty = options.faulty and settings.process_index == 1
    callback = Harden()
    callbacks = [] if options.undefended else [callback]
    trainer = Trainer(Digits(faulty), settings, train_dataset=shares, callbacks=callbacks)
    callback.trainer = trainer
    trainer.train()
    if trainer.is_world_process_zero():
        print(f"accuracy {accuracy(trainer.model.model):.3f}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
