"""A folder of IIIF tiles as one picture, assembled as a viewer does it, from the addresses that follow from info.json.

References
----------
IIIF Image API 3.0 (https://iiif.io/api/image/3.0/), 4.7 (canonical addresses) and 5.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError, ScanUnreadableError
from pipeline.formats._orientation import turned_back, turned_shape
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.support.files import read_text
from pipeline.types import ScanInfo

LARGEST = Path("full", "max", "0", "default.jpg")
_CACHE_BYTES = 64 * 2**20
_SMALLEST_SIDE_PX, _MOST_FACTORS = 64, 32


@dataclass(frozen=True)
class Tile:
    """A tile: its path in the folder, the region of the upright picture that it shows, and its own rows and columns."""

    path: Path
    rows: slice
    columns: slice
    shape_yx: tuple[int, int]


class Tiles:
    """Reads a folder; a context manager, like readers of scans.

    Windows are those of the scan as stored: the tiles are upright, and ``orientation`` is the scan's.

    Raises
    ------
    ScanUnreadableError : info.json is missing or incomplete; a tile is missing, damaged or of another size
    """

    def __init__(self, path: Path, orientation: int = 1) -> None:
        self._path = path
        told = _info_of(path)
        self.shape_yx, self.side_px, self.factors = told
        stored_yx = turned_shape(self.shape_yx, orientation)
        metadata = {"orientation": orientation, "format": "IIIF"}
        self.info = ScanInfo(stored_yx, 3, "uint8", metadata)
        self.segment_yx = (self.side_px, self.side_px)
        self.embedded, self.missing_regions, self.decoder_bytes = EmbeddedMetadata(), (), 0
        self.read = turned_back(self._read, stored_yx, orientation)
        self._cache: OrderedDict[Path, NDArray] = OrderedDict()
        row_bytes = -(-self.shape_yx[1] // self.side_px) * 3 * self.side_px**2
        self._cache_bytes = max(_CACHE_BYTES, row_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._cache.clear()

    def every(self, factor: int) -> Iterator[Tile]:
        """The tiles of the picture reduced by ``factor``, in raster order."""
        height, width = self.shape_yx
        step = self.side_px * factor
        for y in range(0, height, step):
            for x in range(0, width, step):
                yield self._tile(slice(y, min(y + step, height)), slice(x, min(x + step, width)), factor)

    def missing(self) -> Iterator[Path]:
        """Addresses of tiles and of whole pictures whose file is missing or has another size or profile."""
        wanted = [(tile.path, tile.shape_yx) for factor in self.factors for tile in self.every(factor)]
        sizes = json.loads(read_text(self._path / "info.json")).get("sizes", [])
        wholes = [(int(size["height"]), int(size["width"])) for size in sizes]
        for height, width in wholes:
            wanted.append((self._path / "full" / f"{width},{height}" / "0" / "default.jpg", (height, width)))
        wanted.append((self._path / LARGEST, max(wholes, default=self.shape_yx)))
        profile = _look(self._path / LARGEST)[1]
        for path, shape_yx in wanted:
            if _look(path) != (shape_yx, profile):
                yield path.relative_to(self._path)

    def _tile(self, rows: slice, columns: slice, factor: int) -> Tile:
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        region = f"{columns.start},{rows.start},{wide},{tall}" if (tall, wide) != self.shape_yx else "full"
        shape_yx = -(-tall // factor), -(-wide // factor)
        path = self._path / region / f"{shape_yx[1]},{shape_yx[0]}" / "0" / "default.jpg"
        return Tile(path, rows, columns, shape_yx)

    def read_mask(self, rows: slice, columns: slice) -> NDArray:
        raise ScanError("IIIF tiles have no mask; ask info.mask first")

    def _read(self, rows: slice, columns: slice) -> NDArray:
        return self.read_reduced(1, rows, columns)

    def read_reduced(self, factor: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """(h, w, 3) samples of a window of the upright picture reduced by one of ``factors``; for one thread."""
        window = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        side, (height, width) = self.side_px, self.shape_yx
        for y in range(rows.start // side * side, rows.stop, side):
            for x in range(columns.start // side * side, columns.stop, side):
                tall, wide = (
                    slice(at * factor, min((at + side) * factor, extent)) for at, extent in ((y, height), (x, width))
                )
                tile = self._tile(tall, wide, factor)
                top, left = max(y, rows.start), max(x, columns.start)
                bottom, right = min(y + tile.shape_yx[0], rows.stop), min(x + tile.shape_yx[1], columns.stop)
                part = self._decoded(tile)[top - y : bottom - y, left - x : right - x]
                window[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part
        return window

    def _decoded(self, tile: Tile) -> NDArray:
        if tile.path in self._cache:
            self._cache.move_to_end(tile.path)
            return self._cache[tile.path]
        if not tile.path.is_file():
            raise ScanUnreadableError(f"the tile {tile.path.relative_to(self._path)} is not there; write it anew")
        with open_scan(tile.path) as reader:
            found = reader.info.shape_yx
            samples = reader.read(slice(0, found[0]), slice(0, found[1]))
        if found != tile.shape_yx:
            raise ScanUnreadableError(f"the tile {tile.path.relative_to(self._path)} is {found}, not {tile.shape_yx}")
        samples = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
        self._cache[tile.path] = samples
        while sum(each.nbytes for each in self._cache.values()) > self._cache_bytes and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return samples


def _look(path: Path) -> tuple[tuple[int, int] | None, bytes]:
    """Rows, columns and the profile of one JPEG; None and no profile if it cannot be read."""
    try:
        with open_scan(path) as reader:
            return reader.info.shape_yx, reader.embedded.icc
    except (ScanError, OSError):
        return None, b""


def _info_of(path: Path) -> tuple[tuple[int, int], int, tuple[int, ...]]:
    """Rows and columns, the side of a tile, and the scale factors of the copies, from info.json."""
    try:
        told: dict[str, Any] = json.loads(read_text(path / "info.json"))
        (tiles,) = told["tiles"]
        shape_yx, side = (int(told["height"]), int(told["width"])), int(tiles["width"])
        factors = tuple(int(factor) for factor in tiles["scaleFactors"])
        if min(*shape_yx, *factors) < 1 or factors[0] != 1 or len(factors) > _MOST_FACTORS or side < _SMALLEST_SIDE_PX:
            raise ValueError("sizes that no picture has")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ScanUnreadableError(f"info.json does not say what tiles there are ({error}); write them anew") from error
    return shape_yx, side, factors
