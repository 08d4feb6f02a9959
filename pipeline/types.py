"""Small frozen values that the stages hand to each other; all of them pickle and compare by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScanInfo:
    """What a scan is, known without decoding it.

    Attributes
    ----------
    shape_yx : rows, columns
    channels : 1 (gray) or 3 (RGB)
    dtype : "uint8" or "uint16"
    metadata : JSON values: ``format``; where known ``compression``, ``resolution`` ([x, y, unit]), ``orientation``
        (TIFF tag 274), ``dropped`` (list of what was left out, such as "alpha channel")
    """

    shape_yx: tuple[int, int]
    channels: int
    dtype: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def megapixels(self) -> float:
        return self.shape_yx[0] * self.shape_yx[1] / 1e6


class ScanReader(Protocol):
    """An open scan; a context manager.

    Windows may be read in any order; top to bottom is the fast order for every format.
    """

    @property
    def info(self) -> ScanInfo: ...

    def read(self, rows: slice, columns: slice) -> NDArray[np.unsignedinteger]:
        """(h, w) gray or (h, w, 3) RGB samples of the scan's dtype. Raises ScanUnreadableError on damaged data."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
