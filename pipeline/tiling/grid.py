"""Tile grids and output blocks: integer geometry, no pixels.

Coordinates are scan pixels; ``y`` is the row. Ranges are half open.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import NewType

from pipeline.errors import UsageError
from pipeline.types import Roi

TileOrigin = NewType("TileOrigin", tuple[int, int])
"""First row and column of a tile in its scan; ``tile_yx`` elsewhere is a tile's size."""
TileOrigins = tuple[TileOrigin, ...]


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one axis.

    A tile starts every ``stride`` pixels; the last is flush with the edge. An extent smaller than a tile has one tile,
    which reaches past the edge: the caller pads the scan by reflection.

    With ``align`` above 1 the last tile starts at a multiple of ``align``, so it may reach past the edge by less than
    ``align``. A tile smaller than two ``align`` stays flush, because it would hold too little of the scan to reflect.
    The reason: a network that halves its input five times predicts the same for a picture shifted by 32 pixels, but not
    for one shifted by 5 (Zhang, "Making convolutional networks shift-invariant again", ICML 2019).

    Raises
    ------
    UsageError : extent, size or stride below 1, or a stride larger than the tile, which would leave gaps.
    """

    extent: int
    size: int
    stride: int
    align: int = 1

    def __post_init__(self) -> None:
        if min(self.extent, self.size, self.stride) < 1:
            raise UsageError(
                f"extent {self.extent}, tile {self.size}, stride {self.stride}: each must be at least 1 px"
            )
        if self.stride > self.size:
            raise UsageError(
                f"stride {self.stride} is larger than the tile ({self.size}): pixels between tiles would stay gray; "
                f"give a stride of at most {self.size}"
            )

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile, ascending."""
        last = max(0, self.extent - self.size)
        if self.size >= 2 * self.align:
            last = -(-last // self.align) * self.align
        return (*range(0, last, self.stride), last)

    def __getstate__(self) -> dict[str, int]:
        """Without ``starts``: a worker computes them faster than it receives them."""
        return {"extent": self.extent, "size": self.size, "stride": self.stride, "align": self.align}

    @property
    def covered_extent(self) -> int:
        """Pixels that the tiles span: the extent, or more if the last tile reaches past it."""
        return self.starts[-1] + self.size

    def touching(self, begin: int, end: int) -> tuple[int, ...]:
        """Starts of the tiles that cover any pixel of ``begin <= p < end``."""
        # By bisection: a strip of film has tens of thousands of tiles on one axis, and as many blocks that ask.
        return self.starts[bisect_right(self.starts, begin - self.size) : bisect_left(self.starts, end)]


@dataclass(frozen=True)
class Block:
    """A piece of the output that one task owns, and the tiles that it needs.

    Attributes
    ----------
    index_yx : position among the blocks
    write_roi : the pixels that this task writes
    read_roi : the pixels that its tiles cover; reaches past the scan's edge if a tile is larger than the scan
    tile_origins : origin of each tile, in raster order
    """

    index_yx: tuple[int, int]
    write_roi: Roi
    read_roi: Roi
    tile_origins: TileOrigins


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a scan: the product of its two axes."""

    y: TileAxis
    x: TileAxis

    @classmethod
    def of(
        cls, shape_yx: tuple[int, int], tile_yx: tuple[int, int], stride_yx: tuple[int, int], align: int = 1
    ) -> TileGrid:
        """The grid of a scan of ``shape_yx``."""
        return cls(*(TileAxis(*each, align) for each in zip(shape_yx, tile_yx, stride_yx, strict=True)))

    def refined(self) -> TileGrid:
        """The grid of half the stride, which contains all tiles of this one."""
        axes = (TileAxis(axis.extent, axis.size, max(1, axis.stride // 2), axis.align) for axis in (self.y, self.x))
        return TileGrid(*axes)

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.y.extent, self.x.extent

    @property
    def tile_yx(self) -> tuple[int, int]:
        return self.y.size, self.x.size

    def __len__(self) -> int:
        return len(self.y.starts) * len(self.x.starts)

    def block_counts_yx(self, block_px: int) -> tuple[int, int]:
        """Number of blocks of ``block_px`` along each axis."""
        return ceil(self.y.extent / block_px), ceil(self.x.extent / block_px)

    def block(self, index_yx: tuple[int, int], block_px: int) -> Block:
        """The block at ``index_yx``, if the scan is divided into squares of ``block_px``."""
        ranges = []
        for axis, index in zip((self.y, self.x), index_yx, strict=True):
            begin = index * block_px
            end = min(axis.extent, begin + block_px)
            ranges.append((begin, end, axis.touching(begin, end)))
        (y0, y1, ys), (x0, x1, xs) = ranges
        read = Roi(ys[0], ys[-1] + self.y.size, xs[0], xs[-1] + self.x.size)
        return Block(index_yx, Roi(y0, y1, x0, x1), read, tuple(TileOrigin((y, x)) for y in ys for x in xs))

    def blocks(self, block_px: int) -> Iterator[Block]:
        """All blocks in raster order."""
        rows, columns = self.block_counts_yx(block_px)
        for iy in range(rows):
            for ix in range(columns):
                yield self.block((iy, ix), block_px)
