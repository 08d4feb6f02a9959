"""Which channels of a TIFF directory make the picture, decided from its tags alone.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 3-8, 16 (CMYK), 18 (ExtraSamples), 21-23; Adobe Photoshop TIFF Technical
Notes (ICCLab); TIFF/FX (RFC 3949; ITULab).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import tifffile

from pipeline.errors import ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import REWRITE, Samples, palette_table
from pipeline.readers._tiff.gdal import is_for_gdal
from pipeline.readers._tiff.layout import JPEG_COMPRESSIONS

Model = Literal["gray", "rgb", "palette", "cmyk", "lab"]

WHITE_IS_ZERO, BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, CIELAB, ICCLAB, ITULAB = 0, 1, 2, 3, 5, 6, 8, 9, 10
_MODELS: dict[int, Model] = {
    WHITE_IS_ZERO: "gray",
    BLACK_IS_ZERO: "gray",
    _RGB: "rgb",
    _PALETTE: "palette",
    _CMYK: "cmyk",
    _YCBCR: "rgb",
    CIELAB: "lab",
    ICCLAB: "lab",
    ITULAB: "lab",
}
_WIDTHS: dict[Model, int] = {"gray": 1, "rgb": 3, "palette": 1, "cmyk": 4, "lab": 3}
_REFUSED = {
    4: "a transparency mask",
    32803: "a colour filter array (camera raw)",
    32844: "LogL, light without an upper bound",
    32845: "LogLuv, light without an upper bound",
    34892: "linear raw",
}
_FORMATS = {1: "unsigned integer", 2: "signed integer", 3: "floating point", 5: "complex integer", 6: "complex"}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_FAX = frozenset((2, 3, 4, 32771))


@dataclass(frozen=True)
class Kind:
    """The meaning of the channels.

    Attributes
    ----------
    model : the colour model
    channels : indices of the channels that are read for the picture; for "lab" only L*
    inverted : 0 is white
    alpha : index of the opacity channel
    associated : the colours are premultiplied with opacity
    dropped : what is left out
    note : one line on assumptions made; empty if there are none
    """

    model: Model
    channels: tuple[int, ...]
    inverted: bool = False
    alpha: int | None = None
    associated: bool = False
    dropped: tuple[str, ...] = ()
    note: str = ""


def kind_of(page: tifffile.TiffPage) -> Kind:
    """The kind of a directory. Raises ScanUnsupportedError or ScanUnreadableError if no picture of a handled kind."""
    photometric = photometric_of(page)
    _check(page, photometric)
    model, samples = _MODELS[photometric], int(page.samplesperpixel)
    marked = _extra_samples(page)
    if model == "gray" and photometric == BLACK_IS_ZERO and samples >= 3 and not _is_gray_first(marked, samples):
        model = "rgb"  # rasters of three or four bands are often marked "black is zero" for lack of a better value
        if samples > 4:
            _refuse(f"{samples} channels")
    width = 1 if model == "lab" and samples == 1 else _WIDTHS[model]  # L* alone (TIFF 6.0, section 23)
    if samples < width:
        raise ScanUnreadableError(f"declares colour with {samples} channels, of {width}; restore it from its source")
    extras = range(width, samples)
    marked = marked[len(marked) - len(extras) :] if len(marked) > len(extras) else marked
    alphas = [
        channel
        for channel, mark in zip(extras, marked, strict=False)
        if mark in (_ASSOCIATED, _UNASSOCIATED) and not _is_other_to_gdal(page, channel)
    ]
    alpha = alphas[0] if alphas else None
    left = len(extras) - (alpha is not None)
    return Kind(
        model=model,
        channels=(0,) if model == "lab" else tuple(range(width)),
        inverted=photometric == WHITE_IS_ZERO or (model == "cmyk" and _is_paper_full(page)),
        alpha=alpha,
        associated=alpha is not None and marked[alpha - width] == _ASSOCIATED,
        dropped=(f"{left} extra channel{'s' if left > 1 else ''}",) if left else (),
        note="0 is white, as in fax, for it does not say which is" if _is_undeclared_fax(page) else "",
    )


def photometric_of(page: tifffile.TiffPage) -> int:
    if _is_undeclared_fax(page):
        return WHITE_IS_ZERO
    if 262 not in page.tags and page.compression != 6:
        return _RGB if page.samplesperpixel >= 3 else BLACK_IS_ZERO
    return int(page.photometric)


def _is_undeclared_fax(page: tifffile.TiffPage) -> bool:
    """True if a fax does not declare which value is white; libtiff takes 0, as fax machines do."""
    return 262 not in page.tags and page.compression in _FAX and page.samplesperpixel == 1


def palette_of(page: tifffile.TiffPage) -> Samples:
    """The palette, (n, 3) or, if gray, (n,): uint8 for indices of up to 8 bits, else uint16."""
    entries = 2**page.bitspersample
    colormap = page.tags.valueof(320)
    if colormap is None or np.size(colormap) < 3 * entries:
        raise ScanUnreadableError(f"palette picture without its {entries} colours; restore it from its source")
    table = np.asarray(colormap, dtype=np.uint16).reshape(-1)[: 3 * entries].reshape(3, entries).T
    if page.bitspersample <= 8:
        # Some writers fill the 16-bit map with 8-bit values; libtiff's tools make the same exception.
        table = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    return palette_table(table)


def _refuse(what: str) -> NoReturn:
    raise ScanUnsupportedError(f"{what}, which is not handled; {REWRITE}")


def _check(page: tifffile.TiffPage, photometric: int) -> None:
    bits, samples = page.bitspersample, int(page.samplesperpixel)
    if photometric in _REFUSED:
        _refuse(f"holds {_REFUSED[photometric]}")
    if page.imagedepth != 1:
        _refuse(f"a volume of {page.imagedepth} planes")
    if not isinstance(bits, int):
        _refuse(f"samples of unequal depth ({', '.join(map(str, bits))} bits)")
    if samples < 1 or bits < 1:
        raise ScanUnreadableError(f"declares {samples} channels of {bits} bits; restore it from its source")
    if photometric not in _MODELS:
        _refuse(f"photometric interpretation {photometric}")
    if page.sampleformat not in (1, 2, 3, 4) or page.dtype is None or np.dtype(page.dtype).kind not in "buif":
        _refuse(f"{_FORMATS.get(page.sampleformat, 'untyped')} samples of {bits} bits")
    model = _MODELS[photometric]
    integers = page.sampleformat in (1, 4)
    if (model == "palette" and not (integers and bits <= 16)) or (
        model == "lab" and not (integers and bits in (8, 16))
    ):
        _refuse(f"{model} with {_FORMATS.get(page.sampleformat, 'untyped')} samples of {bits} bits")
    if photometric == _YCBCR and page.compression not in JPEG_COMPRESSIONS and not is_for_gdal(page):
        _refuse(f"YCbCr of {bits} bits without JPEG compression")
    if model == "cmyk" and (page.tags.valueof(332, default=1) != 1 or page.tags.valueof(334, default=4) != 4):
        _refuse("inks other than CMYK")
    if samples > 4 and model not in ("rgb", "cmyk", "gray"):
        _refuse(f"{samples} channels")


def _extra_samples(page: tifffile.TiffPage) -> tuple[int, ...]:
    marked = page.tags.valueof(338, default=())
    return tuple(int(mark) for mark in (marked if isinstance(marked, tuple) else (marked,)))


def _is_other_to_gdal(page: tifffile.TiffPage, channel: int) -> bool:
    """True if GDAL's own tag says that a channel is not opacity; GDAL marks any fourth band of RGB as alpha."""
    said = re.search(
        rf'<Item name="COLORINTERP" sample="{channel}"[^>]*>(\w+)</Item>', str(page.tags.valueof(42112, default=""))
    )
    return said is not None and said[1].lower() != "alpha"


def _is_gray_first(marked: tuple[int, ...], samples: int) -> bool:
    """True if all channels but the first are declared extra, and the second is opacity."""
    return len(marked) == samples - 1 and marked[0] in (_ASSOCIATED, _UNASSOCIATED)


def _is_paper_full(page: tifffile.TiffPage) -> bool:
    """True if DotRange says that full scale means no ink."""
    dots = page.tags.valueof(336)
    return isinstance(dots, tuple) and len(dots) >= 2 and dots[0] > dots[1]
