"""The metadata of a TIFF directory.

References
----------
TIFF 6.0 specification (Aldus, 1992), section 2; Exif 3.0 (CIPA DC-008-2023), 4.6; XMP part 3 (Adobe; tag 700);
OGC GeoTIFF 1.1 (19-008r4); Microsoft's XP tags and ratings, as in exiftool's list of EXIF tags.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile

from pipeline.metadata import exif
from pipeline.metadata.model import BLOCK_LIMIT_BYTES, EmbeddedMetadata, Georeference, TiffTag
from pipeline.readers._tiff.gdal import environment, open_dataset
from pipeline.readers._tiff.layout import compression_name

_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_EXIF, _GPS = 34665, 34853
_BLOCKS = {_XMP: "XMP", _IPTC: "IPTC", _PHOTOSHOP: "Photoshop resources", _ICC: "ICC profile"}
_TEXT = 2
_RATINGS, _XP = (18246, 18249), range(40091, 40096)
_DESCRIPTIVE = frozenset((269, 270, 271, 272, 285, 286, 287, 297, 305, 306, 315, 316, 333, 337, 33432, *_RATINGS, *_XP))
_GEO = frozenset((33550, 33922, 34264, 34735, 34736, 34737, 42112, 50844))
_NOT_TEXT = frozenset((_XMP, _IPTC, _PHOTOSHOP, _ICC, _EXIF, _GPS, 42113)) | _GEO
_CURVES = {291: "GrayResponseCurve", 301: "TransferFunction"}
# ImageMagick writes sRGB's primaries into every file; the result is sRGB, and its profile says so.
_PRIMARIES = {
    318: ("WhitePoint", (0.3127, 0.329)),
    319: ("PrimaryChromaticities", (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)),
}
_NEAR = 2e-3
_GDAL_METADATA = 42112
# Items that describe neither single bands nor how the file is written, such as a codec's error bound.
_OF_WHOLE_PICTURE = re.compile(r"""<Item (?![^>]*(?:\bsample=|STATISTICS|\bdomain=["']IMAGE_STRUCTURE["']))""")
_GEOTIFF = frozenset((33550, 33922, 34264, 34735, 50844))
_LAYERS = 37724
_FAX_LINES, _LERC = (326, 327, 328), 50674
_USED = frozenset((274, 282, 283, 296, 42113, _EXIF, _GPS, exif.INTEROP_IFD, *_BLOCKS, *_FAX_LINES, _LERC))
_MOST_LISTED = 12


def metadata_of(page: tifffile.TiffPage, pages: int, notes: list[str], dropped: tuple[str, ...]) -> dict[str, Any]:
    """``ScanInfo.metadata`` of a directory; ``pages`` is the number of pictures in its file."""
    metadata: dict[str, Any] = {
        "format": "BigTIFF" if page.parent.is_bigtiff else "TIFF",
        "compression": compression_name(page),
    }
    pair = [_ratio(page.tags.valueof(tag)) for tag in (282, 283)]
    if all(pair):
        unit = page.tags.valueof(296, default=2)
        metadata["resolution"] = [*pair, {2: "inch", 3: "cm"}.get(unit if isinstance(unit, int) else 1, "none")]
    orientation = page.tags.valueof(274)
    if isinstance(orientation, int) and 1 <= orientation <= 8:
        metadata["orientation"] = int(orientation)
    if pages > 1:
        metadata["pages"] = pages
    if notes:
        metadata["lightness"] = "; ".join(notes)
    unused = [*_unapplied(page), *_too_large(page), *_damaged(page), *_left_out(page)]
    if left := [*dropped, *_imagej_slices(page, pages), *unused]:
        metadata["dropped"] = left
    return metadata


def carried_of(page: tifffile.TiffPage, path: Path) -> EmbeddedMetadata:
    """Blocks, descriptive tags and georeference; without any that are damaged or above `BLOCK_LIMIT_BYTES`."""
    blocks = {code: _raw(page, code) for code in _BLOCKS}
    kept = [value for tag in page.tags if _describes(tag) and (value := _tiff_tag(page, tag)) is not None]
    return EmbeddedMetadata(
        icc=blocks[_ICC],
        exif=_exif_of(page),
        iptc=blocks[_IPTC],
        xmp=blocks[_XMP].rstrip(b"\0"),
        photoshop=blocks[_PHOTOSHOP],
        tags=tuple(kept),
        place=_place_of(page, path),
    )


def _imagej_slices(page: tifffile.TiffPage, pages: int) -> Iterator[str]:
    """A note on ImageJ's stacks, which have a directory for the first picture only and mention the others in a text."""
    said = page.parent.imagej_metadata if page.parent.is_imagej else None
    images = said.get("images", 1) if said else 1
    if isinstance(images, int) and images > pages:
        yield f"ImageJ's slices 2-{images}"


def _unapplied(page: tifffile.TiffPage) -> Iterator[str]:
    """Notes on tags that define lightness or colours of the samples but are not applied."""
    yield from (f"{name} (not applied)" for code, name in _CURVES.items() if code in page.tags)
    for code, (name, of_srgb) in _PRIMARIES.items():
        if code in page.tags and not _is_near(page.tags.valueof(code), of_srgb):
            yield f"{name} (not applied)"


def _is_near(value: object, numbers: tuple[float, ...]) -> bool:
    """True if a tag's rationals, as alternating numerators and denominators, are close to these numbers."""
    if not isinstance(value, tuple) or len(value) != 2 * len(numbers):
        return False
    pairs = zip(value[::2], value[1::2], numbers, strict=True)
    return all(bottom and abs(top / bottom - number) < _NEAR for top, bottom, number in pairs)


def _too_large(page: tifffile.TiffPage) -> Iterator[str]:
    for tag in page.tags:
        if _is_carried(page, tag) and _size(tag) > BLOCK_LIMIT_BYTES:
            yield f"{_name(tag)} ({_size(tag)} bytes)"


def _damaged(page: tifffile.TiffPage) -> Iterator[str]:
    """Notes on tags that the parser left out, or whose value is incomplete."""
    found = {int(tag.code): tag for tag in page.tags}
    names = [f"tag {code}" for code in _codes(page) if code not in found and code not in exif.STRUCTURE]
    names += [
        _name(tag)
        for tag in found.values()
        if _is_carried(page, tag) and 0 < _size(tag) <= BLOCK_LIMIT_BYTES and not _is_inside(page, tag)
    ]
    if names:
        yield f"{_listed(names)} (damaged)"


def _codes(page: tifffile.TiffPage) -> list[int]:
    """Codes of all tags that the directory lists."""
    layout = page.parent.tiff
    head = _bytes(page, page.offset, layout.tagnosize)
    count = struct.unpack(layout.tagnoformat, head)[0] if head else 0
    entries = _bytes(page, page.offset + layout.tagnosize, count * layout.tagsize)
    return [
        struct.unpack_from(page.parent.byteorder + "H", entries, at)[0] for at in range(0, len(entries), layout.tagsize)
    ]


def _left_out(page: tifffile.TiffPage) -> Iterator[str]:
    """Notes on tags that a result does not keep, though they say more than how the samples are stored."""
    if _LAYERS in page.tags:
        yield "Photoshop layers"
    known = exif.STRUCTURE | _USED | _CURVES.keys()
    if not _OF_WHOLE_PICTURE.search(str(page.tags.valueof(_GDAL_METADATA, default=""))):
        known |= {_GDAL_METADATA}  # it describes samples and file, which the result replaces
    names = [_name(tag) for tag in page.tags if tag.code not in known and not _is_carried(page, tag) and _size(tag)]
    if names:
        yield _listed(names)


def _listed(names: list[str]) -> str:
    """The first few names and the number of the others: a directory may have thousands."""
    unlike = list(dict.fromkeys(names))
    more = f" and {len(unlike) - _MOST_LISTED} more" if len(unlike) > _MOST_LISTED else ""
    return ", ".join(unlike[:_MOST_LISTED]) + more


def _name(tag: tifffile.TiffTag) -> str:
    known = _BLOCKS.get(tag.code) or str(tag.name)
    return f"tag {int(tag.code)}" if known.isdecimal() else known


def _describes(tag: tifffile.TiffTag) -> bool:
    """True if the result keeps the tag."""
    text = tag.dtype == _TEXT and tag.code not in _NOT_TEXT and tag.code not in exif.STRUCTURE
    return bool(text or tag.code in _DESCRIPTIVE)


def _is_carried(page: tifffile.TiffPage, tag: tifffile.TiffTag) -> bool:
    """True if :func:`carried_of` returns the tag, unless it is damaged."""
    place = tag.code in _GEO and any(code in page.tags for code in _GEOTIFF)
    return bool(place or tag.code in _BLOCKS or _describes(tag))


def _is_inside(page: tifffile.TiffPage, tag: tifffile.TiffTag) -> bool:
    return bool(0 < tag.valueoffset <= page.parent.filehandle.size - _size(tag))


def _size(tag: tifffile.TiffTag) -> int:
    return exif.value_bytes(int(tag.dtype)) * int(tag.count)


def _raw(page: tifffile.TiffPage, code: int) -> bytes:
    """The raw value, whatever its type; empty if missing or damaged."""
    tag = page.tags.get(code)
    if tag is None:
        return b""
    # IPTC is often declared as 32-bit numbers, but its bytes are in the order of the data set.
    return _bytes(page, tag.valueoffset, _size(tag))


def _tiff_tag(page: tifffile.TiffPage, tag: tifffile.TiffTag) -> TiffTag | None:
    value = _bytes(page, tag.valueoffset, _size(tag))
    if not value:
        return None
    kind = int(tag.dtype)
    return TiffTag(
        int(tag.code), kind, int(tag.count), exif.swapped(kind, value) if page.parent.byteorder == ">" else value
    )


def _bytes(page: tifffile.TiffPage, offset: int, size: int) -> bytes:
    """Bytes of the file; empty if above the limit or incomplete."""
    file = page.parent.filehandle
    if not 0 < size <= BLOCK_LIMIT_BYTES or not 0 < offset <= file.size - size:
        return b""
    file.seek(offset)
    value: bytes = file.read(size)
    return value


def _exif_of(page: tifffile.TiffPage) -> bytes:
    """The EXIF and GPS directories of the file as a block of its own."""
    private, gps = (_directory_at(page, code) for code in (_EXIF, _GPS))
    interop = _interop_of(page, private)
    with contextlib.suppress(ValueError):
        return exif.exif_block((), private, gps, interop)
    return b""


def _directory_at(page: tifffile.TiffPage, pointer: int) -> tuple[TiffTag, ...]:
    tag = page.tags.get(pointer)
    if tag is None or tag.count != 1:
        return ()
    # Not `tag.valueoffset`, which is the directory's own offset if tifffile has already read it.
    value = _bytes(page, tag.offset + page.parent.tiff.tagsize - page.parent.tiff.tagoffsetthreshold, _size(tag))
    return _directory(page, int.from_bytes(value, "little" if page.parent.byteorder == "<" else "big"))


def _interop_of(page: tifffile.TiffPage, private: tuple[TiffTag, ...]) -> tuple[TiffTag, ...]:
    pointers = [int.from_bytes(tag.value, "little") for tag in private if tag.code == exif.INTEROP_IFD]
    return _directory(page, pointers[0]) if pointers else ()


def _directory(page: tifffile.TiffPage, offset: int) -> tuple[TiffTag, ...]:
    """The tags of a directory outside the chain of pages, without damaged or too large ones."""
    tiff, order = page.parent.tiff, page.parent.byteorder
    number, entry = (order + "Q", order + "HHQ8s") if page.parent.is_bigtiff else (order + "H", order + "HHI4s")
    head = _bytes(page, offset, struct.calcsize(number))
    if not head:
        return ()
    count, size = struct.unpack(number, head)[0], struct.calcsize(entry)
    entries = _bytes(page, offset + len(head), count * size)
    found: dict[int, TiffTag] = {}
    left = BLOCK_LIMIT_BYTES
    for at in range(0, len(entries), size):
        code, kind, values, field = struct.unpack_from(entry, entries, at)
        value_bytes = exif.value_bytes(kind) * values
        if not 0 < value_bytes <= left or code in found:
            continue
        value = field[:value_bytes]
        if value_bytes > len(field):
            value = _bytes(page, struct.unpack(tiff.offsetformat, field)[0], value_bytes)
        if value:
            left -= value_bytes
            found[code] = TiffTag(code, kind, values, exif.swapped(kind, value) if order == ">" else value)
    return tuple(found.values())


def _place_of(page: tifffile.TiffPage, path: Path) -> Georeference | None:
    kept = tuple(value for tag in page.tags if tag.code in _GEO and (value := _tiff_tag(page, tag)) is not None)
    if not any(tag.code in _GEOTIFF for tag in kept):
        return None
    with contextlib.suppress(Exception):  # GDAL's view is optional
        return _as_gdal_sees_it(page, path, kept)
    return Georeference(tags=kept)


def _as_gdal_sees_it(page: tifffile.TiffPage, path: Path, kept: tuple[TiffTag, ...]) -> Georeference:
    with environment(), open_dataset(path, page.offset if page.index else None) as dataset:
        points, points_crs = dataset.gcps
        transform = tuple(dataset.transform)[:6] if not dataset.transform.is_identity else ()
        return Georeference(
            crs=dataset.crs.to_wkt() if dataset.crs else "",
            transform=tuple(float(number) for number in transform),
            gcps=tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in points),
            gcps_crs=points_crs.to_wkt() if points_crs else "",
            rpcs={str(k): str(v) for k, v in dataset.tags(ns="RPC").items()},
            tags=kept,
        )


def _ratio(value: object) -> float | None:
    match value:
        case (int(top), int(bottom)) if top > 0 and bottom > 0:
            return top / bottom
        case int(number) | float(number) if 0 < number < float("inf"):
            return float(number)
    return None
