"""A symmetric encoder-decoder with skips, whose deepest maps pass through dilated convolutions.

At the bottom, convolutions with taps 2, 4, 8 and 16 pixels apart have a wide receptive field without shrinking the map
any further (Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016). Skips and dilation can
each be switched off, so that their contributions can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Generator(nn.Module):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 2**depth.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated
    outputs : 2 (a*, b*) or 3 (RGB)
    width : channels at full resolution; they double with each level
    depth : number of stride-2 levels
    dilations : dilations of the consecutive 3x3 convolutions at the bottom
    dilated : False sets all dilations to 1: the same layers and weights, without the wide field
    skips : False removes the skips: the decoder then sees the picture only through the bottom
    """

    def __init__(
        self,
        inputs: int = 1,
        outputs: int = 2,
        width: int = 32,
        depth: int = 3,
        dilations: Sequence[int] = (2, 4, 8, 16),
        dilated: bool = True,
        skips: bool = True,
    ) -> None:
        super().__init__()
        self.size_multiple = 2**depth
        self.skips = skips
        widths = [width * 2**level for level in range(depth + 1)]
        self.enter = nn.Sequential(*_conv(inputs, width))
        self.downs = nn.ModuleList(_down(outer, inner) for outer, inner in pairwise(widths))
        bottom = [_conv(widths[-1], widths[-1], dilation if dilated else 1) for dilation in dilations]
        self.context = nn.Sequential(*(layer for layers in bottom for layer in layers))
        rising = list(reversed(widths))
        self.ups = nn.ModuleList(_up(inner, outer) for inner, outer in pairwise(rising))
        self.merges = nn.ModuleList(nn.Sequential(*_conv(outer * 2 if skips else outer, outer)) for outer in rising[1:])
        self.last = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1), nn.Tanh())

    def forward(self, lightness: Tensor) -> Tensor:
        x = self.enter(lightness)
        passed = []
        for down in self.downs:
            passed.append(x)
            x = down(x)
        x = self.context(x)
        for up, merge, skip in zip(self.ups, self.merges, reversed(passed), strict=True):
            x = up(x)
            x = merge(torch.cat([x, skip], dim=1) if self.skips else x)
        return self.last(x)
