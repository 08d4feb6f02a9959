"""Batches: what is in them, that a resumed run sees the same ones, and that loading leaves nothing behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("yaml")
pytest.importorskip("torch")

import torch

from pipeline.colour.lab import lab_from_rgb
from tests.benchmarks.training_data import FILM, measure, to_table
from training.config import Phase, Recipe
from training.data import Batch, Pictures, Sample, batches, make_batch, open_collection, picture_indices
from training.data.batches import default_workers, squeezed
from training.errors import DataError


def _recipe(**changes: object) -> Recipe:
    phases = (Phase(steps=3, crop_px=32, batch=4), Phase(steps=3, crop_px=(16, 24), batch=2))
    return Recipe(**{"name": "tiny", "generator": "unet", "smallest_crop_px": 16, "phases": phases, **changes})


@pytest.fixture(scope="module")
def pictures(photographs_folder: Path) -> Pictures:
    return open_collection(photographs_folder).train


def _assert_equal(batch: Batch, other: Batch) -> None:
    for mine, theirs in zip(batch, other, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


# ---- what is in a batch


@pytest.mark.parametrize("crop", ["random", "whole"])
@pytest.mark.parametrize(("colour", "channels"), [("lab", 2), ("rgb", 3)])
def test_shapes_and_ranges(pictures: Pictures, crop: str, colour: str, channels: int) -> None:
    recipe = _recipe(crop=crop, colour=colour, film=FILM)
    for phase, step, shape in ((recipe.phases[0], 0, (4, 32, 32)), (recipe.phases[1], 4, (2, 16, 24))):
        lightness, truth = make_batch(pictures, recipe, phase, step)
        assert lightness.shape == (shape[0], 1, *shape[1:])
        assert truth.shape == (shape[0], channels, *shape[1:])
        assert lightness.dtype == truth.dtype == np.float32
        assert max(abs(lightness).max(), abs(truth).max()) <= 1
        assert np.ptp(lightness) > 0.2
        assert np.ptp(truth) > 0.2


def test_whole_pictures_are_the_pictures_squeezed(pictures: Pictures) -> None:
    recipe = _recipe(crop="whole", flip=False)
    lightness, colour = make_batch(pictures, recipe, recipe.phases[0], 1)
    for i, index in enumerate(picture_indices(len(pictures), recipe.schedule(len(pictures)), 1, 4)):
        small = cv2.resize(pictures.read(index).pixels, (32, 32), interpolation=cv2.INTER_AREA)
        lab = lab_from_rgb(small.astype(np.float32) / 255)
        np.testing.assert_allclose(lightness[i, 0], lab[0] / 50 - 1, atol=1e-5)
        np.testing.assert_allclose(colour[i], lab[1:] / 110, atol=1e-5)


def test_conversion_in_strips_is_the_whole_conversion() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)

    class One:
        def __len__(self) -> int:
            return 1

        def read(self, _: int) -> Sample:
            return Sample(rgb, "rgb")

    recipe = _recipe(crop="whole", flip=False, phases=(Phase(steps=1, crop_px=(200, 150), batch=1),))
    batch = make_batch(One(), recipe, recipe.phases[0], 0)  # type: ignore[arg-type]
    lab = lab_from_rgb(rgb.astype(np.float32) / 255)
    np.testing.assert_allclose(batch.lightness[0, 0], lab[0] / 50 - 1, atol=1e-5)
    np.testing.assert_allclose(batch.colour[0], lab[1:] / 110, atol=1e-5)


def test_rgb_is_the_truth_and_lightness_is_its_own(pictures: Pictures) -> None:
    recipe = _recipe(colour="rgb")
    lightness, rgb = make_batch(pictures, recipe, recipe.phases[0], 0)
    for gray, truth in zip(lightness, rgb, strict=True):
        lab = lab_from_rgb((truth.transpose(1, 2, 0) + 1) / 2)
        np.testing.assert_allclose(gray[0], lab[0] / 50 - 1, atol=1e-3)


@pytest.mark.parametrize("colour", ["lab", "rgb"])
def test_numpy_samples_make_the_batches_of_their_photographs(pictures: Pictures, colour: str) -> None:
    class AsLab:
        def __len__(self) -> int:
            return len(pictures)

        def read(self, index: int) -> Sample:
            return Sample(cv2.cvtColor(pictures.read(index).pixels, cv2.COLOR_RGB2Lab), "lab8")

    recipe = _recipe(colour=colour)
    for mine, theirs in zip(
        make_batch(AsLab(), recipe, recipe.phases[0], 0),  # type: ignore[arg-type]
        make_batch(pictures, recipe, recipe.phases[0], 0),
        strict=True,
    ):
        assert np.abs(mine - theirs).mean() < 0.01  # 8-bit Lab is coarse, most of all in saturated blues
        assert np.abs(mine - theirs).max() < 0.2


def test_film_changes_lightness_and_nothing_else(pictures: Pictures) -> None:
    for colour in ("lab", "rgb"):
        clean, aged = (
            make_batch(pictures, recipe, recipe.phases[0], 0)
            for recipe in (_recipe(colour=colour), _recipe(colour=colour, film=FILM))
        )
        np.testing.assert_array_equal(clean.colour, aged.colour)
        assert np.abs(clean.lightness - aged.lightness).mean() > 0.02


def test_a_flip_happens_only_where_the_recipe_says_so(pictures: Pictures) -> None:
    def lightness(step: int, **changes: object) -> np.ndarray:
        recipe = _recipe(crop="whole", phases=(Phase(steps=9, crop_px=32, batch=4),), **changes)
        return make_batch(pictures, recipe, recipe.phases[0], step).lightness

    turned = 0
    for step in range(5):
        for flipped, plain in zip(lightness(step), lightness(step, flip=False), strict=True):
            same = np.array_equal(flipped, plain)
            assert same or np.array_equal(flipped, plain[..., ::-1])
            turned += not same
    assert 0 < turned < 20


def test_a_panorama_is_squeezed_without_aliasing() -> None:
    stripes = np.zeros((20, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(squeezed(stripes, (32, 32)).astype(int) - 128).max() <= 1


# ---- which pictures, and in which order


def test_each_round_deals_every_picture_once(pictures: Pictures) -> None:
    count, recipe = len(pictures), _recipe(phases=(Phase(epochs=7, crop_px=16, batch=4), Phase(steps=5, batch=3)))
    schedule = recipe.schedule(count)
    dealt = []
    for step in range(schedule.total_steps):
        dealt += picture_indices(count, schedule, step, schedule.phase_at(step).batch)
    rounds = [dealt[start : start + count] for start in range(0, len(dealt) - count + 1, count)]
    assert len(rounds) >= 7
    assert all(sorted(once) == list(range(count)) for once in rounds)
    assert len({tuple(once) for once in rounds}) == len(rounds)


def test_a_batch_is_a_function_of_seed_and_step(pictures: Pictures) -> None:
    recipe = _recipe(film=FILM)
    schedule = recipe.schedule(len(pictures))
    made = [make_batch(pictures, recipe, schedule.phase_at(step), step) for step in range(6)]
    resumed = list(batches(pictures, schedule, 2, workers=0))
    assert len(resumed) == 4
    for batch, again in zip(made[2:], resumed, strict=True):
        _assert_equal(batch, again)
    other = make_batch(pictures, _recipe(seed=1), recipe.phases[0], 0)
    for different in (made[1], other):
        assert not np.array_equal(made[0].lightness, different.lightness)


def test_more_in_a_batch_than_there_are_pictures(pictures: Pictures) -> None:
    schedule = _recipe().schedule(3)
    assert Counter(picture_indices(3, schedule, 0, 9)) == {0: 3, 1: 3, 2: 3}


# ---- workers


_others: set[int | None] = set()


@pytest.fixture(autouse=True)
def _processes_of_other_tests() -> None:
    """The cluster that commands share in a test run lives as long as the run."""
    _others.update(child.pid for child in multiprocessing.active_children())


def _children() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.pid not in _others]


@pytest.fixture
def threaded_opencv() -> Iterator[None]:
    """OpenCV with a pool of threads that has run: a forked process that asked for it would wait for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 5)
    yield
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(threads)


