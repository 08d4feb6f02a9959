"""The speed of each engine, compared with the speed of the arithmetic alone on this machine.

The floor is the time that the model's multiplications and additions take at the rate of a large float32 matrix product
on as many threads. A share of 0.5 means that the engine takes twice as long. It is a yardstick, not a bound: int8 and
half precisions have faster instructions, Winograd's transform saves multiplications, and a GPU is not a CPU; all of
them may exceed 1.

Engines are measured in turns: a shared machine changes speed within seconds, so figures taken a minute apart cannot be
compared. Medians of the turns are reported, also for the matrix product.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engines.errors import EngineError, EngineUnavailableError, ModelError
from engines.measure.parity import reference_inputs
from engines.measure.reference_tiles import COUNT
from engines.registry import model_for, open_engine, usable_version
from engines.spec import GENERATOR, EngineSpec, Model

TURNS = 5
_WARM_UP = 2
_MATRIX_PX = 1536
# Variables that NumPy's BLAS libraries read when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MATRIX_PRODUCT = """
import statistics, sys, time
import numpy as np
import openvino
from openvino import opset13
threads, size = int(sys.argv[1]), int(sys.argv[2])
a, b = np.random.default_rng(0).random((2, size, size), np.float32)
out = np.empty_like(a)
left = opset13.parameter(a.shape, np.float32)
model = openvino.Model([opset13.matmul(left, opset13.constant(b), False, False)], [left])
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
request = openvino.Core().compile_model(model, "CPU", {**settings, "NUM_STREAMS": 1}).create_infer_request()
medians = []
# NumPy last: the threads of its OpenBLAS wait busily for a while after each product.
for product in (lambda: request.infer([a], share_inputs=True, share_outputs=True), lambda: np.matmul(a, b, out=out)):
    product()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    medians.append(statistics.median(seconds))
