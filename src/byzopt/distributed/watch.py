"""Which rank is going bad: running averages over the verdicts of steps, as a table, as text, as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byzopt.distributed.verdict import Verdict
from byzopt.errors import require

if TYPE_CHECKING:
    from rich.table import Table

FAINT = 0.1  # of an even share: a row with less weight counts as expelled, as in `rule.explain`
FIGURES = {
    "suspicion": "running share of steps in which the rank looked faulty",
    "weight": "running weight of the rank in the aggregate, in even shares",
    "remoteness": "running distance from the tightest majority, in units of what is unsuspicious",
    "expulsions_total": "steps in which the rank had next to no weight",
    "nonfinite_total": "steps in which the rank sent NaN or Inf",
}
Record = dict[str, Any]


@dataclass
class Rank:
    """A rank's figures, named as in `FIGURES`."""

    suspicion: float = 0.0
    weight: float = 1.0
    remoteness: float = 0.0
    expulsions_total: int = 0
    nonfinite_total: int = 0


@dataclass
class Suspicion:
    """A `watch` for optimizers and `robust_all_reduce`: call it with verdicts, read it at any time.

    Averages are exponential, a <- (1 - η) a + η new, with `eta` η the weight of the new; a rank looks faulty
    in a step when it is not finite or farther from the tightest majority than `aggregators.suspicion` allows.
    Remoteness counts at most 10, so that one step with 1e30 is forgotten in time. Low weight alone raises no
    suspicion: Krum gives all honest ranks but one none. `every` thins out: a verdict costs about one more
    aggregation, and optimizers ask for one in every so many steps. `alarm(rank, suspicion)` is called when a
    rank's suspicion rises above `threshold`; `on_record` with the record of each verdict. `keep` records
    are kept.
    """

    eta: float = 0.1
    every: int = 1
    threshold: float = 0.5
    alarm: Callable[[int, float], None] | None = None
    on_record: Callable[[Record], None] | None = None
    keep: int = 1000
    t: int = 0
    ranks: list[Rank] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of Suspicion", "lie in (0, 1]", self.eta)
        require(self.every >= 1, "Parameter `every` of Suspicion", "be at least 1", self.every)

    def __call__(self, verdict: Verdict) -> None:
        n, self.t = len(verdict.weights), verdict.t
        self.ranks = self.ranks if len(self.ranks) == n else [Rank() for _ in range(n)]
        pairs = zip(verdict.weights.tolist(), verdict.remote.tolist(), strict=True)
        for i, (weight, remote) in enumerate(pairs):
            if i not in verdict.absent:
                self._take(i, (n - len(verdict.absent)) * weight, remote, i in verdict.dropped)
        record = {"t": self.t, "weights": verdict.weights.tolist(), "dropped": list(verdict.dropped)}
        record |= {name: [getattr(rank, name) for rank in self.ranks] for name in FIGURES}
        self.records = [*self.records, record][-self.keep :] if self.keep else []
        if self.on_record:
            self.on_record(record)

    def _take(self, i: int, share: float, remote: float, dropped: bool) -> None:
        rank = self.ranks[i]
        before = rank.suspicion
        rank.suspicion += self.eta * (float(dropped or remote > 1) - before)
        rank.weight += self.eta * (share - rank.weight)
        rank.remoteness += self.eta * (min(remote, 10.0) - rank.remoteness)
        rank.expulsions_total += share <= FAINT
        rank.nonfinite_total += dropped
        if self.alarm and before <= self.threshold < rank.suspicion:
            self.alarm(i, rank.suspicion)

    def suspects(self) -> list[int]:
        """The ranks whose suspicion is above the threshold."""
        return [i for i, rank in enumerate(self.ranks) if rank.suspicion > self.threshold]

    def prometheus(self, prefix: str = "byzopt") -> str:
        """All figures in Prometheus' text format: write it to a file for the node exporter, or serve it."""
        lines = []
        for name, about in FIGURES.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {prefix}_{name} {about}", f"# TYPE {prefix}_{name} {kind}"]
            lines += [
                f'{prefix}_{name}{{rank="{i}"}} {getattr(r, name):.6g}' for i, r in enumerate(self.ranks)
            ]
        lines += [f"# HELP {prefix}_round finished rounds", f"# TYPE {prefix}_round gauge"]
        return "\n".join([*lines, f"{prefix}_round {self.t}", ""])

    def table(self) -> Table:
        """A rich table, one line for each rank; suspects in red."""
        from rich.table import Table

        table = Table(title=f"round {self.t}", title_justify="left")
        for column in ("rank", "suspicion", "weight", "remoteness", "expelled", "not finite"):
            table.add_column(column, justify="right")
        for i, r in enumerate(self.ranks):
            cells = [f"{r.suspicion:.2f}", f"{r.weight:.2f}", f"{r.remoteness:.2f}"]
            cells += [str(r.expulsions_total), str(r.nonfinite_total)]
            table.add_row(str(i), *cells, style="red" if r.suspicion > self.threshold else None)
        return table

    @contextmanager
    def live(self) -> Iterator[None]:
        """While inside, the table on the terminal follows the verdicts. For one rank, usually rank 0."""
        from rich.live import Live

        before = self.on_record
        with Live(self.table(), refresh_per_second=4) as live:

            def show(record: Record) -> None:
                live.update(self.table())
                if before:
                    before(record)

            self.on_record = show
            try:
                yield
            finally:
                self.on_record = before
