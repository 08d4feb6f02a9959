"""Stored bands to samples or lightness, and to opacity: what readers that decode through a library have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..types import ScanInfo
from ._lightness import Light, Stretch
from ._window import Samples

Convert = Callable[[NDArray], Samples]


@dataclass(frozen=True)
class Conversion:
    """How stored bands (h, w, n) are read.

    Attributes
    ----------
    channels : 1 or 3, of the samples
    dtype : of the samples, "uint8" or "uint16"; lightness is taken from them
    convert : bands to samples, or to lightness where ``light`` has it so
    note : one line on what was done to the samples before
    opacity : bands to opacity; None where all is opaque
    nodata : the value, as the coloured picture writes it, that stands for no picture
    """

    channels: int
    dtype: str
    convert: Convert
    light: Light
    note: str = ""
    opacity: Convert | None = None
    nodata: int | None = None

    def info(self, shape_yx: tuple[int, int], metadata: Mapping[str, Any], dropped: Iterable[str] = ()) -> ScanInfo:
        """What the scan is; ``dropped`` beside what became of its profile."""
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


def stretched(bands: int, dtype: str, light: Light, stretch: Stretch | None) -> Conversion:
    """Of the first ``bands``: brought to ``dtype`` by ``stretch`` where there is one, then converted by ``light``."""
    return Conversion(
        channels=bands,
        dtype=dtype,
        convert=converter(bands, light, stretch.convert if stretch else None),
        light=light,
        note=stretch.note if stretch else "",
    )


def converter(bands: int, light: Light, first: Convert | None = None) -> Convert:
    """Of the first ``bands``, scaled or inverted by ``first``, what ``light`` makes of them."""

    def convert(stored: NDArray) -> Samples:
        samples = stored[:, :, 0] if bands == 1 else stored[:, :, :bands]
        if first is not None:
            samples = first(samples)
        return light.convert(samples) if light.convert else samples

    return convert
