"""The parts of a scan that decide its palette, and how their answers are combined.

The palette network sees small squares. It sees the whole of every scan, squeezed into a square, and at a second scale
its four corners, three quarters of each side. In long scans it sees squares of the short side instead of corners. Very
large scans are also seen in windows of half that side, and half of that, down to 4096 px, so that a map or a sheet of
many pictures is understood in its parts. A page of several pictures is cut up first (:mod:`pipeline.palettes.panels`),
and each picture is seen by itself. Windows overlap and are weighted like tiles. Answers are weighted by certainty: a
window that recognizes an object outweighs a view in which it is a dot, and the view outweighs a window of bare sky.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.palettes.answers import PLAIN, Taste, annealed, next_best
from pipeline.palettes.panels import panels_of
from pipeline.tiling.anchor import overview
from pipeline.tiling.grid import TileAxis
from pipeline.tiling.palette import Palette, mean_ab
from pipeline.types import Roi

F32 = NDArray[np.float32]
See = Callable[[F32], F32]
Reader = Callable[[Roi], NDArray]

LEAST_WINDOW_PX = 4096
_LONG = 1.25  # scans longer than this times the short side are seen in squares of the short side
_CORNER = 0.75  # fraction of each side
_MOST_CELLS = 192  # along each side of a palette


@dataclass(frozen=True)
class PaletteGrid:
    """The windows in which the network sees a scan, and the size of the palette.

    Attributes
    ----------
    views : the windows of each of the scan's pictures, or of the scan: the whole of it first, then its parts, large
        ones before small. On a page with several pictures, the page comes first.
    rows, columns : cells of the palette
    """

    views: tuple[tuple[Roi, ...], ...]
    rows: int
    columns: int

    @property
    def windows(self) -> tuple[Roi, ...]:
        """The windows of all pictures."""
        return tuple(window for view in self.views for window in view)


def palette_grid(shape_yx: tuple[int, int], cells: int, panels: tuple[Roi, ...] = ()) -> PaletteGrid:
    """The windows and the palette of a scan of ``shape_yx`` for a network with an output of ``cells`` x ``cells``.

    Parameters
    ----------
    panels : the pictures on a page, each seen by itself
    """
    whole = Roi(0, shape_yx[0], 0, shape_yx[1])
    views = ((whole,), *map(_view, panels)) if panels else (_view(whole),)
    smallest = min(side for view in views for side in _sides(view)) / cells
    rows, columns = (min(_MOST_CELLS, max(cells, round(extent / smallest))) for extent in shape_yx)
    return PaletteGrid(views, rows, columns)


def _view(picture: Roi) -> tuple[Roi, ...]:
    """The windows in which the network sees one picture."""
    short, long = min(picture.shape_yx), max(picture.shape_yx)
    is_long = long > _LONG * short
    sides = [short] if is_long else []
    side = short // 2
    while side >= LEAST_WINDOW_PX:
        sides.append(side)
        side //= 2
    parts = [window for side in sides for window in _squares(picture.shape_yx, side)]
    parts = parts if is_long else [*_corners(picture.shape_yx), *parts]
    y, x = picture.y0, picture.x0
    return picture, *(Roi(w.y0 + y, w.y1 + y, w.x0 + x, w.x1 + x) for w in parts)


def _sides(view: tuple[Roi, ...]) -> list[int]:
    """Short sides of the windows that set the palette's resolution: all but the corners, which are hardly smaller."""
    whole = min(view[0].shape_yx)
    return [side for side in (min(window.shape_yx) for window in view) if side <= whole / 2] or [whole]


def _corners(shape_yx: tuple[int, int]) -> Iterator[Roi]:
    tall, wide = (max(1, math.ceil(extent * _CORNER)) for extent in shape_yx)
    height, width = shape_yx
    return (Roi(y, y + tall, x, x + wide) for y in (0, height - tall) for x in (0, width - wide))


