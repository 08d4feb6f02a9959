"""U-Net on an ImageNet-pretrained ResNet-18 encoder."""

from __future__ import annotations

from training.encoders.resnet18 import Encoder
from training.generators._decoder import MARGIN_PX, WIDTHS, EncoderUNet, Widths


class Generator(EncoderUNet):
    """(N, inputs, H, W) lightness in [-1, 1] to (N, outputs, H, W) in [-1, 1]; H and W are multiples of 32.

    Parameters
    ----------
    inputs : 1, or 3: lightness replicated, which gives the same network
    outputs : 2 (a*, b*) or 3 (RGB)
    widths, margin_px, dropout : see :class:`~training.generators._decoder.EncoderUNet`
    """

    def __init__(
        self,
        inputs: int = 1,
        outputs: int = 2,
        widths: Widths = WIDTHS,
        margin_px: int = MARGIN_PX,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(Encoder(), outputs, widths, margin_px, dropout)
