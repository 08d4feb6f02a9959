"""A coloured store to a picture: lightness from the scan's own samples, chroma from the blend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.carried import Carried
from pipeline.color import lightness_from_samples, samples_from_lab
from pipeline.grid import Roi
from pipeline.process import tune_process
from pipeline.store import ChromaVersion, ScanStore
from pipeline.writers import Picture, Written, write_picture
from pipeline.writers._picture import SRGB_PROFILE

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


def picture_of(store: ScanStore, version: ChromaVersion, software: str, description: str, xmp: bytes = b"") -> Picture:
    """The scan in the colours of ``version``, to be written; ``xmp`` is the packet that it carries."""
    metadata = store.info.metadata
    resolution = metadata.get("resolution")

    def read_window(rows: slice, columns: slice) -> NDArray:
        return compose(store, version, Roi(rows.start, rows.stop, columns.start, columns.stop))

    return Picture(
        shape_yx=store.info.shape_yx,
        dtype=store.info.result_dtype,
        read_window=read_window,
        resolution=tuple(resolution) if resolution else None,
        orientation=metadata.get("orientation"),
        software=software,
        description=description,
        carried=Carried(icc=SRGB_PROFILE, xmp=xmp),
    )


def export_picture(name: str, path: Path, picture: Picture, threads: int) -> Written:
    """Write ``path`` in the format ``name``; ``threads`` compose and encode, the bytes written do not depend on it.

    Raises OutputError, StoreError, UsageError.
    """
    tune_process()
    return write_picture(name, path, picture, threads)
