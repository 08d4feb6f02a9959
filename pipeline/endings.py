"""What files are called: the names and endings of formats, and the endings of scans.

They are known without importing what reads and writes the files, because a command checks values and searches folders
with them before anything is to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FORMATS: Mapping[str, str] = {
    "cog": ".color.cog.tif",
    "iiif": ".color.iiif",
    "jp2": ".color.jp2",
    "jpeg": ".color.jpg",
    "omezarr": ".color.ome.zarr",
    "png": ".color.png",
    "tiff": ".color.tif",
}
"""The ending after NAME of each format's pictures; a key is the module of :mod:`pipeline.formats` that writes them."""
FOLDER_FORMATS = ("iiif", "omezarr")
"""Formats whose pictures are folders."""
# The last suffix, such as ".zarr", by which a search through folders recognizes them.
FORMAT_FOLDERS = tuple(Path(FORMATS[name]).suffix for name in FOLDER_FORMATS)
PART = ".part"
"""What a picture's name ends in while it is being written."""
UNFINISHED = tuple(f"{ending}{PART}" for ending in FORMATS.values())

SCANS_OF_READERS: Mapping[str, tuple[str, ...]] = {
    "bitmap": (".pbm",),
    "codec": (".avif", ".jls", ".jxl"),
    "image": (".jpeg", ".jpg", ".png"),
    "pcx": (".pcx",),
    "raster": (
        *(".bmp", ".gif", ".img", ".nitf", ".ntf", ".pgm", ".pnm", ".ppm", ".sgi", ".webp"),
        *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    ),
    "tiff": (".tif", ".tiff"),
}
"""Lower-case file endings that a search through folders takes, by the module of :mod:`pipeline.readers` that opens such
files; opening itself ignores the ending."""
SCANS = tuple(sorted(ending for endings in SCANS_OF_READERS.values() for ending in endings))
SCAN_FOLDERS = (".zarr",)
"""Endings of folders that may be scans themselves."""


def world_endings(ending: str) -> list[str]:
    """Endings of possible world files beside a file of this ``ending``: tif has tfw, tifw and wld, jpg jpw too.

    >>> world_endings(".tif")
    ['.tfw', '.tifw', '.wld']
    """
    name = ending[1:].lower()
    found = [f"{name[0]}{name[-1]}w", f"{name}w"] if len(name) > 1 else []
    found += ["jpw"] if name.startswith("j") else []
    return [f".{each}" for each in (*found, "wld")]


# Files with these endings are not scans; they are read together with the scan beside them.
WORLDS = frozenset(each for ending in SCANS for each in world_endings(ending))
