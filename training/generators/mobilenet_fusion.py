"""Local features of a small encoder, fused with a pretrained MobileNet's description of the whole picture.

Five convolutions give local features; MobileNetV2's deepest map, averaged over the picture, describes the whole
picture. The fusion layer appends that one vector to the local features of every pixel, and the decoder turns both into
colour (Iizuka et al., Let there be Color!, SIGGRAPH 2016). MobileNet replaces their own classification network: its
second version (Sandler et al., CVPR 2018), which has published weights, or its first (Howard et al. 2017) with a width
multiplier. Here the whole picture is a tile: each tile of a scan has its own vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.encoders import mobilenet_v1, mobilenet_v2
from training.published_encoder import PublishedEncoder


def _conv(inputs: int, outputs: int, activation: nn.Module, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    # With torch's default, the signal fades over ten layers of ReLU, and there is no batch norm to restore it.
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, activation]


def _upsampled(inputs: int, outputs: int) -> list[nn.Module]:
    return [*_conv(inputs, outputs, nn.ReLU(inplace=True)), nn.Upsample(scale_factor=2, mode="nearest")]


def _mobilenet(version: int, multiplier: float) -> PublishedEncoder:
    if version == 1:
        return mobilenet_v1.Encoder(multiplier)
    if version != 2 or multiplier != 1:
        raise ValueError(
            f"MobileNet version {version} with multiplier {multiplier}: there are version 1, and 2 with multiplier 1"
        )
    return mobilenet_v2.Encoder()


class Generator(nn.Module):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 8.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated
    outputs : 2 (a*, b*) or 3 (RGB)
    width : channels of the first local layer; the five layers have 1, 2, 2, 4 and 4 times this width
    version : version of MobileNet, 1 or 2
    multiplier : factor of the widths, for version 1 only

    Raises
    ------
    ValueError : unknown version, or a multiplier for version 2.
    """

    size_multiple = 8

    def __init__(
        self, inputs: int = 1, outputs: int = 2, width: int = 64, version: int = 2, multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = _mobilenet(version, multiplier)
        deep = 4 * width
        self.local = nn.Sequential(
            *_conv(inputs, width, nn.LeakyReLU(0.2, inplace=True), stride=2),
            *_conv(width, 2 * width, nn.ReLU(inplace=True)),
            *_conv(2 * width, 2 * width, nn.LeakyReLU(0.2, inplace=True), stride=2),
            *_conv(2 * width, deep, nn.ReLU(inplace=True)),
            *_conv(deep, deep, nn.LeakyReLU(0.2, inplace=True), stride=2),
        )
        self.fusion = nn.Sequential(*_conv(deep + self.encoder.channels[-1], deep, nn.ReLU(inplace=True), kernel=1))
        self.decoder = nn.Sequential(
            *_upsampled(deep, 2 * width),
            *_upsampled(2 * width, width),
            *_upsampled(width, width // 2),
            nn.Conv2d(width // 2, outputs, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, lightness: Tensor) -> Tensor:
        local = self.local(lightness)
        deepest = self.encoder(self.encoder.normalized(lightness))[-1]
        everywhere = deepest.mean((2, 3), keepdim=True).expand(-1, -1, local.shape[2], local.shape[3])
        return self.decoder(self.fusion(torch.cat([local, everywhere], dim=1)))
