"""ResNet-18, ResNet-20 and VGG-11, started from a seed of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional

from byzopt.errors import require
from byzopt.rng import seed_of
from byzopt.tasks.grads import lent_rng

Norm: TypeAlias = Literal["group", "batch"]
GROUP = 16  # channels of a group, the best of Table 3 of arXiv:1803.08494
LARGE = 128  # side of images from which on ResNet-18 begins as it does for ImageNet


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """Group norm with 16 channels a group (Wu, He, arXiv:1803.08494), or batch norm; equal parameters."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels // GROUP, channels)


class Residual(nn.Module):
    """relu(x + F(x)), F two 3 x 3 convolutions with norms (He et al., arXiv:1512.03385, Figure 2).

    Where the shape changes, the shortcut is a 1 x 1 convolution with a norm (`projects`, option B of
    Section 3.3), or every other pixel and channels of zeros (option A), which has no parameters.
    """

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm, projects: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            normalisation(norm, outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            normalisation(norm, outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside < outside:
            around = nn.Conv2d(inside, outside, 1, stride, bias=False), normalisation(norm, outside)
            self.shortcut = nn.Sequential(*around) if projects else ZeroPadded(outside - inside, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class ZeroPadded(nn.Module):
    """Every `stride`-th pixel, and so many more channels, all zero."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


def resnet18(shape: tuple[int, ...], classes: int, norm: Norm, seed: int) -> nn.Sequential:
    """ResNet-18 (Table 1 of arXiv:1512.03385) for images `[channels, side, side]`.

    From side 128 on it begins as printed, with a 7 x 7 convolution of stride 2 and a maximum over 3 x 3:
    11,689,512 parameters for 3 channels and 1,000 classes. Smaller images get one 3 x 3 convolution in place
    of these two, as is usual: 11,173,962 for 3 channels and 10 classes.
    """
    channels, large = shape[0], min(shape[1:]) >= LARGE
    kernel = (7, 2, 3) if large else (3, 1, 1)

    def layers() -> list[nn.Module]:
        first = nn.Conv2d(channels, 64, *kernel, bias=False)
        made: list[nn.Module] = [first, normalisation(norm, 64), nn.ReLU()]
        made += [nn.MaxPool2d(3, 2, 1)] if large else []
        inside = 64
        for width in (64, 128, 256, 512):
            stride = 1 if width == 64 else 2
            made += [Residual(inside, width, stride, norm, True), Residual(width, width, 1, norm, True)]
            inside = width
        return [*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]

    return _started("resnet18", layers, seed)


def resnet20(shape: tuple[int, ...], classes: int, norm: Norm, seed: int) -> nn.Sequential:
    """ResNet-20 for small images `[channels, side, side]` (Section 4.2 of arXiv:1512.03385, n = 3, option A).

    269,722 parameters for 3 channels and 10 classes (0.27 million in Table 6).
    """

    def layers() -> list[nn.Module]:
        first = nn.Conv2d(shape[0], 16, 3, 1, 1, bias=False)
        made: list[nn.Module] = [first, normalisation(norm, 16), nn.ReLU()]
        inside = 16
        for width in (16, 32, 64):
            for block in range(3):
                stride = 2 if block == 0 and width > 16 else 1
                made.append(Residual(inside, width, stride, norm, False))
                inside = width
        return [*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]

    return _started("resnet20", layers, seed)


def vgg11(shape: tuple[int, ...], classes: int, norm: Norm, seed: int) -> nn.Sequential:
    """VGG-11, configuration A of arXiv:1409.1556, with norms, and one linear layer behind its convolutions.

    Images `[channels, side, side]` of side 32 at least. The convolutions have 9,220,480 parameters for 3
    channels, with norms and 10 classes 9,231,114; the paper's three linear layers, made for 7 x 7 pixels that
    small images do not leave, would be 124 million more.
    """
    require(
        min(shape[1:]) >= 32, "Images for vgg11", "have side 32 at least", list(shape[1:]), "Use a ResNet."
    )

    def layers() -> list[nn.Module]:
        made: list[nn.Module] = []
        inside = shape[0]
        for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
            if not width:
                made.append(nn.MaxPool2d(2))
                continue
            made += [nn.Conv2d(inside, width, 3, 1, 1), normalisation(norm, width), nn.ReLU()]
            inside = width
        return [*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]

    return _started("vgg11", layers, seed)


def _started(name: str, layers: Callable[[], list[nn.Module]], seed: int) -> nn.Sequential:
    """A network with He's normal weights of its convolutions (arXiv:1502.01852), and biases of 0 there."""
    with lent_rng(seed_of(seed, "model", name)):
        network = nn.Sequential(*layers())
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return network


NETWORKS = {"resnet18": resnet18, "resnet20": resnet20, "vgg11": vgg11}
