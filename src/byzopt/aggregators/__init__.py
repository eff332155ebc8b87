"""Robust rules and pre-aggregators: `(NNM(f=3) >> Krum(f=3))(rows)`."""

from byzopt.aggregators.aksel import Aksel
from byzopt.aggregators.auto_gm import AutoGM
from byzopt.aggregators.boba import BOBA
from byzopt.aggregators.bucketing import Bucketing
from byzopt.aggregators.bulyan import Bulyan
from byzopt.aggregators.caf import CAF
from byzopt.aggregators.capped_nnm import CappedNNM
from byzopt.aggregators.centered_clipping import CenteredClipping
from byzopt.aggregators.cge import CGE
from byzopt.aggregators.clipped_clustering import ClippedClustering
from byzopt.aggregators.clipping import ARC, Clipping
from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.chain import Chain
from byzopt.aggregators.core.changes import ClippedChanges, RowMomentum
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule, StatelessFilter
from byzopt.aggregators.core.kinds import CoordinateRule, GeometricRule, RankRule
from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, PreAggregator, PreChain, ScalingStage
from byzopt.aggregators.core.present import LastRows, PresentRows
from byzopt.aggregators.core.report import RowReport
from byzopt.aggregators.core.spelling import rule_data, rule_from
from byzopt.aggregators.core.trusting import MeasuringRule, TrustingRule
from byzopt.aggregators.core.weighing import FigureRule, WeighingRule
from byzopt.aggregators.core.weighted_form import WeightedColumns, WeightedSum
from byzopt.aggregators.core.wrapper import WRAPPERS
from byzopt.aggregators.dnc import DnC
from byzopt.aggregators.faba import FABA
from byzopt.aggregators.fail_closed import FailClosed
from byzopt.aggregators.fedseca import FedSECA
from byzopt.aggregators.flame import FLAME
from byzopt.aggregators.fltrust import FLTrust
from byzopt.aggregators.foolsgold import FoolsGold
from byzopt.aggregators.foundation import Foundation
from byzopt.aggregators.gas import GAS
from byzopt.aggregators.geometric_median import GeometricMedian
from byzopt.aggregators.krum import Krum, MultiKrum
from byzopt.aggregators.lasa import LASA
from byzopt.aggregators.mda import MDA
from byzopt.aggregators.meamed import MeaMed, Phocas
from byzopt.aggregators.mean import Mean
from byzopt.aggregators.median import Median
from byzopt.aggregators.median_of_means import MedianOfMeans
from byzopt.aggregators.medoid import Medoid
from byzopt.aggregators.monna import MoNNA
from byzopt.aggregators.mva import MVA
from byzopt.aggregators.nnm import NNM
from byzopt.aggregators.norm_clipping import NormClipping
from byzopt.aggregators.normalise import Normalise
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.random_projection import RandomProjection
from byzopt.aggregators.rfa import RFA
from byzopt.aggregators.rlr import RLR
from byzopt.aggregators.sign_majority import SignMajority
from byzopt.aggregators.signguard import SignGuard
from byzopt.aggregators.smea import SMEA
from byzopt.aggregators.trimmed_mean import TrimmedMean
from byzopt.aggregators.weighted import Weighted
from byzopt.aggregators.zeno import Zeno
from byzopt.deprecation import former_names
from byzopt.kernels import RankWindow
from byzopt.theory.robustness import Coefficients

__all__ = [
    "ARC",
    "BOBA",
    "CAF",
    "CGE",
    "FABA",
    "FLAME",
    "GAS",
    "LASA",
    "MDA",
    "MVA",
    "NNM",
    "PRE_AGGREGATORS",
    "RFA",
    "RLR",
    "RULES",
    "SMEA",
    "WRAPPERS",
    "Aggregator",
    "Aksel",
    "AutoGM",
    "Bucketing",
    "Bulyan",
    "CappedNNM",
    "CenteredClipping",
    "Certificate",
    "Chain",
    "ClippedChanges",
    "ClippedClustering",
    "Clipping",
    "Coefficients",
    "CoordinateRule",
    "DnC",
    "FLTrust",
    "FailClosed",
    "FedSECA",
    "FigureRule",
    "Filter",
    "FoolsGold",
    "Foundation",
    "GeometricMedian",
    "GeometricRule",
    "Geometry",
    "Krum",
    "LastRows",
    "MeaMed",
    "Mean",
    "MeasuringRule",
    "Median",
    "MedianOfMeans",
    "Medoid",
    "Mixed",
    "MoNNA",
    "MultiKrum",
    "NormClipping",
    "Normalise",
    "Phocas",
    "PreAggregator",
    "PreChain",
    "PresentRows",
    "RandomProjection",
    "RankRule",
    "RankWindow",
    "RoundContext",
    "RoundRule",
    "RowMomentum",
    "RowReport",
    "ScalingStage",
    "SignGuard",
    "SignMajority",
    "StatelessFilter",
    "TrimmedMean",
    "TrustingRule",
    "WeighingRule",
    "Weighted",
    "WeightedColumns",
    "WeightedSum",
    "Zeno",
    "rule_data",
    "rule_from",
]

__getattr__ = former_names(__name__, {"Report": RowReport})
