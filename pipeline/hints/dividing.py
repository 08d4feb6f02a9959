"""The parts of a scan that edges divide; also faint edges, where what is around them is calm.

How strong an edge is, its surroundings tell: the step of lightness over it, in multiples of the step that is usual
there. So five L* divide two areas of a smooth sky, and as many do not divide the leaves of a tree.

The scan is first cut into small regions along its edges, about one in each cell of a grid. Then neighbours are merged,
those with the weakest boundary first, by the mean of what is measured along it: an edge that fades out somewhere still
divides, where the shortest way around it would go through the gap. What is merged below one limit is also merged below
each higher one. The work grows linearly with the pixels, but for sorting.

References
----------
Arbelaez, Maire, Fowlkes, Malik, Contour Detection and Hierarchical Image Segmentation, IEEE Transactions on Pattern
Analysis and Machine Intelligence 33(5), 2011 (section 4: merging by the mean strength of boundaries).
Machairas et al., Waterpixels, IEEE Transactions on Image Processing 24(11), 2015 (a watershed from one minimum a cell).
Murtagh, A Survey of Recent Advances in Hierarchical Clustering Algorithms, The Computer Journal 26(4), 1983 (pairs that
are nearest to each other may be merged in any order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

_SMOOTH_PX, _SPAN_PX = 0.8, 2  # a step is taken from so far on one side to so far on the other
_AROUND, _LEAST_AROUND_PX = 0.06, 8.0  # of the short side, at least
_REGION_PX = 6
# Steps below this are nowhere usual: an area without any noise is not divided by the rounding of its samples.
_LEAST_STEP = 0.5  # L*


def parts_of(lightness: F32, limits: Sequence[float]) -> list[I32]:
    """The parts of a picture at each limit: (h, w) labels, the same ones within a part.

    Parameters
    ----------
    lightness : (h, w) L*
    limits : ascending; boundaries below a limit do not divide, in multiples of the usual step
    """
    strength = _strength(lightness)
    regions = _regions(strength)
    edges = _Boundaries.of(regions, strength / _usual(strength))
    labels = np.arange(edges.count, dtype=np.int32)
    every = list[I32]()
    for limit in limits:
        while (edges.mean < limit).any():
            into = edges.merging(limit)
            labels, edges = into[labels], edges.merged(into)
        every.append(labels[regions])
    return every


def _strength(lightness: F32) -> F32:
    """(h, w) the step of L* over each pixel, in the direction in which it is largest."""
    smooth = cv2.GaussianBlur(np.ascontiguousarray(lightness), (0, 0), _SMOOTH_PX, borderType=cv2.BORDER_REPLICATE)
    wide = np.pad(smooth, _SPAN_PX, mode="edge")
    across = wide[_SPAN_PX:-_SPAN_PX, 2 * _SPAN_PX :] - wide[_SPAN_PX:-_SPAN_PX, : -2 * _SPAN_PX]
    down = wide[2 * _SPAN_PX :, _SPAN_PX:-_SPAN_PX] - wide[: -2 * _SPAN_PX, _SPAN_PX:-_SPAN_PX]
    return np.asarray(np.hypot(across, down), np.float32)


def _usual(strength: F32) -> F32:
    """(h, w) the step that is usual around each pixel: a mean of logarithms, on which single edges have little say."""
    sigma = max(_LEAST_AROUND_PX, _AROUND * min(strength.shape))
    # Shrunk, as a wide blur costs by its width; nothing of it is fine.
    by = max(1, int(sigma / 4))
    height, width = strength.shape
    size = -(-width // by), -(-height // by)
    small = cv2.resize(np.log(strength + np.float32(0.1)), size, interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(small, (0, 0), sigma / by, borderType=cv2.BORDER_REPLICATE)
    usual = np.exp(cv2.resize(around, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.asarray(np.maximum(usual, np.float32(_LEAST_STEP)), np.float32)


def _regions(strength: F32) -> I32:
    """(h, w) numbers of small regions, whose boundaries lie on edges."""
    height, width = strength.shape
    rows, columns = -(-height // _REGION_PX), -(-width // _REGION_PX)
    missing = [(0, rows * _REGION_PX - height), (0, columns * _REGION_PX - width)]
    cells = np.pad(strength, missing, constant_values=np.inf).reshape(rows, _REGION_PX, columns, _REGION_PX)
    y, x = np.divmod(cells.swapaxes(1, 2).reshape(rows, columns, -1).argmin(-1), _REGION_PX)
    markers = np.zeros((height, width), np.int32)
    where = y + np.arange(rows)[:, None] * _REGION_PX, x + np.arange(columns) * _REGION_PX
    markers[where] = np.arange(1, rows * columns + 1).reshape(rows, columns)
    return flooded(strength, markers) - 1


def flooded(strength: F32, markers: I32) -> I32:
    """The watershed of a picture from markers: each pixel belongs to the one with the lowest way to it.

    A way is as high as the strongest of its pixels, and pixels are neighbours along rows and columns. The ways are a
    forest of least weight with a tree for each marker, grown as Boruvka did: in each round every part without a marker
    joins its neighbour over the lowest way.

    Parameters
    ----------
    strength : (h, w)
    markers : (h, w) a number above 0 where there is a marker, else 0; at least one

    Returns
    -------
    (h, w) the marker's number of each pixel

    References
    ----------
    Cousty, Bertrand, Najman, Couprie, Watershed Cuts: Minimum Spanning Forests and the Drop of Water Principle, IEEE
    Transactions on Pattern Analysis and Machine Intelligence 31(8), 2009.
    """
    numbers = np.arange(strength.size).reshape(strength.shape)
    sides = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    ways = np.concatenate([np.stack([one.ravel(), other.ravel()]) for one, other in sides], axis=1)
    height = strength.ravel()[ways]
    ways = ways[:, np.lexsort([height.min(0), height.max(0)])]  # a slope is climbed from its lowest side
    is_marked = markers.ravel() > 0
    part = numbers.ravel()
    while ways.shape[1]:
        into = _joined(ways, is_marked)
        part, ways = into[part], into[ways]
        ways = ways[:, (ways[0] != ways[1]) & ~is_marked[ways].all(0)]
    return np.asarray(markers.ravel()[part].reshape(markers.shape), np.int32)


def _joined(ways: NDArray[np.int64], is_marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(pixels,) the part that each one is in after a round; ``ways`` (2, n) are between parts, the lowest first."""
    count = ways.shape[1]
    lowest = np.full(is_marked.size, count)
    for side in ways:
        np.minimum.at(lowest, side, np.arange(count))
    into = np.arange(is_marked.size)
    joining = np.flatnonzero(~is_marked & (lowest < count))
    into[joining] = ways[:, lowest[joining]].sum(0) - joining
    # Of two that would join each other one stays.
    stays = joining[(into[into[joining]] == joining) & (joining < into[joining])]
    into[stays] = stays
    while (into != into[into]).any():
        into = into[into]
    return into


