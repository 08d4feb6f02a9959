"""Shared by the formats that GDAL writes: its settings, translation of its errors, and the picture as a GDAL dataset.

GDAL copies a whole dataset, so the picture is first written as one plain TIFF, with everything that GDAL can carry.
What the copy lost is found by comparing the two, not by trusting a driver's documentation.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from pipeline.formats._plain_tiff import write_plain
from pipeline.formats._staging import library_error
from pipeline.formats.picture import OutputImage
from pipeline.metadata.exif import tiff_text
from pipeline.metadata.model import Georeference, TiffTag
from pipeline.support.gdal import Opened, environment

PLAIN = "plain.part"

# The descriptive tags that GDAL has a name for.
_TAG_NAMES = {
    269: "TIFFTAG_DOCUMENTNAME",
    306: "TIFFTAG_DATETIME",
    315: "TIFFTAG_ARTIST",
    316: "TIFFTAG_HOSTCOMPUTER",
    33432: "TIFFTAG_COPYRIGHT",
}
_RESOLUTION_UNITS = {"none": 1, "inch": 2, "cm": 3}
_GDAL_METADATA = 42112
_GEO_KEYS, _RASTER_TYPE, _POINT = 34735, 1025, 2


@contextlib.contextmanager
def gdal(folder: Path, threads: int) -> Iterator[None]:
    """GDAL without side files, with its errors as OSError and its temporary files in ``folder``."""
    settings = {"GDAL_NUM_THREADS": threads, "CPL_TMPDIR": str(folder)}
    _quiet_libtiff()
    try:
        with environment(**settings):
            yield
    except (RasterioError, CPLE_BaseError) as error:  # some of these are OSErrors, without a number
        raise library_error(error.__cause__ or error, folder) from error


@functools.cache
def _quiet_libtiff() -> None:
    """Stop libtiff from printing errors that it also reports to GDAL, such as a full disk."""
    for library in Path(rasterio.__file__).parents[1].glob("rasterio.libs/libtiff-*"):
        # The copy in rasterio's wheel, which is already loaded; TIFFError(3TIFF): no handler, no message.
        ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)


def open_dataset(path: Path, mode: str = "r", driver: str = "GTiff") -> Opened:
    """The dataset ``path``, for a ``with`` statement."""
    return Opened(path, driver, mode)


def copy_picture(picture: OutputImage, folder: Path, name: str, driver: str, threads: int, **options: Any) -> Path:
    """Write ``picture`` as the file ``name`` in ``folder``, by ``driver`` and its creation ``options``; its path.

    GDAL does not report all errors when it closes a file on a full disk: check the file before keeping it.

    Raises
    ------
    OSError : errors of the disk or of GDAL
    """
    plain, made = folder / PLAIN, folder / name
    write_plain(plain, picture, threads, tags=_tags(picture))
    with gdal(folder, threads):
        if picture.embedded.place is not None:
            with open_dataset(plain, "r+") as dataset:
                _set_place(dataset, picture.embedded.place)
        with open_dataset(plain) as source:
            rasterio.shutil.copy(source, made, driver=driver, **options)
    return made


def lost_place(made: Path, place: Georeference | None, driver: str) -> dict[str, str]:
    """The parts of ``place`` that the file ``made`` lacks, each with the reason."""
    if place is None:
        return {}
    with open_dataset(made, driver=driver) as dataset:
        crs = dataset.crs if dataset.crs else dataset.gcps[1]
        there = {
            "place": (not place.crs or _same_crs(dataset.crs, place.crs))
            and (not place.transform or tuple(dataset.transform)[:6] == place.transform),
            "gcps": not place.gcps or (_gcps(dataset) == place.gcps and _same_crs(crs, place.gcps_crs)),
            "rpcs": not place.rpcs or _same_rpcs(dataset.tags(ns="RPC"), dict(place.rpcs)),
        }
    return {name: "GDAL does not write these into this format" for name, kept in there.items() if not kept}


def gdal_metadata(place: Georeference | None) -> tuple[TiffTag, ...]:
    """GDAL's own metadata tag of a GeoTIFF, if there is one."""
    return tuple(tag for tag in place.tags if tag.code == _GDAL_METADATA) if place else ()


def lost_tags(tags: tuple[TiffTag, ...]) -> dict[str, str]:
    """A note on descriptive tags that GDAL has no name for."""
    codes = ", ".join(str(tag.code) for tag in tags if tag.code not in _TAG_NAMES)
    return {"tags": f"GDAL does not write TIFF tag {codes}"} if codes else {}


def _tags(picture: OutputImage) -> dict[str, Any]:
    embedded = picture.embedded
    extra: list[tuple[Any, ...]] = [
        (tag.code, tag.type, tag.count, tag.value, True) for tag in embedded.tags if tag.code in _TAG_NAMES
    ]
    extra += [(tag.code, tag.type, tag.count, tag.value, True) for tag in gdal_metadata(embedded.place)]
    if picture.nodata is not None:
        text = f"{picture.nodata}\0".encode()
        extra.append((42113, 2, len(text), text, True))  # GDAL_NODATA
    if embedded.xmp:
        extra.append((700, 1, len(embedded.xmp), embedded.xmp, True))
    tags: dict[str, Any] = {"extratags": extra, "software": tiff_text(picture.software) or False}
    if picture.description:
        tags["description"] = tiff_text(picture.description)
    if embedded.icc:
        tags["iccprofile"] = embedded.icc
    if picture.resolution is not None:
        tags["resolution"] = picture.resolution[:2]
        tags["resolutionunit"] = _RESOLUTION_UNITS[picture.resolution[2]]
    return tags


def _set_place(dataset: Any, place: Georeference) -> None:
    if place.gcps:
        points = [GroundControlPoint(row, column, x, y, z) for row, column, x, y, z in place.gcps]
        dataset.gcps = (points, _crs(place.gcps_crs))
    if (crs := _crs(place.crs)) is not None:
        dataset.crs = crs
    if place.transform:
        dataset.transform = rasterio.Affine(*place.transform)
    if place.rpcs:
        dataset.update_tags(ns="RPC", **place.rpcs)
    if _is_point(place.tags):
        dataset.update_tags(AREA_OR_POINT="Point")


def _is_point(tags: tuple[TiffTag, ...]) -> bool:
    """True if the samples of a GeoTIFF are points: GTRasterTypeGeoKey (OGC 19-008r4, 7.2)."""
    for tag in tags:
        if tag.code == _GEO_KEYS and len(tag.value) % 8 == 0:
            keys = struct.iter_unpack("<4H", tag.value)
            return any(key == (_RASTER_TYPE, 0, 1, _POINT) for key in keys)
    return False


def _crs(wkt: str) -> CRS | None:
    try:
        return CRS.from_wkt(wkt) if wkt else None
    except CRSError:  # the final comparison reports the loss
        return None


def _same_crs(crs: CRS | None, wkt: str) -> bool:
    return bool(crs == _crs(wkt)) if crs and wkt else bool(crs) == bool(wkt)


def _gcps(dataset: Any) -> tuple[tuple[float, ...], ...]:
    return tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in dataset.gcps[0])


def _same_rpcs(there: dict[str, str], rpcs: dict[str, str]) -> bool:
    def numbers(texts: dict[str, str], name: str) -> list[float]:
        return [float(text) for text in texts.get(name, "").split()]

    try:
        return all(numbers(there, name) == numbers(rpcs, name) for name in rpcs)
    except ValueError:
        return False
