"""A sidecar's facts about one picture of a result, against which :mod:`pipeline.results.verify` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.formats import FORMATS
from pipeline.results.sidecar import PictureRecord, Sidecar

# Half a level of 8 bits is 0.14 L* in the darkest grays, and 0.25 for gray turned into RGB; 16 bits leave a fiftieth.
BOUNDS = {"uint8": 0.5, "uint16": 0.02}


@dataclass(frozen=True)
class ExpectedPicture:
    """The properties of a picture by the result's sidecar."""

    picture: Path
    format: str
    shape_yx: tuple[int, int]
    dtype: str
    version: str
    store: Path
    store_sha256: Mapping[str, str]
    records_sha256: str
    source: Path
    source_sha256: str
    metadata: Mapping[str, Any]
    page: int
    holes: int
    record: PictureRecord

    @classmethod
    def of(cls, sidecar: Sidecar, picture: Path, name: str) -> ExpectedPicture:
        """``picture``, of the format ``name``. Raises SidecarError if the sidecar lacks any of the properties."""
        source, result = sidecar.needed("source", sidecar.whole_source), sidecar.needed("result", sidecar.result)
        store, spec = sidecar.needed("store", sidecar.store), sidecar.needed("settings", sidecar.spec)
        record = sidecar.needed(name, sidecar.pictures.get(name))
        sidecar.needs("source", source, "page", "depth", "holes", "metadata")
        sidecar.needs(name, record, "bytes", "sha256", "levels", "carries_metadata", "not_carried")
        return cls(
            picture=picture,
            format=name,
            shape_yx=source.shape_yx,
            dtype="uint8" if "depth" in record.not_carried else source.depth,
            page=source.page,
            holes=len(source.holes),
            version=spec.version,
            store=picture.parent / result.store,
            store_sha256=store.sha256,
            records_sha256=store.records_sha256,
            source=Path(source.path),
            source_sha256=source.sha256,
            metadata=source.metadata,
            record=record,
        )

    @property
    def beside(self) -> str:
        """The world file with the scan's georeference; empty if there is none."""
        return str(self.metadata.get("beside") or "")

    @property
    def bound(self) -> float:
        tolerance = FORMATS[self.format].TOLERANCE
        return BOUNDS[self.dtype] if tolerance is None else tolerance.largest

    @property
    def mean_bound(self) -> float | None:
        tolerance = FORMATS[self.format].TOLERANCE
        return None if tolerance is None else tolerance.mean
