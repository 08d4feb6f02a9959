"""The seam score: how visible the tile grid is in a result.

Colour may step where a tile begins or ends. The step is CIEDE2000 between the two pixels beside the line, both with
their mean lightness, so that the picture's own texture, which is in L*, does not count. It is compared with the same
step on lines shifted by eighths of the stride, where the picture's own colours step as often:

``edge``
    mean step on the lines of the grid over the mean step on the shifted lines. Sees the hard edges that the plain
    average leaves.
``patch``
    1 plus the amplitude of steps between means over 16 px at the period of the stride, relative to their mean and
    beyond the amplitude at neighbouring periods. Sees the soft patches that smooth windows leave.

Both are 1 if nothing has the period of the grid, and the score is the larger one. Small pictures have few lines, so
their scores scatter more.

Memory holds one window of 1024 px. A scan above 100 megapixels is sampled: every n-th window counts.

References
----------
Sharma, Wu, Dalal (2005), "The CIEDE2000 color-difference formula", Color Research and Application 30 (1), 21-30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.ciede2000 import ciede2000
from pipeline.types import Roi

F32 = NDArray[np.float32]
Reader = Callable[[Roi], tuple[F32, F32]]

PHASES = 8
STRIP_PX = 16
HARMONICS = 3
FULL_PX = 100_000_000
WINDOW_PX = 1024
# Every second pixel along a line is used: neighbours see the same step.
_ALONG = 2
# With fewer periods the grid's frequency cannot be separated from neighbouring ones.
_LEAST_PERIODS = 6
# A limit, because a step in an otherwise flat picture would have an infinite score.
_MOST = 1000.0


@dataclass(frozen=True)
class SeamScore:
    """The two scores described above; NaN if the scan is too small to have a grid."""

    edge: float
    patch: float

    @property
    def score(self) -> float:
        """The larger score; 1 means that no grid is visible."""
        return float(np.fmax(self.edge, self.patch))


@dataclass
class _Steps:
    """Sums and counts of steps, by phase of the stride or by line."""

    total: NDArray[np.float64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, kinds: int) -> _Steps:
        return cls(np.zeros(kinds), np.zeros(kinds, np.int64))

    def add(self, kinds: NDArray[np.int64], steps: F32) -> None:
        """Add (rows, lines) steps across lines of these kinds."""
        np.add.at(self.total, kinds, steps.sum(0, dtype=np.float64))
        np.add.at(self.count, kinds, steps.shape[0])

    def means(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.count)


def _windows(shape_yx: tuple[int, int], most_px: int) -> Iterator[Roi]:
    """All windows of a scan; in a huge scan only those on diagonals, so that every row and column is represented."""
    height, width = shape_yx
    every = max(1, -(-height * width // most_px))
    for row, y in enumerate(range(0, height, WINDOW_PX)):
        for column, x in enumerate(range(0, width, WINDOW_PX)):
            if (row + column) % every == 0:
                yield Roi(y, min(y + WINDOW_PX, height), x, min(x + WINDOW_PX, width))


def seam_score(
    read: Reader, shape_yx: tuple[int, int], stride_yx: tuple[int, int], most_px: int | None = None
) -> SeamScore:
    """Score a result against the grid of ``stride_yx``.

    Parameters
    ----------
    read : returns (h, w) float32 L* and (2, h, w) float32 a*, b* of a region
    most_px : a larger scan is sampled; None for :data:`FULL_PX`
    """
    edges = [_Steps.of(PHASES) for _ in stride_yx]
    patches = [_Steps.of(-(-extent // STRIP_PX)) for extent in shape_yx]
    for roi in _windows(shape_yx, most_px or FULL_PX):
        # Lines at the start of a window need the pixels before it.
        before_y, before_x = min(STRIP_PX, roi.y0), min(STRIP_PX, roi.x0)
        lightness, chroma = read(Roi(roi.y0 - before_y, roi.y1, roi.x0 - before_x, roi.x1))
        down = lightness[:, before_x:].T, chroma[:, :, before_x:].transpose(0, 2, 1), roi.y0, before_y
        along = lightness[before_y:], chroma[:, before_y:], roi.x0, before_x
        for axis, across in enumerate((down, along)):
            _add_edges(edges[axis], *across, stride_yx[axis])
            _add_patches(patches[axis], *across)
    # A side of less than two strides lacks some phases, so there is nothing to compare.
    whole = [steps.means() for steps in edges if steps.count.all()]
    edge = np.mean(whole, axis=0) if whole else np.full(PHASES, np.nan)
    swings = [_swing(steps.means(), stride / STRIP_PX) for steps, stride in zip(patches, stride_yx, strict=True)]
    known = [swing for swing in swings if not np.isnan(swing)]
    return SeamScore(_ratio(edge[0], edge[1:]), 1 + float(np.mean(known)) if known else float("nan"))


def _ratio(step: float, others: NDArray[np.float64]) -> float:
    usual = float(np.mean(others))
    if step == usual == 0:
        return 1.0  # without colour there are no steps and no seams
    return min(_MOST, step / usual) if usual > 0 else _MOST if step > 0 else float("nan")


def _swing(means: NDArray[np.float64], period: float) -> float:
    """Root of the power of ``means`` at ``period`` and its harmonics in excess of nearby periods, over their mean."""
    lines = np.flatnonzero(np.isfinite(means))
    if period < 2 or lines.size < _LEAST_PERIODS * period:
        return float("nan")
    there = means[lines]
    if there.mean() == 0:
        return 0.0
    # Remove slow changes and fade out the ends, so that the profile does not leak into the grid's frequency.
    level = np.polynomial.Polynomial.fit(lines, there, 3)(lines)
    fading = np.hanning(lines.size + 2)[1:-1]
    swings = (there - level) / there.mean() * fading / fading.sum()

    def power(frequency: float) -> float:
        return float(np.abs(2 * np.sum(swings * np.exp(-2j * np.pi * frequency * lines))) ** 2)

    resolution = 2 / lines.size  # frequencies this far apart do not leak into each other through the fading
    excess = 0.0
    for harmonic in range(1, HARMONICS + 1):
        frequency = harmonic / period
        if frequency > 0.5:
            break
        nearby = [power(frequency + sign * k * resolution) for k in (1, 2, 3) for sign in (-1, 1)]
        excess += max(0.0, power(frequency) - 2 * float(np.mean(nearby)))
    return float(np.sqrt(excess))


def _add_edges(steps: _Steps, lightness: F32, chroma: F32, start: int, before: int, stride: int) -> None:
    """Add steps from one pixel to the next, along the last axis, at eighths of the stride, from ``start`` on.

    The arrays begin ``before`` pixels earlier.
    """
    first = start - before
    lines = [
        (line - first, phase)
        for phase in range(PHASES)
        for line in range(phase * stride // PHASES, first + lightness.shape[1], stride)
        if line >= max(start, stride)
    ]
    if not lines:
        return
    at, phases = np.array(lines).T
    every, colours = lightness[::_ALONG], chroma[:, ::_ALONG]
    mean = np.asarray((every[:, at - 1] + every[:, at]) / 2, np.float32)
    steps.add(phases, _difference(mean, colours[:, :, at - 1], colours[:, :, at]))


def _add_patches(steps: _Steps, lightness: F32, chroma: F32, start: int, before: int) -> None:
    """Add steps between neighbouring means over squares of 16 px, along the last axis; as :func:`_add_edges`."""
    height, width = (extent // STRIP_PX * STRIP_PX for extent in lightness.shape)
    if width < 2 * STRIP_PX or not height:
        return
    squares = (height // STRIP_PX, STRIP_PX, width // STRIP_PX, STRIP_PX)
    mean: F32 = lightness[:height, :width].reshape(squares).mean((1, 3), dtype=np.float32)
    colour = chroma[:, :height, :width].reshape(2, *squares).mean((2, 4))
    between = np.asarray((mean[:, 1:] + mean[:, :-1]) / 2, np.float32)
    found = _difference(between, colour[:, :, 1:], colour[:, :, :-1])
    steps.add((start - before) // STRIP_PX + np.arange(1, width // STRIP_PX), found)


def _difference(lightness: F32, one: F32, other: F32) -> F32:
    return np.asarray(ciede2000((lightness, *one), (lightness, *other)), np.float32)
