"""pix2pix's generator with given colours: lightness and an enlarged palette in, colours aligned to the edges out.

The palette says which colour is where, so a small U-Net suffices: it only has to align colours to the edges in
lightness. It works at half resolution, with squares of 2 x 2 pixels packed into channels (Shi et al. 2016), so that
input and output have full resolution at a quarter of the cost, and adds its output to the palette.

References
----------
Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017.
Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN, CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import RecipeError

Widths = tuple[int, int, int, int]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Up(nn.Module):
    """(N, inputs, h, w) and a skip (N, skip, 2h, 2w) to (N, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        # Narrowed before upsampling, on a quarter of the pixels.
        self.narrow = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.Conv2d(skip, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.refine = nn.Sequential(nn.ReLU(inplace=True), _conv(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.grow(self.narrow(x)) + self.skip(skip))


class Generator(nn.Module):
    """(N, 3, H, W) lightness and palette a*, b* in [-1, 1] to (N, 2, H, W) a*, b*; H and W are multiples of 32.

    Parameters
    ----------
    inputs, outputs : 3 and 2, for a palette and colours in CIE L*a*b*
    widths : channels at strides 2, 4, 8, 16
    margin_px : reflected margin on each side in evaluation, cropped from the result: otherwise zero padding inside the
        network shows along the edges of every tile

    Raises
    ------
    ValueError : other inputs or outputs. RecipeError : ``margin_px`` is not 0, 8, 16 or 24.
    """

    size_multiple = 32  # a multiple of 16, and larger than the margin

    def __init__(
        self, inputs: int = 3, outputs: int = 2, widths: Widths = (24, 48, 96, 128), margin_px: int = 16
    ) -> None:
        if (inputs, outputs) != (3, 2):
            raise ValueError(f"{inputs} inputs and {outputs} outputs: palette_unet has 3 and 2; set a palette")
        if not 0 <= margin_px < self.size_multiple or margin_px % 8:
            raise RecipeError(f"margin_px is {margin_px}: tiles would be no multiple of 16 px; give 0, 8, 16 or 24")
        super().__init__()
        self.margin_px = margin_px
        first, second, third, fourth = widths
        self.first = nn.Sequential(_conv(4 + 2, first), _conv(first, first))
        self.second = nn.Sequential(_conv(first, second, 2), _conv(second, second))
        self.third = nn.Sequential(_conv(second, third, 2), _conv(third, third))
        self.fourth = nn.Sequential(_conv(third, fourth, 2), _conv(fourth, fourth))
        self.up3, self.up2, self.up1 = (
            _Up(fourth, third, third),
            _Up(third, second, second),
            _Up(second, first, first),
        )
        self.last = nn.Conv2d(first, 4 * outputs, 3, 1, 1)
        nn.init.normal_(self.last.weight, std=1e-3)  # at first, the output is nearly the palette itself
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, given: Tensor) -> Tensor:
        if self.training or self.margin_px == 0:
            return self._predict(given)
        margin = self.margin_px
        grown = functional.pad(given, (margin, margin, margin, margin), mode="reflect")
        return self._predict(grown)[:, :, margin:-margin, margin:-margin]

    def _predict(self, given: Tensor) -> Tensor:
        lightness, palette = given[:, :1], given[:, 1:]
        seen = torch.cat([functional.pixel_unshuffle(lightness, 2), functional.avg_pool2d(palette, 2)], dim=1)
        first = self.first(seen)
        second = self.second(first)
        third = self.third(second)
        rising = self.up3(self.fourth(third), third)
        rising = self.up1(self.up2(rising, second), first)
        return (palette + functional.pixel_shuffle(self.last(rising), 2)).clamp(-1, 1)
