"""One array of Zarr v2 or v3 in a folder, read by windows; nothing in its metadata or chunks is trusted.

References
----------
Zarr storage specification version 2; Zarr core specification version 3.1, with the codecs that :mod:`.omezarr` names.
"""

from __future__ import annotations

import bz2
import itertools
import json
import math
import re
import stat
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._metadata_blocks import printable
from pipeline.support.text import reason_of

CHUNK_LIMIT_BYTES = 2**30
_JSON_LIMIT_BYTES = 16 * 2**20
_MAX_INNER = 2**20
_INDEXES = 64
_MISSING = 2**64 - 1
_TYPES: tuple[str, ...] = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TYPES += ("float16", "float32", "float64")
_BYTE_CODECS = ("blosc", "bz2", "crc32c", "gzip", "lz4", "zlib", "zstd")


def most_bytes(chunk_bytes: int) -> int:
    """Size limit for a chunk between two codecs: some codecs enlarge noise, but none by this much."""
    return 2 * chunk_bytes + 2**16


def load_json(folder: Path, path: Path) -> Any:
    """The contents of a metadata file in ``folder``; None if there is no such file."""
    data = read_inside(folder, path, 0, None, _JSON_LIMIT_BYTES)
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ScanDamagedError(f"damaged: {path.name} is no JSON; restore it from its source") from error


def inside(folder: Path, name: str) -> Path:
    """The folder ``name`` in ``folder``; refuses names that lead elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.search(r"[\\:\0]", name):
        raise ScanUnsupportedError(
            f"names {printable(name)!r} as its data, which lies outside the folder; copy it inside"
        )
    return folder.joinpath(*parts)


def read_inside(folder: Path, path: Path, start: int, size: int | None, limit_bytes: int) -> bytes | None:
    """Bytes of a file from ``start`` on (counted from the end if negative); None if there is no such file."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise ScanUnsupportedError(
            f"{printable(path.name)!r} is a link to a place outside the folder; copy the data inside"
        )
    try:
        status = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise ScanUnreadableError(f"{printable(path.name)!r} is no regular file; restore it from its source")
    start = start if start >= 0 else status.st_size + start
    size = status.st_size - start if size is None else size
    if start < 0 or start + size > status.st_size:
        raise ScanDamagedError(f"cut off: {printable(path.name)!r} has {status.st_size} bytes; copy it again")
    if size > limit_bytes:
        raise ScanDamagedError(
            f"damaged: {printable(path.name)!r} takes {size} bytes, more than its contents may; restore it"
        )
    with real.open("rb") as file:
        file.seek(start)
        return file.read(size)


