"""OME-Zarr: types, orders, codecs and axes, written by zarr-python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from . import Variant, colour, gray, kinds, unit

_CODECS = {
    "none": None,
    "gzip": zarr.codecs.GzipCodec(),
    "zstd": zarr.codecs.ZstdCodec(),
    "blosc": zarr.codecs.BloscCodec(),
}


def variants() -> Iterator[Variant]:
    for version in (2, 3):
        for dtype in ("uint8", "uint16", ">u2", "int16", "float32", "bool"):
            for axes in ("yx", "cyx", "tczyx"):
                yield _variant(version, dtype, axes)
        yield _variant(version, "uint8", "cyx", chunks=(1, 7, 9))
        yield _variant(version, "uint8", "cyx", partly=True)
    for name in _CODECS:
        yield _variant(3, "uint16", "cyx", codec=name)
    yield _variant(3, "uint8", "cyx", chunks=(3, 8, 8), shards=(3, 32, 40))
    yield _variant(2, "uint8", "cyx", order="F")


def _variant(version: int, dtype: str, axes: str, *, partly: bool = False, **options: Any) -> Variant:
    native = np.dtype(dtype).newbyteorder("=")
    base = gray("uint16") if "c" not in axes else np.moveaxis(colour("uint16"), 2, 0)
    if native.kind == "b":
        stored: NDArray = base > 30000
    else:
        stored = (base / 65535 if native.kind == "f" else base // 257 if native.itemsize == 1 else base // 3).astype(
            native
        )
    light = None if native.kind in "if" else unit(stored) if native.kind == "u" else stored.astype(float)
    if light is not None and light.ndim == 3:
        light = np.moveaxis(light, 0, 2)
    if partly and light is not None:
        light = light.copy()
        light[16:] = 0
    shaped = stored[None, :, None] if axes == "tczyx" else stored

    def make(path: Path) -> None:
        _write(path, shaped, axes, version, dtype, partly=partly, **options)

    more = "".join(f", {k} {v}" for k, v in options.items()) + ", chunks missing" * partly
    name = f"version {version}, {dtype} {axes}{more}"
    return Variant(
        "OME-Zarr", name, make, ".zarr", written=light, kinds=kinds("stretched" * (light is None), axes, native.name)
    )


def _write(
    path: Path,
    stored: NDArray,
    axes: str,
    version: int,
    dtype: str,
    *,
    partly: bool = False,
    codec: str = "zstd",
    chunks: tuple[int, ...] = (),
    shards: tuple[int, ...] = (),
    order: str = "",
) -> None:
    group = zarr.create_group(path, zarr_format=version)  # type: ignore[arg-type]
    words: Any = {"name": "0", "shape": stored.shape, "dtype": dtype, "chunks": chunks or (*stored.shape[:-2], 16, 16)}
    if version == 3:
        words |= {"compressors": _CODECS[codec]} | ({"shards": shards} if shards else {})
        words["serializer"] = zarr.codecs.BytesCodec(endian="big" if dtype.startswith(">") else "little")
        words["dtype"] = np.dtype(dtype).newbyteorder("=")
    if order:
        words["order"] = order
    array = group.create_array(**words)
    if partly:
        array[..., :16, :] = stored[..., :16, :]
    else:
        array[...] = stored
    multiscale: dict[str, Any] = {
        "axes": [{"name": axis, "type": {"t": "time", "c": "channel"}.get(axis, "space")} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}],
    }
    if version == 2:
        group.attrs["multiscales"] = [{**multiscale, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
