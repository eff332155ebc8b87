"""The script as Lightning's and Accelerate's users write it."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from _harden_script import STEPS, Case, Script

INSTALLED = {name: find_spec(name) is not None for name in ("lightning", "accelerate")}


def as_torchrun() -> None:
    """Frameworks read from the environment which rank this process is."""
    rank, n = str(dist.get_rank()), str(dist.get_world_size())
    os.environ |= {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": n,
        "LOCAL_WORLD_SIZE": n,
        "GROUP_RANK": "0",
    }
    os.environ |= {"TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    os.environ["OMP_NUM_THREADS"] = "1"


class Accelerated(Script):
    """Hugging Face Accelerate: `harden` after `prepare`."""

    def attach(self) -> None:
        from accelerate import Accelerator

        as_torchrun()
        precision = "fp16" if self.case.scale else "no"  # it makes its own scaler
        accumulate = self.case.accumulate
        self.accelerator = Accelerator(
            cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulate
        )
        if self.case.scale and self.accelerator.scaler is None:
            raise ValueError("On CPUs there is no GradScaler, whatever mixed_precision says.")
        self.model = self.module
        self.model, self.optimizer = self.accelerator.prepare(self.module, self.make_optimizer())
        self.guard = self.harden()

    def resume(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            told = [folder]
            dist.broadcast_object_list(told)
            self.accelerator.save_state(told[0])
            self.accelerator.wait_for_everyone()
            own = self.guard.state_dict()
            self.build()
            self.accelerator.load_state(told[0])
            self.guard.load_state_dict(own)
            self.accelerator.wait_for_everyone()

    def run(self) -> None:
        accelerator = self.accelerator
        for t in self.steps():
            self.t = t
            if self.case.saved and self.t == STEPS // 2:
                self.resume()
                accelerator = self.accelerator
            generator = self.generator()
            for _ in range(self.case.accumulate):
                images, labels = self.batch(generator)
                with accelerator.accumulate(self.model):
                    accelerator.backward(nn.functional.cross_entropy(self.model(images), labels))
                    if self.case.clip and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(self.model.parameters(), self.case.clip)
                    self.optimizer.step()
                    self.optimizer.zero_grad()


class Lightning(Script):
    """PyTorch Lightning: a callback's `on_train_start`."""

    def __init__(self, case: Case) -> None:
        as_torchrun()
        warnings.filterwarnings("ignore", module="lightning")
        self.begin = 0
        super().__init__(case)

    def attach(self) -> None:
        self.guard, self.own = None, None  # Lightning wraps the module in `fit`

    def run(self) -> None:
        half = STEPS // 2
        if not self.case.saved:
            self.trainer(STEPS).fit(training(self))
            return
        with tempfile.TemporaryDirectory() as folder:
            told = [folder]
            dist.broadcast_object_list(told)
            path = str(Path(told[0], "half.ckpt"))
            trainer = self.trainer(half)
            trainer.fit(training(self))
            trainer.save_checkpoint(path)
            own = self.guard.state_dict()
            self.build()
            self.own, self.begin = own, half
            self.trainer(STEPS).fit(training(self), ckpt_path=path)
            dist.barrier()

    def trainer(self, steps: int) -> Any:
        import lightning
        from lightning.pytorch.plugins import MixedPrecision

        script = self

        class Harden(lightning.Callback):
            def on_train_start(self, trainer: Any, module: Any) -> None:
                script.model = trainer.strategy.model
                script.guard = script.harden()
                if script.own is not None:
                    script.guard.load_state_dict(script.own)
                if script.case.deadline is not None:  # in each step all would wait for rank 0's message
                    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None

            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                timed = script.case.deadline is not None
                trainer.should_stop |= timed and script.guard.rounds >= STEPS

        case, plugins = self.case, []
        if case.scale:  # autocast to float16, in which the scale of the other scripts is no number
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            plugins.append(MixedPrecision("16-mixed", "cpu", scaler=scaler))
        return lightning.Trainer(
            accelerator="cpu",
            devices=self.n,
            strategy="ddp",
            plugins=plugins or None,
            max_steps=-1 if case.deadline else steps,
            max_epochs=-1,
            accumulate_grad_batches=case.accumulate,
            gradient_clip_val=case.clip or None,
            callbacks=[Harden()],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def training(script: Lightning) -> Any:
    """The script's network and data as Lightning wants them."""
    import lightning

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            for t in itertools.count(script.begin):
                script.t = t
                generator = script.generator()
                for _ in range(script.case.accumulate):
                    yield t, *script.batch(generator)

    class Training(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = script.module

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Batches(), batch_size=None)

        def training_step(self, batch: Any, index: int) -> Any:
            step, images, labels = batch  # the loader is a batch ahead
            script.t = step
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> Any:
            script.model = self.network
            return script.make_optimizer()

    return Training()
