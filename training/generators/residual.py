"""Residual blocks at full resolution, without down- or upsampling.

The network keeps every edge, but sees only 2 * blocks + 2 pixels to each side: too little to recognize objects, so with
a pixel loss its safest answer is gray. It is included because this collapse has excellent MSE and SSIM, and so shows
what these two figures miss.

References
----------
He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the form of the block is that of Ledig et al.,
Photo-Realistic Single Image Super-Resolution Using a GAN, CVPR 2017, section 2.1.1.
"""

from __future__ import annotations

from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1], of any size.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated
    outputs : 2 (a*, b*) or 3 (RGB)
    width : channels of every block
    blocks : number of blocks of two 3x3 convolutions each
    """

    size_multiple = 1

    def __init__(self, inputs: int = 1, outputs: int = 2, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.last = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1), nn.Tanh())

    def forward(self, lightness: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(lightness)))
