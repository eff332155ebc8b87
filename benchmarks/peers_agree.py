"""Our rules and attacks beside those of ByzFL 0.0.11 and ByzPy 0.1.4, on the same random inputs.

    python benchmarks/peers_agree.py [--env DIR]     # the first time it installs the peers into DIR

The peers live in an environment of their own, without the dependencies that their rules do not need
(`_peers_side.py` runs there); arrays travel in .npz files. Ours takes the settings under which both are the
same algorithm, as the table shows. A relative difference above 1e-5 must have its reason in WHY, else the
exit status is 1. Writes docs/results/peers_agree.md and the JSON file beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from _peers_env import DEFAULT, PEERS, RESULTS, peers_python
from byzopt import aggregators as ag
from byzopt import attacks as at
from byzopt.cohort import Cohort
from byzopt.rng import stream

LIMIT = 1e-5
SHAPES = ((11, 3, 50), (20, 3, 1000), (12, 2, 7), (13, 4, 200))
SAME = {
    "Mean": lambda n, f: ag.Mean(),
    "Median": lambda n, f: ag.Median(),
    "TrimmedMean": lambda n, f: ag.TrimmedMean(f=f),
    "MeaMed": lambda n, f: ag.MeaMed(f=f),
    "Krum": lambda n, f: ag.Krum(f=f, extra=1),
    "Krum, our defaults": lambda n, f: ag.Krum(f=f),
    "MultiKrum": lambda n, f: ag.MultiKrum(f=f, extra=1),
    "RFA": lambda n, f: ag.RFA(iterations=3, nu_absolute=0.1, start="zero"),
    "GeometricMedian": lambda n, f: ag.GeometricMedian(),
    "GeometricMedian, its defaults": lambda n, f: ag.GeometricMedian(),
    "CenteredClipping": lambda n, f: ag.CenteredClipping(tau=3.0, iterations=3, start="zero"),
    "CenteredClipping, its start": lambda n, f: ag.CenteredClipping(tau=3.0, iterations=3),
    "MDA": lambda n, f: ag.MDA(f=f),
    "MoNNA": lambda n, f: ag.MoNNA(f=f, trusted=2),
    "CGE": lambda n, f: ag.CGE(f=f),
    "SMEA": lambda n, f: ag.SMEA(f=f),
    "CAF": lambda n, f: ag.CAF(f=f),
    "NNM": lambda n, f: ag.NNM(f=f),
    "Bucketing": lambda n, f: ag.Bucketing(s=2),
    "Clipping": lambda n, f: ag.Clipping(tau=2.0),
    "ARC": lambda n, f: ag.ARC(f=f),
    "NNM >> TrimmedMean": lambda n, f: ag.NNM(f=f) >> ag.TrimmedMean(f=f),
    "attack BitFlip": lambda n, f: at.BitFlip(),
    "attack SignFlip": lambda n, f: at.SignFlip(),
    "attack IPM": lambda n, f: at.IPM(scale=2.0),
    "attack ALIE": lambda n, f: at.ALIE(z=1.5),
    "attack ALIE, its z": lambda n, f: at.ALIE(z=NormalDist().inv_cdf(1 - (n // 2 + 1 - f) / n), ddof=0),
    "attack ALIE, quantile": lambda n, f: at.ALIE(z="quantile", ddof=0),
    "attack OptimalIPM": lambda n, f: at.OptimalIPM(),
    "attack OptimalALIE": lambda n, f: at.OptimalALIE(),
    "attack MimicIndex": lambda n, f: at.MimicIndex(index=2),
}
NEIGHBOURS = "it sums over n - f - 1 neighbours, by default we over the paper's n - f - 2 (`extra=1` agrees)"
LOWER = "at even n its median is the lower middle value, ours the midpoint"
POWER = "it takes one power iteration from a random vector for the eigenvector, ours is the exact eigen-solve"
WHY = {
    ("ByzFL", "Krum, our defaults"): NEIGHBOURS,
    ("ByzPy", "Krum, our defaults"): NEIGHBOURS,
    ("ByzPy", "Median, even n"): LOWER,
    ("ByzPy", "MeaMed, even n"): LOWER,
    (
        "ByzFL",
        "GeometricMedian, its defaults",
    ): "it stops after 3 steps from zero, smoothed by an absolute 0.1",
    (
        "ByzPy",
        "CenteredClipping, its start",
    ): "it starts from the mean of all rows, ours from the bulk's mean",
    ("ByzFL", "SMEA"): POWER,
    ("ByzFL", "CAF"): POWER,
    (
        "ByzPy",
        "CAF",
    ): "it divides by the largest projection of all rows (3000 power iterations), ours of rows with weight",
    ("ByzFL", "Bucketing"): "its permutation comes from the global generator, ours from (seed, name, round)",
    ("ByzPy", "attack ALIE, quantile"): "its z is Φ⁻¹((n - q)/n), ours the paper's Φ⁻¹((n - f - q)/(n - f))",
}
ABOUT = """# Beside ByzFL and ByzPy