def _squares(shape_yx: tuple[int, int], side: int) -> Iterator[Roi]:
    ys, xs = (TileAxis(extent, side, max(1, side // 2)).starts for extent in shape_yx)
    return (Roi(y, y + side, x, x + side) for y in ys for x in xs)


def distribution_of(read: Reader, shape_yx: tuple[int, int], side_px: int, cells: int, see: See) -> F32:
    """The scan's distribution over colours: (K, rows, columns) float32, summing to 1 over K.

    Parameters
    ----------
    read : returns the samples of a region, as for :func:`pipeline.tiling.anchor.overview`
    see : (side_px, side_px) L* to (K, cells, cells) probabilities
    """
    grid = palette_grid(shape_yx, cells)
    factor = _factor(grid, side_px)
    small = overview(read, shape_yx, factor)
    if panels := panels_of(small, factor, shape_yx):
        grid = palette_grid(shape_yx, cells, panels)
        if (finer := _factor(grid, side_px)) < factor:
            factor, small = finer, overview(read, shape_yx, finer)
    return _assembled(grid, shape_yx, cells, lambda window: see(_square(small, window, factor, side_px)))


def _factor(grid: PaletteGrid, side_px: int) -> int:
    """The largest power of two by which the scan can be shrunk without having to enlarge any window."""
    smallest, factor = min(min(window.shape_yx) for window in grid.windows), 1
    while smallest >= 2 * factor * side_px:
        factor *= 2
    return factor


def _assembled(grid: PaletteGrid, shape_yx: tuple[int, int], cells: int, look: Callable[[Roi], F32]) -> F32:
    """The answers of all windows, weighted by certainty; the view of a page does not count for the pictures on it."""
    total: F32 | None = None
    weights = np.zeros((grid.rows, grid.columns), np.float32)
    for picture, *parts in grid.views:
        for window in (picture, *parts):
            shares = look(window)
            fades = window != picture
            rows, down = _under(
                _Axis(window.y0, window.y1, picture.y0, picture.y1), shape_yx[0], grid.rows, cells, fades
            )
            columns, across = _under(
                _Axis(window.x0, window.x1, picture.x0, picture.x1), shape_yx[1], grid.columns, cells, fades
            )
            sure = np.exp(-_entropy(shares))
            weighted = np.concatenate([shares * sure, sure[None]])
            grown = np.matmul(np.matmul(down, weighted), across.T)
            if total is None:
                total = np.zeros((len(shares), grid.rows, grid.columns), np.float32)
            if not fades:
                total[:, rows, columns], weights[rows, columns] = 0, 0
            total[:, rows, columns] += grown[:-1]
            weights[rows, columns] += grown[-1]
    assert total is not None
    return total / weights


def palette_of(
    distribution: F32, colours_ab: F32, shape_yx: tuple[int, int], gain: float = 1.0, taste: Taste = PLAIN
) -> Palette:
    """The colours that are chosen from a :func:`distribution_of` a scan, times ``gain``; ``colours_ab`` is (K, 2)."""
    given_ab = colours_ab * np.float32(gain * taste.gain)
    chosen = mean_ab(annealed(distribution, taste.vivid), given_ab)
    if taste.answer > 1:
        chosen = next_best(distribution, colours_ab, chosen / np.float32(gain * taste.gain), taste.answer)
        chosen *= np.float32(gain * taste.gain)
    rows, columns = chosen.shape[1:]
    return Palette(chosen, (shape_yx[0] / rows, shape_yx[1] / columns))


def _square(small: F32, window: Roi, factor: int, side_px: int) -> F32:
    """A window of the scan, cut out of its overview and squeezed into the network's square."""
    rows = slice(window.y0 // factor, max(window.y0 // factor + 1, -(-window.y1 // factor)))
    columns = slice(window.x0 // factor, max(window.x0 // factor + 1, -(-window.x1 // factor)))
    seen = small[rows, columns]
    # Average areas only if neither side grows.
    less = min(seen.shape[0], side_px), min(seen.shape[1], side_px)
    if less != seen.shape:
        seen = cv2.resize(seen, less[::-1], interpolation=cv2.INTER_AREA)
    if less != (side_px, side_px):
        seen = cv2.resize(seen, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return np.asarray(seen, np.float32)


@dataclass(frozen=True)
class _Axis:
    """A window and its picture along one axis, in scan pixels."""

    start: int
    stop: int
    first: int
    last: int


def _under(window: _Axis, extent: int, cells: int, count: int, fades: bool) -> tuple[slice, F32]:
    """Cells of the palette whose centres are under a window along one axis, and (these, count) linear weights.

    Parameters
    ----------
    cells, count : number of cells of the palette along the whole axis, and of the window
    fades : whether the window's weight falls towards its edges, except at its picture's edges
    """
    middles = (np.arange(cells) + 0.5) * extent / cells
    inside = np.flatnonzero((middles >= window.start) & (middles < window.stop))
    place = (middles[inside] - window.start) / (window.stop - window.start)
    at = np.clip(place * count - 0.5, 0, count - 1)
    low = np.minimum(at.astype(np.intp), max(0, count - 2))
    over = at - low
    weights = np.zeros((len(inside), count))
    lines = np.arange(len(inside))
    weights[lines, low] = 1 - over
    weights[lines, np.minimum(low + 1, count - 1)] += over
    if fades:
        left = place if window.start > window.first else np.full_like(place, 0.5)
        right = 1 - place if window.stop < window.last else np.full_like(place, 0.5)
        weights *= np.sin(np.pi * np.minimum(np.minimum(left, right), 0.5))[:, None] ** 2 + 1e-3
    return slice(int(inside[0]), int(inside[-1]) + 1), weights.astype(np.float32)


def _entropy(shares: F32) -> F32:
    """Entropy of each cell's distribution, in nats."""
    entropy: F32 = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=0)
    return entropy
