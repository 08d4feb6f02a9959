"""What a sidecar tells of one picture of a result: what :mod:`pipeline.verify` holds the picture to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.manifest import RunSpec

# Half a level of the darkest grays of 8 bit is 0.14, and of gray turned into RGB 0.25; 65,535 levels leave a fiftieth.
BOUNDS = {"uint8": 0.5, "uint16": 0.02}
# Of the largest and of the mean. About twice what was met: on photographs, noise, grain and halftone in saturated
# colours, 5.4 and 0.68 at the quality of "jpeg", 11.5 and 1.33 at that of "iiif".
LOSSY_BOUNDS = {"jpeg": (12.0, 1.5), "iiif": (24.0, 2.5)}


@dataclass(frozen=True)
class Told:
    """As the sidecar of a result has it."""

    picture: Path
    format: str
    shape_yx: tuple[int, int]
    dtype: str
    bytes: int
    sha256: str
    levels: int
    version: str
    store: Path
    store_sha256: Mapping[str, str]
    records_sha256: str
    source: Path
    source_sha256: str
    metadata: Mapping[str, Any]
    not_carried: Mapping[str, str]
    carries_metadata: bool
    page: int
    holes: int

    @classmethod
    def of(cls, sidecar: Mapping[str, Any], picture: Path, name: str) -> Told:
        source, result, store = (sidecar[each] for each in ("source", "result", "store"))
        told = sidecar["pictures"][name]
        return cls(
            picture=picture,
            format=name,
            shape_yx=(int(source["height_px"]), int(source["width_px"])),
            dtype="uint8" if "depth" in told["not_carried"] else str(source["depth"]),
            bytes=int(told["bytes"]),
            sha256=str(told["sha256"]),
            levels=int(told["levels"]),
            not_carried=dict(told["not_carried"]),
            carries_metadata=bool(told["carries_metadata"]),
            page=int(source["page"]),
            holes=len(source["holes"]),
            version=RunSpec.from_json(sidecar["settings"]).version,
            store=picture.parent / str(result["store"]),
            store_sha256=dict(store["sha256"]),
            records_sha256=str(store["records_sha256"]),
            source=Path(source["path"]),
            source_sha256=str(source["sha256"]),
            metadata=source["metadata"],
        )

    @property
    def beside(self) -> str:
        """The world file that the scan's place is from; empty without one."""
        return str(self.metadata.get("beside") or "")

    @property
    def bound(self) -> float:
        return LOSSY_BOUNDS[self.format][0] if self.format in LOSSY_BOUNDS else BOUNDS[self.dtype]

    @property
    def mean_bound(self) -> float | None:
        return LOSSY_BOUNDS[self.format][1] if self.format in LOSSY_BOUNDS else None

    @property
    def is_turned(self) -> bool:
        """Whether its samples are upright, as a format does that has no place for an orientation."""
        return self.format == "iiif" and "orientation" not in self.not_carried
