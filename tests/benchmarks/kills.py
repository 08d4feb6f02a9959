"""Kills of runs whose colours are made from others: python -m tests.benchmarks.kills [--kills 10] [--only graded]

SIGKILL to the whole process group of a graded, a hinted or a series run, at moments spread over the time that an
undisturbed one takes; then the same command again. Counted are bytes of pictures and colours that differ from those of
the undisturbed run, and pictures that were half-written under their own names when the run was killed. Both must be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from pipeline.support.files import file_sha256
from tests.benchmarks.faults import PHOTOGRAPH, differing_bytes

KINDS = ("graded", "hinted", "series")
_SIDE_PX = 900
_RUN = ("--precision", "fp32", "--tile", "128")


@dataclass(frozen=True)
class Ended:
    """What became of a run that was killed: after how many seconds, and what was wrong with what it left."""

    seconds: float
    half_written: int
    differing: int
    code: int

    @property
    def is_good(self) -> bool:
        return not (self.half_written or self.differing or self.code)


def command(words: Sequence[str], kill_after: float | None = None) -> tuple[int, float]:
    """Exit code and seconds of ``colorize-archive``, whose whole process group is killed after so many seconds."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, time.monotonic() - started


def prepare(kind: str, folder: Path) -> tuple[str, ...]:
    """Scans, and ``out`` with what there is before the run; the words of the run, with ``OUT`` for the output."""
    scans, output = folder / "scans", folder / "out"
    scans.mkdir(parents=True)
    output.mkdir()
    gray = cv2.resize(cv2.imread(str(PHOTOGRAPH), cv2.IMREAD_GRAYSCALE), (2 * _SIDE_PX, _SIDE_PX))
    cv2.imwrite(str(scans / "a.png"), gray[:, :_SIDE_PX])
    run = ("run", str(scans), "-o", "OUT", *_RUN)
    if kind == "series":
        cv2.imwrite(str(scans / "b.png"), gray[:, _SIDE_PX // 2 : _SIDE_PX // 2 + _SIDE_PX])
        return (*run, "--series", str(scans))
    code, _ = command(_in(output, run))
    assert code == 0, "the colours that others are made from"
    if kind == "graded":
        grade = ("--hue-map", "blue>brown", "--colourfulness", "24")
        return ("reprocess", "OUT", *grade)
    hint = {"at": [450, 120], "colour": "#556b2f"}
    hints = {"format": "colorize-archive hints", "version": 1, "hints": [hint]}
    (scans / "a.hints.json").write_text(json.dumps(hints))
    return run


def _in(output: Path, words: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(output) if word == "OUT" else word for word in words)


def half_written(output: Path, expected: Path) -> int:
    """Pictures under their own names that are not as a JSON of this run or of the undisturbed one says."""
    sidecars = [path for folder in (output, expected) for path in folder.rglob("*.color.json")]
    known = {each["sha256"] for path in sidecars for each in json.loads(path.read_text())["pictures"].values()}
    return sum(file_sha256(path) not in known for path in output.glob("*.color.tif"))


def trials(kind: str, kills: int, folder: Path) -> list[Ended]:
    """Kill a kind of run at so many moments."""
    words = prepare(kind, folder)
    expected = shutil.copytree(folder / "out", folder / "expected")
    code, whole = command(_in(expected, words))
    assert code == 0, "the undisturbed run"
    ended = []
    for number in range(kills):
        output = shutil.copytree(folder / "out", folder / f"killed{number}")
        code, seconds = command(_in(output, words), whole * (number + 1) / (kills + 1))
        wrong = half_written(output, expected)
        code, _ = command(_in(output, words))
        ended.append(Ended(seconds, wrong, differing_bytes(output, expected), code))
        shutil.rmtree(output)
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--only", choices=KINDS)
    arguments = parser.parse_args()
    print(
        "| run | kills | at, s | half-written pictures | differing bytes | not ended well |\n|---|---|---|---|---|---|"
    )
    is_good = True
    for kind in (arguments.only,) if arguments.only else KINDS:
        with tempfile.TemporaryDirectory(prefix="colorize-archive-kills-") as name:
            ended = trials(kind, arguments.kills, Path(name) / kind)
        when = f"{min(each.seconds for each in ended):.1f}-{max(each.seconds for each in ended):.1f}"
        sums = (sum(getattr(each, what) for each in ended) for what in ("half_written", "differing"))
        told = " | ".join(map(str, (*sums, sum(each.code != 0 for each in ended))))
        print(f"| {kind} | {len(ended)} | {when} | {told} |", flush=True)
        is_good = is_good and all(each.is_good for each in ended)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
