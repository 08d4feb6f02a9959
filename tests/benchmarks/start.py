"""python -m tests.benchmarks.start OTHER [--scans 10000] [--repeats 5]

How long a command takes to begin, and to find that nothing is to be done: this checkout beside another one, such as the
release before, in one run. Both run with this Python, so that libraries are the same; OTHER is a folder, such as one of
``git worktree add OTHER v0.6.0``.

Each command runs with one after the other, after one run of each that is not counted. A cell has the median of the
seconds on the clock and, in brackets, of the processor's seconds of all processes: on a machine that does other
work too, the second say more. The folder of unchanged scans is one result, copied: pictures by hard links, sidecars
with the names of the copies, and the catalogue that is made from them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from flows.catalogue.database import FILE, rebuild
from pipeline.support.files import tree_sha256
from pipeline.support.fingerprint import StatFingerprint

HERE = Path(__file__).parents[2]
_SCAN = HERE / "tests/scans/peasant-girls-1909.png"
_SIDE_PX = 1000
_TINY_YX = (24, 32)
_LONG_AGO_S = 10**9  # a file this old shows any change in its times
_COLUMNS = ("bytes", "modified_ns", "changed_ns", "inode")


@dataclass(frozen=True)
class Case:
    """A command to time, the exit code that it must have, and the folder to remove before each run."""

    name: str
    words: Sequence[str]
    code: int = 0
    fresh: Path | None = None


@dataclass(frozen=True)
class Seconds:
    """Of one run of a command: on the clock, and of the processors."""

    clock: float
    processors: float


def timed(checkout: Path, case: Case) -> Seconds:
    """Run a command from a checkout; its exit code is checked."""
    if case.fresh is not None:
        shutil.rmtree(case.fresh, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
    before, began = _of_children(), time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", *case.words]
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    clock = time.perf_counter() - began
    # Releases before refuse inputs that are not there as failures of scans.
    if ran.returncode != case.code and not (case.code == 2 and ran.returncode == 1):
        raise SystemExit(f"{checkout}: {' '.join(case.words)} ended with {ran.returncode}: {ran.stderr}")
    return Seconds(clock, _of_children() - before)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def unchanged_scans(folder: Path, count: int) -> tuple[Path, Path]:
    """``count`` scans in one folder and their results in another: those of one that is coloured, copied."""
    scans, output = folder / "scans", folder / "results"
    scans.mkdir()
    first = scans / f"{0:06}.png"
    cv2.imwrite(str(first), np.random.default_rng(0).integers(0, 256, _TINY_YX, np.uint8))
    timed(HERE, Case("", ("run", str(scans), "-o", str(output))))
    sidecar = json.loads((output / f"{first.stem}.color.json").read_text())
    for number in range(1, count):
        _copy(scans / f"{number:06}.png", first, output, sidecar)
    for path in scans.iterdir():
        os.utime(path, (_LONG_AGO_S, _LONG_AGO_S))
    with rebuild(output):
        pass
    _remember(output, sorted(scans.iterdir()))
    return scans, output


def _copy(scan: Path, first: Path, output: Path, sidecar: Mapping[str, object]) -> None:
    shutil.copyfile(first, scan)
    text = json.dumps(sidecar).replace(first.name, scan.name).replace(f'"{first.stem}.', f'"{scan.stem}.')
    (output / f"{scan.stem}.color.json").write_text(text)
    (output / f"{scan.stem}.color.tif").hardlink_to(output / f"{first.stem}.color.tif")


def _remember(output: Path, scans: Sequence[Path]) -> None:
    """Put the scans' hashes into the catalogue, as the runs do that read them."""
    sha256 = tree_sha256(scans[0])
    rows = [(str(scan), *vars(StatFingerprint.of(scan)).values(), sha256, 1) for scan in scans]
    columns = ", ".join(("path", *_COLUMNS, "sha256", "pages"))
    with closing(sqlite3.connect(output / FILE)) as connection, connection:
        connection.executemany(f"INSERT OR REPLACE INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def cases(folder: Path, count: int) -> list[Case]:
    """The commands, with what they need in ``folder``."""
    one = folder / "one"
    one.mkdir()
    gray = cv2.imread(str(_SCAN), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(one / "scan.png"), cv2.resize(gray, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA))
    scans, output = unchanged_scans(folder, count)
    coloured, nowhere = folder / "coloured", str(folder / "nowhere")
    return [
        Case("`--help`", ("--help",)),
        Case("a wrong value", ("run", str(one), "-o", nowhere, "--tile", "64", "--stride", "65"), code=2),
        Case("an input that is not there", ("run", str(folder / "nothing"), "-o", nowhere), code=2),
        Case(f"{count} unchanged scans", ("run", str(scans), "-o", str(output))),
        Case("one scan of 1 MP", ("run", str(one), "-o", str(coloured)), fresh=coloured),
    ]


def table(checkouts: Mapping[str, Path], every: Sequence[Case], repeats: int) -> str:
    """The medians as a table in Markdown."""
    lines = [f"| command | {' | '.join(checkouts)} |", f"|---|{'---|' * len(checkouts)}"]
    for case in every:
        # One after the other: a catalogue of another layout is made anew, by the run that is not counted.
        runs = {name: [timed(checkout, case) for _ in range(repeats + 1)][1:] for name, checkout in checkouts.items()}
        lines.append(f"| {case.name} | {' | '.join(_cell(runs[name]) for name in checkouts)} |")
    return "\n".join(lines)


def _cell(runs: Sequence[Seconds]) -> str:
    return f"{median(run.clock for run in runs):.1f} ({median(run.processors for run in runs):.1f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        checkouts = {str(asked.other): asked.other.resolve(), "here": HERE}
        print(table(checkouts, cases(Path(made), asked.scans), asked.repeats))


if __name__ == "__main__":
    main()
