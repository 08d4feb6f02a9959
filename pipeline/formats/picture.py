"""What every format is given, and what it says of what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.metadata.model import EmbeddedMetadata

# LittleCMS's own sRGB profile ("No copyright, use freely"), with a fixed date.
SRGB_PROFILE = Path(__file__).with_name("srgb.icc").read_bytes()

ReadWindow = Callable[[slice, slice], NDArray]


@dataclass(frozen=True)
class OutputImage:
    """A coloured picture, sRGB-encoded, and all that is to be said of it. No time stamp: the same scan, the same bytes.

    Attributes
    ----------
    shape_yx : rows, columns
    dtype : uint8 or uint16
    read_window : gives (h, w, channels) samples of ``dtype`` of a slice of rows and one of columns; called from several
        threads at once. What it raises is passed on unchanged.
    channels : 3 (RGB), or 4 (RGB and unassociated alpha)
    nodata : the value that all channels have where there is no picture, and none elsewhere; None without one
    resolution : x, y in pixels per unit, and the unit: "none", "inch" or "cm"
    orientation : TIFF tag 274, 1-8
    software, description : for people
    name : of the result, for formats that have it inside; the file's own where it is empty
    embedded : what the scan said beside its pixels, and what is said of the picture: ``embedded.icc`` is the profile of
        these samples, ``embedded.xmp`` says how they were made. Its descriptive tags are the scan's, without software
        and description.
    """

    shape_yx: tuple[int, int]
    dtype: np.dtype
    read_window: ReadWindow
    channels: int = 3
    nodata: int | None = None
    resolution: tuple[float, float, str] | None = None
    orientation: int | None = None
    software: str = ""
    description: str = ""
    name: str = ""
    embedded: EmbeddedMetadata = field(default_factory=lambda: EmbeddedMetadata(icc=SRGB_PROFILE))


@dataclass(frozen=True)
class WriteReport:
    """What was written.

    Attributes
    ----------
    levels_yx : rows, columns of the picture and each smaller copy in it
    bytes : of the file, or of all files of a folder
    not_carried : what of the picture the format has no place for, each with the reason; names are "depth", "alpha",
        "nodata", "icc", "exif", "iptc", "xmp", "photoshop", "tags", "resolution", "orientation", "description",
        "place", "gcps" and "rpcs", and of a scan "maker note"
    """

    levels_yx: tuple[tuple[int, int], ...]
    bytes: int
    not_carried: Mapping[str, str] = field(default_factory=dict)
