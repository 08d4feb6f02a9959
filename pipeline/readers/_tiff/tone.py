"""Lightness of a TIFF's colours: by its profile, by its colour space, or as sRGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.colour import icc
from pipeline.readers._base import Samples
from pipeline.readers._lightness import by_profile
from pipeline.readers._tiff.kind import ICCLAB, Kind, photometric_of
from pipeline.types import Tone as ToneName

_ICC = 34675


@dataclass(frozen=True)
class Tone:
    """Conversion of (h, w, channels) samples of uint8 or uint16, and the meaning of the result."""

    name: ToneName
    channels: int
    dtype: np.dtype
    convert: Callable[[Samples], Samples]
    note: str = ""
    dropped: tuple[str, ...] = ()


def tone_of(page: tifffile.TiffPage, kind: Kind, dtype: np.dtype, channels: int) -> Tone:
    """The tone of the directory's colours, given as ``channels`` samples of ``dtype``."""
    if kind.model == "lab":
        top = 65280 if photometric_of(page) == ICCLAB and dtype == np.uint16 else np.iinfo(dtype).max
        lightness = icc.lab_to_lightness(top)
        return Tone("lightness", 1, np.dtype(np.uint16), lightness, "L* as the file gives it")
    light = by_profile(bytes(page.tags.valueof(_ICC, default=b"") or b""), channels, dtype.name)

    def convert(samples: Samples) -> Samples:
        taken = samples[:, :, 0] if channels == 1 else samples
        return light.convert(taken) if light.convert else taken

    dropped = (light.dropped,) if light.dropped else ()
    if light.tone == "lightness":
        return Tone("lightness", 1, np.dtype(np.uint16), convert, light.note, dropped)
    return Tone("srgb", min(channels, 3), dtype, convert, light.note, dropped)


def unpremultiplied(samples: Samples, opacity: Samples) -> Samples:
    """Undo the multiplication of colours with opacity; black where opacity is 0."""
    top = int(np.iinfo(samples.dtype).max)
    alpha: NDArray = opacity.astype(np.uint64)[:, :, None]
    divided = (samples * np.uint64(top) + alpha // np.uint64(2)) // np.maximum(alpha, np.uint64(1))
    return np.asarray(np.where(alpha == 0, 0, np.minimum(divided, np.uint64(top))), samples.dtype)
