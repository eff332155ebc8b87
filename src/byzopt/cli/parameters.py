"""Arguments and options that several commands take, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byzopt.cli.options import at_least, directory, seconds

DEFAULT_STORE = Path("byzopt-store")

SpecName = Annotated[str, typer.Argument(help="A TOML file, or a preset such as byz-nsgdm/digits.")]
MoreSettings = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further settings, as with --set.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the spec, as in attack.name=alie. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
StorePath = Annotated[Path, typer.Option(parser=directory, metavar="DIR", help="Directory of all runs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; run nothing.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        callback=at_least(0),
        help="Worker processes; 0: run in this one. Default: what `byzopt doctor` found to be fastest.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed.")]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(
        callback=seconds,
        help="Seconds between checkpoints. Default: so that checkpoints take about 2 % of the time.",
    ),
]
