"""Throw damaged files at the readers: ``python -m tests.benchmarks.fuzz FOLDER... [--count 20000] [--seed 0]``.

Every file below the folders is a seed, and so are small ones of each format that are made here and those of the
differential test; every 16th is an OME-Zarr folder with one of its files damaged. Each is opened in a process of its
own kind: its header and all that it says beside its pixels is read, and windows at its corners and in its middle,
plainly and with salvage. What counts as a fault: anything but a picture or one line (a traceback), no answer within
10 seconds, a process above 1 GB, a process that dies. Exit code 1 if there was any.

Faults are kept as files in ``--keep FOLDER``.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tests.benchmarks.mutations import mutated

LIMIT_SECONDS = 10.0
LIMIT_BYTES = 10**9
_SEED_BYTES = 2**20
_FOLDERS = 16  # every so manieth of what is looked at is a folder


def look_at(path: Path, salvage: bool) -> str:
    """Open and read as a run would; "read" or the one line that refuses it. What else is raised is a fault."""
    from pipeline.errors import ColorizeError
    from pipeline.readers import open_scan, page_count
    from pipeline.types import ReadOptions

    try:
        page_count(path, ReadOptions(salvage=salvage))
        with open_scan(path, ReadOptions(salvage=salvage)) as reader:
            _ = reader.embedded
            height, width = reader.info.shape_yx
            for y in {0, max(0, height // 2 - 100), max(0, height - 200)}:
                for x in {0, max(0, width // 2 - 100), max(0, width - 200)}:
                    window = slice(y, y + 200), slice(x, x + 200)
                    reader.read(*window)
                    if reader.info.mask:
                        reader.read_mask(*window)
    except ColorizeError as error:
        return _one_line(str(error))
    return "read"


def _one_line(message: str) -> str:
    if "\n" in message or len(message) > 600:
        raise AssertionError(f"not one line: {message[:300]!r}")
    return message


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def work() -> None:
    """Answer each path on standard input with one line of JSON, after a first one when everything is loaded."""
    import pipeline.readers  # noqa: F401

    warnings.simplefilter("error")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        path, salvage = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started = time.perf_counter()
        try:
            answer = {"said": look_at(Path(path), salvage)}
        except BaseException as error:
            answer = {"fault": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answer |= {"seconds": time.perf_counter() - started, "peak_bytes": _peak_bytes()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


WORKER = (sys.executable, "-m", "tests.benchmarks.fuzz", "--worker")


class Prober:
    """A process that looks at files, and is replaced when it dies or does not answer."""

    def __init__(self, command: tuple[str, ...] = WORKER, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._command = command
        self._limit_seconds = limit_seconds
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: Path, salvage: bool) -> dict[str, Any]:
        """What became of it: ``said``, or ``fault``, with seconds and peak_bytes."""
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(self._command, text=True, **pipes)
            self._line(60.0)
        process = self._process
        assert process.stdin is not None
        started = time.perf_counter()
        process.stdin.write(json.dumps([str(path), salvage]) + "\n")
        process.stdin.flush()
        line = self._line(self._limit_seconds)
        if not line:
            seconds = time.perf_counter() - started
            code = process.poll()
            fault = f"no answer within {self._limit_seconds:g} s" if code is None else f"died (exit code {code})"
            self.close()
            return {"fault": fault, "seconds": seconds, "peak_bytes": 0}
        answer: dict[str, Any] = json.loads(line)
        if answer["peak_bytes"] > LIMIT_BYTES:
            answer["fault"] = f"took {answer['peak_bytes'] / 1e9:.2f} GB"
        return answer

    def _line(self, limit_seconds: float) -> str:
        """One line of the process; empty where it died or does not answer in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_seconds)
        line = self._process.stdout.readline() if ready else ""
        if ready and not line:
            self._process.wait()
        return line

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def made_seeds() -> list[bytes]:
    """Small files of formats and kinds that folders of scans seldom have all of."""
    import cv2
    import imagecodecs
    import numpy as np
    import tifffile

    gray = (np.add.outer(np.arange(90), np.arange(70)) * 3 % 256).astype(np.uint8)
    colour = np.stack([gray, gray[::-1], 255 - gray], axis=-1)
    seeds = [
        cv2.imencode(ending, picture)[1].tobytes()
        for ending in (".png", ".jpg", ".webp", ".jp2", ".bmp", ".tiff")
        for picture in (gray, colour)
    ]
    seeds += [b"P5\n70 90\n255\n" + gray.tobytes(), b"P6\n# by hand\n70 90 255\n" + colour.tobytes()]
    seeds += [b"P4\n70 90\n" + np.packbits(gray > 99, axis=1).tobytes()]
    seeds += [b"P1\n70 90\n" + b"\n".join(b"".join(b"1" if bit else b"0" for bit in row) for row in gray > 99)]
    ycc = bytearray(imagecodecs.jpeg2k_encode(colour, level=0, codecformat="jp2", mct=False, colorspace="SRGB"))
    ycc[(at := ycc.index(b"colr") + 7) : at + 4] = b"\0\0\0\x12"
    seeds.append(bytes(ycc))
    chromaticities = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    png = cv2.imencode(".png", colour)[1].tobytes()
    more = [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", chromaticities)]
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in more
    ]
    seeds.append(png[:33] + b"".join(chunks) + png[33:])
    seeds.append(cv2.imencode(".png", gray.astype(np.uint16) * 257)[1].tobytes())
    seeds.append(imagecodecs.jpeg_encode(np.dstack([colour, gray]), colorspace="CMYK", outcolorspace="CMYK"))
    seeds += [imagecodecs.jpegxl_encode(colour), imagecodecs.avif_encode(colour), imagecodecs.jpegls_encode(gray)]
    profile = imagecodecs.cms_profile("adobergb")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tif")
        for samples, words in (
            (gray, {"compression": "lzw", "predictor": True}),
            (colour, {"photometric": "rgb", "tile": (32, 32), "compression": "deflate", "iccprofile": profile}),
            (gray.astype(np.float32) / 7, {"extratags": [(42113, "s", 0, "0", True)]}),
            (np.dstack([colour, gray]), {"photometric": "separated"}),
            (np.dstack([colour, gray]), {"photometric": "rgb", "extrasamples": ["unassalpha"], "planarconfig": 2}),
            (gray > 99, {"photometric": "miniswhite"}),
        ):
            tifffile.imwrite(path, samples.transpose(2, 0, 1) if "planarconfig" in words else samples, **words)
            seeds.append(path.read_bytes())
        seeds += [_by_gdal(Path(folder), driver, gray) for driver in ("NITF", "HFA", "GIF", "SGI")]
        seeds += _told(Path(folder))
    return seeds


