"""The peers' half of `peers_agree.py`, run by the interpreter of the peers' own environment, without byzopt.

    python benchmarks/_peers_side.py inputs.npz answers.npz

Inputs: `rows|CASE`, an array [n, d]; `f|CASE`; `order|CASE`, the permutation that bucketing is to use.
Answers: `PEER|RULE|CASE`, an array, or a string that says what happened instead.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import _unused  # noqa: F401

SECONDS = 30  # for one call; some do not end
Call = Callable[[Any, int, Any], Any]  # rows [n, d], f, order


def byzfl() -> dict[str, Call]:
    """ByzFL's rules; rows are a NumPy array, honest rows the first n - f of them."""
    import byzfl as bf

    def optimal(attack: Any, f: int) -> Any:
        return attack(agg=bf.MultiKrum(f), pre_agg_list=[], f=f)

    return {
        "Mean": lambda v, f, _: bf.Average()(v),
        "Median": lambda v, f, _: bf.Median()(v),
        "TrimmedMean": lambda v, f, _: bf.TrMean(f)(v),
        "MeaMed": lambda v, f, _: bf.Meamed(f)(v),
        "Krum": lambda v, f, _: bf.Krum(f)(v),
        "Krum, our defaults": lambda v, f, _: bf.Krum(f)(v),
        "MultiKrum": lambda v, f, _: bf.MultiKrum(f)(v),
        "RFA": lambda v, f, _: bf.GeometricMedian(nu=0.1, T=3)(v),
        "GeometricMedian": lambda v, f, _: bf.GeometricMedian(nu=1e-12, T=300)(v),
        "GeometricMedian, its defaults": lambda v, f, _: bf.GeometricMedian()(v),
        "CenteredClipping": lambda v, f, _: bf.CenteredClipping(L=3, tau=3.0)(v),
        "MDA": lambda v, f, _: bf.MDA(f)(v),
        "MoNNA": lambda v, f, _: bf.MoNNA(f, idx=2)(v),
        "SMEA": lambda v, f, _: bf.SMEA(f)(v),
        "CAF": lambda v, f, _: bf.CAF(f)(v),
        "NNM": lambda v, f, _: bf.NNM(f)(v),
        "Bucketing": lambda v, f, _: bf.Bucketing(2)(v),
        "Clipping": lambda v, f, _: bf.Clipping(2.0)(v),
        "ARC": lambda v, f, _: bf.ARC(f)(v),
        "NNM >> TrimmedMean": lambda v, f, _: bf.TrMean(f)(bf.NNM(f)(v)),
        "attack SignFlip": lambda v, f, _: bf.SignFlipping()(v[:-f]),
        "attack IPM": lambda v, f, _: bf.InnerProductManipulation(2.0)(v[:-f]),
        "attack ALIE": lambda v, f, _: bf.ALittleIsEnough(1.5)(v[:-f]),
        "attack OptimalIPM": lambda v, f, _: optimal(bf.Optimal_InnerProductManipulation, f)(v[:-f]),
        "attack OptimalALIE": lambda v, f, _: optimal(bf.Optimal_ALittleIsEnough, f)(v[:-f]),
        "attack MimicIndex": lambda v, f, _: bf.Mimic(2)(v[:-f]),
    }


