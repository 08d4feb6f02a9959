"""File names that contain the version of a result, as made by ``RunSpec.version``."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.endings import UNFINISHED as UNFINISHED_ENDINGS

_VERSION = re.compile(r"\.\d+(x\d+)?-\d+(x\d+)?-\w+-\w+-[0-9a-f]{8}")  # with the dot in front of it
_AT_END = re.compile(f"{_VERSION.pattern}$")


def is_of_version(stem: str) -> bool:
    """True if a name ends like that of a version, so that it may be a version of another scan."""
    return _AT_END.search(stem) is not None


def without_version(stem: str) -> str:
    """The name of a scan, of the name of one of its versions or of its own."""
    return _AT_END.sub("", stem)


def leftovers(folder: Path, stem: str) -> list[Path]:
    """Files and folders that stopped writes of the scan ``stem``, current or of a version, left in ``folder``.

    Nobody else may be writing there.
    """
    names = (found.name for found in folder.iterdir()) if folder.is_dir() else ()
    mine = (name for name in names if name.startswith(stem) and name.endswith(UNFINISHED_ENDINGS))
    return sorted(folder / name for name in mine if _is_version(name, stem))


def _is_version(name: str, stem: str) -> bool:
    """True if there is nothing between ``stem`` and the ending, or a version; not so in another scan's name."""
    between = {name.removeprefix(stem).removesuffix(ending) for ending in UNFINISHED_ENDINGS if name.endswith(ending)}
    return any(part == "" or _VERSION.fullmatch(part) for part in between)
