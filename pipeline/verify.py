"""A certificate of a result: whether the picture still says what the scan said, and whether any byte was changed since.

What is certified is what this project promises: the lightness of every pixel is the scan's, at its depth and size; the
pyramid is whole; resolution and orientation are the scan's; picture and store are the bytes that were written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.color import lightness_from_samples
from pipeline.errors import ColorizeError, StoreError
from pipeline.files import file_sha256, size_bytes, tree_sha256
from pipeline.grid import Roi
from pipeline.manifest import RunSpec, pictures_of, read_sidecar, sidecar_of
from pipeline.readers import open_scan
from pipeline.store import CARRIED, ChromaVersion, ScanStore
from pipeline.types import Reading, ScanInfo, ScanReader
from pipeline.writers import ENDINGS

BLOCK_PX = 1024
# Half a level of the darkest grays of 8 bit is 0.14, and of gray turned into RGB 0.25; 65,535 levels leave a fiftieth.
BOUNDS = {"uint8": 0.5, "uint16": 0.02}
LOSSY = frozenset({"jpeg", "iiif"})
_SAME_RESOLUTION = 1e-4
_PER_METRE = 0.0051  # what PNG and JPEG 2000 round to, in pixels per centimetre

Read = Callable[[Roi], NDArray]


@dataclass(frozen=True)
class Certificate:
    """What was found.

    Attributes
    ----------
    picture : the result that was looked at
    lightness_max, lightness_mean : of |dL*| to the scan, over every pixel; None where the scan is not there any more
    worst : rows and columns of the block (of a megapixel) with the largest
    bound : the largest that is allowed at this depth; None for formats that lose more than a rounding
    unread : parts of the scan that could not be read, and are plain gray
    problems : one line each; none is a result that keeps its promises
    """

    picture: str
    lightness_max: float | None
    lightness_mean: float | None
    worst: tuple[int, int, int, int] | None
    bound: float | None
    unread: int = 0
    problems: tuple[str, ...] = field(default=())

    @property
    def passes(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passes": self.passes}

    def __str__(self) -> str:
        if self.lightness_max is None or self.lightness_mean is None:
            lightness = "lightness not compared"
        else:
            bound = "lossy" if self.bound is None else f"bound {self.bound:g}"
            lightness = f"|dL*| at most {self.lightness_max:.4f} ({bound}), mean {self.lightness_mean:.4f}"
        state = "whole   " if self.passes else "DAMAGED "
        unread = [f"{self.unread} parts of the scan could not be read"] if self.unread else []
        return f"{state} {self.picture}  ({'; '.join([lightness, *unread, *self.problems])})"


def verify(result: Path) -> list[Certificate]:
    """Look at every picture of a result (of a ``NAME.color.json``) or at one of them, and at the store.

    Raises
    ------
    StoreError : it has no sidecar of this project's: what it should be is not known.
    """
    sidecar_path = sidecar_of(result)
    sidecar = None if sidecar_path is None else read_sidecar(sidecar_path)
    if sidecar_path is None or (sidecar is None and not result.exists()):
        raise StoreError(f"{result}: no result of this project's; give a NAME.color.json, or a folder of them")
    formats = pictures_of(sidecar_path)
    asked = [name for name in formats if result in (sidecar_path, _picture(sidecar_path, name))]
    try:
        every = [_Told.of(sidecar or {}, _picture(sidecar_path, name), name) for name in asked]
        if not every:
            raise KeyError(result.name)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{result}: no sidecar of this project's that describes it, so what it should be is not known; "
            "give a NAME.color.json"
        ) from error
    store_problems = tuple(_store_problems(every[0]))
    return [_certificate(told, store_problems) for told in every]


def _picture(sidecar: Path, name: str) -> Path:
    return sidecar.with_name(sidecar.name.removesuffix(".color.json") + ENDINGS[name])


def _certificate(told: _Told, store_problems: tuple[str, ...]) -> Certificate:
    problems = [*_file_problems(told), *store_problems]
    found = _Lightness()
    with contextlib.ExitStack() as stack:
        source = _source(told, stack)
        if source is None:
            problems.append("neither its store nor its scan is there to compare with")
        elif told.picture.exists():
            problems += _compare(told, source, found)
    if found.pixels and told.bound is not None and found.largest > told.bound:
        problems.append(f"lightness is not the scan's: more than {told.bound:g} at rows, columns {found.worst}")
    return Certificate(
        picture=str(told.picture),
        lightness_max=round(found.largest, 6) if found.pixels else None,
        lightness_mean=round(found.total / found.pixels, 6) if found.pixels else None,
        worst=found.worst,
        bound=told.bound,
        unread=told.holes,
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Told:
    """What the sidecar says of one picture of a result."""

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
    def of(cls, sidecar: Mapping[str, Any], picture: Path, name: str) -> _Told:
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
    def bound(self) -> float | None:
        """None for formats that lose more than a rounding."""
        return None if self.format in LOSSY else BOUNDS[self.dtype]


def _file_problems(told: _Told) -> Iterator[str]:
    """Bytes, size, depth, pyramid and tags of the picture itself."""
    picture = told.picture
    if not picture.exists():
        yield "the picture is not there"
        return
    if size_bytes(picture) != told.bytes:
        yield f"it has {size_bytes(picture)} bytes, not the {told.bytes} that were written"
    elif tree_sha256(picture) != told.sha256:
        yield "its bytes are not those that were written"
    if told.format not in ("tiff", "cog"):
        return
    try:
        with tifffile.TiffFile(picture) as tiff:
            yield from _tiff_problems(tiff, told)
    except Exception as error:  # tifffile has many kinds
        yield f"not a readable TIFF ({' '.join(str(error).split())})"


def _tiff_problems(tiff: tifffile.TiffFile, told: _Told) -> Iterator[str]:
    page = tiff.pages.first
    # Not tifffile's series, which leaves levels of one pixel out.
    levels = [page, *page.pages] if page.subifds else tiff.series[0].levels
    if levels[0].shape[:2] != told.shape_yx or str(levels[0].dtype) != told.dtype:
        yield f"it is {levels[0].shape} {levels[0].dtype}, not {told.shape_yx} {told.dtype}"
    if len(levels) != told.levels:
        yield f"its pyramid has {len(levels)} levels, not {told.levels}"
    for above, below in pairwise(levels):
        # GDAL rounds an odd extent down.
        extents = zip(below.shape[:2], above.shape[:2], strict=True)
        if any(small not in (large // 2, -(-large // 2)) for small, large in extents):
            yield f"the pyramid's level {below.shape[:2]} is not half of {above.shape[:2]}"


def _metadata_problems(found: Mapping[str, Any], told: _Told) -> Iterator[str]:
    """Orientation and resolution of the picture against the scan's."""
    wanted = {name: value for name, value in told.metadata.items() if name not in told.not_carried}
    if "orientation" not in told.not_carried and found.get("orientation", 1) != wanted.get("orientation", 1):
        yield f"its orientation is {found.get('orientation', 1)}, the scan's {wanted.get('orientation', 1)}"
    if wanted.get("resolution"):
        asked, there = _per_cm(wanted["resolution"]), _per_cm(found.get("resolution") or (0, 0, "none"))
        if asked[1] != there[1] or not np.allclose(asked[0], there[0], rtol=_SAME_RESOLUTION, atol=_PER_METRE):
            yield f"its resolution is {_text(found.get('resolution'))}, the scan's {_text(wanted['resolution'])}"


