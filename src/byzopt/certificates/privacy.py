"""What a spec's run guarantees of the privacy of its workers' data."""

from __future__ import annotations

from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.memory import build_task
from byzopt.methods import MethodRecipe
from byzopt.tasks import SampleProxy, WorkerProxy
from byzopt.theory.promise import Promise


def spec_privacy(spec: Spec) -> tuple[Promise, ...]:
    """The method's guarantees, with what the spec's rounds use of its task's data; none without noise."""
    if type(spec.method).privacy is MethodRecipe.privacy:
        return ()
    uses = build_task(spec).uses(spec.rounds)
    told = isinstance(getattr(spec.task, "proxy", None), (SampleProxy, WorkerProxy))
    return spec.method.privacy(uses._replace(open=told, pooled=spec.task.pooled()))
