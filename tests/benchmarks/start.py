"""python -m tests.benchmarks.start OTHER [--scans 10000] [--repeats 5]

How long a command takes to begin, and to find that nothing is to be done: this checkout beside another one, such as the
release before, in one run. Both run with this Python, so that libraries are the same; OTHER is a folder, such as one of
``git worktree add OTHER v0.6.0``.

Each command runs with one after the other, after one run of each that is not counted. A cell has the median of the
seconds on the clock and, in brackets, of the processor's seconds of all processes: on a machine that does other
work too, the second say more. Each checkout colours the scans that are then unchanged itself, with the identity engine:
10,000 take it some ten minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np

HERE = Path(__file__).parents[2]
_SCAN = HERE / "tests/scans/peasant-girls-1909.png"
_SIDE_PX = 1000
_TINY_YX = (24, 32)


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


def unchanged_scans(folder: Path, count: int) -> Path:
    """A folder of ``count`` scans, all of which are different."""
    scans = folder / "scans"
    scans.mkdir()
    for number in range(count):
        cv2.imwrite(str(scans / f"{number:06}.png"), np.random.default_rng(number).integers(0, 256, _TINY_YX, np.uint8))
    return scans


def cases(checkout: Path, folder: Path, scans: Path) -> list[Case]:
    """The commands of a checkout, with what they need in ``folder``."""
    one = folder / "one"
    one.mkdir(parents=True)
    gray = cv2.imread(str(_SCAN), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(one / "scan.png"), cv2.resize(gray, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA))
    coloured, nowhere, output = folder / "coloured", str(folder / "nowhere"), str(folder / "results")
    unchanged = ("run", str(scans), "-o", output, "--engine", "identity")
    timed(checkout, Case("", unchanged))
    return [
        Case("`--help`", ("--help",)),
        Case("a wrong value", ("run", str(one), "-o", nowhere, "--tile", "64", "--stride", "65"), code=2),
        Case("an input that is not there", ("run", str(folder / "nothing"), "-o", nowhere), code=2),
        Case(f"{len(list(scans.iterdir()))} unchanged scans", unchanged),
        Case("one scan of 1 MP", ("run", str(one), "-o", str(coloured)), fresh=coloured),
    ]


def table(checkouts: Mapping[str, Path], every: Mapping[str, Sequence[Case]], repeats: int) -> str:
    """The medians as a table in Markdown."""
    lines = [f"| command | {' | '.join(checkouts)} |", f"|---|{'---|' * len(checkouts)}"]
    for same in zip(*every.values(), strict=True):
        runs: list[list[Seconds]] = [[] for _ in checkouts]
        for _ in range(repeats + 1):
            for checkout, case, seconds in zip(checkouts.values(), same, runs, strict=True):
                seconds.append(timed(checkout, case))
        lines.append(f"| {same[0].name} | {' | '.join(_cell(seconds[1:]) for seconds in runs)} |")
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
        scans = unchanged_scans(Path(made), asked.scans)
        checkouts = {str(asked.other): asked.other.resolve(), "here": HERE}
        every = {name: cases(each, Path(made) / str(n), scans) for n, (name, each) in enumerate(checkouts.items())}
        print(table(checkouts, every, asked.repeats))


if __name__ == "__main__":
    main()
