"""A coloured store to a picture: lightness from the scan's own samples, chroma from the blend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.color import lightness_from_samples, samples_from_lab
from pipeline.grid import Roi
from pipeline.store import ScanStore
from pipeline.writers.tiff import PyramidSummary, TiffMetadata, write_pyramid


def compose(store: ScanStore, roi: Roi) -> NDArray:
    """(h, w, 3) RGB of ``roi`` at the scan's own bit depth."""
    lightness = lightness_from_samples(store.read_scan(roi))
    chroma = store.read_chroma(roi).astype(np.float32)
    chroma *= np.float32(store.chroma_scale)
    return samples_from_lab(lightness, chroma, np.dtype(store.info.dtype))


def export_tiff(store: ScanStore, path: Path, software: str, description: str, threads: int) -> PyramidSummary:
    """Write ``path``: a tiled, pyramidal, compressed TIFF of the coloured scan. Raises OutputError."""
    metadata = store.info.metadata
    resolution = metadata.get("resolution")
    tiff = TiffMetadata(
        software=software,
        description=description,
        resolution=tuple(resolution) if resolution else None,
        orientation=metadata.get("orientation"),
    )
    width = store.info.shape_yx[1]

    def read_band(rows: slice) -> NDArray:
        return compose(store, Roi(rows.start, rows.stop, 0, width))

    dtype = np.dtype(store.info.dtype)
    return write_pyramid(path, store.info.shape_yx, dtype, read_band, metadata=tiff, threads=threads)