print(2 * size**3 / min(medians))
"""
# Multiply-adds per element of the output (or of the input): the product of the weights' shape from this axis on. A
# plain convolution gathers for each output, a transposed one spreads each input.
_GATHERS = {"Convolution": 1, "GroupConvolution": 2}
_SHORT_SECONDS = 0.2
_PRODUCT = "MatMul"
_SPREADS = {"ConvolutionBackpropData": 1, "GroupConvolutionBackpropData": 2}


@dataclass(frozen=True)
class Speed:
    """One engine's figures.

    Attributes
    ----------
    backend, version, precision, batch, tile_yx, threads : the engine; ``threads`` per prediction
    tiles_per_s, megapixels_per_s : rates of one caller that waits for each batch
    floor_tiles_per_s : the rate if the model's arithmetic ran at the rate of a float32 matrix product
    share_of_floor : ``tiles_per_s / floor_tiles_per_s``
    network : the model's network; tiles of the palette network are whole views
    """

    backend: str
    version: str
    precision: str
    batch: int
    tile_yx: tuple[int, int]
    threads: int
    tiles_per_s: float
    megapixels_per_s: float
    floor_tiles_per_s: float
    share_of_floor: float
    network: str = GENERATOR


@dataclass(frozen=True)
class Skipped:
    """A requested engine that was not measured, with the reason in one line."""

    spec: EngineSpec
    reason: str

    def __str__(self) -> str:
        network = "" if self.spec.network == GENERATOR else f" {self.spec.network}"
        return f"{self.spec.backend}{network} {self.spec.precision} batch {self.spec.batch}: {self.reason}"


@dataclass(frozen=True)
class _Subject:
    spec: EngineSpec
    version: str
    flop: int
    run: Callable[[], object]


def model_flop(onnx_path: Path, tile_yx: tuple[int, int]) -> int:
    """Floating-point operations of all convolutions and matrix products of one tile, two for each multiply-add.

    Taps on zero padding are counted, because matrix-product kernels compute them. Everything else (activations, sums,
    resizing) is left out: it is less than one percent for U-Nets.

    Raises
    ------
    ModelError : the file is not a network, or does not accept such tiles.
    """
    import openvino

    try:
        network = openvino.Core().read_model(onnx_path)
        given = network.input(0).get_partial_shape()
        sizes = [given[axis].get_length() for axis in range(1, 2 if len(given) == 4 else len(given))]
        network.reshape([1, *sizes, *(tile_yx if len(given) == 4 else ())])
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["unknown"])[-1]
        raise ModelError(
            f"{onnx_path}: its arithmetic at {tile_yx[0]}x{tile_yx[1]} px cannot be counted ({reason}); "
            "give another tile size or export the model again"
        ) from error
    total = 0
    for op in network.get_ordered_ops():
        kind = op.get_type_name()
        if kind == _PRODUCT:
            inner = list(op.input(0).get_shape())[-2 if op.get_attributes()["transpose_a"] else -1]
            total += 2 * math.prod(op.output(0).get_shape()) * inner
            continue
        if kind in _GATHERS:
            each, axis = op.output(0).get_shape(), _GATHERS[kind]
        elif kind in _SPREADS:
            each, axis = op.input(0).get_shape(), _SPREADS[kind]
        else:
            continue
        total += 2 * math.prod(each) * math.prod(list(op.input(1).get_shape())[axis:])
    return total


def flop_of(model: Model, tile_yx: tuple[int, int]) -> int:
    """:func:`model_flop` of all files of a network. Raises ModelError."""
    return sum(model_flop(path, tile_yx) for path in model.files_for("fp32"))


def matrix_rate(threads: int, size: int = _MATRIX_PX) -> float:
    """FLOP/s of the float32 product of two ``size`` x ``size`` matrices on ``threads`` threads.

    The faster of NumPy's and OpenVINO's, each the median of five. NumPy alone is not enough: the OpenBLAS in its wheels
    recognizes processors by name and uses AVX2 kernels for unknown ones. On a processor with AVX-512 that gave 250 of
    460 GFLOP/s, and every engine exceeded the floor.

    It runs in a process of its own: OpenBLAS creates its threads when it is loaded, one per processor unless the
    environment says otherwise, and the setting has no effect on a BLAS already loaded. More threads than processors add
    nothing. Apple's Accelerate treats ``VECLIB_MAXIMUM_THREADS`` as a hint.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    words = [sys.executable, "-c", _MATRIX_PRODUCT, str(threads), str(size)]
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


def calls_per_second(run: Callable[[], object], seconds: float) -> float:
    """Rate of calling ``run`` repeatedly for at least ``seconds``, at least once."""
    calls, started = 0, time.perf_counter()
    while True:
        run()
        calls += 1
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return calls / elapsed


def in_turns(measures: Sequence[Callable[[], float]], turns: int = TURNS) -> list[float]:
    """The median of ``turns`` figures of each measure, taken in rounds of one figure each."""
    rounds = [[measure() for measure in measures] for _ in range(turns)]
    return [statistics.median(figures) for figures in zip(*rounds, strict=True)]


def best_rates(specs: Iterable[EngineSpec], turns: int = 6) -> list[float]:
    """Tiles per second of each engine, the best of ``turns`` short measurements in rounds.

    Other work can only slow an engine down, so on a busy machine the best figure says more than the median.
    Raises EngineError if an engine cannot be opened.
    """
    with ExitStack() as stack:
        subjects = [_subject(spec, stack) for spec in specs]
        best = [0.0] * len(subjects)
        for _ in range(turns):
            for index, subject in enumerate(subjects):
                best[index] = max(best[index], calls_per_second(subject.run, _SHORT_SECONDS) * subject.spec.batch)
        return best


