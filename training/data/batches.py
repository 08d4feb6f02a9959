"""Batches of lightness and colour, each a function of (seed, step) alone: a resumed run gets the same batches.

Pictures are dealt like cards: all of them once in an order given by (seed, round), then all again in another order. A
batch at the end of a round is filled up from the next round, so all batches have the same size.

Worker processes make the batches if there are processors for them, otherwise one thread of this process. On two busy
processors a batch of 16 crops of 128 pixels with film takes the thread 12 ms, one worker 18 ms and two workers 20 ms,
as workers also have to send it; a training step takes 200 to 400 ms on the same processors, so workers gain nothing. A
step on a GPU takes tens of milliseconds: there half of the processors, at most eight, make batches
(tests.benchmarks.training_data).
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.machine import no_semaphores, processors
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples, rgb_from_lab
from training.config import Phase, Recipe, Schedule
from training.data.decode import U8
from training.data.film import age
from training.data.palettes import spoiled
from training.data.pictures import Pictures, Sample, processes_here
from training.errors import DataError

F32 = NDArray[np.float32]

_AHEAD = 2
# Pixels converted at once. They fit into the processor's cache, and the product with the 3 x 3 matrix is too small for
# the linear algebra library to start its own threads: 1.2 ms for 256 x 256 pixels, not 8.
_STRIP_PX = 2**14
_MOST_WORKERS = 8
_PALETTE_PX = 96
_ORDER, _FILM, _PALETTE = 1, 2, 3  # third word of a seed; crops have none
# Runs after a worker's queue is flushed, which multiprocessing does at priority -5.
_LAST = -100


class Batch(NamedTuple):
    """float32 arrays, of NumPy from :func:`make_batch` and of torch from :func:`batches`.

    ``lightness`` is (N, 1, H, W) in [-1, 1]. If the recipe has a palette, it is (N, 3, H, W): lightness, then the
    palette's a*, b* over the chroma scale. ``colour`` is (N, 2, H, W) a*, b* over the recipe's chroma scale, clipped to
    [-1, 1], or (N, 3, H, W) RGB in [-1, 1].
    """

    lightness: Any
    colour: Any


@functools.lru_cache(maxsize=4)
def _order(seed: int, round_: int, pictures: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_, _ORDER]).permutation(pictures)


def picture_indices(pictures: int, schedule: Schedule, step: int, count: int) -> list[int]:
    """Indices of the pictures in the batch of ``step``: the next ``count`` cards of the deck."""
    dealt, left = 0, step
    for phase in schedule.recipe.phases:
        inside = min(left, schedule.phase_steps(phase))
        dealt += inside * phase.batch
        left -= inside
    dealt += left * schedule.recipe.phases[-1].batch
    seed = schedule.recipe.seed
    return [int(_order(seed, n // pictures, pictures)[n % pictures]) for n in range(dealt, dealt + count)]


def _rectangle(
    pixels: U8, crop_yx: tuple[int, int], smallest_px: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random rectangle with the aspect ratio of ``crop_yx``.

    Its short side is log-uniform between ``smallest_px`` and the largest that fits into the picture.
    """
    short = min(crop_yx)
    largest = min(side * short / wanted for side, wanted in zip(pixels.shape, crop_yx, strict=False))
    drawn = np.exp(rng.uniform(np.log(min(smallest_px, largest)), np.log(largest)))
    # Rounded down, because rounding up could exceed the picture.
    height, width = (max(1, int(drawn * wanted / short)) for wanted in crop_yx)
    top, left = rng.integers(pixels.shape[0] - height + 1), rng.integers(pixels.shape[1] - width + 1)
    return int(top), int(left), height, width


