"""What was done, by what, to which bytes: the settings of a run, the JSON beside every result, and its versions.

The current version of a scan's colours is ``NAME.color.json`` with its pictures, one in each format that was asked for
(``NAME.color.tif``, ``NAME.color.jp2``); earlier ones that are kept are ``NAME.<version>.color.*`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.files import remove, size_bytes, tree_sha256, writing
from pipeline.store import Source
from pipeline.writers import ENDINGS

# Raised when the same settings would give other bytes, so that results of older code count as out of date.
ALGORITHM = 2

SIDECAR_ENDING = ".color.json"


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the bytes of a result; two equal specs on equal scans give equal pictures.

    ``tile_yx`` and ``stride_yx`` are pixels; tiles start at multiples of ``align`` where the stride is one; ``anchor``
    says whether the palette comes from the whole scan; ``quality`` is the seam score that finer tiles are added for, 0
    for none, and ``stride_yx`` then the coarsest; ``reused`` names the version whose tiles were taken over, which its
    storage rounds to float16. Workers, blocks and schedulers are not in it: they must not matter.
    """

    tile_yx: tuple[int, int]
    stride_yx: tuple[int, int]
    window: str
    engine: str
    engine_version: str
    precision: str
    batch: int
    model: str
    model_sha256: str
    chroma_scale: float
    align: int = 1
    anchor: bool = False
    quality: float = 0.0
    reused: str = ""
    int8_sha256: str = ""
    algorithm: int = ALGORITHM

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tile_yx": list(self.tile_yx), "stride_yx": list(self.stride_yx)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunSpec:
        """The settings that :meth:`to_json` gave. Raises TypeError, KeyError where they are others."""
        sizes = {name: (int(values[name][0]), int(values[name][1])) for name in ("tile_yx", "stride_yx")}
        return cls(**{**values, **sizes})

    @property
    def version(self) -> str:
        """The name of what these settings make: tile-stride-window-model-hash, such as 256-128-hann-default-1f2e3d4c.

        Two different settings never share a name: the hash is the first 32 bits of the SHA-256 of all of them.
        """
        text = json.dumps(self.to_json(), sort_keys=True)
        sizes = [_size_text(self.tile_yx), _size_text(self.stride_yx)]
        model = "".join(c if c.isalnum() else "_" for c in self.model)
        return "-".join([*sizes, self.window, model, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _size_text(size_yx: tuple[int, int]) -> str:
    return str(size_yx[0]) if size_yx[0] == size_yx[1] else f"{size_yx[0]}x{size_yx[1]}"


@dataclass(frozen=True)
class ResultPaths:
    """Where one scan's results lie: ``store`` is NAME.zarr, the others begin with ``stem``: NAME for the current."""

    store: Path
    stem: str

    @classmethod
    def of(cls, output: Path, stem: str) -> ResultPaths:
        store = output / f"{stem}.zarr"
        return cls(store, store.name.removesuffix(".zarr"))

    @property
    def sidecar(self) -> Path:
        return self.store.with_name(f"{self.stem}{SIDECAR_ENDING}")

    def picture(self, name: str) -> Path:
        """In the format ``name``; a folder for some."""
        return self.store.with_name(self.stem + ENDINGS[name])

    def of_version(self, version: str) -> ResultPaths:
        """Where a version that is not the current one lies."""
        return replace(self, stem=f"{self.store.name.removesuffix('.zarr')}.{version}")

    def all_versions(self) -> list[ResultPaths]:
        """Of every version beside the current one that has a sidecar."""
        start, end = self.store.name.removesuffix("zarr"), SIDECAR_ENDING
        names = (p.name for p in self.store.parent.iterdir()) if self.store.parent.is_dir() else ()
        found = sorted(n for n in names if n.startswith(start) and n.endswith(end) and len(n) > len(start + end))
        versions = [(name[len(start) : -len(end)], self.store.parent / name) for name in found]
        # Another scan's name may begin with this one's: its sidecar says another version.
        return [self.of_version(version) for version, sidecar in versions if version_of(sidecar) == version]


def sidecar_of(result: Path) -> Path | None:
    """The JSON of a picture of this project's, by its name, or that JSON itself; None for other names."""
    for ending in (SIDECAR_ENDING, *sorted(ENDINGS.values(), key=len, reverse=True)):
        if result.name.endswith(ending):
            return result.with_name(result.name.removesuffix(ending) + SIDECAR_ENDING)
    return None


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The JSON of a result, or None where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def version_of(sidecar: Path) -> str | None:
    """The version that a sidecar describes, or None where there is no sidecar of this project's."""
    spec = settings_of(sidecar)
    return None if spec is None else spec.version


def settings_of(sidecar: Path) -> RunSpec | None:
    """Those that a result was made with, or None where there is no sidecar of this project's."""
    try:
        return RunSpec.from_json((read_sidecar(sidecar) or {})["settings"])
    except (KeyError, TypeError, ValueError):
        return None


def pictures_of(sidecar: Path) -> dict[str, Mapping[str, Any]]:
    """What a sidecar says of the pictures that it describes, by format; formats that are not known are left out."""
    pictures = (read_sidecar(sidecar) or {}).get("pictures")
    if not isinstance(pictures, Mapping):
        return {}
    return {name: told for name, told in pictures.items() if name in ENDINGS and isinstance(told, Mapping)}


def is_there(picture: Path, told: Mapping[str, Any]) -> bool:
    """Whether a picture has as many bytes as were written."""
    try:
        return size_bytes(picture) == told.get("bytes")
    except OSError:
        return False


def whole_pictures(
    paths: ResultPaths, source: Source, spec: RunSpec, metadata: bool = True, is_exact: bool = False
) -> dict[str, Mapping[str, Any]]:
    """What is told of the pictures that are there, whole, and made from these bytes with these settings, by format.

    A picture for which tiles of another version were taken over counts too, as it differs by rounding only, unless
    ``is_exact``. ``metadata`` says whether it should carry the scan's.
    """
    sidecar = read_sidecar(paths.sidecar)
    wanted = spec if is_exact else replace(spec, reused="")
    try:
        if sidecar is None or sidecar["source"]["sha256"] != source.sha256:
            return {}
        settings = sidecar["settings"] if is_exact else {**sidecar["settings"], "reused": ""}
    except (KeyError, TypeError):
        return {}
    if settings != wanted.to_json():
        return {}
    pictures = pictures_of(paths.sidecar)
    return {
        name: told
        for name, told in pictures.items()
        if told.get("carries_metadata") == metadata and is_there(paths.picture(name), told)
    }


def in_the_way(paths: ResultPaths, names: Iterable[str]) -> Path | None:
    """A picture's place that is taken by something which no sidecar of this project's tells of; None where all is well.

    A publication that was stopped leaves pictures without a sidecar, which one of the scan's other versions tells of.
    """
    sidecars = [paths, *paths.all_versions()]
    for name in names:
        picture = paths.picture(name)
        tellers = [told for each in sidecars if (told := pictures_of(each.sidecar).get(name)) is not None]
        is_told = name in pictures_of(paths.sidecar) or any(is_there(picture, told) for told in tellers)
        if picture.exists() and not is_told:
            return picture
    return None


def publish(paths: ResultPaths, version: str) -> str | None:
    """Make ``version``, which lies finished under its own name, the current one; the one before gets its own name.

    Returns the one before, if there was another. Pictures of ``version`` that are current already stay where they are.

    A stop between two of the renamings is put right by the next call (see :func:`settle`). Raises OutputError.
    """
    new = paths.of_version(version)
    with writing(paths.sidecar):
        settle(paths)
        before = version_of(paths.sidecar)
        if before is not None and before != version:
            old, names = paths.of_version(before), list(pictures_of(paths.sidecar))
            if old.sidecar.exists():
                # An export into further formats was stopped before it was published: its list has these, too.
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
    """Rename a file or folder over one that may be there; one that is not there is there already."""
    if old.exists():
        if new.is_dir():
            remove(new)
        os.replace(old, new)


def settle(paths: ResultPaths) -> None:
    """Bring a publication that was stopped half-way to rest: pictures that lost their sidecar go back beside it."""
    if paths.sidecar.exists():
        return
    versions = [(version, pictures_of(version.sidecar)) for version in paths.all_versions()]
    for name in ENDINGS:
        lacking = [(v, told[name]) for v, told in versions if name in told and not v.picture(name).exists()]
        fitting = [(v, told) for v, told in lacking if is_there(paths.picture(name), told)]
        if len(fitting) > 1:  # as large as each other
            sha256 = tree_sha256(paths.picture(name))
            fitting = [(v, told) for v, told in fitting if told.get("sha256") == sha256]
        if fitting:
            _move(paths.picture(name), fitting[0][0].picture(name))


def remove_version(paths: ResultPaths, version: str) -> None:
    """Remove pictures and sidecar of a version that is not the current one. Raises OutputError."""
    old = paths.of_version(version)
    with writing(old.sidecar):
        remove(old.sidecar)
        for name in ENDINGS:
            remove(old.picture(name))


def utc_now() -> str:
    """The time as ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
