"""A scan and its colours as pictures to write, both of one size, from the store or else from the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.sharing.outgoing import Outgoing
from pipeline.colour.lab import lightness_from_samples, samples_from_lab
from pipeline.errors import ColorizeError, StoreError
from pipeline.export import render_rgb
from pipeline.formats import FORMATS, OutputImage
from pipeline.readers import open_scan
from pipeline.store import ScanStore
from pipeline.types import ReadOptions, Roi, ScanInfo, Tone

Read = Callable[[slice, slice], NDArray]


@dataclass(frozen=True)
class Renderings:
    """The two pictures, as stored: what writes them turns them upright. Both have 3 channels."""

    scan: OutputImage
    colours: OutputImage


@contextmanager
def renderings(result: Outgoing) -> Iterator[Renderings]:
    """The pictures of a result, for as long as the context is open.

    Raises
    ------
    StoreError : neither the store nor the files have what the sidecar describes any more
    """
    source, made = result.source, result.result.version
    orientation = source.metadata.get("orientation")
    with ExitStack() as stack:
        store = _store(result)
        version = store.find_version(made) if store is not None else None
        if store is not None and version is not None and version.is_complete:
            info = store.info

            def read_colours(rows: slice, columns: slice) -> NDArray:
                return render_rgb(store, version, Roi(rows.start, rows.stop, columns.start, columns.stop))[..., :3]

            colours: Read = read_colours
            dtype = info.result_dtype
        else:
            colours, dtype = _colours_of_file(result, stack)
        if store is not None and store.has_whole_scan():
            scan, scan_dtype = _shown(_of_store(store), store.info)
        else:
            reader = stack.enter_context(_scan_file(result))
            scan, scan_dtype = _shown(reader.read, reader.info)
        yield Renderings(
            scan=OutputImage(source.shape_yx, scan_dtype, scan, orientation=orientation),
            colours=OutputImage(source.shape_yx, dtype, colours, orientation=orientation),
        )


def _store(result: Outgoing) -> ScanStore | None:
    """The store, if it is of the same scan."""
    try:
        store = ScanStore.open(result.store_path)
    except StoreError:
        return None
    same = result.sidecar.is_of(store.source.sha256) and store.info.shape_yx == result.source.shape_yx
    return store if same else None


def _of_store(store: ScanStore) -> Read:
    return lambda rows, columns: store.read_scan(Roi(rows.start, rows.stop, columns.start, columns.stop))


def _colours_of_file(result: Outgoing, stack: ExitStack) -> tuple[Read, np.dtype]:
    """Reads the picture that is the most exact, of those that are there."""
    pictures = result.pictures
    if not pictures:
        raise StoreError(f"{result.stem}: neither its colours nor a picture of them is there; run it again")
    name = min(pictures, key=lambda each: (FORMATS[each].TOLERANCE is not None, each != "tiff"))
    path, record = pictures[name]
    orientation = 1 if "orientation" in record.not_carried else int(result.source.metadata.get("orientation") or 1)
    reader = stack.enter_context(FORMATS[name].open_back(path, orientation))
    if reader.info.shape_yx != result.source.shape_yx:
        raise StoreError(f"{path}: {reader.info.shape_yx}, not {result.source.shape_yx} as the scan; run it again")
    return _shown(reader.read, reader.info)


def _scan_file(result: Outgoing):  # type: ignore[no-untyped-def]
    """The scan file, if it is the one that was coloured, by its size."""
    path = Path(result.source.path)
    try:
        if path.is_file() and path.stat().st_size != result.source.bytes:
            raise StoreError(f"{path}: has changed since it was coloured; run it again")
        return open_scan(path, ReadOptions(page=result.source.page, salvage=bool(result.source.holes)))
    except StoreError:
        raise
    except (ColorizeError, OSError) as error:
        raise StoreError(f"{result.stem}: neither its store nor its scan is there any more ({error})") from error


def _shown(read: Read, info: ScanInfo) -> tuple[Read, np.dtype]:
    """Windows of 3 channels in sRGB, whatever the samples are."""
    tone: Tone = info.tone

    def window(rows: slice, columns: slice) -> NDArray:
        samples = read(rows, columns)
        if tone == "lightness":
            lightness = lightness_from_samples(samples, tone)
            samples = samples_from_lab(lightness, np.zeros((2, *lightness.shape), np.float32), info.result_dtype)
        if samples.ndim == 2:
            samples = np.repeat(samples[..., None], 3, axis=2)
        return np.asarray(samples[..., :3])

    return window, info.result_dtype if tone == "lightness" else np.dtype(info.dtype)
