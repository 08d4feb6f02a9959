"""Models against the truth, a gray picture and a flat tint: one table, contact sheets to look at, and a quiz.

Each photograph is resized to a common short side. The model gets its whole lightness, reflected at the edges up to the
model's size multiple, and its chroma is combined with the true lightness, as on a real scan. So every system is
measured in the same way, whatever the crops, sizes and colour space it was trained with. Look at the sheets before
believing the table: they show at once if a model beats gray by tinting everything brown.

A public colorizer's weights would be a third baseline. Tried, without network: ``autocolorize`` 0.2.1 (PyPI; Larsson et
al., ECCV 2016) needs Caffe and downloads 588 MB of weights at first use; ``colorize-package`` 0.3.0 (PyPI) opens a
fastai learner that the caller must provide. Neither contains weights, so there is no such row.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.machine import processors
from engines.spec import Model
from pipeline.colour.lab import lightness_from_samples, rgb_from_lab
from training.data import Subset, is_colour
from training.errors import DataError
from training.evaluation.colorizers import (
    Colorizer,
    FlatColorizer,
    OnnxColorizer,
    mean_chroma,
    named,
    tile_ms,
)
from training.evaluation.frechet import LEAST_PICTURES, Distances
from training.evaluation.groups import Grouped, markdown
from training.evaluation.measure import Measures, Truth
from training.evaluation.quiz import Candidate, jpeg, pick_cases, questions, write_quiz
from training.evaluation.sheet import Shown, as_samples, thumbnail, write_sheets
from training.evaluation.subjects import (
    Subject,
    Subjects,
    collection_sha256,
    find_subjects,
    one_a_photograph,
    spread,
)
from training.evaluation.table import Origin, Row, Table, make_row
from training.metrics import bootstrap_weights

if TYPE_CHECKING:
    from training.evaluation.stlpips import Features, StLpips

F32 = NDArray[np.float32]

GROUPS = "groups.md"
_SHEET_PICTURES = 24
_REPORTS = 10
_SPARE_CANDIDATES = 10  # more candidates than questions, because some photographs may be gray or unreadable
_MOST_SIDE_BY_SIDE_PX = 512
_MOST_WORKERS = 8  # each holds a picture and its results; more would only fill the memory

_READING = (
    "MSE, PSNR and SSIM are of sRGB values in [0, 1] and favour gray; lower is better for CIEDE2000, MSE and ST-LPIPS. "
    "Colourfulness is Hasler and Süsstrunk's; it should come near the truth's, by itself it favours noise"
)
_FRECHET = (
    "Fréchet: squared distance of the results as a whole from the photographs as a whole, over the photographs' own "
    "variance, on 256 features of ST-LPIPS's AlexNet, on which no recipe of this package trains; lower is better. It "
    "is no FID (other features) and compares within this table only"
)
_NO_PUBLIC = (
    "no public colorizer among the rows: autocolorize 0.2.1 needs Caffe and weights from the network, "
    "colorize-package 0.3.0 comes without weights"
)


@dataclass(frozen=True)
class _Picture:
    """Results for one photograph: figures by colorizer, and its pictures for the sheets and the quiz."""

    subject: Subject
    measures: dict[str, Measures]
    truth_colourfulness: float
    shown: Shown | None
    candidate: Candidate | None


@dataclass(frozen=True)
class _Measured:
    """A photograph with features for :class:`Distances`: of the truth and, by colorizer, of the results.

    Without ST-LPIPS' weights these are None and empty.
    """

    picture: _Picture
    truth: F32 | None
    results: dict[str, F32]


def resized(rgb: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) resized to a short side of ``short_side_px``, the aspect ratio kept."""
    height, width = rgb.shape[:2]
    scale = short_side_px / min(height, width)
    size = max(short_side_px, round(width * scale)), max(short_side_px, round(height * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class _Job:
    """Measures one photograph; may be called from several threads."""

    flat: dict[str, Colorizer]
    models: dict[str, Colorizer]
    stlpips: StLpips | None
    short_side_px: int | None
    on_sheets: set[str]
    in_quiz: set[str]

    def __call__(self, subject: Subject) -> _Measured | None:
        """Measure a photograph; None if it is unreadable or gray."""
        rgb = subject.read()
        if rgb is None or not is_colour(rgb):
            return None
        samples = resized(rgb, self.short_side_px) if self.short_side_px else rgb
        photograph = samples.astype(np.float32) / np.float32(255)
        truth = Truth(photograph, self._features(photograph))
        lightness = lightness_from_samples(samples)
        measures, results, pooled = {}, {}, {}
        for name, colorize in (self.flat | self.models).items():
            result = rgb_from_lab(lightness, colorize(lightness))
            features = self._features(result)
            measures[name] = truth.measure(result, features)
            if features is not None:
                pooled[name] = features.pooled
            if name in self.models:
                results[name] = as_samples(result)
        shown = candidate = None
        if subject.name in self.on_sheets:
            gray = rgb_from_lab(lightness, np.zeros((2, *lightness.shape), np.float32))
            small = {name: thumbnail(result) for name, result in results.items()}
            shown = Shown(thumbnail(gray), thumbnail(samples), small)
        if subject.name in self.in_quiz:
            generated = {name: jpeg(result) for name, result in results.items()}
            candidate = Candidate(subject.name, jpeg(samples), generated)
        picture = _Picture(subject, measures, truth.colourfulness, shown, candidate)
        return _Measured(picture, truth.features.pooled if truth.features else None, pooled)

    def _features(self, rgb: F32) -> Features | None:
        return self.stlpips.features(rgb) if self.stlpips else None


def _load_stlpips(given: Path | None) -> tuple[StLpips | None, str]:
    """ST-LPIPS, or None and the reason; it is an error if requested weights are missing."""
    try:
        from training.evaluation.stlpips import load_stlpips  # needs torch, which an evaluation can do without

        return load_stlpips(given), ""
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        missing = DataError("ST-LPIPS: torch is not installed; pip install 'colorize-archive[train]'")
    except DataError as error:
        missing = error
    if given is not None:
        raise missing
    return None, str(missing)


@contextlib.contextmanager
def _torch_on_one_thread(stlpips: StLpips | None) -> Iterator[None]:
    if stlpips is None:
        yield
        return
    from training.evaluation.stlpips import one_thread

    with one_thread():
        yield


def _measure(job: _Job, subjects: list[Subject], report: Callable[[str], None]) -> tuple[list[_Picture], Distances]:
    """Measure the pictures in parallel; results are in order, whatever the number of processors."""
    found, distances, told, started = [], Distances(), 0, time.perf_counter()
    # A network needs some gigabytes for a frame of 2048x4096 px: large pictures are measured one at a time.
    is_large = job.short_side_px is None or job.short_side_px > _MOST_SIDE_BY_SIDE_PX
    pool = ThreadPoolExecutor(1 if is_large else min(_MOST_WORKERS, processors()))
    try:
        for done, measured in enumerate(pool.map(job, subjects), start=1):
            if measured is not None:
                found.append(measured.picture)
                if measured.truth is not None:
                    distances.add(measured.truth, measured.results)  # after this, the features are freed
            tenths = done * _REPORTS // len(subjects)
            if tenths > told:
                told = tenths
                seconds = time.perf_counter() - started
                report(f"{done} of {len(subjects)} pictures ({100 * done // len(subjects)} %), {seconds:.0f} s")
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted evaluation waits only for pictures already begun
    return found, distances


def evaluate(
    models: list[Model],
    data: Path,
    out: Path | None = None,
    *,
    limit: int | None = None,
    short_side_px: int | None = 256,
    subset: Subset | None = None,
    everything: bool = False,
    stlpips_weights: Path | None = None,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Measure models on the colour pictures of ``data`` that training holds out, beside gray and a flat mean tint.

    Parameters
    ----------
    models : each is run by onnxruntime on one whole picture at a time
    out : folder for ``table.md``, ``table.csv`` and ``table.json``; with models also ``sheet.jpg`` (all models),
        ``sheet_<model>.png`` (gray, result, truth) and ``quiz.html``
    limit : largest number of pictures, taken at even distances in the listing
    short_side_px : short side that each photograph is resized to; None measures it at its own size, one at a time
    subset : the part of the collection that the models were trained on, so that its held-out fifth is measured
    everything : use all pictures, not only the test half, for a folder that was never used in training. The flat tint
        is then the mean of these pictures themselves, a little better than any model could know.
    stlpips_weights : see :func:`training.evaluation.stlpips.load_stlpips`. By default they are used if they are found;
        without them the column is empty and a note says why. The Fréchet distance, for at least 100 pictures, uses
        features of the same network.
    report : gets a line of progress at each tenth, and at the end the table with its notes

    Returns
    -------
    The baselines, then the models in the order given.

    Raises
    ------
    DataError : no readable colour photograph to measure, or ``stlpips_weights`` is missing.
    OSError : ``out`` cannot be written to.
    """
    subjects = find_subjects(data, everything, subset)
    chosen = spread(subjects.measured, limit)
    tint = mean_chroma(subjects.learnt)
    stlpips, no_stlpips = _load_stlpips(stlpips_weights)
    if out:
        out.mkdir(parents=True, exist_ok=True)  # fails before the work, not after it
    by_name = named(models)
    threads = processors()
    ms = {name: tile_ms(OnnxColorizer(model, threads)) for name, model in by_name.items()}
    quiz = spread(one_a_photograph(chosen), questions(len(models)) + _SPARE_CANDIDATES)
    job = _Job(
        flat={
            "gray (a*=b*=0)": FlatColorizer((0, 0)),
            f"mean tint ({tint[0]:.1f}, {tint[1]:.1f})": FlatColorizer(tint),
        },
        models={name: OnnxColorizer(model) for name, model in by_name.items()},
        stlpips=stlpips,
        short_side_px=short_side_px,
        on_sheets={s.name for s in spread(chosen, _SHEET_PICTURES)} if out and models else set(),
        in_quiz={s.name for s in quiz} if out and models else set(),
    )
    with _torch_on_one_thread(stlpips):
        pictures, distances = _measure(job, chosen, report)
    if not pictures:
        raise DataError(
            f"{data}: none of {len(chosen)} pictures to test on is a readable colour photograph; "
            "add photographs, or measure on all pictures with --all"
        )
    rows = _rows(pictures, distances.to_truth(), ms, by_name)
    photographs = len({picture.subject.group for picture in pictures})
    kind = "all pictures" if everything else "the fifth that training on this folder holds out"
    size = f"short side {short_side_px} px" if short_side_px else "each at its own size"
    left_out = subjects.left_out + len(chosen) - len(pictures)
    caption = (
        f"{len(pictures)} pictures of {photographs} photographs ({kind}), {size}; "
        f"{left_out} of the folder left out (unreadable, gray, too small, or in both or neither of its halves)"
    )
    notes = _notes(rows, no_stlpips, threads) + _data_notes(by_name, data, subjects, everything)
    table = Table(caption, rows, notes, None if everything else subjects.data_sha256)
    report(table.markdown())
    if out:
        table.write(out)
        (out / GROUPS).write_text(markdown(_grouped(pictures)) + "\n", encoding="utf-8")
        _write_pictures(out, pictures, report)
    return rows


def _grouped(pictures: list[_Picture]) -> list[Grouped]:
    return [
        Grouped(
            PurePosixPath(picture.subject.name).parent.as_posix(),
            picture.subject.source,
            {name: measures.ciede2000 for name, measures in picture.measures.items()},
            {name: measures.stlpips for name, measures in picture.measures.items()},
        )
        for picture in pictures
    ]


def _rows(
    pictures: list[_Picture], distances: dict[str, float], ms: dict[str, float], models: dict[str, Model]
) -> list[Row]:
    weights = bootstrap_weights([picture.subject.group for picture in pictures])
    vivid = [picture.truth_colourfulness for picture in pictures]
    columns = {name: [picture.measures[name] for picture in pictures] for name in pictures[0].measures}
    gray = next(iter(columns.values()))
    origins = {name: Origin.from_card(model.card.training) for name, model in models.items()}
    return [
        make_row(name, column, gray, vivid, weights, ms.get(name), origins.get(name), distances.get(name))
        for name, column in columns.items()
    ]


def _notes(rows: list[Row], no_stlpips: str, threads: int) -> list[str]:
    notes = [f"[95 %]: bootstrap over photographs. {_READING}"]
    reported = [row for row in rows if row.origin.reported_mse is not None or row.origin.reported_ssim is not None]
    notes += [
        f"reported: {row.name}: {row.origin.source or 'source not named'}, measured there on other photographs"
        for row in reported
    ]
    if any(row.tile_ms is not None for row in rows):
        notes.append(f"ms a tile: 256 x 256 px at batch 1, onnxruntime on {threads} processor threads, median of 9")
    notes.append(no_stlpips or (_FRECHET if rows[0].frechet is not None else _few(rows[0].pictures)))
    return [*notes, _NO_PUBLIC]


def _few(pictures: int) -> str:
    return f"no Fréchet distance: it takes {LEAST_PICTURES} unlike pictures, and these are {pictures}"


def _data_notes(models: dict[str, Model], data: Path, subjects: Subjects, everything: bool) -> list[str]:
    """Notes on the models' training data: the split holds out only pictures of a model's own collection."""
    told = {name: (model.card.training.get("data") or {}).get("sha256") for name, model in models.items()}
    measured = subjects.data_sha256
    if measured is None and any(told.values()):  # hash all pictures only if a card could name their collection
        measured = collection_sha256(data)
    same = [name for name, sha256 in told.items() if sha256 and sha256 == measured]
    others = [name for name in told if name not in same]
    notes = []
    if same and everything:
        notes.append(
            f"{', '.join(same)} learned from four fifths of these very pictures "
            "(or from the collection's own training half)"
        )
    if others:
        says, its = ("says nothing of its", "its") if len(others) == 1 else ("say nothing of their", "their")
        notes.append(
            f"{', '.join(others)} learned from another collection (or {says} data): "
            f"that these pictures were not among {its} own is not checked"
        )
    return notes


def _write_pictures(out: Path, pictures: list[_Picture], report: Callable[[str], None]) -> None:
    shown = [picture.shown for picture in pictures if picture.shown]
    if shown:
        write_sheets(out, shown)
    candidates = [picture.candidate for picture in pictures if picture.candidate]
    if len(candidates) > 1:
        path = write_quiz(out, pick_cases(candidates))
        report(f"{path}: real or generated? Open it in a browser")
