"""``colorize-archive engines``: which there are, compiled files, parity with the reference, speed, int8."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.console import FAILED, USAGE, stop

if TYPE_CHECKING:
    from engines.parity import Parity
    from engines.spec import EngineSpec, Model

app = typer.Typer(no_args_is_help=True, help="Engines: which run here, compiled files, parity, speed, int8.")

ModelName = Annotated[str, typer.Option(help="A shipped model, or a model folder.")]
Backend = Annotated[str, typer.Option(help="auto, or a backend by name.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")]
Tile = Annotated[str, typer.Option(help="Tile in pixels: 256, or HEIGHTxWIDTH.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Tiles a prediction.", show_default="as a run has it")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _spec(model: str, backend: str, precision: str, tile: str, batch: int | None) -> EngineSpec:
    """What is asked for, ``auto`` resolved. Raises EngineError, ColorizeError."""
    from engines.select import choose
    from engines.spec import EngineSpec
    from flows.cluster import processors
    from flows.settings import parse_size
    from pipeline.plan import batch_for

    tile_yx = parse_size(tile, "tile")
    choice, found = choose(backend, model, precision, tile_yx)
    return EngineSpec(
        choice.backend, str(found.folder), tile_yx, batch or batch_for(tile_yx), processors(), 1, choice.precision
    )


@app.command("list")
def list_engines(model: ModelName = "default", as_json: AsJson = False) -> None:
    """Name every backend, whether it runs here and in which precisions, what auto takes, and the compiled files."""
    from engines.compile import engine_files
    from engines.errors import EngineError
    from engines.select import backend_module, backend_names, choose, precisions_of, usable_version
    from engines.spec import find_model

    try:
        found = find_model(model)
        rows: list[dict[str, Any]] = []
        for name in backend_names():
            try:
                version, note = usable_version(name), str(getattr(backend_module(name), "REASON", ""))
                precisions = precisions_of(name, found)
            except EngineError as error:
                version, precisions, note = "", [], str(error)
            rows.append({"backend": name, "version": version, "precisions": precisions, "note": note})
        choice, _ = choose(model=model)
    except EngineError as error:
        stop(error, USAGE)
    files = []
    with contextlib.suppress(EngineError):  # no cache, no files
        files = [str(path) for path in engine_files()]
    if as_json:
        typer.echo(json.dumps({"backends": rows, "auto": asdict(choice), "files": files}, indent=2))
        return
    console, table = Console(soft_wrap=True), Table("backend", "version", "precisions", "note")
    for row in rows:
        cells = (row["backend"], row["version"] or "-", " ".join(row["precisions"]) or "-", row["note"])
        table.add_row(*map(escape, cells))
    console.print(table)
    console.print(f"auto takes: {choice}", highlight=False, markup=False)
    for file in files:
        console.print(file, highlight=False, markup=False)


@app.command()
def build(
    model: ModelName = "default",
    backend: Backend = "auto",
    precision: Precision = "auto",
    tile: Tile = "256",
    batch: Batch = None,
    anew: Annotated[bool, typer.Option("--force", help="Build it again where it is there.")] = False,
) -> None:
    """Compile an engine and keep the file, as a run does by itself; also for a machine without the GPU it is for."""
    from engines.compile import Compiling, build_engine
    from engines.errors import EngineError
    from engines.select import AUTO, backend_module, check_precision, check_tile, choose, compiles
    from engines.spec import EngineSpec, find_model
    from flows.settings import parse_size
    from pipeline.errors import ColorizeError
    from pipeline.plan import batch_for

    try:
        if backend == AUTO:
            backend = choose(backend, model, precision)[0].backend
        if not compiles(backend):
            typer.echo(f"{backend} compiles when it opens a model: there is no file to keep")
            return
        module, found, tile_yx = backend_module(backend), find_model(model), parse_size(tile, "tile")
        check_tile(found, tile_yx)
        wanted = module.PRECISIONS[0] if precision == AUTO else precision
        check_precision(backend, wanted)
        spec = EngineSpec(backend, str(found.folder), tile_yx, batch or batch_for(tile_yx), precision=wanted)
        compiling: Compiling = module  # type: ignore[assignment]
        made = build_engine(compiling, found, spec, anew)
    except (EngineError, ColorizeError) as error:
        stop(error, USAGE)
    except ImportError as error:
        stop(f"engine {backend} is not installed ({error}): nothing was built; see Engines in the README", USAGE)
    typer.echo(f"{'built' if made.is_new else 'there already'}  {made.path}  ({len(made.compiled) / 2**20:.1f} MiB)")


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="An engine file.")]) -> None:
    """Say what an engine file was built from and for."""
    from engines.compile import read_engine

    try:
        found = read_engine(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        stop(f"{path}: {reason}; give an engine file, as colorize-archive engines list names them", USAGE)
    for name, value in {**asdict(found.key), "built": found.built, "bytes": len(found.compiled)}.items():
        typer.echo(f"{name:<12}{value}")


@app.command()
def check(
    model: ModelName = "default",
    backend: Backend = "auto",
    precision: Precision = "auto",
    tile: Tile = "256",
    batch: Batch = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every backend and precision that runs here, as a table.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare an engine with the ONNX reference on real tiles. Exit code 1: it misses its bound."""
    from engines.errors import EngineError
    from engines.parity import measure_parity
    from pipeline.errors import ColorizeError

    try:
        if every:
            specs, _ = _specs_that_run(model, tile, [batch] if batch else [])
        else:
            specs = [_spec(model, backend, precision, tile, batch)]
        found: list[tuple[EngineSpec, Parity | str]] = [
            (spec, _parity_or_reason(spec) if every else measure_parity(spec)) for spec in specs
        ]
    except (EngineError, ColorizeError) as error:
        stop(error, USAGE)
    if as_json:
        typer.echo(json.dumps([{"engine": asdict(spec), "parity": _json(parity)} for spec, parity in found], indent=2))
    elif every:
        _print_parities(found)
    else:
        spec, parity = found[0]
        typer.echo(f"{spec.backend} {spec.precision}, batch {spec.batch}: {parity}")
    raise typer.Exit(0 if all(isinstance(parity, str) or parity.passes for _, parity in found) else FAILED)


