"""JPEG XL, AVIF, JPEG-LS, and BMP with a long header, decoded by imagecodecs: at once, on opening.

Their decoders handle only whole pictures. A picture that takes more than `WHOLE_LIMIT_BYTES`, by its header
(`_codec_headers`), is refused. HEIF is missing because imagecodecs ships no decoder for it.

References
----------
libjxl, libavif, CharLS and imcd, as imagecodecs calls them; the formats' specifications are in `_codec_headers`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import Samples, check_size, reason, refuse_drive_errors
from pipeline.readers._codec_headers import Whole, avif, bmp, is_jpeg_ls, jpeg_ls, jpeg_xl
from pipeline.readers._conversion import stretched
from pipeline.readers._lightness import Light, Stretch, by_gamma, by_profile
from pipeline.readers._region_reader import SegmentedReader, Source
from pipeline.types import ReadOptions

# A run opens many scans at once before it begins; pictures that opening decodes are decoded one at a time.
_DECODING = threading.Lock()
WHOLE_LIMIT_BYTES = 2**29  # for a picture, which is held in memory as a whole


@dataclass(frozen=True)
class _Format:
    name: str
    compression: str
    declared: Callable[[BinaryIO], Whole]
    decode: Callable[[bytes], Any]


_JPEG_XL = _Format(
    "JPEG XL", "jpegxl", jpeg_xl, lambda data: imagecodecs.jpegxl_decode(data, index=0, keeporientation=True)
)
_AVIF = _Format("AVIF", "avif", avif, lambda data: imagecodecs.avif_decode(data, index=0))
_JPEG_LS = _Format("JPEG-LS", "jpegls", jpeg_ls, imagecodecs.jpegls_decode)
_BMP = _Format("BMP", "none", bmp, imagecodecs.bmp_decode)


def _format_of(head: bytes) -> _Format | None:
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return _JPEG_XL
    if head[4:8] == b"ftyp" and b"avif" in (head[8:12], *(head[at : at + 4] for at in range(16, 32, 4))):
        return _AVIF
    if head[:2] == b"BM" and head[15:18] == b"\0\0\0" and head[14] > 40:
        return _BMP
    return _JPEG_LS if is_jpeg_ls(head) else None


def recognizes(head: bytes) -> bool:
    return _format_of(head) is not None


def open_reader(path: Path, reading: ReadOptions) -> SegmentedReader:
    """Decode the file. Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    try:
        with path.open("rb") as file:
            known = _format_of(file.read(128))
            assert known is not None
            whole = known.declared(file)
            check_size(whole.shape_yx, reading.limit_pixels)
            height, width = whole.shape_yx
            whole_bytes = max(height * width * whole.pixel_bytes, file.seek(0, 2))
            if whole_bytes > WHOLE_LIMIT_BYTES:
                raise ScanUnsupportedError(
                    f"a {known.name} of {width} x {height} pixels, which must be decoded at once: {whole_bytes} bytes, "
                    f"above the limit of {WHOLE_LIMIT_BYTES} for that; convert it to TIFF"
                )
            file.seek(0)
            data = file.read() + whole.ending
    except OSError as error:
        refuse_drive_errors(error)
        raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
    try:
        with _DECODING:
            stored = np.asarray(known.decode(data))
        source = _source_of(stored if stored.ndim == 3 else stored[:, :, None], known, whole)
        # The decoder's input and buffers, beside the picture itself.
        source = replace(source, decoder_bytes=2 * max(stored.nbytes, len(data)))
    except ScanError:
        raise
    except Exception as error:
        refuse_drive_errors(error)
        raise ScanDamagedError(f"damaged {known.name} ({reason(error)}); restore it from its source") from error
    return SegmentedReader(path, reading, source)


def _source_of(stored: NDArray, known: _Format, whole: Whole) -> Source:
    if stored.shape[:2] != whole.shape_yx or not 1 <= stored.shape[2] <= 4:
        raise ScanDamagedError(
            f"damaged {known.name}: header and decoder disagree on its size; restore it from its source"
        )
    colour = 3 if stored.shape[2] >= 3 else 1
    with_alpha = stored.shape[2] > colour
    top = 2**whole.bits - 1 if stored.dtype.kind == "u" and whole.bits not in (8, 16) else 0
    stretch = Stretch.of(stored.dtype.name, top, lambda: [stored[:, :, :colour]])
    dtype = stretch.dtype if stretch else stored.dtype.name
    light = _light(whole, colour, dtype)

    def opacity(taken: NDArray) -> Samples:
        if not stretch:
            return taken[:, :, -1]
        return Stretch(0, top or 1, dtype).convert(taken[:, :, -1])

    made = replace(stretched(colour, dtype, light, stretch), opacity=opacity if with_alpha else None)
    return Source(
        info=made.info(stored.shape[:2], _metadata_of(known, whole), whole.blocks.dropped),
        embedded=whole.blocks.embedded(),
        segment_yx=stored.shape[:2],
        decode=lambda rows, columns: stored[rows.start : rows.stop, columns.start : columns.stop],
        close=lambda: None,
        convert=made.convert,
        opacity=made.opacity,
    )


def _light(whole: Whole, colour: int, dtype: str) -> Light:
    if "icc" in whole.blocks.parts:
        return by_profile(whole.blocks.parts["icc"], colour, dtype)
    return Light() if whole.gamma is None else by_gamma(whole.gamma, dtype)


def _metadata_of(known: _Format, whole: Whole) -> dict[str, Any]:
    metadata: dict[str, Any] = {"format": known.name, "compression": known.compression}
    metadata |= whole.blocks.metadata(whole.resolution)
    if whole.orientation != 1 or (known is _JPEG_XL and "orientation" in metadata):
        metadata["orientation"] = whole.orientation  # the format's own, which takes precedence over Exif's
    return metadata
