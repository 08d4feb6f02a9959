"""Every engine that opens here, beside the arithmetic floor and torch: python -m tests.benchmarks.engines

[--model NAME] [--batches 1 8] [--tile 256] [--threads N] [--seconds 3] [--without-compile] [--chart PATH]

Two Markdown tables. The first has all backends and precisions at each batch, measured in turns
(engines/measure/bench.py); those that could not run follow with their reasons. The second sets torch (eager;
torch.compile, which needs a C++ compiler; both channels last, which is torch's faster layout) against the fastest
float32 engine of the first, again in turns, with the same weights, tiles and threads. Torch runs on a GPU where it
finds one.

The first table's threads are of one caller; a job has several (tests/benchmarks/whole_job.py).
Needs: pip install '.[train]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engines.machine import processors
from engines.measure.bench import TURNS, Speed, bench, calls_per_second, in_turns, plot, table
from engines.measure.reference_tiles import reference_tiles
from engines.registry import backend_module, backend_names, open_engine
from engines.spec import EngineSpec, Model, find_model
from training.export import load_generator


def all_specs(model: Model, tile_yx: tuple[int, int], batches: list[int], threads: int) -> list[EngineSpec]:
    """Every backend with a network, in all it says it computes in, at every batch."""
    return [
        EngineSpec(backend, str(model.folder), tile_yx, batch, threads, precision=precision)
        for backend in backend_names()
        if backend != "identity"
        for precision in backend_module(backend).PRECISIONS
        for batch in batches
    ]


def torch_runs(model: Model, lightness: np.ndarray, threads: int, compiled: bool) -> dict[str, Callable[[], object]]:
    """Name to one warm prediction from L* in host memory to a*, b* in host memory, as an engine's."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    eager = load_generator(model).eval().to(device, memory_format=torch.channels_last)
    card = model.card

    def predict(network: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        scaled = torch.from_numpy(lightness * np.float32(card.lightness_scale) + np.float32(card.lightness_offset))
        with torch.inference_mode():
            return network(scaled.to(device)).cpu().numpy() * np.float32(card.chroma_scale)

    runs = {f"torch {torch.__version__} eager, {device.type}": partial(predict, eager)}
    if compiled:
        runs[f"torch {torch.__version__} compile, {device.type}"] = partial(predict, torch.compile(eager))
    for name in list(runs):
        try:
            runs[name]()
            runs[name]()
        except RuntimeError as error:  # torch.compile without a compiler
            print(f"skipped: {name}: {str(error).strip().splitlines()[0]}")
            del runs[name]
    return runs


def torch_table(model: Model, fastest: Speed, threads: int, compiled: bool, seconds: float) -> str:
    """Torch against one engine at its batch, as the rows of a Markdown table."""
    spec = EngineSpec(fastest.backend, str(model.folder), fastest.tile_yx, fastest.batch, threads)
    lightness = reference_tiles(fastest.tile_yx, fastest.batch)
    with open_engine(spec) as engine:
        runs = {f"{fastest.backend} {fastest.version} fp32": partial(engine.predict, lightness)}
        runs[next(iter(runs))]()
        runs |= torch_runs(model, lightness, threads, compiled)
        figures = in_turns([partial(calls_per_second, run, seconds / TURNS) for run in runs.values()])
    rows = zip(runs, figures, strict=True)
    return "".join(
        f"| {name} | {spec.batch} | {calls * spec.batch:.2f} | {figures[0] / calls:.2f} |\n" for name, calls in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="default")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--without-compile", action="store_true")
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    model = find_model(arguments.model)
    specs = all_specs(model, (arguments.tile, arguments.tile), arguments.batches, arguments.threads)
    speeds, skipped = bench(specs, arguments.seconds)
    print(f"model {model.card.name}, {arguments.threads} threads of {processors()} processors, {TURNS} turns\n")
    print(table(speeds))
    for one in skipped:
        print(f"skipped: {one}")
    if arguments.chart:
        plot(speeds, arguments.chart)
    rows = []
    for batch in arguments.batches:
        plain = [speed for speed in speeds if speed.precision == "fp32" and speed.batch == batch]
        if plain:
            fastest = max(plain, key=lambda speed: speed.tiles_per_s)
            compiled = not arguments.without_compile
            rows.append(torch_table(model, fastest, arguments.threads, compiled, arguments.seconds))
    print("| runtime | batch | tiles/s | engine is faster by |\n|---|---|---|---|\n" + "".join(rows))


if __name__ == "__main__":
    main()
