"""The interface of a format: how a picture is written, how it is opened again, and how exact it is.

A format must define only ``ENDING`` and ``write``. The other defaults suit a plain lossless file without smaller copies
that one of our readers opens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.formats.levels import Levels, WholeLevels
from pipeline.formats.picture import OutputImage, WriteReport
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, ScanReader

# Enough for our own pictures with smaller copies; others, or those without copies, are not decoded as a whole.
OVERVIEW_LIMIT_PX = 2**24


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference in lightness between a lossy picture and the scan.

    Attributes
    ----------
    largest, mean : bounds of |dL*|
    """

    largest: float
    mean: float


class Format(Protocol):
    """One output format. Its module has an instance called ``FORMAT``.

    Attributes
    ----------
    ENDING : ending of the file or folder, after NAME; it begins with ".color."
    OVERVIEW_COST : a rank; of a result's pictures, the one with the lowest is read for the thumbnail
    TOLERANCE : None if the samples are kept exactly
    HELD_BYTES : most memory that its library holds beside the windows
    SIGNED_AS : media type as which Content Credentials are put into the file; empty where they lie beside it
    """

    ENDING: ClassVar[str]
    OVERVIEW_COST: ClassVar[int] = 100
    TOLERANCE: ClassVar[Tolerance | None] = None
    HELD_BYTES: ClassVar[int] = 0
    SIGNED_AS: ClassVar[str] = ""

    @abstractmethod
    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; on any error, an existing one stays unchanged.

        Raises
        ------
        UsageError : ``check`` refuses the picture.
        OutputError : it cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass unchanged.
        """
        ...

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that this format cannot hold."""
        return

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        """Rows, columns of the picture of ``shape_yx`` and of each smaller copy in ``path``, largest first.

        Raises
        ------
        Exception : of any type, if they cannot be read
        """
        return [shape_yx]

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        """Samples of the smallest copy that is large enough to look at.

        The file may have been replaced by anything of that name. So each format opens it with its own reader only, and
        follows no reference from one file to another.

        Parameters
        ----------
        shape_yx : rows, columns of the whole picture
        side_px : shortest wanted long side; smaller if the picture itself is

        Returns
        -------
        (h, w) or (h, w, channels), uint8 or uint16

        Raises
        ------
        Exception : of any type, if it cannot be read; StoreError if no copy is small enough
        """
        with self.open_back(path, 1) as reader:
            check_overview(reader.info.shape_yx)
            height, width = reader.info.shape_yx
            return reader.read(slice(0, height), slice(0, width))

    def open_levels(self, path: Path, shape_yx: tuple[int, int]) -> Levels:
        """The picture and its smaller copies, to be read by windows; upright where :meth:`is_upright`.

        Raises
        ------
        Exception : of any type, if it cannot be read; StoreError if it has no copies and is too large without
        """
        with self.open_back(path, 1) as reader:
            return WholeLevels(reader.info.shape_yx, reader.read)

    @property
    def is_upright(self) -> bool:
        """True if pictures of this format are turned upright, whatever the orientation of the scan."""
        return False

    def open_back(self, path: Path, orientation: int) -> ScanReader:
        """The written picture, read by windows of the scan.

        Parameters
        ----------
        orientation : the scan's (TIFF tag 274), if the format turned the picture upright; else 1

        Raises
        ------
        ScanError : it cannot be opened
        """
        return open_scan(path, ReadOptions(world_file=""))  # files beside it were not written with it

    def embedded(self, path: Path) -> EmbeddedMetadata:
        """Embedded metadata of the written picture.

        Unlike a reader of scans, it returns everything that a result may carry. Raises ScanError.
        """
        with self.open_back(path, 1) as reader:
            return reader.embedded

    def is_silent(self, not_carried: Mapping[str, str]) -> bool:
        """True if the picture was written by a release that put no metadata into this format.

        Parameters
        ----------
        not_carried : the picture's ``not_carried`` in the sidecar
        """
        return False


def check_overview(shape_yx: Sequence[int]) -> None:
    """Raises StoreError if a picture is too large to decode for a thumbnail."""
    if prod(shape_yx) > OVERVIEW_LIMIT_PX:
        raise StoreError(f"its smallest copy has {' x '.join(map(str, shape_yx))} pixels")
