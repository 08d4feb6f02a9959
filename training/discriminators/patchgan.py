"""PatchGAN: a convolutional discriminator that judges overlapping patches (Isola et al., CVPR 2017, section 3.2.2)."""

from __future__ import annotations

from torch import Tensor, nn

_WIDEST = 512


class Discriminator(nn.Module):
    """(N, inputs, H, W) lightness and colour in [-1, 1] to (N, 1, h, w) logits, one a patch.

    The papers end the network with a sigmoid. Here it is part of the losses, which keeps them exact far from 0.

    Parameters
    ----------
    inputs : channels of lightness and colour together: 3 with a*, b*, 4 or 6 with RGB
    layers : stride-2 4x4 convolutions, at least 1; two stride-1 4x4 convolutions follow. 3 is the usual 70-px patch; 6
        gives 30x62 on 2048x4096. H and W are at least 3 * 2**layers.
    width : channels after the first convolution; they double with each layer up to 512
    batch_norm : after every convolution but the first and the last
    norm_ends : with ``batch_norm``, also after the first convolution, as in the 2048x4096 report
    """

    def __init__(
        self, inputs: int = 3, layers: int = 3, width: int = 64, batch_norm: bool = True, norm_ends: bool = False
    ) -> None:
        super().__init__()
        first_norm = batch_norm and norm_ends
        modules: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1, bias=not first_norm)]
        if first_norm:
            modules.append(nn.BatchNorm2d(width))
        modules.append(nn.LeakyReLU(0.2, inplace=True))
        channels = width
        for index in range(1, layers + 1):
            outputs = min(width * 2**index, _WIDEST)
            stride = 2 if index < layers else 1
            modules.append(nn.Conv2d(channels, outputs, 4, stride, 1, bias=not batch_norm))
            if batch_norm:
                modules.append(nn.BatchNorm2d(outputs))
            modules.append(nn.LeakyReLU(0.2, inplace=True))
            channels = outputs
        modules.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.layers = nn.Sequential(*modules)

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)
