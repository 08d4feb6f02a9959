"""Cloud Optimized GeoTIFF, by GDAL's COG driver: deflate, overviews by averages, the georeference of the scan.

Overviews are averages of the pixels that are there: nodata and what is fully transparent take no part.

References
----------
OGC Cloud Optimized GeoTIFF Standard 1.0 (21-026); GDAL raster drivers, "COG".
"""

from __future__ import annotations

from pathlib import Path

from pipeline.writers._beside import folder_beside, left_out, place_file
from pipeline.writers._gdal import copy_picture, gdal, lost_place, lost_tags, open_dataset
from pipeline.writers._picture import Picture, Written

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
            "made.tif",
            "COG",
            threads,
            COMPRESS="DEFLATE",
            PREDICTOR="STANDARD",
            RESAMPLING="AVERAGE",
            BIGTIFF="IF_SAFER",
            NUM_THREADS=str(threads),
        )
        with gdal(folder, threads):
            levels_yx = _levels_yx(made)
            lost = lost_place(made, picture.carried.place, "GTiff")
        no_place = dict.fromkeys(("exif", "iptc", "photoshop", "orientation"), _NO_PLACE)
        lost |= left_out(picture, no_place) | lost_tags(picture.carried.tags)
        return Written(levels_yx, place_file(made, path), lost)


def _levels_yx(path: Path) -> tuple[tuple[int, int], ...]:
    with open_dataset(path) as dataset:
        shapes = [dataset.shape]
        count = len(dataset.overviews(1))
    for level in range(count):
        with open_dataset(path, overview_level=level) as dataset:
            shapes.append(dataset.shape)
    return tuple((height, width) for height, width in shapes)
