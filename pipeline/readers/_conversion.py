"""From stored bands to samples or lightness, and to opacity: shared by readers that decode through a library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.readers._base import Samples
from pipeline.readers._lightness import Light, Stretch
from pipeline.types import ScanInfo

Convert = Callable[[NDArray], Samples]
_OF_CHROMA = ((0.0, 1.402), (-0.344136, -0.714136), (1.772, 0.0))  # factors of Cb and Cr in red, green, blue


@dataclass(frozen=True)
class Conversion:
    """How to convert stored bands (h, w, n).

    Attributes
    ----------
    channels : channels of the samples, 1 or 3
    dtype : type of the samples, "uint8" or "uint16", before any conversion to lightness
    convert : bands to samples, or to lightness if ``light`` demands it
    note : one line on earlier changes to the samples
    opacity : bands to opacity; None if all pixels are opaque
    nodata : the value that marks pixels without a picture, as the coloured picture writes it
    """

    channels: int
    dtype: str
    convert: Convert
    light: Light
    note: str = ""
    opacity: Convert | None = None
    nodata: int | None = None

    def info(self, shape_yx: tuple[int, int], metadata: Mapping[str, Any], dropped: Iterable[str] = ()) -> ScanInfo:
        """The scan's facts; ``dropped`` is listed after an unusable profile."""
        told = dict(metadata)
        if note := "; ".join(filter(None, (self.note, self.light.note))):
            told["lightness"] = note
        if lost := [*([self.light.dropped] if self.light.dropped else []), *dropped]:
            told["dropped"] = lost
        by_light = self.light.tone == "lightness"
        return ScanInfo(
            shape_yx=shape_yx,
            channels=1 if by_light else self.channels,
            dtype="uint16" if by_light else self.dtype,
            metadata=told,
            tone=self.light.tone,
            depth=self.dtype,
            mask="" if self.opacity is None else "alpha" if self.nodata is None else "nodata",
            nodata=self.nodata,
        )


def stretched(bands: int, dtype: str, light: Light, stretch: Stretch | None, *, ycc: bool = False) -> Conversion:
    """Conversion of the first ``bands``: scaled to ``dtype`` by ``stretch`` if there is one, turned into RGB if they
    are ``ycc``, then converted by ``light``."""
    steps: list[Convert] = [*([stretch.convert] if stretch else []), *([rgb_of_ycc] if ycc else [])]
    return Conversion(
        channels=bands,
        dtype=dtype,
        convert=converter(bands, light, _one_after_the_other(steps)),
        light=light,
        note=stretch.note if stretch else "",
    )


def rgb_of_ycc(samples: NDArray) -> Samples:
    """(h, w, 3) full-range Y, Cb, Cr of uint8 or uint16 -> RGB of the same type (ITU-R BT.601, as in JFIF and sYCC)."""
    top = np.iinfo(samples.dtype).max
    y, cb, cr = (samples[:, :, n].astype(np.float32) for n in range(3))
    middle = np.float32((top + 1) / 2)
    rgb = np.empty_like(samples)
    for channel, (of_cb, of_cr) in enumerate(_OF_CHROMA):
        rgb[:, :, channel] = np.rint(np.clip(y + of_cb * (cb - middle) + of_cr * (cr - middle), 0, top))
    return rgb


def _one_after_the_other(steps: list[Convert]) -> Convert | None:
    if not steps:
        return None
    return lambda samples: functools.reduce(lambda made, step: step(made), steps, samples)


def converter(bands: int, light: Light, first: Convert | None = None) -> Convert:
    """Convert the first ``bands`` by ``first``, which scales or inverts them, and then by ``light``."""

    def convert(stored: NDArray) -> Samples:
        samples = stored[:, :, 0] if bands == 1 else stored[:, :, :bands]
        if first is not None:
            samples = first(samples)
        return light.convert(samples) if light.convert else samples

    return convert
