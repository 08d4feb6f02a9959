"""A classifier of convolution, batch norm, max-pool, dropout in sequence and a linear layer: one answer a picture.

The layers are the usual ones of VGG (Simonyan and Zisserman, ICLR 2015) with batch norm (Ioffe and Szegedy, ICML 2015)
and dropout (Srivastava et al., JMLR 2014).
"""

from __future__ import annotations

from torch import Tensor, nn


class Discriminator(nn.Module):
    """(N, inputs, H, W) lightness and colour in [-1, 1] to (N, 1, 1, 1) logits; H and W are at least 2**layers.

    The sigmoid is part of the losses. The linear layer needs a fixed size: the last map is averaged down to
    ``grid`` x ``grid``, which changes nothing for a picture of ``grid * 2**layers`` px (64 with the defaults).

    Parameters
    ----------
    inputs : channels of lightness and colour together: 3 with a*, b*, 4 or 6 with RGB
    layers : 3x3 convolutions, each followed by a halving
    width : channels after the first convolution; they double with each layer
    dropout : share of channels that training leaves out after each layer
    grid : rows and columns that the linear layer sees
    """

    def __init__(self, inputs: int = 3, layers: int = 4, width: int = 32, dropout: float = 0.25, grid: int = 4) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        channels = inputs
        for index in range(layers):
            outputs = width * 2**index
            modules += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            modules += [nn.LeakyReLU(0.2, inplace=True), nn.MaxPool2d(2), nn.Dropout2d(dropout)]
            channels = outputs
        modules += [nn.AdaptiveAvgPool2d(grid), nn.Flatten(), nn.Linear(channels * grid**2, 1)]
        self.layers = nn.Sequential(*modules, nn.Unflatten(1, (1, 1, 1)))

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)
