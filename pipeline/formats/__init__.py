"""Write a coloured picture in any handled format, and read it back.

A format is one module of this package, named as in the command's options, with a :class:`Format` called ``FORMAT``, and
its line in :mod:`pipeline.endings`. Modules with a leading underscore are shared by the formats.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.formats._format import Format, Tolerance
from pipeline.formats.levels import Levels, UprightLevels
from pipeline.formats.picture import OutputImage, ReadWindow, WriteReport
from pipeline.support.text import reason_of

__all__ = [
    "ENDINGS",
    "FORMATS",
    "Format",
    "Levels",
    "OutputImage",
    "ReadWindow",
    "Tolerance",
    "WriteReport",
    "check_formats",
    "held_bytes",
    "level_problems",
    "open_levels",
    "write_picture",
]

FORMATS: dict[str, Format] = {name: importlib.import_module(f"{__name__}.{name}").FORMAT for name in ENDINGS}


def write_picture(name: str, path: Path, picture: OutputImage, threads: int) -> WriteReport:
    """Write ``path`` in the format ``name``; it appears only when it is complete.

    Raises
    ------
    UsageError : no such format, or one that cannot hold this picture. OutputError : the disk or its permissions.
    """
    return _format_called(name).write(path, picture, threads)


def check_formats(names: Iterable[str], shape_yx: tuple[int, int], dtype: np.dtype) -> None:
    """Raises UsageError if one of the formats ``names`` is unknown or cannot hold such a picture."""
    for name in names:
        _format_called(name).check(shape_yx, dtype)


def held_bytes(names: Iterable[str]) -> int:
    """Most memory that the libraries of these formats hold beside the windows; formats are written one by one."""
    return max((_format_called(name).HELD_BYTES for name in names), default=0)


def level_problems(name: str, path: Path, shape_yx: tuple[int, int], levels: int) -> Iterator[str]:
    """Problems of the smaller copies in a file of format ``name``, which should have this many ``levels``.

    Parameters
    ----------
    shape_yx : rows, columns of the whole picture
    """
    try:
        shapes = _format_called(name).levels(path, shape_yx)
    except Exception as error:  # libraries raise many types
        yield f"its pyramid cannot be read ({reason_of(error)})"
        return
    if len(shapes) != levels:
        yield f"its pyramid has {len(shapes)} levels, not {levels}"
    for above, below in pairwise(shapes):
        # GDAL rounds an odd extent down.
        if any(small not in (large // 2, -(-large // 2)) for small, large in zip(below, above, strict=True)):
            yield f"the pyramid's level {below} is not half of {above}"


def open_levels(name: str, path: Path, shape_yx: tuple[int, int], orientation: int = 1) -> Levels:
    """A written picture at every size, upright, to be read by windows; a context manager.

    Parameters
    ----------
    shape_yx : rows, columns of the stored picture
    orientation : of the scan (TIFF tag 274)

    Raises
    ------
    Exception : of any type, if it cannot be read
    """
    made = _format_called(name)
    levels = made.open_levels(path, shape_yx)
    is_turned = orientation in range(2, 9) and not made.is_upright
    return UprightLevels(levels, orientation) if is_turned else levels


def _format_called(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: unknown, nothing would be written; give one of {', '.join(FORMATS)}")
    return FORMATS[name]
