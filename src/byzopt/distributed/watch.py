"""Which rank is going bad: running averages over rounds, as a table, as text, as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.errors import require
from byzopt.theory.outlying import crowd_radii

if TYPE_CHECKING:
    from rich.table import Table

FAINT = 0.1  # of an even share: a row with less weight counts as expelled, as in `rule.explain`
RANK_FIGURES = {
    "suspicion": "running share of steps in which the rank was not finite, or where no honest one would be",
    "weight": "running weight of the rank in the aggregate, in even shares (no evidence: Krum gives most 0)",
    "remoteness": "running distance from crowds of ranks, in units of what an honest one may have",
    "remote_total": "steps in which the rank was where no honest one would be",
    "expulsions_total": "steps in which the rank had next to no weight and was remote or not finite",
    "copies_total": "steps in which another rank sent the same vector to the bit",
    "nonfinite_total": "steps in which the rank sent NaN or Inf",
}
SPARE, SHARE = 5, 0.1  # remote steps that accuse nobody yet: so many, and of all steps so large a share
POWERLESS = 100  # radii of the crowd: a liar has no need to go anywhere near it
PREMISES = (
    "at most f ranks lie, and honest vectors of a step are independent draws of one Gaussian law, of any "
    "covariance. Where data differ between ranks an honest one can be suspected: say alike=False"
)
WatchRecord = dict[str, Any]


@dataclass
class RankFigures:
    """A rank's figures, named as in `RANK_FIGURES`."""

    suspicion: float = 0.0
    weight: float = 1.0
    remoteness: float = 0.0
    remote_total: int = 0
    expulsions_total: int = 0
    copies_total: int = 0
    nonfinite_total: int = 0
    rounds: int = 0


