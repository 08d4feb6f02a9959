"""Lossless JPEG 2000, by GDAL's OpenJPEG driver: 8 or 16 bits, tiles of 1024 pixels, its smaller copies by wavelets.

Very large pictures have tiles of 2048 or 4096 pixels: decoders' memory for the list of tiles grows with their number.

GDAL writes the georeference (GeoJP2 and GML). Resolution, EXIF, XMP, IPTC and Photoshop's resources are inserted here
as boxes. The sRGB colour space is given by its number, as usual in JP2.

References
----------
ISO/IEC 15444-1:2019 (ITU-T T.800); OGC GMLJP2 (08-085); GDAL raster drivers, "JP2OpenJPEG".
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.formats._format import Format
from pipeline.formats._gdal import PLAIN, copy_picture, gdal, gdal_metadata, lost_place
from pipeline.formats._metadata_blocks import exif_of, image_resources
from pipeline.formats._pyramid import pyramid_levels
from pipeline.formats._staging import folder_beside, left_out, library_error, place_file
from pipeline.formats.levels import Levels, WindowLevels
from pipeline.formats.picture import SRGB_PROFILE, OutputImage, WriteReport
from pipeline.metadata.jp2_boxes import box, boxes, check_codestream, is_srgb_by_number, metadata_boxes, resolution_box
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.support.files import open_file
from pipeline.support.gdal import Opened, read_smaller, read_window

_SMALLEST_TILE_PX, _LARGEST_TILE_PX = 1024, 4096  # coding a tile takes about 30 bytes per pixel
_MOST_TILES = 7000  # OpenJPEG allocates 13 kB for each component of each tile before it reads any
_SMALLEST_PX = 256
_COPY_BYTES = 2**22


class Jp2(Format):
    """Lossless, in one file."""

    ENDING = ENDINGS["jp2"]
    OVERVIEW_COST = 5
    HELD_BYTES = 64 * 2**20  # buffers of GDAL and OpenJPEG

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that is too large for this format."""
        height, width = shape_yx
        if tile_px(shape_yx) > _LARGEST_TILE_PX:
            raise UsageError(
                f"{width} x {height} pixels, a JPEG 2000 of so many tiles takes too much memory, as larger tiles do; "
                "write tiff, cog or omezarr"
            )

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; on any error, an existing file stays unchanged.

        Raises
        ------
        UsageError : it would have too many tiles.
        OutputError : the file cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass on.
        """
        self.check(picture.shape_yx, picture.dtype)
        side = tile_px(picture.shape_yx)
        resolutions = min(len(pyramid_levels(picture.shape_yx, _SMALLEST_PX)), side.bit_length() - 1)  # of any tile
        with folder_beside(path) as folder:
            coded = copy_picture(
                picture,
                folder,
                "coded.part",
                "JP2OpenJPEG",
                threads,
                CODEC="JP2",
                QUALITY="100",
                REVERSIBLE="YES",
                BLOCKXSIZE=str(side),
                BLOCKYSIZE=str(side),
                RESOLUTIONS=str(resolutions),
            )
            copies = _checked_copies(coded)
            (folder / PLAIN).unlink()
            made = folder / "made.part"
            lost = _add_boxes(coded, made, picture)
            with gdal(folder, threads):
                lost |= lost_place(made, picture.embedded.place, "JP2OpenJPEG")
            return WriteReport(_levels_yx(picture.shape_yx, copies), place_file(made, path), lost)

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        with open_file(path) as stream:
            found = list(boxes(stream, path.stat().st_size))
            copies = min(check_codestream(stream, each) for each in found if each.kind == b"jp2c")
        return _levels_yx(shape_yx, copies)

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        scale = max(1.0, max(shape_yx) / side_px)
        height, width = (max(1, round(extent / scale)) for extent in shape_yx)
        return read_smaller(path, "JP2OpenJPEG", (height, width))

    def open_levels(self, path: Path, shape_yx: tuple[int, int]) -> Levels:
        opened = Opened(path, "JP2OpenJPEG", alone=True)
        levels = pyramid_levels((opened.dataset.height, opened.dataset.width), _SMALLEST_PX)

        def read(level: int, rows: slice, columns: slice) -> NDArray:
            return read_window(opened.dataset, 2**level, rows, columns)

        return WindowLevels(levels, read, opened.close)

    def embedded(self, path: Path) -> EmbeddedMetadata:
        """Embedded metadata, with the sRGB profile if the JP2 declares sRGB by its number."""
        found = super().embedded(path)
        return replace(found, icc=found.icc or (SRGB_PROFILE if is_srgb_by_number(path) else b""))


FORMAT: Format = Jp2()


def tile_px(shape_yx: tuple[int, int]) -> int:
    """The smallest tile side that keeps the number of tiles within the limit.

    >>> tile_px((80_000, 80_000)), tile_px((132_000, 132_000))
    (1024, 2048)
    """
    side = _SMALLEST_TILE_PX
    while -(-shape_yx[0] // side) * -(-shape_yx[1] // side) > _MOST_TILES:
        side *= 2
    return side


def _levels_yx(shape_yx: tuple[int, int], copies: int) -> tuple[tuple[int, int], ...]:
    """Shapes of the levels by T.800 (B.5)."""
    return tuple((-(-shape_yx[0] // 2**level), -(-shape_yx[1] // 2**level)) for level in range(copies + 1))


def _checked_copies(coded: Path) -> int:
    """Number of smaller copies; for a narrow strip, GDAL makes other ones than requested.

    Raises OSError if the file is incomplete: GDAL does not always report a full disk.
    """
    try:
        with coded.open("rb") as stream:
            found = list(boxes(stream, coded.stat().st_size))
            return max(check_codestream(stream, each) for each in found if each.kind == b"jp2c")
    except ValueError as error:
        raise library_error(error, coded.parent) from error


def _add_boxes(coded: Path, made: Path, picture: OutputImage) -> dict[str, str]:
    """Copy ``coded`` to ``made`` with boxes that GDAL does not write. Returns what is lost, with the reason."""
    embedded = picture.embedded
    exif, lost = exif_of(picture)
    resources, damaged = image_resources(embedded.photoshop)
    lost |= damaged
    if gdal_metadata(embedded.place):
        lost["tags"] = "JPEG 2000 has no place for GDAL's own metadata (TIFF tag 42112)"
    blocks = {"exif": exif, "xmp": embedded.xmp, "iptc": embedded.iptc, "photoshop": resources}
    with coded.open("rb") as source, made.open("wb") as target:
        for each in boxes(source, coded.stat().st_size):
            source.seek(each.offset)
            if each.kind == b"jp2h" and picture.resolution:
                inside = source.read(each.size_bytes)[each.header_bytes :]
                target.write(box(b"jp2h", inside + resolution_box(picture.resolution)))
                continue
            if each.kind == b"jp2c":
                # Before the pixels, so that a sequential reader need not read past them.
                target.writelines(metadata_boxes(blocks))
                source.seek(each.offset)
                shutil.copyfileobj(source, target, _COPY_BYTES)
                break  # the rest is copied below
            target.write(source.read(each.size_bytes))
    return lost | left_out(
        picture,
        {"nodata": "JPEG 2000 has no such value", "icc": "the colours are sRGB, which a JP2 says by number"},
    )
