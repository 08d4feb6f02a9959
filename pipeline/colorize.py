"""Lightness of blocks in, chroma of those blocks out: the function that every scheduler runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement import Agreement, Opinions
from pipeline.anchor import Anchor, anchored
from pipeline.blend import BlockBlender
from pipeline.errors import PredictionError
from pipeline.grid import Block, Roi, TileGrid

F32 = NDArray[np.float32]
Predict = Callable[[F32], F32]
Tiles = tuple[tuple[int, int], ...]


def reflected_out(lightness: F32, shape_yx: tuple[int, int]) -> F32:
    """Grow (h, w) to at least ``shape_yx`` by reflection at the lower and right edge, as often as needed."""
    missing = [(0, max(0, wanted - have)) for wanted, have in zip(shape_yx, lightness.shape, strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return lightness
    return np.pad(lightness, missing, mode="symmetric")


@dataclass(frozen=True)
class Known:
    """Tiles that need not be predicted again: a coarser grid's and some finer ones, and their weighted mean.

    Attributes
    ----------
    grid : the same tile size, starts that are all among the finer grid's
    mean : (2, h, w) float32 a*, b* of the block's ``write_roi``, blended with the same window
    agreement : of the same tiles, where it is kept
    extra_tiles : first row and column of further tiles in the mean, in the order in which they were added
    """

    grid: TileGrid
    mean: F32
    agreement: Agreement | None = None
    extra_tiles: Tiles = ()


@dataclass(frozen=True)
class BlockWork:
    """One block to colour.

    Attributes
    ----------
    grid, block, window : what to cut and how to weight it
    lightness : (h, w) float32 L* in [0, 100] of ``block.read_roi`` as far as the scan reaches
    known : tiles that were predicted before
    anchor : the scan's palette, where it has one
    chosen : of the tiles that are not known, those to predict; None is all of them
    """

    grid: TileGrid
    block: Block
    window: str
    lightness: F32
    known: Known | None = None
    anchor: Anchor | None = None
    chosen: Tiles | None = None

    def tiles_yx(self) -> Tiles:
        """First row and column of the tiles to predict, in raster order."""
        if self.chosen is not None:
            return self.chosen
        if self.known is None:
            return self.block.tiles_yx
        ys, xs = set(self.known.grid.y.starts), set(self.known.grid.x.starts)
        return tuple((y, x) for y, x in self.block.tiles_yx if y not in ys or x not in xs)


@dataclass(frozen=True)
class Coloured:
    """What a block came to: (2, H, W) float32 a*, b* of its ``write_roi``, and how far its tiles agreed."""

    chroma: F32
    agreement: Agreement


class _OpenBlock:
    """A block some of whose tiles are still to come."""

    def __init__(self, work: BlockWork) -> None:
        self._work = work
        self._source = reflected_out(work.lightness, work.block.read_roi.shape_yx)
        self._blender = BlockBlender(work.grid, work.block, work.window)
        self._opinions = Opinions(work.grid, work.block.write_roi, work.window)
        self.tiles_yx = work.tiles_yx()
        self.missing = len(self.tiles_yx)
        if (known := work.known) is not None:
            self._blender.add_mean(known.grid, known.mean, known.extra_tiles)
            if known.agreement is not None:
                self._opinions.add_known(known.agreement)
            if work.chosen is not None:
                self._blender.cover_only(known.grid, (*known.extra_tiles, *work.chosen))

    def cut(self, tile_yx: tuple[int, int], into: F32) -> None:
        (height, width), roi = into.shape, self._work.block.read_roi
        top, left = tile_yx[0] - roi.y0, tile_yx[1] - roi.x0
        into[:] = self._source[top : top + height, left : left + width]

    def add(self, tile_yx: tuple[int, int], chroma: F32) -> None:
        anchor = self._work.anchor
        self._opinions.add(tile_yx, chroma)
        self._blender.add(tile_yx, chroma if anchor is None else anchored(chroma, tile_yx, anchor))
        self.missing -= 1

    def coloured(self) -> Coloured:
        mean = self._blender.mean()
        if not np.isfinite(mean).all():
            roi = self._work.block.write_roi
            raise PredictionError(
                f"rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}: the engine predicted values that are not numbers: "
                "the picture would have holes; try another --engine, or export the model again"
            )
        return Coloured(mean, self._opinions.result())


def colorize_blocks(
    works: Iterable[BlockWork],
    tile_yx: tuple[int, int],
    predict: Predict,
    batch: int,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Iterator[Coloured]:
    """Predict every tile that touches each block and average them where they overlap.

    Batches run on from one block into the next, so that many small ones fill them. A block is asked for when its first
    tile is due and given back when its last one is there: memory holds those that share a batch.

    Parameters
    ----------
    works : blocks, all with tiles of ``tile_yx``
    predict : (N, 1, T, U) L* to (N, 2, T, U) a*, b*; N is at most ``batch``
    on_tiles : called with the number of tiles after each batch

    Yields
    ------
    what each block came to, in order

    Raises
    ------
    PredictionError : a prediction that is not finite.
    """
    opened: deque[_OpenBlock] = deque()
    waiting: list[tuple[_OpenBlock, tuple[int, int]]] = []

    def flush() -> None:
        if not waiting:
            return
        cut = np.empty((len(waiting), 1, *tile_yx), np.float32)
        for i, (block, tile) in enumerate(waiting):
            block.cut(tile, cut[i, 0])
        for (block, tile), chroma in zip(waiting, predict(cut), strict=True):
            block.add(tile, chroma)
        on_tiles(len(waiting))
        waiting.clear()

    for work in works:
        opened.append(_OpenBlock(work))
        for tile in opened[-1].tiles_yx:
            waiting.append((opened[-1], tile))
            if len(waiting) == batch:
                flush()
        while opened and not opened[0].missing:
            yield opened.popleft().coloured()
    flush()
    while opened:
        yield opened.popleft().coloured()


def colorize_block(work: BlockWork, predict: Predict, batch: int) -> F32:
    """(2, H, W) float32 a*, b* of one block; see :func:`colorize_blocks`."""
    (coloured,) = colorize_blocks([work], work.grid.tile_yx, predict, batch)
    return coloured.chroma


def lightness_roi(grid: TileGrid, block: Block) -> Roi:
    """What of the scan :func:`colorize_block` needs to see: the block's read region within the scan."""
    return block.read_roi.clipped(grid.shape_yx)
