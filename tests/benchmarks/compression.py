"""Bytes and processor time of ways to compress what a run keeps: samples, chroma, and pictures. All are lossless.

    colorize-archive run tests/scans --output COLOUR
    python -m tests.benchmarks.compression COLOUR

For each way the bytes a pixel of the scan, and nanoseconds a pixel to encode and to decode on one thread, the fastest
of three; over all results of COLOUR together. "now" marks what is used, "0.6" what the release before used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numcodecs.blosc
import numpy as np
import tifffile
from numcodecs import Blosc
from numpy.typing import NDArray

from pipeline.formats.tiff import deflated
from pipeline.store import ScanStore
from pipeline.store.arrays import CHUNK_PX
from pipeline.store.differences import differences, sums
from pipeline.types import Roi

TILE_PX = 256
BLOSC = [("lz4", 5, 1), ("zstd", 1, 1), ("zstd", 1, 2), ("zstd", 5, 1)]
LEVELS = (1, 2, 4, 6)
NOW = {
    "samples, 8 bit": "differences, zstd 1, shuffle",
    "samples, 16 bit": "differences, zstd 1, shuffle",
    "chroma": "differences, zstd 1, bitshuffle",
    "picture, 8 bit": "deflate 2",
    "picture, 16 bit": "deflate 1",
}
BEFORE = {
    "samples, 8 bit": "zstd 1, shuffle",
    "samples, 16 bit": "zstd 1, shuffle",
    "chroma": "lz4 5, shuffle",
    "picture, 8 bit": "deflate 1",
    "picture, 16 bit": "deflate 1",
}
Encode, Decode = Callable[[NDArray], bytes], Callable[[bytes], object]


@dataclass
class Measured:
    """Sums over all pieces of one kind."""

    bytes: int = 0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    pixels: int = 0


@dataclass
class Table:
    """Measurements by kind and way."""

    rows: dict[tuple[str, str], Measured] = field(default_factory=dict)

    def add(self, kind: str, way: str, pieces: list[NDArray], pixels: int, encode: Encode, decode: Decode) -> None:
        """Encode and decode ``pieces`` three times; ``pixels`` is how many of the scan they cover."""
        encoded: list[bytes] = []
        encoding, decoding = [], []
        for _ in range(3):
            began = time.thread_time()
            encoded = [encode(piece) for piece in pieces]
            half = time.thread_time()
            for data in encoded:
                decode(data)
            encoding.append(half - began)
            decoding.append(time.thread_time() - half)
        row = self.rows.setdefault((kind, way), Measured())
        row.bytes += sum(map(len, encoded))
        row.encode_seconds += min(encoding)
        row.decode_seconds += min(decoding)
        row.pixels += pixels

    def print(self) -> None:
        print("| what | compression | bytes a pixel | of 0.6 | encode, ns a pixel | decode, ns a pixel | |")
        print("|---|---|---|---|---|---|---|")
        for (kind, way), row in sorted(self.rows.items(), key=lambda each: list(NOW).index(each[0][0])):
            before = self.rows[kind, BEFORE[kind]]
            marks = ", ".join(name for name, of in (("0.6", BEFORE), ("now", NOW)) if of[kind] == way)
            times = f"{row.encode_seconds / row.pixels * 1e9:.1f} | {row.decode_seconds / row.pixels * 1e9:.1f}"
            size = f"{row.bytes / row.pixels:.3f} | {row.bytes / before.bytes:.2f}"
            print(f"| {kind} | {way} | {size} | {times} | {marks} |")


def pieces_of(values: NDArray, side: int, y: int) -> list[NDArray]:
    """Squares of ``side`` along the axes ``y`` and ``y`` + 1, those at the edges smaller."""
    height, width = values.shape[y : y + 2]
    before = (slice(None),) * y
    return [
        np.ascontiguousarray(values[(*before, slice(i, i + side), slice(j, j + side))])
        for i in range(0, height, side)
        for j in range(0, width, side)
    ]


def bloscs(axis: int, like: NDArray) -> Iterator[tuple[str, Encode, Decode]]:
    """Blosc with and without differences, as the store has them."""
    for name, level, shuffle in BLOSC:
        blosc = Blosc(name, level, shuffle)
        words = f"{name} {level}, {'bit' * (shuffle == 2)}shuffle"
        yield words, blosc.encode, blosc.decode

        def undo(data: bytes, blosc: Blosc = blosc) -> object:
            flat = np.frombuffer(blosc.decode(data), like.dtype)
            side = flat.size // (like.shape[0] if axis == 2 else 1)
            # The sums are of the same number of values whatever the piece's shape.
            return sums(flat.reshape((like.shape[0], 1, side) if axis == 2 else (1, side)), axis)

        yield f"differences, {words}", lambda piece, blosc=blosc: blosc.encode(differences(piece, axis)), undo


def deflates() -> Iterator[tuple[str, Encode, Decode]]:
    for level in LEVELS:
        yield f"deflate {level}", lambda piece, level=level: deflated(piece, level), imagecodecs.deflate_decode


def measure(table: Table, store: ScanStore, picture: NDArray) -> None:
    """All ways for one result."""
    height, width = store.info.shape_yx
    everything, pixels = Roi(0, height, 0, width), height * width
    samples = pieces_of(store.read_scan(everything), CHUNK_PX, 0)
    chroma = pieces_of(np.asarray(store.version(store.version_names()[-1]).read(everything)), CHUNK_PX, 1)
    bits = 8 * samples[0].itemsize
    for way, encode, decode in bloscs(1, samples[0]):
        table.add(f"samples, {bits} bit", way, samples, pixels, encode, decode)
    for way, encode, decode in bloscs(2, chroma[0]):
        table.add("chroma", way, chroma, pixels, encode, decode)
    for way, encode, decode in deflates():
        table.add(f"picture, {8 * picture.itemsize} bit", way, pieces_of(picture, TILE_PX, 0), pixels, encode, decode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of a run, with TIFFs")
    numcodecs.blosc.use_threads = False
    table = Table()
    for path in sorted(parser.parse_args().output.glob("*.zarr")):
        measure(table, ScanStore.open(path), tifffile.imread(path.with_suffix(".color.tif")))
    table.print()


if __name__ == "__main__":
    main()