def byzpy() -> dict[str, Call]:
    """ByzPy's rules; rows are a list of tensors, honest rows the first n - f of them."""
    from byzpy import attacks as at
    from byzpy import pre_aggregators as pre
    from byzpy.aggregators import coordinate_wise as co
    from byzpy.aggregators import geometric_wise as ge
    from byzpy.aggregators.geometric_wise.geometric_median import GeometricMedian
    from byzpy.aggregators.geometric_wise.krum import Krum, MultiKrum
    from byzpy.aggregators.geometric_wise.monna import MoNNA
    from byzpy.aggregators.norm_wise import comparative_gradient_elimination as eliminate
    from byzpy.aggregators.norm_wise.caf import CAF
    from byzpy.aggregators.norm_wise.center_clipping import CenteredClipping

    clip, trimmed, nnm = CenteredClipping, co.CoordinateWiseTrimmedMean, pre.NearestNeighborMixing
    return {
        "Median": lambda v, f, _: co.CoordinateWiseMedian().aggregate(v),
        "TrimmedMean": lambda v, f, _: trimmed(f).aggregate(v),
        "MeaMed": lambda v, f, _: co.MeanOfMedians(f).aggregate(v),
        "Krum": lambda v, f, _: Krum(f).aggregate(v),
        "Krum, our defaults": lambda v, f, _: Krum(f).aggregate(v),
        "MultiKrum": lambda v, f, _: MultiKrum(f, len(v) - f).aggregate(v),
        "GeometricMedian": lambda v, f, _: GeometricMedian(tol=1e-10).aggregate(v),
        "GeometricMedian, its defaults": lambda v, f, _: GeometricMedian().aggregate(v),
        "CenteredClipping": lambda v, f, _: clip(c_tau=3.0, M=3, init="zero").aggregate(v),
        "CenteredClipping, its start": lambda v, f, _: clip(c_tau=3.0, M=3).aggregate(v),
        "MDA": lambda v, f, _: ge.MinimumDiameterAveraging(f).aggregate(v),
        "MoNNA": lambda v, f, _: MoNNA(f, reference_index=2).aggregate(v),
        "CGE": lambda v, f, _: eliminate.ComparativeGradientElimination(f).aggregate(v),
        "SMEA": lambda v, f, _: ge.SMEA(f).aggregate(v),
        "CAF": lambda v, f, _: CAF(f, power_iters=3000).aggregate(v),
        "NNM": lambda v, f, _: nnm(f).pre_aggregate(v),
        "Bucketing": lambda v, f, order: pre.Bucketing(2, perm=order).pre_aggregate(v),
        "Clipping": lambda v, f, _: pre.Clipping(2.0).pre_aggregate(v),
        "ARC": lambda v, f, _: pre.ARC(f).pre_aggregate(v),
        "NNM >> TrimmedMean": lambda v, f, _: trimmed(f).aggregate(nnm(f).pre_aggregate(v)),
        "attack BitFlip": lambda v, f, _: at.SignFlipAttack().apply(base_grad=v[-1]),
        "attack IPM": lambda v, f, _: at.EmpireAttack(scale=-2.0).apply(honest_grads=v[:-f]),
        "attack ALIE, its z": lambda v, f, _: at.LittleAttack(f).apply(honest_grads=v[:-f]),
        "attack ALIE, quantile": lambda v, f, _: at.LittleAttack(f).apply(honest_grads=v[:-f]),
        "attack MimicIndex": lambda v, f, _: at.MimicAttack(2).apply(honest_grads=v[:-f]),
    }


def answer(call: Call, rows: Any, f: int, order: Any) -> Any:
    """What the peer answers, as an array; or what it raised, as a string."""
    np.random.seed(0)
    torch.manual_seed(0)
    random.seed(0)
    signal.alarm(SECONDS)
    try:
        out = call(rows, f, order)
        return np.stack([np.asarray(row) for row in out]) if isinstance(out, list) else np.asarray(out)
    except Exception as error:
        return np.array(f"{type(error).__name__}: {error}"[:200])
    finally:
        signal.alarm(0)


def late(*_: Any) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s")


def main(inputs: str, answers: str) -> None:
    signal.signal(signal.SIGALRM, late)
    given = np.load(inputs, allow_pickle=False)
    cases = [key.removeprefix("rows|") for key in given.files if key.startswith("rows|")]
    found: dict[str, Any] = {}
    for peer, table in (("ByzFL", byzfl), ("ByzPy", byzpy)):
        try:
            rules = table()
        except Exception as error:  # the other peer is still compared
            found[f"{peer}|import|"] = np.array(f"{type(error).__name__}: {error}"[:200])
            continue
        for rule, call in rules.items():
            for case in cases:
                rows = given[f"rows|{case}"].copy()  # some write to it
                like = [torch.from_numpy(row) for row in rows] if peer == "ByzPy" else rows
                order = given[f"order|{case}"].tolist()
                found[f"{peer}|{rule}|{case}"] = answer(call, like, int(given[f"f|{case}"]), order)
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
