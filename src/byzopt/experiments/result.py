"""What becomes of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from byzopt.errors import Status
from byzopt.experiments.specs.spec import MAIN, Spec
from byzopt.experiments.trials.outcome import Outcome, Record


@dataclass(frozen=True, repr=False)
class Result:
    """What became of a spec: its own outcome, those of its variants, and the directory that holds them.

    Args:
        spec: What was run.
        outcomes: How it ended, and how its variants did, by name.
        out: Directory that holds them; None: they are not stored.

    Examples:
        >>> from byzopt import load, run
        >>> result = run(load("byz-nsgdm/quartic", ["rounds=5"], compare=False))
        >>> result.status.value, result.out
        ('completed', None)
    """

    spec: Spec
    outcomes: Mapping[str, Outcome]
    out: Path | None = None

    @property
    def main(self) -> Outcome:
        """The outcome of the spec itself."""
        return self.outcomes[MAIN]

    @property
    def compare(self) -> dict[str, Outcome]:
        """The outcomes of the variants, by name."""
        return {name: outcome for name, outcome in self.outcomes.items() if name != MAIN}

    @property
    def interrupted(self) -> bool:
        """Whether rounds are left to run: the same call with the same `out` continues."""
        return any(outcome.status is Status.INTERRUPTED for outcome in self.outcomes.values())

    @property
    def status(self) -> Status:
        """How the spec's own run ended."""
        return self.main.status

    @property
    def metrics(self) -> Record:
        """Figures of the spec's own last finite iterate."""
        return self.main.metrics

    def __repr__(self) -> str:
        """The outcomes, a line each."""
        parts = [f"{name}: {outcome}" for name, outcome in self.outcomes.items()]
        where = f", out={str(self.out)!r}" if self.out else ""
        return "\n  ".join([f"Result(spec {self.spec.id}{where})", *parts])
