"""What each format keeps of a scan: ``python -m tests.benchmarks.matrix`` prints the table of docs/formats.md.

Pictures that have everything there is to be kept are written in every format and read again; of a folder of tiles, the
tiles for the samples and the largest whole picture for what it says. A cell is "kept" where the file says the same,
"8 bit" or "part" where it says less, "upright" where samples are turned instead, and a dash where it says nothing;
whatever is not kept must have been told by the writer. The tests make the same table and compare it with that page's.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from pipeline.formats import ENDINGS, FORMATS, OutputImage, WriteReport, write_picture
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.exif import exif_block
from pipeline.metadata.merge import for_result
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.metadata.provenance import xmp_packet
from pipeline.results.compare_metadata import differences

SHAPE_YX = (600, 520)
KEPT, NOTHING, PART, LESS, TURNED = "kept", "–", "part", "8 bit", "upright"  # noqa: RUF001 - a dash in a table
ORDER = ("tiff", "cog", "omezarr", "jp2", "png", "jpeg", "iiif")


def _ascii(code: int, text: str) -> TiffTag:
    value = text.encode() + b"\0"
    return TiffTag(code, 2, len(value), value)


def _scan() -> EmbeddedMetadata:
    """All that a scan can say beside its pixels."""
    exposure = (TiffTag(33434, 5, 1, struct.pack("<II", 1, 125)), _ascii(36867, "1936:05:01 12:00:00"))
    latitude = struct.pack("<6I", 52, 1, 31, 1, 12, 10)
    gps = (_ascii(1, "N"), TiffTag(2, 5, 3, latitude), _ascii(3, "E"), TiffTag(4, 5, 3, latitude))
    utm = CRS.from_epsg(32633).to_wkt()
    return EmbeddedMetadata(
        exif=exif_block((_ascii(271, "Epson"), _ascii(272, "Perfection")), exposure, gps),
        iptc=b"\x1c\x01\x5a\x00\x03\x1b%G\x1c\x02\x19\x00\x05house",
        xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' "
        b"xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/'><rdf:Description photoshop:City='Potsdam'/></rdf:RDF>"
        b"</x:xmpmeta>",
        photoshop=b"8BIM\x04\x0b\x03url\0\0\0\x04http",
        tags=(_ascii(269, "Album 3"), _ascii(285, "page 7"), _ascii(315, "Frida Beckmann"), _ascii(33432, "PD")),
        place=Georeference(crs=utm, transform=(0.25, 0.0, 381_234.125, 0.0, -0.25, 5_820_000.0)),
    )


def _controlled() -> Georeference:
    corners = ((0.0, 0.0), (0.0, 520.0), (600.0, 0.0), (600.0, 520.0))
    points = tuple((y, x, 13 + x / 1e4, 52 - y / 1e4, 30.0) for y, x in corners)
    return Georeference(gcps=points, gcps_crs=CRS.from_epsg(4326).to_wkt())


def _rational() -> Georeference:
    names = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF")
    names += ("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE")
    terms = ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF")
    numbers = {name: f"{7.5 + n:g}" for n, name in enumerate(names)}
    return Georeference(rpcs=numbers | {name: " ".join(f"{n / 8:g}" for n in range(1, 21)) for name in terms})


def picture(
    dtype: str = "uint8", channels: int = 3, nodata: int | None = None, place: Georeference | None = None
) -> OutputImage:
    """One that has everything; ``place`` instead of coordinates and transform."""
    most = np.iinfo(dtype).max
    ramp = np.add.outer(np.arange(SHAPE_YX[0]), np.arange(SHAPE_YX[1])) / sum(SHAPE_YX)
    samples = np.stack([ramp, ramp**2, 1 - ramp, ramp > 0.5][:channels], axis=-1) * (most - 9) + 5
    samples = samples.astype(dtype)
    if nodata is not None:
        samples[100:200, 100:300] = nodata
    scan = _scan() if place is None else replace(_scan(), place=place)
    xmp = xmp_packet("colorize-archive 1, model default", "Colour added", "scan.tif, SHA-256 ab", scan.xmp)
    return OutputImage(
        shape_yx=SHAPE_YX,
        dtype=np.dtype(dtype),
        read_window=lambda rows, columns: samples[rows, columns],
        channels=channels,
        nodata=nodata,
        resolution=(300.0, 300.0, "inch"),
        orientation=6,
        software="colorize-archive 1",
        description="Colour added",
        embedded=for_result(scan, xmp, SRGB_PROFILE),
    )


@dataclass(frozen=True)
class _Seen:
    """A written picture, and what a reader finds of it; None where none opens it."""

    written: WriteReport
    told: OutputImage
    missing: dict[str, str]
    problems: frozenset[str]


def _look(name: str, made: OutputImage, path: Path) -> _Seen:
    written = write_picture(name, path, made, 2)
    problems = set()
    with FORMATS[name].open_back(path, made.orientation or 1) as reader:
        info = reader.info
        x, y, unit = info.metadata.get("resolution") or (0, 0, "none")
        per_inch = np.array([x, y]) * (2.54 if unit == "cm" else 1)
        problems |= {"resolution"} - ({"resolution"} if np.allclose(per_inch, 300, rtol=1e-4) else set())
        problems |= {"orientation"} if info.metadata.get("orientation", 1) != made.orientation else set()
        problems |= {"depth"} if info.result_dtype != made.dtype else set()
        whole = slice(0, None), slice(0, None)
        opacity = np.array(made.dtype.type(1))
        if info.mask:
            opacity = reader.read_mask(*whole)
        if made.channels == 4:
            wanted = made.read_window(slice(0, SHAPE_YX[0]), slice(0, SHAPE_YX[1]))[..., 3]
            problems |= {"alpha"} if not np.array_equal(opacity, wanted) else set()
        if made.nodata is not None:
            hole = np.zeros(SHAPE_YX, bool)
            hole[100:200, 100:300] = True
            problems |= {"nodata"} if not np.array_equal(opacity == 0, hole) else set()
        problems |= {"size"} if info.shape_yx != made.shape_yx else set()
    return _Seen(written, made, differences(made.embedded, FORMATS[name].embedded(path)), frozenset(problems))


def _cell(name: str, what: str, seen: _Seen) -> str:
    """Raises AssertionError where something is lost and the writer did not tell."""
    lost = what in seen.missing or what in seen.problems
    told = seen.written.not_carried.get(what)
    assert told is not None or not lost, f"{name}: {what} lost and not told ({seen.missing.get(what)})"
    if told is None:
        return TURNED if (name, what) == ("iiif", "orientation") else KEPT
    if what == "depth":
        return LESS
    return PART if what == "tags" and "tag" in told and any(c.isdigit() for c in told) else NOTHING


ROWS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("8 bit", "depth", {}),
    ("16 bit", "depth", {"dtype": "uint16"}),
    ("transparency", "alpha", {"channels": 4}),
    ("no-data value", "nodata", {"nodata": 0}),
    ("sRGB profile", "icc", {}),
    ("resolution", "resolution", {}),
    ("orientation", "orientation", {}),
    ("EXIF, GPS", "exif", {}),
    ("IPTC", "iptc", {}),
    ("XMP, Digital Source Type", "xmp", {}),
    ("Photoshop resources", "photoshop", {}),
    ("artist, document, page name", "tags", {}),
    ("coordinates, transform", "place", {}),
    ("ground control points", "gcps", {"place": _controlled()}),
    ("rational polynomials", "rpcs", {"place": _rational()}),
)


@cache
def cells() -> dict[tuple[str, str], str]:
    """What becomes of each row in each format, by (row, format)."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            looked: dict[str, _Seen] = {}
            for title, what, words in ROWS:
                if str(words) not in looked:
                    path = Path(folder, f"{len(looked)}{ENDINGS[name]}")
                    looked[str(words)] = _look(name, picture(**words), path)  # type: ignore[arg-type]
                found[title, name] = _cell(name, what, looked[str(words)])
            levels = len(next(iter(looked.values())).written.levels_yx)
            found["smaller copies in the file", name] = "yes" if levels > 1 else NOTHING
    return found


def table() -> str:
    """As Markdown."""
    found = cells()
    titles = list(dict.fromkeys(title for title, _ in found))
    head = f"| | {' | '.join(f'`{name}`' for name in ORDER)} |\n|---|{'---|' * len(ORDER)}"
    return "\n".join([head, *(f"| {t} | {' | '.join(found[t, name] for name in ORDER)} |" for t in titles)])


if __name__ == "__main__":
    print(table())
