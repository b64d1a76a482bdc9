"""One table of layers: every contract of the factored layer runs over each row."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledConv(nn.Conv2d):
    """A layer with a forward of its own, as weight standardisation has."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight / self.weight.norm()
        return F.conv2d(F.pad(input, (0, 1, 0, 1)), weight, self.bias, self.stride)


class SameConv(nn.Conv2d):
    """Padding that depends on the input, as timm's Conv2dSame."""

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = ((-side) % 2 + 1 for side in input.shape[-2:])
        padded = F.pad(input, (0, columns, 0, rows))
        return F.conv2d(padded, self.weight, self.bias, 2, 0, self.dilation, self.groups)


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    input: tuple[int, ...]


CASES: dict[str, Case] = {
    "conv1d": Case(lambda: nn.Conv1d(6, 4, 3, padding=1), (2, 6, 9)),
    "conv2d": Case(lambda: nn.Conv2d(6, 8, 3, padding=1), (2, 6, 7, 8)),
    "conv2d no bias": Case(lambda: nn.Conv2d(6, 8, 3, bias=False), (2, 6, 7, 8)),
    "conv2d 1x1": Case(lambda: nn.Conv2d(6, 8, 1), (2, 6, 5, 5)),
    "conv2d stem": Case(lambda: nn.Conv2d(3, 64, 3, stride=2, padding=1), (2, 3, 9, 9)),
    "conv2d to 2": Case(lambda: nn.Conv2d(64, 2, 1), (2, 64, 5, 5)),
    "conv2d to 1": Case(lambda: nn.Conv2d(5, 1, 3), (2, 5, 5, 5)),
    "conv2d from 1": Case(lambda: nn.Conv2d(1, 5, 3), (2, 1, 5, 5)),
    "conv2d 1x7": Case(lambda: nn.Conv2d(6, 5, (1, 7), padding=(0, 3)), (2, 6, 8, 8)),
    "conv2d 7x1": Case(lambda: nn.Conv2d(6, 5, (7, 1), padding=(3, 0)), (2, 6, 8, 8)),
    "conv2d dilated": Case(lambda: nn.Conv2d(4, 6, 3, stride=2, dilation=2), (2, 4, 11, 11)),
    "conv2d same": Case(lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (2, 4, 8, 8)),
    "conv2d reflect": Case(
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)
    ),
    "conv2d circular": Case(
        lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"), (2, 4, 6, 6)
    ),
    "conv2d replicate same": Case(
        lambda: nn.Conv2d(4, 6, 5, padding="same", padding_mode="replicate"), (2, 4, 6, 6)
    ),
    "conv2d grouped": Case(lambda: nn.Conv2d(8, 12, 3, groups=4, padding=1), (2, 8, 6, 6)),
    "conv2d grouped narrow": Case(lambda: nn.Conv2d(12, 6, 1, groups=3), (2, 12, 6, 6)),
    "conv2d depthwise": Case(lambda: nn.Conv2d(6, 6, 3, groups=6, padding=1), (2, 6, 6, 6)),
    "conv2d depthwise x2": Case(lambda: nn.Conv2d(6, 12, 3, groups=6), (2, 6, 6, 6)),
    "conv3d": Case(lambda: nn.Conv3d(3, 5, (1, 3, 3), padding=(0, 1, 1)), (1, 3, 3, 5, 5)),
    "transpose1d": Case(lambda: nn.ConvTranspose1d(6, 4, 4, stride=2), (2, 6, 5)),
    "transpose2d": Case(
        lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (2, 6, 5, 5)
    ),
    "transpose2d grouped": Case(
        lambda: nn.ConvTranspose2d(6, 4, 3, groups=2, dilation=2), (2, 6, 5, 5)
    ),
    "transpose3d": Case(lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 3, 3)),
    "linear": Case(lambda: nn.Linear(6, 9), (3, 6)),
    "linear no bias": Case(lambda: nn.Linear(9, 6, bias=False), (2, 3, 9)),
    "linear to 1": Case(lambda: nn.Linear(7, 1), (3, 7)),
    "own forward": Case(lambda: ScaledConv(4, 6, 3), (2, 4, 6, 6)),
    "dynamic padding": Case(lambda: SameConv(4, 6, 3, groups=2), (2, 4, 7, 6)),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A layer of the table and an input for it, seeded."""
    torch.manual_seed(0)
    case = CASES[name]
    return case.build().to(dtype), torch.randn(case.input).to(dtype)


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Euclidean norm."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())
