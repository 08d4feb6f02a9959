"""Kills between buckets: python -m tests.benchmarks.object_storage [--scans 100] [--kills 20] [--engine identity]

Small scans from one bucket of a server of object storage (moto's, in a process of its own) are coloured into another
by one command, which is killed (SIGKILL to its process group) when as many objects as drawn at random are there, from
the first to the last of an undisturbed run. After each kill every sidecar in the bucket must name a picture that is
there with its SHA-256, and no picture that was there before may be gone. In the end the same command finishes, and
another finds nothing to do.

lost        results that were there before a kill, or scans without a result in the end; must be 0
differing   pictures whose bytes are not those of the undisturbed run, and sidecars that do not fit; must be 0
left        objects that the undisturbed run did not leave, records of runs aside; must be 0
work        most bytes in the work folder at any time, thumbnails and sidecars aside, beside those of all stores and
            pictures: it must not grow with the scans

Needs: pip install '.[dev]'
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from flows.objects.layout import files_below, is_small
from tests.object_server import ObjectServer, object_server

_BUCKET, _SCANS = "archive", "scans"
_POLL_SECONDS = 0.05


@dataclass
class Found:
    """What was seen, over all kills."""

    lost: int = 0
    differing: int = 0
    left: int = 0
    notes: list[str] = field(default_factory=list)


class _Watch:
    """The most bytes in a work folder, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.most = 0
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(OSError):
                self.most = max(self.most, sum(_bytes_of(each) for each in self._folder.glob("*")))


def _bytes_of(here: Path) -> int:
    total = 0
    for part in ("scans", "out"):
        for path in files_below(here / part):
            if part == "scans" or not is_small(path):
                with contextlib.suppress(OSError):
                    total += (here / part / path).stat().st_size
    return total


def make_scans(server: ObjectServer, count: int, shape_yx: tuple[int, int]) -> None:
    """Blurred noise, each scan other than the rest."""
    for number in range(count):
        grains = np.random.default_rng(number).random(shape_yx, np.float32)
        smooth = cv2.normalize(cv2.GaussianBlur(grains, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
        data = cv2.imencode(".png", smooth.astype(np.uint8))[1].tobytes()
        server.put(_BUCKET, f"{_SCANS}/box{number % 5}/scan{number:04}.png", data)


@dataclass(frozen=True)
class _Command:
    """The command that is killed."""

    server: ObjectServer
    work: Path
    engine: str
    limit: str

    def start(self, output: str) -> subprocess.Popen[bytes]:
        words = [
            "run", f"s3://{_BUCKET}/{_SCANS}", "--output", f"s3://{_BUCKET}/{output}", "--work", str(self.work),
            "--engine", self.engine, "--precision", "fp32", "--work-limit", self.limit, "--quiet",
        ]  # fmt: skip
        environment = {**os.environ, **self.server.environment}
        return subprocess.Popen([sys.executable, "-m", "flows.cli", *words], env=environment, start_new_session=True)

    def finish(self, output: str) -> tuple[int, float]:
        """Exit code and seconds."""
        began = time.monotonic()
        return self.start(output).wait(), time.monotonic() - began

    def killed_at(self, output: str, count: int) -> bool:
        """Kill it when ``count`` objects are there; False if it ended before."""
        process = self.start(output)
        while process.poll() is None and len(self.server.keys(_BUCKET, f"{output}/")) < count:
            time.sleep(_POLL_SECONDS)
        is_running = process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return is_running


def pictures_of(server: ObjectServer, output: str) -> Iterator[tuple[str, str, bool]]:
    """Key below the output and SHA-256 of the picture of every sidecar, and whether it has the bytes it should."""
    keys = server.keys(_BUCKET, f"{output}/")
    for key in sorted(keys):
        if key.endswith(".color.json"):
            record = json.loads(server.get(_BUCKET, key))["pictures"]["tiff"]
            picture = f"{key.rpartition('/')[0]}/{record['file']}"
            data = server.get(_BUCKET, picture) if picture in keys else b""
            name = picture.removeprefix(f"{output}/")
            yield name, record["sha256"], hashlib.sha256(data).hexdigest() == record["sha256"]


def _check(server: ObjectServer, output: str, expected: Mapping[str, str], before: set[str], found: Found) -> set[str]:
    """Note what is wrong after a kill; returns the results that are there."""
    there = list(pictures_of(server, output))
    for name, sha256, fits in there:
        if not fits or sha256 != expected[name]:
            found.differing += 1
            found.notes.append(f"{name}: {'other than undisturbed' if fits else 'does not fit its sidecar'}")
    names = {name for name, _, _ in there}
    found.lost += len(before - names)
    return names


def _plain(server: ObjectServer, output: str) -> set[str]:
    """Keys below an output but for records of runs."""
    return {
        key.removeprefix(f"{output}/") for key in server.keys(_BUCKET, f"{output}/") if f"{output}/runs/" not in key
    }


def measure(scans: int, kills: int, engine: str, shape_yx: tuple[int, int], limit: str, seed: int) -> Found:
    """Run the benchmark and print its table."""
    found, draws = Found(), random.Random(seed)
    with object_server() as server, tempfile.TemporaryDirectory(prefix="object-storage-") as name:
        server.make_bucket(_BUCKET)
        make_scans(server, scans, shape_yx)
        command = _Command(server, Path(name), engine, limit)
        with _Watch(Path(name)) as watch:
            code, seconds = command.finish("undisturbed")
        expected = {name: sha256 for name, sha256, _ in pictures_of(server, "undisturbed")}
        sizes = server.keys(_BUCKET, "undisturbed/")
        every = sum(size for key, size in sizes.items() if not is_small(key.removeprefix("undisturbed/")))
        print(f"undisturbed: exit code {code}, {seconds:.0f} s, {len(expected)} results, {len(sizes)} objects")
        print(
            f"work: at most {watch.most / 1e6:.1f} MB here, of {every / 1e6:.1f} MB of stores and pictures", flush=True
        )
        moments = sorted(draws.randrange(1, len(sizes)) for _ in range(kills))
        done, before = 0, set[str]()
        for moment in moments:
            done += command.killed_at("disturbed", moment)
            before = _check(server, "disturbed", expected, before, found)
            print(f"killed at {moment} objects: {len(before)} results", flush=True)
        code, _ = command.finish("disturbed")
        before = _check(server, "disturbed", expected, before, found)
        found.lost += len(expected) - len(before)
        found.left = len(_plain(server, "disturbed") - _plain(server, "undisturbed"))
        again, _ = command.finish("disturbed")
        print(f"\n| scans | kills | in time | exit codes | lost | differing | left |\n|{'---|' * 7}")
        print(f"| {scans} | {kills} | {done} | {code}, {again} | {found.lost} | {found.differing} | {found.left} |")
        print("\n".join(found.notes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", default="identity")
    parser.add_argument("--side", default="200x300", help="height x width of the scans in pixels")
    parser.add_argument("--work-limit", default="500KB")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    height, width = map(int, asked.side.split("x"))
    found = measure(asked.scans, asked.kills, asked.engine, (height, width), asked.work_limit, asked.seed)
    sys.exit(bool(found.lost or found.differing or found.left))


if __name__ == "__main__":
    main()
