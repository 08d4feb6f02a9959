"""From colours that are known at some places to a correction of the chroma of a whole scan.

How far the model is wrong at a hint says how far it is wrong in places that are alike: of nearly the same lightness, in
surroundings of the same lightness, roughness and predicted colour, near, and with no edge between
(:mod:`pipeline.hints.dividing`). So the errors at the hints are interpolated by a kernel over all of these. It is
compact: what is farther than a hint's reach, or lighter or darker by more than 60 L*, is not changed at all.

The correction is kept on a bilateral grid: cells of the scan times steps of lightness. A pixel takes it from between
the cells and between the steps about its own lightness, at the scan's full resolution, so that it stops at edges that
the grid's cells are too coarse for, and any region of a scan can be corrected by itself.

References
----------
Rasmussen, Williams, Gaussian Processes for Machine Learning, 2006, 2.2 (the interpolation) and 4.2 (compact kernels).
Chen, Paris, Durand, Real-time Edge-Aware Image Processing with the Bilateral Grid, ACM Transactions on Graphics 26(3),
2007.
Levin, Lischinski, Weiss, Colorization Using Optimization, ACM Transactions on Graphics 23(3), 2004 (hints as strokes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.hints.dividing import parts_of
from pipeline.types import Roi

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

REACH = 1.2  # of the short side, if a hint has none of its own
LIGHTNESS_REACH = 60.0  # L*
CELL_PX = 2  # of the shrunk scan
_STEP = 4.0  # L* between the steps of lightness
_STEPS = 26
_POWER = 2
# What counts as far as the whole reach: surroundings that differ in L*, in roughness, and in predicted a*, b*.
_SURROUNDINGS, _ROUGHNESS, _PREDICTED = 200.0, 200.0, 60.0
_BLUR = 0.02  # of the short side
# Of hints that nearly contradict each other their mean is taken.
_NUGGET = 0.01
# How many times the usual step of L* the edges have that divide; a third is kept over each limit that is not reached.
_EDGES = (4.0, 5.0, 6.0)
_NEAR = 1e-2
_CHUNK = 2**20


@dataclass(frozen=True)
class Seen:
    """What hints spread over: a shrunk scan.

    Attributes
    ----------
    lightness : (h, w) L*, means over squares of ``factor`` pixels
    predicted : (2, h, w) a*, b* of the model, smooth ones
    factor : side of a square in scan pixels
    shape_yx : of the scan
    """

    lightness: F32
    predicted: F32
    factor: int
    shape_yx: tuple[int, int]

    @cached_property
    def cells(self) -> _Cells:
        """The grid's cells; with the parts, what no hint changes: whoever adds hints one by one waits for it once."""
        return _Cells.of(self)

    @cached_property
    def parts(self) -> list[_Parts]:
        """The divisions of the scan by its edges."""
        return _Parts.of(self)


@dataclass(frozen=True)
class Sample:
    """A pixel whose colour is known.

    Attributes
    ----------
    y, x : the pixel
    lightness : its L*
    error_ab : known a*, b* minus those that are there
    reach : how far it spreads, as a share of the scan's short side
    """

    y: int
    x: int
    lightness: float
    error_ab: tuple[float, float]
    reach: float = REACH


