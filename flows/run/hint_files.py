"""Which hints are whose, and the colours that they come to.

They lie beside the scan (``plate.hints.json`` for ``plate.tif``, ``book.p001.hints.json`` for a page), beside its
result, or under the result's name in a folder of their own; strokes and JSON in one place count together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.inputs import ScanFile
from pipeline.colour.lab import chroma_from_half
from pipeline.errors import ColorizeError, HintError
from pipeline.hints import ENDINGS
from pipeline.hints.colours import lab_of
from pipeline.hints.files import read_hints
from pipeline.hints.model import AsIn, Hints
from pipeline.hints.spreading import REACH
from pipeline.results.sidecar import version_of
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.names import shown
from pipeline.types import Roi

_AROUND_PX = 2
# Raised when the same hints would come to other colours.
_ALGORITHM = 1


@dataclass(frozen=True)
class TakenHints:
    """The hints of a scan with the colours that they come to, as its version keeps them; ``record`` is JSON."""

    record: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        return str(self.record["sha256"])


NamesIn = Callable[[Path], Container[str]]
"""Says which files with hints lie in a folder."""


@dataclass(frozen=True)
class Asked:
    """The files in a folder, each looked for when it is asked for."""

    folder: Path

    def __contains__(self, name: object) -> bool:
        return (self.folder / str(name)).is_file()


def names_of_hints(folder: Path) -> frozenset[str]:
    """The names of all hints in a folder; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(each.name for each in entries if each.name.endswith(ENDINGS) and each.is_file())
    except OSError:
        return frozenset()


@dataclass(frozen=True)
class Places:
    """Where hints are looked for: in ``folder``, or where there is none, beside scans and their results."""

    output: Path
    folder: Path | None = None
    names_in: NamesIn = Asked

    def find(self, scan: ScanFile) -> list[Path]:
        """The files with the hints of a scan, all in one folder.

        Raises
        ------
        HintError : they lie in several
        """
        stem = Path(scan.stem)
        bases = [self.folder / stem, self.folder / stem.name] if self.folder else []
        if not bases:
            beside = scan.path.parent
            bases = [self.output / stem, beside / stem.name]
            if scan.page == 1 and not stem.name.startswith(f"{scan.path.stem}.p"):
                bases.append(beside / scan.path.stem)
        found: dict[str, list[Path]] = {}
        for base in bases:
            folder = base.parent
            names = self.names_in(folder)
            if there := [folder / name for ending in ENDINGS if (name := base.name + ending) in names]:
                found.setdefault(os.path.realpath(folder), there)
        if len(found) > 1:
            where = " and ".join(shown(paths[0]) for paths in found.values())
            raise HintError(f"{scan.path}: has hints in {where}, and only one of them can count; leave one there")
        return next(iter(found.values()), [])


def take_hints(places: Places, scan: ScanFile, shape_yx: tuple[int, int]) -> TakenHints | None:
    """The hints of a scan of this size; None where there are none.

    Raises
    ------
    HintError : they cannot be read, or the scan cannot have them; one line that names the file
    """
    paths = places.find(scan)
    if not paths:
        return None
    hints = _read(paths, shape_yx, scan.path)
    if not hints.hints:
        return None
    known = []
    for number, hint in enumerate(hints.hints, 1):
        try:
            colour = hint.colour
            ab = _as_in(places, scan, colour) if isinstance(colour, AsIn) else lab_of(colour)[1:]
        except ColorizeError as error:
            raise HintError(f"{scan.path}: its hints {shown(paths[0])}: hint {number}: {error}") from error
        reach = REACH if hint.spreads is None else hint.spreads
        numbers = [list(each) for each in hint.shape.numbers]
        known.append({"kind": hint.shape.kind, "numbers": numbers, "ab": [round(v, 4) for v in ab], "reach": reach})
    told = {"algorithm": _ALGORITHM, "hints": hints.to_json()["hints"], "known": known}
    sha256 = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    every = {
        f"{name}s": list(dict.fromkeys(filter(None, (getattr(hint, name) for hint in hints.hints))))
        for name in ("author", "source")
    }
    return TakenHints({"files": [str(path) for path in paths], "sha256": sha256, "count": len(known), **every, **told})


def _read(paths: list[Path], shape_yx: tuple[int, int], scan: Path) -> Hints:
    every = Hints()
    path = paths[0]
    try:
        for path in paths:
            every = replace(every, hints=(*every.hints, *read_hints(path, shape_yx).hints))
        every.check(shape_yx)
    except HintError as error:
        raise HintError(f"{scan}: its hints {shown(path)}: {error}") from error
    return every


def _as_in(places: Places, scan: ScanFile, colour: AsIn) -> tuple[float, float]:
    """The a*, b* that another picture has now. Raises HintError, StoreError."""
    _check_circle(places, scan, colour, (scan.stem,))
    paths = ResultPaths.of(places.output, colour.picture)
    store = _store_of(paths, colour)
    version = version_of(paths.sidecar)
    opened = None if version is None else store.find_version(version)
    if opened is None:
        raise HintError(f"{colour}: it has no colours yet; colour it first")
    height, width = store.info.shape_yx
    x, y = int(np.floor(colour.x)), int(np.floor(colour.y))
    if not (0 <= x < width and 0 <= y < height):
        raise HintError(f"{colour}: it has only {width} x {height} pixels; give one of them")
    roi = Roi(max(0, y - _AROUND_PX), y + _AROUND_PX + 1, max(0, x - _AROUND_PX), x + _AROUND_PX + 1)
    a, b = chroma_from_half(opened.read(roi.clipped((height, width))), opened.scale_factor).mean((1, 2))
    return float(a), float(b)


def _store_of(paths: ResultPaths, colour: AsIn) -> ScanStore:
    if not paths.store.is_dir():
        raise HintError(f"{colour}: no {paths.store.name} is among the results; colour it first, or check the name")
    return ScanStore.open(paths.store)


def _check_circle(places: Places, scan: ScanFile, colour: AsIn, way: tuple[str, ...]) -> None:
    """Raises HintError where the other picture has its colours, by its own hints, from this one."""
    picture = Path(colour.picture).as_posix()
    if picture in way:
        raise HintError(
            f"{colour}: goes round in a circle ({' -> '.join((*way, picture))}), so no colour is the first; give one "
            "of these pictures a colour of its own"
        )
    store = _store_of(ResultPaths.of(places.output, picture), colour)
    other = ScanFile(Path(store.source.path or places.output / picture), picture, store.source.page)
    try:
        hints = [each for path in places.find(other) for each in read_hints(path, store.info.shape_yx).hints]
    except HintError:
        return  # what is wrong with them is told where they are taken
    for each in {hint.colour for hint in hints if isinstance(hint.colour, AsIn)}:
        _check_circle(places, other, each, (*way, picture))
