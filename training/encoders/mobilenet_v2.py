"""MobileNetV2, with torchvision's layer names.

References
----------
Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
Weights: https://download.pytorch.org/models/mobilenet_v2-b0353104.pth
"""

from __future__ import annotations

from torch import Tensor, nn

from training.published_encoder import PublishedEncoder

# expansion, channels, repeats, stride: table 2 of the paper.
_SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
_TAPS = {1: 16, 3: 24, 6: 32, 13: 96, 17: 320}  # index of the last layer at strides 2, 4, 8, 16, 32 -> its channels


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


class Encoder(PublishedEncoder):
    """(N, 3, H, W) normalized picture to five maps of 16, 24, 32, 96, 320 channels at strides 2, 4, 8, 16, 32.

    The published 1280-channel layer and the classifier after it are left out.
    """

    def __init__(self) -> None:
        super().__init__(tuple(_TAPS.values()), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        layers: list[nn.Module] = [nn.Sequential(*_conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, outputs, repeats, stride in _SETTINGS:
            for i in range(repeats):
                layers.append(_InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> list[Tensor]:
        return self.maps_of(picture, self.features, _TAPS)
