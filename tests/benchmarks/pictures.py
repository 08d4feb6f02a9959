"""The pictures of the README and of docs/: python -m tests.benchmarks.pictures [--only before-after|strides]

before_after.jpg  a real photograph of 1909: its black-and-white scan, and what the main job makes of it
strides.jpg       system 5's comparison: a 2048x5120 picture at strides 256 and 32, whole and as 1:1 crops
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile

SCANS = Path(__file__).parents[1] / "scans"
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
_GAP_PX = 12


def colour(scan: Path, *options: str) -> np.ndarray:
    """(H, W, 3) BGR result of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", str(scan), "--output", folder, *options]
        subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True)
        return tifffile.imread(next(Path(folder).glob("*.color.tif")))[..., ::-1]


def beside(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Pictures of equal size in a row (axis 1) or a column (axis 0), white between them."""
    gap_shape = list(pictures[0].shape)
    gap_shape[axis] = _GAP_PX
    gap = np.full(gap_shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=axis)


def save(name: str, picture: np.ndarray) -> None:
    PICTURES.mkdir(exist_ok=True)
    cv2.imwrite(str(PICTURES / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(PICTURES / name, picture.shape)


def before_after() -> None:
    scan = SCANS / "peasant-girls-1909.png"
    before = cv2.imread(str(scan))
    save("before_after.jpg", beside([before, colour(scan)], axis=1))


def strides() -> None:
    """The scan enlarged to 5120 columns, 2048 of its rows."""
    gray = cv2.imread(str(SCANS / "sunset-beach.jpg"), cv2.IMREAD_GRAYSCALE)
    wide = cv2.resize(gray, (5120, 2560), interpolation=cv2.INTER_CUBIC)[256:2304]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.png"
        cv2.imwrite(str(path), wide)
        plain = ("--model", "efficientnet-unet", "--window", "average", "--no-anchor")
        coarse, fine = (colour(path, "--stride", stride, *plain) for stride in ("256", "32"))
    crop = (slice(0, 700), slice(640, 1340))  # 2 x 700 + gap = 1412 columns
    small = [cv2.resize(p, (1412, 565), interpolation=cv2.INTER_AREA) for p in (coarse, fine)]
    crops = beside([coarse[crop], fine[crop]], axis=1)
    gap = np.full((_GAP_PX, 1412, 3), 255, np.uint8)
    save("strides.jpg", np.concatenate([small[0], gap, small[1], gap, crops]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["before-after", "strides"])
    only = parser.parse_args().only
    if only != "strides":
        before_after()
    if only != "before-after":
        strides()


if __name__ == "__main__":
    main()
