"""The Zarr v3 group of one scan: its original samples and its chroma. The only module that imports zarr.

    <stem>.zarr/
      zarr.json   attributes: format, source (name, bytes, sha256), scan (dtype, channels, metadata)
      scan        (H, W) or (H, W, 3), the scan's own samples
      chroma      (2, H, W) float16 a*, b*; attributes: spec (what made it), scale_factor, complete

Arrays are sharded; a chroma shard is one output block and one task writes it whole, because concurrent writes into
parts of one shard corrupt it (zarr-python issue 3682). Chunks carry a CRC-32C, so damage is found on reading. All-zero
chunks are written too: a missing chunk always means missing work.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.errors import StoreError
from pipeline.files import writing
from pipeline.grid import Roi
from pipeline.types import ScanInfo

FORMAT = 1
CHUNK_PX = 512
SCAN_SHARD_PX = 2048
BLOCK_SIZES_PX = (4096, 2048, 1024, 512)

_COMPRESSORS = (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec())


@dataclass(frozen=True)
class Source:
    """Where the samples came from: file name, size in bytes, SHA-256."""

    name: str
    bytes: int
    sha256: str


class ScanStore:
    """An open group. Samples are read and written by window; any number of processes may read."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        attributes = dict(group.attrs)
        self.source = Source(**attributes["source"])  # type: ignore[arg-type]
        self.info = ScanInfo(**_info_fields(attributes["scan"]))  # type: ignore[arg-type]

    @classmethod
    def create(cls, path: Path, info: ScanInfo, source: Source) -> ScanStore:
        """Make an empty group at ``path``, replacing what is there. Raises OutputError."""
        with writing(path):
            group = zarr.create_group(store=str(path), overwrite=True, zarr_format=3)
            group.attrs.update({"format": FORMAT, "source": asdict(source), "scan": _info_json(info)})
            colour = () if info.channels == 1 else (3,)
            group.create_array(
                "scan",
                shape=(*info.shape_yx, *colour),
                dtype=info.dtype,
                chunks=(CHUNK_PX, CHUNK_PX, *colour),
                shards=(SCAN_SHARD_PX, SCAN_SHARD_PX, *colour),
                compressors=_COMPRESSORS,
                config={"write_empty_chunks": True},
                dimension_names=("y", "x", "c")[: 2 + len(colour)],
            )
        return cls(path, group)

    @classmethod
    def open(cls, path: Path, writable: bool = False) -> ScanStore:
        """Open the group at ``path``.

        Raises
        ------
        StoreError : nothing there, or not a group of this project.
        """
        try:
            group = zarr.open_group(store=str(path), mode="r+" if writable else "r", zarr_format=3)
            if group.attrs.get("format") != FORMAT or "scan" not in group:
                raise StoreError(f"{path}: not a scan store of this version; run the scan again with --force")
            return cls(path, group)
        except StoreError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: not a readable scan store ({error}); give a NAME.zarr folder") from error

    def write_scan(self, rows: slice, samples: NDArray) -> None:
        """Write full-width rows; ``rows`` must start at a multiple of SCAN_SHARD_PX. Raises OutputError."""
        with writing(self.path):
            self._array("scan")[rows] = samples

    def read_scan(self, roi: Roi) -> NDArray:
        """(h, w) or (h, w, 3) original samples of ``roi``."""
        with self._reading():
            return np.asarray(self._array("scan")[roi.rows, roi.columns])

    def has_whole_scan(self) -> bool:
        """True where every shard of the samples is there."""
        return _has_all_shards(self.path, self._array("scan"))

    def create_chroma(self, spec: Mapping[str, Any], block_px: int, scale_factor: float) -> str:
        """Make an empty chroma array for ``spec``, in place of any other; returns a new attempt's name.

        Raises OutputError.
        """
        attempt = uuid.uuid4().hex
        height, width = self.info.shape_yx
        chunk = min(CHUNK_PX, block_px)
        with writing(self.path):
            array = self._group.create_array(
                "chroma",
                shape=(2, height, width),
                dtype="float16",
                chunks=(2, chunk, chunk),
                shards=(2, block_px, block_px),
                compressors=_COMPRESSORS,
                config={"write_empty_chunks": True},
                dimension_names=("ab", "y", "x"),
                overwrite=True,
            )
            array.attrs.update(
                {"spec": dict(spec), "scale_factor": scale_factor, "attempt": attempt, "complete": False}
            )
        return attempt

    def write_chroma(self, roi: Roi, chroma: NDArray[np.float32], attempt: str) -> None:
        """Write (2, h, w) a*, b* of one whole block, rounded to float16.

        Raises
        ------
        StoreError : the chroma now belongs to another attempt. OutputError : it cannot be written.
        """
        array = self._array("chroma")
        if array.attrs.get("attempt") != attempt:
            raise StoreError(f"{self.path}: another run has taken over this scan; nothing of this one was written")
        with writing(self.path):
            array[:, roi.rows, roi.columns] = chroma.astype(np.float16)

    def read_chroma(self, roi: Roi) -> NDArray[np.float16]:
        """(2, h, w) stored a*, b* of ``roi``; times :attr:`chroma_scale` they are CIELAB units."""
        with self._reading():
            return np.asarray(self._array("chroma")[:, roi.rows, roi.columns])

    @property
    def chroma_scale(self) -> float:
        """What stored chroma is multiplied by: 1, or 0 for the identity engine's planes."""
        return float(self._array("chroma").attrs["scale_factor"])  # type: ignore[arg-type]

    def chroma_spec(self) -> Mapping[str, Any] | None:
        """The settings that made the chroma, or None where it is missing or incomplete."""
        if "chroma" not in self._group:
            return None
        array = self._array("chroma")
        if not array.attrs.get("complete") or not _has_all_shards(self.path, array):
            return None
        spec: Any = array.attrs["spec"]
        return dict(spec)

    def finish_chroma(self) -> None:
        """Mark the chroma complete. Raises OutputError."""
        with writing(self.path):
            self._array("chroma").attrs["complete"] = True

    def _array(self, name: str) -> zarr.Array:
        array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path}/{name}: not an array; remove {self.path} and run again")
        return array

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn damage found on reading (checksums, codecs, the disk) into a StoreError."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{self.path}: damaged ({reason}); run the scan again with --force") from error


def _has_all_shards(store: Path, array: zarr.Array) -> bool:
    shards = array.shards or array.chunks
    expected = prod(ceil(extent / shard) for extent, shard in zip(array.shape, shards, strict=True))
    found: int = sum(1 for path in (store / array.basename / "c").rglob("*") if path.is_file())
    return bool(found == expected)


def _info_json(info: ScanInfo) -> dict[str, Any]:
    return {**asdict(info), "shape_yx": list(info.shape_yx), "metadata": dict(info.metadata)}


def _info_fields(values: Any) -> dict[str, Any]:
    return {**values, "shape_yx": tuple(values["shape_yx"])}
