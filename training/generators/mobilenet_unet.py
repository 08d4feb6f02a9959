"""U-Net on an ImageNet-pretrained MobileNetV2 encoder: the shipped default.

The decoder ends at half resolution and a bilinear step brings chroma to full size: sight resolves chroma far more
coarsely than lightness (the reason for 4:2:0 video), and full-resolution layers would cost half of the time.

References
----------
Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
Ronneberger et al., U-Net, MICCAI 2015.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE_MULTIPLE = 32
# expansion, channels, repeats, stride: table 2 of the paper. Names below follow torchvision's published weights.
_SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
_TAPS = {1: 16, 3: 24, 6: 32, 13: 96, 17: 320}  # index of the last layer at strides 2, 4, 8, 16, 32 -> its channels
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*_conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)))
        layers.append(nn.Sequential(*_conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True)))
        layers += _conv_bn(hidden, outputs, 1)
        self.conv = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2Encoder(nn.Module):
    """(N, 3, H, W) ImageNet-normalized input to five feature maps at strides 2, 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, outputs, repeats, stride in _SETTINGS:
            for i in range(repeats):
                layers.append(_InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS:
                maps.append(x)
        return maps

    def load_pretrained(self, path: Path) -> None:
        """Load torchvision's published MobileNetV2 state dict; its 1280-channel head and classifier are left out."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        wanted = self.state_dict()
        self.load_state_dict({name: state[name] for name in wanted})


class _Up(nn.Module):
    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = nn.Sequential(*_conv_bn(inputs + skip, outputs, 3), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(*_conv_bn(outputs, outputs, 3), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.merge(torch.cat([self.up(x), skip], dim=1)))


class Generator(nn.Module):
    """(N, 1, H, W) lightness scaled to [-1, 1] to (N, 2, H, W) a*, b* scaled to [-1, 1]; H, W multiples of 32.

    Parameters
    ----------
    widths : decoder channels at strides 16, 8, 4, 2
    margin_px : in evaluation, the picture is reflected out by so much on each side and the result cropped back: zero
        padding inside the network otherwise paints bars of about 8 px along the edges of every tile
    """

    def __init__(self, widths: tuple[int, int, int, int] = (192, 128, 96, 64), margin_px: int = 16) -> None:
        super().__init__()
        self.margin_px = margin_px
        self.encoder = MobileNetV2Encoder()
        skips = list(_TAPS.values())
        inputs = skips[-1]
        ups = []
        for skip, width in zip(reversed(skips[:-1]), widths, strict=True):
            ups.append(_Up(inputs, skip, width))
            inputs = width
        self.ups = nn.ModuleList(ups)
        self.head = nn.Conv2d(inputs, 2, 3, padding=1)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, lightness: Tensor) -> Tensor:
        if self.training or self.margin_px == 0:
            return self._predict(lightness)
        margin = self.margin_px
        grown = functional.pad(lightness, (margin, margin, margin, margin), mode="reflect")
        return self._predict(grown)[:, :, margin:-margin, margin:-margin]

    def _predict(self, lightness: Tensor) -> Tensor:
        rgb = (lightness * 0.5 + 0.5).expand(-1, 3, -1, -1)
        maps = self.encoder((rgb - self.mean) / self.std)
        x = maps[-1]
        for up, skip in zip(self.ups, reversed(maps[:-1]), strict=True):
            x = up(x, skip)
        return self.grow(torch.tanh(self.head(x)))