def _by_gdal(folder: Path, driver: str, gray: NDArray) -> bytes:
    import rasterio
    import rasterio.shutil

    rows, columns = gray.shape
    size = {"width": columns, "height": rows, "count": 1, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(folder / "gray.tif", "w", driver="GTiff", **size) as made:
            made.write(gray, 1)
        rasterio.shutil.copy(folder / "gray.tif", folder / driver, driver=driver)
    return (folder / driver).read_bytes()


def _told(folder: Path) -> list[bytes]:
    """Results that carry all there is to be carried."""
    from pipeline.formats import ENDINGS, write_picture
    from tests.benchmarks.matrix import picture

    small = replace(picture(), shape_yx=(60, 50))
    for name in ("tiff", "cog", "jp2", "png", "jpeg"):
        write_picture(name, folder / f"b{ENDINGS[name]}", small, 1)
    return [path.read_bytes() for path in sorted(folder.glob("b.*")) if path.is_file()]


@dataclass
class Tally:
    """What became of all files so far."""

    said: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0

    def add(self, seed: int, answer: dict[str, Any]) -> bool:
        """Returns whether it was a fault."""
        self.slowest = max(self.slowest, answer["seconds"])
        self.largest = max(self.largest, answer["peak_bytes"])
        if "fault" in answer:
            self.faults.append((seed, answer["fault"]))
            return True
        self.said["read" if answer["said"] == "read" else "refused in one line"] += 1
        return False

    def __str__(self) -> str:
        said = ", ".join(f"{count} {what}" for what, count in self.said.most_common())
        largest = f"largest process {self.largest / 1e9:.2f} GB"
        return f"{said}, {len(self.faults)} faults; slowest {self.slowest:.2f} s, {largest}"


def variant_seeds() -> tuple[list[bytes], list[dict[str, bytes]]]:
    """The files of the differential test, and its folders as what is in them by name."""
    from tests.benchmarks.variants import all_variants

    files, folders = [], []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, variant in enumerate(all_variants()):
            place = Path(folder, str(number))
            place.mkdir()
            path = variant.put(place)
            if path.is_file():
                files.append(path.read_bytes())
            else:
                found = sorted(each for each in path.rglob("*") if each.is_file())
                folders.append({str(each.relative_to(path)): each.read_bytes() for each in found})
    return files, folders


def put_folder(path: Path, files: dict[str, bytes], seed: int) -> None:
    """With one of its files damaged."""
    shutil.rmtree(path, ignore_errors=True)
    damaged = sorted(files)[seed // _FOLDERS % len(files)]
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(mutated([data], seed) if name == damaged else data)


def run(
    seeds: list[bytes], first: int, count: int, keep: Path | None = None, folders: Sequence[dict[str, bytes]] = ()
) -> Tally:
    """Look at ``count`` damaged files, or folders; those of faults go to ``keep``."""
    tally, prober = Tally(), Prober()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            path = Path(folder, "scan")
            if folders and seed % _FOLDERS == 0:
                path = Path(folder, "scan.zarr")
                put_folder(path, folders[seed // _FOLDERS % len(folders)], seed)
            else:
                path.write_bytes(mutated(seeds, seed))
            if tally.add(seed, prober.ask(path, salvage=seed % 3 == 0)):
                print(f"{seed}: {tally.faults[-1][1]}", flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    os.replace(path, keep / str(seed))
            if (seed + 1) % 1000 == 0:
                print(f"{seed + 1 - first} files: {tally}", flush=True)
    prober.close()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return
    found = [p for folder in options.folders for p in sorted(folder.rglob("*")) if p.is_file()]
    seeds = [p.read_bytes() for p in found if 0 < p.stat().st_size <= _SEED_BYTES] + made_seeds()
    files, folders = variant_seeds()
    tally = run(seeds + files, options.seed, options.count, options.keep, folders)
    print(f"{options.count} damaged files of {len(seeds + files) + len(folders)} whole ones: {tally}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
