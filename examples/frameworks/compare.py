"""What the programs of this folder reach when nobody is faulty, and when one of four ranks is.

python examples/frameworks/compare.py [NAME ...]

Prints a table in Markdown. Programs whose framework is not installed are left out.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {  # the file, what it needs, and what it is about
    "adamw": ("adamw_digits", "torch", "AdamW, accumulation, bfloat16, clipping, schedule"),
    "fsdp": ("fsdp_digits", "torch", "FSDP2"),
    "diloco": ("diloco_digits", "torch", "DiLoCo (local steps)"),
    "gpt": ("gpt", "torch", "a small GPT, characters guessed"),
    "lightning": ("lightning_digits", "lightning", "PyTorch Lightning"),
    "accelerate": ("accelerate_digits", "accelerate", "Accelerate"),
    "trainer": ("trainer_digits", "transformers", "Trainer of transformers"),
    "torchft": ("torchft_digits", "torchft", "torchft's manager"),
}
WAYS = {"plain": ["--undefended"], "faulty": ["--faulty", "--undefended"], "hardened": ["--faulty"]}


def accuracy(name, way):
    """What a program reaches when four ranks of torchrun have trained."""
    return float(re.findall(r"accuracy ([0-9.]+)", printed(name, WAYS[way]))[-1])


def printed(name, options, ranks=4):
    """What a program prints under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    script = str(HERE / f"{PROGRAMS[name][0]}.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    given = [*command, script, *options]
    done = subprocess.run(given, capture_output=True, text=True, env=environment, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{name}, {options}: {done.stderr[-3000:]}")
    return done.stdout


def main():
    print("| | nobody faulty, plain | one rank faulty, plain | one rank faulty, hardened |")
    print("| --- | ---: | ---: | ---: |")
    for name in sys.argv[1:] or PROGRAMS:
        file, needs, about = PROGRAMS[name]
        if find_spec(needs) is not None:
            cells = " | ".join(f"{100 * accuracy(name, way):.1f}" for way in WAYS)
            print(f"| [{about}](../examples/frameworks/{file}.py) | {cells} |", flush=True)


if __name__ == "__main__":
    main()
