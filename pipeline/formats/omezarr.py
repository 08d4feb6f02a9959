"""OME-Zarr 0.5: a folder of sharded Zarr v3 arrays, for viewers and for programs that read a picture in parts.

OME-Zarr has no place for a scan's metadata, so it goes into an attribute of our own, ``colorize-archive``: software,
description, orientation, nodata, XMP as text, and the blocks as base64, as in ``EmbeddedMetadata.to_json``.

References
----------
OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.formats._format import OVERVIEW_LIMIT_PX, Format
from pipeline.formats._ome_zarr import SHARD_PX, Multiscale
from pipeline.formats._plain_tiff import windows
from pipeline.formats._pyramid import halve, pyramid_levels
from pipeline.formats._staging import folder_beside, left_out, place_folder, window
from pipeline.formats._xmp import disclosure, split
from pipeline.formats.levels import Levels, WindowLevels
from pipeline.formats.picture import OutputImage, WriteReport
from pipeline.metadata.exif import DESCRIPTION
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.readers.omezarr import level_windows, read_level
from pipeline.support.files import read_text
from pipeline.support.ordered_map import OrderedThreadMap

ATTRIBUTE = "colorize-archive"

_SMALLEST_PX = 256
_BAND_ROWS = 512
_BLOCK_LIMIT_BYTES = 2**20
_NAMES_CHARACTERS = 160
_MICROMETERS = {"inch": 25_400.0, "cm": 10_000.0}
_NO_PLACE = f"readers of OME-Zarr know none; it is in the attribute {ATTRIBUTE}"


class OmeZarr(Format):
    """A folder of Zarr arrays."""

    ENDING = ENDINGS["omezarr"]
    OVERVIEW_COST = 4
    HELD_BYTES = 288 * 2**20  # Zarr's shards in several threads, encoded and not

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write the folder ``path``, which appears only when it is complete.

        Raises
        ------
        OutputError : it cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass unchanged.
        """
        levels_yx = pyramid_levels(picture.shape_yx, _SMALLEST_PX)
        attributes, lost = _attributes(picture)
        with folder_beside(path) as folder:
            made = folder / "made"
            pyramid = Multiscale(
                made,
                levels_yx,
                picture.channels,
                picture.dtype,
                fill=picture.nodata or 0,
                pixel_um=_pixel_um(picture.resolution),
                attributes={ATTRIBUTE: attributes},
                name=_as_utf8(picture.name or path.name.removesuffix(self.ENDING)),
            )
            with OrderedThreadMap(threads) as pool:
                for level in range(len(levels_yx)):
                    for _ in _written(pyramid, picture, levels_yx, level, pool):
                        pass
            lost |= left_out(picture, dict.fromkeys(("nodata", "orientation"), _NO_PLACE))
            return WriteReport(levels_yx, place_folder(made, path), lost)

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        (multiscale,) = _json(path)["attributes"]["ome"]["multiscales"]
        axes = [axis["name"] for axis in multiscale["axes"]]
        y, x = axes.index("y"), axes.index("x")
        shapes = [_json(path / each["path"])["shape"] for each in multiscale["datasets"]]
        return [(shape[y], shape[x]) for shape in shapes]

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        return read_level(path, side_px, OVERVIEW_LIMIT_PX)

    def open_levels(self, path: Path, shape_yx: tuple[int, int]) -> Levels:
        return WindowLevels(*level_windows(path))

    def embedded(self, path: Path) -> EmbeddedMetadata:
        found = super().embedded(path)
        return replace(found, tags=(*found.tags, *_described(path)))


FORMAT: Format = OmeZarr()


def _written(
    pyramid: Multiscale,
    picture: OutputImage,
    levels_yx: tuple[tuple[int, int], ...],
    level: int,
    pool: OrderedThreadMap,
) -> Iterator[Any]:
    """Write every shard of a level, one task each; the next larger level must be complete."""

    def make(shard: tuple[slice, slice]) -> None:
        rows, columns = shard
        samples = np.empty((rows.stop - rows.start, columns.stop - columns.start, picture.channels), picture.dtype)
        for y in range(rows.start, rows.stop, _BAND_ROWS):
            band = slice(y, min(y + _BAND_ROWS, rows.stop))
            read = _halved(pyramid, picture, levels_yx[level - 1], level, band, columns) if level else None
            samples[y - rows.start : band.stop - rows.start] = window(picture, band, columns) if read is None else read
        pyramid.write(level, rows.start, columns.start, samples)

    return pool.map(make, windows(levels_yx[level], SHARD_PX, SHARD_PX))


def _halved(
    pyramid: Multiscale, picture: OutputImage, above_yx: tuple[int, int], level: int, rows: slice, columns: slice
) -> NDArray:
    above = pyramid.read(level - 1, _twice(rows, above_yx[0]), _twice(columns, above_yx[1]))
    return halve(above, picture.nodata)


def _twice(part: slice, extent: int) -> slice:
    return slice(2 * part.start, min(2 * part.stop, extent))


def _pixel_um(resolution: tuple[float, float, str] | None) -> tuple[float, float] | None:
    if resolution is None or resolution[2] not in _MICROMETERS or min(resolution[:2]) <= 0:
        return None
    x, y, unit = resolution
    return _MICROMETERS[unit] / y, _MICROMETERS[unit] / x


def _attributes(picture: OutputImage) -> tuple[dict[str, Any], dict[str, str]]:
    """Our own attribute, and the blocks that are too large for it, with the reason."""
    embedded, lost = picture.embedded, {}
    too_large: dict[str, Any] = {}
    for name in ("icc", "exif", "iptc", "photoshop"):
        block: bytes = getattr(embedded, name)
        if len(block) > _BLOCK_LIMIT_BYTES:
            too_large[name] = b""
            lost[name] = f"{len(block)} bytes, above the limit of {_BLOCK_LIMIT_BYTES} of an attribute"
    embedded = replace(embedded, **too_large, xmp=_xmp(picture, lost))
    attributes: dict[str, Any] = {"software": _as_utf8(picture.software)}
    attributes["description"] = _as_utf8(picture.description)
    attributes |= {"orientation": picture.orientation, "nodata": picture.nodata, "resolution": picture.resolution}
    attributes |= {"xmp": embedded.xmp.decode("utf-8", "replace"), "carried": replace(embedded, xmp=b"").to_json()}
    return {name: value for name, value in attributes.items() if value not in (None, "", {})}, lost


def _as_utf8(text: str) -> str:
    """``text`` with unpaired surrogates escaped: they come from file names and are not valid JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def _xmp(picture: OutputImage, lost: dict[str, str]) -> bytes:
    """The packet without the properties that make it too large."""
    packet = picture.embedded.xmp
    try:
        made = split(packet, _BLOCK_LIMIT_BYTES, extended=False)
    except ValueError as error:
        lost["xmp"] = f"{len(packet)} bytes, above the limit of {_BLOCK_LIMIT_BYTES} of an attribute: {error}"
        return disclosure(packet, picture.software, picture.description)
    if made.moved:
        names = ", ".join(made.moved)
        lost["xmp"] = (
            f"above the limit of {_BLOCK_LIMIT_BYTES} bytes of an attribute without {names[:_NAMES_CHARACTERS]}"
        )
    return made.main


def _json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_text(folder / "zarr.json"))
    return found


def _described(path: Path) -> Iterator[TiffTag]:
    """The description of an OME-Zarr that we wrote."""
    text = str(_json(path).get("attributes", {}).get(ATTRIBUTE, {}).get("description", "")).encode()
    if text:
        yield TiffTag(DESCRIPTION, 2, len(text) + 1, text + b"\0")
