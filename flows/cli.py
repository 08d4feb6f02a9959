"""The command ``colorize-archive``. Heavy imports wait until a command needs them; workers import this file too."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from flows.jobs import Job, Prepared

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Colours black-and-white scans: tiles, compiled engines, overlap averaging; lightness stays the scan's own.",
)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

_DONE, _SOME_FAILED, _USAGE = 0, 1, 2
# The run uses Prefect's embedded server unless the user has one; its own log lines would drown the report.
_PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "0",  # a folder's names on the command line are more than its 512 KiB
}


def _stop(message: object, code: int) -> NoReturn:
    errors.print(f"colorize-archive: {' '.join(str(message).split())}", markup=False)
    raise typer.Exit(code)


@app.command()
def run(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Scans, folders or patterns.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    tile: Annotated[str, typer.Option(help="Tile in pixels: 256, HEIGHTxWIDTH such as 2048x4096, or whole.")] = "256",
    stride: Annotated[
        str | None,
        typer.Option(help="Pixels between tiles; smaller is smoother and slower.", show_default="half a tile"),
    ] = None,
    window: Annotated[str, typer.Option(help="Weights in overlaps: average, hann, triangle, gaussian.")] = "average",
    engine: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or identity.")] = "auto",
    model: Annotated[str, typer.Option(help="A shipped model, or a folder with model.onnx and card.json.")] = "default",
    workers: Annotated[str, typer.Option(help="Worker processes, or auto.")] = "auto",
    scheduler: Annotated[str | None, typer.Option(help="Existing Dask scheduler, such as tcp://host:8786.")] = None,
    limit_memory: Annotated[str, typer.Option(help="Most memory the plan may use, all processes.")] = "2GiB",
    force: Annotated[bool, typer.Option("--force", help="Colour scans again whose result is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
) -> None:
    """Colour scans. Exit code 0: all done; 1: some scans failed, the others finished; 2: bad usage."""
    from engines.errors import EngineError
    from pipeline.errors import ColorizeError

    parameters: dict[str, Any] = {
        "output": output,
        "tile": tile,
        "stride": stride,
        "window": window,
        "engine": engine,
        "model": model,
        "workers": workers,
        "scheduler": scheduler,
        "limit_memory": limit_memory,
        "force": force,
    }
    try:
        failed = _dry_run(inputs, parameters) if dry_run else _run(inputs, parameters)
    except (ColorizeError, EngineError) as error:
        _stop(error, _USAGE)
    except KeyboardInterrupt:
        _stop("stopped; finished results stay, run the same command to go on", 130)
    raise typer.Exit(_SOME_FAILED if failed else _DONE)


def _prepare(inputs: list[str], parameters: dict[str, Any]) -> tuple[list[Any], Prepared]:
    """Scans, engine and model. Raises ColorizeError, EngineError: all of them bad usage at this point."""
    from flows.jobs import Prepared
    from flows.settings import find_scans, parse_options

    options = parse_options(**parameters)
    return find_scans(inputs), Prepared.of(options)


def _run(inputs: list[str], parameters: dict[str, Any]) -> int:
    """Run the flow in this process; returns how many scans failed."""
    from engines.errors import EngineError
    from flows.blocks import warm_up
    from flows.cluster import prestarted
    from flows.jobs import prepare_output
    from flows.progress import listening
    from flows.report import RunReport
    from flows.server import embedded_server
    from pipeline.errors import UsageError

    _, prepared = _prepare(inputs, parameters)
    prepare_output(prepared.options.output)
    for name, value in _PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    scheduler, warm = prepared.options.scheduler, partial(warm_up, prepared.engine_spec)
    with (
        embedded_server() as wait_for_server,
        prestarted(prepared.workers, scheduler, warm),
        RunReport(errors) as report,
        listening(report),
    ):
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from flows.archive import SOME_FAILED, colorize_archive

        try:
            wait_for_server()
            # Nobody watches a run that ends with its command for lost heartbeats, and stopping them takes a second.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                state = colorize_archive(inputs=inputs, **parameters, return_state=True)
        except Exception as trouble:
            _stop(f"Prefect did not start ({trouble}); check PREFECT_API_URL and PREFECT_HOME", _SOME_FAILED)
    failed = report.print_summary()
    if not state.is_completed() and state.name != SOME_FAILED:
        error = state.result(raise_on_failure=False)
        if isinstance(error, UsageError | EngineError):
            raise error
        _stop(f"the run broke off: {error}; finished results stay, run it again", _SOME_FAILED)
    return failed


def _dry_run(inputs: list[str], parameters: dict[str, Any]) -> int:
    """Print the plan; returns how many scans could not be planned."""
    from flows.jobs import Job, Outcome
    from flows.planning import plan_scans
    from flows.report import print_plan

    scans, prepared = _prepare(inputs, parameters)
    planned = plan_scans(scans, prepared)
    jobs = [p for p in planned if isinstance(p, Job)]
    outcomes = [p for p in planned if isinstance(p, Outcome)]
    print_plan(Console(soft_wrap=True), prepared, jobs, outcomes, _seconds_per_tile(jobs))
    return sum(outcome.status == "failed" for outcome in outcomes)


def _seconds_per_tile(jobs: list[Job]) -> float:
    """Measured here and now: one warm batch of the engine, over the blocks that run at once."""
    import time

    import numpy as np

    from engines.select import open_engine

    if not jobs:
        return 0.0
    spec = jobs[0].engine_spec
    tiles = np.full((spec.batch, 1, *spec.tile_yx), 50, np.float32)
    with open_engine(spec) as engine:
        engine.predict(tiles)
        started = time.perf_counter()
        engine.predict(tiles)
        return (time.perf_counter() - started) / spec.batch / jobs[0].workers.blocks_at_once


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="A scan, a result or a store.")]) -> None:
    """Say what a scan, a result or a store is."""
    from flows.report import print_inspection
    from pipeline.errors import ColorizeError

    try:
        print_inspection(Console(soft_wrap=True), path)
    except ColorizeError as error:
        _stop(error, _USAGE)


@app.command()
def models() -> None:
    """List the shipped models."""
    from engines.spec import find_model, shipped_models

    for name in shipped_models():
        card = find_model(name).card
        Console(soft_wrap=True).print(f"{name}: {card.generator}, tiles in multiples of {card.size_multiple} px")


@app.callback()
def _root() -> None:
    """Entry point of all commands."""


def main() -> None:
    """Run the command line; whatever was not foreseen is one line too, unless COLORIZE_ARCHIVE_DEBUG is set."""
    try:
        app(prog_name="colorize-archive")
    except Exception as error:
        if os.environ.get("COLORIZE_ARCHIVE_DEBUG"):
            raise
        errors.print(f"colorize-archive: {type(error).__name__}: {error}; please report this", markup=False)
        sys.exit(_SOME_FAILED)


if __name__ == "__main__":
    main()
