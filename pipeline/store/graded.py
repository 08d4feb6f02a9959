"""A graded version: the colours of another one, changed wherever they are read.

It stores what is to be done and not what comes of it. A grade costs less than to decompress the colours that it is done
to, so to make and keep them first would take as long as the export that reads them again, and as much of the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.colour.grading import Grade
from pipeline.errors import StoreError
from pipeline.store.chroma import CHOSEN, ChromaVersion, WindowColours
from pipeline.types import Roi

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
GRADED_FROM = "graded_from"


class GradedVersion(ChromaVersion):
    """An open version without colours of its own; blocks and agreement are those of the version that it begins with.

    Parameters
    ----------
    before : the version whose colours are graded
    shape_yx : of the scan
    look : (h, w) L* of a rectangle, and where nothing is to be coloured, None where all is
    """

    _folders = (CHOSEN,)

    def __init__(
        self,
        path: Path,
        group: zarr.Group,
        before: ChromaVersion,
        shape_yx: tuple[int, int],
        look: Callable[[Roi], tuple[F32, Mask | None]],
    ) -> None:
        super().__init__(path, group)
        self._before, self._shape_yx, self._look = before, shape_yx, look
        self._grade = Grade.from_json(self.settings["grade"])

    def window(self, roi: Roi) -> WindowColours:
        """As that of a version with colours of its own. Raises StoreError, also where the factor is not there."""
        grade, colours = self._grade, self._before.window(roi)
        if not grade.touches(roi):
            return colours
        factor = 1.0 if grade.colourfulness is None else self.factor
        if factor is None:
            raise StoreError(f"{self.path}: its factor is gone, so its colours would differ; grade it with --force")

        def of_rows(rows: slice, lightness: F32, bare: Mask | None = None) -> F32:
            return grade.apply(colours(rows, lightness), lightness, None if bare is None else ~bare, factor)

        if not any(each.region.part_of(roi) for each in grade.regions):
            return of_rows
        # How far a pixel is from a region's border is found for all rows at once.
        lightness, bare = self._look(roi)
        coloured = None if bare is None else ~bare
        whole = of_rows(slice(None), lightness, bare)
        made = grade.apply_regions(whole, roi, self._shape_yx, lightness, coloured)
        return lambda rows, lightness, bare=None: made[:, rows]

    def read(self, roi: Roi) -> NDArray[np.float16]:
        """(2, h, w) a*, b* of ``roi`` in CIELAB units, rounded as those that are stored. Raises StoreError."""
        return self.window(roi)(slice(None), *self._look(roi)).astype(np.float16)

    def _planes(self, roi: Roi, levels: Iterable[int], planes: slice) -> F32:
        """Those of the version before, in CIELAB units."""
        found = self._before._planes(roi, levels, planes)
        found[:-1] *= np.float32(self._before.scale_factor)
        return found

    def has_block(self, index_yx: tuple[int, int], level: int = 0) -> bool:
        """Whether the colours that are graded are there, as that of a version with colours of its own."""
        return self._before.has_block(index_yx, level)

    def finished_blocks(self, level: int = 0) -> set[tuple[int, int]]:
        """Those of the colours that are graded."""
        return self._before.finished_blocks(level)

    @property
    def is_complete(self) -> bool:
        """True if the version is marked complete, and so is that which it begins with."""
        return self._is_marked_complete and self._before.is_complete

    def is_whole(self) -> bool:
        """True if the version is marked complete, and that which it begins with is whole. Reads all shards of that."""
        return self._is_marked_complete and self._before.is_whole()
