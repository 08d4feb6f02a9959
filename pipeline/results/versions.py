"""The versions of a scan's colours: their paths, which one is current, and how another one becomes current.

The current version is ``NAME.color.json`` with its pictures, one in each requested format (``NAME.color.tif``,
``NAME.color.jp2``); earlier ones that are kept are ``NAME.<version>.color.*`` beside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pipeline.endings import FORMATS as ENDINGS
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import SIDECAR_ENDING, PictureRecord, Sidecar, pictures_of, version_of
from pipeline.store import Source
from pipeline.support.files import remove, size_bytes, tree_sha256, writing

_SETTINGS_KEPT = 64  # thousands of scans have the same few
_SCANS_KEPT = 64  # the paths of one are asked for several times in a row
ReadSidecar = Callable[[Path], Sidecar | None]
IsThere = Callable[[Path, PictureRecord], bool]


@dataclass(frozen=True)
class ResultPaths:
    """Paths of one scan's results: ``store`` is NAME.zarr; others begin with ``stem``, which is NAME if current."""

    store: Path
    stem: str

    @classmethod
    def of(cls, output: Path, stem: str) -> ResultPaths:
        return _paths_of(output, stem)

    @cached_property
    def sidecar(self) -> Path:
        return self.store.with_name(f"{self.stem}{SIDECAR_ENDING}")

    def picture(self, name: str) -> Path:
        """Path of the picture in the format ``name``; a folder for some formats."""
        return self.store.with_name(self.stem + ENDINGS[name])

    def of_version(self, version: str) -> ResultPaths:
        """Paths of a version that is not current."""
        return replace(self, stem=f"{self.store.name.removesuffix('.zarr')}.{version}")

    def all_versions(self) -> list[ResultPaths]:
        """Paths of every version with a sidecar, except the current one."""
        start, end = self.store.name.removesuffix("zarr"), SIDECAR_ENDING
        names = (p.name for p in self.store.parent.iterdir()) if self.store.parent.is_dir() else ()
        found = sorted(n for n in names if n.startswith(start) and n.endswith(end) and len(n) > len(start + end))
        versions = [(name[len(start) : -len(end)], self.store.parent / name) for name in found]
        # Another scan's name may begin with this one's, but then its sidecar says another version.
        return [self.of_version(version) for version, sidecar in versions if version_of(sidecar) == version]


@lru_cache(maxsize=_SCANS_KEPT)
def _paths_of(output: Path, stem: str) -> ResultPaths:
    store = output / f"{stem}.zarr"
    return ResultPaths(store, store.name.removesuffix(".zarr"))


def has_recorded_size(picture: Path, record: PictureRecord) -> bool:
    """True if the file has the recorded size."""
    try:
        return size_bytes(picture) == record.bytes
    except OSError:
        return False


def valid_pictures(
    paths: ResultPaths,
    source: Source,
    spec: RunSpec,
    metadata: bool = True,
    is_exact: bool = False,
    read: ReadSidecar = Sidecar.find,
    is_there: IsThere = has_recorded_size,
) -> dict[str, PictureRecord]:
    """The existing, complete pictures that were made from these bytes with these settings, by format.

    Unless ``is_exact``, a picture that reused tiles of another version counts too, as it differs by rounding only.
    ``metadata`` says whether pictures should carry the scan's; ``read`` reads sidecars, ``is_there`` finds pictures.
    """
    sidecar = read(paths.sidecar)
    if sidecar is None or not sidecar.is_of(source.sha256):
        return {}
    # Compare them as in the file: settings of another release differ, even if this one can parse them.
    settings = sidecar.settings if is_exact else {**sidecar.settings, "reused": ""}
    if settings != _as_in_a_file(spec, is_exact):
        return {}
    return {
        name: each
        for name, each in sidecar.pictures.items()
        if name in ENDINGS and each.carries_metadata == metadata and is_there(paths.picture(name), each)
    }


@lru_cache(maxsize=_SETTINGS_KEPT)
def _as_in_a_file(spec: RunSpec, is_exact: bool) -> Mapping[str, Any]:
    return (spec if is_exact else replace(spec, reused="")).to_json()


def find_conflict(paths: ResultPaths, names: Iterable[str]) -> Path | None:
    """The path of a picture that is taken by something that no sidecar lists; None if there is no conflict.

    Pictures left by a stopped publication are no conflict: the sidecar of another version of the scan lists them.
    """
    current, *others = (pictures_of(each.sidecar) for each in (paths, *paths.all_versions()))
    for name in names:
        picture = paths.picture(name)
        if name in current or not picture.exists():
            continue
        if not any(name in records and has_recorded_size(picture, records[name]) for records in others):
            return picture
    return None


def publish(paths: ResultPaths, version: str) -> str | None:
    """Make ``version``, which is finished under its own name, the current one; the previous one gets its own name.

    Returns the previous version, if it was another. Pictures of ``version`` that are already current stay in place.

    If stopped between two renamings, the next call recovers (see :func:`recover_publish`). Raises OutputError.
    """
    new = paths.of_version(version)
    with writing(paths.sidecar):
        recover_publish(paths)
        before = version_of(paths.sidecar)
        if before is not None and before != version:
            old, names = paths.of_version(before), list(pictures_of(paths.sidecar))
            if old.sidecar.exists():
                # An export to further formats was stopped before publication: the sidecar there lists all formats.
                remove(paths.sidecar)
            else:
                os.replace(paths.sidecar, old.sidecar)
            for name in names:
                _move(paths.picture(name), old.picture(name))
        else:
            remove(paths.sidecar)
        for name in pictures_of(new.sidecar):
            _move(new.picture(name), paths.picture(name))
        os.replace(new.sidecar, paths.sidecar)
    return before if before != version else None


def _move(old: Path, new: Path) -> None:
    """Rename a file or folder, replacing an existing one; if ``old`` is missing, it was moved before."""
    if old.exists():
        if new.is_dir():
            remove(new)
        os.replace(old, new)


def recover_publish(paths: ResultPaths) -> None:
    """Undo a publication that was stopped half-way: move pictures without a sidecar back to their version's name."""
    if paths.sidecar.exists():
        return
    versions = [(version, pictures_of(version.sidecar)) for version in paths.all_versions()]
    for name in ENDINGS:
        lacking = [(v, told[name]) for v, told in versions if name in told and not v.picture(name).exists()]
        fitting = [(v, told) for v, told in lacking if has_recorded_size(paths.picture(name), told)]
        if len(fitting) > 1:  # of equal size
            sha256 = tree_sha256(paths.picture(name))
            fitting = [(v, told) for v, told in fitting if told.sha256 == sha256]
        if fitting:
            _move(paths.picture(name), fitting[0][0].picture(name))


def remove_version(paths: ResultPaths, version: str) -> None:
    """Remove pictures and sidecar of a version that is not current. Raises OutputError."""
    old = paths.of_version(version)
    with writing(old.sidecar):
        remove(old.sidecar)
        for name in ENDINGS:
            remove(old.picture(name))
