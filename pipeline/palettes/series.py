"""One palette for the scans of a series: what several of them show gets one colour.

Each scan has a palette of its own first. Where two scans show the same part of the same thing (two exposures, two
crops, overlapping aerial photographs), they are registered (:func:`pipeline.palettes.registration.find_overlap`), and
both get the mean of what their palettes say there. Each palette counts by how sure its network was, and less towards
its picture's edges, so that the mean goes over into the picture's own colours without a step: the feathering of
mosaics. The mean is taken of the same places of the thing with the same weights, so both pictures come to the same
colour.

A picture that shares nothing with its fellows keeps its palette, to the bit.

References
----------
Szeliski, Image Alignment and Stitching: A Tutorial, Foundations and Trends in Computer Graphics and Vision 2(1), 2006
(section 6.2: feathering).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.palettes.registration import Seen, find_overlap
from pipeline.tiling.palette import Palette, enlarged

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

CELLS = 48  # along the short side, or as many as the scan's own palette has
_FADES = 0.25  # of the picture's side, from its edge
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Reading:
    """What is known of one scan of a series.

    Attributes
    ----------
    name : of the scan; no two of a series have the same
    lightness : (h, w) L* of the scan, shrunk (:func:`pipeline.tiling.anchor.overview`)
    palette : its own; its cells cover the scan
    sure : (rows, columns) of the palette's cells, how sure of each its network is, above 0
    """

    name: str
    lightness: F32
    palette: Palette
    sure: F32


@dataclass(frozen=True)
class Joined:
    """The palette that a scan gets within its series.

    Attributes
    ----------
    palette : finer than the scan's own where it shares something, else that
    shared : by the name of a fellow, the share of the scan that both show, 0 to 1
    """

    palette: Palette
    shared: Mapping[str, float]


def join(readings: Sequence[Reading]) -> dict[str, Joined]:
    """The palettes of the scans of a series, by name; the same whatever their order."""
    ordered = sorted(readings, key=lambda each: each.name)
    seen = [Seen.of(reading.lightness) for reading in ordered]
    ways: list[dict[int, F64]] = [{i: np.eye(3)} for i in range(len(ordered))]
    for i in range(len(ordered)):
        for j in range(i + 1, len(ordered)):
            if (found := find_overlap(seen[i], seen[j])) is not None:
                sides = [(each.plane.shape[1], each.plane.shape[0], 1) for each in (seen[i], seen[j])]
                matrix = np.vstack([found.matrix, (0, 0, 1)])
                ways[i][j] = np.asarray(np.diag(1 / np.array(sides[1])) @ matrix @ np.diag(sides[0]), np.float64)
                ways[j][i] = np.asarray(np.linalg.inv(ways[i][j]), np.float64)
    planes = [_plane(reading) for reading in ordered]
    names = [reading.name for reading in ordered]
    return {
        reading.name: (
            _mean(i, reading.palette, planes, ways[i], names) if len(ways[i]) > 1 else Joined(reading.palette, {})
        )
        for i, reading in enumerate(ordered)
    }


def _plane(reading: Reading) -> F32:
    """(3, rows, columns): a* and b* of a picture times their weight, and the weight, on finer cells."""
    cells, short = reading.palette.cells, min(reading.lightness.shape)
    rows, columns = (
        max(own, round(CELLS * extent / short))
        for own, extent in zip(cells.shape[1:], reading.lightness.shape, strict=True)
    )
    cell_yx = rows / cells.shape[1], columns / cells.shape[2]
    chroma, sure = (enlarged(each, (0, 0), (rows, columns), cell_yx) for each in (cells, reading.sure[None]))
    y, x = (np.minimum(1, np.minimum(at, 1 - at) / _FADES) for at in map(_middles, (rows, columns)))
    weight = np.maximum(sure[0], reading.sure.min()) * np.maximum(np.outer(y, x), _LEAST_WEIGHT)
    return np.concatenate([chroma * weight, weight[None]]).astype(np.float32)


def _middles(count: int) -> F64:
    return (np.arange(count) + 0.5) / count


def _mean(i: int, own: Palette, planes: Sequence[F32], ways: Mapping[int, F64], names: Sequence[str]) -> Joined:
    """The mean of what all that show a place say there.

    Parameters
    ----------
    ways : (3, 3) from x, y, 1 of this picture, 0 to 1, to those of another
    """
    rows, columns = planes[i].shape[1:]
    x, y = np.meshgrid(_middles(columns), _middles(rows))
    total, shared = np.zeros((3, rows, columns)), {}
    for j, way in sorted(ways.items()):
        at = np.tensordot(way[:2], np.stack([x, y, np.ones_like(x)]), 1)
        inside = ((at >= 0) & (at < 1)).all(axis=0)
        height, width = planes[j].shape[1:]
        maps = (at[0] * width - 0.5).astype(np.float32), (at[1] * height - 0.5).astype(np.float32)
        for to, plane in zip(total, planes[j], strict=True):
            to += inside * np.asarray(cv2.remap(plane, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        if j != i:
            shared[names[j]] = round(float(inside.mean()), 4)
    cells = (total[:2] / total[2]).astype(np.float32)
    cell_yx = own.cell_yx[0] * own.cells.shape[1] / rows, own.cell_yx[1] * own.cells.shape[2] / columns
    return Joined(Palette(cells, cell_yx), shared)


def sureness_of(distribution: F32) -> F32:
    """(rows, columns) of a (K, rows, columns) distribution: one over the number of colours it comes to, 1/K to 1."""
    entropy = -(distribution * np.log(np.maximum(distribution, 1e-12))).sum(axis=0)
    return np.asarray(np.exp(-entropy), np.float32)
