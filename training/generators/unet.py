"""The pix2pix U-Net (Isola et al., CVPR 2017, appendix 6.1.1), and its variants in the literature.

Stride-2 4x4 convolutions down, transposed ones up, a skip at each level; widths double up to eight times ``width``.
The defaults give the paper's network without dropout, and ``norm_ends`` that of the 2048x4096 report.
``full_resolution`` with ``norm_ends``, ``depth`` 7 and ``dropout`` 0.5 gives that of Nazeri et al. (AMDO 2018, section
3.1).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_WIDEST = 8  # largest width, as a multiple of the first
_DROPPED = 3  # innermost levels with dropout, as in both papers


class _Level(nn.Module):
    """One level and everything below it: down, the inner level, up, and the skip around them."""

    def __init__(self, outer: int, inner: int, below: nn.Module | None, norm: bool, dropout: float) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
        if norm:
            down.append(nn.BatchNorm2d(inner))
        self.down = nn.Sequential(*down)
        self.below = below
        rising = inner if below is None else inner * 2
        self.up = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(rising, outer, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.down(x)
        if self.below is not None:
            inner = self.below(inner)
        return torch.cat([x, self.up(inner)], dim=1)


class Generator(nn.Module):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 2**depth.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated
    outputs : 2 (a*, b*) or 3 (RGB)
    width : channels after the first convolution; 64 in the papers
    depth : number of stride-2 levels; 8 in the paper for 256 px
    norm_ends : batch norm also after the first and the innermost convolution. The innermost map must then have more
        than one value per channel in training: two pictures, or more than 2**depth pixels.
    full_resolution : adds a stride-1 3x3 convolution first, its skip, and a 1x1 convolution last, so that the output
        is made from a layer at full resolution
    dropout : share of values dropped in training, in the three innermost levels on the way up
    """

    def __init__(
        self,
        inputs: int = 1,
        outputs: int = 2,
        width: int = 64,
        depth: int = 8,
        norm_ends: bool = False,
        full_resolution: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.size_multiple = 2**depth
        widths = [width * min(2**i, _WIDEST) for i in range(depth)]
        if full_resolution:
            widths = [width, *widths]
        levels = list(pairwise(widths))
        body: nn.Module | None = None
        for height, (outer, inner) in enumerate(reversed(levels)):
            body = _Level(outer, inner, body, norm_ends or height > 0, dropout if height < _DROPPED else 0.0)
        first = nn.Conv2d(inputs, width, 3, 1, 1) if full_resolution else nn.Conv2d(inputs, width, 4, 2, 1)
        self.first = nn.Sequential(first, nn.BatchNorm2d(width)) if norm_ends else first
        self.body = nn.Identity() if body is None else body
        rising = width if body is None else width * 2
        last = nn.Conv2d(rising, outputs, 1) if full_resolution else nn.ConvTranspose2d(rising, outputs, 4, 2, 1)
        self.last = nn.Sequential(nn.ReLU(), last, nn.Tanh())

    def forward(self, lightness: Tensor) -> Tensor:
        return self.last(self.body(self.first(lightness)))
