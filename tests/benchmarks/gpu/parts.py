"""What the certificate measures, one function a part; each returns rows for its table.

Every part runs in a process of its own (:mod:`tests.benchmarks.gpu.__main__`): a driver that ends one leaves the
others. What a machine lacks is a row with its reason, not an error.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import EngineError, one_line
from engines.machine import memory_bytes, processors
from engines.measure.bench import calls_per_second, flop_of, in_turns
from engines.measure.parity import measure_parity, reference_inputs
from engines.measure.reference_tiles import COUNT
from engines.registry import backend_module, backend_names, computes, open_engine, processor_of, usable_version
from engines.registry import model_for as model_of
from engines.spec import GENERATOR, PALETTE, Engine, EngineSpec, OnDevice, find_model
from pipeline.support.array_backend import HOST, Device
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import BlockInput, colorize_blocks, lightness_roi
from pipeline.tiling.palette import Palette
from tests.benchmarks.giga import write_scan
from tests.processes import run_watched

Row = dict[str, Any]

MODEL = "default"
TILE_YX = (256, 256)
SCAN = Path(__file__).parents[2] / "scans" / "sunset-beach.jpg"
# PyPI names of what can compute on an NVIDIA GPU here, and of what blocks and training need there.
LIBRARIES = ("tensorrt-cu13", "tensorrt-rtx-cu13-libs", "onnxruntime-gpu", "cuda-bindings", "cupy-cuda13x", "torch")
RECIPES = ("generator", "pix2pix-unet")
_MATRIX_PX = 8192
_PALETTE_CELLS = 24


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much each part does.

    Attributes
    ----------
    tiles : reference tiles of a parity, at most 48
    batches : tiles a call
    block_px : side of a block in the block loop
    scan_side_px : side of the large scan
    steps : training steps that are timed
    seconds : time for each figure of an engine
    rehearsal : take the processors' engines too, so that every part does something without a GPU
    """

    tiles: int = COUNT
    batches: tuple[int, ...] = (1, 8, 32)
    block_px: int = 4096
    scan_side_px: int = 32768
    steps: int = 40
    seconds: float = 2.0
    rehearsal: bool = False

    @classmethod
    def small(cls) -> Sizes:
        """For a rehearsal without a GPU, in about a minute on two processors."""
        return cls(2, (1,), 256, 300, 1, 0.1, rehearsal=True)


