"""The table of what hardened scripts keep and bear, by wrapper and by what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

import _harden_absent as absent
import _harden_frameworks as frameworks
import _harden_wrappers as wrappers
from _harden_ranks import played
from _harden_script import FAULTS, RULE, STEPS, Case, Script

ROWS: dict[str, type[Script]] = {
    "DDP": Script,
    "DDP + ZeRO": wrappers.Zero,
    "FSDP2": wrappers.Sharded,
    "HSDP": wrappers.Hybrid,
    "Lightning": frameworks.Lightning,
    "Accelerate": frameworks.Accelerated,
    "DiLoCo": wrappers.Local,
}
NEEDS = {"Lightning": "lightning", "Accelerate": "accelerate"}
PAIRS: dict[str, Case] = {name: Case(fault=name) for name in FAULTS} | {
    "GradScaler, NaN once": Case(fault="NaN once", scale=2.0**100),
    "accumulation, -10x": Case(fault="-10x", accumulate=4),
    "clipping, -10x": Case(fault="-10x", clip=1.0),
    "BatchNorm, NaN in rank 0's data": Case(norm=True),
}
COLUMNS = ("clean", "mean = plain", *PAIRS, *absent.COLUMNS, "resume")


def trained(script: type[Script], case: Case) -> Script:
    done = script(case)
    done.run()
    return done


def row(rank: int, name: str, columns: list[str]) -> dict[str, Any]:
    """Cells of a row: pairs plain and hardened, largest differences, or why there are none."""
    script, out = ROWS[name], dict[str, Any]()
    if "mean = plain" in columns:
        plain, mean = trained(script, Case()), trained(script, Case("mean"))
        out |= {"clean": plain.evaluated()[0], "mean = plain": apart(plain, mean)}
    for column in [each for each in PAIRS if each in columns]:
        both = (PAIRS[column], replace(PAIRS[column], rule=RULE))
        try:
            out[column] = [trained(script, each).evaluated()[0] for each in both]
        except ValueError as error:  # the framework's: the plain script cannot be had here
            out[column] = [f"{name} itself: {error}"]
    if "resume" in columns:
        remembering = Case(RULE, fault="-10x", momentum=0.9, betas=(0.0, 0.999))
        whole, halves = (trained(script, replace(remembering, saved=saved)) for saved in (False, True))
        out["resume"] = apart(whole, halves)
    return out


def apart(one: Script, other: Script) -> float:
    return float((one.parameters() - other.parameters()).abs().max())


def momentum(rank: int) -> dict[str, list[float]]:
    """Test losses of AdamW on averages: nobody lies."""
    cases = {"plain AdamW": Case()}
    cases["momentum=0.9, β₁ = 0.9"] = Case(RULE, momentum=0.9)
    cases["momentum=0.9, β₁ = 0"] = Case(RULE, momentum=0.9, betas=(0.0, 0.999))
    return {name: trained(Script, case).curve for name, case in cases.items()}


def measured(
    quick: bool, stored: dict[str, Any], rows: list[str], columns: list[str]
) -> Iterator[dict[str, Any]]:
    """All that is `stored`, with one of the `rows` after the other measured anew; "momentum" are curves."""
    found: dict[str, Any] = {"faults": stored.get("faults", {}), "momentum": stored.get("momentum", {})}
    for name in rows[: 1 if quick else None]:
        if name == "momentum":
            found[name] = played(Script.ranks, momentum)[0]
        elif name in NEEDS and not frameworks.INSTALLED[NEEDS[name]]:
            found["faults"][name] = dict.fromkeys(COLUMNS, "not installed")
        else:
            together = not set(columns) <= set(absent.COLUMNS)
            cells = played(ROWS[name].ranks, row, name, columns)[0] if together else {}
            for column in [each for each in absent.COLUMNS if each in columns]:
                cells[column] = absent.cell(ROWS[name], column)
            found["faults"][name] = found["faults"].get(name, {}) | cells
            print(name, cells, flush=True)
        yield found


ABOUT = """# Hardened scripts beside plain ones

