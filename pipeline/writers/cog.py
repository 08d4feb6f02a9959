"""Cloud Optimized GeoTIFF, by GDAL's COG driver: deflate, overviews by averages, the georeference of the scan.

Overviews are averages of the pixels that are there: nodata and what is fully transparent take no part.

References
----------
OGC Cloud Optimized GeoTIFF Standard 1.0 (21-026); GDAL raster drivers, "COG".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from pipeline.writers._beside import folder_beside, left_out, place_file
from pipeline.writers._gdal import PLAIN, copy_picture, gdal, lost_place, lost_tags, open_dataset
from pipeline.writers._picture import Picture, Written
from pipeline.writers._plain import windows

ENDING = ".color.cog.tif"

_NO_PLACE = "GDAL's COG driver does not write it"


def write(path: Path, picture: Picture, threads: int) -> Written:
    """Write ``path``, which appears only when it is complete; whatever goes wrong, an older file stays as it was.

    Raises
    ------
    OutputError : the file cannot be written: disk full, permissions. What ``picture.read_window`` raises.
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
            levels_yx = _checked_levels_yx(made, folder / PLAIN)
            lost = lost_place(made, picture.carried.place, "GTiff")
        no_place = dict.fromkeys(("exif", "iptc", "photoshop", "orientation"), _NO_PLACE)
        lost |= left_out(picture, no_place) | lost_tags(picture.carried.tags)
        return Written(levels_yx, place_file(made, path), lost)


def _checked_levels_yx(made: Path, plain: Path) -> tuple[tuple[int, int], ...]:
    """Rows, columns of each level, all of which is there. Raises OSError, or an error of GDAL's."""
    with open_dataset(made) as dataset, open_dataset(plain) as source:
        overviews = len(dataset.overviews(1))
        levels = [_shape_yx(dataset)]
        for window in _windows(dataset):
            if not np.array_equal(dataset.read(window=window), source.read(window=window)):
                raise OSError("it does not read back as it was written")
    for level in range(overviews):
        with open_dataset(made, overview_level=level) as dataset:
            levels.append(_shape_yx(dataset))
            for window in _windows(dataset):
                dataset.read(window=window)  # deflate has a checksum
    return tuple(levels)


def _shape_yx(dataset: Any) -> tuple[int, int]:
    return dataset.height, dataset.width


def _windows(dataset: Any) -> Iterator[Window]:
    return (Window.from_slices(rows, columns) for rows, columns in windows(_shape_yx(dataset)))
