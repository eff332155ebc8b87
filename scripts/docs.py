"""Writes docs/reference: a page for every rule, pre-aggregator and attack, and compact pages for the rest.

    python scripts/docs.py

Everything comes from the registries: docstrings, fields, and figures that the recipes themselves give.
`tests/rooms/test_docs.py` fails while a committed page differs from what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from byzopt.aggregators import PRE_AGGREGATORS, RULES, WRAPPERS, Aggregator, PreAggregator, rule_from
from byzopt.attacks import ATTACKS, CLOCK_ATTACKS, EDGE_ATTACKS, Attack, Remembering
from byzopt.clocks import CLOCKS
from byzopt.docstrings import entries, sections
from byzopt.engines import ENGINES
from byzopt.errors import InvalidInput
from byzopt.experiments.specs.toml import dumps
from byzopt.graphs import TOPOLOGIES
from byzopt.intakes import INTAKES
from byzopt.methods import METHODS
from byzopt.mixers import MIXERS
from byzopt.registry import Registry, plain
from byzopt.schedules import SCHEDULES
from byzopt.servers import INNERS, NORMS, STEPS
from byzopt.tasks import PARTITIONS, PROXIES, TASKS
from byzopt.wire import CHANNELS, COMPRESSORS, DOWNLINKS
from byzopt.workers import ESTIMATORS, PARTICIPANTS

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
COMMAND = "python scripts/docs.py"
MADE = f"<!-- Written by `{COMMAND}`; change the docstrings instead. -->\n\n"
N, F = 20, 3  # where κ is shown
COUNTS = (1, 3, 5)  # the f for which the smallest n is shown
LARGEST = 100  # n up to which it is looked for
BEHIND = ("krum", "median", "trimmed_mean", "geometric_median")  # rules shown behind a pre-aggregator
FIGURES = """
## Figures on these pages

Which rule to take: [which rule should I use?](../which-rule.md)

- **f** is the number of faulty rows that a rule is set to tolerate; a spec's own `f` fills it in.
- **Smallest n accepted** is what the rule checks: below it, `InvalidInput`. It is a precondition, not a
  promise: a rule with breakdown point 0 may accept an f.
- **Bounded up to** is the breakdown point of that recipe: so many faulty rows of 20 may hold anything, and
  the answer stays bounded. Where `f` only says how many rows may be dropped, it makes no difference.
