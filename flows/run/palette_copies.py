"""Coloured copies of scans that were made elsewhere: which is whose, and the palette of a version from one.

A copy is named as the results of its scan are (``albums/plate.jpg`` for ``albums/plate.tif``, ``book.p001.png`` for a
page), or lies without sub-folders in the folder of copies.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.catalogue.recorder import ScanFiles
from flows.events import warn
from flows.inputs import ScanFile
from pipeline.endings import SCANS
from pipeline.errors import PaletteCopyError, ScanError, UsageError
from pipeline.metadata.c2pa import claim_generator
from pipeline.metadata.provenance import made_by
from pipeline.palettes.copies import palette_of_copy, shrunk_copy
from pipeline.palettes.registration import Registration
from pipeline.readers import keeping_colours, open_scan
from pipeline.results.run_spec import ALGORITHM
from pipeline.results.sidecar import PaletteCopyRecord
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.files import file_sha256, write_json
from pipeline.support.names import shown
from pipeline.tiling.palette import Palette

_REFUSED = "refused.json"
_PAGE = re.compile(r"\.p\d{3,}$")


@dataclass(frozen=True)
class PaletteCopy:
    """A coloured copy of a scan; its SHA-256 is one of the settings of what is made with it."""

    path: Path
    sha256: str


def find_copy(folder: Path, scan: ScanFile, files: ScanFiles) -> PaletteCopy | None:
    """The copy of a scan below ``folder``; None where there is none.

    Raises
    ------
    PaletteCopyError : there are several, or it cannot be read
    """
    names = [scan.stem, Path(scan.stem).name, *(() if _PAGE.search(scan.stem) else (scan.path.stem,))]
    for name in dict.fromkeys(names):
        found = _pictures(folder / name, scan.path)
        if len(found) > 1:
            which = ", ".join(shown(path.name) for path in found)
            raise PaletteCopyError(
                f"{scan.path}: has {len(found)} coloured copies in {found[0].parent} ({which}), and only one can give "
                "its palette; leave one there"
            )
        if found:
            try:
                source = files.known(found[0], 1) or files.source_of(found[0], 1)
            except ScanError as error:
                raise PaletteCopyError(f"{scan.path}: its coloured copy: {error}") from error
            return PaletteCopy(found[0], source.sha256)
    return None


def _pictures(base: Path, scan: Path) -> list[Path]:
    """The files of any picture's ending, each once, but for the scan itself."""
    candidates = (base.with_name(base.name + ending) for each in SCANS for ending in (each, each.upper()))
    found = {os.path.realpath(path): path for path in candidates if path.is_file()}
    found.pop(os.path.realpath(scan), None)
    return list(found.values())


def needed_copy(folder: Path, scan: ScanFile, files: ScanFiles, is_lenient: bool) -> PaletteCopy | None:
    """As :func:`find_copy`; where ``is_lenient``, None for copies that cannot be used, too.

    Raises
    ------
    UsageError : there is none, or several, or it cannot be read, and that is not ``is_lenient``.
    """
    try:
        found = find_copy(folder, scan, files)
    except PaletteCopyError as error:
        if not is_lenient:
            raise
        warn(f"{error}; coloured by the model alone")
        return None
    if found is None and not is_lenient:
        raise UsageError(
            f"{scan.path}: no coloured copy of it in {folder} (such as {Path(scan.stem).name}.jpg), so it has no "
            "palette; put one there, or give --lenient to have it coloured by the model alone"
        )
    return found


def note_refused(store: Path, copy: PaletteCopy, reason: str) -> None:
    """Keep beside a scan's colours that a copy is none of it, so that later runs need not find that out again."""
    known = _refused(store)
    write_json(store / _REFUSED, {**known, copy.sha256: {"algorithm": ALGORITHM, "reason": reason}})


def was_refused(store: Path, copy: PaletteCopy) -> bool:
    """Whether this release has refused the copy for the scan of this store."""
    known = _refused(store).get(copy.sha256)
    return isinstance(known, dict) and known.get("algorithm") == ALGORITHM


def _refused(store: Path) -> dict[str, Any]:
    try:
        known = json.loads((store / _REFUSED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def copy_of(store: ScanStore, sha256: str) -> PaletteCopy | None:
    """The copy that a version of the store has its palette from; None where ``sha256`` is empty."""
    records = (version.palette_copy for version in map(store.version, store.version_names())) if sha256 else ()
    found = next((record for record in records if record and record["sha256"] == sha256), None)
    return PaletteCopy(Path(found["path"] if found else ""), sha256) if sha256 else None


def take_palette(store: ScanStore, version: ChromaVersion, copy: PaletteCopy) -> None:
    """Give a version the palette of a copy: that of another version from the same copy, or else from its file.

    Raises
    ------
    PaletteCopyError : it is no copy of the scan, or cannot be read, or has changed
    """
    palette, record = _kept(store, copy) or _made(store, copy)
    version.write_palette_copy(record, version.attempt)
    version.write_anchor(palette, version.attempt)


def _kept(store: ScanStore, copy: PaletteCopy) -> tuple[Palette, Mapping[str, Any]] | None:
    """What another version has of the same copy."""
    for version in map(store.version, store.version_names()):
        told = (version.settings.get("palette_copy_sha256"), version.settings.get("algorithm"))
        record = version.palette_copy
        if told == (copy.sha256, ALGORITHM) and version.has_anchor and record is not None:
            return version.palette(store.info.shape_yx), record
    return None


def _made(store: ScanStore, copy: PaletteCopy) -> tuple[Palette, Mapping[str, Any]]:
    try:
        with keeping_colours(), open_scan(copy.path) as reader:
            if file_sha256(copy.path) != copy.sha256:
                raise PaletteCopyError("has changed since its hash was taken; run it again")
            seen, factor = shrunk_copy(reader)
            palette, found = palette_of_copy(store.read_seen, store.info.shape_yx, seen, factor)
            signed = claim_generator(copy.path)
            maker = made_by(reader.embedded) | ({"claim_generator": signed} if signed else {})
            record = _record(copy, found, reader.info.shape_yx, maker)
    except (ScanError, OSError, PaletteCopyError) as error:
        name = shown(copy.path)
        reason = str(error).removeprefix(f"{name}: ")
        raise PaletteCopyError(f"{store.source.path}: its coloured copy {name}: {reason}") from error
    return palette, record


def _record(
    copy: PaletteCopy, found: Registration, shape_yx: tuple[int, int], maker: Mapping[str, str]
) -> dict[str, Any]:
    return PaletteCopyRecord(
        name=copy.path.name,
        path=str(copy.path),
        bytes=copy.path.stat().st_size,
        sha256=copy.sha256,
        height_px=shape_yx[0],
        width_px=shape_yx[1],
        matrix=[[round(value, 8) for value in row] for row in found.matrix],
        score=round(found.score, 4),
        agreeing=round(found.agreeing, 4),
        covered=round(found.covered, 4),
        made_by=maker,
    ).to_json()
