"""What byzopt.flower exports: its parameters are explained, and the examples run."""

from __future__ import annotations

import doctest
import inspect

import pytest

pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from byzopt import flower
from byzopt.docstrings import entries, sections


@pytest.mark.parametrize("name", flower.__all__)
def test_parameters_are_explained_and_examples_run(name):
    found, said = getattr(flower, name), list[str]()
    missing = (
        inspect.signature(found).parameters.keys() - entries(sections(found.__doc__).get("Args", "")).keys()
    )
    assert not missing
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(recurse=False).find(found, name, globs={}):
        runner.run(test, out=said.append)
    assert runner.tries
    assert not said, "".join(said)
