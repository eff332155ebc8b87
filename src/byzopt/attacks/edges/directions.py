"""Directions in which liars push: apart, along the weakest cut, to one side, backwards, two ways at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.attacks.edges.base import EDGE_ATTACKS, EdgeView
from byzopt.attacks.edges.searched import SearchedAttack


@EDGE_ATTACKS.register("dissensus")
@dataclass(frozen=True)
class Dissensus(SearchedAttack):
    """u_i = Σ_j w_ij (x_i - x_j) over honest neighbours: every node is pushed away from its neighbours.

    Source: He, Karimireddy, Jaggi, arXiv:2202.01545.

    Args:
        scale: s, the same for all receivers; None: searched for each.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, Dissensus
        >>> EDGE_ATTACKS.build("dissensus") == Dissensus()
        True
    """

    def directions(self, view: EdgeView) -> Tensor:
        return view.network.laplacian.to(view.honest) @ _centred(view)


@EDGE_ATTACKS.register("spectral")
@dataclass(frozen=True)
class Spectral(SearchedAttack):
    """u_i = v_i (vᵀX), v the Fiedler vector of the honest graph: apart along the graph's weakest cut.

    Source: Gaucher, Dieuleveut, Hendrikx, arXiv:2410.10418.

    Args:
        scale: s, the same for all receivers; None: searched for each.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, Spectral
        >>> EDGE_ATTACKS.build("spectral") == Spectral()
        True
    """

    def directions(self, view: EdgeView) -> Tensor:
        v = view.network.fiedler.to(view.honest)
        return torch.outer(v, v @ _centred(view))


@EDGE_ATTACKS.register("local_alie")
@dataclass(frozen=True)
class LocalALIE(SearchedAttack):
    """u_i = the coordinatewise deviation over i and its honest neighbours: all nodes to the same side.

    A lie that moves the mean, where others part the nodes. Source: Baruch et al., arXiv:1902.06156, taken
    over neighbourhoods.

    Args:
        scale: s, the same for all receivers; None: searched for each.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, LocalALIE
        >>> EDGE_ATTACKS.build({"name": "local_alie", "scale": 1.5}) == LocalALIE(scale=1.5)
        True
    """

    def directions(self, view: EdgeView) -> Tensor:
        rows, honest = _centred(view), torch.tensor(view.cohort.honest, device="cpu")
        edges = view.network.adjacency[honest][:, honest].to(rows)
        edges.fill_diagonal_(1)
        edges /= edges.sum(dim=1, keepdim=True)
        mean = edges @ rows
        return (edges @ rows.square() - mean.square()).clamp(min=0).sqrt()


@EDGE_ATTACKS.register("local_ipm")
@dataclass(frozen=True)
class LocalIPM(SearchedAttack):
    """u_i = minus the mean move of the honest nodes in this round: all nodes back where they came from.

    Where nodes only average, nobody moves before the exchange, and the attack says what is true.
    Source: Xie, Koyejo, Gupta, UAI 2019, taken for moves.

    Args:
        scale: s, the same for all receivers; None: searched for each.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, LocalIPM
        >>> EDGE_ATTACKS.build("local_ipm") == LocalIPM()
        True
    """

    def directions(self, view: EdgeView) -> Tensor:
        back = view.x - view.honest.mean(dim=0)
        return back.expand_as(view.honest)


@EDGE_ATTACKS.register("two_faced")
@dataclass(frozen=True)
class TwoFaced(SearchedAttack):
    """u_i = ± the coordinatewise deviation of all honest nodes, by the side of the weakest cut that i is on.

    Equivocation: the same liars tell one side that all are above, and the other that all are below.

    Args:
        scale: s, the same for all receivers; None: searched for each.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, TwoFaced
        >>> EDGE_ATTACKS.build("two_faced") == TwoFaced()
        True
    """

    def directions(self, view: EdgeView) -> Tensor:
        side = torch.where(view.network.fiedler >= 0, 1.0, -1.0).to(view.honest)
        return torch.outer(side, _centred(view).square().mean(dim=0).sqrt())


def _centred(view: EdgeView) -> Tensor:
    """The honest rows about their mean: differences of them lose no digits to a common offset."""
    rows = view.honest
    return rows - rows.mean(dim=0)
