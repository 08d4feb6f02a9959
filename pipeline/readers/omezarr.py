"""OME-Zarr (OME-NGFF 0.4 and 0.5): a folder with one multiscale image, read at full resolution.

The folder may come from anywhere, so its metadata is not trusted: codecs come from a fixed list that handles only bytes
(Zarr v2's object filters can run code), names stay inside the folder, no symbolic link is followed, sizes are checked
before a chunk is opened, and no codec may return more than the chunk declares.

Chunks are decoded here, with imagecodecs and zlib, not by zarr-python, because its codecs return whatever a stream
inflates to. A shard's inner chunks are read one by one, through its index.

References
----------
OME-NGFF 0.4 and 0.5 (ngff.openmicroscopy.org), "multiscales" and "omero"; Zarr v2 and v3 core specifications; Zarr v3
codecs: bytes, transpose, gzip, blosc, zstd, crc32c, sharding_indexed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.readers._base import CACHE_BYTES, check_size, reason, refuse_drive_errors
from pipeline.readers._conversion import stretched
from pipeline.readers._lightness import Light, Stretch, opacity_of
from pipeline.readers._metadata_blocks import ascii_value, printable
from pipeline.readers._region_reader import SegmentedReader, Source
from pipeline.readers._zarr import ZarrArray, load_json
from pipeline.types import ReadOptions

# One unit in centimetres.
_CENTIMETRES = {
    "angstrom": 1e-8,
    "nanometer": 1e-7,
    "micrometer": 1e-4,
    "millimeter": 0.1,
    "centimeter": 1.0,
    "decimeter": 10.0,
    "meter": 100.0,
    "inch": 2.54,
}
_CHUNK_COPIES = 3  # encoded, decoded, and as part of a window
_ROW_OF_CHUNKS_BYTES = 2**28
_SEGMENT_PX = 512
_RGBA = ["red", "green", "blue", "alpha"]


def recognizes_folder(path: Path) -> bool:
    """True if the folder's metadata describes a multiscale image."""
    try:
        return "multiscales" in _attributes(path)
    except (ScanError, OSError):
        return False


