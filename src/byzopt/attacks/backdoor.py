"""A backdoor: a trigger in the picture for which the model is to answer what the attacker wants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import InvalidInput, require
from byzopt.rng import stream


@ATTACKS.register("backdoor")
@dataclass(frozen=True)
class Backdoor(Attack):
    """scale v_j, v_j honest on data of which a `share` has a trigger and the label `target`.

    The trigger is a square of `size` x `size` pixels in the lower right corner, as bright as the brightest
    value among the worker's samples. Which samples get it is drawn from the stream of `seed`. `scale` makes
    the message stand for the aggregate (model replacement); None is n/b, for which the plain mean becomes
    the Byzantine workers' mean plus the honest sum over n. The poisoned task measures `backdoor_success`:
    the share of test images of other classes which, with the trigger, are taken for `target`.

    Images may be flat or `[..., side, side]`. Errors: a task without images and labels, images that are not
    square or smaller than the trigger, a target that is no class. Source: Bagdasaryan et al., AISTATS 2020
    (model replacement), on gradients rather than models; Gu et al., arXiv:1708.06733 (the pixel trigger).

    Args:
        target: Label that images with the trigger get.
        size: Side of the trigger, in pixels.
        share: Share of a Byzantine worker's samples that get the trigger, in (0, 1].
        scale: Factor of the message; None: n/b.
        seed: Decides which samples get the trigger.

    Raises:
        InvalidInput: A task without images and labels, images that are not square or are smaller than the
            trigger, a target that is no class.

    Examples:
        >>> from byzopt import Backdoor, Cohort, Digits, simulate
        >>> task = Digits(model="linear", batch=8).build(Cohort.of(4, 1), seed=0)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=2, f=1, attack=Backdoor(target=7))
        >>> "backdoor_success" in outcome.metrics
        True
    """

    target: int = 0
    size: int = 2
    share: float = 0.5
    scale: float | None = None
    seed: int = 0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def __post_init__(self) -> None:
        require(self.target >= 0, f"Parameter `target` of {self.name}", "be at least 0", self.target)
        require(self.size >= 1, f"Parameter `size` of {self.name}", "be at least 1 pixel", self.size)
        require(0 < self.share <= 1, f"Parameter `share` of {self.name}", "lie in (0, 1]", self.share)

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return task.poisoned(workers, self.infect, "backdoor_success", self.goal)

    def infect(
        self, images: Tensor, labels: Tensor, classes: int, piece: Iterable[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """A share of the images (at least one) with trigger and target label, the others as they are."""
        require(self.target < classes, f"The target of {self.name}", f"lie in 0..{classes - 1}", self.target)
        m = len(labels)
        order = torch.randperm(m, generator=stream(self.seed, "backdoor", m), device="cpu")
        chosen = order[: ceil(self.share * m)].to(labels.device)
        triggered = self.triggered(images, piece)[chosen]
        return images.index_copy(0, chosen, triggered), labels.index_fill(0, chosen, self.target)

    def goal(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The images of other classes with the trigger, and what the attacker wants them taken for."""
        others = labels != self.target
        require(bool(others.any()), "The test images", "show more than the target", "no other class")
        return self.triggered(images)[others], torch.full_like(labels[others], self.target)

    def triggered(self, images: Tensor, piece: Iterable[int] | None = None) -> Tensor:
        """All `images` `[m, side * side]` or `[m, ..., side, side]` with the trigger, or with those of its
        pixels, counted row by row, that `piece` names."""
        shape = images.shape[1:]
        side = shape[-1] if len(shape) > 1 else isqrt(shape.numel())
        square = images.is_floating_point() and shape[-2:] in ((side, side), (side**2,))
        if not square:
            self._refuse(tuple(shape), images.dtype)
        fits, what = self.size <= side, f"Parameter `size` of {self.name}"
        require(fits, what, f"be at most the side {side} of an image", self.size)
        marked = images.reshape(len(images), -1, side, side).clone()
        for pixel in range(self.size**2) if piece is None else piece:
            row, column = divmod(pixel, self.size)
            marked[..., row - self.size, column - self.size] = images.max()
        return marked.reshape(images.shape)

    def _refuse(self, shape: tuple[int, ...], dtype: torch.dtype) -> NoReturn:
        """Say what these samples are in place of square images, and what to do."""
        found, remedy = (
            f"samples of shape {list(shape)}, {dtype}".replace("torch.", ""),
            "Use another attack.",
        )
        if not dtype.is_floating_point:
            remedy = "Convert them to floating values."
        elif len(shape) == 1:
            colours = next((c for c in (2, 3, 4) if isqrt(shape[0] // c) ** 2 * c == shape[0]), 0)
            if colours:
                side = isqrt(shape[0] // colours)
                found = f"{shape[0]} values in a row, as of {colours} x {side} x {side} pixels laid flat"
                remedy = (
                    "Where its colours are is lost there: give images as they are, to a model that takes "
                    "them, as resnet20, or in one grey."
                )
            else:
                found = f"{shape[0]} values in a row, which is no side x side"
        elif len(shape) > 1:
            remedy = "Cut the images to squares."
        rule = "be square images of floating values, [..., side, side], or grey ones laid flat"
        raise InvalidInput(f"The samples of {self.name} should {rule}. Found {found}. {remedy}")

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return (view.cohort.n / view.b if self.scale is None else self.scale) * view.own