Written by `python benchmarks/peers_agree.py`. Relative differences in the Euclidean norm between our
answers and those of {peers}, the largest of {cases} inputs: (n, f, d) =
{shapes}; two seeds; gaussian rows, with and without f far ones;
float64 and float32. It counts as agreement up to {limit:g}. Everything ran on the CPU with torch {torch} and
numpy {numpy}, the peers without their other dependencies (ByzPy declares older torch and numpy).

Settings of ours are shown for n = 11, f = 3, the peers' are in `benchmarks/_peers_side.py`;
`its defaults`, `its start` and `its z` are the peer's. Sets of equal diameter tie in MDA: there diameters are
compared. Attacks that draw, send infinities or need a model are not compared, nor are empty cells, mostly
because the peer lacks the rule.

| rule | ours | ByzFL | ByzPy |
| --- | --- | --- | --- |
"""


def inputs() -> dict[str, np.ndarray[Any, Any]]:
    """The cases: rows without attackers, and rows of which f, anywhere, lie far away; in two precisions."""
    given: dict[str, Any] = {}
    for n, f, d in SHAPES:
        order = torch.randperm(n, generator=stream(0, "bucketing", 0)).numpy()  # as our Bucketing draws it
        for seed in range(2):
            for kind in ("honest", "attacked"):
                rng = np.random.default_rng([n, f, d, seed])
                rows = rng.normal(size=(n, d)) + rng.normal(size=d)
                if kind == "attacked":
                    rows[rng.permutation(n)[:f]] += 4 * rng.normal(size=d)
                for dtype in ("float64", "float32"):
                    case = f"n={n} f={f} d={d} {kind} {seed} {dtype}"
                    given |= {f"rows|{case}": rows.astype(dtype), f"f|{case}": f, f"order|{case}": order}
    return given


def peers(python: Path, given: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        sent, back = Path(folder, "inputs.npz"), Path(folder, "answers.npz")
        np.savez(sent, **given)
        runner = Path(__file__).with_name("_peers_side.py")
        subprocess.run([str(python), str(runner), str(sent), str(back)], check=True)
        with np.load(back, allow_pickle=False) as answers:
            return dict(answers)


def ours(rule: str, rows: torch.Tensor, f: int) -> torch.Tensor:
    """Our answer; an attack has the last f rows and, if it looks, MultiKrum to fool."""
    n = len(rows)
    recipe = SAME[rule](n, f)
    if not isinstance(recipe, at.Attack):
        return recipe(rows)
    adversary, x = at.Adversary(recipe, Cohort.of(n, f), f), torch.zeros_like(rows[0])
    defence = ag.MultiKrum(f=f, extra=1)
    return adversary.forge_rows(adversary.start(x), 1, x, rows, stream(0, "peers"), defence)[0][-1]


def difference(rule: str, rows: np.ndarray[Any, Any], f: int, theirs: np.ndarray[Any, Any]) -> float:
    """The relative difference in the Euclidean norm; for MDA that of diameters, since sets may tie."""
    mine = ours(rule, torch.from_numpy(rows), f).numpy()
    if theirs.dtype.kind == "U" or theirs.shape != mine.shape:
        return float("inf")
    if np.array_equal(theirs, mine):
        return 0.0  # both may be the zero vector
    gap = float(np.linalg.norm(theirs.astype(float) - mine) / np.linalg.norm(mine))
    if rule == "MDA" and gap > LIMIT:
        return abs(diameter(rows, f, theirs) / diameter(rows, f, mine) - 1)
    return gap


def diameter(rows: np.ndarray[Any, Any], f: int, mean: np.ndarray[Any, Any]) -> float:
    """The diameter of the n - f rows whose mean is nearest to `mean`."""
    kept = [list(chosen) for chosen in combinations(range(len(rows)), len(rows) - f)]
    best = min(kept, key=lambda chosen: float(np.linalg.norm(rows[chosen].mean(axis=0) - mean)))
    return max(float(np.linalg.norm(rows[i] - rows[j])) for i, j in combinations(best, 2))


def compare(given: dict[str, Any], answers: dict[str, np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
    """One line for each rule and peer: the largest difference, its case, and what it means."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for key, theirs in answers.items():
        peer, rule, case = key.split("|")
        if rule == "import":
            lines[peer, "import"] = {"ours": "", "difference": float("inf"), "worst": str(theirs)}
            continue
        rows, f = given[f"rows|{case}"], int(given[f"f|{case}"])
        gap = difference(rule, rows, f, theirs)
        name = f"{rule}, {'odd' if len(rows) % 2 else 'even'} n" if rule in ("Median", "MeaMed") else rule
        line = lines.setdefault(
            (peer, name), {"ours": repr(SAME[rule](11, 3)), "difference": -1.0, "cases": 0}
        )
        line["cases"] += 1
        if not gap <= line["difference"]:
            line |= {"difference": gap, "worst": f"{case}: {theirs}" if theirs.dtype.kind == "U" else case}
    return [
        {"peer": p, "rule": r, **line} | verdict(p, r, line["difference"]) for (p, r), line in lines.items()
    ]


