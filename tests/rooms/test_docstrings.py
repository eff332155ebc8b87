"""Docstrings of all that is public: there, with every parameter named, and with examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import pytest

from byzopt.docstrings import entries, sections

PUBLIC = (
    "aggregators",
    "attacks",
    "benchmark",
    "cohort",
    "distributed",
    "engines",
    "errors",
    "experiments",
    "methods",
    "schedules",
    "servers",
    "stress",
    "tasks",
    "testing",
    "wire",
    "workers",
)
ROOMS = (*PUBLIC, "docstrings", "layout", "theory")
LEAST = 0.9  # share of what is public that has an example


def modules(room: str) -> Iterator[ModuleType]:
    """A room's package or module, and all modules in it."""
    top = importlib.import_module(f"byzopt.{room}")
    yield top
    for found in pkgutil.walk_packages(getattr(top, "__path__", ()), f"byzopt.{room}."):
        yield importlib.import_module(found.name)


@cache
def public() -> dict[str, object]:
    """Every class and function that a room exports, by room and name; errors and enumerations apart."""
    named = {f"{room}.{name}": found for room in PUBLIC for name, found in exported(room)}
    return {
        name: found for name, found in named.items() if inspect.isclass(found) or inspect.isfunction(found)
    }


def exported(room: str) -> list[tuple[str, object]]:
    """The public names of a room with what they stand for."""
    module = importlib.import_module(f"byzopt.{room}")
    return [(name, getattr(module, name)) for name in module.__all__]


def parameters(found: object) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function by name; none of errors without an own `__init__`."""
    plain = inspect.isclass(found) and issubclass(found, (Exception, str))
    return {} if plain and "__init__" not in vars(found) else dict(inspect.signature(found).parameters)


@pytest.mark.parametrize("room", ROOMS)
def test_examples_run_and_print_what_they_say(room):
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for module in modules(room):
        for test in finder.find(module, globs={"__name__": "__example__"}):
            runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)
    assert runner.tries


@pytest.mark.parametrize("room", PUBLIC)
def test_every_public_object_says_what_it_is_and_explains_each_parameter(room):
    for name, found in public().items():
        if not name.startswith(f"{room}."):
            continue
        doc = found.__dict__.get("__doc__") if inspect.isclass(found) else found.__doc__
        assert doc, f"{name} has no docstring of its own"
        assert not doc.startswith(f"{found.__name__}("), f"{name} has the docstring that dataclass makes up"
        explained = entries(sections(doc).get("Args", ""))
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        wanted = [key for key, one in parameters(found).items() if one.kind not in open_ended]
        missing = [key for key in wanted if key not in explained]
        assert not missing, f"{name} does not explain {', '.join(missing)}"
        unknown = explained.keys() - parameters(found).keys()
        assert not unknown, f"{name} explains {', '.join(unknown)}, which it does not have"


def test_every_formula_explains_each_parameter():
    for module in modules("theory"):
        for name, found in vars(module).items():
            if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_"):
                missing = parameters(found).keys() - entries(sections(found.__doc__).get("Args", "")).keys()
                assert not missing, f"{module.__name__}.{name} does not explain {', '.join(missing)}"


def test_most_of_what_is_public_has_an_example():
    without = [name for name, found in public().items() if ">>>" not in (inspect.getdoc(found) or "")]
    assert len(without) <= (1 - LEAST) * len(public()), without


def test_a_wrong_example_would_be_noticed():
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1
