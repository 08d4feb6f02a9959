"""System 2: training and validation loss on its own NumPy files, and examples."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np

from training.data import Subset, open_collection
from training.data.arrays import find_arrays
from training.data.batches import squeezed
from training.data.files import files_under
from training.reproduce.page import Figure, Page
from training.reproduce.study import Study, Variant, settings
from training.reproduce.tables import READING, measured

_SMALL = settings(phases__0__crop_px=112, phases__0__batch=8, generator_options__width=16)
_PARTS = 3  # chroma files, as in the report's data set


def make_page(study: Study) -> Page:
    """The page of the report's run, and of the same run from random weights."""
    data = study.request.data
    packed = study.request.out / "arrays"
    is_packed = not find_arrays(data, files_under(data))
    side_px = 224 if study.request.full else 112
    if is_packed and not packed.is_dir():
        pack(data, packed, study.wanted_pictures, study.request.folders, side_px)
    source = packed if is_packed else data
    variants = {
        "MobileNetV2, pretrained": Variant("mobilenet-fusion", (), _SMALL, source),
        "MobileNet V1, random": Variant(
            "mobilenet-fusion", ("generator_options.version=1", "pretrained=null"), _SMALL, source
        ),
    }
    trained = study.train(variants)
    rows = study.measure(trained, "table")
    page = Page("Local features fused with MobileNet", study.intro(trained))
    if is_packed:
        page.intro.append(
            f"The photographs were packed into the report's layout: gray_scale.npy and {_PARTS} ab*.npy of "
            f"{side_px} x {side_px} px, 8-bit Lab."
        )
    page.add(
        "Training and validation loss",
        *(Figure(each.curves, f"{name}: mean squared error of a*, b*") for name, each in trained.items()),
        "Both are of the run's own pictures at the size of its training, the validation of the fifth held out.",
    )
    page.add("On held-out pictures", measured(rows), READING)
    page.add("Examples", Figure(study.request.out / "table" / "sheet.jpg", "Gray, each run, truth"))
    return page


def pack(data: Path, out: Path, pictures: int, folders: tuple[str, ...], side_px: int) -> None:
    """Convert photographs to the report's NumPy files, whole or not at all.

    Raises
    ------
    DataError : no photographs.
    """
    collection = open_collection(data, 0, Subset(pictures, folders))
    halves = (collection.train, collection.test)
    count = sum(map(len, halves))
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    lightness = np.lib.format.open_memmap(part / "gray_scale.npy", "w+", np.uint8, (count, side_px, side_px))
    bounds = [count * i // _PARTS for i in range(_PARTS + 1)]
    chroma = [
        np.lib.format.open_memmap(part / f"ab{i + 1}.npy", "w+", np.uint8, (end - start, side_px, side_px, 2))
        for i, (start, end) in enumerate(itertools.pairwise(bounds))
    ]
    samples = (half.read(i) for half in halves for i in range(len(half)))
    for index, sample in enumerate(samples):
        lab = cv2.cvtColor(squeezed(sample.pixels, (side_px, side_px)), cv2.COLOR_RGB2Lab)
        lightness[index] = lab[..., 0]
        which = next(i for i in range(_PARTS) if index < bounds[i + 1])
        chroma[which][index - bounds[which]] = lab[..., 1:]
    del lightness, chroma  # writes the mapped files
    os.replace(part, out)
