"""One version of a scan's colours: its chroma array, and a record of every finished block."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.colour.lab import chroma_from_half
from pipeline.errors import StoreError
from pipeline.hints.spreading import Correction
from pipeline.palettes.doubt import Doubt
from pipeline.store.arrays import (
    AGREEMENT_COMPRESSORS,
    CHROMA_COMPRESSORS,
    CHUNK_PX,
    UNFINISHED,
    array_of,
    encoded,
    has_all_shards,
    reading,
)
from pipeline.store.differences import Differences
from pipeline.support.files import write_json, write_whole, writing
from pipeline.tiling.anchor import Anchor, cell_px
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import SQUARE_PX, OverlapStats, squares
from pipeline.tiling.palette import Palette
from pipeline.types import Roi

BLOCK_SIZES_PX = (4096, 2048, 1024, 512)
_READ_BYTES = 2**22
_ANCHOR = "anchor.npy"
_DOUBT, _DOUBT_CELLS, _ANSWERS = "doubt.json", "doubt.npy", "answers.npy"
_COPY = "copy.json"
_SERIES, _READING = "series.json", "reading.npz"
_HINTS, _CORRECTION = "hints.json", "correction.npz"
CHOSEN = "chosen"
_FACTOR = "factor.json"
_RECORDS = "chroma/records"
# Of some rows of a window, whose (h, w) L* is given and where nothing is to be coloured: (2, h, w) a*, b*.
WindowColours = Callable[..., NDArray[np.float32]]


@dataclass(frozen=True)
class BlockRecord:
    """A finished block: index, version, attempt, level and files, and the tiles and seconds that it took in all.

    Attributes
    ----------
    files : size in bytes and CRC-32 of the shard and of each level's agreement, by path below the version
    """

    index_yx: tuple[int, int]
    version: str
    attempt: str
    files: Mapping[str, tuple[int, int]]
    tiles: int
    seconds: float
    level: int = 0


@dataclass(frozen=True)
class BlockTiming:
    """Tiles predicted for a block, the thread seconds they took, and the level of refinement."""

    tiles: int
    seconds: float
    level: int = 0


class ChromaVersion:
    """An open version. One task writes each block; any number of processes may read."""

    _folders: tuple[str, ...] = (_RECORDS, CHOSEN)

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        attributes: dict[str, Any] = dict(group.attrs)
        self.settings: Mapping[str, Any] = attributes["settings"]
        self.block_px = int(attributes["block_px"])
        self.scale_factor = float(attributes["scale_factor"])
        self.created = str(attributes["created"])
        self.attempt = str(attributes["attempt"])

    @classmethod
    def create(
        cls,
        path: Path,
        group: zarr.Group,
        shape_yx: tuple[int, int],
        settings: Mapping[str, Any],
        block_px: int,
        scale_factor: float,
        created: str,
        levels: int,
    ) -> ChromaVersion:
        """Fill the new group of a version. Attributes are written last: without them it does not count as a version."""
        group.create_array(
            "chroma",
            shape=(2, *shape_yx),
            dtype="float16",
            chunks=(2, min(CHUNK_PX, block_px), min(CHUNK_PX, block_px)),
            shards=(2, block_px, block_px),
            filters=(Differences(axis=2),),
            compressors=CHROMA_COMPRESSORS,
            config={"write_empty_chunks": True},
            dimension_names=("ab", "y", "x"),
        )
        side = block_px // SQUARE_PX
        group.create_array(
            "agreement",
            shape=(levels, 4, *(squares(extent) for extent in shape_yx)),
            dtype="float32",
            chunks=(1, 4, side, side),
            compressors=AGREEMENT_COMPRESSORS,
            dimension_names=("level", "ab_spread_weight", "y", "x"),
        )
        (path / _RECORDS).mkdir()
        begin_version(path, group, settings, block_px, scale_factor, created)
        return cls(path, group)

    @property
    def name(self) -> str:
        return self.path.name

    def write(self, index_yx: tuple[int, int], coloured: BlockResult, attempt: str, work: BlockTiming) -> None:
        """Write the result of the block at ``index_yx``, its a*, b* rounded to float16, and then its record.

        The record describes the intended bytes, not those on disk. Two workers may write one block, if one of them was
        taken for lost; the last record then counts, and if it does not match the files the block is made again. A block
        already finished at this level or a later one stays as it is.

        Parameters
        ----------
        attempt : attempt of the version when the work was handed out; it changes if the version is started anew
        work : the block's tiles and seconds, and its level of refinement

        Raises
        ------
        StoreError : the version was started anew, or is gone. OutputError : it cannot be written.
        """
        before = self._record_of(index_yx)
        with writing(self.path):
            self._check_attempt(attempt)
            if self.has_block(index_yx, work.level):
                return
            files = dict(before.files) if before and work.level else {}
            for path, data in self._files(index_yx, coloured, work.level).items():
                (self.path / path).parent.mkdir(parents=True, exist_ok=True)
                write_whole(self.path / path, data)
                files[path] = (len(data), zlib.crc32(data))
            self._check_attempt(attempt)
        earlier = before if work.level else None
        tiles = work.tiles + (earlier.tiles if earlier else 0)
        seconds = round(work.seconds + (earlier.seconds if earlier else 0.0), 3)
        record = BlockRecord(index_yx, self.name, attempt, files, tiles, seconds, work.level)
        write_json(self._record_path(index_yx), asdict(record))

    def _files(self, index_yx: tuple[int, int], coloured: BlockResult, level: int) -> dict[str, bytes]:
        """The contents of a block's files by path below the version: its agreement, then its chroma."""
        y, x = (index * self.block_px for index in index_yx)
        chroma, agreement = coloured.chroma, coloured.agreement
        roi = Roi(y, y + chroma.shape[1], x, x + chroma.shape[2])
        planes = np.stack([*agreement.mean, agreement.spread, agreement.weight])
        return {
            f"agreement/c/{level}/0/{index_yx[0]}/{index_yx[1]}": encoded(
                self._agreement, (level, slice(None), *_square_slices(roi)), planes
            ),
            f"chroma/c/0/{index_yx[0]}/{index_yx[1]}": encoded(
                self._chroma, (slice(None), roi.rows, roi.columns), chroma.astype(np.float16)
            ),
        }

    def agreement(self, roi: Roi, below: int | None = None) -> OverlapStats:
        """Overlap statistics of ``roi``, which begins at multiples of 32 px: each square as its last level left it.

        Parameters
        ----------
        below : ignore this level and all later ones

        Raises
        ------
        StoreError : damaged
        """
        last = self._planes(roi, range(self.levels_chosen + 1 if below is None else below), slice(None))
        return OverlapStats(last[:2], last[2], last[3])

    def spread(self, roi: Roi) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Spread and weight alone, from each square's last level in ``roi``; for whole scans. Raises StoreError."""
        spread, weight = self._planes(roi, range(self.levels_chosen + 1), slice(2, 4))
        return spread, weight

    def _planes(self, roi: Roi, levels: Iterable[int], planes: slice) -> NDArray[np.float32]:
        """``planes`` of the agreement, the weight last: each square from the last of ``levels`` with any weight."""
        rows, columns = _square_slices(roi)
        last: NDArray[np.float32] | None = None
        with reading(self.path):
            for level in levels:
                found = np.asarray(self._agreement[level, planes, rows, columns])
                last = found if last is None else np.where(found[-1] > 0, found, last)
        assert last is not None, "no levels"
        return last

    def write_anchor(self, anchor: Anchor | Palette, attempt: str) -> None:
        """Store the scan's palette atomically; ``attempt`` as in :meth:`write`. Raises StoreError, OutputError."""
        self._check_attempt(attempt)
        _write_array(self.path / _ANCHOR, anchor.cells)

    def write_doubt(self, doubt: Doubt, expected: NDArray[np.float32], attempt: str) -> None:
        """Store the palette's expected error, and (rows, columns) CIEDE2000 of its cells. Raises as :meth:`write`."""
        self._check_attempt(attempt)
        _write_array(self.path / _DOUBT_CELLS, expected.astype(np.float16))
        write_json(self.path / _DOUBT, doubt.to_json())

    def write_answers(self, answers: NDArray[np.float32], attempt: str) -> None:
        """Store the likeliest answers for the palette's cells (:func:`pipeline.palettes.answers.answers_of`)."""
        self._check_attempt(attempt)
        _write_array(self.path / _ANSWERS, answers.astype(np.float16))

    def take_over(self, before: ChromaVersion) -> None:
        """Copy what is kept beside the colours of the version whose colours this one's are made from. OutputError."""
        with reading(before.path):
            names = [
                name for name in (_ANCHOR, _DOUBT_CELLS, _DOUBT, _ANSWERS, _SERIES) if (before.path / name).is_file()
            ]
            names += [f"{CHOSEN}/{path.name}" for path in sorted((before.path / CHOSEN).glob("*"))]
            data = {name: (before.path / name).read_bytes() for name in names}
        for name in names:
            write_whole(self.path / name, data[name])

    def write_factor(self, factor: float, attempt: str) -> None:
        """Keep the factor on chroma that a goal came to, as :meth:`write_anchor`. Raises as for a block."""
        self._check_attempt(attempt)
        write_json(self.path / _FACTOR, {"factor": factor})

    @property
    def factor(self) -> float | None:
        """What :meth:`write_factor` kept; None where it was not needed, or is not known yet. Raises StoreError."""
        if not (self.path / _FACTOR).is_file():
            return None
        with reading(self.path):
            return float(json.loads((self.path / _FACTOR).read_text(encoding="utf-8"))["factor"])

    def answers(self) -> NDArray[np.float32] | None:
        """(answers, 3, rows, columns) stored a*, b* and share; None for a model without a palette network."""
        return self._read_array(_ANSWERS).astype(np.float32) if (self.path / _ANSWERS).is_file() else None

    def write_palette_copy(self, record: Mapping[str, Any], attempt: str) -> None:
        """Keep of which coloured copy the palette is, JSON values. Raises as for a block."""
        self._check_attempt(attempt)
        write_json(self.path / _COPY, dict(record))

    @property
    def palette_copy(self) -> Mapping[str, Any] | None:
        """What :meth:`write_palette_copy` kept; None of a palette that is no copy's."""
        try:
            record: Mapping[str, Any] = json.loads((self.path / _COPY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def write_reading(self, seen: NDArray[np.float32], own: NDArray[np.float32], attempt: str) -> None:
        """Keep what the scan's series is to be joined by. Raises as for a block.

        Parameters
        ----------
        seen : (h, w) L* of the scan, shrunk
        own : (3, rows, columns) a*, b* of the palette that it has by itself, and how sure of each cell its network is
        """
        self._check_attempt(attempt)
        stream = io.BytesIO()
        np.savez(stream, seen=seen.astype(np.float16), own=own.astype(np.float32))
        write_whole(self.path / _READING, stream.getvalue())

    def reading(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """What :meth:`write_reading` kept; None of a scan in no series, or not looked at yet. StoreError."""
        if not (self.path / _READING).is_file():
            return None
        with reading(self.path), np.load(self.path / _READING, allow_pickle=False) as kept:
            return kept["seen"].astype(np.float32), kept["own"]

    def write_series(self, record: Mapping[str, Any], attempt: str) -> None:
        """Keep in which series the palette was made, JSON values. Raises as for a block."""
        self._check_attempt(attempt)
        write_json(self.path / _SERIES, dict(record))

    @property
    def series(self) -> Mapping[str, Any] | None:
        """What :meth:`write_series` kept; None of a palette that was made alone."""
        try:
            record: Mapping[str, Any] = json.loads((self.path / _SERIES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def write_hints(self, record: Mapping[str, Any], attempt: str) -> None:
        """Keep the hints that correct the colours, JSON values. Raises as for a block."""
        self._check_attempt(attempt)
        write_json(self.path / _HINTS, dict(record))

    @property
    def hints(self) -> Mapping[str, Any] | None:
        """What :meth:`write_hints` kept; None without hints."""
        try:
            record: Mapping[str, Any] = json.loads((self.path / _HINTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def write_correction(self, correction: Correction, attempt: str) -> None:
        """Keep how far the hints spread. Raises as for a block."""
        self._check_attempt(attempt)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, values=correction.values, cell_px=np.array(correction.cell_px))
        with writing(self.path):
            write_whole(self.path / _CORRECTION, buffer.getvalue())

    @property
    def has_correction(self) -> bool:
        return (self.path / _CORRECTION).is_file()

    def correction(self) -> Correction:
        """What :meth:`write_correction` kept. Raises StoreError."""
        with reading(self.path), np.load(self.path / _CORRECTION, allow_pickle=False) as kept:
            return Correction(kept["values"], int(kept["cell_px"]))

    def copy_block(self, index_yx: tuple[int, int], before: ChromaVersion, attempt: str) -> None:
        """Take over a finished block of another version of the same blocks, byte by byte. Raises as :meth:`write`."""
        record = before._record_of(index_yx)
        if record is None:
            raise StoreError(f"{before.path}: block {index_yx} is not there; run it again")
        with writing(self.path):
            self._check_attempt(attempt)
            for path in record.files:
                (self.path / path).parent.mkdir(parents=True, exist_ok=True)
                write_whole(self.path / path, (before.path / path).read_bytes())
            self._check_attempt(attempt)
        kept = replace(record, version=self.name, attempt=attempt, tiles=0, seconds=0.0)
        write_json(self._record_path(index_yx), asdict(kept))

    @property
    def doubt(self) -> Doubt | None:
        """The stored doubt; None for a model that does not estimate any."""
        try:
            return Doubt.from_json(json.loads((self.path / _DOUBT).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def doubt_cells(self) -> NDArray[np.float32]:
        """(rows, columns) expected CIEDE2000 of the palette's cells. Raises StoreError."""
        return self._read_array(_DOUBT_CELLS).astype(np.float32)

    def palette(self, shape_yx: tuple[int, int]) -> Palette:
        """The stored palette, whose cells cover a scan of ``shape_yx``. Raises StoreError."""
        cells = np.array(self._read_array(_ANCHOR))
        return Palette(cells, (shape_yx[0] / cells.shape[1], shape_yx[1] / cells.shape[2]))

    def anchor(self, shape_yx: tuple[int, int]) -> Anchor:
        """The stored anchor of a scan of ``shape_yx``. Raises StoreError."""
        return Anchor(self._read_array(_ANCHOR), cell_px(shape_yx))

    @property
    def has_anchor(self) -> bool:
        """True if an anchor or a palette is stored."""
        return (self.path / _ANCHOR).is_file()

    def write_chosen(self, level: int, tiles: NDArray[np.bool_], score: float) -> None:
        """Store which tiles of a refinement's grid are added, and the score before it. Raises OutputError."""
        _write_array(self.path / CHOSEN / f"{level}.score", np.array(score))
        _write_array(self.path / CHOSEN / f"{level}.npy", tiles)

    def chosen(self, level: int) -> NDArray[np.bool_]:
        """The tiles that :meth:`write_chosen` stored, memory-mapped and so read on access. Raises StoreError."""
        return self._read_array(f"{CHOSEN}/{level}.npy")

    def score_before(self, level: int) -> float:
        """The score that :meth:`write_chosen` stored. Raises StoreError."""
        return float(self._read_array(f"{CHOSEN}/{level}.score"))

    @property
    def levels_chosen(self) -> int:
        """Number of refinements decided on so far."""
        return len(list((self.path / CHOSEN).glob("*.npy")))

    def _read_array(self, name: str) -> NDArray[Any]:
        with reading(self.path):
            array: NDArray[Any] = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
            return array

    def read(self, roi: Roi) -> NDArray[np.float16]:
        """(2, h, w) stored a*, b* of ``roi``; times :attr:`scale_factor` they are CIELAB units. Raises StoreError."""
        with reading(self.path):
            return np.asarray(self._chroma[:, roi.rows, roi.columns])

    def window(self, roi: Roi) -> WindowColours:
        """The colours of ``roi``, which are then taken by strips of rows. Raises StoreError.

        Whoever takes them has the lightness already, which colours that are graded hang on.

        Returns
        -------
        a function of a slice of the rows, their (h, w) L* and, None where all is to be coloured, (h, w) where nothing
        is; it gives (2, h, w) a*, b* in CIELAB units
        """
        half = self.read(roi)
        return lambda rows, lightness, bare=None: chroma_from_half(half[:, rows], self.scale_factor)

    @cached_property
    def _chroma(self) -> zarr.Array:
        with reading(self.path):
            return array_of(self._group, "chroma", self.path)

    @cached_property
    def _agreement(self) -> zarr.Array:
        with reading(self.path):
            return array_of(self._group, "agreement", self.path)

    def has_block(self, index_yx: tuple[int, int], level: int = 0) -> bool:
        """True if the block has a record of this level or a later one, and its files match the record."""
        record = self._record_of(index_yx)
        if record is None or record.level < level:
            return False
        try:
            return all(_file_crc32(self.path / name) == tuple(is_) for name, is_ in record.files.items())
        except OSError:
            return False

    def level_of(self, index_yx: tuple[int, int]) -> int:
        """The level of refinement in the block's record; -1 without a record."""
        record = self._record_of(index_yx)
        return -1 if record is None else record.level

    def _record_of(self, index_yx: tuple[int, int]) -> BlockRecord | None:
        """The block's record, if it belongs to this attempt."""
        record = _read_record(self._record_path(index_yx))
        wanted = (index_yx, self.name, self.attempt)
        return record if record and (record.index_yx, record.version, record.attempt) == wanted else None

    def finished_blocks(self, level: int = 0) -> set[tuple[int, int]]:
        """All blocks for which :meth:`has_block` is true."""
        paths = (self.path / _RECORDS).glob("*.json")
        records = [record for path in sorted(paths) if (record := _read_record(path)) is not None]
        return {record.index_yx for record in records if self.has_block(record.index_yx, level)}

    def remove_unfinished(self) -> None:
        """Delete files that a killed process had not renamed yet; an unknown writer then fails. Raises OutputError.

        Folders that were still empty are made again: copies through object storage lack them.
        """
        with writing(self.path):
            for folder in self._folders:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            for path in self.path.rglob("*"):
                if path.suffix in (UNFINISHED, ".part"):
                    path.unlink(missing_ok=True)

    def work_done(self) -> tuple[int, float]:
        """Tiles predicted for all finished blocks, and the thread seconds they took."""
        records = [_read_record(path) for path in (self.path / _RECORDS).glob("*.json")]
        there = [record for record in records if record is not None]
        return sum(record.tiles for record in there), sum(record.seconds for record in there)

    @property
    def is_complete(self) -> bool:
        """True if the version is marked complete and every shard exists."""
        return self._is_marked_complete and has_all_shards(self.path / "chroma", self._chroma)

    @property
    def _is_marked_complete(self) -> bool:
        return bool(json.loads((self.path / "zarr.json").read_text())["attributes"].get("complete"))

    def is_whole(self) -> bool:
        """True if the version is marked complete and every block matches its record. Reads all shards."""
        if not self.is_complete:
            return False
        _, height, width = self._chroma.shape
        return bool(len(self.finished_blocks()) == -(-height // self.block_px) * -(-width // self.block_px))

    def finish(self) -> None:
        """Mark the version complete, when all blocks are finished. Raises OutputError."""
        # A worker killed while writing leaves a partial file behind, even after another has done its block.
        self.remove_unfinished()
        with writing(self.path):
            self._group.attrs["complete"] = True

    def described_by(self) -> list[Path]:
        """The files beside the shards that say what the shards hold and how they were made."""
        arrays = [self.path / name / "zarr.json" for name in ("chroma", "agreement")]
        palette = [
            self.path / name
            for name in (
                *(_ANCHOR, _DOUBT, _DOUBT_CELLS, _ANSWERS, _COPY, _SERIES, _READING, _FACTOR),
                *(_HINTS, _CORRECTION),
            )
        ]
        made = [*arrays, *palette, *sorted((self.path / CHOSEN).glob("*"))]
        return [path for path in (self.path / "zarr.json", *made) if path.is_file()]

    def records_sha256(self) -> str:
        """SHA-256 of all records, in order of their names."""
        digest = hashlib.sha256()
        for path in sorted((self.path / _RECORDS).glob("*.json")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def _check_attempt(self, attempt: str) -> None:
        if self._current_attempt() != attempt:
            raise StoreError(f"{self.path}: another run has taken over this scan; what this one wrote does not count")

    def _current_attempt(self) -> str | None:
        """The attempt on disk now: the group may have been replaced since this object opened it."""
        try:
            attributes = json.loads((self.path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        except (FileNotFoundError, KeyError, ValueError):
            return None
        return str(attributes.get("attempt"))

    def _record_path(self, index_yx: tuple[int, int]) -> Path:
        return self.path / _RECORDS / f"{index_yx[0]}.{index_yx[1]}.json"


def begin_version(
    path: Path, group: zarr.Group, settings: Mapping[str, Any], block_px: int, scale_factor: float, created: str
) -> None:
    """Give the new group of a version its attributes, last of all that it has."""
    (path / CHOSEN).mkdir()
    group.attrs.update(
        {
            "settings": dict(settings),
            "block_px": block_px,
            "scale_factor": scale_factor,
            "created": created,
            "attempt": uuid.uuid4().hex,
            "complete": False,
        }
    )


def _square_slices(roi: Roi) -> tuple[slice, slice]:
    y, x = roi.y0 // SQUARE_PX, roi.x0 // SQUARE_PX
    return slice(y, y + squares(roi.y1 - roi.y0)), slice(x, x + squares(roi.x1 - roi.x0))


def _write_array(path: Path, array: NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_whole(path, stream.getvalue())


def _read_record(path: Path) -> BlockRecord | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return BlockRecord(**{**values, "index_yx": tuple(values["index_yx"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _file_crc32(path: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file."""
    size, checksum = 0, 0
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return size, checksum
