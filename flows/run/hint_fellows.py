"""Hints of one scan of a series, carried over to the fellows that show the same place.

What is carried over are points of a hint: each is found on the fellow by the registration that joins the series, and
kept where the scan looks the same there, in whatever tones. A hint of the fellow itself, and one that was carried over
before, outweighs another that lies near and says something else. Nothing is predicted for it: carried hints correct
colours as the scan's own do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.inputs import ScanFile
from flows.run.series import Series
from pipeline.errors import StoreError
from pipeline.palettes.registration import Seen, find_overlap
from pipeline.results.versions import ResultPaths
from pipeline.shapes import Shape
from pipeline.store import ScanStore
from pipeline.tiling.anchor import shrinking

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_MOST_POINTS = 16  # of one hint
_PATCH_PX = 5  # about a point, of what was seen: so far the pictures are compared
_LEAST_LIKENESS = 0.5
_FLAT = 1.5  # L*; what varies less shows nothing that could differ
# Hints that are nearer, in short sides, and whose a*, b* differ by more, contradict each other.
_NEAR, _OTHER_COLOUR = 0.02, 15.0


@dataclass(frozen=True)
class Look:
    """What was seen of a scan of a series: its (h, w) L*, shrunk, its size, its file, and what its fellows share."""

    name: str
    seen: F32
    shape_yx: tuple[int, int]
    scan: ScanFile
    shared: Mapping[str, float]

    @property
    def px(self) -> float:
        """Side of a pixel of what was seen, in those of the scan."""
        return float(shrinking(self.shape_yx))


@dataclass(frozen=True)
class Carried:
    """A hint as a fellow gets it, as a version keeps it; and how many of its points were left out, by the reason."""

    known: Mapping[str, Any] | None
    unlike: int = 0
    contradicting: int = 0

    @property
    def left_out(self) -> str:
        """Where it was not carried over, and why, for people; empty where it was."""
        if self.contradicting:
            return f"at {self.contradicting} places: another hint that lies near says another colour"
        if self.unlike and self.known is None:
            return "at all: the scan looks different there"
        return ""


def look_of(output: Path, stem: str, series: Series) -> Look | None:
    """What was seen of a scan when the palettes of this series were joined; None where they were not yet."""
    try:
        store = ScanStore.open(ResultPaths.of(output, stem).store)
        for version in map(store.version, store.version_names()):
            if version.settings.get("series_sha256") != series.sha256:
                continue
            kept, record = version.reading(), version.series
            if kept is not None and record is not None:
                scan = ScanFile(Path(store.source.path or output / stem), stem, store.source.page)
                return Look(stem, kept[0], store.info.shape_yx, scan, record["shared"])
    except StoreError:
        return None
    return None


def way_between(output: Path, one: str, other: str, series: Series) -> F64 | None:
    """(3, 3) from x, y, 1 of a scan to those of another, in pixels of what was seen of them; None where none was found.

    Both have been looked at.
    """
    # Compared in the order in which the series does it, so that it is found here as there.
    first, second = sorted((one, other))
    matrix = _way(output, first, second, series)
    return matrix if matrix is None or first == one else np.asarray(np.linalg.inv(matrix), np.float64)


@lru_cache(maxsize=1024)
def _way(output: Path, one: str, other: str, series: Series) -> F64 | None:
    looks = [look_of(output, stem, series) for stem in (one, other)]
    pictures = [look.seen for look in looks if look is not None]
    seen = [Seen.of(picture) for picture in pictures]
    found = find_overlap(*seen)
    if found is None:
        return None
    # What is compared may be smaller than what was seen.
    down, up = (
        np.diag([each.plane.shape[1] / picture.shape[1], each.plane.shape[0] / picture.shape[0], 1])
        for each, picture in zip(seen, pictures, strict=True)
    )
    return np.asarray(np.linalg.inv(up) @ np.vstack([found.matrix, (0, 0, 1)]) @ down, np.float64)


def carry(known: Mapping[str, Any], source: Look, to: Look, way: F64, there: Sequence[Mapping[str, Any]]) -> Carried:
    """A hint of one scan as a hint of another.

    Parameters
    ----------
    known : as a version keeps it: kind and numbers of its shape, a*, b*, and reach in short sides
    way : from x, y, 1 of ``source`` to those of ``to``, in pixels of what was seen
    there : the hints that the other has already
    """
    shape = Shape(known["kind"], tuple(map(tuple, known["numbers"])))
    at = shape.pixels(_MOST_POINTS)[:, ::-1] + 0.5
    moved = (np.hstack([at / source.px, np.ones((len(at), 1))]) @ way[:2].T) * to.px
    inside = ((moved >= 0) & (moved < np.array(to.shape_yx)[::-1])).all(1)
    alike = np.array([_are_alike(source.seen, to.seen, point / source.px, way) for point in at[inside]], bool)
    moved = moved[inside][alike]
    near = _NEAR * min(to.shape_yx)
    against = np.zeros(len(moved), bool)
    for each in there:
        if np.hypot(*np.subtract(each["ab"], known["ab"])) > _OTHER_COLOUR:
            own = Shape(each["kind"], tuple(map(tuple, each["numbers"]))).bounds
            low, high = np.array([own.x0, own.y0]), np.array([own.x1, own.y1])
            against |= np.hypot(*(moved - np.clip(moved, low, high)).T) < near
    left = np.floor(moved[~against]).astype(int).tolist()
    counts = int((~alike).sum()), int(against.sum())
    if not left:
        return Carried(None, *counts)
    scale = abs(np.linalg.det(way[:2, :2])) ** 0.5 * to.px / source.px
    reach = known["reach"] * scale * min(source.shape_yx) / min(to.shape_yx)
    return Carried({"kind": "points", "numbers": left, "ab": known["ab"], "reach": round(reach, 4)}, *counts)


def _are_alike(one: F32, other: F32, at: F64, way: F64) -> bool:
    """Whether two pictures show the same about a place, by the correlation of their lightness."""
    y, x = np.mgrid[-_PATCH_PX : _PATCH_PX + 1, -_PATCH_PX : _PATCH_PX + 1].reshape(2, -1)
    here = np.stack([at[0] + x, at[1] + y, np.ones(x.size)])
    patches = [_taken(plane, places) for plane, places in ((one, here[:2]), (other, way[:2] @ here))]
    spread = [float(patch.std()) for patch in patches]
    if max(spread) < _FLAT:
        return True
    if min(spread) == 0:
        return False
    first, second = ((patch - patch.mean()) / patch.std() for patch in patches)
    return float((first * second).mean()) >= _LEAST_LIKENESS


def _taken(plane: F32, at_xy: F64) -> F32:
    columns, rows = (
        np.clip(np.floor(each).astype(int), 0, extent - 1)
        for each, extent in zip(at_xy, plane.shape[::-1], strict=True)
    )
    return plane[rows, columns]
