"""File names that have a version of a result in them, as ``RunSpec.version`` makes it."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.formats import UNFINISHED_ENDINGS

_VERSION = re.compile(r"\.\d+(x\d+)?-\d+(x\d+)?-\w+-\w+-[0-9a-f]{8}")  # with the dot in front of it


def is_of_version(stem: str) -> bool:
    """Whether a name ends as that of a version does, so that it may be one of another scan's."""
    return re.search(f"{_VERSION.pattern}$", stem) is not None


def leftovers(folder: Path, stem: str) -> list[Path]:
    """What stopped writes of the scan ``stem``, current or of a version, have left in ``folder``: files and folders.

    Nobody else may be writing there.
    """
    names = (found.name for found in folder.iterdir()) if folder.is_dir() else ()
    mine = (name for name in names if name.startswith(stem) and name.endswith(UNFINISHED_ENDINGS))
    return sorted(folder / name for name in mine if _is_version(name, stem))


def _is_version(name: str, stem: str) -> bool:
    """Whether between ``stem`` and the ending is nothing, or a version: not so in another scan's name."""
    between = {name.removeprefix(stem).removesuffix(ending) for ending in UNFINISHED_ENDINGS if name.endswith(ending)}
    return any(part == "" or _VERSION.fullmatch(part) for part in between)
