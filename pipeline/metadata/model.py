"""Embedded metadata of a scan file, as bytes: read from any format, kept in the store, written into any other.

References
----------
Exif 3.0 (CIPA DC-008-2023); IPTC-IIM 4.2; ISO 16684-1 (XMP); ICC.1:2022; TIFF 6.0; OGC GeoTIFF 1.1 (19-008r4).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BLOCK_LIMIT_BYTES = 16 * 2**20
"""A larger block of metadata is neither read nor written, and is reported as left out."""


@dataclass(frozen=True)
class TiffTag:
    """One tag of a TIFF's first directory.

    Attributes
    ----------
    code : such as 315 (Artist)
    type : TIFF's number of the data type, such as 2 (ASCII)
    count : number of values
    value : the values, little-endian
    """

    code: int
    type: int
    count: int
    value: bytes


@dataclass(frozen=True)
class Georeference:
    """The position of a picture on Earth.

    Attributes
    ----------
    crs : coordinate reference system as WKT; empty if there is none
    transform : a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f; empty if there is none
    gcps : row, column, x, y, z of each ground control point
    gcps_crs : coordinate reference system of these points as WKT
    rpcs : rational polynomial coefficients, by GDAL's names
    tags : unchanged tags of a GeoTIFF
    """

    crs: str = ""
    transform: tuple[float, ...] = ()
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    gcps_crs: str = ""
    rpcs: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[TiffTag, ...] = ()


@dataclass(frozen=True)
class EmbeddedMetadata:
    """All metadata except resolution and orientation, which are in ``ScanInfo.metadata``.

    Attributes
    ----------
    icc : the colour profile of the samples
    exif : a TIFF structure as in a JPEG's APP1, without the "Exif" in front
    iptc : IIM datasets
    xmp : an XMP packet, UTF-8
    photoshop : image resource blocks
    tags : descriptive TIFF tags (document and page name, artist, copyright, dates, device)
    place : georeference; None if there is none
    """

    icc: bytes = b""
    exif: bytes = b""
    iptc: bytes = b""
    xmp: bytes = b""
    photoshop: bytes = b""
    tags: tuple[TiffTag, ...] = ()
    place: Georeference | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: _to_json(value) for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EmbeddedMetadata:
        """Metadata from the output of :meth:`to_json`. Raises KeyError, TypeError, ValueError for anything else."""
        place = values.get("place")
        blocks = {n: base64.b64decode(values.get(n, "")) for n in ("icc", "exif", "iptc", "xmp", "photoshop")}
        return cls(**blocks, tags=_tags(values.get("tags", ())), place=_place(place) if place else None)


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _to_json(each) for name, each in value.items()}
    return [_to_json(each) for each in value] if isinstance(value, list | tuple) else value


def _tags(values: Any) -> tuple[TiffTag, ...]:
    return tuple(TiffTag(v["code"], v["type"], v["count"], base64.b64decode(v["value"])) for v in values)


def _place(values: Mapping[str, Any]) -> Georeference:
    return Georeference(
        crs=values["crs"],
        transform=tuple(values["transform"]),
        gcps=tuple((p[0], p[1], p[2], p[3], p[4]) for p in values["gcps"]),
        gcps_crs=values["gcps_crs"],
        rpcs=dict(values["rpcs"]),
        tags=_tags(values["tags"]),
    )
