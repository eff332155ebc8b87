"""The tutorial for Flower: its code runs. The federation that it starts is that of test_flower_federation."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from tests.tutorials import follow


def test_the_tutorial_can_be_followed(tmp_path, monkeypatch):
    follow("flower", tmp_path, monkeypatch)
