"""The stem's tokens of every picture, computed once and kept: training the last blocks then takes minutes.

A cache is a folder of NumPy files, two for each half of the collection and view: tokens in half precision (197 kB for a
view of 16 x 16 cells) and the cells' true colours. They are mapped, not read. An interrupted cache resumes from its
last batch; a cache of other data, views or weights is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.spec import file_sha256
from training.data import Collection
from training.errors import TrainingError
from training.palette.transformer import WIDTH, Stem
from training.palette.views import Views
from training.watch import Show, unwatched

F32 = NDArray[np.float32]
Half = Literal["train", "test"]

_DESCRIPTION = "cache.json"
_BATCH = 16
_REPORT_SECONDS = 30.0


@dataclass(frozen=True)
class FeatureCache:
    """Mapped features of one view of one half.

    Attributes
    ----------
    tokens : (pictures, 1 + cells**2, WIDTH) float16
    chroma : (pictures, 2, cells, cells) float16 a*, b*
    """

    tokens: NDArray[np.float16]
    chroma: NDArray[np.float16]


def describe(collection: Collection, views: Views, stem: Path) -> dict[str, Any]:
    """Everything that a cache depends on."""
    return {
        "collection": collection.sha256,
        "views": asdict(views) | {"film": views.film.model_dump()},
        "stem": file_sha256(stem),
    }


def prepare(folder: Path, description: dict[str, Any]) -> None:
    """Make ``folder`` a cache for ``description``.

    Raises
    ------
    TrainingError : ``folder`` is a cache with another description.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _DESCRIPTION
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    if not path.is_file():
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    elif path.read_text(encoding="utf-8") != text:
        raise TrainingError(f"{folder}: features of other pictures, views or weights; give another --features folder")


def fill(
    folder: Path,
    collection: Collection,
    views: Views,
    stem: Path,
    wanted: tuple[tuple[Half, int], ...],
    report: Callable[[str], None] = print,
    show: Show = unwatched,
) -> None:
    """Compute the missing features of the ``wanted`` (half, view number).

    Parameters
    ----------
    stem : the ONNX file of the stem
    show : gets how far it is after each batch, for a line that is redrawn

    Raises
    ------
    TrainingError : ``folder`` is a cache of something else. DataError : a picture can no longer be read.
    """
    prepare(folder, describe(collection, views, stem))
    missing = [(half, number) for half, number in wanted if _done(folder, half, number) < len(_half(collection, half))]
    if not missing:
        return
    see = _on_gpu(stem, views.cells) if torch.cuda.is_available() else _on_processors(stem)
    for half, number in missing:
        _fill_one(folder, collection, views, see, half, number, report, show)


def opened(folder: Path, half: Half, number: int) -> FeatureCache:
    """The features of a filled view, mapped for reading."""
    tokens, chroma = (np.load(path, mmap_mode="r") for path in _paths(folder, half, number))
    return FeatureCache(tokens, chroma)


def is_filled(folder: Path, half: Half, number: int, pictures: int) -> bool:
    """True if a view has the features of all ``pictures``."""
    return _done(folder, half, number) == pictures


def _fill_one(
    folder: Path,
    collection: Collection,
    views: Views,
    see: Callable[[F32], NDArray[Any]],
    half: Half,
    number: int,
    report: Callable[[str], None],
    show: Show,
) -> None:
    count, tokens_each = len(_half(collection, half)), 1 + views.cells**2
    shapes = ((count, tokens_each, WIDTH), (count, 2, views.cells, views.cells))
    paths = _paths(folder, half, number)
    first = _done(folder, half, number)
    mode: Literal["r+", "w+"] = "r+" if first else "w+"
    tokens, chroma = (open_memmap(p, mode, np.float16, shape) for p, shape in zip(paths, shapes, strict=True))
    started = told = time.monotonic()
    for start, gray, truth in _batches(collection, views, half, number, first):
        rows = slice(start, start + len(gray))
        tokens[rows], chroma[rows] = see(gray[:, None]), truth
        done, now = rows.stop, time.monotonic()
        rate = (rows.stop - first) / (now - started)
        left = (count - done) / rate
        line = f"features of {half} view {number}: {done} of {count}, {rate:.1f} a second, {left:.0f} s left"
        show(line)
        if now - told > _REPORT_SECONDS or rows.stop >= count:
            told = now
            tokens.flush()
            chroma.flush()
            _set_done(folder, half, number, done)
            report(line)


def _on_processors(stem: Path) -> Callable[[F32], NDArray[Any]]:
    """The stem in OpenVINO, in bf16 if the processor has it: 2.5 times as fast as torch in one run."""
    core = openvino.Core()
    network = core.read_model(stem)
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32"})
    return lambda gray: np.asarray(compiled(gray)[0])


def _on_gpu(path: Path, cells: int) -> Callable[[F32], NDArray[Any]]:
    device = torch.device("cuda")
    stored = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    weights = {name.removesuffix(".float16"): torch.tensor(values).float() for name, values in stored.items()}
    stem = Stem(len({name.split(".")[1] for name in weights if name.startswith("blocks.")}), cells)
    stem.load_state_dict({name: weights[name] for name in stem.state_dict()})
    stem.eval().to(device)

    def see(gray: F32) -> NDArray[Any]:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            return np.asarray(stem(torch.from_numpy(gray).to(device)).half().cpu())

    return see


def _batches(
    collection: Collection, views: Views, half: Half, number: int, first: int
) -> Iterator[tuple[int, F32, F32]]:
    """First index, (N, side, side) gray and (N, 2, cells, cells) truth; the next batch is made in the meantime."""
    pictures = _half(collection, half)

    def make(start: int) -> tuple[int, F32, F32]:
        made = [views.view(pictures.read(i), i, number) for i in range(start, min(start + _BATCH, len(pictures)))]
        gray, truth = (np.stack(part) for part in zip(*made, strict=True))
        return start, gray, truth

    starts = range(first, len(pictures), _BATCH)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, starts[0])
        for following in starts[1:]:
            made, ahead = ahead.result(), pool.submit(make, following)
            yield made
        yield ahead.result()


def _half(collection: Collection, half: Half) -> Any:
    return collection.train if half == "train" else collection.test


def _paths(folder: Path, half: Half, number: int) -> tuple[Path, Path]:
    return folder / f"{half}_{number}.tokens.npy", folder / f"{half}_{number}.chroma.npy"


def _done(folder: Path, half: Half, number: int) -> int:
    path = folder / f"{half}_{number}.done"
    return int(path.read_text()) if path.is_file() else 0


def _set_done(folder: Path, half: Half, number: int, count: int) -> None:
    part = folder / f"{half}_{number}.done.part"
    part.write_text(str(count))
    os.replace(part, folder / f"{half}_{number}.done")