def bench(specs: Iterable[EngineSpec], seconds: float = 3.0) -> tuple[list[Speed], list[Skipped]]:
    """Measure engines against each other, ``seconds`` each, and against the machine's arithmetic.

    All are open at once, with one caller each, whatever their number of streams. Engines that cannot run here, or have
    no network (identity), are returned with the reason.
    """
    skipped = []
    subjects = []
    with ExitStack() as stack:
        for spec in specs:
            try:
                subjects.append(_subject(spec, stack))
            except EngineError as error:
                skipped.append(Skipped(spec, str(error)))
        threads = sorted({subject.spec.threads for subject in subjects})
        measures = [
            *(partial(matrix_rate, count) for count in threads),
            *(partial(calls_per_second, subject.run, seconds / TURNS) for subject in subjects),
        ]
        figures = in_turns(measures)
    rates = dict(zip(threads, figures, strict=False))
    speeds = [
        _speed(s, rates[s.spec.threads], calls) for s, calls in zip(subjects, figures[len(threads) :], strict=True)
    ]
    return speeds, skipped


def _subject(spec: EngineSpec, stack: ExitStack) -> _Subject:
    """A warmed-up engine; ``stack`` closes it. Raises EngineError if it cannot be opened."""
    version = usable_version(spec.backend)
    model = model_for(spec.backend, spec.model_folder, spec.network)
    if not model.onnx_path.is_file():
        raise EngineUnavailableError(
            f"engine {spec.backend} has no network: there is no arithmetic to compare with; give another engine"
        )
    engine = stack.enter_context(open_engine(spec))
    flop = flop_of(model, spec.tile_yx)
    some = reference_inputs(model, spec.tile_yx, min(spec.batch, COUNT))
    run = partial(engine.predict, some[np.arange(spec.batch) % len(some)])
    for _ in range(_WARM_UP):
        run()
    return _Subject(spec, version, flop, run)


def _speed(subject: _Subject, rate: float, calls: float) -> Speed:
    spec = subject.spec
    tiles, floor = calls * spec.batch, rate / subject.flop
    megapixels = tiles * math.prod(spec.tile_yx) / 1e6
    return Speed(
        spec.backend,
        subject.version,
        spec.precision,
        spec.batch,
        spec.tile_yx,
        spec.threads,
        tiles,
        megapixels,
        floor,
        tiles / floor,
        spec.network,
    )


def table(speeds: Iterable[Speed]) -> str:
    """The figures as a Markdown table, in the order given."""
    lines = [
        "| engine | network | precision | batch | threads | tile | tiles/s | megapixels/s | floor, tiles/s "
        "| share of floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in speeds:
        size = f"{s.tile_yx[0]}x{s.tile_yx[1]}"
        lines.append(
            f"| {s.backend} {s.version} | {s.network} | {s.precision} | {s.batch} | {s.threads} | {size} | "
            f"{s.tiles_per_s:.2f} | {s.megapixels_per_s:.2f} | {s.floor_tiles_per_s:.2f} | {s.share_of_floor:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _label(speed: Speed) -> str:
    network = "" if speed.network == GENERATOR else f" {speed.network}"
    return f"{speed.backend}{network} {speed.precision}, batch {speed.batch}"


def plot(speeds: Sequence[Speed], path: Path) -> None:
    """Draw tiles/s as bars, each with its floor as a line across, into ``path``; its ending chooses the format.

    Raises
    ------
    EngineUnavailableError : matplotlib is not installed. ValueError : nothing to draw.
    """
    if not speeds:
        raise ValueError(f"{path}: no figures, the chart would be empty; measure at least one engine")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EngineUnavailableError(
            f"{path}: matplotlib is not installed, the chart cannot be drawn; pip install '.[train]'"
        ) from error
    figure = Figure(figsize=(7, 0.8 + 0.4 * len(speeds)), layout="constrained")
    axes = figure.subplots()
    places = range(len(speeds))
    axes.barh(places, [s.tiles_per_s for s in speeds], height=0.6)
    for place, speed in zip(places, speeds, strict=True):
        axes.plot([speed.floor_tiles_per_s] * 2, [place - 0.4, place + 0.4], color="black")
    axes.set_yticks(places, [_label(s) for s in speeds])
    axes.invert_yaxis()
    axes.set_xlabel("tiles/s; black: the arithmetic alone")
    figure.savefig(path, dpi=120)
