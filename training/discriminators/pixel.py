"""PixelGAN: judges the colour of each pixel by itself (Isola et al., CVPR 2017, section 3.2.2 and appendix 6.1.2)."""

from __future__ import annotations

from torch import Tensor, nn


class Discriminator(nn.Module):
    """(N, inputs, H, W) lightness and colour in [-1, 1] to (N, 1, H, W) logits; the sigmoid is part of the losses.

    Parameters
    ----------
    inputs : channels of lightness and colour together: 3 with a*, b*, 4 or 6 with RGB
    width : channels after the first 1x1 convolution; the second has twice as many
    batch_norm : after the second convolution
    """

    def __init__(self, inputs: int = 3, width: int = 64, batch_norm: bool = True) -> None:
        super().__init__()
        second = 2 * width
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, second, 1, bias=not batch_norm),
            nn.BatchNorm2d(second) if batch_norm else nn.Identity(),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(second, 1, 1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)
