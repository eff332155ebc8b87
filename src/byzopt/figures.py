"""Figures that are fractions, and what is said where somebody gives one in percent."""

from __future__ import annotations

__all__ = ["in_percent"]


def in_percent(name: str, value: float) -> str:
    """What is wrong with `value` as a value of the figure `name`; empty where nothing is.

    Accuracies lie in [0, 1], on the test set, the validation set and each worker's own data; tables and plots
    show them in percent.
    """
    figure = name.removeprefix("validation_").partition("_worker_")[0]
    if figure != "accuracy" or 0 <= value <= 1:
        return ""
    meant = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else "."
    return f"{name} is a fraction in [0, 1]{meant}"
