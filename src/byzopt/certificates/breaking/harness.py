"""`break_rule`: all attacks, their parameters and hard rows against one rule; `replay`: one of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byzopt.aggregators import Aggregator, rule_from
from byzopt.attacks import ATTACKS
from byzopt.certificates.breaking.finding import EvaluationStatus, Finding
from byzopt.certificates.breaking.report import BreakReport, rule_spelling
from byzopt.certificates.breaking.search import AttackSearch
from byzopt.certificates.breaking.toy import OneRound
from byzopt.certificates.breaking.training import Training
from byzopt.errors import require
from byzopt.experiments.trials.memory import check_memory
from byzopt.registry import plain
from byzopt.tasks import TASKS
from byzopt.theory import robustness

USUAL_D = 10  # coordinates of a row


def break_rule(
    rule: Any,
    n: int,
    f: int,
    d: int = USUAL_D,
    task: Any = None,
    seed: int = 0,
    trials: int = 3,
    budget: int | None = None,
) -> BreakReport:
    """Search all registered attacks and their parameters for the largest error of `rule`.

    `rule` is a recipe or what `rule_from` reads; `f` workers of `n` are Byzantine, and `f` fills the rule's
    own where that is left out. Without `task` the rows are those of `ROWS` in `d` coordinates, and errors are
    measured against the honest dispersion; with a task (a recipe, its name or table) short trainings are run.
    `trials` seeds from `seed` on are tried for the best cases. `budget` bounds all evaluations, at least
    one for each attack and kind of rows; default 10,000, or 200 trainings. Deterministic.

    A lower bound on the worst case: what is not found may exist. Errors: a rule that cannot work with n, f.
    """
    require(trials >= 1, "The number of `trials`", "be at least 1", trials)
    require(budget is None or budget >= 1, "The `budget`", "be at least 1 evaluation", budget)
    built = rule_from(rule, f=f)
    setting = _setting(built, n, f, d, task)
    allowance = max((budget or setting.budget) // len(list(ATTACKS)), len(setting.places))
    hunts = {
        name: AttackSearch(setting, ATTACKS.build(name), seed, trials, allowance).run() for name in ATTACKS
    }
    every = [finding for findings in hunts.values() for finding in findings]
    return BreakReport(
        rule=rule_spelling(built),
        n=n,
        f=f,
        d=None if isinstance(setting, Training) else d,
        task=plain(setting.task) if isinstance(setting, Training) else None,
        bounds=_bounds(built, n, f) if isinstance(setting, OneRound) else {},
        floors=_floors(n, f) if isinstance(setting, OneRound) else {},
        worst={form: _worst(every, form) for form in setting.forms if _measured(every)},
        ranking=_ranked(hunts, setting.forms[0]),
        broken=_first(hunts, EvaluationStatus.BROKEN),
        refused=_first(hunts, EvaluationStatus.REFUSED),
        evaluations=len(every),
        unfit=_first(
            {name: found for name, found in hunts.items() if _none_fits(found)}, EvaluationStatus.UNFIT
        ),
    )


def replay(
    rule: Any,
    n: int,
    f: int,
    d: int = USUAL_D,
    *,
    attack: Any,
    rows: str = "gaussian",
    seed: int = 0,
    task: Any = None,
) -> Finding:
    """One evaluation: `attack` is a recipe or its plain data. With a task, `rows` is ignored."""
    setting = _setting(rule_from(rule, f=f), n, f, d, task)
    recipe = ATTACKS.recipe(attack)
    return setting.play(recipe, setting.task.name if isinstance(setting, Training) else rows, seed)


def _setting(rule: Aggregator, n: int, f: int, d: int, task: Any) -> OneRound | Training:
    require(0 <= 2 * f < n, "The count `f`", "satisfy 0 <= 2 f < n", f"f = {f} with n = {n}")
    require(d >= 1, "The number of coordinates `d`", "be at least 1", d)
    rule.check(n)
    recipe = None if task is None else TASKS.recipe(task)
    each = 8 * d if recipe is None else recipe.worker_bytes
    check_memory(n, each, rule, f"Evaluations with n = {n:,} workers")
    return OneRound(rule, n, f, d) if recipe is None else Training(rule, n, f, recipe)


def _bounds(rule: Aggregator, n: int, f: int) -> dict[str, float | None]:
    if set(rule.trusts) & set(range(f)):  # the liars are the first rows
        return {"squared": None, "linear": None}
    return {"squared": rule.kappa_squared(n, f), "linear": rule.kappa_linear(n, f)}


def _floors(n: int, f: int) -> dict[str, float]:
    return {"squared": robustness.least_squared(n, f), "linear": robustness.least_linear(n, f)}


def _measured(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is EvaluationStatus.MEASURED]


def _none_fits(findings: list[Finding]) -> bool:
    return all(finding.verdict is EvaluationStatus.UNFIT for finding in findings)


def _worst(findings: list[Finding], form: str) -> Finding:
    return max(_measured(findings), key=lambda finding: finding.figures[form])


def _ranked(hunts: Mapping[str, list[Finding]], form: str) -> tuple[Finding, ...]:
    worst = [_worst(findings, form) for findings in hunts.values() if _measured(findings)]
    return tuple(sorted(worst, key=lambda finding: -finding.figures[form]))


def _first(hunts: Mapping[str, list[Finding]], verdict: EvaluationStatus) -> tuple[Finding, ...]:
    first = (next((one for one in findings if one.verdict is verdict), None) for findings in hunts.values())
    return tuple(finding for finding in first if finding is not None)
