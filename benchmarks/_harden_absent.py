"""A rank that dies, and one that is late, under each wrapper: plain, and hardened with a deadline."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from _harden_script import FAULTY, RULE, Case, Script
from byzopt.errors import InvalidInput

COLUMNS = ("rank dead", "rank late")
DEADLINE = 15.0  # seconds in which no healthy rank is late, whatever the load
AT, BACK = 20, 30  # the step in which rank 1 dies or stops; that of the others in which it goes on
PACE = 0.5  # seconds for each later step of the others, so that there are some when it is back


def absent(script: type[Script], column: str, place: Path) -> type[Script]:
    """The script in which rank 1 is gone from step 20 on, or stands still until the others are ahead."""

    class Absent(script):  # type: ignore[misc, valid-type]
        def batch(self, generator: torch.Generator) -> Any:
            if self.rank == FAULTY and self.t == AT:
                if column == "rank dead":
                    os._exit(0)
                self.stand_still()
            elif self.rank != FAULTY and self.t >= BACK and self.case.deadline and column == "rank late":
                (place / "ahead").touch()
                time.sleep(PACE)
            return super().batch(generator)

        def stand_still(self) -> None:
            """At most three deadlines: where nobody goes on without this rank nobody gets ahead."""
            end = time.monotonic() + 3 * DEADLINE
            while time.monotonic() < end and not (place / "ahead").exists():
                time.sleep(0.05)

    return Absent


def cell(script: type[Script], column: str) -> list[float | str]:
    """The plain run and the hardened one; where a deadline is refused, the latter without one, too."""
    found = [reached(script, column, Case()), reached(script, column, Case(RULE, deadline=DEADLINE))]
    refused = isinstance(found[1], str) and " " in found[1]
    return [*found, reached(script, column, Case(RULE))] if refused else found


def reached(script: type[Script], column: str, case: Case) -> float | str:
    """Accuracy of rank 0, or the error that it ends in: the text of a refusal, the kind of another."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        arguments = (absent(script, column, place), case, place)
        mp.start_processes(_one, arguments, nprocs=script.ranks, start_method="fork")
        found: dict[int, Any] = {
            int(each.stem): torch.load(each, weights_only=True) for each in place.glob("*.pt")
        }
    outcome, x = found[0]
    if isinstance(outcome, float) and column == "rank late":  # it is back, and no stranger
        apart = float((found[FAULTY][1] - x).abs().max())
        assert apart == 0, f"The late rank ends {apart} away: {found[FAULTY][0]}"
    return outcome


def _one(rank: int, script: type[Script], case: Case, place: Path) -> None:
    torch.set_num_threads(1)
    store, wait = dist.FileStore(str(place / "store"), script.ranks), timedelta(seconds=90)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=script.ranks, timeout=wait)
    found: tuple[float | str, Any]
    try:
        played = script(case)
        played.run()
        found = played.evaluated()[0], played.parameters()
    except InvalidInput as error:  # a refusal
        found = str(error), None
    except Exception as error:
        found = type(error).__name__, None
    torch.save(found, place / f"{rank}.part")
    os.replace(place / f"{rank}.part", place / f"{rank}.pt")
    time.sleep(2)  # others may still want what this rank has sent
    os._exit(0)  # no barrier: one may be gone
