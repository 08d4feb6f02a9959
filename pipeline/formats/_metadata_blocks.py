"""Metadata blocks of a picture's file: EXIF with the picture's own tags, Photoshop's resources with the IPTC."""

from __future__ import annotations

import struct
from fractions import Fraction

from pipeline.formats.picture import OutputImage
from pipeline.metadata.exif import Exif, exif_block, parse_exif, tiff_text
from pipeline.metadata.iptc import Resource, parse_resources, resource_block, without_scan_parts
from pipeline.metadata.model import BLOCK_LIMIT_BYTES, TiffTag

_DESCRIPTION, _ORIENTATION, _SOFTWARE = 270, 274, 305
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_UNITS = {"none": 1, "inch": 2, "cm": 3}
_IPTC_RESOURCE = 0x0404
_TEXT_BYTES = 2**14


def exif_of(picture: OutputImage, limit_bytes: int = BLOCK_LIMIT_BYTES) -> tuple[bytes, dict[str, str]]:
    """The picture's EXIF block, without "Exif" in front, and the parts of the scan's that are lost, with the reason.

    It has the scan's EXIF and descriptive tags, and the picture's own: software, description, orientation, resolution.
    A thumbnail is left out: it shows the scan without colours. If the block exceeds ``limit_bytes``, only the picture's
    own tags are kept, and no description that is too long by itself.
    """
    embedded, own = picture.embedded, _own_tags(picture)
    lost: dict[str, str] = {}
    try:
        scan = parse_exif(embedded.exif) if embedded.exif else Exif()
    except ValueError as error:
        scan, lost = Exif(), {"exif": str(error)}
    tags = {tag.code: tag for tag in (*scan.ifd0, *embedded.tags, *own)}
    try:
        block = exif_block(tuple(tags.values()), scan.exif, scan.gps, scan.interop)
        reason = f"{len(block)} bytes of EXIF, above the limit of {limit_bytes}" if len(block) > limit_bytes else ""
    except ValueError as error:
        block, reason = b"", str(error)
    if not reason:
        return block, lost
    lost |= {name: reason for name in ("exif", "tags") if getattr(embedded, name)}
    if len(block := exif_block(own)) <= limit_bytes:
        return block, lost
    if any(tag.code == _DESCRIPTION and len(tag.value) >= _TEXT_BYTES for tag in own):
        lost["description"] = f"{len(block)} bytes of EXIF with it alone, above the limit of {limit_bytes}"
    return exif_block(tuple(tag for tag in own if len(tag.value) < _TEXT_BYTES)), lost


def _own_tags(picture: OutputImage) -> tuple[TiffTag, ...]:
    tags = [_text(code, text) for code, text in ((_DESCRIPTION, picture.description), (_SOFTWARE, picture.software))]
    if picture.orientation is not None:
        tags.append(_short(_ORIENTATION, picture.orientation))
    if picture.resolution is not None:
        x, y, unit = picture.resolution
        tags += [_rational(_X_RESOLUTION, x), _rational(_Y_RESOLUTION, y), _short(_RESOLUTION_UNIT, _UNITS[unit])]
    return tuple(tag for tag in tags if tag is not None)


def _text(code: int, text: str) -> TiffTag | None:
    value = tiff_text(text) + b"\0"
    return TiffTag(code, 2, len(value), value) if text else None


def _short(code: int, value: int) -> TiffTag:
    return TiffTag(code, 3, 1, struct.pack("<H", value))


def _rational(code: int, value: float) -> TiffTag | None:
    if not 0 < value < 2**32 - 1:
        return None
    limited = Fraction(value).limit_denominator(max(1, min(10**6, int((2**32 - 1) / max(value, 1)))))
    return TiffTag(code, 5, 1, struct.pack("<II", limited.numerator, limited.denominator))


def image_resources(photoshop: bytes, iptc: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """Photoshop's image resources with ``iptc`` among them, and what is lost, with the reason.

    Resources that show or describe the scan's own samples, such as thumbnails, are left out.
    """
    lost: dict[str, str] = {}
    try:
        resources = without_scan_parts(parse_resources(photoshop))
    except ValueError as error:
        resources, lost = (), {"photoshop": str(error)}
    if iptc:
        resources = (
            Resource(_IPTC_RESOURCE, b"", iptc),
            *(each for each in resources if each.number != _IPTC_RESOURCE),
        )
    return resource_block(resources), lost
