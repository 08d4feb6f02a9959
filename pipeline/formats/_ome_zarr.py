"""A picture and its smaller copies as OME-Zarr, with the layout and the attributes that readers expect.

    NAME/
      zarr.json   attributes: ome (axes, levels and their scales, channels), and what the caller adds
      0, 1, ...   (channels, H, W) arrays, each level half the one before

Each shard is written whole by one task.

References
----------
OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5/); Zarr v3, sharding codec 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.store.arrays import CHUNK_PX, SCAN_COMPRESSORS, Files

SHARD_PX = 2048
_COLOURS = ("FF0000", "00FF00", "0000FF", "FFFFFF")
_LABELS = ("R", "G", "B", "A")


class Multiscale:
    """The levels of one picture, to be written shard by shard from any number of threads, and read again.

    Parameters
    ----------
    path : a folder that does not exist yet
    levels_yx : rows, columns of each level, largest first
    channels : 3 or 4
    dtype : type of the samples
    fill : value of samples that are never written
    pixel_um : height and width of a pixel in micrometres; None if unknown
    attributes : the caller's, in addition to those of OME
    """

    def __init__(
        self,
        path: Path,
        levels_yx: Sequence[tuple[int, int]],
        channels: int,
        dtype: np.dtype,
        *,
        fill: int = 0,
        pixel_um: tuple[float, float] | None = None,
        attributes: Mapping[str, Any],
        name: str = "",
    ) -> None:
        ome = _ome(name or path.name, levels_yx, channels, dtype, pixel_um)
        group = zarr.create_group(Files(path), zarr_format=3, attributes={"ome": ome, **attributes})
        self._levels = [
            group.create_array(
                str(level),
                shape=(channels, *level_yx),
                dtype=dtype,
                chunks=(1, CHUNK_PX, CHUNK_PX),
                shards=(channels, SHARD_PX, SHARD_PX),
                fill_value=fill,
                compressors=SCAN_COMPRESSORS,
                config={"write_empty_chunks": True},
                dimension_names=("c", "y", "x"),
            )
            for level, level_yx in enumerate(levels_yx)
        ]

    def write(self, level: int, y: int, x: int, samples: NDArray) -> None:
        """Write (h, w, channels) ``samples`` at row ``y``, column ``x`` of ``level``: whole shards."""
        height, width = samples.shape[:2]
        self._levels[level][:, y : y + height, x : x + width] = np.ascontiguousarray(np.moveaxis(samples, -1, 0))

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        """(h, w, channels) samples of a window of ``level``."""
        return np.moveaxis(np.asarray(self._levels[level][:, rows, columns]), 0, -1)


def _ome(
    name: str,
    levels_yx: Sequence[tuple[int, int]],
    channels: int,
    dtype: np.dtype,
    pixel_um: tuple[float, float] | None,
) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if pixel_um else {}
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(level, pixel_um or (1.0, 1.0))}
        for level in range(len(levels_yx))
    ]
    window = {"min": 0, "start": 0, "max": int(np.iinfo(dtype).max), "end": int(np.iinfo(dtype).max)}
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean"}],
        "omero": {
            "channels": [
                {"label": label, "color": colour, "window": window, "active": label != "A"}
                for label, colour in zip(_LABELS[:channels], _COLOURS, strict=False)
            ],
            "rdefs": {"model": "color"},
        },
    }


def _transformations(level: int, pixel_yx: tuple[float, float]) -> list[dict[str, Any]]:
    """Scale of a level, and the centre of its first pixel: the middle of the pixels that it is the mean of."""
    scale = 2**level
    scaled = {"type": "scale", "scale": [1.0, *(scale * size for size in pixel_yx)]}
    moved = {"type": "translation", "translation": [0.0, *((scale - 1) / 2 * size for size in pixel_yx)]}
    return [scaled, moved] if level else [scaled]
