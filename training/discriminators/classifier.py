"""An ordinary convolutional classifier: real or generated, one answer a picture (Radford et al., DCGAN, ICLR 2016)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_WIDEST = 512


class Discriminator(nn.Module):
    """(N, inputs, H, W) lightness and colour in [-1, 1], of any size, to (N, 1, 1, 1) logits.

    The sigmoid is part of the losses. The last map is averaged over the picture, so that one network judges crops of
    every size.

    Parameters
    ----------
    inputs : channels of lightness and colour together: 3 with a*, b*, 4 or 6 with RGB
    layers : stride-2 4x4 convolutions; H and W are at least 2**layers
    width : channels after the first convolution; they double with each layer up to 512
    batch_norm : after every convolution but the first
    """

    def __init__(self, inputs: int = 3, layers: int = 4, width: int = 64, batch_norm: bool = True) -> None:
        super().__init__()
        widths = [min(width * 2**index, _WIDEST) for index in range(layers)]
        modules: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for before, after in pairwise(widths):
            modules.append(nn.Conv2d(before, after, 4, 2, 1, bias=not batch_norm))
            if batch_norm:
                modules.append(nn.BatchNorm2d(after))
            modules.append(nn.LeakyReLU(0.2, inplace=True))
        # A 1x1 convolution of a 1x1 map is the linear layer, with logits in the form that patches have.
        self.layers = nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Conv2d(widths[-1], 1, 1))

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)
