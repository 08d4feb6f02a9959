"""Whether a written picture has the smaller copies that it is said to have, each half of the one above.

References
----------
OME-NGFF 0.5; ISO/IEC 15444-1 (COD, A.6.1); IIIF Image API 3.0, 5.4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import tifffile

from pipeline.tiles import Tiles
from pipeline.writers._boxes import boxes, check_codestream


def level_problems(name: str, path: Path, shape_yx: tuple[int, int], levels: int) -> Iterator[str]:
    """What is wrong with the smaller copies in the file of format ``name``, which is to have so many ``levels``.

    Parameters
    ----------
    shape_yx : rows, columns of the whole picture
    """
    try:
        shapes = _SHAPES.get(name, _alone)(path, shape_yx)
    except Exception as error:  # libraries have many kinds
        yield f"its pyramid cannot be read ({' '.join(str(error).split())})"
        return
    if len(shapes) != levels:
        yield f"its pyramid has {len(shapes)} levels, not {levels}"
    for above, below in pairwise(shapes):
        # GDAL rounds an odd extent down.
        if any(small not in (large // 2, -(-large // 2)) for small, large in zip(below, above, strict=True)):
            yield f"the pyramid's level {below} is not half of {above}"


def _alone(path: Path, shape_yx: tuple[int, int]) -> list[tuple[int, int]]:
    return [shape_yx]


def _of_tiff(path: Path, shape_yx: tuple[int, int]) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        # Not tifffile's series, which leaves levels of one pixel out.
        levels = [page, *page.pages] if page.subifds else tiff.series[0].levels
        return [(each.shape[0], each.shape[1]) for each in levels]


def _of_jp2(path: Path, shape_yx: tuple[int, int]) -> list[tuple[int, int]]:
    with path.open("rb") as stream:
        found = list(boxes(stream, path.stat().st_size))
        copies = min(check_codestream(stream, each) for each in found if each.kind == b"jp2c")
    return [(-(-shape_yx[0] // 2**level), -(-shape_yx[1] // 2**level)) for level in range(copies + 1)]


def _of_omezarr(path: Path, shape_yx: tuple[int, int]) -> list[tuple[int, int]]:
    (multiscale,) = _json(path)["attributes"]["ome"]["multiscales"]
    axes = [axis["name"] for axis in multiscale["axes"]]
    y, x = axes.index("y"), axes.index("x")
    shapes = [_json(path / each["path"])["shape"] for each in multiscale["datasets"]]
    return [(shape[y], shape[x]) for shape in shapes]


def _json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    return found


def _of_iiif(path: Path, shape_yx: tuple[int, int]) -> list[tuple[int, int]]:
    with Tiles(path) as tiles:
        missing = [str(each) for each in tiles.missing()]
        if missing:
            raise ValueError(f"{len(missing)} of its pictures are missing or of another size, such as {missing[0]}")
        return [(-(-tiles.shape_yx[0] // factor), -(-tiles.shape_yx[1] // factor)) for factor in tiles.factors]


_SHAPES: dict[str, Callable[[Path, tuple[int, int]], list[tuple[int, int]]]] = {
    "tiff": _of_tiff,
    "cog": _of_tiff,
    "jp2": _of_jp2,
    "omezarr": _of_omezarr,
    "iiif": _of_iiif,
}