def verdict(peer: str, rule: str, gap: float) -> dict[str, str]:
    if gap <= LIMIT:
        return {"status": "agrees", "why": ""}
    why = WHY.get((peer, rule), "") if np.isfinite(gap) else ""  # an error or a NaN is never explained
    return {"status": "differs" if why else "unexplained", "why": why}


def page(lines: list[dict[str, Any]]) -> str:
    cells: dict[str, dict[str, str]] = {}
    for line in lines:
        why = f": {line['why'] or line['worst']}" if line["status"] != "agrees" else ""
        cell = cells.setdefault(line["rule"], {"ours": line["ours"], "ByzFL": "", "ByzPy": ""})
        cell[line["peer"]] = f"{line['status']} ({line['difference']:.1g}){why}"
    about = ABOUT.format(
        peers=" and ".join(PEERS).replace("==", " "),
        cases=8 * len(SHAPES),
        shapes=", ".join(map(str, SHAPES)),
        limit=LIMIT,
        torch=torch.__version__,
        numpy=np.__version__,
    )
    table = [f"| {rule} | `{c['ours']}` | {c['ByzFL']} | {c['ByzPy']} |" for rule, c in sorted(cells.items())]
    return about + "\n".join(table) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path, default=DEFAULT, help="where the peers are installed")
    given = inputs()
    lines = compare(given, peers(peers_python(parser.parse_args().env), given))
    (RESULTS / "peers_agree.md").write_text(page(lines))
    (RESULTS / "peers_agree.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    print(page(lines))
    return int(any(line["status"] == "unexplained" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
