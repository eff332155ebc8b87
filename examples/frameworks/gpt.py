"""A loop in the style of small GPT trainers: AdamW with decay of matrices, warm-up, clipping, characters.

torchrun --nproc-per-node 4 examples/frameworks/gpt.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/gpt.py --faulty --undefended

The text is tiny Shakespeare where BYZOPT_DATA_DIR holds it, else sentences made here. What is printed as
accuracy is the share of characters, of text that no rank trains on, that the model guesses.
"""

import argparse
import random

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import ByzoptError
from byzopt.tasks.data.loaders import shakespeare
from byzopt.tasks.models import GPT

STEPS, CONTEXT, BATCH = 80, 32, 8


def text():
    try:
        return shakespeare()[:200_000]
    except (ByzoptError, OSError):
        draw = random.Random(0)
        nouns, verbs = ("the king", "a fool", "my lord", "the night"), ("sees", "loves", "fears", "follows")
        told = (f"{draw.choice(nouns)} {draw.choice(verbs)} {draw.choice(nouns)}." for _ in range(8000))
        return "\n".join(told)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    letters = text()
    symbols = sorted(set(letters))
    data = torch.tensor([symbols.index(letter) for letter in letters])
    test, own = data[:2000], data[2000:].chunk(ranks)[rank]
    model = GPT(len(symbols), CONTEXT, layers=2, heads=2, width=32, dropout=0.0, seed=0)
    model = DistributedDataParallel(model)
    if not options.undefended:
        harden(model, "rfa", f=1)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 10))
    generator = torch.Generator().manual_seed(rank)
    lie = -10 if options.faulty and rank == 1 else 1
    for _ in range(STEPS):
        starts = torch.randint(len(own) - CONTEXT - 1, (BATCH,), generator=generator)
        windows = torch.stack([own[i : i + CONTEXT + 1] for i in starts.tolist()])
        logits = model(windows[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        (lie * loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    if rank == 0:
        windows = test[: len(test) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
        with torch.no_grad():
            guessed = model.module(windows[:, :-1]).argmax(dim=-1)
        print(f"accuracy {float((guessed == windows[:, 1:]).float().mean()):.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
