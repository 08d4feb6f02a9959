"""Write a coloured picture in any handled format.

A format is one module of this package, called as the user calls it. It offers ``ENDING`` (of the file or folder, after
NAME) and ``write(path, picture, threads)``, which returns a :class:`Written`; a new file with these names is a new
format. One that cannot hold every picture has ``check(shape_yx, dtype)``, too, which says so. Modules with a leading
underscore are what formats share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from pipeline.errors import UsageError
from pipeline.writers._picture import Picture, ReadWindow, Written

__all__ = ["ENDINGS", "FORMATS", "Picture", "ReadWindow", "Written", "check_formats", "write_picture"]

FORMATS: dict[str, ModuleType] = {
    found.name: importlib.import_module(f"{__name__}.{found.name}")
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name)
    if not found.name.startswith("_")
}
ENDINGS: dict[str, str] = {name: module.ENDING for name, module in FORMATS.items()}


def write_picture(name: str, path: Path, picture: Picture, threads: int) -> Written:
    """Write ``path`` in the format ``name``; it appears only when it is complete.

    Raises
    ------
    UsageError : no such format, or one that cannot hold this picture. OutputError : the disk or its permissions.
    """
    written: Written = _format(name).write(path, picture, threads)
    return written


def check_formats(names: Iterable[str], shape_yx: tuple[int, int], dtype: np.dtype) -> None:
    """Raises UsageError where one of the formats ``names`` is not known, or cannot hold such a picture."""
    for name in names:
        check = getattr(_format(name), "check", None)
        if check is not None:
            check(shape_yx, dtype)


def _format(name: str) -> ModuleType:
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: unknown, nothing would be written; give one of {', '.join(FORMATS)}")
    return FORMATS[name]