def machine(_: Sizes) -> Iterator[Row]:
    """GPU, driver, processors, and which of NVIDIA's libraries are there."""
    yield {
        "what": "GPU, driver, memory, power limit",
        "is": _nvidia_smi("name,driver_version,memory.total,power.limit"),
    }
    yield {"what": "processors, memory", "is": f"{processors()}, {memory_bytes() / 2**30:.0f} GiB"}
    yield {"what": "system", "is": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"}
    for name in LIBRARIES:
        yield {"what": name, "is": _installed(name)}
    for backend in _backends(Sizes(rehearsal=True)):
        try:
            yield {"what": f"engine {backend}", "is": usable_version(backend)}
        except EngineError as error:
            yield {"what": f"engine {backend}", "is": f"no: {error}"}


def parity(sizes: Sizes) -> Iterator[Row]:
    """Each backend, network and precision against float32 in ONNX Runtime, on real tiles."""
    for spec in _specs(sizes, batch=max(sizes.batches[:2])):
        row = {"engine": spec.backend, "network": spec.network, "precision": spec.precision}
        try:
            found = measure_parity(spec, sizes.tiles, min(6, sizes.tiles))
        except EngineError as error:
            yield row | {"left out": one_line(error)}
            continue
        yield row | {
            "p99.9 CIEDE2000": found.p999,
            "bound": found.bound,
            "median": found.median,
            "rows equal": found.rows_equal,
            "passes": found.passes,
        }


def speed(sizes: Sizes) -> Iterator[Row]:
    """Tiles a second from and to the host's memory, beside the arithmetic alone: medians of rounds in turns."""
    floors = _matrix_rates(sizes)
    for batch in sizes.batches:
        with ExitStack() as stack:
            runs: dict[EngineSpec, Callable[[], object]] = {}
            for spec in _specs(sizes, batch):
                try:
                    runs[spec] = _warm(spec, stack)
                except EngineError as error:
                    yield {**_named(spec), "left out": one_line(error)}
            figures = in_turns([partial(calls_per_second, run, sizes.seconds / 5) for run in runs.values()])
        for spec, calls in zip(runs, figures, strict=True):
            flop = flop_of(model_of(spec.backend, spec.model_folder, spec.network), spec.tile_yx)
            row = {**_named(spec), "tiles/s": calls * batch, "TFLOP/s": calls * batch * flop / 1e12}
            half = floors.get("half" if spec.precision in ("fp16", "bf16") else "single")
            yield row | ({"share of the matrix product": calls * batch * flop / half} if half else {})
    for kind, rate in floors.items():
        yield {"engine": f"matrix product, {kind} precision", "TFLOP/s": rate / 1e12}


def blocks(sizes: Sizes) -> Iterator[Row]:
    """One block with its palette: cut, predicted, blended, on the engine's device against in the host's memory."""
    samples = np.random.default_rng(0).integers(0, 256, (sizes.block_px, sizes.block_px), np.uint8)
    palette = _palette(sizes.block_px)
    for spec in _specs(sizes, sizes.batches[-1], (GENERATOR,)):
        row = {"engine": spec.backend, "precision": spec.precision}
        try:
            with open_engine(spec) as engine:
                places = {"host": HOST}
                if isinstance(engine, OnDevice) and not isinstance(engine.to_device(samples[:1]), np.ndarray):
                    places["device"] = Device(engine.array_namespace, engine.to_device, engine.to_host)
                seconds = {place: _block_seconds(engine, spec, samples, palette, at) for place, at in places.items()}
        except EngineError as error:
            yield row | {"left out": one_line(error)}
            continue
        for place, taken in seconds.items():
            yield row | {"blocks in": place, "MP/s": sizes.block_px**2 / 1e6 / taken}


def jobs(sizes: Sizes) -> Iterator[Row]:
    """Whole commands with the default engine, model and window: 2048x4096, then a scan of a gigapixel."""
    with tempfile.TemporaryDirectory(prefix="colorize-archive-gpu-") as folder:
        large = Path(folder) / "large.tif"
        write_scan(large, sizes.scan_side_px)
        scans = [large] if sizes.rehearsal else [SCAN, large]
        for scan in scans:
            for stride in (256,) if sizes.rehearsal else (256, 128, 64):
                # The second command finds compiled engines, as all but the first on a machine do.
                for turn in ("first", "second") if scan is SCAN and stride == 256 else ("",):
                    name = f"{scan.name} stride {stride}" + (f", {turn} command" if turn else "")
                    yield _job(name, scan, stride, Path(folder) / "out")


def training(sizes: Sizes) -> Iterator[Row]:
    """Steps a second of the training loop's own step, last adversarial phase, on one batch that is there."""
    import torch
    from lightning_fabric import Fabric

    from training.config import load_recipe
    from training.trainer import Trainer

    if not sizes.rehearsal and not torch.cuda.is_available():
        yield {"recipe": "all", "left out": "torch finds no GPU here; install its CUDA build"}
        return
    for name in RECIPES[:1] if sizes.rehearsal else RECIPES:
        recipe = load_recipe(name)
        phase = recipe.phases[-1].model_copy(update={"batch": 1, "crop_px": (64, 64)} if sizes.rehearsal else {})
        fabric = Fabric(devices=1, precision=recipe.precision)
        fabric.launch()
        trainer = Trainer(recipe, fabric)
        shapes = [(phase.batch, n, *phase.crop_px) for n in (recipe.given_channels, recipe.output_channels)]
        lightness, colour = (torch.rand(shape, device=fabric.device) * 2 - 1 for shape in shapes)

        def step(trainer: Any = trainer, given: tuple[Any, ...] = (lightness, colour, phase, 1.0)) -> None:
            trainer.train_step(*given)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        step()
        seconds = [_seconds(step) for _ in range(sizes.steps)]
        yield {
            "recipe": name,
            "device": str(fabric.device),
            "precision": recipe.precision,
            "batch": phase.batch,
            "crop px": phase.crop_px[0],
            "steps/s": 1 / statistics.median(seconds),
            "pictures/s": phase.batch / statistics.median(seconds),
            "peak memory, GB": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None,
        }


PARTS: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    "machine": machine,
    "parity": parity,
    "speed": speed,
    "blocks": blocks,
    "training": training,
    "jobs": jobs,
}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _nvidia_smi(fields: str) -> str:
    """``fields`` of all GPUs, or why there are none."""
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"none ({one_line(error)})"
    return "; ".join(ran.stdout.splitlines())


