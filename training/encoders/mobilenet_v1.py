"""MobileNet, the first version, with its width multiplier.

A report that says "MobileNet" and 4.2 million parameters means this network with its classifier. No weights are
published in a form that can be read here, so it starts from random ones; MobileNetV2 has published weights.

References
----------
Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, arXiv 1704.04861,
2017, table 1 and section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.published_encoder import PublishedEncoder

# channels and stride of each depthwise separable convolution: table 1 of the paper.
_SETTINGS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
_TAPS = (1, 3, 5, 11, 13)  # index of the last layer at strides 2, 4, 8, 16, 32; 0 is the first convolution
_LEAST_CHANNELS = 8


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Encoder(PublishedEncoder):
    """(N, 3, H, W) normalized picture to five maps at strides 2, 4, 8, 16, 32; the classifier is left out.

    Parameters
    ----------
    multiplier : factor of all widths, the paper's alpha; with 1 the maps have 64, 128, 256, 512, 1024 channels
    """

    def __init__(self, multiplier: float = 1.0) -> None:
        widths = [max(_LEAST_CHANNELS, round(width * multiplier)) for width in (32, *(w for w, _ in _SETTINGS))]
        super().__init__(tuple(widths[tap] for tap in _TAPS), mean=(0.5,), std=(0.5,))
        first = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        pairs = zip(widths, widths[1:], (stride for _, stride in _SETTINGS), strict=False)
        self.features = nn.Sequential(first, *(_separable(*pair) for pair in pairs))

    def forward(self, picture: Tensor) -> list[Tensor]:
        return self.maps_of(picture, self.features, _TAPS)