@dataclass(frozen=True)
class Correction:
    """What is added to a scan's chroma.

    Attributes
    ----------
    values : (rows, columns, 26) a* + i b* of the middles of cells, at L* 0, 4, ..., 100
    cell_px : side of a cell in scan pixels, or in those of a smaller copy of the scan that is corrected instead
    """

    values: C64
    cell_px: float

    def touches(self, roi: Roi) -> bool:
        """Whether any pixel of ``roi`` can be changed."""
        rows, columns = (
            slice(max(0, int(start // self.cell_px) - 1), int((end - 1) // self.cell_px) + 2)
            for start, end in ((roi.y0, roi.y1), (roi.x0, roi.x1))
        )
        return bool(self.values[rows, columns].any())

    def add_to(
        self, chroma_ab: F32, roi: Roi, lightness: F32, coloured: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Correct the (2, h, w) a*, b* of ``roi`` in place; where nothing is added, not a bit changes.

        Parameters
        ----------
        lightness : (h, w) L* of ``roi``
        coloured : (h, w) where there is a picture; None is everywhere

        Returns
        -------
        (h, w) where something was added
        """
        changed = np.zeros(roi.shape_yx, np.bool_)
        count = len(self.values)
        columns = _Between.of(roi.x0, roi.x1, self.cell_px, self.values.shape[1])
        steps = np.clip(lightness * np.float32(1 / _STEP), 0, np.float32(_STEPS - 1))
        for row, y in enumerate(range(roi.y0, roi.y1)):
            down = _Between.of(y, y + 1, self.cell_px, count)
            first, second, share = down.first[0], down.second[0], down.share[0]
            table = self.values[first] + (self.values[second] - self.values[first]) * share
            if not table.any():
                continue
            added = columns.of_row(table, steps[row])
            where = added != 0
            if coloured is not None:
                where &= coloured[row]
            np.add(chroma_ab[0, row], added.real, out=chroma_ab[0, row], where=where)
            np.add(chroma_ab[1, row], added.imag, out=chroma_ab[1, row], where=where)
            changed[row] = where
        return changed


@dataclass(frozen=True)
class _Between:
    """For each pixel of a line the cells whose middles it lies between, and the share of the second one."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    share: F32

    @classmethod
    def of(cls, start: int, end: int, cell_px: float, count: int) -> _Between:
        at = np.clip((np.arange(start, end) + 0.5) / cell_px - 0.5, 0, count - 1)
        first = at.astype(np.intp)
        return cls(first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32))

    def of_row(self, table: C64, steps: F32) -> C64:
        """(w,) values of a row of pixels from the (columns, 26) table of its row of cells."""
        low = np.minimum(steps.astype(np.intp), _STEPS - 2)
        share, flat = steps - low, table.ravel()
        sides = list[C64]()
        for cells in (self.first, self.second):
            at = cells * _STEPS + low
            below = flat.take(at)
            sides.append(np.asarray(below + (flat.take(at + 1) - below) * share, np.complex64))
        return np.asarray(sides[0] + (sides[1] - sides[0]) * self.share, np.complex64)


def spread(seen: Seen, samples: Sequence[Sample]) -> Correction:
    """The correction that samples make.

    Near a sample, in its lightness, what is added is its error; between several it is interpolated. The work grows with
    their number times the cells of the shrunk scan.
    """
    spreading = [sample for sample in samples if sample.reach > 0]
    cells = seen.cells
    values = np.zeros((len(cells.features), _STEPS), np.complex64)
    if spreading:
        parts = seen.parts
        at = _At.of(spreading, cells, seen, parts)
        own = _alike(at.features, at.features, at.reach, at.reach) * _of_lightness(at.lightness, at.lightness)
        together = np.mean([part[:, None] == part for part in at.parts], axis=0)
        errors = np.array([complex(*sample.error_ab) for sample in spreading])
        weights = np.linalg.solve(own * together + _NUGGET * np.eye(len(spreading)), errors)
        by_step = (weights[:, None] * _of_lightness(at.lightness, _levels())).astype(np.complex64)
        for part, of_samples in zip(parts, at.parts, strict=True):
            for label in np.unique(of_samples):
                mine = of_samples == label
                values += part.share(int(label)) * _summed(cells.features, at, mine, by_step[mine])
        values /= np.float32(len(parts))
    return Correction(values.reshape(*cells.shape_yx, _STEPS), CELL_PX * seen.factor)


def _summed(features: F32, at: _At, mine: NDArray[np.bool_], by_step: C64) -> C64:
    """(cells, 26) what some of the samples add to every cell."""
    summed = np.empty((len(features), _STEPS), np.complex64)
    step = max(1, _CHUNK // len(by_step))
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        summed[rows] = _alike(features[rows], at.features[mine], None, at.reach[mine]) @ by_step
    return summed


def _levels() -> F32:
    return np.arange(_STEPS, dtype=np.float32) * np.float32(_STEP)


def _of_lightness(one: F32, other: F32) -> F32:
    """(n, m) 1 where two L* are equal, falling to 0 at the reach."""
    return np.asarray(np.maximum(1 - np.abs(one[:, None] - other) / np.float32(LIGHTNESS_REACH), 0), np.float32)


def _alike(one: F32, other: F32, own_reach: F32 | None, reach: F32) -> F32:
    """(n, m) likeness of places by their features, from 1 to 0, as far as the reaches of the second ones go.

    Between two that have different reaches it is that of the smaller one: otherwise the first would not be told of the
    second, and both would be added.
    """
    near = (one[:, None, 0] - other[:, 0]) ** 2 + (one[:, None, 1] - other[:, 1]) ** 2
    near /= np.square(reach if own_reach is None else np.minimum(own_reach[:, None], reach))
    ours, theirs = one[:, 2:], other[:, 2:]
    near += np.square(ours).sum(-1)[:, None] + np.square(theirs).sum(-1) - 2 * ours @ theirs.T
    distance = np.sqrt(np.maximum(near, 0, out=near), out=near)
    return np.asarray(np.maximum(1 - distance, 0) ** _POWER, np.float32)


@dataclass(frozen=True)
class _Cells:
    """The cells of a grid over a shrunk scan: (n, 6) y, x in short sides, and what their surroundings are."""

    features: F32
    shape_yx: tuple[int, int]

    @classmethod
    def of(cls, seen: Seen) -> _Cells:
        lightness, short = seen.lightness, min(seen.lightness.shape)
        height, width = (-(-extent // CELL_PX) for extent in lightness.shape)
        sigma = max(1.0, _BLUR * short)
        around = cv2.GaussianBlur(lightness, (0, 0), sigma)
        spread_of = np.sqrt(np.maximum(cv2.GaussianBlur(lightness**2, (0, 0), sigma) - around**2, 0))
        planes = [
            around / np.float32(_SURROUNDINGS),
            spread_of / np.float32(_ROUGHNESS),
            *(plane / np.float32(_PREDICTED) for plane in seen.predicted),
        ]
        missing = [(0, -extent % CELL_PX) for extent in lightness.shape]
        small = [
            cv2.resize(np.pad(plane, missing, mode="edge"), (width, height), interpolation=cv2.INTER_AREA)
            for plane in planes
        ]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        where = [(each + np.float32(0.5)) * np.float32(CELL_PX / short) for each in (y, x)]
        return cls(np.stack([*where, *small], -1).reshape(-1, 6).astype(np.float32), (height, width))


@dataclass(frozen=True)
class _Parts:
    """The parts of a shrunk scan that edges divide, and which share of each node of the grid is of which part.

    Attributes
    ----------
    labels : (h, w) number of the part of each pixel
    nodes, weights : (2, h, w) indices of the two nodes of the grid about a pixel's L*, in its cell, and their weights
    shape_yx : rows and columns of cells
    """

    labels: NDArray[np.int32]
    nodes: NDArray[np.intp]
    weights: F32
    shape_yx: tuple[int, int]

    @classmethod
    def of(cls, seen: Seen) -> list[_Parts]:
        """One for each limit of what divides."""
        height, width = seen.lightness.shape
        rows, columns = (-(-extent // CELL_PX) for extent in (height, width))
        cells = (np.arange(height) // CELL_PX)[:, None] * columns + np.arange(width) // CELL_PX
        steps = np.clip(seen.lightness / np.float32(_STEP), 0, np.float32(_STEPS - 1))
        low = np.minimum(steps.astype(np.intp), _STEPS - 2)
        nodes, high = cells * _STEPS + low, steps - low
        grid = np.stack([nodes, nodes + 1]), np.stack([1 - high, high]), (rows, columns)
        return [cls(labels, *grid) for labels in parts_of(seen.lightness, _EDGES)]

    @cached_property
    def _all(self) -> F32:
        return self._counted(np.ones(self.labels.shape, np.bool_))

    def _counted(self, mask: NDArray[np.bool_]) -> F32:
        """(rows, columns, 26) how much of the pixels in ``mask`` is in and, the less the farther, about each node."""
        size = self.shape_yx[0] * self.shape_yx[1] * _STEPS
        counts = np.bincount(self.nodes[:, mask].ravel(), self.weights[:, mask].ravel(), size)
        there = counts.reshape(*self.shape_yx, _STEPS).astype(np.float32)
        # Fine detail has a lightness that the shrunk scan does not know of a cell: there, what is about counts.
        near, far = (cv2.blur(there, (side, side), borderType=cv2.BORDER_CONSTANT) for side in (3, 7))
        total = far.sum(-1, keepdims=True)
        return np.asarray(there + _NEAR * near + _NEAR**2 * far + _NEAR**3 * total, np.float32)

    def share(self, label: int) -> F32:
        """(cells, 26) the share of a part in each node, 0 to 1."""
        mine = self._counted(self.labels == label)
        return np.asarray(mine / np.maximum(self._all, np.float32(1e-20)), np.float32).reshape(-1, _STEPS)


@dataclass(frozen=True)
class _At:
    """The places of samples: their (n, 6) features, (n,) L* and reaches, and the part of each division."""

    features: F32
    lightness: F32
    reach: F32
    parts: list[NDArray[np.int32]]

    @classmethod
    def of(cls, samples: Sequence[Sample], cells: _Cells, seen: Seen, parts: Sequence[_Parts]) -> _At:
        cell_px = CELL_PX * seen.factor
        y, x = (np.array([getattr(sample, name) for sample in samples]) for name in ("y", "x"))
        features = cells.features[y // cell_px * cells.shape_yx[1] + x // cell_px].copy()
        short = min(seen.lightness.shape) * seen.factor
        features[:, 0], features[:, 1] = (y + 0.5) / short, (x + 0.5) / short
        lightness, reach = (
            np.array([getattr(s, name) for s in samples], np.float32) for name in ("lightness", "reach")
        )
        return cls(features, lightness, reach, [part.labels[y // seen.factor, x // seen.factor] for part in parts])
