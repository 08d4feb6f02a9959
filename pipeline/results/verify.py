"""A certificate that a result's picture still agrees with its scan, and that no byte has changed.

It certifies what this project promises: the lightness of every pixel is the scan's, at its depth and size; the pyramid
is complete; resolution, orientation, mask and metadata are the scan's, except those that the sidecar lists as not
carried; picture and store have the bytes that were written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples
from pipeline.errors import ColorizeError, SidecarError, StoreError
from pipeline.formats import ENDINGS, FORMATS, level_problems
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.results.credentials import check_credentials, credential_of, is_available
from pipeline.results.expected_picture import ExpectedPicture
from pipeline.results.read_back import missing_of_scan
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, sidecar_of
from pipeline.results.signatures import Signature
from pipeline.store import CARRIED, ChromaVersion, ScanStore
from pipeline.support.files import file_sha256, size_bytes, tree_sha256
from pipeline.support.text import reason_of
from pipeline.types import ReadOptions, Roi, ScanInfo, ScanReader

BLOCK_PX = 1024
_SAME_RESOLUTION = 1e-4
_PER_METRE = 0.0051  # rounding of PNG and JPEG 2000, in pixels per centimetre

Read = Callable[[Roi], NDArray]


@dataclass(frozen=True)
class Certificate:
    """The findings on one picture.

    Attributes
    ----------
    picture : the result that was checked
    lightness_max, lightness_mean : maximum and mean of |dL*| to the scan over all pixels; None if the scan is gone
    worst : rows and columns of the block (of a megapixel) with the maximum
    bound : largest allowed maximum in this format at this depth
    mean_bound : largest allowed mean; None if ``bound`` is enough
    unread : parts of the scan that could not be read, and are plain gray
    signed : what its Content Credentials are worth; empty if it has none
    not_compared : what could not be checked, and why; one line each
    problems : one line each; empty if the result keeps its promises
    """

    picture: str
    lightness_max: float | None
    lightness_mean: float | None
    worst: tuple[int, int, int, int] | None
    bound: float
    mean_bound: float | None = None
    unread: int = 0
    signed: str = ""
    not_compared: tuple[str, ...] = ()
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
            mean_bound = "" if self.mean_bound is None else f" (bound {self.mean_bound:g})"
            lightness = (
                f"|dL*| at most {self.lightness_max:.4f} (bound {self.bound:g}), "
                f"mean {self.lightness_mean:.4f}{mean_bound}"
            )
        state = "whole   " if self.passes else "DAMAGED "
        unread = [f"{self.unread} parts of the scan could not be read"] if self.unread else []
        told = [lightness, *unread, *filter(None, [self.signed]), *self.not_compared, *self.problems]
        return f"{state} {self.picture}  ({'; '.join(told)})"


def verify(result: Path, trust: str = "") -> list[Certificate]:
    """Check all pictures of a result (given its ``NAME.color.json``) or one of them, the store, and credentials.

    Parameters
    ----------
    trust : PEM of the certificates that are trusted (:func:`pipeline.results.credentials.check_credentials`)

    Raises
    ------
    SidecarError : there is no sidecar of this project, so the expected values are unknown.
    """
    path = sidecar_of(result)
    if path is None or not (path.exists() or result.exists()):
        raise SidecarError(f"{result}: no result of this project's; give a NAME.color.json, or a folder of them")
    sidecar = Sidecar.read(path)
    pictures = {name: _picture(path, name) for name in sidecar.pictures if name in ENDINGS}
    asked = [name for name, picture in pictures.items() if result in (path, picture)]
    if not asked:
        raise SidecarError(
            f"{result}: no sidecar of this project's that describes it, so what it should be is not known; "
            "give a NAME.color.json"
        )
    every = [ExpectedPicture.of(sidecar, pictures[name], name) for name in asked]
    store_problems = tuple(_store_problems(every[0]))
    return [_certificate(expected, store_problems, trust) for expected in every]


def _picture(sidecar: Path, name: str) -> Path:
    return sidecar.with_name(sidecar.name.removesuffix(SIDECAR_ENDING) + ENDINGS[name])


def _certificate(expected: ExpectedPicture, store_problems: tuple[str, ...], trust: str) -> Certificate:
    problems = [*_byte_problems(expected), *store_problems]
    found, not_compared, signed = _Lightness(), list[str](), ""
    if expected.picture.exists() and (expected.record.signed or credential_of(expected.picture).is_file()):
        signed, of_credentials = _credentials(expected, trust)
        problems += of_credentials
    with contextlib.ExitStack() as stack:
        source = _source(expected, stack)
        if source is None:
            problems.append("neither its store nor its scan is there to compare with")
        else:
            not_compared += _not_compared(expected, source)
        if expected.picture.exists():
            problems += _picture_problems(expected, source, found)
    problems += _lightness_problems(expected, found)
    return Certificate(
        picture=str(expected.picture),
        lightness_max=round(found.largest, 6) if found.pixels else None,
        lightness_mean=round(found.mean, 6) if found.pixels else None,
        worst=found.worst,
        bound=expected.bound,
        mean_bound=expected.mean_bound,
        unread=expected.holes,
        signed=signed,
        not_compared=tuple(not_compared),
        problems=tuple(problems),
    )


def _credentials(expected: ExpectedPicture, trust: str) -> tuple[str, list[str]]:
    """What a picture's Content Credentials are worth, and their problems: they were tampered with, or are gone."""
    if not is_available():
        return "Content Credentials not read: pip install 'colorize-archive[c2pa]'", []
    finding = check_credentials(expected.picture, expected.record, trust)
    if finding is None:
        return "", []
    return ("", [str(finding)]) if finding.state in ("tampered", "missing") else (str(finding), [])


