"""Write a coloured picture in any handled format.

A format is one module of this package, called as the user calls it. It offers ``ENDING`` (of the file or folder, after
NAME) and ``write(path, picture, threads)``, which returns a :class:`Written`; a new file with these names is a new
format. One that cannot hold every picture has ``check(shape_yx, dtype)``, too, which says so; one whose library takes
much memory beside the windows has ``HELD_BYTES``. Modules with a leading underscore are what formats share.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from pipeline.errors import UsageError
from pipeline.writers._beside import PART
from pipeline.writers._picture import Picture, ReadWindow, Written

__all__ = [
    "ENDINGS",
    "FORMATS",
    "Picture",
    "ReadWindow",
    "Written",
    "check_formats",
    "held_bytes",
    "leftovers",
    "write_picture",
]

FORMATS: dict[str, ModuleType] = {
    found.name: importlib.import_module(f"{__name__}.{found.name}")
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name)
    if not found.name.startswith("_")
}
# As pipeline.manifest.RunSpec.version has it, behind a dot.
_VERSION = re.compile(r"\.\d+(x\d+)?-\d+(x\d+)?-\w+-\w+-[0-9a-f]{8}")
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


def held_bytes(names: Iterable[str]) -> int:
    """What the libraries of these formats hold at most beside the windows; one format is written after the other."""
    return max((getattr(_format(name), "HELD_BYTES", 0) for name in names), default=0)


def leftovers(folder: Path, stem: str) -> list[Path]:
    """What stopped writes of the scan ``stem``, current or of a version, have left in ``folder``: files and folders.

    Nobody else may be writing there.
    """
    beside = tuple(f"{ending}{PART}" for ending in ENDINGS.values())
    names = (found.name for found in folder.iterdir()) if folder.is_dir() else ()
    mine = (name for name in names if name.startswith(stem) and name.endswith(beside))
    return sorted(folder / name for name in mine if _is_version(name, stem, beside))


def _is_version(name: str, stem: str, endings: tuple[str, ...]) -> bool:
    """Whether between ``stem`` and one of the ``endings`` is nothing, or a version: not so in another scan's name."""
    between = {name.removeprefix(stem).removesuffix(ending) for ending in endings if name.endswith(ending)}
    return any(part == "" or _VERSION.fullmatch(part) for part in between)


def _format(name: str) -> ModuleType:
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: unknown, nothing would be written; give one of {', '.join(FORMATS)}")
    return FORMATS[name]
