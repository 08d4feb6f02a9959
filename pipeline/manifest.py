"""What was done, by what, to which bytes: the settings of a run, the JSON beside every result, and its versions.

The current version of a scan's colours is ``NAME.color.tif`` with ``NAME.color.json``; earlier ones that are kept are
``NAME.<version>.color.tif`` and ``.json`` beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.files import remove, writing
from pipeline.store import Source

# Raised when the same settings would give other bytes, so that results of older code count as out of date.
ALGORITHM = 2


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
    """Where one scan's results lie: ``store`` is NAME.zarr, the picture and its sidecar are the current version's."""

    store: Path
    picture: Path
    sidecar: Path

    @classmethod
    def of(cls, output: Path, stem: str) -> ResultPaths:
        return cls(output / f"{stem}.zarr", output / f"{stem}.color.tif", output / f"{stem}.color.json")

    def of_version(self, version: str) -> ResultPaths:
        """Where a version that is not the current one lies."""
        name = f"{self.store.stem}.{version}"
        folder = self.store.parent
        return replace(self, picture=folder / f"{name}.color.tif", sidecar=folder / f"{name}.color.json")

    def all_versions(self) -> list[ResultPaths]:
        """Of every version beside the current one that has a sidecar."""
        start, end = f"{self.store.stem}.", ".color.json"
        names = (p.name for p in self.store.parent.iterdir()) if self.store.parent.is_dir() else ()
        found = sorted(n for n in names if n.startswith(start) and n.endswith(end) and len(n) > len(start + end))
        versions = [(name[len(start) : -len(end)], self.store.parent / name) for name in found]
        # Another scan's name may begin with this one's: its sidecar says another version.
        return [self.of_version(version) for version, sidecar in versions if version_of(sidecar) == version]


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The JSON of a result, or None where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def version_of(sidecar: Path) -> str | None:
    """The version that a sidecar describes, or None where there is no sidecar of this project's."""
    try:
        return RunSpec.from_json((read_sidecar(sidecar) or {})["settings"]).version
    except (KeyError, TypeError, ValueError):
        return None


def is_current(paths: ResultPaths, source: Source, spec: RunSpec, is_exact: bool = False) -> bool:
    """True where the picture is there, whole, and was made from these bytes with these settings.

    A picture for which tiles of another version were taken over counts too, as it differs by rounding only, unless
    ``is_exact``.
    """
    sidecar = read_sidecar(paths.sidecar)
    wanted = spec if is_exact else replace(spec, reused="")
    try:
        return bool(
            sidecar is not None
            and sidecar["source"]["sha256"] == source.sha256
            and (sidecar["settings"] if is_exact else {**sidecar["settings"], "reused": ""}) == wanted.to_json()
            and sidecar["result"]["bytes"] == paths.picture.stat().st_size
        )
    except (KeyError, TypeError, OSError):
        return False


def publish(paths: ResultPaths, version: str) -> str | None:
    """Make ``version``, which lies finished under its own name, the current one; the one before gets its own name.

    Returns the one before, if there was another.

    A stop between two of the four renamings is put right by the next call (see :func:`settle`). Raises OutputError.
    """
    new = paths.of_version(version)
    with writing(paths.picture):
        settle(paths)
        before = version_of(paths.sidecar)
        if before is not None and before != version:
            old = paths.of_version(before)
            os.replace(paths.sidecar, old.sidecar)
            with contextlib.suppress(FileNotFoundError):
                os.replace(paths.picture, old.picture)
        else:
            remove(paths.sidecar)
        os.replace(new.picture, paths.picture)
        os.replace(new.sidecar, paths.sidecar)
    return before if before != version else None


def settle(paths: ResultPaths) -> None:
    """Bring a publication that was stopped half-way to rest: a picture that lost its sidecar goes back beside it."""
    if paths.sidecar.exists() or not paths.picture.exists():
        return
    size = paths.picture.stat().st_size
    for version in paths.all_versions():
        sidecar = read_sidecar(version.sidecar) or {}
        if not version.picture.exists() and sidecar.get("result", {}).get("bytes") == size:
            os.replace(paths.picture, version.picture)
            return


def remove_version(paths: ResultPaths, version: str) -> None:
    """Remove picture and sidecar of a version that is not the current one. Raises OutputError."""
    old = paths.of_version(version)
    with writing(old.picture):
        remove(old.sidecar)
        remove(old.picture)


def utc_now() -> str:
    """The time as ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