@pytest.mark.usefixtures("threaded_opencv")
def test_any_number_of_workers_makes_the_same_batches(pictures: Pictures) -> None:
    schedule = _recipe(film=FILM).schedule(len(pictures))
    made = [list(batches(pictures, schedule, 1, workers)) for workers in (0, 1, 2)]
    assert [len(stream) for stream in made] == [5, 5, 5]
    for mine, *others in zip(*made, strict=True):
        assert isinstance(mine, Batch)
        assert isinstance(mine.lightness, torch.Tensor)
        for other in others:
            assert isinstance(other, Batch)
            _assert_equal(mine, other)
    assert not _children()


def test_workers_leave_torchs_own_random_numbers_alone(pictures: Pictures) -> None:
    """A resumed run starts them once more than one that went through, and must draw the same dropout."""
    before = torch.get_rng_state()
    assert len(list(batches(pictures, _recipe().schedule(len(pictures)), 4, workers=1))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_end_when_nobody_listens_any_more(pictures: Pictures, recwarn: pytest.WarningsRecorder) -> None:
    stream = batches(pictures, _recipe(phases=(Phase(steps=500, crop_px=16, batch=2),)).schedule(99), 0, 2)
    next(stream)  # from the one worker; the other may not have come to its first line
    workers = _children()
    assert len(workers) == 2
    for worker in workers:  # Ctrl-C is for the training process to answer
        assert worker.pid
        os.kill(worker.pid, signal.SIGINT)
    assert len(list(itertools.islice(stream, 20))) == 20
    del stream
    assert not _children()
    assert not recwarn.list


@pytest.mark.e2e
def test_workers_end_well_whatever_else_is_to_be_done_at_exit(pictures: Pictures) -> None:
    """Once a flow has run, Prefect's services have registered a call like this one, which raises in a fork."""
    register = (
        "import os, threading\nhere = os.getpid()\nthreading._register_atexit(lambda: 1 / (os.getpid() == here))\n"
    )
    make = (
        "from tests.training.test_batches import _recipe, batches, open_collection, Path\n"
        f"pictures = open_collection(Path({str(pictures.paths[0].parent)!r})).train\n"
        "print(len(list(batches(pictures, _recipe().schedule(len(pictures)), 4, workers=2))), 'batches')\n"
    )
    words = [sys.executable, "-c", register + make]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stderr
    assert "2 batches" in ended.stdout


def test_pictures_that_workers_decode_are_decoded_for_all(photographs_folder: Path, tmp_path: Path) -> None:
    pictures = open_collection(shutil.copytree(photographs_folder, tmp_path / "copy")).train
    epoch = _recipe(phases=(Phase(epochs=1, crop_px=16, batch=2),)).schedule(len(pictures))
    before = list(batches(pictures, epoch, 0, workers=2))
    for path in pictures.paths:
        path.unlink()
    for batch, again in zip(before, batches(pictures, epoch, 0, workers=0), strict=True):
        _assert_equal(batch, again)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_went_away_is_one_line(photographs_folder: Path, tmp_path: Path, workers: int) -> None:
    pictures = open_collection(shutil.copytree(photographs_folder, tmp_path / "copy")).train
    for path in pictures.paths:
        path.unlink()
    with pytest.raises(DataError, match=r"\.png: could be read when training began") as error:
        list(batches(pictures, _recipe().schedule(len(pictures)), 0, workers))
    assert "\n" not in str(error.value)
    assert not _children()


def test_workers_suit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(processors: int, cuda: bool, free_bytes: int = 2**40, crop_px: int = 128) -> int:
        usage = shutil.disk_usage("/")._replace(free=free_bytes)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        return default_workers(_recipe(phases=(Phase(steps=1, crop_px=crop_px),)).schedule(9))

    assert workers(2, cuda=False) == 0
    assert workers(2, cuda=True) == 1
    assert workers(16, cuda=True) == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert workers(16, cuda=True) == 2
    assert workers(16, cuda=True, free_bytes=64 * 2**20, crop_px=1024) == 0


# ---- the benchmark


def test_the_benchmark_measures_every_setting(pictures: Pictures) -> None:
    rows = measure(pictures, steps=2, rounds=1)
    assert {(row.crop_px, row.film, row.workers) for row in rows} == set(
        itertools.product((128, 256), (True, False), (0, 1, 2))
    )
    assert all(row.images_per_second > 0 for row in rows)
    assert len(to_table(rows).splitlines()) == 14
