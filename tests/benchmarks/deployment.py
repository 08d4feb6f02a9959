"""What a deployment costs beside the plain command: python -m tests.benchmarks.deployment [--scans 200] [--runs 3]

Scans of 1 megapixel, engine ``identity``, so that nothing but the way to it counts. ``deploy/up`` runs meanwhile. In
each round, one after the other, each into a new folder:

plain        ``colorize-archive run``, with a Prefect server of its own, as of a user who has none
deployment   ``prefect deployment run colorize-archive --watch``, through server and worker, with its artifacts

Medians and their ratio are printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from tests.deploy.conftest import UP, free_port

SIDE_PX = 1000


def make_scans(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).random((6, 8)).astype(np.float32)
        smooth = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:03}.tif"), np.rint(smooth.clip(0, 1) * 255).astype(np.uint8))


def seconds_of(command: list[object], environment: dict[str, str], output: Path, count: int) -> float:
    """Of a command that has to leave ``count`` results."""
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, capture_output=True, env=environment)
    seconds = time.perf_counter() - began
    if (found := len(list(output.glob("*.color.tif")))) != count:
        raise SystemExit(f"{found} of {count} results in {output}")
    return seconds


def rounds(work: Path, count: int, runs: int) -> list[tuple[float, float]]:
    """Seconds of the plain command and of the deployment."""
    scans, home = work / "scans", work / "prefect"
    make_scans(scans, count)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    served = {**plain, "PREFECT_HOME": str(home)}
    plain["PREFECT_HOME"] = str(work / "plain")
    up = [sys.executable, str(UP), "--home", str(home)]
    subprocess.run([*up, "--detach", "--port", str(free_port())], check=True, env=served)
    try:
        found = []
        for number in range(runs):
            one, other = work / f"plain{number}", work / f"deployment{number}"
            run = [sys.executable, "-m", "flows.cli", "run", scans, "-o", one, "--engine", "identity"]
            asked = ["-p", f'inputs=["{scans}"]', "-p", f"output={other}", "-p", "engine=identity"]
            deployment = [sys.executable, "-m", "prefect", "deployment", "run", "colorize-archive", *asked, "--watch"]
            found.append((seconds_of(run, plain, one, count), seconds_of(deployment, served, other, count)))
            print(f"round {number + 1}: {found[-1][0]:.1f} s, {found[-1][1]:.1f} s", file=sys.stderr, flush=True)
        return found
    finally:
        subprocess.run([*up, "--stop"], check=True, env=served)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, deployment = zip(*rounds(Path(folder), asked.scans, asked.runs), strict=True)
    ratios = [b / a for a, b in zip(plain, deployment, strict=True)]
    print("| scans | plain command | deployment | ratio |\n|---|---|---|---|")
    medians = statistics.median(plain), statistics.median(deployment), statistics.median(ratios)
    print(f"| {asked.scans} | {medians[0]:.1f} s | {medians[1]:.1f} s | {medians[2]:.2f} |")


if __name__ == "__main__":
    main()