def open_reader(path: Path, reading: ReadOptions) -> SegmentedReader:
    """Open the full resolution. Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    try:
        attributes = _attributes(path)
        multiscale, others = _multiscale_of(attributes)
        name = str(multiscale["datasets"][0]["path"])
        array = ZarrArray(path, name)
        axes = _axes_of(multiscale, len(array.shape))
        is_rgba = _is_rgba(attributes)
        source, cache_bytes = _source_of(array, axes, multiscale, others, reading, is_rgba, _told(path))
    except ScanError:
        raise
    except OSError as error:
        refuse_drive_errors(error)
        raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ScanDamagedError(f"damaged OME-Zarr metadata ({reason(error)}); restore it from its source") from error
    return SegmentedReader(path, reading, source, cache_bytes)


def read_level(path: Path, side_px: int, limit_px: int) -> NDArray:
    """(h, w, channels) samples of the smallest level with a long side of at least ``side_px``, or of the first level.

    Raises
    ------
    ScanUnreadableError, ScanUnsupportedError : damaged; or the level has more than ``limit_px`` pixels. Other
    exceptions if the metadata is not that of an OME-Zarr.
    """
    multiscale, _ = _multiscale_of(_attributes(path))
    levels = [ZarrArray(path, str(each["path"])) for each in multiscale["datasets"]]
    axes = _axes_of(multiscale, len(levels[0].shape))
    array = next((each for each in reversed(levels) if max(each.shape[-2:]) >= side_px), levels[0])
    check_size((array.shape[-2], array.shape[-1]), limit_px)
    whole = array.read(
        [range(size) if axis in "cyx" else range(1) for axis, size in zip(axes, array.shape, strict=True)]
    )
    return np.moveaxis(whole.reshape(-1, *array.shape[-2:]), 0, -1)


def level_windows(path: Path) -> tuple[list[tuple[int, int]], Callable[[int, slice, slice], NDArray]]:
    """Rows, columns of each level, and a function that reads (h, w, channels) samples of a window of one.

    Raises as :func:`read_level`.
    """
    multiscale, _ = _multiscale_of(_attributes(path))
    levels = [ZarrArray(path, str(each["path"])) for each in multiscale["datasets"]]
    axes = _axes_of(multiscale, len(levels[0].shape))

    def read(level: int, rows: slice, columns: slice) -> NDArray:
        wanted = {"y": range(rows.start, rows.stop), "x": range(columns.start, columns.stop)}
        sizes = zip(axes, levels[level].shape, strict=True)
        window = levels[level].read([wanted.get(axis, range(size if axis == "c" else 1)) for axis, size in sizes])
        return np.moveaxis(window.reshape(-1, *window.shape[-2:]), 0, -1)

    return [(array.shape[-2], array.shape[-1]) for array in levels], read


def _attributes(path: Path) -> Mapping[str, Any]:
    """Attributes of the group, which are under "ome" in version 0.5; empty if there are none."""
    if (found := load_json(path, path / "zarr.json")) is not None:
        attributes = found.get("attributes", {})
        attributes = attributes.get("ome", {}) if isinstance(attributes, dict) else {}
    else:
        attributes = load_json(path, path / ".zattrs")
    return attributes if isinstance(attributes, dict) else {}


def _multiscale_of(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    multiscales = attributes["multiscales"]
    version = str(attributes.get("version") or multiscales[0].get("version") or "0.4")
    if version not in ("0.4", "0.5"):
        raise ScanUnsupportedError(
            f"OME-Zarr {printable(version)}, of which 0.4 and 0.5 are handled; convert it with ome-zarr"
        )
    count = len(multiscales)
    return multiscales[0], ["image 2" if count == 2 else f"images 2-{count}"] if count > 1 else []


def _axes_of(multiscale: Mapping[str, Any], dimensions: int) -> str:
    """One letter of "tczyx" per dimension; y and x are the last two."""
    names = [str(axis["name"]).lower() for axis in multiscale["axes"]]
    axes = "".join(names)
    if len(names) != dimensions or len(set(names)) != len(names) or not set(names) <= set("tczyx"):
        raise ScanUnsupportedError(f"axes {printable(', '.join(names))}, of which t, c, z, y and x are handled")
    if not axes.endswith("yx"):
        raise ScanUnsupportedError(
            f"axes in the order {axes}, of which y and x must be the last; rewrite it with ome-zarr"
        )
    return axes


def _is_rgba(attributes: Mapping[str, Any]) -> bool:
    """True if four channels are labelled red, green, blue and opacity."""
    channels = attributes.get("omero", {}).get("channels", ())
    return [str(channel.get("label")).lower() for channel in channels] in (list("rgba"), _RGBA)


def _told(path: Path) -> Mapping[str, Any]:
    """The attribute in which a result of this project describes itself; empty in other folders."""
    attributes = (load_json(path, path / "zarr.json") or {}).get("attributes")
    told = attributes.get("colorize-archive") if isinstance(attributes, dict) else None
    return told if isinstance(told, dict) else {}


def _source_of(
    array: ZarrArray,
    axes: str,
    multiscale: Mapping[str, Any],
    others: list[str],
    reading: ReadOptions,
    is_rgba: bool,
    told: Mapping[str, Any],
) -> tuple[Source, int]:
    shape, chunk = dict(zip(axes, array.shape, strict=True)), dict(zip(axes, array.chunks, strict=True))
    height, width = shape["y"], shape["x"]
    check_size((height, width), reading.limit_pixels)
    if 0 in shape.values():
        raise ScanUnsupportedError(f"declares an array of {array.shape}, an empty picture; remove it from the request")
    has_alpha = is_rgba and shape.get("c") == 4 and array.dtype.name in ("uint8", "uint16")
    channels = 3 if has_alpha or shape.get("c", 1) == 3 else 1
    bands = 4 if has_alpha else channels
    dropped = others + [_rest(axis, shape[axis]) for axis in axes[:-2] if shape[axis] > (bands if axis == "c" else 1)]

    def decode(rows: range, columns: range) -> NDArray:
        where = {"y": rows, "x": columns, "c": range(bands)}
        stored = array.read([where.get(axis, range(1)) for axis in axes])
        return np.ascontiguousarray(np.moveaxis(stored.reshape(-1, len(rows), len(columns)), 0, 2))

    # Small chunks are read by the dozen, but in salvage one by one, so that damage costs only one.
    least = 1 if reading.salvage else _SEGMENT_PX
    tall, wide = (min(shape[axis], chunk[axis] * max(1, least // chunk[axis])) for axis in "yx")

    def every() -> Iterator[NDArray]:
        for y in range(0, height, tall):
            for x in range(0, width, wide):
                yield decode(range(y, min(y + tall, height)), range(x, min(x + wide, width)))

    stretch = Stretch(0, 1, "uint8") if array.dtype == bool else Stretch.of(array.dtype.name, 0, every)

    dtype = stretch.dtype if stretch else array.dtype.name
    masked = stretch is not None and stretch.has_nan
    metadata: dict[str, Any] = {"format": "OME-Zarr", "compression": array.compression}
    if resolution := _resolution_of(multiscale, axes) or _told_resolution(told):
        metadata["resolution"] = resolution
    if told.get("orientation") in range(1, 9):
        metadata["orientation"] = told["orientation"]
    made = replace(
        stretched(channels, dtype, Light(), stretch),
        opacity=(lambda stored: stored[:, :, 3]) if has_alpha else opacity_of(None, dtype) if masked else None,
        nodata=0 if masked else None,
    )
    source = Source(
        info=made.info((height, width), metadata, dropped),
        embedded=_carried(multiscale, told),
        segment_yx=(tall, wide),
        decode=decode,
        close=lambda: None,
        convert=made.convert,
        opacity=made.opacity,
        decoder_bytes=_CHUNK_COPIES * math.prod(array.chunks) * array.dtype.itemsize,
    )
    row_of_segments = tall * width * bands * array.dtype.itemsize
    return source, max(CACHE_BYTES, min(row_of_segments + CACHE_BYTES, _ROW_OF_CHUNKS_BYTES))


def _rest(axis: str, size: int) -> str:
    name = {"t": "moment", "c": "channel", "z": "plane"}[axis]
    return f"{name} 2" if size == 2 else f"{name}s 2-{size}"


def _resolution_of(multiscale: Mapping[str, Any], axes: str) -> list[float | str] | None:
    """Pixels per centimetre, from the scales of the first data set and of the whole; None without a unit of length."""
    scale = {"y": 1.0, "x": 1.0}
    for where in (multiscale["datasets"][0], multiscale):
        for step in where.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and "scale" in step:
                for axis, factor in zip(axes, step["scale"], strict=True):
                    if axis in scale:
                        scale[axis] *= float(factor)
    units = {axis: multiscale["axes"][axes.index(axis)].get("unit") for axis in "xy"}
    if not all(units[axis] in _CENTIMETRES and 0 < scale[axis] < float("inf") for axis in "xy"):
        return None
    x, y = (1 / (scale[axis] * _CENTIMETRES[units[axis]]) for axis in "xy")
    return [x, y, "cm"]


def _told_resolution(told: Mapping[str, Any]) -> list[float | str] | None:
    """The resolution of a result if it has no unit of length, which OME-Zarr itself cannot express."""
    with contextlib.suppress(TypeError, ValueError):
        x, y, unit = told.get("resolution", (0, 0, "none"))
        if unit == "none" and all(0 < float(value) < float("inf") for value in (x, y)):
            return [float(x), float(y), unit]
    return None


def _carried(multiscale: Mapping[str, Any], told: Mapping[str, Any]) -> EmbeddedMetadata:
    if told:
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
            return replace(EmbeddedMetadata.from_json(told.get("carried", {})), xmp=str(told.get("xmp", "")).encode())
    name = multiscale.get("name")
    if not isinstance(name, str) or not name.isprintable() or name in ("", "/"):
        return EmbeddedMetadata()
    value = ascii_value(name)
    return EmbeddedMetadata(tags=(TiffTag(269, 2, len(value), value),))
