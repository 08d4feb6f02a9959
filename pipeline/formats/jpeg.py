"""JPEG for access copies: quality 95, colours at full resolution, with ICC, EXIF, XMP, IPTC and Photoshop's resources.

References
----------
ITU-T T.81, annex B; T.871 (JFIF); Exif 3.0, 4.7; ICC.1:2022, B.4; XMP Specification Part 3, 1.1.3 and 1.1.3.1.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from math import isclose
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.formats._format import Format, Tolerance
from pipeline.formats._metadata_blocks import exif_of, image_resources
from pipeline.formats._staging import folder_beside, left_out, place_file
from pipeline.formats._vips import image_of, jpeg_overview
from pipeline.formats._xmp import Split, disclosure, split
from pipeline.formats.picture import OutputImage, WriteReport

LIMIT_SIDE_PX = 65_500  # libjpeg's limit; that of the format is 65,535
QUALITY = 95

_SEGMENT_BYTES = 65_533
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_ICC, _PHOTOSHOP = b"ICC_PROFILE\0", b"Photoshop 3.0\0"
# JFIF's units (1: inch, 2: centimetre) by our unit, each with the number of ours in one of JFIF's; preferred first.
_UNITS: dict[str, tuple[tuple[int, float], ...]] = {"none": (), "inch": ((1, 1.0),), "cm": ((1, 2.54), (2, 1.0))}
_AS_WHOLE = 1e-5  # 118.11 pixels per centimetre are 300 per inch
_RATIO_PARTS = 1000


class Jpeg(Format):
    """An access copy in one file."""

    ENDING = ENDINGS["jpeg"]
    OVERVIEW_COST = 6
    SIGNED_AS = "image/jpeg"
    # About twice the measured 5.4 and 0.68, on photographs, noise, grain and halftone in saturated colours.
    TOLERANCE = Tolerance(largest=12.0, mean=1.5)

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that is too large for this format."""
        height, width = shape_yx
        if max(shape_yx) > LIMIT_SIDE_PX:
            raise UsageError(f"{width} x {height} pixels, a JPEG ends at {LIMIT_SIDE_PX} a side; write tiff or cog")

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; on any error, an existing file stays unchanged.

        Raises
        ------
        UsageError : a side is too long for a JPEG.
        OutputError : the file cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass on.
        """
        self.check(picture.shape_yx, picture.dtype)
        parts, lost = segments(picture)
        with folder_beside(path) as folder:
            coded, made = folder / "coded.part", folder / "made.part"
            with image_of(picture, folder, threads, depth="uint8", channels=3) as image:
                image.jpegsave(str(coded), Q=QUALITY, subsample_mode="off", keep="none")
            with coded.open("rb") as source, made.open("wb") as target:
                copy_with(parts, source, target)
            no_place = dict.fromkeys(("place", "gcps", "rpcs"), "JPEG has no place for it") | {
                "depth": "JPEG has 8 bit",
                "alpha": "JPEG has none; the colours are there as if they were opaque",
                "nodata": "JPEG does not keep samples exactly",
            }
            return WriteReport((picture.shape_yx,), place_file(made, path), lost | left_out(picture, no_place))

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        return jpeg_overview(path, shape_yx, side_px)


FORMAT: Format = Jpeg()


def segments(picture: OutputImage) -> tuple[list[tuple[int, bytes]], dict[str, str]]:
    """Marker and data of the leading segments, and what does not fit into them, with the reason."""
    embedded = picture.embedded
    exif, lost = exif_of(picture, _SEGMENT_BYTES - len(_EXIF))
    resources, damaged = image_resources(embedded.photoshop, embedded.iptc)
    made = [(_APP0, _jfif(picture.resolution))]
    if exif:
        made.append((_APP1, _EXIF + exif))
    made += [(_APP1, data) for data in _xmp(picture, lost)]
    made += [(_APP13, _PHOTOSHOP + part) for part in _parts(resources, len(_PHOTOSHOP))]
    profile = list(_parts(embedded.icc, len(_ICC) + 2))
    if len(profile) > 255:
        lost["icc"] = f"{len(embedded.icc)} bytes, above the 255 segments of a profile"
        profile = []
    made += [(_APP2, _ICC + bytes([at, len(profile)]) + part) for at, part in enumerate(profile, 1)]
    return made, lost | damaged


def _xmp(picture: OutputImage, lost: dict[str, str]) -> Iterator[bytes]:
    """The packet, and the properties that do not fit into it as extended XMP."""
    packet = picture.embedded.xmp
    try:
        made = split(packet, _SEGMENT_BYTES - len(_XMP))
    except ValueError as error:
        lost["xmp"] = f"{len(packet)} bytes, more than a JPEG segment holds: {error}"
        made = Split(disclosure(packet, picture.software, picture.description))
    if made.main:
        yield _XMP + made.main
    whole = _XMP_EXTENDED + made.digest.encode() + struct.pack(">I", len(made.rest))
    for at, part in enumerate(_parts(made.rest, len(whole) + 4)):
        yield whole + struct.pack(">I", at * (_SEGMENT_BYTES - len(whole) - 4)) + part


def _parts(data: bytes, head_bytes: int) -> Iterator[bytes]:
    step = _SEGMENT_BYTES - head_bytes
    return (data[at : at + step] for at in range(0, len(data), step))


def _jfif(resolution: tuple[float, float, str] | None) -> bytes:
    """JFIF 1.01 with whole pixels per inch or centimetre; the aspect ratio of a pixel if these are not whole.

    Many programs, validators among them, prefer it to the exact numbers of EXIF, so nothing is rounded.
    """
    x, y, unit = resolution or (1, 1, "none")
    code, density = next(_whole(x, y, unit), (0, _ratio(x, y)))
    return b"JFIF\0\1\1" + struct.pack(">BHHBB", code, *density, 0, 0)


def _whole(x: float, y: float, unit: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """JFIF's number of each unit in which both densities are whole, and these densities."""
    for code, per_unit in _UNITS[unit]:
        exact = x * per_unit, y * per_unit
        density = round(exact[0]), round(exact[1])
        is_whole = all(map(partial(isclose, rel_tol=_AS_WHOLE), density, exact))
        if is_whole and all(0 < value < 65_536 for value in density):
            yield code, density


def _ratio(x: float, y: float) -> tuple[int, int]:
    """``x`` to ``y`` in small numbers.

    >>> _ratio(40.25, 20.125), _ratio(300.0, 0.0)
    ((2, 1), (1, 1))
    """
    ratio = (Fraction(x) / Fraction(y)).limit_denominator(_RATIO_PARTS) if y > 0 else Fraction()
    return (ratio.numerator, ratio.denominator) if 0 < ratio.numerator < 65_536 else (1, 1)


def copy_with(segments: list[tuple[int, bytes]], source: BinaryIO, target: BinaryIO) -> None:
    """Copy ``source`` to ``target`` with ``segments`` in front and without its own application segments."""
    target.write(source.read(2))
    for marker, data in segments:
        target.write(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
    while _APP0 <= (head := source.read(4).ljust(4))[1] <= 0xEF:
        source.seek(int.from_bytes(head[2:], "big") - 2, 1)
    target.write(head)
    shutil.copyfileobj(source, target, 2**22)
