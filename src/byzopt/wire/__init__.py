"""Channels: how messages cross the wire, and the compressors that make them short."""

from byzopt.wire.base import CHANNELS, Channel, Cost, Direct
from byzopt.wire.bitstream import BitReader, BitWriter
from byzopt.wire.clip21 import Clip21Wire
from byzopt.wire.compressors import COMPRESSORS, FLOAT, Compressor, Draw, Identity, Scope
from byzopt.wire.dense import QSGD, Natural, ScaledSign
from byzopt.wire.down import DOWNLINKS, EF21P, Broadcast, Downlink
from byzopt.wire.feedback import EF21, Dasha, Diana, ErrorFeedback, Opening
from byzopt.wire.link import Link
from byzopt.wire.marina import Marina, Marina2
from byzopt.wire.shrunk import Shrunk
from byzopt.wire.sparse import RandK, SharedRandK, TopK

__all__ = [
    "CHANNELS",
    "COMPRESSORS",
    "DOWNLINKS",
    "EF21",
    "EF21P",
    "FLOAT",
    "QSGD",
    "BitReader",
    "BitWriter",
    "Broadcast",
    "Channel",
    "Clip21Wire",
    "Compressor",
    "Cost",
    "Dasha",
    "Diana",
    "Direct",
    "Downlink",
    "Draw",
    "ErrorFeedback",
    "Identity",
    "Link",
    "Marina",
    "Marina2",
    "Natural",
    "Opening",
    "RandK",
    "ScaledSign",
    "Scope",
    "SharedRandK",
    "Shrunk",
    "TopK",
]