Written by `python benchmarks/harden.py --only faults`. {cpus} cores shared by all ranks, one thread each,
torch {torch}, gloo. What a step costs: [harden_time.md](harden_time.md).

## What goes wrong
A network of 9,000 parameters on scikit-learn's digits, {steps} steps of AdamW, four ranks, of which rank 1 is
faulty (rank 0 where it says so); `harden(model, "{rule}", f=1)`. HSDP: three replicas of two ranks, of which
one is faulty. DiLoCo: five local steps to an exchange; the pseudo-gradient of rank 1 is what is faulty.

Test accuracy in percent, plain → hardened; "clean" is a plain run without faults. "mean = plain" and "resume"
are the largest differences of a parameter: of a run hardened with "mean" from a plain one, and of a run with
a faulty rank, and with momentum where the wrapper has it, that was saved half-way and started again from one
that was not.

{faults}

"rank dead": rank 1 is gone from step 20 on. "rank late": it stands still in step 20 until the others have
made ten more; a plain run waits for it. The hardened runs have a `deadline`, and loop over the guard's rounds
(with DiLoCo the exchanges); a late rank ends at the parameters of the others, to the bit. Lightning's own
broadcast, for which all ranks would wait in each step, is switched off there. What is refused, in which words
(where it is the deadline, the table has the hardened run without one, too):

{refusals}

Under a `GradScaler` a plain run bears NaN once: it skips that step. The hardened one does not skip it. With
DiLoCo the scaler belongs to the rank's own steps, and cannot know of a broken exchange.

## Worker momentum before AdamW
Test loss under DDP, nobody lies: the optimizer sees averages of ten gradients.

{momentum}
"""


def page(found: dict[str, Any]) -> str:
    """The results as Markdown: a column a wrapper, for there are more of the others."""
    rows, refusals = {name: found["faults"].get(name, {}) for name in ROWS}, list[str]()
    lines = ["| | " + " | ".join(rows) + " |", "| --- |" + " ---: |" * len(rows)]
    for column in COLUMNS:
        cells = [shown(each.get(column, "not measured"), column, refusals) for each in rows.values()]
        lines.append(f"| {column} | " + " | ".join(cells) + " |")
    curves = found["momentum"]
    marks = (0, 1, 3, 5)
    heads = " | ".join(f"step {10 * k + 10}" for k in marks)
    losses = [f"| | {heads} |", "| --- |" + " ---: |" * len(marks)]
    losses += [
        f"| {name} | " + " | ".join(f"{curve[k]:.3f}" for k in marks) + " |" for name, curve in curves.items()
    ]
    here = {"cpus": os.cpu_count(), "torch": torch.__version__, "steps": STEPS, "rule": RULE}
    texts = {
        "faults": "\n".join(lines),
        "refusals": "\n".join(f"{k}. {text}" for k, text in enumerate(refusals, start=1)),
        "momentum": "\n".join(losses),
    }
    return ABOUT.format(**here, **texts)


def shown(cell: Any, column: str, refusals: list[str]) -> str:
    """A cell in few words; refusals are numbered, and their texts kept."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        first, *others = (told(each, refusals) for each in cell)
        hardened, without = others[:1], others[1:]
        marked = "".join(f" → **{each}**" for each in hardened)
        return first + marked + "".join(f", without a deadline {each}" for each in without)
    return f"{cell:.1f}" if column == "clean" else f"{cell:.0e}"


def told(outcome: float | str, refusals: list[str]) -> str:
    if isinstance(outcome, float):
        return f"{outcome:.1f}"
    if " " not in outcome:  # the name of an error
        return outcome
    if outcome not in refusals:
        refusals.append(outcome)
    return f"refused ({1 + refusals.index(outcome)})"
