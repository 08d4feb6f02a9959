"""ResNet-18, loaded from torchvision's published weights.

References
----------
He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1.
Weights: https://download.pytorch.org/models/resnet18-f37072fd.pth
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from training.published_encoder import PublishedEncoder

_WIDTHS = (64, 128, 256, 512)
_BLOCKS = 2  # in each stage


class _Block(nn.Module):
    """Two 3x3 convolutions, plus the input; a 1x1 convolution adapts the input if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.downsample(x))


class Encoder(PublishedEncoder):
    """(N, 3, H, W) normalized picture to five maps of 64, 64, 128, 256, 512 channels at strides 2, 4, 8, 16, 32."""

    PUBLISHED: ClassVar[dict[str, str]] = {
        ".stem.0.": ".conv1.",
        ".stem.1.": ".bn1.",
        ".first.0.": ".conv1.",
        ".first.1.": ".bn1.",
        ".second.0.": ".conv2.",
        ".second.1.": ".bn2.",
    }

    def __init__(self) -> None:
        super().__init__((_WIDTHS[0], *_WIDTHS), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        inputs = _WIDTHS[0]
        self.stem = nn.Sequential(nn.Conv2d(3, inputs, 7, 2, 3, bias=False), nn.BatchNorm2d(inputs), nn.ReLU())
        self.shrink = nn.MaxPool2d(3, 2, 1)
        for number, width in enumerate(_WIDTHS, start=1):
            blocks = []
            for index in range(_BLOCKS):
                blocks.append(_Block(inputs, width, 2 if number > 1 and index == 0 else 1))
                inputs = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))

    def forward(self, picture: Tensor) -> list[Tensor]:
        maps = [self.stem(picture)]
        x = self.shrink(maps[0])
        for number in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps
