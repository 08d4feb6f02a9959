"""A U-Net on a published encoder: the common base of the ``*_unet`` generators.

For a*, b* the decoder ends at half resolution and a bilinear step brings them to full size: the eye resolves chroma far
more coarsely than lightness (the reason for 4:2:0 video), and full-resolution layers would cost half of the time. This
does not work for RGB, so its decoder has one more level, which sees the input itself.

References
----------
Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import RecipeError
from training.published_encoder import PublishedEncoder

Widths = tuple[int, int, int, int]
WIDTHS: Widths = (192, 128, 96, 64)
MARGIN_PX = 16


def _conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Up(nn.Module):
    """(N, inputs, h, w) and the encoder's (N, skip, 2h, 2w) to (N, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = _conv_norm_relu(inputs + skip, outputs)
        self.refine = _conv_norm_relu(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.merge(torch.cat([self.up(x), skip], dim=1)))


class EncoderUNet(nn.Module):
    """(N, 1 or 3, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 32.

    One channel and three replicated channels of lightness give the same network: the encoder's input is replicated
    anyway.

    Parameters
    ----------
    encoder : gives the maps at strides 2, 4, 8, 16, 32
    outputs : 2 (a*, b*) or 3 (RGB)
    widths : decoder channels at strides 16, 8, 4, 2
    margin_px : reflected margin on each side in evaluation, cropped from the result: otherwise zero padding inside the
        network paints bars of about 8 px along the edges of every tile
    dropout : share of the deepest map's channels dropped in training

    Raises
    ------
    RecipeError : with ``margin_px`` the size is no multiple of 32.
    """

    size_multiple = 32

    def __init__(
        self, encoder: PublishedEncoder, outputs: int, widths: Widths, margin_px: int, dropout: float = 0.0
    ) -> None:
        if margin_px < 0 or 2 * margin_px % self.size_multiple:
            raise RecipeError(f"margin_px is {margin_px}: tiles would be no multiple of 32 px; give a multiple of 16")
        super().__init__()
        self.margin_px = margin_px
        self.encoder = encoder
        self.dropout = nn.Dropout2d(dropout)
        *skips, inputs = encoder.channels
        ups = []
        for skip, width in zip(reversed(skips), widths, strict=True):
            ups.append(Up(inputs, skip, width))
            inputs = width
        self.whole_picture = outputs == 3
        if self.whole_picture:
            ups.append(Up(inputs, 3, inputs // 2))
            inputs //= 2
        self.ups = nn.ModuleList(ups)
        self.head = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.grow = (
            nn.Identity() if self.whole_picture else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        )

    def forward(self, lightness: Tensor) -> Tensor:
        if self.training or self.margin_px == 0:
            return self._predict(lightness)
        margin = self.margin_px
        grown = functional.pad(lightness, (margin, margin, margin, margin), mode="reflect")
        return self._predict(grown)[:, :, margin:-margin, margin:-margin]

    def _predict(self, lightness: Tensor) -> Tensor:
        picture = self.encoder.normalized(lightness)
        *maps, deepest = self.encoder(picture)
        skips = [picture, *maps] if self.whole_picture else maps
        x = self.dropout(deepest)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        return self.grow(torch.tanh(self.head(x)))
