"""Files beside a scan: a world file is read, other files that describe the scan are only named.

No library may look for neighbours (`pipeline.support.gdal.Opened`, ``alone``): a few bytes in such a file would decide
which files the library follows, and a pipe would block it. Only one file of six numbers is read here, from the scan's
folder and with the scan's name, and nothing in it refers to other files.

References
----------
Esri, "World files for raster datasets"; GDAL, "ESRI World File" (GDALReadWorldFile) and "PAM" (.aux.xml).
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from pipeline.endings import world_endings
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.support.names import shown
from pipeline.types import ReadOptions, Roi, ScanInfo, ScanReader

_WORLD_LIMIT_BYTES = 1024
_NUMBER = re.compile(rb"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?")
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_BY_STEM, _BY_NAME = (".prj", ".xmp"), (".aux.xml", ".msk", ".xmp")
_GEO_TRANSFORMS, _MATRIX, _GEO_KEYS = (33550, 33922, 34264), 34264, 34735
_RASTER_TYPE, _IS_POINT = 1025, 2


def with_neighbours(reader: ScanReader, path: Path, reading: ReadOptions) -> ScanReader:
    """The reader with the georeference of a world file and the names of files not read; unchanged if there are none.

    Neighbours describe a file, and so its first page.
    """
    if reading.page != 1:
        return reader
    dropped: list[str] = []
    world = _world_of(path, reading.world_file, dropped)
    found = _other_names(path, dropped)
    embedded = None
    if world is not None:
        embedded = _placed(reader.embedded, world, dropped)
    dropped += [f"{name} beside it (not read)" for name in found]
    beside = world.name if world is not None and embedded is not None else ""
    return _Accompanied(reader, embedded, beside, tuple(dropped)) if beside or dropped else reader


@dataclass(frozen=True)
class _World:
    """A world file: its name, and a to f of ``Georeference.transform``, for pixel corners and for pixel centres."""

    name: str
    corner: tuple[float, ...]
    centre: tuple[float, ...]


def _placed(embedded: EmbeddedMetadata, world: _World, dropped: list[str]) -> EmbeddedMetadata | None:
    """Metadata with the world file's georeference; None if the scan has its own. A disagreement is noted."""
    place = embedded.place or Georeference()
    codes = {tag.code for tag in place.tags}
    if place.transform or place.gcps or place.rpcs or codes.intersection(_GEO_TRANSFORMS):
        if not _same(place.transform, world.corner):
            dropped.append(f"{world.name} beside it (the file has coordinates of its own)")
        return None
    tags = place.tags
    if tags:  # a GeoTIFF's tags are kept as they are, and nothing else is
        a, b, c, d, e, f = world.centre if _is_point(tags) else world.corner
        numbers = (a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1)
        tags = (*tags, TiffTag(_MATRIX, 12, 16, _doubles(numbers)))
    return replace(embedded, place=replace(place, transform=world.corner, tags=tags))


