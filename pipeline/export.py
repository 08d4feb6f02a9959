"""From a coloured store to a picture: lightness from the scan's own samples, chroma from the blend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples, samples_from_lab
from pipeline.formats import OutputImage, WriteReport, write_picture
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.malloc import tune_process
from pipeline.support.row_bands import row_strips
from pipeline.types import Roi


def render_rgb(store: ScanStore, version: ChromaVersion, roi: Roi) -> NDArray:
    """(h, w, 3) RGB of ``roi`` at the scan's own bit depth; (h, w, 4) if the scan has an alpha channel.

    Pixels without a picture (nodata, full transparency) and unreadable parts of the scan are not coloured.
    """
    info = store.info
    scan, colours = store.read_scan(roi), version.window(roi)
    mask = store.read_mask(roi) if info.mask else None
    uncoloured = store.uncoloured(roi, mask)
    samples = np.empty((*roi.shape_yx, 4 if info.mask == "alpha" else 3), info.result_dtype)
    for rows in row_strips(roi.shape_yx):
        lightness, bare = lightness_from_samples(scan[rows], info.tone), None
        if uncoloured is not None:
            bare = uncoloured[rows]
        chroma = colours(rows, lightness, bare)
        if bare is not None:
            chroma[:, bare] = 0
        samples[rows, :, :3] = samples_from_lab(lightness, chroma, info.result_dtype)
    if info.mask == "alpha":
        samples[..., 3] = mask
    elif info.nodata is not None and mask is not None:
        samples[samples == info.nodata] = _beside(info.nodata, info.result_dtype)
        samples[mask == 0] = info.nodata
    return samples


def _beside(nodata: int, dtype: np.dtype) -> int:
    """The level that replaces ``nodata`` in a channel of a coloured pixel, which would otherwise become a hole."""
    return nodata + 1 if nodata < np.iinfo(dtype).max else nodata - 1


def output_image(
    store: ScanStore, version: ChromaVersion, software: str, description: str, embedded: EmbeddedMetadata | None = None
) -> OutputImage:
    """The scan in the colours of ``version``, ready to write, with its metadata: at least an sRGB profile."""
    metadata = store.info.metadata
    resolution = metadata.get("resolution")

    def read_window(rows: slice, columns: slice) -> NDArray:
        return render_rgb(store, version, Roi(rows.start, rows.stop, columns.start, columns.stop))

    return OutputImage(
        shape_yx=store.info.shape_yx,
        dtype=store.info.result_dtype,
        read_window=read_window,
        channels=4 if store.info.mask == "alpha" else 3,
        nodata=store.info.nodata if store.info.mask == "nodata" else None,
        resolution=tuple(resolution) if resolution else None,
        orientation=metadata.get("orientation"),
        software=software,
        description=description,
        embedded=embedded or EmbeddedMetadata(icc=SRGB_PROFILE),
    )


def export_picture(name: str, path: Path, picture: OutputImage, threads: int) -> WriteReport:
    """Write ``path`` in the format ``name``. ``threads`` threads compose and encode; the bytes do not depend on it.

    Raises OutputError, StoreError, UsageError.
    """
    tune_process()
    return write_picture(name, path, picture, threads)
