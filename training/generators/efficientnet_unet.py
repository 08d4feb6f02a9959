"""U-Net on an ImageNet-pretrained EfficientNet-Lite encoder."""

from __future__ import annotations

from training.encoders.efficientnet_lite import Encoder
from training.generators._decoder import MARGIN_PX, WIDTHS, EncoderUNet, Widths


class Generator(EncoderUNet):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 32.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated, which gives the same network
    outputs : 2 (a*, b*) or 3 (RGB)
    variant : "lite0", "lite1" or "lite2", from small to large
    widths, margin_px, dropout : see :class:`~training.generators._decoder.EncoderUNet`

    Raises
    ------
    RecipeError : unknown variant, or ``margin_px`` is no multiple of 16.
    """

    def __init__(
        self,
        inputs: int = 1,
        outputs: int = 2,
        variant: str = "lite0",
        widths: Widths = WIDTHS,
        margin_px: int = MARGIN_PX,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(Encoder(variant), outputs, widths, margin_px, dropout)
