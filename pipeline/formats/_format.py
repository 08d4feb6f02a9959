"""What a format offers: how a picture is written, how it is opened again, and how exact it is.

Only ``ENDING`` and ``write`` are asked of a format. The rest has the answers of a plain lossless file without smaller
copies that one of our readers opens.
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
from pipeline.formats.picture import OutputImage, WriteReport
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, ScanReader

# A picture of ours with smaller copies never needs more; one without any, or a stranger's, is not decoded as a whole.
OVERVIEW_LIMIT_PX = 2**24


@dataclass(frozen=True)
class Tolerance:
    """How far the lightness of a lossy picture may be from the scan's.

    Attributes
    ----------
    largest, mean : of |dL*|
    """

    largest: float
    mean: float


class Format(Protocol):
    """One output format. Its module has an instance called ``FORMAT``.

    Attributes
    ----------
    ENDING : of the file or folder, after NAME; it begins with ".color."
    IS_FOLDER : True if the picture is a folder
    OVERVIEW_COST : a rank; of several pictures of a result, the one with the lowest is read for the thumbnail
    TOLERANCE : None where the samples are kept exactly
    HELD_BYTES : the most that its library holds beside the windows
    """

    ENDING: ClassVar[str]
    IS_FOLDER: ClassVar[bool] = False
    OVERVIEW_COST: ClassVar[int] = 100
    TOLERANCE: ClassVar[Tolerance | None] = None
    HELD_BYTES: ClassVar[int] = 0

    @abstractmethod
    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``, which appears only when it is complete; whatever goes wrong, an older one stays as it was.

        Raises
        ------
        UsageError : the picture is one that ``check`` refuses.
        OutputError : it cannot be written: disk full, permissions. What ``picture.read_window`` raises.
        """
        ...

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that this format cannot hold."""
        return

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        """Rows, columns of the picture of ``shape_yx`` and of each smaller copy that ``path`` has, largest first.

        Raises
        ------
        Exception : of any kind, where they cannot be read
        """
        return [shape_yx]

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        """Samples of the smallest copy that is large enough to be looked at.

        A result may have been replaced by anything that has its name. So a format opens it by its own reader, which it
        names, and follows no link from one file to another.

        Parameters
        ----------
        shape_yx : rows, columns of the whole picture
        side_px : the least that the long side should have, where the picture has as much

        Returns
        -------
        (h, w) or (h, w, channels), uint8 or uint16

        Raises
        ------
        Exception : of any kind, where it cannot be read; StoreError where it has no copy that is small enough
        """
        with self.open_back(path, 1) as reader:
            check_overview(reader.info.shape_yx)
            height, width = reader.info.shape_yx
            return reader.read(slice(0, height), slice(0, width))

    def open_back(self, path: Path, orientation: int) -> ScanReader:
        """The written picture, by windows of the scan.

        Parameters
        ----------
        orientation : of the scan (TIFF tag 274), for a format that writes everything upright; 1 where it did not

        Raises
        ------
        ScanError : it cannot be opened
        """
        return open_scan(path, ReadOptions(world_file=""))  # what lies beside the file was not written with it

    def embedded(self, path: Path) -> EmbeddedMetadata:
        """What the written picture says beside its pixels.

        All that a result may carry is in it, also what a reader leaves out of a scan. Raises ScanError.
        """
        with self.open_back(path, 1) as reader:
            return reader.embedded

    def is_silent(self, not_carried: Mapping[str, str]) -> bool:
        """True if the picture was written by a release that had no place for metadata in this format.

        Parameters
        ----------
        not_carried : of the picture, as the sidecar has it
        """
        return False


def check_overview(shape_yx: Sequence[int]) -> None:
    """Raises StoreError for a picture that is too large to be decoded for a thumbnail."""
    if prod(shape_yx) > OVERVIEW_LIMIT_PX:
        raise StoreError(f"its smallest copy has {' x '.join(map(str, shape_yx))} pixels")
