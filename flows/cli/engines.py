"""``colorize-archive engines``: which there are, compiled files, parity with the reference, speed, int8."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.console import FAILED, USAGE, say, stop
from flows.cli.json_output import print_json
from pipeline.support.names import shown

if TYPE_CHECKING:
    from engines.measure.parity import Parity
    from engines.spec import EngineSpec, Model

app = typer.Typer(no_args_is_help=True, help="Engines: which run here, compiled files, parity, speed, int8.")

ModelName = Annotated[str, typer.Option(help="A shipped model, or a model folder.")]
Backend = Annotated[str, typer.Option(help="auto, or a backend by name.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")]
Tile = Annotated[str, typer.Option(help="Tile in pixels: 256, or HEIGHTxWIDTH.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Tiles a prediction.", show_default="as a run has it")]
NetworkName = Annotated[
    str | None, typer.Option("--network", help="generator or palette.", show_default="each that the model has")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _networks(model: str, network: str | None) -> list[str]:
    """The requested networks of a model. Raises EngineError."""
    from engines.errors import ModelError
    from engines.spec import GENERATOR, PALETTE, find_model

    found = find_model(model)
    if network is None:
        return [GENERATOR, *([PALETTE] if found.card.palette else [])]
    if network not in (GENERATOR, PALETTE):
        raise ModelError(f"--network {network}: no such network; give {GENERATOR} or {PALETTE}")
    found.as_network(network)
    return [network]


def _spec(model: str, backend: str, precision: str, tile: str, batch: int | None, network: str) -> EngineSpec:
    """The requested engine, with ``auto`` resolved. Raises EngineError, ColorizeError."""
    from engines.machine import processors
    from engines.palette import palette_spec
    from engines.select import choose, choose_palette
    from engines.spec import PALETTE, EngineSpec
    from flows.options import parse_size
    from pipeline.planning.plan import batch_for

    tile_yx = parse_size(tile, "tile")
    choice, found = choose(backend, model, precision, tile_yx)
    if network == PALETTE:
        choice = choose_palette(found, choice.backend, precision)
        return palette_spec(found, processors(), choice.backend, choice.precision)
    return EngineSpec(
        choice.backend, str(found.folder), tile_yx, batch or batch_for(tile_yx), processors(), 1, choice.precision
    )


@app.command("list")
def list_engines(model: ModelName = "default", as_json: AsJson = False) -> None:
    """Name every backend, whether it runs here and in which precisions, what auto takes, and the compiled files."""
    from engines.engine_files import engine_files
    from engines.errors import EngineError
    from engines.registry import backend_module, backend_names, computes, precisions_of, usable_version
    from engines.select import choose, choose_palette
    from engines.spec import PALETTE, find_model

    try:
        found = find_model(model)
        rows: list[dict[str, Any]] = []
        for name in backend_names():
            try:
                version, note = usable_version(name), str(getattr(backend_module(name), "REASON", ""))
                precisions, palette = precisions_of(name, found), []
                if found.card.palette and computes(name, PALETTE):
                    palette = precisions_of(name, found.as_network(PALETTE))
            except EngineError as error:
                version, precisions, palette, note = "", [], [], str(error)
            row = {"backend": name, "version": version, "precisions": precisions, "palette": palette, "note": note}
            rows.append(row)
        choice, _ = choose(model=model)
        palette_choice = choose_palette(found, choice.backend) if found.card.palette else None
    except EngineError as error:
        stop(error, USAGE)
    files = []
    with contextlib.suppress(EngineError):  # no cache, no files
        files = [str(path) for path in engine_files()]
    if as_json:
        told = {"backends": rows, "auto": asdict(choice)}
        told |= {"palette": asdict(palette_choice)} if palette_choice else {}
        print_json("engines list", {**told, "files": files})
        return
    console, table = Console(soft_wrap=True), Table("backend", "version", "precisions", "palette", "note")
    for row in rows:
        words = (" ".join(row[name]) or "-" for name in ("precisions", "palette"))
        cells = [str(cell) for cell in (row["backend"], row["version"] or "-", *words, row["note"])]
        table.add_row(*(escape(shown(cell)) for cell in cells))
    console.print(table)
    console.print(shown(f"auto takes: {choice}"), highlight=False, markup=False)
    if palette_choice:
        console.print(shown(f"and for the palette: {palette_choice}"), highlight=False, markup=False)
    for file in files:
        console.print(shown(file), highlight=False, markup=False)


@app.command()
def build(
    model: ModelName = "default",
    backend: Backend = "auto",
    precision: Precision = "auto",
    tile: Tile = "256",
    batch: Batch = None,
    network: NetworkName = None,
    anew: Annotated[bool, typer.Option("--force", help="Build it again where it is there.")] = False,
) -> None:
    """Compile an engine and keep the file, as a run does by itself; also for a machine without the GPU it is for."""
    from engines.engine_files import Compiling, build_engine
    from engines.errors import EngineError
    from engines.palette import palette_spec
    from engines.registry import backend_module, check_precision, check_tile, compiles, computes
    from engines.select import choose
    from engines.spec import AUTO, PALETTE, EngineSpec, find_model
    from flows.options import parse_size
    from pipeline.errors import ColorizeError
    from pipeline.planning.plan import batch_for

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
        specs = [spec]
        if found.card.palette and computes(backend, PALETTE):
            # Palette networks have no int8.
            palette = wanted if wanted != "int8" else next(each for each in module.PRECISIONS if each != "int8")
            specs.append(palette_spec(found, 1, backend, palette))
        asked = _networks(model, network)
        compiling: Compiling = module  # type: ignore[assignment]
        built = [
            build_engine(compiling, found.as_network(each.network), each, anew)
            for each in specs
            if each.network in asked
        ]
    except (EngineError, ColorizeError) as error:
        stop(error, USAGE)
    except ImportError as error:
        stop(f"engine {backend} is not installed ({error}): nothing was built; see docs/engines.md", USAGE)
    for made in built:
        state = "built" if made.is_new else "there already"
        say(f"{state}  {made.path}  ({len(made.compiled) / 2**20:.1f} MiB)")


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="An engine file.")], as_json: AsJson = False) -> None:
    """Say what an engine file was built from and for."""
    from engines.engine_files import read_engine

    try:
        found = read_engine(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        stop(f"{path}: {reason}; give an engine file, as colorize-archive engines list names them", USAGE)
    facts = {**asdict(found.key), "built": found.built, "bytes": len(found.compiled)}
    if as_json:
        print_json("engines inspect", {"facts": facts})
        return
    for name, value in facts.items():
        say(f"{name:<12}{value}")


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
    network: NetworkName = None,
    as_json: AsJson = False,
) -> None:
    """Compare an engine with the ONNX reference on real tiles. Exit code 1: it misses its bound."""
    from engines.errors import EngineError
    from engines.measure.parity import measure_parity
    from pipeline.errors import ColorizeError

    try:
        networks = _networks(model, network)
        if every:
            specs, _ = _specs_that_run(model, tile, [batch] if batch else [], networks)
        else:
            specs = [_spec(model, backend, precision, tile, batch, each) for each in networks]
        found: list[tuple[EngineSpec, Parity | str]] = [
            (spec, _parity_or_reason(spec) if every else measure_parity(spec)) for spec in specs
        ]
    except (EngineError, ColorizeError) as error:
        stop(error, USAGE)
    if as_json:
        rows = [{"engine": asdict(spec), "parity": _json(parity)} for spec, parity in found]
        print_json("engines check", {"engines": rows})
    elif every:
        _print_parities(found)
    else:
        for spec, parity in found:
            typer.echo(f"{spec.network}, {spec.backend} {spec.precision}, batch {spec.batch}: {parity}")
    raise typer.Exit(0 if all(isinstance(parity, str) or parity.passes for _, parity in found) else FAILED)


def _specs_that_run(
    model: str,
    tile: str,
    batches: list[int],
    networks: list[str],
    names: list[str] | None = None,
    precisions: list[str] | None = None,
) -> tuple[list[EngineSpec], list[str]]:
    """Engines for each of ``names``, or each backend that runs here, in each precision, at each batch.

    Also returns why other backends do not run here.

    Palette networks have their own batch size.

    Raises
    ------
    EngineError, ColorizeError : the model, the tile, or one of ``names`` is wrong.
    """
    from engines.errors import EngineError
    from engines.machine import processors
    from engines.palette import palette_spec
    from engines.registry import backend_names, check_tile, computes, precisions_of, usable_version
    from engines.spec import GENERATOR, PALETTE, EngineSpec, find_model
    from flows.options import parse_size
    from pipeline.planning.plan import batch_for

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
        for each in (precisions or precisions_of(name, found)) if GENERATOR in networks else ():
            for size in batches or [batch_for(tile_yx)]:
                specs.append(EngineSpec(name, str(found.folder), tile_yx, size, processors(), 1, each))
        if PALETTE in networks and computes(name, PALETTE):
            there = precisions_of(name, found.as_network(PALETTE))
            specs += [palette_spec(found, processors(), name, each) for each in precisions or there if each in there]
    return specs, left_out


def _parity_or_reason(spec: EngineSpec) -> Parity | str:
    from engines.errors import EngineError
    from engines.measure.parity import measure_parity

    try:
        return measure_parity(spec)
    except EngineError as error:
        return str(error)


def _json(parity: Parity | str) -> Any:
    return parity if isinstance(parity, str) else asdict(parity)


def _print_parities(found: list[tuple[EngineSpec, Parity | str]]) -> None:
    """Print a Markdown table, and the reasons for missing figures."""
    typer.echo("| backend | network | precision | batch | median | 99.9 % | bound | worst tile | alone | |")
    typer.echo("|---" * 10 + "|")
    reasons = []
    for spec, parity in found:
        if isinstance(parity, str):
            reasons.append(f"{spec.backend} {spec.network} {spec.precision}: {parity}")
            continue
        figures = f"{parity.median:.4f} | {parity.p999:.4f} | {parity.bound:g} | {parity.worst_tile_mean:.4f}"
        alone = "equal" if parity.rows_equal else "differs"
        passes = "passes" if parity.passes else "FAILS"
        what = f"{spec.backend} | {spec.network} | {spec.precision} | {spec.batch}"
        typer.echo(f"| {what} | {figures} | {alone} | {passes} |")
    for reason in reasons:
        typer.echo(f"left out: {reason}")


@app.command()
def bench(
    model: ModelName = "default",
    backend: Annotated[list[str] | None, typer.Option(help="Backends; all that run here if not given.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Precisions; all of each if not given.")] = None,
    tile: Tile = "256",
    batches: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Tiles a prediction; 1 and 8.")] = None,
    network: NetworkName = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 3.0,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tiles a second of every backend, precision and batch, beside what the processor's arithmetic allows."""
    from engines.errors import EngineError
    from engines.measure.bench import bench as measure
    from engines.measure.bench import plot as draw
    from engines.measure.bench import table
    from pipeline.errors import ColorizeError

    try:
        specs, left_out = _specs_that_run(model, tile, batches or [1, 8], _networks(model, network), backend, precision)
        speeds, skipped = measure(specs, seconds)
        if as_json:
            facts = {"speeds": [asdict(speed) for speed in speeds], "left_out": [*left_out, *skipped]}
            print_json("engines bench", facts)
        else:
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
    from engines.convert.quantize import quantized, write_int8_model
    from engines.errors import EngineError
    from engines.registry import check_precision
    from engines.select import choose
    from engines.spec import find_model
    from flows.cli.engine_tiles import calibration_tiles
    from pipeline.errors import ColorizeError
    from pipeline.support.files import remove

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
    say(f"kept  {out}")


def _parity_of(model: Model, backend: str) -> Parity:
    from engines.machine import processors
    from engines.measure.parity import measure_parity
    from engines.spec import EngineSpec

    side = -(-256 // model.card.size_multiple) * model.card.size_multiple
    return measure_parity(EngineSpec(backend, str(model.folder), (side, side), 8, processors(), 1, "int8"))


@app.command()
def clean(
    model: Annotated[str | None, typer.Option(help="Only those of this model.", show_default="all")] = None,
) -> None:
    """Delete compiled engine files and what was measured of precisions; both are made again where they are needed."""
    from engines.engine_files import read_engine, remove_engines
    from engines.errors import EngineError
    from engines.measure.autotune import remove_trials
    from engines.spec import PALETTE

    def is_meant(path: Path) -> bool:
        try:
            return model is None or read_engine(path).key.model in (model, f"{model}-{PALETTE}")
        except (OSError, ValueError):
            return model is None

    try:
        gone, trials = remove_engines(is_meant), remove_trials() if model is None else 0
    except EngineError as error:
        stop(error, USAGE)
    typer.echo(f"{len(gone)} engine files and {trials} measurements deleted")