def _backends(sizes: Sizes) -> list[str]:
    """Those that compute on a GPU, whether they can here or not; in a rehearsal those of processors too."""
    named = [name for name in backend_names() if name != "identity"]
    return [name for name in named if sizes.rehearsal or processor_of(name) == "gpu"]


def _can_run(backend: str) -> bool:
    try:
        usable_version(backend)
    except EngineError:
        return False
    return True


def _specs(sizes: Sizes, batch: int, networks: Sequence[str] = (GENERATOR, PALETTE)) -> Iterator[EngineSpec]:
    """All that the backends that can run here say they compute."""
    model = find_model(MODEL)
    for backend in filter(_can_run, _backends(sizes)):
        for network in networks:
            if not computes(backend, network):
                continue
            card = model.as_network(network).card
            palette = model.card.palette
            side = palette.side_px if network == PALETTE and palette is not None else TILE_YX[0]
            for precision in backend_module(backend).PRECISIONS:
                if precision != "int8" or card.int8_sha256:
                    yield EngineSpec(
                        backend, str(model.folder), (side, side), batch, processors(), 1, precision, network
                    )


def _named(spec: EngineSpec) -> Row:
    return {"engine": spec.backend, "network": spec.network, "precision": spec.precision, "batch": spec.batch}


def _warm(spec: EngineSpec, stack: ExitStack) -> Callable[[], object]:
    usable_version(spec.backend)
    engine = stack.enter_context(open_engine(spec))
    some = reference_inputs(
        model_of(spec.backend, spec.model_folder, spec.network), spec.tile_yx, min(spec.batch, COUNT)
    )
    run = partial(engine.predict, some[np.arange(spec.batch) % len(some)])
    run()
    run()
    return run


def _matrix_rates(sizes: Sizes) -> dict[str, float]:
    """FLOP/s of a large matrix product on the GPU, in single and in half precision; empty where torch has no GPU."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {}
    for kind, dtype in (("single", torch.float32), ("half", torch.float16)):
        a, b = (torch.randn(_MATRIX_PX, _MATRIX_PX, device="cuda", dtype=dtype) for _ in range(2))

        def product(a: Any = a, b: Any = b) -> None:
            torch.matmul(a, b)
            torch.cuda.synchronize()

        product()
        rates[kind] = calls_per_second(product, sizes.seconds / 2) * 2 * _MATRIX_PX**3
    return rates


def _palette(side_px: int) -> Palette:
    cells = np.random.default_rng(1).normal(0, 20, (2, _PALETTE_CELLS, _PALETTE_CELLS)).astype(np.float32)
    return Palette(cells, (side_px / _PALETTE_CELLS, side_px / _PALETTE_CELLS))


def _block_seconds(engine: Engine, spec: EngineSpec, samples: Any, palette: Palette, device: Device) -> float:
    """The second of two passes: the first compiles kernels."""
    grid = TileGrid.of(samples.shape, spec.tile_yx, (128, 128))
    (block,) = grid.blocks(samples.shape[0])
    roi = lightness_roi(grid, block)
    work = BlockInput(grid, block, "hann", samples[roi.rows, roi.columns], palette=palette)

    def once() -> None:
        list(colorize_blocks([work], spec.tile_yx, engine.predict, spec.batch, device=device))

    once()
    return _seconds(once)


def _job(name: str, scan: Path, stride: int, output: Path) -> Row:
    words = ["run", str(scan), "-o", str(output), "--stride", str(stride), "--force"]
    with _gpu_memory() as peaks:
        ran = run_watched([sys.executable, "-m", "flows.cli", *words])
    if ran.code:
        return {"job": name, "left out": one_line(ran.err)}
    sidecar = json.loads((output / f"{scan.stem}.color.json").read_text())
    work, settings = sidecar["work"], sidecar["settings"]
    stages = sum(work["seconds"].values())
    return {
        "job": name,
        "engine": f"{settings['engine']} {settings['precision']}",
        "command s": ran.seconds,
        "stages s": stages,
        "MP/s of stages": work["megapixels"] / stages,
        **{f"{stage} s": seconds for stage, seconds in work["seconds"].items()},
        "peak memory, GB": ran.peak_bytes / 1e9,
        "peak of the GPU, GB": max(peaks, default=None),
    }


@contextmanager
def _gpu_memory() -> Iterator[list[float]]:
    """GB of the GPU's memory in use, looked at once a second while the body runs."""
    peaks: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            told = _nvidia_smi("memory.used").split(";")[0].split()
            if not told or not told[0].isdigit():
                return
            peaks.append(int(told[0]) * 2**20 / 1e9)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
