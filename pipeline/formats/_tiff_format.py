"""Shared by formats that are TIFFs: finding their smaller copies and their metadata.

Only a file's own directories are read, never further files of what tifffile considers a series.

References
----------
OME-TIFF's multi-file series (docs.openmicroscopy.org/ome-model, "Distributing OME-TIFF"), which are not followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.formats._format import Format, check_overview
from pipeline.formats.levels import Levels, TiffLevels
from pipeline.metadata.exif import DESCRIPTION, OF_PICTURE
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.support.files import open_file


class TiffFormat(Format):
    """A TIFF that contains smaller copies; subclasses define ``write``."""

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        with tifffile.TiffFile(path) as tiff:
            return [(each.shape[0], each.shape[1]) for each in _copies(tiff)]

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        with open_file(path) as stream, tifffile.TiffFile(stream, name=path.name) as tiff:
            copies = _copies(tiff)
            copy = next((each for each in reversed(copies) if max(each.shape[:2]) >= side_px), copies[0])
            check_overview(copy.shape[:2])
            return np.asarray(copy.asarray())

    def open_levels(self, path: Path, shape_yx: tuple[int, int]) -> Levels:
        return TiffLevels(path, _copies)

    def embedded(self, path: Path) -> EmbeddedMetadata:
        return replace(super().embedded(path), tags=_first_tags(path))


def _copies(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The picture and its smaller copies: in SubIFDs, or in later directories that are marked as copies.

    tifffile's series are not used: they omit levels of one pixel and may open further files.
    """
    first = tiff.pages.first
    if first.subifds:
        return [first, *first.pages]
    return [first, *(page for page in tiff.pages[1:] if page.is_reduced and not page.is_mask)]


def _first_tags(path: Path) -> tuple[TiffTag, ...]:
    """All tags of the first directory, while a reader returns only those that describe a scan."""
    with tifffile.TiffFile(path) as file:
        found = []
        for tag in file.pages[0].tags:
            if tag.code == DESCRIPTION or tag.code not in OF_PICTURE:
                file.filehandle.seek(tag.valueoffset)
                value = file.filehandle.read(tag.valuebytecount)
                found.append(TiffTag(int(tag.code), int(tag.dtype), int(tag.count), value))
        return tuple(found)
