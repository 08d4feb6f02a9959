"""Cloud Optimized GeoTIFF, by GDAL's COG driver: deflate, overviews by averages, the georeference of the scan.

Overviews average only pixels with a picture: nodata and fully transparent pixels are left out.

References
----------
OGC Cloud Optimized GeoTIFF Standard 1.0 (21-026); GDAL raster drivers, "COG".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import tifffile
from isal import isal_zlib

from pipeline.endings import FORMATS as ENDINGS
from pipeline.formats._format import Format
from pipeline.formats._gdal import copy_picture, gdal, lost_place, lost_tags, open_dataset
from pipeline.formats._staging import folder_beside, left_out, library_error, place_file
from pipeline.formats._tiff_format import TiffFormat
from pipeline.formats.picture import OutputImage, WriteReport
from pipeline.support.ordered_map import OrderedThreadMap

_DAMAGED = cast("type[Exception]", isal_zlib.error)
_NO_PLACE = "GDAL's COG driver does not write it"


class Cog(TiffFormat):
    """GDAL's COG driver; what it cannot write is listed."""

    ENDING = ENDINGS["cog"]
    OVERVIEW_COST = 2
    HELD_BYTES = 128 * 2**20  # GDAL's cache, and tiles of several threads

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; on any error, an existing file stays unchanged.

        Raises
        ------
        OutputError : the file cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass on.
        """
        with folder_beside(path) as folder:
            made = copy_picture(
                picture,
                folder,
                "made.part",
                "COG",
                threads,
                COMPRESS="DEFLATE",
                PREDICTOR="STANDARD",
                RESAMPLING="AVERAGE",
                BIGTIFF="IF_SAFER",
                NUM_THREADS=str(threads),
            )
            with gdal(folder, threads):
                with open_dataset(made):
                    pass  # opens, so its directories at least are complete
                levels_yx = _checked_levels_yx(made, threads)
                lost = lost_place(made, picture.embedded.place, "GTiff")
            no_place = dict.fromkeys(("exif", "iptc", "photoshop", "orientation"), _NO_PLACE)
            lost |= left_out(picture, no_place) | lost_tags(picture.embedded.tags)
            return WriteReport(levels_yx, place_file(made, path), lost)


FORMAT: Format = Cog()


def _checked_levels_yx(made: Path, threads: int) -> tuple[tuple[int, int], ...]:
    """Rows, columns of each level, after a check of all tiles: deflate has a checksum, which GDAL ignores.

    Raises OSError if a tile is incomplete.
    """

    def check(place: tuple[int, int]) -> None:
        offset, size_bytes = place
        isal_zlib.decompress(os.pread(stream.fileno(), size_bytes, offset))

    try:
        with made.open("rb") as stream, tifffile.TiffFile(made) as file, OrderedThreadMap(threads) as pool:
            for page in file.pages:
                for _ in pool.map(check, zip(page.dataoffsets, page.databytecounts, strict=True)):
                    pass
            return tuple((page.shape[0], page.shape[1]) for page in file.pages)
    except (ValueError, _DAMAGED) as error:
        raise library_error(error, made.parent) from error