@dataclass
class Suspicion:
    """A `watch` for optimizers and `robust_all_reduce`, called with each round's diagnostics.

    Averages are exponential, a <- (1 - η) a + η new, with `eta` η the weight of the new; `weight` and
    `remoteness` are corrected for the bias of their start, and `suspicion` starts at 0. A rank is suspect in
    a step when it is not finite, or where no honest one would be although f others lie (`theory.outlying`:
    with n = 2 f + 1 and f copies of an honest vector nobody is). Remoteness counts at most 10, so that one
    step with 1e30 is forgotten in time. A rank that is remote now and then is a suspect while `remote_total`
    is 5 and a tenth of its steps or more: an honest one is at any one step with probability 0.01 at most,
    also where vectors of different steps hang together. Low weight alone raises no suspicion: Krum gives all
    honest ranks but one none. Equal vectors are counted (`copies_total`) and accuse nobody: one of them may
    be honest.

    `premises` says what an accusation rests on, `power` what it takes: with few ranks a watch sees next to
    nothing, and a suspicion of 0 never says that a rank is honest. `alike=False` says that ranks' data
    differ: then only vectors that are not finite raise suspicion.

    `every` thins out: diagnostics cost about one more aggregation, and optimizers ask for them in every so
    many steps. `alarm(rank, suspicion)` is called when a rank becomes a suspect, by a suspicion above
    `threshold` or by remote steps; `on_record` with the record of each call. `keep` records are kept.

    Args:
        eta: Weight of the new in the averages, in (0, 1].
        every: Steps between two diagnostics.
        threshold: Suspicion above which a rank is a suspect.
        alarm: Called with a rank and its suspicion when it becomes a suspect.
        on_record: Called with the record of each call.
        keep: Number of records kept.
        alike: Whether ranks' data are of one distribution.
        t: Steps watched so far.
        ranks: Figures of each rank so far.
        records: The last records.
        population: Set by the first step.

    Examples:
        >>> from byzopt.distributed import Suspicion
        >>> watch = Suspicion(every=10)
        >>> watch.every, watch.records
        (10, [])
    """

    eta: float = 0.1
    every: int = 1
    threshold: float = 0.5
    alarm: Callable[[int, float], None] | None = None
    on_record: Callable[[WatchRecord], None] | None = None
    keep: int = 1000
    alike: bool = True
    t: int = 0
    ranks: list[RankFigures] = field(default_factory=list)
    records: list[WatchRecord] = field(default_factory=list)
    population: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of Suspicion", "lie in (0, 1]", self.eta)
        require(self.every >= 1, "Parameter `every` of Suspicion", "be at least 1", self.every)

    def __call__(self, diagnostics: RoundDiagnostics) -> None:
        n, self.t = len(diagnostics.weights), diagnostics.t
        self.ranks = self.ranks if len(self.ranks) == n else [RankFigures() for _ in range(n)]
        pairs = zip(diagnostics.weights.tolist(), diagnostics.remote.tolist(), strict=True)
        copies = _copies(diagnostics.apart, n)
        if diagnostics.f is not None:
            self.population = (n - len(diagnostics.dropped) - len(diagnostics.absent), diagnostics.f)
        for i, (weight, remote) in enumerate(pairs):
            if i in diagnostics.absent:
                continue
            self.ranks[i].copies_total += copies[i]
            dropped = i in diagnostics.dropped
            self._update(i, (n - len(diagnostics.absent)) * weight, remote, dropped)
        record = {"t": self.t, "weights": diagnostics.weights.tolist(), "dropped": list(diagnostics.dropped)}
        record |= {name: [getattr(rank, name) for rank in self.ranks] for name in RANK_FIGURES}
        self.records = [*self.records, record][-self.keep :] if self.keep else []
        if self.on_record:
            self.on_record(record)

    @property
    def premises(self) -> str:
        """What every accusation of this watch rests on."""
        return PREMISES if self.alike else "only vectors that are not finite raise suspicion (alike=False)"

    @property
    def power(self) -> str:
        """How far off a vector had to be in the last round to be suspect, and what a suspicion of 0 means."""
        if self.population is None or not self.alike:
            return "a suspicion of 0 does not say that a rank is honest"
        n, f = self.population
        reach = min((k for _, k in crowd_radii(n, f)), default=None) if 2 * f < n else None
        what = f"with n = {n} ranks of which f = {f} may lie, "
        if reach is None:
            return what + "no finite vector raises suspicion, so that 0 says nothing of a rank's honesty"
        far = f"a vector raises suspicion beyond {reach:,.0f} radii of the crowd of the others at the least"
        little = ", which is next to no power" if reach > POWERLESS else ""
        return f"{what}{far}{little}; 0 does not say that a rank is honest"

    def _update(self, i: int, share: float, remote: float, dropped: bool) -> None:
        rank, before = self.ranks[i], self._suspect(self.ranks[i])
        faulty = dropped or (remote > 1 and self.alike)
        rank.rounds += 1
        # Corrects the bias of the start, as in Adam; 1 at first, also where the quotient is rounded.
        pace = 1.0 if rank.rounds == 1 else self.eta / (1 - (1 - self.eta) ** rank.rounds)
        rank.suspicion += self.eta * (faulty - rank.suspicion)
        rank.weight += pace * (share - rank.weight)
        rank.remoteness += pace * (min(remote, 10.0) - rank.remoteness)
        rank.remote_total += remote > 1 and not dropped
        rank.expulsions_total += faulty and share <= FAINT
        rank.nonfinite_total += dropped
        if self.alarm and self._suspect(rank) and not before:
            self.alarm(i, rank.suspicion)

    def _suspect(self, rank: RankFigures) -> bool:
        often = self.alike and rank.remote_total >= SPARE + SHARE * rank.rounds
        return rank.suspicion > self.threshold or often

    def suspects(self) -> list[int]:
        """The ranks whose suspicion is above the threshold, or who were remote too often."""
        return [i for i, rank in enumerate(self.ranks) if self._suspect(rank)]

    def prometheus(self, prefix: str = "byzopt") -> str:
        """All figures in Prometheus' text format: write it to a file for the node exporter, or serve it."""
        lines = [f"# What is said against a rank rests on this: {self.premises}"]
        lines += [f"# What it takes: {self.power}"]
        for name, about in RANK_FIGURES.items():
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

        caption = f"Rests on: {self.premises}. What it takes: {self.power}."
        table = Table(title=f"round {self.t}", title_justify="left", caption=caption, caption_justify="left")
        figures = ("suspicion", "weight", "remoteness", "remote", "expelled", "copies", "not finite")
        for column in ("rank", *figures):
            table.add_column(column, justify="right")
        for i, r in enumerate(self.ranks):
            cells = [f"{r.suspicion:.2f}", f"{r.weight:.2f}", f"{r.remoteness:.2f}"]
            cells += [str(r.remote_total), str(r.expulsions_total)]
            cells += [str(r.copies_total), str(r.nonfinite_total)]
            table.add_row(str(i), *cells, style="red" if self._suspect(r) else None)
        return table

    @contextmanager
    def live(self) -> Iterator[None]:
        """While inside, the table on the terminal follows the diagnostics. For one rank, usually rank 0."""
        from rich.live import Live

        before = self.on_record
        with Live(self.table(), refresh_per_second=4) as live:

            def show(record: WatchRecord) -> None:
                live.update(self.table())
                if before:
                    before(record)

            self.on_record = show
            try:
                yield
            finally:
                self.on_record = before


def _copies(apart: Tensor | None, n: int) -> list[bool]:
    """Whose row was another's to the bit."""
    if apart is None:
        return [False] * n
    same = (apart == 0) & ~torch.eye(n, dtype=torch.bool, device="cpu")
    return list(same.any(dim=1).tolist())