@dataclass(frozen=True)
class _Chain:
    """Bytes to an array: ``codecs`` from the last to the first, then ``dtype`` with its byte order, then the axes."""

    dtype: np.dtype
    order: tuple[int, ...]
    codecs: tuple[str, ...]

    def decode(self, data: bytes, shape: tuple[int, ...]) -> NDArray:
        expected = math.prod(shape) * self.dtype.itemsize
        for codec in self.codecs:
            data = _decoded(codec, data, most_bytes(expected))
        if len(data) != expected:
            raise ScanDamagedError(f"damaged: a chunk of {len(data)} bytes, not {expected}; restore it from its source")
        stored = np.frombuffer(data, self.dtype).reshape([shape[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))


@dataclass(frozen=True)
class _Shard:
    """How a shard is cut into inner chunks, and where its index is."""

    chunks: tuple[int, ...]
    index: _Chain
    at_end: bool


def _decoded(codec: str, data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes; a stream that holds more is damaged or malicious."""
    try:
        match codec:
            case "gzip" | "zlib":
                result = zlib.decompressobj(47).decompress(data, limit + 1)
            case "bz2":
                result = bz2.BZ2Decompressor().decompress(data, limit + 1)
            case "zstd":
                result = bytes(imagecodecs.zstd_decode(data, out=limit))
            case "lz4":
                result = bytes(imagecodecs.lz4_decode(data[4:], out=limit))
            case "blosc":
                if len(data) < 16 or int.from_bytes(data[4:8], "little") > limit:
                    raise ValueError("its header declares another size")
                result = bytes(imagecodecs.blosc_decode(data, numthreads=1))
            case _:
                result = data[:-4]
                if google_crc32c.value(result) != int.from_bytes(data[-4:], "little"):
                    raise ValueError("its checksum differs")
    except Exception as error:
        why = reason_of(error)
        raise ScanDamagedError(f"damaged: a chunk is no {codec} ({why}); restore it from its source") from error
    if len(result) > limit:
        raise ScanDamagedError(f"damaged: a chunk inflates to more than {limit} bytes; restore it from its source")
    return result


class ZarrArray:
    """An array in ``folder / name``.

    Attributes
    ----------
    shape, chunks : shapes of the array and of the unit of decoding (inner chunks, if they are in shards)
    dtype : type of the samples, in native byte order
    compression : a name for people
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._root, self._folder = folder, inside(folder, name)
        self._indexes: OrderedDict[Path, NDArray | None] = OrderedDict()
        self._lock = threading.Lock()
        self._shard: _Shard | None = None
        metadata = self._metadata("zarr.json")
        if metadata is not None:
            self._set_v3(metadata)
        elif (metadata := self._metadata(".zarray")) is not None:
            self._set_v2(metadata)
        else:
            raise ScanUnreadableError(
                f"its image {printable(name)!r} is missing; copy the folder again from its source"
            )
        self.chunks = self._shard.chunks if self._shard else self._stored
        self._check()
        self.dtype = self._chain.dtype.newbyteorder("=")
        self.compression = "-".join(codec for codec in reversed(self._chain.codecs) if codec != "crc32c") or "none"

    def _metadata(self, name: str) -> Mapping[str, Any] | None:
        found = load_json(self._root, self._folder / name)
        if found is not None and not isinstance(found, dict):
            raise ScanDamagedError(f"damaged: {name} is no object; restore it from its source")
        return found

    def _set_v2(self, metadata: Mapping[str, Any]) -> None:
        if metadata.get("filters"):
            names = ", ".join(str(each.get("id")) for each in metadata["filters"])
            raise ScanUnsupportedError(f"Zarr filters {printable(names)}, which are not handled; rewrite it without")
        if not re.fullmatch(r"[<>|][uif][1248]|\|b1", str(metadata["dtype"])):
            raise ScanUnsupportedError(
                f"samples of type {printable(str(metadata['dtype']))}; convert it to uint8 or uint16"
            )
        self.shape, self._stored = _sizes(metadata["shape"]), _sizes(metadata["chunks"])
        axes = tuple(range(len(self.shape)))
        compressor = metadata.get("compressor")
        codecs = (_codec(compressor["id"]),) if compressor else ()
        self._chain = _Chain(np.dtype(metadata["dtype"]), axes[::-1] if metadata["order"] == "F" else axes, codecs)
        self._separator, self._prefix = str(metadata.get("dimension_separator", ".")), ""
        self._fill = _fill(metadata.get("fill_value") or 0, self._chain.dtype)

    def _set_v3(self, metadata: Mapping[str, Any]) -> None:
        if metadata.get("node_type") != "array" or metadata["chunk_grid"]["name"] != "regular":
            raise ScanUnsupportedError("a Zarr array of irregular chunks, or none; rewrite it with ome-zarr")
        if metadata["data_type"] not in _TYPES:
            raise ScanUnsupportedError(
                f"samples of type {printable(str(metadata['data_type']))}; convert it to uint8 or uint16"
            )
        dtype = np.dtype(metadata["data_type"])
        self.shape = _sizes(metadata["shape"])
        self._stored = _sizes(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        encoding = metadata["chunk_key_encoding"]
        v2_keys = encoding["name"] == "v2"
        self._prefix = "" if v2_keys else "c"
        self._separator = str(encoding.get("configuration", {}).get("separator", "." if v2_keys else "/"))
        codecs = metadata["codecs"]
        if codecs[0]["name"] == "sharding_indexed" and len(codecs) == 1:
            shard = codecs[0]["configuration"]
            index = _chain(shard["index_codecs"], np.dtype("<u8"), len(self.shape) + 1)
            self._shard = _Shard(_sizes(shard["chunk_shape"]), index, shard.get("index_location", "end") == "end")
            codecs = shard["codecs"]
        self._chain = _chain(codecs, dtype, len(self.shape))
        self._fill = _fill(metadata["fill_value"], dtype)

    def _check(self) -> None:
        if self._separator not in (".", "/"):
            raise ScanUnsupportedError(
                f"chunk names with {printable(self._separator)!r} in them; rewrite it with ome-zarr"
            )
        if not 2 <= len(self.shape) <= 5 or not len(self.shape) == len(self._stored) == len(self.chunks):
            raise ScanUnsupportedError(f"an array of {len(self.shape)} dimensions, of which 2 to 5 are handled")
        chunk_bytes = math.prod(self.chunks) * self._chain.dtype.itemsize
        if chunk_bytes > CHUNK_LIMIT_BYTES or 0 in self.chunks:
            raise ScanUnsupportedError(
                f"chunks of {chunk_bytes} bytes, which must be decoded at once; rewrite it smaller"
            )
        if self._shard and (
            any(s % c for s, c in zip(self._stored, self.chunks, strict=True)) or math.prod(self._inner) > _MAX_INNER
        ):
            raise ScanUnsupportedError(f"shards of {self._stored} in chunks of {self.chunks}; rewrite it with ome-zarr")

    @property
    def _inner(self) -> tuple[int, ...]:
        """Number of inner chunks of a shard along each axis."""
        return tuple(stored // chunk for stored, chunk in zip(self._stored, self.chunks, strict=True))

    def read(self, window: Sequence[range]) -> NDArray:
        """Samples of a non-empty window, in native byte order; missing chunks have the fill value."""
        result = np.empty([len(axis) for axis in window], self.dtype)
        spans = [range(w.start // c, (w.stop - 1) // c + 1) for w, c in zip(window, self.chunks, strict=True)]
        for at in itertools.product(*spans):
            into, part = [], []
            for index, chunk, axis in zip(at, self.chunks, window, strict=True):
                first, last = max(axis.start, index * chunk), min(axis.stop, index * chunk + chunk)
                into.append(slice(first - axis.start, last - axis.start))
                part.append(slice(first - index * chunk, last - index * chunk))
            chunk_data = self._chunk(at)
            result[tuple(into)] = self._fill if chunk_data is None else chunk_data[tuple(part)]
        return result

    def _chunk(self, at: tuple[int, ...]) -> NDArray | None:
        limit = most_bytes(math.prod(self.chunks) * self._chain.dtype.itemsize)
        if self._shard is None:
            data = read_inside(self._root, self._path(at), 0, None, limit)
        else:
            path = self._path(tuple(index // inner for index, inner in zip(at, self._inner, strict=True)))
            places = self._index(path)
            inner = tuple(index % inner for index, inner in zip(at, self._inner, strict=True))
            start, size = (_MISSING, _MISSING) if places is None else map(int, places[inner])
            data = None if start == size == _MISSING else read_inside(self._root, path, start, size, limit)
        return None if data is None else self._chain.decode(data, self.chunks)

    def _path(self, at: tuple[int, ...]) -> Path:
        name = self._separator.join([self._prefix] * bool(self._prefix) + [str(index) for index in at])
        return self._folder / name

    def _index(self, path: Path) -> NDArray | None:
        """(..., 2) first byte and size of each inner chunk; recently read indexes are cached."""
        assert self._shard is not None
        with self._lock:
            if path not in self._indexes:
                size = 16 * math.prod(self._inner) + 4 * self._shard.index.codecs.count("crc32c")
                data = read_inside(self._root, path, -size if self._shard.at_end else 0, size, size)
                self._indexes[path] = None if data is None else self._shard.index.decode(data, (*self._inner, 2))
                if len(self._indexes) > _INDEXES:
                    self._indexes.popitem(last=False)
            return self._indexes[path]


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if not all(isinstance(size, int) and 0 <= size < 2**62 for size in sizes):
        raise ScanDamagedError(f"damaged: sizes {printable(str(values))}; restore it from its source")
    return sizes


def _codec(name: Any) -> str:
    if name not in _BYTE_CODECS:
        raise ScanUnsupportedError(
            f"Zarr codec {printable(str(name))!r}, which is not handled; rewrite it with blosc, gzip or zstd"
        )
    return str(name)


def _chain(codecs: Any, dtype: np.dtype, dimensions: int) -> _Chain:
    """The chain for Zarr v3's list of codecs, which is in the order of encoding."""
    order: tuple[int, ...] = tuple(range(dimensions))
    names: list[str] = []
    for codec in codecs:
        name, settings = codec["name"], codec.get("configuration", {})
        if name == "transpose" and not names:
            order = tuple(order[axis] for axis in settings["order"])
            if sorted(order) != list(range(dimensions)):
                raise ScanDamagedError(
                    f"damaged: axes in the order {printable(str(order))}; restore it from its source"
                )
        elif name == "bytes" and not names:
            dtype = dtype.newbyteorder(">" if settings.get("endian") == "big" else "<")
        else:
            names.append(_codec(name))
    return _Chain(dtype, order, tuple(reversed(names)))


def _fill(value: Any, dtype: np.dtype) -> Any:
    """The fill value from its JSON form; floats may be named or given by their bits."""
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]+", value):
        bits = int(value, 16).to_bytes(dtype.itemsize, "little")
        return np.frombuffer(bits, dtype.newbyteorder("<"))[0]
    if isinstance(value, str) and dtype.kind != "f":
        raise ScanDamagedError(f"damaged: a fill value of {printable(value)!r}; restore it from its source")
    return np.array(float(value) if dtype.kind == "f" else int(value)).astype(dtype)
