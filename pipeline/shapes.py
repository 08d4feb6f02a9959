"""Places of a scan, of a hint or a grade: pixels, boxes or a polygon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Roi

Kind = Literal["points", "boxes", "polygon"]
# Coordinates beyond are nobody's: the largest scans have 2**18 pixels a side.
MOST = 2**28


@dataclass(frozen=True)
class Shape:
    """A part of a scan, in its pixels; x to the right and y down from the corner of the first one.

    Attributes
    ----------
    kind : ``points``, each the pixel that it lies in; ``boxes``, from x, y to x + w, y + h; ``polygon``, its corners
    numbers : (x, y) each, or (x, y, w, h) of boxes. A pixel is in a box or a polygon if its middle is
    """

    kind: Kind
    numbers: tuple[tuple[float, ...], ...]

    @property
    def bounds(self) -> Roi:
        """The smallest rectangle of pixels around all of it."""
        array = np.array(self.numbers, float)
        low, high = array[:, :2].min(0), array[:, :2].max(0)
        if self.kind == "points":
            (x0, y0), (x1, y1) = np.floor(low), np.floor(high) + 1
        elif self.kind == "boxes":
            (x0, y0), (x1, y1) = np.ceil(low - 0.5), np.ceil((array[:, :2] + array[:, 2:]).max(0) - 0.5)
        else:
            (x0, y0), (x1, y1) = np.floor(low), np.ceil(high)
        return Roi(int(y0), int(y1), int(x0), int(x1))

    def is_inside(self, shape_yx: tuple[int, int]) -> bool:
        """Whether all of it lies on a scan of this size, to half a pixel."""
        array = np.array(self.numbers, float)
        ends = array[:, :2] + array[:, 2:] if self.kind == "boxes" else array[:, :2]
        height, width = shape_yx
        slack = 0.0 if self.kind == "points" else 0.5
        low, high = array[:, :2].min(0) + slack, ends.max(0) - slack
        last = np.nextafter([width, height], 0) if self.kind == "points" else np.array([width, height])
        return bool((low >= 0).all() and (high <= last).all())

    def mask(self, roi: Roi) -> NDArray[np.bool_] | None:
        """(h, w) which pixels of ``roi`` belong to it; None where none does."""
        found = self.bounds
        ys = max(found.y0, roi.y0), min(found.y1, roi.y1)
        xs = max(found.x0, roi.x0), min(found.x1, roi.x1)
        if ys[0] >= ys[1] or xs[0] >= xs[1]:
            return None
        mask = np.zeros(roi.shape_yx, np.bool_)
        if self.kind == "polygon":
            rows, columns = slice(ys[0] - roi.y0, ys[1] - roi.y0), slice(xs[0] - roi.x0, xs[1] - roi.x0)
            mask[rows, columns] = self._in_polygon(np.arange(*ys), np.arange(*xs))
        else:
            for part in self._parts():
                rows = slice(max(0, part.y0 - roi.y0), max(0, part.y1 - roi.y0))
                mask[rows, max(0, part.x0 - roi.x0) : max(0, part.x1 - roi.x0)] = True
        return mask if mask.any() else None

    def _parts(self) -> list[Roi]:
        if self.kind == "points":
            pixels = np.floor(np.array(self.numbers, float)).astype(int)
            return [Roi(y, y + 1, x, x + 1) for x, y in pixels.tolist()]
        array = np.array(self.numbers, float)
        low, high = (np.ceil(each - 0.5).astype(int) for each in (array[:, :2], array[:, :2] + array[:, 2:]))
        return [Roi(y0, y1, x0, x1) for (x0, y0), (x1, y1) in zip(low.tolist(), high.tolist(), strict=True)]

    def _in_polygon(self, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> NDArray[np.bool_]:
        """Whether the middles of pixels are inside, by the number of sides to the right of them (even-odd rule)."""
        crossings = np.zeros((len(rows), len(columns) + 1), np.int32)
        y, corners = rows + 0.5, np.array(self.numbers, float)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
            crossed = np.flatnonzero((y >= min(ay, by)) & (y < max(ay, by)))
            if not len(crossed):
                continue
            x = ax + (y[crossed] - ay) * (bx - ax) / (by - ay)
            # From the first pixel whose middle is at or beyond the side, one more has been crossed.
            first = np.clip(np.ceil(x - 0.5).astype(np.int64) - columns[0], 0, len(columns))
            np.add.at(crossings, (crossed, first), 1)
        return np.asarray(np.cumsum(crossings, 1)[:, :-1] % 2 == 1)

    def pixels(self, most: int) -> NDArray[np.int_]:
        """(n, 2) up to ``most`` of its pixels as y, x, from all over it; at least one where it has any pixel."""
        if self.kind == "points":
            return _some(np.floor(np.array(self.numbers, float)).astype(int)[:, ::-1], most)
        bounds = self.bounds
        step = max(1, int((bounds.shape_yx[0] * bounds.shape_yx[1] / _LOOKED_AT_PX) ** 0.5))
        if self.kind == "polygon":
            rows, columns = (
                np.arange(low + step // 2 if low + step // 2 < high else low, high, step)
                for low, high in ((bounds.y0, bounds.y1), (bounds.x0, bounds.x1))
            )
            inside = self._in_polygon(rows, columns)
            if not inside.any():
                return self._first_pixel() if step > 1 else np.empty((0, 2), int)
            found = np.argwhere(_middle_first(inside)) * step + (rows[0], columns[0])
        else:
            parts = [part for part in self._parts() if part.shape_yx[0] > 0 and part.shape_yx[1] > 0]
            if len(parts) == 1:
                return _grid(parts[0], most)
            found = np.array([[(part.y0 + part.y1) // 2, (part.x0 + part.x1) // 2] for part in parts]).reshape(-1, 2)
        return _some(found, most)

    def _first_pixel(self) -> NDArray[np.int_]:
        """(1, 2) the first pixel of a polygon that is thinner than what was looked at, or (0, 2) if it has none."""
        bounds = self.bounds
        band = max(1, _BAND_PX // max(1, bounds.shape_yx[1]))
        for y in range(bounds.y0, bounds.y1, band):
            inside = self._in_polygon(np.arange(y, min(y + band, bounds.y1)), np.arange(bounds.x0, bounds.x1))
            if inside.any():
                return np.asarray(np.argwhere(inside)[:1] + (y, bounds.x0), int)  # noqa: RUF005
        return np.empty((0, 2), int)


_LOOKED_AT_PX = 2**18
_BAND_PX = 2**22


def _some(found: NDArray[np.int_], most: int) -> NDArray[np.int_]:
    """At most so many of the rows, from all over them."""
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return np.asarray(found[chosen])


def _middle_first(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the rim, where anything is left then: at the rim the scan already shows what is beside."""
    inner = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    return inner if inner.any() else inside


def _grid(roi: Roi, most: int) -> NDArray[np.int_]:
    """Up to ``most`` pixels of a rectangle, about as far from each other in both directions."""
    height, width = roi.shape_yx
    rows = int(np.clip(round((most * height / width) ** 0.5), 1, min(height, most)))
    columns = int(np.clip(most // rows, 1, width))
    y = roi.y0 + ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = roi.x0 + ((np.arange(columns) + 0.5) * width / columns).astype(int)
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
