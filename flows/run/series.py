"""Scans that belong together: which they are, by a folder or a list, and the palettes that they get as one.

A list is a CSV file: in each row a scan (its name, with or without ending or folder, or a pattern such as `1910*`) and
the series that it is in; without a second column all are one series. A row of headings, ``scan`` first, is passed over.
A series is known by the bytes of its scans: with another scan in it, it is another series, and its colours are others.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from flows.catalogue.recorder import ScanFiles
from flows.events import Message, tell, warn
from flows.inputs import ScanFile
from pipeline.errors import ScanError, StoreError, UsageError
from pipeline.palettes.series import Joined, Reading, join
from pipeline.results.sidecar import SeriesRecord
from pipeline.results.versions import ResultPaths
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.names import shown
from pipeline.tiling.palette import Palette

MOST_SCANS = 200  # each is compared with each
_MOST_BYTES = 2**24
_NAMED = 5  # in a line
# What decides the palette that a scan has by itself.
_OF_PALETTE = ("palette_sha256", "palette_engine", "palette_precision", "vivid", "cautious", "answer", "algorithm")


@dataclass(frozen=True)
class Series:
    """Scans that belong together: a name for people, the hash of their bytes, and the names of their results."""

    name: str
    sha256: str
    members: tuple[str, ...]


def find_series(given: Path, scans: Sequence[ScanFile], files: ScanFiles) -> dict[str, Series]:
    """The series of each scan that is in one, by the name of its results.

    Scans that cannot be read are in none, and fail by themselves.

    Raises
    ------
    UsageError : the list cannot be read, names a scan that is not there or one in two series, or a series is too large
    """
    names = _below(given, scans) if given.is_dir() else _listed(given, scans)
    hashes: dict[str, dict[str, str]] = {}
    for scan in scans:
        if scan.stem in names:
            try:
                source = files.known(scan.path, scan.page) or files.source_of(scan.path, scan.page)
            except ScanError:
                continue
            hashes.setdefault(names[scan.stem], {})[scan.stem] = f"{source.sha256} {scan.page}"
    found: dict[str, Series] = {}
    for name, members in hashes.items():
        if len(members) > MOST_SCANS:
            raise UsageError(
                f"series {name!r}: {len(members)} scans, and each would be compared with each; give at most "
                f"{MOST_SCANS} in one series"
            )
        digest = hashlib.sha256("\n".join(sorted(members.values())).encode())
        found |= dict.fromkeys(members, Series(name, digest.hexdigest(), tuple(sorted(members))))
    return found


def _below(folder: Path, scans: Sequence[ScanFile]) -> dict[str, str]:
    names = {scan.stem: folder.name for scan in scans if folder in scan.path.resolve().parents}
    if not names:
        raise UsageError(f"series {folder}: none of the {len(scans)} scans lies in it; give the folder of the scans")
    return names


def _listed(file: Path, scans: Sequence[ScanFile]) -> dict[str, str]:
    names: dict[str, str] = {}
    for line, (pattern, series) in _rows(file):
        matching = [scan for scan in scans if _is_meant(pattern, scan)]
        if not matching:
            raise UsageError(
                f"series {file} line {line}: {pattern!r} is none of the {len(scans)} scans, so the series would lack "
                "it; check the name, or take the line out"
            )
        for scan in matching:
            if names.setdefault(scan.stem, series) != series:
                raise UsageError(
                    f"series {file} line {line}: {scan.stem} is in {names[scan.stem]!r} already, and cannot have the "
                    f"colours of {series!r} too; give it one series"
                )
    return names


def _rows(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Numbers of lines, scans and series. Raises UsageError."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UsageError(f"series {file}: above {_MOST_BYTES >> 20} MiB, which no list of scans is; give a list")
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"series {file}: cannot be read as CSV in UTF-8 ({error}); mend it") from error
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].lower() == "scan"):
            continue
        if len(cells) > 2 or not cells[0]:
            raise UsageError(f"series {file} line {number}: give a scan and its series, with a comma between")
        yield number, (cells[0], cells[1] if len(cells) > 1 and cells[1] else file.stem)


def _is_meant(pattern: str, scan: ScanFile) -> bool:
    names = {scan.stem, Path(scan.stem).name, scan.path.name, str(scan.path)}
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def series_in(store: ScanStore, sha256: str) -> Series | None:
    """The series that a version of the store has its palette from; None where ``sha256`` is empty."""
    records = (version.series for version in map(store.version, store.version_names())) if sha256 else ()
    found = next((record for record in records if record and record["sha256"] == sha256), None)
    return Series(found["name"], sha256, tuple(found["members"])) if found else None


def join_palettes(series: Series, output: Path, lacking: Mapping[str, ChromaVersion]) -> None:
    """Give versions of scans of a series their palettes, which all its readings decide.

    Parameters
    ----------
    lacking : the versions that have none yet, by the names of their results; they have been read
    """
    settings = next(iter(lacking.values())).settings
    found = {stem: _reading(stem, lacking.get(stem) or _fellow(output, stem, settings)) for stem in series.members}
    readings = [reading for reading in found.values() if reading is not None]
    missing = sorted(stem for stem, reading in found.items() if reading is None)
    joined = join(readings)
    for stem, version in lacking.items():
        if stem not in joined:
            raise StoreError(f"{version.path}: what was seen of the scan is gone; run it again with --force")
        record = SeriesRecord(
            name=series.name,
            sha256=series.sha256,
            members=list(series.members),
            missing=missing,
            shared=dict(joined[stem].shared),
        )
        version.write_series(record.to_json(), version.attempt)
        version.write_anchor(joined[stem].palette, version.attempt)
    _tell(series, joined, missing)


def _tell(series: Series, joined: Mapping[str, Joined], missing: Sequence[str]) -> None:
    alone = sorted(stem for stem, each in joined.items() if not each.shared)
    line = f"series {shown(series.name)}: {len(joined) - len(alone)} of {len(joined)} scans show something together"
    tell(Message(line + (f"; nothing in common with the others have {_some(alone)}" if alone else ""), "series"))
    if missing:
        warn(f"series {shown(series.name)}: coloured without {_some(missing)}, of which nothing is known")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more


def _fellow(output: Path, stem: str, settings: Mapping[str, Any]) -> ChromaVersion | None:
    """The version of a fellow that was read with the same settings in an earlier run."""
    try:
        store = ScanStore.open(ResultPaths.of(output, stem).store)
    except StoreError:
        return None
    wanted = [settings.get(name) for name in (*_OF_PALETTE, "series_sha256")]
    for version in map(store.version, store.version_names()):
        if [version.settings.get(name) for name in (*_OF_PALETTE, "series_sha256")] == wanted:
            return version
    return None


def _reading(stem: str, version: ChromaVersion | None) -> Reading | None:
    kept = version.reading() if version is not None else None
    if kept is None:
        return None
    seen, own = kept
    # The palette's cells cover the scan as the pixels of what was seen do, up to the last one's padding.
    cell_yx = seen.shape[0] / own.shape[1], seen.shape[1] / own.shape[2]
    return Reading(stem, seen, Palette(own[:2], cell_yx), own[2])