def _per_cm(resolution: Sequence[Any]) -> tuple[tuple[float, float], bool]:
    """Pixels per centimetre in x and y, and whether there is a unit at all."""
    x, y, unit = resolution
    factor = 1 / 2.54 if unit == "inch" else 1.0
    return (x * factor, y * factor), unit != "none"


def _text(resolution: Sequence[Any] | None) -> str:
    return "not there" if resolution is None else "{:g}x{:g} ({})".format(*resolution)


def _store_problems(told: _Told) -> Iterator[str]:
    """Every shard of the samples and of the result's version, and the files that describe them."""
    if not told.store.is_dir():
        return  # it may be deleted
    try:
        store = ScanStore.open(told.store)
    except StoreError as error:
        yield str(error)
        return
    if store.source.sha256 != told.source_sha256:
        yield f"{told.store.name} is of another scan"
        return
    version = store.find_version(told.version)
    is_kept = (told.store / "versions" / told.version).is_dir()
    for name, sha256 in told.store_sha256.items():
        if name == CARRIED and _is_of_another_run(store, told):
            continue
        if name.startswith(f"versions/{told.version}/") and not is_kept:
            continue
        if not (told.store / name).is_file() or file_sha256(told.store / name) != sha256:
            yield f"{told.store.name}/{name} is not what was written"
    for roi in _blocks(store.info.shape_yx):
        try:
            store.read_scan(roi)
            if store.info.mask:
                store.read_mask(roi)
        except StoreError as error:
            yield f"samples at rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}: {error}"
    if not store.has_whole_scan():
        yield f"files of {told.store.name}/scan are missing"
    if version is not None:
        if version.records_sha256() != told.records_sha256:
            yield f"the records of version {version.name} are not what was written"
        yield from _version_problems(store, version)