def squeezed(pixels: U8, crop_yx: tuple[int, int]) -> U8:
    """The whole picture, resized to the height and width ``crop_yx``."""
    # OpenCV averages areas only if neither side grows, so a panorama is first shortened and then made higher.
    smaller = (min(pixels.shape[0], crop_yx[0]), min(pixels.shape[1], crop_yx[1]))
    if smaller != pixels.shape[:2]:
        pixels = cv2.resize(pixels, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != crop_yx:
        pixels = cv2.resize(pixels, crop_yx[::-1], interpolation=cv2.INTER_LINEAR)
    return pixels


def _lab_in_strips(pixels: U8) -> F32:
    """(3, H, W) L*, a*, b* of (H, W, 3) RGB: :func:`lab_from_rgb` of a few rows at a time."""
    height, width = pixels.shape[:2]
    lab = np.empty((3, height, width), np.float32)
    step = max(1, _STRIP_PX // width)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        lab[:, rows] = lab_from_rgb(pixels[rows].astype(np.float32) / np.float32(255))
    return lab


def _lab_of(sample: Sample) -> F32:
    """(3, H, W) L*, a*, b* of a decoded picture."""
    if sample.space == "rgb":
        return _lab_in_strips(sample.pixels)
    lab = sample.pixels.transpose(2, 0, 1).astype(np.float32)
    lab[0] *= np.float32(100 / 255)
    lab[1:] -= np.float32(128)
    return lab


def _lightness_and_colour(sample: Sample, recipe: Recipe) -> tuple[F32, F32]:
    """(H, W) lightness in [0, 1] and (2 or 3, H, W) truth as in a batch."""
    if sample.space == "rgb" and recipe.colour == "rgb":
        rgb = sample.pixels.astype(np.float32) / np.float32(255)
        return lightness_from_samples(sample.pixels) / np.float32(100), rgb.transpose(2, 0, 1) * 2 - 1
    lab = _lab_of(sample)
    if recipe.colour == "rgb":
        return lab[0] / np.float32(100), rgb_from_lab(lab[0], lab[1:]).transpose(2, 0, 1) * 2 - 1
    return lab[0] / np.float32(100), np.clip(lab[1:] / np.float32(recipe.chroma_scale), -1, 1)


def make_batch(pictures: Pictures, recipe: Recipe, phase: Phase, step: int) -> Batch:
    """The batch of ``step`` in ``phase``, as NumPy arrays.

    Raises
    ------
    DataError : a picture can no longer be read.
    """
    return _make_batch(pictures, recipe.schedule(len(pictures)), phase, step)


def _make_batch(pictures: Pictures, schedule: Schedule, phase: Phase, step: int) -> Batch:
    recipe, crop_yx = schedule.recipe, phase.crop_px
    random = _Random(*(np.random.default_rng([recipe.seed, step, *word]) for word in ((), (_FILM,), (_PALETTE,))))
    given = np.empty((phase.batch, recipe.given_channels if recipe.palette else 1, *crop_yx), np.float32)
    colour = np.empty((phase.batch, recipe.output_channels, *crop_yx), np.float32)
    for i, index in enumerate(picture_indices(len(pictures), schedule, step, phase.batch)):
        _make_one(pictures.read(index), recipe, random, given[i], colour[i])
    return Batch(given, colour)


class _Random(NamedTuple):
    """Separate random streams, so that changing one option of a recipe leaves the other draws unchanged."""

    crops: np.random.Generator
    films: np.random.Generator
    palettes: np.random.Generator


def _make_one(sample: Sample, recipe: Recipe, random: _Random, given: F32, colour: F32) -> None:
    """Fill ``given`` (1 or 3, H, W) and ``colour`` (2 or 3, H, W) with a crop of one picture."""
    pixels, crop_yx = sample.pixels, (given.shape[1], given.shape[2])
    height, width = pixels.shape[:2]
    place = (0, 0, height, width)
    if recipe.crop == "random":
        place = _rectangle(pixels, crop_yx, recipe.smallest_crop_px, random.crops)
    top, left, rows, columns = place
    crop = squeezed(pixels[top : top + rows, left : left + columns], crop_yx)
    flips = recipe.flip and random.crops.random() < 0.5
    crop = crop[:, ::-1] if flips else crop
    clean, colour[:] = _lightness_and_colour(Sample(crop, sample.space), recipe)
    given[0] = age(np.clip(clean, 0, 1), recipe.film, random.films) * 2 - 1
    if recipe.palette:
        inside = (top / height, left / width, rows / height, columns / width)
        palette = spoiled(_small_chroma(sample), inside, crop_yx, recipe.palette, random.palettes)
        scale = np.float32(recipe.chroma_scale)
        given[1:] = (palette.palette[:, :, ::-1] if flips else palette.palette) / scale
        colour[:] = np.clip(colour * palette.gain + palette.tint[:, None, None] / scale, -1, 1)


def _small_chroma(sample: Sample) -> F32:
    """(2, h, w) a*, b* of the whole picture, its short side at most 96 px: enough for the means of cells."""
    short = min(sample.pixels.shape[:2])
    size = tuple(max(1, round(side * _PALETTE_PX / short)) for side in sample.pixels.shape[:2])
    small = squeezed(sample.pixels, size) if short > _PALETTE_PX else sample.pixels  # type: ignore[arg-type]
    return _lab_of(Sample(small, sample.space))[1:]


@dataclass(frozen=True)
class _Steps:
    """The data set of a torch DataLoader: item ``step`` is a whole batch, or an error in one line."""

    pictures: Pictures
    schedule: Schedule

    def __len__(self) -> int:
        return self.schedule.total_steps

    def __getitem__(self, step: int) -> Batch | str:
        # torch would raise a worker's error again with the worker's traceback inside its message.
        try:
            return _make_batch(self.pictures, self.schedule, self.schedule.phase_at(step), step)
        except DataError as error:
            return str(error)


@contextmanager
def _fit_to_fork() -> Iterator[None]:
    """Set the state that workers inherit: one OpenCV thread, and Ctrl-C ignored.

    OpenCV's thread pool does not survive a fork, and a forked process would wait for it for ever; with one thread there
    is no pool. A terminal sends Ctrl-C to all processes, but the training process alone handles it, and may still need
    a last batch. Both must hold from a worker's first moment, so they are set here and not in the worker.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        cv2.setNumThreads(threads)


def _end_alone(_: int) -> None:
    """Let this worker exit without the exit handlers that libraries registered in its parent process.

    Once a flow has run in the training process, the handlers of Prefect's services would end the worker with exit code
    1: the queues that they drain at exit do not survive a fork.
    """
    multiprocessing.util.Finalize(None, os._exit, args=(0,), exitpriority=_LAST)


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def default_workers(schedule: Schedule) -> int:
    """Number of worker processes for this machine; 0 is a thread. The module's docstring has the measurements."""
    available = processors() // processes_here()
    if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.current_process().daemon:
        return 0  # without fork, workers share no cache; a daemonic process may have no children
    if no_semaphores():
        return 0
    if available <= 2 and not _cuda():
        return 0
    workers = min(_MOST_WORKERS, max(1, available // 2))
    # Batches pass through shared memory, of which a container has 64 MB by default; a worker dies if it needs more.
    recipe = schedule.recipe
    largest = max(phase.batch * math.prod(phase.crop_px) for phase in recipe.phases) * 4 * (1 + recipe.output_channels)
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free // (2 * largest * (_AHEAD + 1)) if shared.is_dir() else workers
    return min(workers, room)


def batches(pictures: Pictures, schedule: Schedule, first_step: int = 0, workers: int | None = None) -> Iterator[Batch]:
    """Batches of torch tensors for steps ``first_step`` to the schedule's last; the same for any number of ``workers``.

    Parameters
    ----------
    schedule : may be for fewer than all ``pictures``, if several processes train and each counts its own steps
    workers : processes that make batches, 0 for a thread of this process; by default chosen for the machine

    Raises
    ------
    DataError : a picture can no longer be read.
    """
    workers = default_workers(schedule) if workers is None else workers
    made = _by_processes if workers else _by_thread
    for batch in made(_Steps(pictures, schedule), range(first_step, schedule.total_steps), workers):
        if isinstance(batch, str):
            raise DataError(batch)
        yield batch


def _by_processes(dataset: _Steps, steps: range, workers: int) -> Iterator[Batch | str]:
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        pin_memory=_cuda(),
        # Otherwise the workers' seeds would come from torch's global generator, and a resumed run, which draws them
        # once more, would get different dropout.
        generator=torch.Generator(),
        # Only forked workers share the cache of pictures; torch's default depends on the platform, and may change.
        multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
        worker_init_fn=_end_alone,
    )
    with _fit_to_fork():
        made = iter(loader)
    yield from made


def _by_thread(dataset: _Steps, steps: range, _: int) -> Iterator[Batch | str]:
    import torch

    pin = _cuda()

    def make(step: int) -> Batch | str:
        made = dataset[step]
        if isinstance(made, str):
            return made
        tensors = (torch.from_numpy(array) for array in made)
        return Batch(*(tensor.pin_memory() if pin else tensor for tensor in tensors))

    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        ahead: list[Future[Batch | str]] = [pool.submit(make, step) for step in steps[:_AHEAD]]
        for step in steps:
            made = ahead.pop(0).result()
            if step + _AHEAD in steps:
                ahead.append(pool.submit(make, step + _AHEAD))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
