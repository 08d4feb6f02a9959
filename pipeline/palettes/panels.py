"""The pictures on a page: straight cuts through a scan, between unrelated pictures.

A palette network that sees sixteen different photographs at once recognizes none of them. So a page is cut along a
straight line that runs through all of it between two different pictures, or along a gutter of bare paper, and each part
is cut again (the recursive X-Y cut of document analysis). A horizon or a wall is not such a line: there one side is
brighter nearly everywhere, while between unrelated pictures the brighter side alternates. The criteria are looser on a
page that is known to have pictures, and loosest where a line continues one found elsewhere, because pictures on pages
stand in rows.

References
----------
Nagy, Seth, Hierarchical Representation of Optically Scanned Documents, ICPR 1984 (the X-Y tree).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Roi

F32 = NDArray[np.float32]

LEAST_PANELS, MOST_PANELS = 3, 64
_SHORT_PX = 600  # largest short side of the overview in which lines are searched
_LEAST_SIDE_PX = 72  # smallest side of a panel there
_GAP_PX = 2  # from a line to the compared samples, because shrinking blurs the line
_AROUND_PX = 16  # neighbourhood with which a line is compared
_TOP = 20.0  # L*; larger differences are clipped
_LEAST_STEP = 4.0  # L*
_BARE_DEVIATION = 2.5  # L* along a gutter
_PAPER, _INK = 80.0, 15.0  # L*; a gutter is lighter than the first or darker than the second
_WIDEST_GUTTER = 0.2  # as a fraction of the part's shorter side


@dataclass(frozen=True)
class _Strictness:
    """Criteria for a line.

    Attributes
    ----------
    rise, factor : how much its mean step exceeds those around it, in L* and as a factor
    share, mixed : fraction of its length with a step, and fraction of these steps with the rarer sign
    """

    rise: float
    factor: float
    share: float
    mixed: float


# 2 % of 250 photographs contain such a line, and 87 % of the lines between different photographs are such lines.
_STRICT = _Strictness(rise=8.0, factor=2.6, share=0.7, mixed=0.2)
# For a page that is known to have several pictures, and for a line that continues another one there.
_LENIENT = _Strictness(rise=5.0, factor=2.2, share=0.6, mixed=0.08)
_GOING_ON = _Strictness(rise=2.0, factor=1.3, share=0.4, mixed=0.0)
_ROW_PX = 3  # two lines at most this far apart continue each other


@dataclass(frozen=True)
class _Cut:
    """A cut across ``axis`` (0: a horizontal line): first pixel and last + 1 of the strip between both parts."""

    strength: float
    axis: int
    start: int
    stop: int


def panels_of(small: F32, factor: int, shape_yx: tuple[int, int]) -> tuple[Roi, ...]:
    """The pictures on a scan, in its pixels; empty if it is a single picture.

    Parameters
    ----------
    small : (h, w) L*, the scan shrunk by ``factor``
    """
    less = max(1.0, min(small.shape) / _SHORT_PX)
    size = max(1, round(small.shape[1] / less)), max(1, round(small.shape[0] / less))
    seen = cv2.resize(small, size, interpolation=cv2.INTER_AREA) if less > 1 else small
    page = _Page(np.asarray(seen, np.float32))
    if len(page.cut_up(_STRICT)) < LEAST_PANELS:
        return ()
    page.cut_up(_LENIENT)
    found = page.cut_up(_LENIENT)
    if len(found) > MOST_PANELS:
        return ()
    scale_y, scale_x = (factor * old / new for old, new in zip(small.shape, seen.shape, strict=True))

    def at(roi: Roi) -> Roi:
        y0, y1 = (round(y * scale_y) for y in (roi.y0, roi.y1))
        x0, x1 = (round(x * scale_x) for x in (roi.x0, roi.x1))
        return Roi(y0, y1, x0, x1).clipped(shape_yx)

    return tuple(at(roi) for roi in found)


class _Page:
    """A shrunk scan, and the lines found on it so far."""

    def __init__(self, seen: F32) -> None:
        self._seen = seen
        self._rows: tuple[list[int], list[int]] = ([], [])

    def cut_up(self, strictness: _Strictness) -> list[Roi]:
        """The pictures on it, without bare parts; lines found now count as known the next time."""
        height, width = self._seen.shape
        return self._parts(Roi(0, height, 0, width), strictness)

    def _parts(self, roi: Roi, strictness: _Strictness) -> list[Roi]:
        part = self._seen[roi.rows, roi.columns]
        cuts = []
        for axis, first in ((0, roi.y0), (1, roi.x0)):
            known = {place - first + off for place in self._rows[axis] for off in range(-_ROW_PX, _ROW_PX + 1)}
            cuts += [_best_gutter(part, axis), _best_line(part, axis, strictness, known)]
        cut = max((cut for cut in cuts if cut is not None), key=lambda each: each.strength, default=None)
        if cut is None:
            return [] if _is_bare(part) else [roi]
        if cut.axis == 0:
            self._rows[0].append(roi.y0 + cut.start)
            halves = (replace(roi, y1=roi.y0 + cut.start), replace(roi, y0=roi.y0 + cut.stop))
        else:
            self._rows[1].append(roi.x0 + cut.start)
            halves = (replace(roi, x1=roi.x0 + cut.start), replace(roi, x0=roi.x0 + cut.stop))
        return [found for half in halves for found in self._parts(half, strictness)]


def _is_bare(part: F32) -> bool:
    return bool(part.std() < _BARE_DEVIATION)


def _best_line(part: F32, axis: int, strictness: _Strictness, known: set[int]) -> _Cut | None:
    """The most distinct line between two pictures; ``known`` lines need to meet looser criteria."""
    lines = part if axis == 0 else part.T
    if len(lines) < 2 * _LEAST_SIDE_PX or lines.shape[1] < _LEAST_SIDE_PX:
        return None
    step = _steps(lines)
    mean = np.minimum(np.abs(step), _TOP).mean(axis=1)
    best: _Cut | None = None
    for i in range(_LEAST_SIDE_PX - 1, len(step) - _LEAST_SIDE_PX + 1):
        middle = i + (_GAP_PX + 1) // 2 + 1
        least = _GOING_ON if middle in known else strictness
        around = np.r_[mean[max(0, i - _AROUND_PX) : i - _GAP_PX - 1], mean[i + _GAP_PX + 2 : i + _AROUND_PX + 1]]
        usual = float(np.median(around))
        rise = float(mean[i]) - usual
        if rise < least.rise or mean[i] < least.factor * usual or (best and rise <= best.strength):
            continue
        strong = np.abs(step[i]) > max(_LEAST_STEP, usual)
        if strong.mean() < least.share:
            continue
        brighter = float((step[i][strong] > 0).mean())
        if min(brighter, 1 - brighter) >= least.mixed:
            best = _Cut(rise, axis, middle, middle)
    return best


def _steps(lines: F32) -> F32:
    """Differences across each line: from line i to line i + 1 + _GAP_PX."""
    step: F32 = lines[_GAP_PX + 1 :] - lines[: -_GAP_PX - 1]
    return step


def _best_gutter(part: F32, axis: int) -> _Cut | None:
    """The widest strip of bare paper or film across the part, with a picture on each side."""
    lines = part if axis == 0 else part.T
    count = len(lines)
    if lines.shape[1] < _LEAST_SIDE_PX:
        return None
    means, deviations = lines.mean(axis=1), lines.std(axis=1)
    bare = (deviations < _BARE_DEVIATION) & ((means > _PAPER) | (means < _INK))
    edges = np.flatnonzero(np.diff(np.r_[0, bare.astype(np.int8), 0]))
    best: _Cut | None = None
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        width = int(stop - start)
        if not 3 <= width <= _WIDEST_GUTTER * min(lines.shape) or (
            best is not None and width <= best.stop - best.start
        ):
            continue
        is_between = start >= _LEAST_SIDE_PX and count - stop >= _LEAST_SIDE_PX
        if is_between and _is_sharp(lines, start, stop) and not (_is_bare(lines[:start]) or _is_bare(lines[stop:])):
            best = _Cut(_TOP + width, axis, int(start), int(stop))
    return best


def _is_sharp(lines: F32, start: int, stop: int) -> bool:
    """True if a strip has sharp edges along most of both sides; mist and sky do not."""
    beside = lines[start - _GAP_PX] - lines[start + 1], lines[stop - 2] - lines[stop + _GAP_PX - 1]
    return all(float((np.abs(step) > _LEAST_STEP).mean()) >= _STRICT.share for step in beside)
