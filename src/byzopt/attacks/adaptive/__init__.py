"""Attacks that search each round for the worst rows against the server's own rule."""

from byzopt.attacks.adaptive.autobyz import AutoByz

__all__ = ["AutoByz"]
