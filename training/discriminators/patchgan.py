"""PatchGAN: a convolutional discriminator that judges overlapping patches (Isola et al., CVPR 2017, section 3.2.2)."""

from __future__ import annotations

from torch import Tensor, nn

_WIDEST = 512


class Discriminator(nn.Module):
    """(N, 3, H, W) lightness and chroma in [-1, 1] to (N, 1, h, w) logits, one a patch.

    Parameters
    ----------
    layers : stride-2 4x4 convolutions; two stride-1 4x4 convolutions follow. 3 is the usual 70-px patch; 6 gives 30x62
        on 2048x4096.
    width : channels after the first convolution
    inputs : channels in
    """

    def __init__(self, layers: int = 3, width: int = 64, inputs: int = 3) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for index in range(1, layers + 1):
            outputs = min(width * 2**index, _WIDEST)
            stride = 2 if index < layers else 1
            modules.append(nn.Conv2d(channels, outputs, 4, stride, 1, bias=False))
            modules += [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
            channels = outputs
        modules.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.layers = nn.Sequential(*modules)

    def forward(self, lab: Tensor) -> Tensor:
        return self.layers(lab)
