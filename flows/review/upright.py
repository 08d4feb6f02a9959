"""Places in an upright picture, as the page shows it, and in the scan's file, which may be stored turned or mirrored.

References
----------
TIFF 6.0, tag 274 (orientation).
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from flows.sheet.thumbnails import upright
from pipeline.types import Roi

_ROWS_REVERSED, _COLUMNS_REVERSED, _TRANSPOSED = {3, 4, 6, 7}, {2, 3, 7, 8}, {5, 6, 7, 8}
_BACK = {6: 8, 8: 6}


@dataclass(frozen=True)
class Turn:
    """From stored to upright and back, for a picture of any size.

    Attributes
    ----------
    shape_yx : rows, columns as stored
    orientation : TIFF's tag 274; what is unknown counts as 1
    """

    shape_yx: tuple[int, int]
    orientation: int = 1

    @property
    def upright_yx(self) -> tuple[int, int]:
        """Rows, columns of the upright picture."""
        height, width = self.shape_yx
        return (width, height) if self.orientation in _TRANSPOSED else (height, width)

    @property
    def is_transposed(self) -> bool:
        """Whether rows of the file are columns upright."""
        return self.orientation in _TRANSPOSED

    def resized(self, upright_yx: tuple[int, int]) -> Turn:
        """The same turn of a smaller copy that is so large upright."""
        height, width = upright_yx
        return Turn((width, height) if self.orientation in _TRANSPOSED else (height, width), self.orientation)

    def to_stored(self, x: float, y: float) -> tuple[float, float]:
        """The stored place of an upright one; both count from the corner of the first pixel."""
        x, y = (y, x) if self.orientation in _TRANSPOSED else (x, y)
        return self._reversed(x, y)

    def to_upright(self, x: float, y: float) -> tuple[float, float]:
        """The upright place of a stored one."""
        x, y = self._reversed(x, y)
        return (y, x) if self.orientation in _TRANSPOSED else (x, y)

    def _reversed(self, x: float, y: float) -> tuple[float, float]:
        height, width = self.shape_yx
        return (
            width - x if self.orientation in _COLUMNS_REVERSED else x,
            height - y if self.orientation in _ROWS_REVERSED else y,
        )

    def stored_roi(self, roi: Roi) -> Roi:
        """The stored rectangle of an upright one."""
        one, other = self.to_stored(roi.x0, roi.y0), self.to_stored(roi.x1, roi.y1)
        (x0, x1), (y0, y1) = (sorted((int(a), int(b))) for a, b in zip(one, other, strict=True))
        return Roi(y0, y1, x0, x1)

    def stored(self, picture: NDArray) -> NDArray:
        """An upright picture (h, w) or (h, w, n), as it would be stored."""
        return upright(picture, _BACK.get(self.orientation, self.orientation))

    def upright(self, picture: NDArray) -> NDArray:
        """A stored picture (h, w) or (h, w, n), upright."""
        return upright(picture, self.orientation)