def _not_compared(expected: ExpectedPicture, source: _Source) -> Iterator[str]:
    """Facts about the scan that are no longer available."""
    if source.embedded is None:
        yield "metadata not compared: its store keeps none any more"
    elif expected.record.carries_metadata and expected.beside and source.info.metadata.get("beside") != expected.beside:
        yield f"place not compared: no {expected.beside} to read beside the scan any more"


def _byte_problems(expected: ExpectedPicture) -> Iterator[str]:
    picture, signature = expected.picture, expected.record.signature
    if not picture.exists():
        yield "the picture is not there"
    elif signature is not None and signature.is_embedded and size_bytes(picture) == signature.unsigned_bytes:
        if file_sha256(picture) != signature.unsigned_sha256:
            yield "its bytes are not those that were written"
    elif size_bytes(picture) != expected.record.bytes:
        yield f"it has {size_bytes(picture)} bytes, not the {expected.record.bytes} that were written"
    elif tree_sha256(picture) != expected.record.sha256:
        yield "its bytes are not those that were written"
    elif _has_other_own_bytes(picture, signature):
        yield "without its credentials its bytes are not those that were written"


def _has_other_own_bytes(picture: Path, signature: Signature | None) -> bool:
    """True if a picture without its embedded credentials is not the one that was written."""
    if signature is None or not signature.is_embedded:
        return False
    return signature.unsigned_sha256_of(picture) != signature.unsigned_sha256


def _picture_problems(expected: ExpectedPicture, source: _Source | None, found: _Lightness) -> Iterator[str]:
    """Problems of the picture's facts and pixels; its lightness goes into ``found``."""
    try:
        with _opened(expected) as reader:
            info = reader.info
            if info.shape_yx != expected.shape_yx or info.result_dtype != expected.dtype:
                yield f"it is {info.shape_yx} {info.result_dtype}, not {expected.shape_yx} {expected.dtype}"
            yield from _metadata_problems(info.metadata, expected)
            if source is not None and info.shape_yx == expected.shape_yx:
                yield from _compare(expected, reader, source, found)
        yield from _lost_metadata(expected, source)
        if info.shape_yx == expected.shape_yx:
            yield from level_problems(expected.format, expected.picture, expected.shape_yx, expected.record.levels)
    except ColorizeError as error:
        yield str(error)


def _opened(expected: ExpectedPicture) -> ScanReader:
    orientation = 1 if "orientation" in expected.record.not_carried else int(expected.metadata.get("orientation") or 1)
    return FORMATS[expected.format].open_back(expected.picture, orientation)


def _lost_metadata(expected: ExpectedPicture, source: _Source | None) -> Iterator[str]:
    """The scan's metadata that the picture lacks, except what the sidecar lists."""
    if FORMATS[expected.format].is_silent(expected.record.not_carried):
        return
    scan = source.embedded if source is not None and source.embedded is not None else EmbeddedMetadata()
    try:
        missing = missing_of_scan(expected.format, expected.picture, scan)
    except ColorizeError:
        raise
    except Exception as error:  # libraries have many kinds
        missing = {"metadata": f"not readable: {reason_of(error)}"}
    for what, why in missing.items():
        if what not in expected.record.not_carried:
            yield f"{what} is not kept ({why})"


def _metadata_problems(found: Mapping[str, Any], expected: ExpectedPicture) -> Iterator[str]:
    """Orientation and resolution of the picture against the scan's."""
    wanted = {name: value for name, value in expected.metadata.items() if name not in expected.record.not_carried}
    if "orientation" not in expected.record.not_carried and found.get("orientation", 1) != wanted.get("orientation", 1):
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