def _doubles(numbers: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def _is_point(tags: tuple[TiffTag, ...]) -> bool:
    """True if a GeoTIFF refers to pixel centres (GTRasterTypeGeoKey)."""
    for tag in tags:
        if tag.code == _GEO_KEYS and tag.type == 3:
            keys = memoryview(tag.value[: len(tag.value) // 8 * 8]).cast("H").tolist()
            return any(keys[at] == _RASTER_TYPE and keys[at + 3] == _IS_POINT for at in range(4, len(keys), 4))
    return False


def _same(place: tuple[float, ...], world: tuple[float, ...]) -> bool:
    """True if equal within a thousandth of a pixel; world files are rounded."""
    step = max(map(abs, (world[0], world[1], world[3], world[4])))
    return len(place) == 6 and all(abs(p - w) <= step / 1000 for p, w in zip(place, world, strict=True))


def _world_of(path: Path, wanted: str | None, dropped: list[str]) -> _World | None:
    """The first readable world file, or the wanted one; reasons why others were not used are noted."""
    first: _World | None = None
    for name, real in _files(path, world_names(path), dropped):
        if wanted is not None and name != wanted:
            continue
        numbers = _six_numbers(real)
        if numbers is None:
            dropped.append(f"{name} beside it (not the six numbers of a world file)")
            continue
        a, d, b, e, x, y = numbers
        corner = (a, b, x - a / 2 - b / 2, d, e, y - d / 2 - e / 2)
        if first is None:
            first = _World(name, corner, (a, b, x, d, e, y))
        elif not _same(corner, first.corner):
            dropped.append(f"{name} beside it (another world file than {first.name})")
    return None if first is None or first.corner == _IDENTITY else first


def world_names(path: Path) -> list[str]:
    """Names of possible world files."""
    return [f"{path.stem}{ending}" for ending in world_endings(path.suffix)]


def _six_numbers(path: Path) -> tuple[float, ...] | None:
    """The numbers of a world file: x and y of a step along a row, of a step down a column, of the first pixel's centre.

    None if the file does not hold six numbers.
    """
    try:
        # The file may have been replaced since it was checked: do not follow a link or wait for a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = file.read(_WORLD_LIMIT_BYTES + 1) if regular else b""
    except OSError:
        return None
    words = data.split()
    if len(data) > _WORLD_LIMIT_BYTES or len(words) != 6 or not all(_NUMBER.fullmatch(word) for word in words):
        return None
    numbers = tuple(float(word.replace(b",", b".")) for word in words)
    area = numbers[0] * numbers[3] - numbers[1] * numbers[2]
    return numbers if all(map(math.isfinite, (*numbers, area))) and area else None


def _other_names(path: Path, dropped: list[str]) -> list[str]:
    names = [*(path.stem + ending for ending in _BY_STEM), *(path.name + ending for ending in _BY_NAME)]
    return [name for name, _ in _files(path, names, dropped)]


def _files(path: Path, names: list[str], dropped: list[str]) -> Iterator[tuple[str, Path]]:
    """The regular files among ``names`` in the folder of ``path``, also tried with the ending in capitals."""
    folder = path.parent
    seen = {_identity(path)}
    for name in names:
        for each in (name, str(Path(name).with_suffix(Path(name).suffix.upper()))):
            identity = _identity(folder / each)
            if identity is None or identity in seen:
                continue
            seen.add(identity)
            try:
                real = (folder / each).resolve(strict=True)
                inside = real.parent == folder.resolve(strict=True)
            except (OSError, RuntimeError):
                continue
            if not inside:
                dropped.append(f"{shown(each)} beside it (a link out of its folder)")
            else:
                yield shown(each), real


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a regular file, links followed; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


class _Accompanied:
    """A reader with additional facts from neighbouring files."""

    def __init__(
        self, reader: ScanReader, embedded: EmbeddedMetadata | None, beside: str, dropped: tuple[str, ...]
    ) -> None:
        self._reader, self._embedded = reader, embedded
        info = reader.info
        metadata = dict(info.metadata)
        if beside:
            metadata["beside"] = beside
        if dropped:
            metadata["dropped"] = [*metadata.get("dropped", ()), *dropped]
        self._info = replace(info, metadata=metadata)

    @property
    def info(self) -> ScanInfo:
        return self._info

    @property
    def embedded(self) -> EmbeddedMetadata:
        return self._embedded or self._reader.embedded

    @property
    def missing_regions(self) -> tuple[Roi, ...]:
        return self._reader.missing_regions

    @property
    def segment_yx(self) -> tuple[int, int]:
        return self._reader.segment_yx

    @property
    def decoder_bytes(self) -> int:
        return self._reader.decoder_bytes

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        return self._reader.read(rows, columns)

    def read_mask(self, rows: slice, columns: slice) -> NDArray[Any]:
        return self._reader.read_mask(rows, columns)

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name == "_reader":  # while unpickling
            raise AttributeError(name)
        return getattr(self._reader, name)
