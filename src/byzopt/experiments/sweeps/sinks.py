"""Where else a sweep's runs may go: TensorBoard and MLflow. Each run once, however often it is continued."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isfinite
from pathlib import Path
from typing import Any

from byzopt.errors import InvalidInput, MissingExtra
from byzopt.experiments.sweeps.runs import Run, value_text
from byzopt.experiments.trials.outcome import Outcome


class Sink(ABC):
    """Takes stored runs; a run that it has is not written again."""

    @abstractmethod
    def write(self, run: Run, outcome: Outcome) -> None:
        """Take a run's settings and all its records."""


class TensorBoard(Sink):
    """Event files under `folder`, a directory for each run. Errors: `MissingExtra`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra(_hint("TensorBoard", "tensorboard")) from None
        self.folder, self.open = folder, SummaryWriter

    def write(self, run: Run, outcome: Outcome) -> None:
        place = self.folder / run.id
        done = place / "whole"  # written last: a directory without it was cut short and is made again
        if done.exists():
            return
        if place.exists():
            for old in place.iterdir():
                old.unlink()
        writer = self.open(str(place))
        writer.add_text("settings", "\n".join(f"- {key}: {value}" for key, value in _settings(run).items()))
        for record in outcome.records:
            for key, value in record.items():
                if key != "t":
                    writer.add_scalar(key, value, int(record["t"]))
        writer.close()
        done.touch()


class MLflow(Sink):
    """Runs of an MLflow experiment at a tracking server, or wherever else MLflow keeps runs.

    Errors: `MissingExtra`; `InvalidInput` where MLflow refuses the place.
    """

    def __init__(self, where: str, experiment: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise MissingExtra(_hint("MLflow", "mlflow")) from None
        try:
            self.client: Any = MlflowClient(tracking_uri=where)
            known = self.client.get_experiment_by_name(experiment)
            self.experiment = known.experiment_id if known else self.client.create_experiment(experiment)
        except MlflowException as error:
            raise InvalidInput(f"MLflow should take runs at {where}. Found: {error}") from None

    def write(self, run: Run, outcome: Outcome) -> None:
        from mlflow.entities import Metric, Param, RunTag

        query = f"tags.byzopt = '{run.id}' and attributes.status = 'FINISHED'"
        if self.client.search_runs([self.experiment], query):
            return
        one = self.client.create_run(self.experiment, tags={"byzopt": run.id, "mlflow.runName": run.id})
        metrics = [
            Metric(key, value, 0, int(record["t"]))
            for record in outcome.records
            for key, value in record.items()
            if key != "t" and isfinite(value)
        ]
        params = [Param(key, value[:500]) for key, value in _settings(run).items()]
        name = one.info.run_id
        self.client.log_batch(name, params=params, tags=[RunTag("status", str(outcome.status))])
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(name, metrics=metrics[start : start + 1000])
        self.client.set_terminated(name)


def _settings(run: Run) -> dict[str, str]:
    return {key: value_text(value) for key, value in run.spec.data.items()}


def _hint(what: str, extra: str) -> str:
    return f'The {what} sink needs a package that is not installed. Run: pip install "byzopt[{extra}]"'
