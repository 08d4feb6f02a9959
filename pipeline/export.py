"""A coloured store to a picture: lightness from the scan's own samples, chroma from the blend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.color import lightness_from_samples, samples_from_lab
from pipeline.grid import Roi
from pipeline.process import tune_process
from pipeline.store import ChromaVersion, ScanStore
from pipeline.writers.tiff import PyramidSummary, TiffMetadata, write_pyramid

# Pixels composed at once: their float32 planes stay in the cache, and their memory is used again for the next ones.
_STRIP_PX = 65_536
_HALF_BITS = np.uint32(0x8FFF_E000).view(np.int32)


def compose(store: ScanStore, version: ChromaVersion, roi: Roi) -> NDArray:
    """(h, w, 3) RGB of ``roi`` at the scan's own bit depth."""
    scan, stored_chroma = store.read_scan(roi), version.read(roi)
    scale = version.scale_factor
    samples = np.empty((*roi.shape_yx, 3), scan.dtype)
    step = max(1, _STRIP_PX // max(1, roi.shape_yx[1]))
    for start in range(0, roi.shape_yx[0], step):
        rows = slice(start, start + step)
        chroma = chroma_from_half(stored_chroma[:, rows], scale)
        samples[rows] = samples_from_lab(lightness_from_samples(scan[rows]), chroma, scan.dtype)
    return samples


def chroma_from_half(half: NDArray[np.float16], scale: float) -> NDArray[np.float32]:
    """``half`` times ``scale`` in float32; any shape, finite values.

    NumPy turns half into single precision in software, at 3.0 ns for a pixel's a* and b*; this takes 0.4. Sign,
    exponent and fraction are shifted to where single precision has them; a multiplication then mends the exponent,
    whose zero lies 112 powers of two higher there, and brings subnormal halves to where they belong.
    """
    bits = np.ascontiguousarray(half).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _HALF_BITS  # shifted along by the widening, the sign is in the three bits below its place, too
    single = bits.view(np.float32)
    single *= np.float32(2.0**112 * scale)
    return single


def export_tiff(
    store: ScanStore,
    version: ChromaVersion,
    path: Path,
    software: str,
    description: str,
    threads: int,
    xmp: bytes = b"",
) -> PyramidSummary:
    """Write ``path``: a tiled, pyramidal, compressed TIFF of the scan in the colours of ``version``.

    ``xmp`` is the packet that it carries. ``threads`` compose and encode segments of about a megapixel; the bytes
    written do not depend on it. Raises OutputError, StoreError.
    """
    tune_process()
    metadata = store.info.metadata
    resolution = metadata.get("resolution")
    tiff = TiffMetadata(
        software=software,
        description=description,
        resolution=tuple(resolution) if resolution else None,
        orientation=metadata.get("orientation"),
        xmp=xmp,
    )

    def read_window(rows: slice, columns: slice) -> NDArray:
        return compose(store, version, Roi(rows.start, rows.stop, columns.start, columns.stop))

    dtype = np.dtype(store.info.dtype)
    return write_pyramid(path, store.info.shape_yx, dtype, read_window, metadata=tiff, threads=threads)
