"""The group of one scan: its samples, and the list of its versions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples
from pipeline.errors import StoreError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.store.arrays import CHUNK_PX, SCAN_COMPRESSORS, Files, array_of, has_all_shards, reading
from pipeline.store.chroma import ChromaVersion, begin_version
from pipeline.store.differences import Differences
from pipeline.store.graded import GRADED_FROM, GradedVersion
from pipeline.support.files import read_text, write_json, writing
from pipeline.types import Roi, ScanInfo

FORMAT = 4
SCAN_SHARD_PX = 2048
CARRIED = "carried.json"


@dataclass(frozen=True)
class Source:
    """The file that the samples came from: name, size in bytes, SHA-256, its path when ingested, the page."""

    name: str
    bytes: int
    sha256: str
    path: str = ""
    page: int = 1


def is_store(path: Path) -> bool:
    """True if a folder is a store of this project, of any release and however damaged, or is empty."""
    if not path.is_dir():
        return False
    try:
        attributes = json.loads(read_text(path / "zarr.json"))["attributes"]
        return {"format", "source", "scan"} <= set(attributes)
    except (OSError, ValueError, KeyError, TypeError):
        return {"scan", "versions"} <= {p.name for p in path.iterdir()} or not any(path.iterdir())


class ScanStore:
    """An open group. Samples are read and written by window; any number of processes may read."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        attributes: dict[str, Any] = dict(group.attrs)
        self.source = Source(**attributes["source"])
        self.info = ScanInfo(**_info_fields(attributes["scan"]))
        self.missing_regions: tuple[Roi, ...] = tuple(Roi(*each) for each in attributes.get("holes", ()))

    @classmethod
    def create(
        cls,
        path: Path,
        info: ScanInfo,
        source: Source,
        embedded: EmbeddedMetadata | None = None,
        keeps_metadata: bool = True,
    ) -> ScanStore:
        """Make an empty group at ``path``, replacing any that exists.

        Without ``keeps_metadata``, only the ICC profile of ``embedded`` is stored.

        Raises OutputError.
        """
        with writing(path):
            group = zarr.create_group(store=Files(path), overwrite=True, zarr_format=3)
            group.attrs.update({"format": FORMAT, "source": asdict(source), "scan": _info_json(info)})
            group.create_group("versions")
            colour = () if info.channels == 1 else (3,)
            _create_plane(group, "scan", info.shape_yx, colour, info.dtype)
            if info.mask:
                _create_plane(group, "mask", info.shape_yx, (), info.result_dtype.name)
            embedded = embedded or EmbeddedMetadata()
            kept = embedded if keeps_metadata else EmbeddedMetadata(icc=embedded.icc)
            write_json(path / CARRIED, {"keeps_metadata": keeps_metadata, **kept.to_json()})
        return cls(path, group)

    @classmethod
    def open(cls, path: Path, writable: bool = False) -> ScanStore:
        """Open the group at ``path``.

        Raises
        ------
        StoreError : missing, or not a group of this project.
        """
        try:
            read_text(path / "zarr.json")  # refuses a pipe, on which zarr would wait
            group = zarr.open_group(store=Files(path), mode="r+" if writable else "r", zarr_format=3)
            if group.attrs.get("format") != FORMAT or "scan" not in group:
                raise StoreError(f"{path}: not a scan store of this version; run the scan again with --force")
            return cls(path, group)
        except StoreError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: not a readable scan store ({error}); give a NAME.zarr folder") from error

    def write_scan(self, roi: Roi, samples: NDArray) -> None:
        """Write the samples of ``roi``, which must start at multiples of SCAN_SHARD_PX. Raises OutputError."""
        self._write(self._samples, "scan", roi, samples)

    def write_mask(self, roi: Roi, mask: NDArray) -> None:
        """Write the (h, w) opacity of ``roi``, as :meth:`write_scan`."""
        self._write(self._mask, "mask", roi, mask)

    def write_missing_regions(self, regions: Iterable[Roi]) -> None:
        """Note the parts of the scan that could not be read. Raises OutputError."""
        self.missing_regions = tuple(regions)
        with writing(self.path):
            self._group.attrs["holes"] = [list(astuple(each)) for each in self.missing_regions]

    def _write(self, array: zarr.Array, name: str, roi: Roi, samples: NDArray) -> None:
        with writing(self.path):
            array[roi.rows, roi.columns] = samples
            for shard in self._shards(name, roi, array.ndim):
                with shard.open("rb") as stream:
                    os.fsync(stream.fileno())

    def _shards(self, name: str, roi: Roi, ndim: int) -> Iterator[Path]:
        last = (0,) * (ndim - 2)
        for y in range(roi.y0 // SCAN_SHARD_PX, -(-roi.y1 // SCAN_SHARD_PX)):
            for x in range(roi.x0 // SCAN_SHARD_PX, -(-roi.x1 // SCAN_SHARD_PX)):
                yield Path(self.path, name, "c", *map(str, (y, x, *last)))

    @cached_property
    def _told(self) -> Any:
        with reading(self.path):
            return json.loads(read_text(self.path / CARRIED))

    @property
    def embedded(self) -> EmbeddedMetadata:
        """Embedded metadata of the scan file. Raises StoreError."""
        with reading(self.path):
            return EmbeddedMetadata.from_json(self._told)

    @property
    def keeps_metadata(self) -> bool:
        """True if :attr:`embedded` is all that the scan file had. Raises StoreError."""
        return bool(self._told.get("keeps_metadata", True))

    def read_mask(self, roi: Roi) -> NDArray:
        """(h, w) opacity of ``roi`` in the picture's depth; only if ``info.mask`` is set. Raises StoreError."""
        with reading(self.path):
            return np.asarray(self._mask[roi.rows, roi.columns])

    def uncoloured(self, roi: Roi, mask: NDArray | None = None) -> NDArray[np.bool_] | None:
        """(h, w) where nothing is to be coloured, or None where all is: no picture, or one that could not be read.

        ``mask`` is that of :meth:`read_mask`, where it was read already. Raises StoreError.
        """
        if mask is None and self.info.mask:
            mask = self.read_mask(roi)
        uncoloured = None if mask is None else mask == 0
        for hole in self.missing_regions:
            ys, xs = (max(hole.y0, roi.y0), min(hole.y1, roi.y1)), (max(hole.x0, roi.x0), min(hole.x1, roi.x1))
            if ys[0] < ys[1] and xs[0] < xs[1]:
                uncoloured = np.zeros(roi.shape_yx, np.bool_) if uncoloured is None else uncoloured
                uncoloured[ys[0] - roi.y0 : ys[1] - roi.y0, xs[0] - roi.x0 : xs[1] - roi.x0] = True
        return uncoloured

    def read_scan(self, roi: Roi) -> NDArray:
        """(h, w) or (h, w, 3) original samples of ``roi``. Raises StoreError."""
        with reading(self.path):
            return np.asarray(self._samples[roi.rows, roi.columns])

    def read_seen(self, roi: Roi) -> NDArray:
        """The network's input for ``roi``: samples if they are sRGB-encoded, else (h, w) float32 L*."""
        samples = self.read_scan(roi)
        return samples if self.info.tone == "srgb" else lightness_from_samples(samples, self.info.tone)

    def read_lightness(self, roi: Roi) -> NDArray[np.float32]:
        """(h, w) CIE L* of ``roi``. Raises StoreError."""
        return lightness_from_samples(self.read_scan(roi), self.info.tone)

    @cached_property
    def _samples(self) -> zarr.Array:
        return array_of(self._group, "scan", self.path)

    @cached_property
    def _mask(self) -> zarr.Array:
        return array_of(self._group, "mask", self.path)

    def has_whole_scan(self) -> bool:
        """True if every shard of the samples exists, and of the mask if there is one."""
        whole = has_all_shards(self.path / "scan", self._samples)
        return whole and (not self.info.mask or has_all_shards(self.path / "mask", self._mask))

    def described_by(self) -> list[Path]:
        """The files beside the shards that say what the shards hold."""
        groups = (self.path, self.path / "scan", self.path / "mask", self.path / "versions")
        files = [self.path / CARRIED, *(folder / "zarr.json" for folder in groups)]
        return [file for file in files if file.is_file()]

    def version_names(self) -> list[str]:
        """Names of all versions, finished or not, oldest first."""
        folder = self.path / "versions"
        found = [p.parent.name for p in folder.glob("*/zarr.json")] if folder.is_dir() else []
        there = [version for name in found if (version := self.find_version(name)) is not None]
        return [version.name for version in sorted(there, key=lambda version: (version.created, version.name))]

    def version(self, name: str) -> ChromaVersion:
        """The version ``name``. Raises StoreError."""
        with reading(self.path):
            group = self._group.get(f"versions/{name}")
        if not isinstance(group, zarr.Group):
            there = ", ".join(self.version_names()) or "none"
            raise StoreError(f"{self.path}: no version {name!r} (there are: {there}); give one of them")
        version = ChromaVersion(self.path / "versions" / name, group)
        if GRADED_FROM not in version.settings:
            return version
        before = self.version(str(version.settings[GRADED_FROM]))
        return GradedVersion(version.path, group, before, self.info.shape_yx, self._look)

    def _look(self, roi: Roi) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        return self.read_lightness(roi), self.uncoloured(roi)

    def find_version(self, name: str) -> ChromaVersion | None:
        """The version ``name``, or None if it is missing, damaged or of another layout."""
        try:
            return self.version(name)
        except (StoreError, KeyError, TypeError, ValueError):
            return None

    def create_version(
        self, name: str, settings: Mapping[str, Any], block_px: int, scale_factor: float, created: str, levels: int = 1
    ) -> ChromaVersion:
        """Create an empty version ``name`` with room for ``levels``; replaces an existing one. Raises OutputError."""
        self.remove_version(name)
        path = self.path / "versions" / name
        with writing(path):
            group = self._group.create_group(f"versions/{name}")
            shape_yx = self.info.shape_yx
            return ChromaVersion.create(path, group, shape_yx, settings, block_px, scale_factor, created, levels)

    def create_graded_version(self, name: str, settings: Mapping[str, Any], created: str) -> ChromaVersion:
        """Create a version whose ``settings`` say from which one it is graded, and how; replaces an existing one.

        Raises StoreError : the one that it begins with is not there. OutputError.
        """
        before = self.version(str(settings[GRADED_FROM]))
        self.remove_version(name)
        path = self.path / "versions" / name
        with writing(path):
            group = self._group.create_group(f"versions/{name}")
            begin_version(path, group, settings, before.block_px, 1.0, created)
        return self.version(name)

    def remove_version(self, name: str) -> None:
        """Delete the version ``name``, if it exists. Raises OutputError."""
        path = self.path / "versions" / name
        with writing(path):
            if path.is_dir():
                # Without its zarr.json it no longer counts as a version, even if the deletion is interrupted.
                (path / "zarr.json").unlink(missing_ok=True)
                shutil.rmtree(path)


def _create_plane(group: zarr.Group, name: str, shape_yx: tuple[int, int], colour: tuple[int, ...], dtype: str) -> None:
    group.create_array(
        name,
        shape=(*shape_yx, *colour),
        dtype=dtype,
        chunks=(CHUNK_PX, CHUNK_PX, *colour),
        shards=(SCAN_SHARD_PX, SCAN_SHARD_PX, *colour),
        filters=(Differences(axis=1),),
        compressors=SCAN_COMPRESSORS,
        config={"write_empty_chunks": True},
        dimension_names=("y", "x", "c")[: 2 + len(colour)],
    )


def _info_json(info: ScanInfo) -> dict[str, Any]:
    return {**asdict(info), "shape_yx": list(info.shape_yx), "metadata": dict(info.metadata)}


def _info_fields(values: Any) -> dict[str, Any]:
    return {**values, "shape_yx": tuple(values["shape_yx"])}
