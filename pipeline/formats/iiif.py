"""A static IIIF Image API 3.0 service, level 0: a folder of JPEG tiles that any web server can serve as it is.

``id`` in ``info.json`` must be the address where the folder is served, which is not known yet: it is set to the name of
the folder, to be replaced by the full address. Everything else is relative to it.

Beside the tiles there are whole pictures of every size up to 2048 pixels, listed as ``sizes``; ``full/max`` is the
largest of them, given by ``maxWidth`` and ``maxHeight``.

The service cannot express an orientation, so everything is upright. Every tile has the profile of its samples; the
whole pictures have all metadata of a JPEG. The XMP packet, which says that an algorithm added the colour, is also a
separate file, which ``seeAlso`` names with the description.

References
----------
IIIF Image API 3.0 (https://iiif.io/api/image/3.0/), 4.2, 5 (5.8 for ``seeAlso``) and appendix A; "Compliance", level 0.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyvips
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.formats._format import Format, Tolerance
from pipeline.formats._iiif_reader import LARGEST, Tiles
from pipeline.formats._orientation import upright
from pipeline.formats._staging import folder_beside, left_out, place_folder
from pipeline.formats._vips import image_of, jpeg_overview, reopened
from pipeline.formats.jpeg import copy_with, segments
from pipeline.formats.levels import Levels, WindowLevels
from pipeline.formats.picture import OutputImage, WriteReport
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.support.files import read_text
from pipeline.types import ReadOptions, ScanReader

QUALITY = 90
LIMIT_SIDE_PX = 100_000_000  # libvips's limit (VIPS_MAX_COORD)

_TILE_PX = 512
_LARGEST_PX = 2048
_NO_PLACE = ("resolution", "place", "gcps", "rpcs")
_NOTHING_HAS_PLACE = "IIIF has no place for it"  # the reason for XMP in sidecars of a release that wrote bare tiles
_SUFFIX = f".jpg[Q={QUALITY},keep=icc]"
_PACKET = "metadata.xmp"


class Iiif(Format):
    """A folder of tiles, upright."""

    ENDING = ENDINGS["iiif"]
    OVERVIEW_COST = 3
    # About twice the measured 11.5 and 1.33, on photographs, noise, grain and halftone in saturated colours.
    TOLERANCE = Tolerance(largest=24.0, mean=2.5)
    HELD_BYTES = 96 * 2**20  # libvips's buffers

    def check(self, shape_yx: tuple[int, int], dtype: np.dtype) -> None:
        """Raises UsageError for a picture that is too large for this format."""
        height, width = shape_yx
        if max(shape_yx) > LIMIT_SIDE_PX:
            raise UsageError(
                f"{width} x {height} pixels, tiles are cut of pictures up to {LIMIT_SIDE_PX} a side; write tiff or cog"
            )

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write the folder ``path``, which appears only when it is complete.

        Raises
        ------
        UsageError : a side is longer than libvips accepts.
        OutputError : it cannot be written: disk full, permissions. Errors of ``picture.read_window`` pass unchanged.
        """
        self.check(picture.shape_yx, picture.dtype)
        picture = upright(picture)
        parts, lost = segments(replace(picture, resolution=None))  # smaller copies have another one
        with folder_beside(path) as folder:
            # libvips interprets "%" and other characters in a name; the tiles do not contain the name.
            made = folder / "made"
            with image_of(picture, folder, threads, depth="uint8", channels=3) as image:
                image = _with_profile(image, picture.embedded.icc)
                image.dzsave(str(made), layout="iiif3", suffix=_SUFFIX, tile_size=_TILE_PX, overlap=0, keep="icc")
            info = json.loads((made / "info.json").read_text())
            levels_yx = _levels_yx(picture.shape_yx, info["tiles"][0]["scaleFactors"])
            sizes_yx = [level for level in levels_yx if max(level) <= _LARGEST_PX]
            with reopened(folder) as image:
                _write_whole(image, made, sizes_yx, parts)
            name = f"{picture.name}{self.ENDING}" if picture.name else path.name
            info = _info(info, name, picture.shape_yx, sizes_yx)
            if picture.embedded.xmp:
                (made / _PACKET).write_bytes(picture.embedded.xmp)
                info["seeAlso"] = [_packet_link(info["id"], picture.description)]
            (made / "info.json").write_text(json.dumps(info, indent=2) + "\n")
            no_place = dict.fromkeys(_NO_PLACE, "IIIF has no place for it") | {
                "depth": "its tiles are JPEG, which has 8 bit",
                "alpha": "its tiles are JPEG, which has none; the colours are there as if they were opaque",
                "nodata": "its tiles are JPEG, which does not keep samples exactly",
            }
            return WriteReport(levels_yx, place_folder(made, path), lost | left_out(picture, no_place))

    def levels(self, path: Path, shape_yx: tuple[int, int]) -> Sequence[tuple[int, int]]:
        """Levels by info.json. Raises ValueError if one of their files is missing."""
        with Tiles(path) as tiles:
            missing = [str(each) for each in tiles.missing()]
            if missing:
                raise ValueError(f"{len(missing)} of its pictures are missing or of another size, such as {missing[0]}")
            return _levels_yx(tiles.shape_yx, tiles.factors)

    def overview(self, path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
        sizes: list[dict[str, Any]] = json.loads(read_text(path / "info.json"))["sizes"]
        large_enough = [size for size in sizes if max(size["width"], size["height"]) >= side_px]
        size = large_enough[0] if large_enough else sizes[-1]
        height, width = int(size["height"]), int(size["width"])
        return jpeg_overview(path / "full" / f"{width},{height}" / "0" / "default.jpg", (height, width), side_px)

    @property
    def is_upright(self) -> bool:
        return True

    def open_levels(self, path: Path, shape_yx: tuple[int, int]) -> Levels:
        tiles = Tiles(path)
        levels = _levels_yx(tiles.shape_yx, tiles.factors)

        def read(level: int, rows: slice, columns: slice) -> NDArray:
            return tiles.read_reduced(tiles.factors[level], rows, columns)

        return WindowLevels(levels, read, tiles.close)

    def open_back(self, path: Path, orientation: int) -> ScanReader:
        return Tiles(path, orientation)

    def embedded(self, path: Path) -> EmbeddedMetadata:
        """Embedded metadata of the largest whole picture."""
        with open_scan(path / LARGEST, ReadOptions(world_file="")) as reader:
            return reader.embedded

    def is_silent(self, not_carried: Mapping[str, str]) -> bool:
        return not_carried.get("xmp") == _NOTHING_HAS_PLACE


FORMAT: Format = Iiif()


def _levels_yx(shape_yx: tuple[int, int], factors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((-(-shape_yx[0] // factor), -(-shape_yx[1] // factor)) for factor in factors)


def _with_profile(image: pyvips.Image, icc: bytes) -> pyvips.Image:
    image = image.copy()
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image


def _write_whole(
    image: pyvips.Image, made: Path, sizes_yx: list[tuple[int, int]], parts: list[tuple[int, bytes]]
) -> None:
    """Write the whole picture in each size, largest first, and the largest as "max"; with ``parts`` in front."""
    for height, width in sizes_yx:
        if (height, width) != (image.height, image.width):
            image = image.thumbnail_image(width, height=height, size="force")
        image = image.copy_memory()
        target = made / "full" / f"{width},{height}" / "0" / "default.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        coded = BytesIO(image.jpegsave_buffer(Q=QUALITY, keep="none"))
        with target.open("wb") as file:
            copy_with(parts, coded, file)
        if (height, width) == sizes_yx[0]:
            largest = made / "full" / "max" / "0" / "default.jpg"
            largest.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, largest)


def _info(
    info: dict[str, Any], name: str, shape_yx: tuple[int, int], sizes_yx: list[tuple[int, int]]
) -> dict[str, Any]:
    info["id"] = quote(os.fsencode(name))
    info["sizes"] = [{"width": width, "height": height} for height, width in reversed(sizes_yx)]
    if sizes_yx[0] != shape_yx:
        # maxWidth limits the height too, unless maxHeight is given (5.2).
        info["maxWidth"] = max(sizes_yx[0])
    return info


def _packet_link(service: str, description: str) -> dict[str, Any]:
    label = description.encode("utf-8", "backslashreplace").decode()
    return {
        "id": f"{service}/{_PACKET}",
        "type": "Dataset",
        "label": {"none": [label]},
        "format": "application/rdf+xml",
        "profile": "http://ns.adobe.com/xap/1.0/",
    }
