"""Where tiles agree on a colour and where they guess: a by-product of blending.

The tiles that cover a place each have an opinion of its colour, seen in another surrounding. Their weighted spread is
small where the network knows and large where it guesses, so a map of it tells a curator where to look. Opinions are
compared before the anchor (:mod:`pipeline.anchor`) brings them together, as means over squares of 32 px: what matters
is the colour of a place, not of a grain.

Sums of squares in float32 are fine here: chroma is below 128 and a place is covered by some hundred tiles at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Roi, TileGrid
from pipeline.windows import window_weights

F32 = NDArray[np.float32]

SQUARE_PX = 32


@dataclass(frozen=True)
class Agreement:
    """Opinions of the tiles on each square of 32 px.

    Attributes
    ----------
    mean : (2, h, w) float32 weighted mean a*, b*
    spread : (h, w) float32 weighted standard deviation, a* and b* together, in CIELAB units
    weight : (h, w) float32 summed weights; zero where no tile covers all of a square, which happens at far edges
    """

    mean: F32
    spread: F32
    weight: F32


def squares(extent_px: int) -> int:
    """Squares along an extent."""
    return -(-extent_px // SQUARE_PX)


class Opinions:
    """Collects what tiles say of the squares of ``roi``, which begins at multiples of 32 px."""

    def __init__(self, grid: TileGrid, roi: Roi, window: str) -> None:
        self._roi = roi
        self._weights = tuple(window_weights(window, axis.size) for axis in (grid.y, grid.x))
        height, width = (squares(extent) for extent in roi.shape_yx)
        self._weight = np.zeros((height, width), np.float32)
        self._sum = np.zeros((2, height, width), np.float32)
        self._square = np.zeros((height, width), np.float32)

    def add(self, tile_yx: tuple[int, int], chroma: F32) -> None:
        """Add the squares that one (2, T, U) prediction covers wholly."""
        rows, columns = (
            _covered(start, size, begin, count)
            for start, size, begin, count in zip(
                tile_yx, chroma.shape[1:], (self._roi.y0, self._roi.x0), self._weight.shape, strict=True
            )
        )
        if rows is None or columns is None:
            return
        (y, y_squares), (x, x_squares) = rows, columns
        inside = np.s_[y.start : y.stop, x.start : x.stop]
        size = (x_squares.stop - x_squares.start, y_squares.stop - y_squares.start)
        means = [cv2.resize(np.ascontiguousarray(p[inside]), size, interpolation=cv2.INTER_AREA) for p in chroma]
        opinion = np.stack(means).reshape(2, size[1], size[0])
        weight = np.outer(*(_means(w[s]) for w, s in zip(self._weights, (y, x), strict=True)))
        there = np.s_[y_squares, x_squares]
        self._weight[there] += weight
        self._sum[:, y_squares, x_squares] += weight * opinion
        self._square[there] += weight * (opinion**2).sum(0)

    def add_known(self, known: Agreement) -> None:
        """Add what is known of the same squares from tiles that are not predicted again."""
        self._weight += known.weight
        self._sum += known.weight * known.mean
        self._square += known.weight * (known.spread**2 + (known.mean**2).sum(0))

    def result(self) -> Agreement:
        """Mean, spread and weight of every square."""
        weight = np.maximum(self._weight, np.finfo(np.float32).tiny)
        mean = np.asarray(self._sum / weight, np.float32)
        variance = self._square / weight - (mean**2).sum(0)
        spread = np.asarray(np.sqrt(np.maximum(variance, 0)), np.float32)
        return Agreement(mean, spread, self._weight)


def _covered(start: int, size: int, begin: int, count: int) -> tuple[slice, slice] | None:
    """Pixels of a tile, and the squares they fill, along one axis; None where it fills none."""
    first = max(0, -(-(start - begin) // SQUARE_PX))
    last = min(count, (start + size - begin) // SQUARE_PX)
    if last <= first:
        return None
    offset = begin - start
    return slice(first * SQUARE_PX + offset, last * SQUARE_PX + offset), slice(first, last)


def _means(weights: F32) -> F32:
    return np.asarray(weights.reshape(-1, SQUARE_PX).mean(1), np.float32)
