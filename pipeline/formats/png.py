"""PNG, 8 or 16 bits, with the metadata that it has chunks for: ICC, resolution, EXIF, XMP, and nodata as a colour.

PNG has no smaller copies and no tiles, so other formats suit large pictures better.

References
----------
PNG (W3C, third edition), 5 and 11; XMP Specification Part 3, 1.1.5.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.formats._format import Format
from pipeline.formats._metadata_blocks import exif_of
from pipeline.formats._staging import folder_beside, left_out, place_file
from pipeline.formats._vips import image_of, png_overview
from pipeline.formats.picture import OutputImage, WriteReport

LIMIT_PIXELS = 2**28
LIMIT_SIDE_PX = 1_000_000  # libpng's default limit (PNG_USER_WIDTH_MAX)

_MAGIC = b"\x89PNG\r\n\x1a\n"
_PER_METRE = {"inch": 1 / 0.0254, "cm": 100.0}


class Png(Format):
    """Lossless, in one file."""

    ENDING = ENDINGS["png"]
    OVERVIEW_COST = 7
    SIGNED_AS = "image/png"

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that is too large for this format."""
        height, width = shape_yx
        if height * width > LIMIT_PIXELS or max(shape_yx) > LIMIT_SIDE_PX:
            raise UsageError(
                f"{width} x {height} pixels, few programs open a PNG above {LIMIT_PIXELS}, or {LIMIT_SIDE_PX} a side; "
                "write tiff or cog"
            )

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; on any error, an existing file stays unchanged.

        Raises
        ------
        UsageError : more pixels than most programs open in a PNG.
        OutputError : the file cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass on.
        """
        self.check(picture.shape_yx, picture.dtype)
        exif, lost = exif_of(picture)
        with folder_beside(path) as folder:
            coded, made = folder / "coded.part", folder / "made.part"
            with image_of(picture, folder, threads) as image:
                image.pngsave(str(coded), compression=6, filter="all", keep="none")
            with coded.open("rb") as source, made.open("wb") as target:
                _copy(source, target, list(_chunks(picture, exif)))
            no_place = dict.fromkeys(("iptc", "photoshop", "place", "gcps", "rpcs"), "PNG has no place for it")
            if picture.channels == 4:
                no_place["nodata"] = "a PNG with alpha has no such colour"
            return WriteReport((picture.shape_yx,), place_file(made, path), lost | left_out(picture, no_place))

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        return png_overview(path, side_px)


FORMAT: Format = Png()


def _chunks(picture: OutputImage, exif: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of the chunks that lie between the header and the pixels."""
    embedded = picture.embedded
    if embedded.icc:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(embedded.icc, 9)
    if picture.nodata is not None and picture.channels == 3:
        yield b"tRNS", struct.pack(">3H", *[picture.nodata] * 3)
    if picture.resolution is not None:
        x, y, unit = picture.resolution
        per_unit = [round(value * _PER_METRE.get(unit, 1.0)) for value in (x, y)]
        if all(0 < value < 2**31 for value in per_unit):
            yield b"pHYs", struct.pack(">IIB", *per_unit, unit != "none")
    if exif:
        yield b"eXIf", exif
    if embedded.xmp:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + embedded.xmp


def _copy(source: BinaryIO, target: BinaryIO, chunks: list[tuple[bytes, bytes]]) -> None:
    """Copy ``source`` to ``target`` with ``chunks`` after its header, instead of its own chunks there."""
    target.write(source.read(len(_MAGIC) + 25))  # IHDR is the first chunk, of 13 bytes
    for kind, data in chunks:
        target.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    while (head := source.read(8))[4:] not in (b"IDAT", b""):
        source.seek(int.from_bytes(head[:4], "big") + 4, 1)
    target.write(head)
    shutil.copyfileobj(source, target, 2**22)