@dataclass(frozen=True)
class _Boundaries:
    """The boundaries between neighbouring regions.

    Attributes
    ----------
    pairs : (2, n) numbers of the two regions, the lower one first
    mean, length : (n,) the mean of what is measured along a boundary, and its length in pixels
    count : numbers of regions are below it
    """

    pairs: NDArray[np.int64]
    mean: F64
    length: F64
    count: int

    @classmethod
    def of(cls, regions: I32, strength: F32) -> _Boundaries:
        pairs, values = [], []
        for one, other in (
            (np.s_[:, :-1], np.s_[:, 1:]),
            (np.s_[:-1], np.s_[1:]),
        ):
            between = regions[one] != regions[other]
            pairs.append(np.stack([regions[one][between], regions[other][between]]))
            values.append(np.maximum(strength[one][between], strength[other][between]))
        value = np.concatenate(values).astype(np.float64)
        return cls._summed(np.concatenate(pairs, axis=1), value, np.ones_like(value), int(regions.max()) + 1)

    @classmethod
    def _summed(cls, pairs: NDArray, values: F64, lengths: F64, count: int) -> _Boundaries:
        key = pairs.min(0).astype(np.int64) * count + pairs.max(0)
        unique, where = np.unique(key, return_inverse=True)
        length = np.asarray(np.bincount(where, lengths, len(unique)), np.float64)
        mean = np.asarray(np.bincount(where, values * lengths, len(unique)) / length, np.float64)
        return cls(np.stack(np.divmod(unique, count)), mean, length, count)

    def merging(self, limit: float) -> I32:
        """(count,) the number of each region after a round: of two whose boundary is the weakest of both, the lower."""
        rank = np.empty(len(self.mean), np.int64)
        rank[np.argsort(self.mean, kind="stable")] = np.arange(len(rank))
        weakest = np.full(self.count, len(rank))
        for side in self.pairs:
            np.minimum.at(weakest, side, rank)
        is_weakest = (weakest[self.pairs] == rank).all(axis=0) & (self.mean < limit)
        into = np.arange(self.count, dtype=np.int32)
        into[self.pairs[1, is_weakest]] = self.pairs[0, is_weakest]
        return into

    def merged(self, into: I32) -> _Boundaries:
        pairs = into[self.pairs]
        left = pairs[0] != pairs[1]
        return self._summed(pairs[:, left], self.mean[left], self.length[left], self.count)
