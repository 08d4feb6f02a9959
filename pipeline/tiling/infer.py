"""From samples of blocks to their chroma: the function that every scheduler runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_on
from pipeline.errors import PredictionError
from pipeline.support.array_backend import HOST, Array, Device
from pipeline.tiling.anchor import Anchor, DeviceAnchor, apply_anchor
from pipeline.tiling.blend import BlockBlender
from pipeline.tiling.grid import Block, TileGrid, TileOrigin, TileOrigins
from pipeline.tiling.overlap_stats import OverlapAccumulator, OverlapStats
from pipeline.tiling.palette import Palette
from pipeline.types import Roi

F32 = NDArray[np.float32]
Predict = Callable[[Array], Array]


def reflected_out(samples: NDArray[Any], shape_yx: tuple[int, int]) -> NDArray[Any]:
    """Pad (h, w, ...) to at least ``shape_yx`` by reflection at the lower and right edge, repeatedly if needed."""
    missing = [(0, max(0, wanted - have)) for wanted, have in zip(shape_yx, samples.shape[:2], strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return samples
    return np.pad(samples, [*missing, *[(0, 0)] * (samples.ndim - 2)], mode="symmetric")


@dataclass(frozen=True)
class ReusedTiles:
    """Tiles that need not be predicted again: those of a coarser grid and some finer ones, and their weighted mean.

    Attributes
    ----------
    grid : the coarser grid, of the same tile size; its tiles are all in the finer grid
    mean : (2, h, w) float16 or float32 a*, b* of the block's ``write_roi``, blended with the same window
    agreement : overlap statistics of the same tiles, if kept
    extra_tiles : origins of further tiles in the mean, in the order in which they were added
    """

    grid: TileGrid
    mean: NDArray[Any]
    agreement: OverlapStats | None = None
    extra_tiles: TileOrigins = ()


@dataclass(frozen=True)
class BlockInput:
    """One block to colour.

    Attributes
    ----------
    grid, block, window : what to cut and how to weight it
    samples : samples of ``block.read_roi``, clipped to the scan: (h, w) gray or (h, w, 3) RGB, uint8 or uint16, or
        (h, w) float32 L* in [0, 100]
    reused : tiles that were predicted before
    anchor : anchor of the whole scan, for a model that sees nothing but its tile
    palette : palette of the whole scan, for a model that takes one
    chosen : which of the tiles that are not reused to predict; None for all
    """

    grid: TileGrid
    block: Block
    window: str
    samples: NDArray[Any]
    reused: ReusedTiles | None = None
    anchor: Anchor | None = None
    palette: Palette | None = None
    chosen: TileOrigins | None = None

    def tile_origins(self) -> TileOrigins:
        """Origins of the tiles to predict, in raster order."""
        if self.chosen is not None:
            return self.chosen
        if self.reused is None:
            return self.block.tile_origins
        ys, xs = set(self.reused.grid.y.starts), set(self.reused.grid.x.starts)
        return tuple(origin for origin in self.block.tile_origins if origin[0] not in ys or origin[1] not in xs)


@dataclass(frozen=True)
class BlockResult:
    """The result of a block: (2, H, W) a*, b* of its ``write_roi``, and the statistics of its overlaps.

    The chroma is float32, or float16 from a device; the store rounds to float16 anyway.
    """

    chroma: NDArray[Any]
    agreement: OverlapStats


class _OpenBlock:
    """A block that still waits for some of its tiles."""

    def __init__(self, work: BlockInput, device: Device) -> None:
        # Do not keep the work itself: its samples can be freed once they are converted to lightness.
        self._read, self._write = work.block.read_roi, work.block.write_roi
        self._tile, self._device, self._anchor = work.grid.tile_yx, device, work.anchor
        self._palette = work.palette
        self._source = _lightness(reflected_out(work.samples, self._read.shape_yx), device)
        self._blender = BlockBlender(work.grid, work.block, work.window, device)
        self._opinions = OverlapAccumulator(work.grid, work.block.write_roi, work.window, device)
        self._anchoring = DeviceAnchor(work.anchor, self._tile, device) if work.anchor and not device.is_host else None
        self.tile_origins = work.tile_origins()
        self.missing = len(self.tile_origins)
        if (reused := work.reused) is not None:
            self._blender.add_mean(reused.grid, reused.mean, reused.extra_tiles)
            if reused.agreement is not None:
                self._opinions.add_known(reused.agreement)
            if work.chosen is not None:
                self._blender.cover_only(reused.grid, (*reused.extra_tiles, *work.chosen))

    def cut(self, origin: TileOrigin) -> Array:
        """(1, T, U) L* of one tile, or (3, T, U) with the a*, b* of the palette under the tile."""
        top, left = origin[0] - self._read.y0, origin[1] - self._read.x0
        lightness = self._source[top : top + self._tile[0], left : left + self._tile[1]][None, ...]
        if self._palette is None:
            return lightness
        return self._device.xp.concat([lightness, self._device.up(self._palette.under(origin, self._tile))])

    def add(self, tiles: TileOrigins, chroma: Array) -> None:
        """Add the (N, 2, T, U) predictions of ``tiles``.

        On the host tile by tile, while each is still in the processor's cache; on a device in as few calls as possible.
        """
        if self._device.is_host:
            for tile, one in zip(tiles, chroma, strict=True):
                self._opinions.add(tile, one)
                self._blender.add(tile, one if self._anchor is None else apply_anchor(one, tile, self._anchor))
        else:
            self._opinions.add_all(tiles, chroma)
            self._blender.add_all(tiles, chroma if self._anchoring is None else self._anchoring(chroma, tiles))
        self.missing -= len(tiles)

    def coloured(self) -> BlockResult:
        mean, xp = self._blender.mean(), self._device.xp
        if not bool(xp.all(xp.isfinite(mean))):
            roi = self._write
            raise PredictionError(
                f"rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}: the engine predicted values that are not numbers: "
                "the picture would have holes; try another --engine, or export the model again"
            )
        return BlockResult(self._device.down_rounded(mean), self._opinions.result())


def _lightness(samples: NDArray[Any], device: Device) -> Array:
    return lightness_on(device, samples) if samples.dtype.kind == "u" else device.up(samples)


def colorize_blocks(
    works: Iterable[BlockInput],
    tile_yx: tuple[int, int],
    predict: Predict,
    batch: int,
    on_tiles: Callable[[int], None] = lambda tiles: None,
    device: Device = HOST,
) -> Iterator[BlockResult]:
    """Predict every tile that touches each block and average them where they overlap.

    A batch may span several blocks, so that many small blocks still fill batches. A block is requested when its first
    tile is due and yielded when its last one is predicted: only blocks that share a batch are in memory.

    Parameters
    ----------
    works : blocks, all with tiles of ``tile_yx``
    predict : (N, 1, T, U) L*, or (N, 3, T, U) L* and palette, to (N, 2, T, U) a*, b*; float32 arrays of ``device``; N
        is at most ``batch``
    on_tiles : called with the number of tiles after each batch
    device : where tiles are cut, predicted and summed up

    Yields
    ------
    the result of each block, in order

    Raises
    ------
    PredictionError : a prediction that is not finite.
    """
    opened: deque[_OpenBlock] = deque()
    waiting: list[tuple[_OpenBlock, TileOrigin]] = []

    def flush() -> None:
        if not waiting:
            return
        chroma = predict(device.xp.stack([block.cut(tile) for block, tile in waiting]))
        begin = 0
        for _, pairs in groupby(waiting, key=lambda pair: id(pair[0])):
            blocks, tiles = zip(*pairs, strict=True)
            blocks[0].add(tiles, chroma[begin : begin + len(tiles), ...])
            begin += len(tiles)
        on_tiles(len(waiting))
        waiting.clear()

    for work in works:
        opened.append(_OpenBlock(work, device))
        del work
        for tile in opened[-1].tile_origins:
            waiting.append((opened[-1], tile))
            if len(waiting) == batch:
                flush()
        while opened and not opened[0].missing:
            yield opened.popleft().coloured()
    flush()
    while opened:
        yield opened.popleft().coloured()


def colorize_block(work: BlockInput, predict: Predict, batch: int) -> F32:
    """(2, H, W) float32 a*, b* of one block, computed on the host; see :func:`colorize_blocks`."""
    (coloured,) = colorize_blocks([work], work.grid.tile_yx, predict, batch)
    return coloured.chroma


def lightness_roi(grid: TileGrid, block: Block) -> Roi:
    """The region of the scan that :func:`colorize_block` needs: the block's ``read_roi``, clipped to the scan."""
    return block.read_roi.clipped(grid.shape_yx)
