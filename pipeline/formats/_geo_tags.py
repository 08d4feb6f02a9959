"""A georeference as GeoTIFF tags.

A GeoTIFF's own tags are kept as they were. For a georeference from another format, GDAL writes the tags into a picture
of one pixel in memory; reading that back shows what was lost.

References
----------
OGC GeoTIFF 1.1 (19-008r4); GDAL's GTiff driver (50844 RPCCoefficientTag).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import rasterio
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.rpc import RPC

from pipeline.metadata.model import Georeference, TiffTag
from pipeline.support.gdal import environment, quiet
from pipeline.support.text import reason_of

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 50844)


def geo_tags(place: Georeference | None, missing: dict[str, str]) -> tuple[TiffTag, ...]:
    """The tags of ``place``; parts that they cannot express go into ``missing``, named as in ``not_carried``."""
    if place is None:
        return ()
    if place.tags:
        return tuple(tag for tag in place.tags if tag.code in GEO_TAGS)
    gcps = place.gcps
    if gcps and place.transform:
        missing["gcps"] = "a GeoTIFF has either a transform or control points"
        gcps = ()
    try:
        return _made(place, gcps, missing)
    except Exception as error:  # rasterio raises unrelated types; in any case the georeference is not in the file
        missing["place"] = f"GDAL cannot write it as GeoTIFF ({reason_of(error)})"
        return ()


def _made(place: Georeference, gcps: Iterable[tuple[float, ...]], missing: dict[str, str]) -> tuple[TiffTag, ...]:
    options: dict[str, Any] = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    options["ENDIANNESS"] = "LITTLE"
    points = [GroundControlPoint(row, col, x, y, z) for row, col, x, y, z in gcps]
    wkt = place.gcps_crs or place.crs if points else place.crs
    crs = CRS.from_wkt(wkt) if wkt else None
    transform = rasterio.Affine(*place.transform) if place.transform else None
    # Without GDAL's sidecar, so that losses in the tags show. Quiet, because there may be a CRS and no transform.
    with quiet(), environment(), MemoryFile() as memory:
        with memory.open(**options) as made:
            made.write(np.zeros((1, 1, 1), np.uint8))
            if points:
                made.gcps = points, crs
            elif crs is not None:
                made.crs = crs
            if transform is not None:
                made.transform = transform
            if place.rpcs:
                made.rpcs = _rpc(place.rpcs)
        memory.seek(0)
        data = memory.read()
        with memory.open() as found:
            _compare(found, crs, points, transform, bool(place.rpcs), missing)
    return _raw(data)


def _compare(
    found: Any, crs: CRS | None, points: list[GroundControlPoint], transform: Any, rpcs: bool, missing: dict[str, str]
) -> None:
    got_points, got_crs = found.gcps
    if crs is not None and (got_crs if points else found.crs) != crs:
        missing["place"] = "GeoTIFF cannot say its coordinate system in full"
    if len(got_points) != len(points):
        missing["gcps"] = f"GeoTIFF holds {len(got_points)} of {len(points)} control points"
    if transform is not None and not np.allclose(found.transform, transform, rtol=1e-9, atol=0):
        missing["place"] = "GeoTIFF cannot say its transform"
    if rpcs and found.rpcs is None:
        missing["rpcs"] = "GDAL writes none of them"


def _rpc(values: Mapping[str, str]) -> RPC:
    """RPCs from GDAL's names, such as LINE_NUM_COEFF; names that are not coefficients are ignored."""
    known = {name.upper() for name in RPC.__slots__}
    return RPC.from_gdal({name: value for name, value in values.items() if name in known})


def _raw(data: bytes) -> tuple[TiffTag, ...]:
    with tifffile.TiffFile(BytesIO(data)) as file:
        return tuple(
            TiffTag(tag.code, int(tag.dtype), tag.count, data[tag.valueoffset : tag.valueoffset + tag.valuebytecount])
            for tag in file.pages[0].tags
            if tag.code in GEO_TAGS
        )