def _specs_that_run(
    model: str, tile: str, batches: list[int], names: list[str] | None = None, precisions: list[str] | None = None
) -> tuple[list[EngineSpec], list[str]]:
    """Each of ``names``, or each backend that runs here and why others do not, in each precision, at each batch.

    Raises
    ------
    EngineError, ColorizeError : the model, the tile, or one of ``names``.
    """
    from engines.errors import EngineError
    from engines.select import backend_names, check_tile, precisions_of, usable_version
    from engines.spec import EngineSpec, find_model
    from flows.cluster import processors
    from flows.settings import parse_size
    from pipeline.plan import batch_for

    found, tile_yx = find_model(model), parse_size(tile, "tile")
    check_tile(found, tile_yx)
    specs, left_out = [], []
    for name in names or [name for name in backend_names() if name != "identity"]:
        try:
            usable_version(name)
        except EngineError as error:
            if names:
                raise
            left_out.append(str(error))
            continue
        for each in precisions or precisions_of(name, found):
            for size in batches or [batch_for(tile_yx)]:
                specs.append(EngineSpec(name, str(found.folder), tile_yx, size, processors(), 1, each))
    return specs, left_out


def _parity_or_reason(spec: EngineSpec) -> Parity | str:
    from engines.errors import EngineError
    from engines.parity import measure_parity

    try:
        return measure_parity(spec)
    except EngineError as error:
        return str(error)


def _json(parity: Parity | str) -> Any:
    return parity if isinstance(parity, str) else asdict(parity)


def _print_parities(found: list[tuple[EngineSpec, Parity | str]]) -> None:
    """A Markdown table, and why some have no figures."""
    typer.echo("| backend | precision | batch | median | 99.9 % | bound | worst tile | alone | |\n" + "|---" * 9 + "|")
    reasons = []
    for spec, parity in found:
        if isinstance(parity, str):
            reasons.append(f"{spec.backend} {spec.precision}: {parity}")
            continue
        figures = f"{parity.median:.4f} | {parity.p999:.4f} | {parity.bound:g} | {parity.worst_tile_mean:.4f}"
        alone = "equal" if parity.rows_equal else "differs"
        passes = "passes" if parity.passes else "FAILS"
        typer.echo(f"| {spec.backend} | {spec.precision} | {spec.batch} | {figures} | {alone} | {passes} |")
    for reason in reasons:
        typer.echo(f"left out: {reason}")


