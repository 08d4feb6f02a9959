"""What was done, by what, to which bytes: the settings of a run and the JSON beside every result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.store import Source

# Raised when the same settings would give other bytes, so that results of older code count as out of date.
ALGORITHM = 1


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the bytes of a result; two equal specs on equal scans give equal pictures.

    ``tile_yx`` and ``stride_yx`` are pixels. Workers, blocks and schedulers are not in it: they must not matter.
    """

    tile_yx: tuple[int, int]
    stride_yx: tuple[int, int]
    window: str
    engine: str
    engine_version: str
    batch: int
    model: str
    model_sha256: str
    chroma_scale: float
    algorithm: int = ALGORITHM

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tile_yx": list(self.tile_yx), "stride_yx": list(self.stride_yx)}


@dataclass(frozen=True)
class ResultPaths:
    """Where one scan's results lie."""

    store: Path
    picture: Path
    sidecar: Path

    @classmethod
    def of(cls, output: Path, stem: str) -> ResultPaths:
        return cls(output / f"{stem}.zarr", output / f"{stem}.color.tif", output / f"{stem}.color.json")


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The JSON of a result, or None where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_current(paths: ResultPaths, source: Source, spec: RunSpec) -> bool:
    """True where the picture is there, whole, and was made from these bytes with these settings."""
    sidecar = read_sidecar(paths.sidecar)
    if sidecar is None or not paths.picture.is_file():
        return False
    try:
        return bool(
            sidecar["source"]["sha256"] == source.sha256
            and sidecar["settings"] == spec.to_json()
            and sidecar["result"]["bytes"] == paths.picture.stat().st_size
        )
    except (KeyError, TypeError, OSError):
        return False


def utc_now() -> str:
    """The time as ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
