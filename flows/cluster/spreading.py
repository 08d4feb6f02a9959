"""How hints spread over a scan of the store: for workers, which keep it, and for the review desk, which shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import chroma_from_half
from pipeline.errors import StoreError
from pipeline.hints.recolouring import Known, Read, Recolouring, recolouring
from pipeline.hints.spreading import Seen
from pipeline.shapes import Shape
from pipeline.store import ChromaVersion, ScanStore
from pipeline.tiling.anchor import overview, shrinking, square_means
from pipeline.types import Roi

F32 = NDArray[np.float32]

# Those of the store's chunks.
_ROWS_PX = 512


@dataclass(frozen=True)
class LookedAt:
    """A scan that was looked at as a whole, so that hints spread over it without reading all of it again.

    Attributes
    ----------
    seen : the shrunk scan
    read_chroma, read_lightness : (2, h, w) a*, b* that are there, and (h, w) L*, of a region
    """

    seen: Seen
    read_chroma: Read
    read_lightness: Read

    def prepared(self) -> LookedAt:
        """Itself, with all that no hint changes done, so that the first one does not wait for it."""
        _ = self.seen.cells, self.seen.parts
        return self

    def spread(self, known: Sequence[Known]) -> Recolouring:
        """The hints spread over it; any region can then be shown with them. Raises StoreError."""
        return recolouring(known, self.seen, self.read_chroma, self.read_lightness)


def known_of(record: Mapping[str, Any]) -> tuple[Known, ...]:
    """The hints of what a hinted version keeps. Raises StoreError."""
    try:
        return tuple(
            Known(
                Shape(each["kind"], tuple(tuple(numbers) for numbers in each["numbers"])),
                (float(each["ab"][0]), float(each["ab"][1])),
                float(each["reach"]),
            )
            for each in record["known"]
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(f"the hints in the store are damaged ({error}); run it again with --force") from error


def spread_hints(store: ScanStore, before: ChromaVersion, known: tuple[Known, ...]) -> Recolouring:
    """Look at a scan of the store under its hints, and spread them over the colours of the version ``before``.

    :meth:`Recolouring.apply` then shows any region, also of hints that no version has yet. Raises StoreError.
    """
    return look_at(store, before).spread(known)


def look_at(store: ScanStore, before: ChromaVersion) -> LookedAt:
    """Look at a whole scan of the store and at the colours of the version ``before``. Raises StoreError."""
    shape_yx = store.info.shape_yx
    factor = shrinking(shape_yx)
    lightness = overview(store.read_seen, shape_yx, factor)
    seen = Seen(lightness, _predicted(before, shape_yx, lightness.shape, factor), factor, shape_yx)

    @lru_cache(maxsize=4)
    def chunk(y: int, x: int) -> tuple[F32, F32]:
        roi = Roi(y, y + 2 * _ROWS_PX, x, x + 2 * _ROWS_PX).clipped(shape_yx)
        return chroma_from_half(before.read(roi), before.scale_factor), store.read_lightness(roi)

    def place(roi: Roi) -> tuple[tuple[F32, F32], slice, slice]:
        y, x = roi.y0 // _ROWS_PX * _ROWS_PX, roi.x0 // _ROWS_PX * _ROWS_PX
        return chunk(y, x), slice(roi.y0 - y, roi.y1 - y), slice(roi.x0 - x, roi.x1 - x)

    def read_chroma(roi: Roi) -> F32:
        (chroma, _), rows, columns = place(roi)
        return chroma[:, rows, columns]

    def read_lightness(roi: Roi) -> F32:
        (_, lightness), rows, columns = place(roi)
        return lightness[rows, columns]

    return LookedAt(seen, read_chroma, read_lightness)


def _predicted(before: ChromaVersion, shape_yx: tuple[int, int], small_yx: tuple[int, ...], factor: int) -> F32:
    """(2, h, w) smooth a*, b* that are there, of the shrunk scan: those of the palette, which are at hand."""
    size = small_yx[1], small_yx[0]
    if before.has_anchor:
        cells = before.palette(shape_yx).cells
    else:
        side = max(_ROWS_PX, factor)
        rows = []
        for y in range(0, shape_yx[0], side):
            band = Roi(y, min(y + side, shape_yx[0]), 0, shape_yx[1])
            chroma = chroma_from_half(before.read(band), before.scale_factor)
            rows.append(np.stack([square_means(np.ascontiguousarray(plane), factor) for plane in chroma]))
        cells = np.concatenate(rows, axis=1)
    planes = [np.ascontiguousarray(plane, np.float32) for plane in cells]
    return np.stack([np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)) for plane in planes])
