"""Write a coloured picture in any handled format.

A format is one module of this package, called as the user calls it. It offers ``ENDING`` (of the file or folder, after
NAME) and ``write(path, picture, threads)``, which returns a :class:`Written`; a new file with these names is a new
format. Modules with a leading underscore are what formats share.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from pipeline.errors import UsageError
from pipeline.writers._picture import Picture, ReadWindow, Written

__all__ = ["ENDINGS", "FORMATS", "Picture", "ReadWindow", "Written", "write_picture"]

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
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: unknown, nothing would be written; give one of {', '.join(FORMATS)}")
    written: Written = FORMATS[name].write(path, picture, threads)
    return written
