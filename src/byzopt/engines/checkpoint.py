"""States of a run on its way as plain data, in files of their own."""

from byzopt.checkpoint import load, save
from byzopt.states import freeze, thaw

__all__ = ["freeze", "load", "save", "thaw"]