@app.command()
def bench(
    model: ModelName = "default",
    backend: Annotated[list[str] | None, typer.Option(help="Backends; all that run here if not given.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Precisions; all of each if not given.")] = None,
    tile: Tile = "256",
    batches: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Tiles a prediction; 1 and 8.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 3.0,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG as well.")] = None,
) -> None:
    """Tiles a second of every backend, precision and batch, beside what the processor's arithmetic allows."""
    from engines.bench import bench as measure
    from engines.bench import plot as draw
    from engines.bench import table
    from engines.errors import EngineError
    from pipeline.errors import ColorizeError

    try:
        specs, left_out = _specs_that_run(model, tile, batches or [1, 8], backend, precision)
        speeds, skipped = measure(specs, seconds)
        typer.echo(table(speeds))
        for reason in [*left_out, *skipped]:
            typer.echo(f"left out: {reason}")
        if plot is not None:
            draw(speeds, plot)
    except (EngineError, ColorizeError) as error:
        stop(error, USAGE)
    except (OSError, ValueError) as error:
        stop(f"{plot}: the plot cannot be written ({error}); give a .png in a folder that is there", USAGE)


@app.command()
def quantize(
    out: Annotated[Path, typer.Option("--out", help="Folder for the model with its int8 file.")],
    model: ModelName = "default",
    tiles: Annotated[
        Path | None, typer.Option(help="Folder of scans to take the ranges from.", show_default="shipped tiles")
    ] = None,
    backend: Backend = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Keep it even where it misses its bound.")] = False,
) -> None:
    """Make an int8 model of real tiles; it is kept only where the picture stays the same. Exit code 1: it does not."""
    from engines.errors import EngineError
    from engines.quantize import quantized, write_int8_model
    from engines.select import check_precision, choose
    from engines.spec import find_model
    from flows.engine_tiles import calibration_tiles
    from pipeline.errors import ColorizeError
    from pipeline.files import remove

    try:
        if out.exists():
            stop(f"{out}: there already, it would be overwritten; give a new folder", USAGE)
        found = find_model(model)
        chosen = choose(backend, model, "fp32")[0].backend
        check_precision(chosen, "int8")
        made = write_int8_model(found, quantized(found, calibration_tiles(tiles, found)), out)
        parity = _parity_of(made, chosen)
    except (EngineError, ColorizeError) as error:
        remove(out)
        stop(error, USAGE)
    typer.echo(f"{chosen} int8: {parity}")
    if not parity.passes and not keep:
        remove(out)
        stop(f"{model}: int8 changes the picture too much, so {out} was not kept; --keep keeps it", FAILED)
    typer.echo(f"kept  {out}")


def _parity_of(model: Model, backend: str) -> Parity:
    from engines.parity import measure_parity
    from engines.spec import EngineSpec
    from flows.cluster import processors

    side = -(-256 // model.card.size_multiple) * model.card.size_multiple
    return measure_parity(EngineSpec(backend, str(model.folder), (side, side), 8, processors(), 1, "int8"))


@app.command()
def clean(
    model: Annotated[str | None, typer.Option(help="Only those of this model.", show_default="all")] = None,
) -> None:
    """Delete compiled engine files and what was measured of precisions; both are made again where they are needed."""
    from engines.compile import read_engine, remove_engines
    from engines.errors import EngineError
    from engines.trial import remove_trials

    def is_meant(path: Path) -> bool:
        try:
            return model is None or read_engine(path).key.model == model
        except (OSError, ValueError):
            return model is None

    try:
        gone, trials = remove_engines(is_meant), remove_trials() if model is None else 0
    except EngineError as error:
        stop(error, USAGE)
    typer.echo(f"{len(gone)} engine files and {trials} measurements deleted")