def _is_of_another_run(store: ScanStore, told: _Told) -> bool:
    """Whether a later run has left metadata out, or taken it in."""
    try:
        return store.keeps_metadata != told.carries_metadata
    except StoreError:
        return False


def _version_problems(store: ScanStore, version: ChromaVersion) -> Iterator[str]:
    rows, columns = (-(-extent // version.block_px) for extent in store.info.shape_yx)
    missing = {(y, x) for y in range(rows) for x in range(columns)} - version.finished_blocks()
    for y, x in sorted(missing):
        yield f"version {version.name}, block {y}, {x} of {version.block_px} px: missing or not what was written"


@dataclass(frozen=True)
class _Source:
    """The scan's L* and mask by window, and what of it could not be read."""

    lightness: Read
    mask: Read | None
    info: ScanInfo
    is_by_rows: bool = False


def _source(told: _Told, stack: contextlib.ExitStack) -> _Source | None:
    """The scan, from the store or else from the scan file where that is still the same."""
    try:
        store = ScanStore.open(told.store)
        return _Source(store.read_lightness, store.read_mask if store.info.mask else None, store.info)
    except StoreError:
        pass
    try:
        if not told.source.exists() or tree_sha256(told.source) != told.source_sha256:
            return None
        reader = stack.enter_context(open_scan(told.source, Reading(page=told.page, salvage=True)))
    except (ColorizeError, OSError):
        return None
    return _Source(
        lambda roi: lightness_from_samples(reader.read(roi.rows, roi.columns), reader.info.tone),
        (lambda roi: reader.read_mask(roi.rows, roi.columns)) if reader.info.mask else None,
        reader.info,
        is_by_rows=True,
    )


@dataclass
class _Lightness:
    """|dL*| so far."""

    total: float = 0.0
    pixels: int = 0
    largest: float = 0.0
    worst: tuple[int, int, int, int] | None = None


def _compare(told: _Told, source: _Source, found: _Lightness) -> Iterator[str]:
    """Compare lightness and mask block by block into ``found``."""
    if told.format == "iiif":
        return  # pieces of JPEG at many sizes: their bytes are certified
    try:
        with open_scan(told.picture) as reader:
            yield from _metadata_problems(reader.info.metadata, told)
            if reader.info.shape_yx != told.shape_yx:
                return  # told already
            same_mask = True
            # What is decoded from the top down only is read from the top down.
            is_by_rows = getattr(reader, "segment_yx", (1, 0))[1] >= told.shape_yx[1] or source.is_by_rows
            for roi in _bands(told.shape_yx) if is_by_rows else _blocks(told.shape_yx):
                seen = lightness_from_samples(reader.read(roi.rows, roi.columns), reader.info.tone)
                step = np.abs(seen - source.lightness(roi))
                if source.mask is not None:
                    mask = source.mask(roi)
                    same_mask = same_mask and _is_same_mask(reader, roi, mask, told)
                    step[mask == 0] = 0
                _add(found, step, roi)
            if not same_mask:
                yield f"its {source.info.mask} is not the scan's"
    except ColorizeError as error:
        yield str(error)


def _is_same_mask(reader: ScanReader, roi: Roi, mask: NDArray, told: _Told) -> bool:
    if {"alpha", "nodata"} & set(told.not_carried):
        return True
    return bool(reader.info.mask) and bool((reader.read_mask(roi.rows, roi.columns) == mask).all())


def _add(found: _Lightness, step: NDArray, roi: Roi) -> None:
    found.total += float(step.sum(dtype=np.float64))
    found.pixels += step.size
    if found.worst is None or step.max() > found.largest:
        found.largest, found.worst = float(step.max()), (roi.y0, roi.y1, roi.x0, roi.x1)


def _bands(shape_yx: tuple[int, int]) -> Iterator[Roi]:
    """Of about as many pixels as a block has."""
    rows = max(1, BLOCK_PX**2 // shape_yx[1])
    for y in range(0, shape_yx[0], rows):
        yield Roi(y, y + rows, 0, shape_yx[1]).clipped(shape_yx)


def _blocks(shape_yx: tuple[int, int]) -> Iterator[Roi]:
    for y in range(0, shape_yx[0], BLOCK_PX):
        for x in range(0, shape_yx[1], BLOCK_PX):
            yield Roi(y, y + BLOCK_PX, x, x + BLOCK_PX).clipped(shape_yx)
