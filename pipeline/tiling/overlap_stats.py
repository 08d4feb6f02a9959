"""Where tiles agree on a colour and where they guess: a by-product of blending.

Several tiles cover the same place, and each predicts its colour from a different surrounding. The weighted spread of
these predictions is small where the network knows and large where it guesses, so a map of it tells a curator where to
look. Predictions are compared before the anchor (:mod:`pipeline.tiling.anchor`) pulls them together, as means over
squares of 32 px: what matters is the colour of a place, not of a grain.

These statistics decide where finer tiles go, so they must not depend on how the scan is divided: means are computed
over the whole tile before a block takes its part, sums are float64, and squares without new tiles keep their values.
The means are computed on the device that holds the predictions. They are downloaded all together, a few hundred bytes
a tile, and summed up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.resize import area_means
from pipeline.support.array_backend import HOST, Array, Device
from pipeline.tiling.grid import TileGrid, TileOrigin
from pipeline.tiling.weights import window_weights
from pipeline.types import Roi

F32 = NDArray[np.float32]

SQUARE_PX = 32


@dataclass(frozen=True)
class OverlapStats:
    """Statistics of the tiles' predictions for each square of 32 px.

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


class _Whole(NamedTuple):
    """The squares inside a tile: the pixels they take, their number, and their (rows, columns) float64 weights."""

    of_tile: tuple[slice, slice]
    counts: tuple[int, int]
    weight: NDArray[np.float64]


class OverlapAccumulator:
    """Collects the tiles' predictions for the squares of ``roi``, which begins at multiples of 32 px."""

    def __init__(self, grid: TileGrid, roi: Roi, window: str, device: Device = HOST) -> None:
        self._first = roi.y0 // SQUARE_PX, roi.x0 // SQUARE_PX
        self._tile = grid.tile_yx
        self._device = device
        self._weights = tuple(window_weights(window, axis.size) for axis in (grid.y, grid.x))
        shape = tuple(squares(extent) for extent in roi.shape_yx)
        self._weight = np.zeros(shape)
        self._sum = np.zeros((2, *shape))
        self._square = np.zeros(shape)
        self._is_new = np.zeros(shape, bool)
        self._known: OverlapStats | None = None
        self._wholes: dict[tuple[int, int], _Whole | None] = {}
        self._still_up: list[tuple[TileOrigin, Array]] = []

    def add(self, origin: TileOrigin, chroma: F32) -> None:
        """Add the squares that one (2, T, U) NumPy prediction covers completely."""
        if (whole := self._whole(origin)) is not None:
            planes = [np.ascontiguousarray(plane[whole.of_tile]) for plane in chroma]
            means = [cv2.resize(plane, whole.counts[::-1], interpolation=cv2.INTER_AREA) for plane in planes]
            self._add(origin, whole, np.stack(means).reshape(2, *whole.counts))

    def add_all(self, origins: Sequence[TileOrigin], chroma: Array) -> None:
        """:meth:`add` for each of (N, 2, T, U) predictions on the device; their means stay there for now."""
        lying = {(y % SQUARE_PX, x % SQUARE_PX) for y, x in origins}
        step = len(origins) if len(lying) == 1 else 1
        for begin in range(0, len(origins), step):
            if (whole := self._whole(origins[begin])) is not None:
                cut = chroma[begin : begin + step, :, *whole.of_tile]
                means = area_means(cut, whole.counts, self._device)
                self._still_up += [(origin, means[i, ...]) for i, origin in enumerate(origins[begin : begin + step])]

    def _bring_down(self) -> None:
        """Download the means that are still on the device and add them, in the order of their creation."""
        if not self._still_up:
            return
        xp = self._device.xp
        flat = self._device.down(xp.concat([xp.reshape(means, (-1,)) for _, means in self._still_up]))
        for origin, _ in self._still_up:
            whole = self._whole(origin)
            assert whole is not None, "it had squares"
            size = 2 * whole.weight.size
            self._add(origin, whole, flat[:size].reshape(2, *whole.counts))
            flat = flat[size:]
        self._still_up.clear()

    def _whole(self, origin: TileOrigin) -> _Whole | None:
        """The squares that a tile covers completely; None if there are none.

        Cached by the tile's offset from the squares, on which alone they depend.
        """
        lies = origin[0] % SQUARE_PX, origin[1] % SQUARE_PX
        if lies not in self._wholes:
            of_tile, counts = zip(*map(_covered, lies, self._tile), strict=True)
            weight = np.outer(*(_means(w[s]) for w, s in zip(self._weights, of_tile, strict=True)))
            self._wholes[lies] = _Whole(of_tile, counts, weight) if all(counts) else None
        return self._wholes[lies]

    def _add(self, origin: TileOrigin, whole: _Whole, opinion: F32) -> None:
        spans = [
            _shared(squares(start) - own, count, extent)
            for start, own, count, extent in zip(origin, self._first, whole.counts, self._weight.shape, strict=True)
        ]
        here, seen = (tuple(span[i] for span in spans) for i in (0, 1))
        weight, opinion = whole.weight[seen], opinion[:, *seen]
        self._weight[here] += weight
        self._sum[:, *here] += weight * opinion
        self._square[here] += weight * (opinion.astype(np.float64) ** 2).sum(0)
        self._is_new[here] = True

    def add_known(self, known: OverlapStats) -> None:
        """Add the statistics of tiles that are not predicted again; call it once, before all others."""
        mean, spread, weight = (part.astype(np.float64) for part in (known.mean, known.spread, known.weight))
        self._known = known
        self._weight += weight
        self._sum += weight * mean
        self._square += weight * (spread**2 + (mean**2).sum(0))

    def result(self) -> OverlapStats:
        """Mean, spread and weight of every square."""
        self._bring_down()
        weight = np.maximum(self._weight, np.finfo(np.float64).tiny)
        mean = self._sum / weight
        spread = np.sqrt(np.maximum(self._square / weight - (mean**2).sum(0), 0))
        made = [np.asarray(part, np.float32) for part in (mean, spread, self._weight)]
        if self._known is not None:
            before = (self._known.mean, self._known.spread, self._known.weight)
            made = [np.where(self._is_new, new, old) for new, old in zip(made, before, strict=True)]
        return OverlapStats(*made)


def _covered(start: int, size: int) -> tuple[slice, int]:
    """Along one axis: the tile's pixels that lie in complete squares, and the number of these squares."""
    first = squares(start)
    count = max(0, (start + size) // SQUARE_PX - first)
    begin = first * SQUARE_PX - start
    return slice(begin, begin + count * SQUARE_PX), count


def _shared(first: int, count: int, extent: int) -> tuple[slice, slice]:
    """The overlap of ``count`` squares from ``first`` on with an extent: its slice of the extent and of the squares."""
    begin, end = max(0, first), max(0, min(extent, first + count))
    return slice(begin, end), slice(begin - first, max(begin, end) - first)


def _means(weights: F32) -> NDArray[np.float64]:
    return np.asarray(weights.reshape(-1, SQUARE_PX).mean(1, dtype=np.float64))
