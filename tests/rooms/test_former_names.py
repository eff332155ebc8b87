"""Names of before can still be imported, with a warning that says the present name."""

from __future__ import annotations

from importlib import import_module

import pytest

FORMER = {
    "byzopt.aggregators": {"Report": "RowReport"},
    "byzopt.servers": {"Site": "ServerContext"},
    "byzopt.distributed": {"ByzNSGDM": "RobustNSGDM", "Verdict": "RoundDiagnostics"},
}


@pytest.mark.parametrize("room", FORMER)
def test_a_former_name_gives_the_present_thing_and_says_so(room):
    module = import_module(room)
    for former, present in FORMER[room].items():
        with pytest.warns(DeprecationWarning, match=f"{room}.{former} is now called {present}"):
            assert getattr(module, former) is getattr(module, present)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = module.Nothing