- **κ**, the linear coefficient: ‖Agg - v̄‖ <= κ · mean‖v_i - v̄‖ for every n - f rows with mean v̄.
  **κ₂**, the squared one: ‖Agg - v̄‖² <= κ₂ · mean‖v_i - v̄‖². The least that is proved, over all routes;
  "by answer" where none is known in advance but `rule.certify(rows)` may have one for an answer, "none"
  where no proof is known. No rule has a κ₂ below f/(n - 2 f). Arguments, and what papers state:
  [constants](../constants.md).
  A coefficient bounds a length in the worst case: it is
  [no ranking of rules](../constants.md#what-a-coefficient-does-not-say).
- NaN and Inf are the same for all rules: such rows are dropped and counted against f
  ([policy](../architecture.md#one-policy-for-bad-rows)).
"""
LIMITS = (
    "A coefficient bounds a length in the worst case, and is no ranking: "
    "[what it does not say](../../constants.md#what-a-coefficient-does-not-say)."
)
ROOMS_OF_RULES: list[tuple[str, Registry[Any]]] = [
    ("rules", RULES),
    ("pre_aggregators", PRE_AGGREGATORS),
    ("wrappers", WRAPPERS),
]
OTHERS: dict[str, tuple[Registry[Any], str]] = {
    "methods": (METHODS, "`method` of a spec: what workers send and how the server steps."),
    "tasks": (TASKS, "`task` of a spec: losses and data. Your own: [tasks](../tasks.md)."),
    "partitions": (PARTITIONS, "`task.partition` of tasks with samples: who owns which."),
    "schedules": (SCHEDULES, "`method.schedule`: step sizes by round, as factors of `lr`."),
    "proxies": (PROXIES, "`task.proxy`: the loss that the server owns, for `pigs` and `aeg_prox`."),
    "inner_solvers": (INNERS, "`method.inner` of `pigs` and `aeg_prox`: who solves their subproblem."),
    "compressors": (
        COMPRESSORS,
        "`method.compressor` of compressed methods, and `method.down` of byz_ef21_bc. Your own: "
        "[guide](../guides/compressor.md).",
    ),
    "channels": (CHANNELS, "How messages cross the wire; a method chooses its own."),
    "participants": (
        PARTICIPANTS,
        "`participants` of a spec: who takes part in a round, and what the rule gets for absentees. See "
        "[beyond one message a round](../beyond.md#sampling).",
    ),
    "steps": (STEPS, "`method.server` of `fed_opt`: what the server does with the aggregate."),
    "downlinks": (DOWNLINKS, "How the server's point reaches the workers; a method chooses its own."),
    "estimators": (ESTIMATORS, "What honest workers compute and want to say; a method chooses its own."),
    "engines": (
        ENGINES,
        "`engine` of a spec: what plays the workers. Your own: [guide](../guides/engine.md).",
    ),
    "edge_attacks": (
        EDGE_ATTACKS,
        "`attack` of a spec with a graph: what liars tell each neighbour. See [graphs](../graphs.md).",
    ),
    "topologies": (TOPOLOGIES, "`graph.topology` of a spec: who hears whom. See [graphs](../graphs.md)."),
    "mixers": (
        MIXERS,
        "`graph.mixer` of a spec: how nodes take in what their neighbours say. See [graphs](../graphs.md).",
    ),
    "clocks": (
        CLOCKS,
        "`asynchrony.clock` of a spec: how long workers take. See [asynchrony](../asynchrony.md).",
    ),
    "intakes": (
        INTAKES,
        "`asynchrony.intake` of a spec: when the server takes a step, and with what. See "
        "[asynchrony](../asynchrony.md).",
    ),
    "clock_attacks": (
        CLOCK_ATTACKS,
        "`attack` of a spec with `asynchrony`: what liars send, and when. See "
        "[asynchrony](../asynchrony.md).",
    ),
    "norms": (NORMS, "`method.norm` of `byz_nsgdm`: the norm in which a step has length γ_k."),
}


def pages() -> dict[str, str]:
    """Every page by its path below docs/reference."""
    made = {
        "rules.md": _index("Rules", ROOMS_OF_RULES),
        "attacks.md": _index("Attacks", [("attacks", ATTACKS)]),
        "others.md": _others(),
    }
    told: dict[str, Callable[[Any], str]] = {
        "rules": _rule_facts,
        "pre_aggregators": _stage_facts,
        "wrappers": _wrapper_facts,
        "attacks": _attack_facts,
    }
    for folder, room in [*ROOMS_OF_RULES, ("attacks", ATTACKS)]:
        facts = told[folder]
        made |= {f"{folder}/{name}.md": _page(room[name], facts(room[name])) for name in room}
    made |= {f"{kind}.md": _compact(kind, room, text) for kind, (room, text) in OTHERS.items()}
    return {path: MADE + text.rstrip() + "\n" for path, text in made.items()}


def main() -> None:
    """Write all pages, and remove those of recipes that are gone."""
    made = pages()
    for path, text in made.items():
        (REFERENCE / path).parent.mkdir(parents=True, exist_ok=True)
        (REFERENCE / path).write_text(text, encoding="utf-8")
    for page in REFERENCE.rglob("*.md"):
        if page.relative_to(REFERENCE).as_posix() not in made:
            page.unlink()
    print(f"{len(made)} pages under {REFERENCE.relative_to(ROOT)}")


# Pages.


def _index(title: str, rooms: list[tuple[str, Registry[Any]]]) -> str:
    text = f"# {title}\n"
    for folder, room in rooms:
        text += f"\n## {room.kind.capitalize()}s\n\n" if len(rooms) > 1 else "\n"
        text += "".join(f"- [{name}]({folder}/{name}.md): {_first(room[name])}\n" for name in room)
    return text + (FIGURES if title == "Rules" else "")


def _others() -> str:
    text = "# Methods, tasks and their parts\n"
    for kind, (room, note) in OTHERS.items():
        text += f"\n## [{kind.capitalize()}]({kind}.md)\n\n{note}\n\n"
        text += "".join(
            f"- [{name}]({kind}.md#{name.replace('+', '')}): {_first(room[name])}\n" for name in room
        )
    return text


def _compact(kind: str, room: Registry[Any], note: str) -> str:
    text = f"# {kind.capitalize()}\n\n{note}\n"
    for name in room:
        recipe = room[name]
        text += f"\n## {name}\n\n`{_imported(recipe)}`\n\n{_described(recipe)}"
    return text


def _page(recipe: type, facts: str) -> str:
    head = f"# {recipe.__name__} (`{recipe.name}`)\n\n"  # type: ignore[attr-defined]
    beyond = inspect.cleandoc(inspect.getmodule(recipe).__doc__ or "").partition("\n\n")[2]
    family = f"\n## Background\n\n{_markdown(beyond)}\n" if beyond else ""
    return f"{head}{facts}\n{_described(recipe)}{family}\n{_file(recipe)}"


def _described(recipe: type) -> str:
    return _prose(recipe) + _parameters(recipe) + _errors(recipe) + _example(recipe)


def _prose(recipe: type) -> str:
    """The docstring, and those of the recipes that it extends, without their sections."""
    text = _markdown(_parts(recipe)[""]) + "\n"
    for base in recipe.__mro__[1:]:
        # Private bases only hold fields, which the table shows.
        if is_dataclass(base) and base.__dict__.get("__doc__") and not base.__name__.startswith("_"):
            text += f"\nFrom `{base.__name__}`: {_markdown(_parts(base)[''])}\n"
    return text


def _parameters(recipe: type) -> str:
    shown = [field for field in fields(recipe) if field.init]
    if not shown:
        return "\nNo parameters.\n"
    meanings = _meanings(recipe)
    rows = [
        (f"`{field.name}`", f"`{field.type}`", _default(field), _escaped(meanings.get(field.name, "")))
        for field in shown
    ]
    return "\n" + _table(("parameter", "type", "default", "meaning"), rows)


def _meanings(recipe: type) -> dict[str, str]:
    """What the docstrings of a recipe and of those that it extends say of each parameter."""
    found: dict[str, str] = {}
    for base in reversed(recipe.__mro__):
        if is_dataclass(base):
            found |= entries(_parts(base).get("Args", ""))
    return found


def _errors(recipe: type) -> str:
    raised = entries(_parts(recipe).get("Raises", ""))
    return "".join(f"\n**Errors**: `{name}`: {_escaped(when)}\n" for name, when in raised.items())


def _example(recipe: type) -> str:
    example = _parts(recipe).get("Examples", "")
    return f"\n```pycon\n{example}\n```\n" if example else ""


def _parts(recipe: type) -> dict[str, str]:
    """The sections of a class's own docstring."""
    return sections(recipe.__dict__.get("__doc__"))


def _default(field: Any) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    value = field.default_factory() if field.default is MISSING else field.default
    return f"`{value!r}`"


def _file(recipe: type) -> str:
    path = Path(inspect.getfile(recipe)).resolve().relative_to(ROOT).as_posix()
    return f"Source file: [{path}](../../../{path})\n"


# What a recipe says of itself.


def _rule_facts(recipe: type[Aggregator]) -> str:
    name = recipe.name
    text = f'`{_imported(recipe)}`; in a spec `rule = "{name}"`'
    alone = recipe.sent_rows is True  # no stage may stand before it
    text += ".\n\n" if alone else f', or behind a pre-aggregator `rule = "nnm >> {name}"`.\n\n'
    text += _table(
        ("", *(f"f = {f}" for f in COUNTS)),
        [
            ("smallest n accepted", *(_least(name, f) for f in COUNTS)),
            (f"bounded up to, n = {N}", *(_bounded(name, f) for f in COUNTS)),
        ],
    )
    chained = [(spelling, _built(spelling, F)) for spelling in (name, *([] if alone else [f"nnm >> {name}"]))]
    return text + "\n" + _coefficients(chained)


def _stage_facts(recipe: type[PreAggregator]) -> str:
    name = recipe.name
    text = f'`{_imported(recipe)}`; in a spec before a rule, `rule = "{name} >> krum"`.\n\n'
    chained = [(f"{name} >> {rule}", _built(f"{name} >> {rule}", F)) for rule in BEHIND]
    return text + _coefficients(chained)


def _wrapper_facts(recipe: type[Aggregator]) -> str:
    return f"`{_imported(recipe)}`; in a spec `rule = \"{recipe.name}(rule='median', ...)\"`.\n"


def _attack_facts(recipe: type[Attack]) -> str:
    knows = ", ".join(f"`{what}`" for what in sorted(recipe.knows)) or "nothing of the round's rows"
    text = f"`{_imported(recipe)}`; knows {knows}; "
    text += "remembers earlier rounds" if issubclass(recipe, Remembering) else "no memory"
    text += "; poisons data.\n" if recipe.poison is not Attack.poison else ".\n"
    try:
        text += f"\n```toml\n{dumps({'attack': plain(recipe())}).strip()}\n```\n"
    except TypeError:
        text += f'\nIn a spec: `attack = {{name = "{recipe.name}", ...}}` with the required parameters.\n'
    return text


def _built(spelling: str, f: int) -> Aggregator | None:
    """The rule at tolerance f; None where it has parameters that only a user can give."""
    try:
        return rule_from(spelling, f=f)
    except InvalidInput:
        return None


def _least(name: str, f: int) -> str:
    rule = _built(name, f)
    if rule is None or rule.tolerance(LARGEST) < f:
        return "tolerates none"
    return next((str(n) for n in range(1, LARGEST) if _accepts(rule, n)), f"above {LARGEST}")


def _bounded(name: str, f: int) -> str:
    rule = _built(name, f)
    return str(rule.breakdown(N)) if rule is not None and _accepts(rule, N) else "not accepted"


def _accepts(rule: Aggregator, n: int) -> bool:
    try:
        rule.check(n)
    except InvalidInput:
        return False
    return True


def _coefficients(chained: Sequence[tuple[str, Aggregator | None]]) -> str:
    """The table of what is proved of these rules, with what it does not say."""
    shown = [(f"`{spelling}`", *_kappas(rule)) for spelling, rule in chained if rule is not None]
    if not shown:
        return ""
    table = _table((f"proved, n = {N}, f = {F}", "κ (linear)", "κ₂ (squared)"), shown)
    trusted = any(rule is not None and rule.trusts for _, rule in chained)
    return f"{table}\n{'Provided that the trusted row is honest. ' if trusted else ''}{LIMITS}\n"


def _kappas(rule: Aggregator) -> tuple[str, str]:
    if not _accepts(rule, N):
        return "none", "none"
    found, by_answer = rule.coefficients(N, F), rule.certifiable(N, F)
    return _figure(found.linear, by_answer), _figure(found.squared, by_answer)


def _figure(kappa: float | None, by_answer: bool) -> str:
    return f"{kappa:.4g}" if kappa is not None else "by answer" if by_answer else "none"


# Text.


def _imported(recipe: type) -> str:
    package = recipe.__module__.rpartition(".")[0]
    home = recipe.__module__ if package == "byzopt" else package
    return f"from {home} import {recipe.__name__}"


def _first(recipe: type) -> str:
    paragraph = " ".join(inspect.cleandoc(recipe.__doc__ or "").partition("\n\n")[0].split())
    # Two dots are an ellipsis in a formula, and so is one after a space.
    return _escaped(re.split(r"(?<![ .])\. ", paragraph)[0].rstrip(".") + ".")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _markdown(doc: str | None) -> str:
    """A docstring as Markdown: formulas that are indented stay so, labels become bold."""
    paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    return "\n\n".join(part if part.startswith("    ") else _escaped(part) for part in paragraphs)


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _told(part) for part in parts)


def _told(text: str) -> str:
    text = re.sub(r"(\*|<(?=[A-Za-z/!?]))", r"\\\1", text)
    text = re.sub(r"^([-+>#] )", r"\\\1", text, flags=re.MULTILINE)
    return re.sub(r"\b(Cost|Source|Where we differ|Errors|Ties|[Bb]reakdown point)\b", r"**\1**", text)


if __name__ == "__main__":
    main()
