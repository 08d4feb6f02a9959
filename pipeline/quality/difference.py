"""The difference of two coloured versions of one scan: how much, and where.

Both versions carry the scan's own lightness, so the difference of a pixel is CIEDE2000 between (L*, a1*, b1*) and
(L*, a2*, b2*), from which equal L* cancels out. About 1 is just noticeable side by side, 5 is obvious, 10 is another
colour. The predicted colours are compared: where the export had to scale chroma down to fit sRGB, such as near black
and white, the pictures may differ less.

A subsample limits a gigapixel to tens of seconds: up to
``FULL_PX`` pixels every pixel is used, above that every ``step_px``-th row and column, and the result says so. A
texture that repeats exactly every ``step_px`` pixels is then seen at one phase only.

Memory is constant: one window of each input, a histogram, and the sums of the cells.

References
----------
Sharma, Wu, Dalal (2005), "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
mathematical observations", Color Research and Application 30 (1), 21-30. CIE 142-2001.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.ciede2000 import ciede2000
from pipeline.errors import StoreError, UsageError
from pipeline.support.row_bands import row_strips
from pipeline.types import Roi

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Reader = Callable[[Roi], NDArray[Any]]

FULL_PX = 100_000_000  # Up to this size every pixel is compared: about 13 s.
WINDOW_PX = 1024  # Side of a window read at once: whole chunks of the store, at most 12 MB of chroma in float32.
QUANTILE_STEP = 0.01  # resolution of quantiles in CIEDE2000
QUANTILE_TOP = (
    100.0  # CIEDE2000 at which the histogram ends; two colours of sRGB of one lightness hardly differ by more
)
WORST_PX = 256
WORST_COUNT = 5
MAP_CELLS = 1024
MAP_TOP = 10.0  # CIEDE2000 of the brightest colour of the heat map

_BINS = round(QUANTILE_TOP / QUANTILE_STEP) + 1
_NOTICEABLE = 1.0
_PLAIN = 5.0


@dataclass(frozen=True)
class WorstWindow:
    """A window of the scan and the mean CIEDE2000 of the pixels compared in it."""

    roi: Roi
    mean: float


@dataclass(frozen=True)
class Difference:
    """The result of :func:`difference`; every difference is in units of CIEDE2000.

    Attributes
    ----------
    shape_yx : rows and columns of the scan
    pixels, step_px : number of compared pixels, and the step between them in rows and columns; 1 means every pixel
    mean, max : exact for the compared pixels
    median, p95, p99 : accurate to ``QUANTILE_STEP / 2``; ``QUANTILE_TOP`` means that or more
    share_above_1, share_above_5 : fractions of the pixels, in [0, 1], that differ noticeably and obviously
    chroma_old, chroma_new : mean sqrt(a*^2 + b*^2) of each version: its colourfulness, in CIELAB units
    worst : the windows of 256 x 256 px (less at the far edges) with the largest sums of differences, largest first;
        fewer than five if fewer differ
    cell_px : side of the cells of ``map_yx`` in scan pixels
    map_yx : (rows, columns) float32, mean of each cell, read-only; at most 1024 cells on the longer side
    """

    shape_yx: tuple[int, int]
    pixels: int
    step_px: int
    mean: float
    median: float
    p95: float
    p99: float
    max: float
    share_above_1: float
    share_above_5: float
    chroma_old: float
    chroma_new: float
    worst: tuple[WorstWindow, ...]
    cell_px: int
    map_yx: F32 = field(compare=False, repr=False)  # Arrays have no single answer to ==.

    def to_json(self) -> dict[str, Any]:
        """All but the map, as JSON values; windows as ``[y0, y1, x0, x1]``."""
        return {
            "shape_yx": list(self.shape_yx),
            "pixels": self.pixels,
            "step_px": self.step_px,
            "ciede2000": {
                "mean": round(self.mean, 4),
                "median": round(self.median, 4),
                "p95": round(self.p95, 4),
                "p99": round(self.p99, 4),
                "max": round(self.max, 4),
                "share_above_1": round(self.share_above_1, 6),
                "share_above_5": round(self.share_above_5, 6),
                "quantile_step": QUANTILE_STEP,
            },
            "mean_chroma": {"old": round(self.chroma_old, 4), "new": round(self.chroma_new, 4)},
            "worst": [
                {"window_yyxx": [w.roi.y0, w.roi.y1, w.roi.x0, w.roi.x1], "mean": round(w.mean, 4)} for w in self.worst
            ],
        }


def difference(
    shape_yx: tuple[int, int],
    read_old: Reader,
    read_new: Reader,
    *,
    full_px: int = FULL_PX,
    window_px: int = WINDOW_PX,
) -> Difference:
    """Compare two coloured versions of one scan, window by window.

    Parameters
    ----------
    shape_yx : rows and columns of the scan
    read_old, read_new : return (2, h, w) a*, b* of a Roi in CIELAB units
    full_px : most pixels to compare; a larger scan is compared on a regular grid of its pixels, starting at the first
    window_px : side of the largest window to read. It changes time and memory, not the result.

    Raises
    ------
    UsageError : an empty scan, a limit below 1, or a reader that returns another shape than requested.
    StoreError : values that are not finite. Errors of the readers pass unchanged.
    """
    if min(*shape_yx, full_px, window_px) < 1:
        raise UsageError(
            f"shape {shape_yx}, full_px {full_px}, window_px {window_px}: nothing can be compared; "
            "each must be at least 1"
        )
    step_px = _step_px(shape_yx, full_px)
    tally = _Tally.empty(shape_yx, step_px)
    for roi in _windows(shape_yx, window_px):
        ys, xs = _samples(roi.y0, roi.y1, step_px), _samples(roi.x0, roi.x1, step_px)
        if ys.size and xs.size:
            picked = (..., slice(int(ys[0]) - roi.y0, None, step_px), slice(int(xs[0]) - roi.x0, None, step_px))
            tally.add(ys, xs, _read(read_old, roi, (2,), picked), _read(read_new, roi, (2,), picked))
    return tally.result()


def _step_px(shape_yx: tuple[int, int], full_px: int) -> int:
    """Smallest step in rows and columns that leaves at most ``full_px`` pixels."""

    def fits(step: int) -> bool:
        return ceil(shape_yx[0] / step) * ceil(shape_yx[1] / step) <= full_px

    return 1 + bisect_left(range(1, max(shape_yx) + 1), True, key=fits)


def _windows(shape_yx: tuple[int, int], window_px: int) -> Iterator[Roi]:
    """The scan in squares of ``window_px``, in raster order."""
    for y in range(0, shape_yx[0], window_px):
        for x in range(0, shape_yx[1], window_px):
            yield Roi(y, y + window_px, x, x + window_px).clipped(shape_yx)


def _samples(begin: int, end: int, step_px: int) -> NDArray[np.int64]:
    """Multiples of ``step_px`` in ``begin <= p < end``: the same pixels whatever the windows."""
    return np.arange(-(-begin // step_px) * step_px, end, step_px, dtype=np.int64)


def _read(read: Reader, roi: Roi, planes: tuple[int, ...], picked: tuple[Any, ...]) -> F32:
    """The picked pixels of a window as contiguous float32; refuses wrong shapes and values that are not finite."""
    values = read(roi)
    if values.shape != (*planes, *roi.shape_yx):
        raise UsageError(
            f"{roi}: got shape {values.shape} instead of {(*planes, *roi.shape_yx)}; "
            "only versions of one scan can be compared"
        )
    values = np.ascontiguousarray(values[picked], dtype=np.float32)
    if not np.isfinite(values).all():
        raise StoreError(f"{roi}: values that are not finite, which have no colour; colour the scan again with --force")
    return values


def _ciede2000(old_ab: F32, new_ab: F32) -> F32:
    """(h, w) CIEDE2000 between two (2, h, w) chromas at equal lightness, which cancels out."""
    _, height, width = old_ab.shape
    delta = np.empty((height, width), np.float32)
    for strip in row_strips(delta.shape):
        zero = np.zeros((strip.stop - strip.start, width), np.float32)
        delta[strip] = ciede2000(*((zero, *chroma[:, strip]) for chroma in (old_ab, new_ab)))
    return delta


def _chroma_sum(chroma_ab: F32) -> float:
    return float(np.hypot(chroma_ab[0], chroma_ab[1]).sum(dtype=np.float64))


@dataclass(frozen=True)
class _Cells:
    """Sums over the square cells of a scan; the scan's last row and column of cells may be cut short."""

    shape_yx: tuple[int, int]
    step_px: int
    cell_px: int
    sums: F64

    @classmethod
    def empty(cls, shape_yx: tuple[int, int], step_px: int, cell_px: int) -> _Cells:
        counts = ceil(shape_yx[0] / cell_px), ceil(shape_yx[1] / cell_px)
        return cls(shape_yx, step_px, cell_px, np.zeros(counts))

    def add(self, ys: NDArray[np.int64], xs: NDArray[np.int64], values: F32) -> None:
        """Add (len(ys), len(xs)) values of the pixels in rows ``ys`` and columns ``xs``, both ascending."""
        rows, row_starts = np.unique(ys // self.cell_px, return_index=True)
        columns, column_starts = np.unique(xs // self.cell_px, return_index=True)
        # Sums in float64: a cell of a gigapixel scan may hold thousands of values.
        in_columns = np.add.reduceat(values, column_starts, axis=1, dtype=np.float64)
        self.sums[np.ix_(rows, columns)] += np.add.reduceat(in_columns, row_starts, axis=0)

    def means(self) -> F64:
        """Mean of each cell; 0 if a coarse subsample has no pixel in it."""
        counts = [
            np.bincount(_samples(0, extent, self.step_px) // self.cell_px, minlength=cells)
            for extent, cells in zip(self.shape_yx, self.sums.shape, strict=True)
        ]
        means: F64 = self.sums / np.maximum(np.outer(*counts), 1)
        return means

    def roi(self, row: int, column: int) -> Roi:
        y, x = row * self.cell_px, column * self.cell_px
        return Roi(y, y + self.cell_px, x, x + self.cell_px).clipped(self.shape_yx)

    def worst(self, count: int) -> tuple[WorstWindow, ...]:
        """The cells with the largest mean times area: a sliver at the edge must not outrank a whole window."""
        means = self.means()
        sides = [
            np.minimum(self.cell_px, extent - self.cell_px * np.arange(cells))
            for extent, cells in zip(self.shape_yx, means.shape, strict=True)
        ]
        order = np.argsort(-(means * np.outer(*sides)), axis=None, kind="stable")[:count]
        found = ((divmod(int(at), means.shape[1]), float(means.flat[at])) for at in order)
        return tuple(WorstWindow(self.roi(*index), mean) for index, mean in found if mean > 0)


@dataclass
class _Tally:
    """Statistics of the windows seen so far."""

    map_cells: _Cells
    worst_cells: _Cells
    histogram: NDArray[np.int64]
    total: float = 0.0
    largest: float = 0.0
    noticeable: int = 0
    plain: int = 0
    chroma_old: float = 0.0
    chroma_new: float = 0.0

    @classmethod
    def empty(cls, shape_yx: tuple[int, int], step_px: int) -> _Tally:
        # A multiple of the step, so that every cell of the map begins at a compared pixel.
        cell_px = ceil(max(shape_yx) / (MAP_CELLS * step_px)) * step_px
        cells = [_Cells.empty(shape_yx, step_px, side_px) for side_px in (cell_px, WORST_PX)]
        return cls(cells[0], cells[1], np.zeros(_BINS, np.int64))

    def add(self, ys: NDArray[np.int64], xs: NDArray[np.int64], old_ab: F32, new_ab: F32) -> None:
        delta = _ciede2000(old_ab, new_ab)
        self.map_cells.add(ys, xs, delta)
        self.worst_cells.add(ys, xs, delta)
        self.total += float(delta.sum(dtype=np.float64))
        self.largest = max(self.largest, float(delta.max()))
        self.noticeable += int(np.count_nonzero(delta > _NOTICEABLE))
        self.plain += int(np.count_nonzero(delta > _PLAIN))
        self.chroma_old += _chroma_sum(old_ab)
        self.chroma_new += _chroma_sum(new_ab)
        # Rounded to the nearest step, not down, so that equal versions have quantiles of exactly zero.
        bins = np.rint(np.minimum(delta, np.float32(QUANTILE_TOP)) * np.float32(1 / QUANTILE_STEP)).astype(np.intp)
        self.histogram += np.bincount(bins.ravel(), minlength=_BINS)

    def quantile(self, share: float) -> float:
        """Smallest difference that at least ``share`` of the pixels do not exceed, accurate to half a step."""
        cumulative = np.cumsum(self.histogram)
        rank = ceil(share * int(cumulative[-1]))
        return round(int(np.searchsorted(cumulative, rank)) * QUANTILE_STEP, 6)

    def result(self) -> Difference:
        pixels = int(self.histogram.sum())
        map_yx = self.map_cells.means().astype(np.float32)
        map_yx.flags.writeable = False
        return Difference(
            shape_yx=self.map_cells.shape_yx,
            pixels=pixels,
            step_px=self.map_cells.step_px,
            mean=self.total / pixels,
            median=self.quantile(0.5),
            p95=self.quantile(0.95),
            p99=self.quantile(0.99),
            max=self.largest,
            share_above_1=self.noticeable / pixels,
            share_above_5=self.plain / pixels,
            chroma_old=self.chroma_old / pixels,
            chroma_new=self.chroma_new / pixels,
            worst=self.worst_cells.worst(WORST_COUNT),
            cell_px=self.map_cells.cell_px,
            map_yx=map_yx,
        )


_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_PICTURE_PX = 768  # A smaller map is enlarged towards this by an integer factor, so that cells stay sharp squares.
_MARGIN_PX = 12
_LINE_PX = 20
_BAR_PX = 14
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_TICKS = {0.0: "0", 1.0: "1", 2.0: "2", 5.0: "5", MAP_TOP: "10+"}


def difference_map(difference: Difference) -> NDArray[np.uint8]:
    """A heat map with a legend below it.

    The scale is the same for every picture: black is 0, pale yellow is 10 CIEDE2000 and more (matplotlib's "inferno",
    uniform in lightness, so it is readable in gray and for the colour-blind). White frames mark the windows that differ
    most.

    Returns
    -------
    (H, W, 3) uint8 RGB: the map, enlarged by an integer factor if it is small, above the legend.
    """
    factor = max(1, _PICTURE_PX // max(difference.map_yx.shape))
    heat = _heat(difference.map_yx).repeat(factor, axis=0).repeat(factor, axis=1)
    for window in difference.worst:
        _frame(heat, window.roi, factor / difference.cell_px)
    legend = _legend(heat.shape[1], _captions(difference))
    picture = np.full((heat.shape[0] + legend.shape[0], legend.shape[1], 3), 255, np.uint8)
    picture[: heat.shape[0], : heat.shape[1]] = heat
    picture[heat.shape[0] :] = legend
    return picture


def _heat(values: NDArray[Any]) -> NDArray[np.uint8]:
    levels = np.rint(np.clip(values / MAP_TOP, 0, 1) * 255).astype(np.uint8)
    bgr: NDArray[np.uint8] = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[..., ::-1])


def _frame(picture: NDArray[np.uint8], roi: Roi, scale: float) -> None:
    """Outline a window in place: white within black, visible on dark and bright; around it, since it may be tiny."""
    height, width = picture.shape[:2]
    first = max(0, round(roi.x0 * scale) - 2), max(0, round(roi.y0 * scale) - 2)
    last = min(width - 1, round(roi.x1 * scale) + 1), min(height - 1, round(roi.y1 * scale) + 1)
    cv2.rectangle(picture, first, last, _BLACK, 3)
    cv2.rectangle(picture, first, last, _WHITE, 1)


def _captions(difference: Difference) -> list[str]:
    cell = difference.cell_px
    shown = "colour difference (CIEDE2000) of each pixel" if cell == 1 else f"mean CIEDE2000 of {cell} x {cell} px"
    frames = len(difference.worst)
    return [shown, f"frames: the {frames} windows that differ most"] if frames > 1 else [shown]


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0])


def _legend(width: int, captions: list[str]) -> NDArray[np.uint8]:
    """A white strip with the captions and the scale; wider than ``width`` if the captions need it."""
    width = max(width, 2 * _MARGIN_PX + max(map(_text_width, captions)))
    bar_y = _MARGIN_PX + _LINE_PX * len(captions)
    legend = np.full((bar_y + _BAR_PX + _LINE_PX + _MARGIN_PX, width, 3), 255, np.uint8)
    for line, caption in enumerate(captions, start=1):
        _write(legend, caption, _MARGIN_PX, _MARGIN_PX // 2 + line * _LINE_PX - 6)
    length = width - 2 * _MARGIN_PX
    ramp = _heat(np.linspace(0, MAP_TOP, length)[None])
    legend[bar_y : bar_y + _BAR_PX, _MARGIN_PX : _MARGIN_PX + length] = ramp
    for value, label in _TICKS.items():
        x = _MARGIN_PX + round((length - 1) * value / MAP_TOP)
        legend[bar_y + _BAR_PX : bar_y + _BAR_PX + 4, x] = 0
        left = min(max(_MARGIN_PX, x - _text_width(label) // 2), width - _MARGIN_PX - _text_width(label))
        _write(legend, label, left, bar_y + _BAR_PX + _LINE_PX - 2)
    return legend


def _write(picture: NDArray[np.uint8], text: str, x: int, baseline_y: int) -> None:
    cv2.putText(picture, text, (x, baseline_y), _FONT, _FONT_SCALE, _BLACK, 1, cv2.LINE_AA)
