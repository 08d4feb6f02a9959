"""Small frozen values that the stages hand to each other; all of them pickle and compare by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.metadata.model import EmbeddedMetadata

Tone = Literal["srgb", "lightness"]
"""What samples mean. ``srgb``: sRGB-encoded light, gray or RGB. ``lightness``: gray that is CIE L* itself, 0 to full
scale for 0 to 100; readers return it if only a profile or another colour space defines the lightness of a sample."""
Mask = Literal["", "alpha", "nodata"]


@dataclass(frozen=True, order=True)
class Roi:
    """A rectangle of scan pixels: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def rows(self) -> slice:
        return slice(self.y0, self.y1)

    @property
    def columns(self) -> slice:
        return slice(self.x0, self.x1)

    def clipped(self, shape_yx: tuple[int, int]) -> Roi:
        """The part inside a scan of ``shape_yx``."""
        return Roi(self.y0, min(self.y1, shape_yx[0]), self.x0, min(self.x1, shape_yx[1]))


@dataclass(frozen=True)
class ScanInfo:
    """The facts about a scan that are known without decoding it.

    Attributes
    ----------
    shape_yx : rows, columns
    channels : 1 (gray) or 3 (RGB)
    dtype : "uint8" or "uint16": type of the samples that the reader returns
    metadata : JSON values: ``format``; if known ``compression``, ``resolution`` ([x, y, unit]), ``orientation``
        (TIFF tag 274); ``lightness``, one line on how lightness was derived from the samples, unless that is obvious;
        ``dropped`` (list of what was left out, such as "2 extra channels"); ``beside``, the name of the world file,
        if the georeference comes from one
    tone : what the samples mean
    depth : "uint8" or "uint16": depth of the coloured picture, which is the scan's own; empty means that of ``dtype``
    mask : "alpha" if the scan has an alpha channel or a mask, "nodata" if a sample value marks pixels without a
        picture, else empty
    nodata : that value as the coloured picture writes it, in every channel; None if there is none
    """

    shape_yx: tuple[int, int]
    channels: int
    dtype: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tone: Tone = "srgb"
    depth: str = ""
    mask: Mask = ""
    nodata: int | None = None

    @property
    def megapixels(self) -> float:
        return self.shape_yx[0] * self.shape_yx[1] / 1e6

    @property
    def result_dtype(self) -> np.dtype:
        """Data type of the coloured picture."""
        return np.dtype(self.depth or self.dtype)


@dataclass(frozen=True)
class ReadOptions:
    """How to read a scan file.

    Attributes
    ----------
    page : which picture of a file with several, counted from 1
    salvage : read what can be read: instead of raising an error, fill damaged parts with gray and list them as
        ``missing_regions``
    limit_pixels : refuse pictures that declare more
    world_file : name of the only world file to read; empty for none, None for the first one found
    """

    page: int = 1
    salvage: bool = False
    limit_pixels: int = 20_000_000_000
    world_file: str | None = None


class ScanReader(Protocol):
    """An open scan; a context manager.

    Windows may be read in any order; top to bottom is the fast order for every format.
    """

    @property
    def info(self) -> ScanInfo: ...

    @property
    def embedded(self) -> EmbeddedMetadata:
        """Metadata that the file holds beside its pixels."""
        ...

    @property
    def missing_regions(self) -> tuple[Roi, ...]:
        """The unreadable parts met so far; always empty unless salvage is on."""
        ...

    @property
    def segment_yx(self) -> tuple[int, int]:
        """Rows and columns of the unit of decoding, which is also the unit of loss."""
        ...

    @property
    def decoder_bytes(self) -> int:
        """Most memory that decoding holds, beside windows and a few tens of megabytes of cached segments."""
        ...

    def read(self, rows: slice, columns: slice) -> NDArray[np.unsignedinteger]:
        """(h, w) gray or (h, w, 3) RGB samples of the scan's dtype. Raises ScanUnreadableError on damaged data."""
        ...

    def read_mask(self, rows: slice, columns: slice) -> NDArray[np.unsignedinteger]:
        """(h, w) opacity in the picture's depth; only if ``info.mask`` is not empty.

        0 means that there is no picture, full scale is opaque. A mask of kind "nodata" has no values in between.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
