"""The pix2pix U-Net (Isola et al., CVPR 2017, appendix 6.1.1), with batch norm and no dropout.

Stride-2 4x4 convolutions down, transposed ones up, a skip at each level; widths double up to eight times ``width``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class _Level(nn.Module):
    """One level and everything below it: down, the inner level, up, and the skip around them."""

    def __init__(self, outer: int, inner: int, below: nn.Module | None) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
        if below is not None:
            down.append(nn.BatchNorm2d(inner))
        self.down = nn.Sequential(*down)
        self.below = below
        rising = inner if below is None else inner * 2
        self.up = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(rising, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.down(x)
        if self.below is not None:
            inner = self.below(inner)
        return torch.cat([x, self.up(inner)], dim=1)


class Generator(nn.Module):
    """(N, 1, H, W) lightness scaled to [-1, 1] to (N, 2, H, W) a*, b* scaled to [-1, 1]; H, W multiples of 2**depth.

    Parameters
    ----------
    width : channels after the first convolution; 64 in the paper
    depth : number of stride-2 levels; 8 in the paper for 256 px
    inputs, outputs : channels in and out
    """

    def __init__(self, width: int = 64, depth: int = 8, inputs: int = 1, outputs: int = 2) -> None:
        super().__init__()
        self.size_multiple = 2**depth
        widths = [width * min(2**i, 8) for i in range(depth)]
        below: nn.Module | None = None
        for outer, inner in reversed(list(pairwise(widths))):
            below = _Level(outer, inner, below)
        self.first = nn.Conv2d(inputs, width, 4, 2, 1)
        self.body = below
        rising = width if below is None else width * 2
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(rising, outputs, 4, 2, 1), nn.Tanh())

    def forward(self, lightness: Tensor) -> Tensor:
        x = self.first(lightness)
        return self.last(x if self.body is None else self.body(x))
