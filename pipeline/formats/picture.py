"""The input of every format, and its report of what it wrote."""

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
    """A coloured picture, sRGB-encoded, and its metadata. No time stamp: the same scan gives the same bytes.

    Attributes
    ----------
    shape_yx : rows, columns
    dtype : uint8 or uint16
    read_window : returns (h, w, channels) samples of ``dtype`` for a slice of rows and one of columns; called from
        several threads at once. Its errors are passed on unchanged.
    channels : 3 (RGB), or 4 (RGB and unassociated alpha)
    nodata : the value of all channels in pixels without a picture, and of none elsewhere; None if there is none
    resolution : x, y in pixels per unit, and the unit: "none", "inch" or "cm"
    orientation : TIFF tag 274, 1-8
    software, description : for people
    name : name of the result, for formats that store it; empty for the file's own
    embedded : the scan's metadata and the picture's own: ``embedded.icc`` is the profile of these samples,
        ``embedded.xmp`` says how they were made. The descriptive tags are the scan's, without software and
        description.
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
    """Report of a written picture.

    Attributes
    ----------
    levels_yx : rows, columns of the picture and each smaller copy in it
    bytes : size of the file, or of all files of a folder
    not_carried : what the format cannot hold of the picture, each with the reason; names are "depth", "alpha",
        "nodata", "icc", "exif", "iptc", "xmp", "photoshop", "tags", "resolution", "orientation", "description",
        "place", "gcps" and "rpcs", and of a scan "maker note"
    """

    levels_yx: tuple[tuple[int, int], ...]
    bytes: int
    not_carried: Mapping[str, str] = field(default_factory=dict)
