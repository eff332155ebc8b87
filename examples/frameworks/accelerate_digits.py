"""Hugging Face Accelerate with a robust rule: `harden` after `prepare`.

torchrun --nproc-per-node 4 examples/frameworks/accelerate_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/accelerate_digits.py --faulty --undefended
"""

import argparse

import torch
from accelerate import Accelerator
from digits import accuracy, digits, network
from torch.nn import functional
from torch.utils.data import DataLoader

from byzopt import harden


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    share = digits(accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(share, batch_size=16, shuffle=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    if not options.undefended:
        harden(model, "rfa", f=1)
    lie = -10 if options.faulty and accelerator.process_index == 1 else 1
    for _ in range(6):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(lie * functional.cross_entropy(model(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    if accelerator.is_main_process:
        print(f"accuracy {accuracy(accelerator.unwrap_model(model)):.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