def _store_problems(expected: ExpectedPicture) -> Iterator[str]:
    """Problems of the shards of the samples and of the result's version, and of the files that describe them."""
    if not expected.store.is_dir():
        return  # users may delete it
    try:
        store = ScanStore.open(expected.store)
    except StoreError as error:
        yield str(error)
        return
    if store.source.sha256 != expected.source_sha256:
        yield f"{expected.store.name} is of another scan"
        return
    version = store.find_version(expected.version)
    is_kept = (expected.store / "versions" / expected.version).is_dir()
    for name, sha256 in expected.store_sha256.items():
        if name == CARRIED and _is_of_another_run(store, expected):
            continue
        if name.startswith(f"versions/{expected.version}/") and not is_kept:
            continue
        if not (expected.store / name).is_file() or file_sha256(expected.store / name) != sha256:
            yield f"{expected.store.name}/{name} is not what was written"
    for roi in _blocks(store.info.shape_yx):
        try:
            store.read_scan(roi)
            if store.info.mask:
                store.read_mask(roi)
        except StoreError as error:
            yield f"samples at rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}: {error}"
    if not store.has_whole_scan():
        yield f"files of {expected.store.name}/scan are missing"
    if version is None and is_kept:
        yield f"{expected.store.name}: the colours of version {expected.version} cannot be read any more"
    if version is not None:
        if version.records_sha256() != expected.records_sha256:
            yield f"the records of version {version.name} are not what was written"
        yield from _version_problems(store, version)


def _is_of_another_run(store: ScanStore, expected: ExpectedPicture) -> bool:
    """True if a later run changed whether the store keeps metadata."""
    try:
        return store.keeps_metadata != expected.record.carries_metadata
    except StoreError:
        return False


def _version_problems(store: ScanStore, version: ChromaVersion) -> Iterator[str]:
    rows, columns = (-(-extent // version.block_px) for extent in store.info.shape_yx)
    missing = {(y, x) for y in range(rows) for x in range(columns)} - version.finished_blocks()
    for y, x in sorted(missing):
        yield f"version {version.name}, block {y}, {x} of {version.block_px} px: missing or not what was written"


@dataclass(frozen=True)
class _Source:
    """The scan's L* and mask by window, and its metadata; None if that is no longer known."""

    lightness: Read
    mask: Read | None
    info: ScanInfo
    embedded: EmbeddedMetadata | None
    is_by_rows: bool = False


def _source(expected: ExpectedPicture, stack: contextlib.ExitStack) -> _Source | None:
    """The scan, from the store or else from the scan file if that is unchanged."""
    try:
        store = ScanStore.open(expected.store)
        mask = store.read_mask if store.info.mask else None
        return _Source(store.read_lightness, mask, store.info, _carried(store, expected))
    except StoreError:
        pass
    try:
        if not expected.source.exists() or tree_sha256(expected.source) != expected.source_sha256:
            return None
        # A world file added later does not concern this result.
        reading = ReadOptions(page=expected.page, salvage=True, world_file=expected.beside)
        reader = stack.enter_context(open_scan(expected.source, reading))
    except (ColorizeError, OSError):
        return None
    return _Source(
        lambda roi: lightness_from_samples(reader.read(roi.rows, roi.columns), reader.info.tone),
        (lambda roi: reader.read_mask(roi.rows, roi.columns)) if reader.info.mask else None,
        reader.info,
        reader.embedded if expected.record.carries_metadata else EmbeddedMetadata(),
        is_by_rows=True,
    )


def _carried(store: ScanStore, expected: ExpectedPicture) -> EmbeddedMetadata | None:
    try:
        if not expected.record.carries_metadata:
            return EmbeddedMetadata()
        return store.embedded if store.keeps_metadata else None
    except StoreError:
        return None


@dataclass
class _Lightness:
    """|dL*| so far."""

    total: float = 0.0
    pixels: int = 0
    largest: float = 0.0
    worst: tuple[int, int, int, int] | None = None

    @property
    def mean(self) -> float:
        return self.total / max(self.pixels, 1)


def _lightness_problems(expected: ExpectedPicture, found: _Lightness) -> Iterator[str]:
    # Written as "not <=" so that NaN fails too.
    if not found.largest <= expected.bound:
        yield f"lightness is not the scan's: more than {expected.bound:g} at rows, columns {found.worst}"
    if expected.mean_bound is not None and not found.mean <= expected.mean_bound:
        yield f"lightness is not the scan's: {found.mean:.2f} in the mean, more than {expected.mean_bound:g}"


def _compare(expected: ExpectedPicture, reader: ScanReader, source: _Source, found: _Lightness) -> Iterator[str]:
    """Compare lightness and mask block by block into ``found``."""
    if reader.info.mask and source.mask is None:
        yield f"it has {reader.info.mask}, the scan none"
    same_mask = True
    # Read from top to bottom what can only be decoded from top to bottom.
    is_by_rows = reader.segment_yx[1] >= expected.shape_yx[1] or source.is_by_rows
    for roi in _bands(expected.shape_yx) if is_by_rows else _blocks(expected.shape_yx):
        seen = lightness_from_samples(reader.read(roi.rows, roi.columns), reader.info.tone)
        step = np.abs(seen - source.lightness(roi))
        if source.mask is not None:
            mask = source.mask(roi)
            same_mask = same_mask and _is_same_mask(reader, roi, mask, expected)
            step[mask == 0] = 0
        _add(found, step, roi)
    if not same_mask:
        yield f"its {source.info.mask} is not the scan's"


def _is_same_mask(reader: ScanReader, roi: Roi, mask: NDArray, expected: ExpectedPicture) -> bool:
    if {"alpha", "nodata"} & set(expected.record.not_carried):
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
