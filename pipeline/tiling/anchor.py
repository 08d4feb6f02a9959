"""One palette for a whole scan: colour is decided on the whole, detail by the tiles.

The network sees one tile at a time, so a sky may be blue in one and gray in the next, and no blending hides that. The
anchor is one pass of the same network over the scan, shrunk until its long side has 257 to 512 px. Each tile's
prediction is then split in two bands: what varies from cell to cell (16 px, or one pixel of the shrunk scan if that is
larger) comes mostly from the anchor, what varies within a cell stays the tile's own. This is the two-band splitting of
Burt and Adelson, with the bands taken from different sources. It is done tile by tile, before blending, so it needs no
second pass over the result, and its bytes do not depend on how the scan is divided.

Ideally the low bands of two neighbouring tiles are equal, and there is no seam to hide. The measurements behind 512 px,
16 px and 0.85 are in ``docs/results.md``.

References
----------
Burt, Adelson (1983), "A multiresolution spline with application to image mosaics", ACM Transactions on Graphics 2 (4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples
from pipeline.colour.resize import StraightLines, area_means
from pipeline.support.array_backend import Array, Device
from pipeline.tiling.grid import TileOrigin
from pipeline.types import Roi

F32 = NDArray[np.float32]
Predict = Callable[[F32], F32]
Reader = Callable[[Roi], NDArray]

LONGEST_PX = 512
CELL_PX = 16
# Share of the anchor in the low band. With a share of 1, a scan much larger than the anchor loses what the tiles know.
WEIGHT = np.float32(0.85)
# Side of the windows in which the scan is read; a power of two, like the shrink factor.
_WINDOW_PX = 2048
# A strip whose short side shrinks below this, such as a panorama of 20:1, is too thin for the network to recognize.
_LEAST_SIDE_PX = 32


@dataclass(frozen=True)
class Anchor:
    """The palette of a scan.

    Attributes
    ----------
    cells : (2, h, w) float32 a*, b*: means over squares of ``cell_px``, the first one at the scan's first pixel
    cell_px : side of a cell in scan pixels, a power of two
    """

    cells: F32
    cell_px: int


def shrinking(shape_yx: tuple[int, int]) -> int:
    """The power of two that shrinks the long side of a scan of ``shape_yx`` to at most 512 px, for the anchor."""
    factor = 1
    while max(shape_yx) > LONGEST_PX * factor:
        factor *= 2
    return factor


def cell_px(shape_yx: tuple[int, int]) -> int:
    """Side of a cell, in pixels of a scan of ``shape_yx``."""
    return max(CELL_PX, shrinking(shape_yx))


def has_anchor(shape_yx: tuple[int, int], tile_yx: tuple[int, int]) -> bool:
    """True if an anchor sees more of the scan than a tile does, and enough of its short side to be recognizable."""
    sees_more = any(extent > tile for extent, tile in zip(shape_yx, tile_yx, strict=True))
    return sees_more and min(shape_yx) >= _LEAST_SIDE_PX * shrinking(shape_yx)


def overview(read: Reader, shape_yx: tuple[int, int], factor: int) -> F32:
    """Mean L* of squares of ``factor`` pixels: (h, w) float32. Holds one window of 2048 px in memory.

    Parameters
    ----------
    read : returns the samples of a region of the scan, uint8 or uint16, or its float32 L*
    factor : a power of two
    """
    height, width = (-(-extent // factor) for extent in shape_yx)
    small = np.empty((height, width), np.float32)
    side = max(_WINDOW_PX, factor)
    for y in range(0, shape_yx[0], side):
        for x in range(0, shape_yx[1], side):
            roi = Roi(y, y + side, x, x + side).clipped(shape_yx)
            seen = read(roi)
            means = square_means(lightness_from_samples(seen) if seen.dtype.kind == "u" else seen, factor)
            small[y // factor :, x // factor :][: means.shape[0], : means.shape[1]] = means
    return small


def square_means(plane: F32, factor: int) -> F32:
    """Means over squares of ``factor`` pixels; squares cut off by the far edges are padded with their last pixel."""
    if factor == 1:
        return plane
    missing = [(0, -extent % factor) for extent in plane.shape]
    if missing != [(0, 0), (0, 0)]:
        plane = np.pad(plane, missing, mode="edge")
    height, width = plane.shape
    return np.asarray(cv2.resize(plane, (width // factor, height // factor), interpolation=cv2.INTER_AREA))


def canvas_px(size_multiple: int) -> int:
    """Side of the network's square input: 512 px, or the next larger size that it accepts."""
    return -(-LONGEST_PX // size_multiple) * size_multiple


def anchor_of(read: Reader, shape_yx: tuple[int, int], side_px: int, predict: Predict) -> Anchor:
    """Shrink the scan, pad it by reflection to a square of ``side_px``, and colour it in one pass.

    Parameters
    ----------
    predict : (1, 1, side_px, side_px) L* to (1, 2, side_px, side_px) a*, b*
    """
    factor = shrinking(shape_yx)
    small = overview(read, shape_yx, factor)
    height, width = small.shape
    canvas = np.pad(small, [(0, side_px - height), (0, side_px - width)], mode="symmetric")
    chroma = predict(canvas[None, None])[0][:, :height, :width]
    side = cell_px(shape_yx)
    return Anchor(np.stack([square_means(np.ascontiguousarray(p), side // factor) for p in chroma]), side)


def apply_anchor(chroma: F32, origin: TileOrigin, anchor: Anchor) -> F32:
    """A tile's (2, T, U) prediction with its low band taken from ``anchor``."""
    height, width = chroma.shape[1:]
    rows, columns = _cells_yx((height, width), anchor)
    fused = np.empty_like(chroma)
    for plane, wanted, out in zip(chroma, _palette(origin, (height, width), anchor), fused, strict=True):
        own = cv2.resize(np.ascontiguousarray(plane), (columns, rows), interpolation=cv2.INTER_AREA)
        correction = WEIGHT * (wanted - own)
        np.add(plane, cv2.resize(correction, (width, height), interpolation=cv2.INTER_LINEAR), out=out)
    return fused


def _cells_yx(shape_yx: tuple[int, int], anchor: Anchor) -> tuple[int, int]:
    """Rows and columns of cells in a tile of ``shape_yx``."""
    rows, columns = (max(1, extent // anchor.cell_px) for extent in shape_yx)
    return rows, columns


def _palette(origin: TileOrigin, shape_yx: tuple[int, int], anchor: Anchor) -> list[F32]:
    """Both planes of ``anchor``, (rows, columns) each, sampled at the centres of a tile's own cells."""
    rows, columns = _cells_yx(shape_yx, anchor)
    # The tile's cells coincide with the anchor's if its side is a multiple of a cell and it starts at a cell's edge.
    (height, width), cell = shape_yx, anchor.cell_px
    step_y, step_x = height / rows / cell, width / columns / cell
    shift = np.array(
        [
            [step_x, 0, origin[1] / cell + (step_x - 1) / 2],
            [0, step_y, origin[0] / cell + (step_y - 1) / 2],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    planes = [cv2.warpAffine(p, shift, (columns, rows), flags=flags, borderMode=border) for p in anchor.cells]
    return [np.asarray(plane, np.float32) for plane in planes]


class DeviceAnchor:
    """:func:`apply_anchor` for many tiles at once on a device; only the palette under each tile is uploaded."""

    def __init__(self, anchor: Anchor, tile_yx: tuple[int, int], device: Device) -> None:
        self._anchor, self._shape, self._device = anchor, tile_yx, device
        self._cells = _cells_yx(tile_yx, anchor)
        self._lines = StraightLines(self._cells, tile_yx, device)

    def __call__(self, chroma: Array, origins: Sequence[TileOrigin]) -> Array:
        """(N, 2, T, U) predictions with their low bands taken from the anchor."""
        wanted = self._device.up(np.stack([_palette(tile, self._shape, self._anchor) for tile in origins]))
        own = area_means(chroma, self._cells, self._device)
        return chroma + self._lines((wanted - own) * float(WEIGHT))
