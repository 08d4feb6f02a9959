"""The command ``colorize-archive``. Heavy imports wait until a command needs them; workers import this file too."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from flows import engine_commands, learning, status
from flows.console import DONE, FAILED, STOPPED, USAGE, errors, stop

if TYPE_CHECKING:
    from flows.jobs import Job, Outcome, Prepared

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Colours black-and-white scans: tiles, compiled engines, overlap averaging; lightness stays the scan's own.",
)
# The run uses Prefect's embedded server unless the user has one; its own log lines would drown the report.
_ENVIRONMENT = {
    # What a killed process leaves to multiprocessing's tracker is cleaned up by it; its warning helps nobody.
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "0",  # a folder's names on the command line are more than its 512 KiB
}


Scheduler = Annotated[
    str | None, typer.Option(help="Existing Dask cluster: tcp://host:8786, tls://host:8786 or a scheduler file.")
]
Cluster = Annotated[str, typer.Option(help="local, or cuda: one worker a GPU of this machine.")]
TlsCa = Annotated[str | None, typer.Option(help="PEM file of the authority that signed the scheduler's certificate.")]
TlsCert = Annotated[str | None, typer.Option(help="PEM file of this client's certificate.")]
TlsKey = Annotated[str | None, typer.Option(help="PEM file of this client's key.")]
Engine = Annotated[str, typer.Option(help="auto, or a backend: colorize-archive engines list names them.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8: what the engine computes in.")]
Workers = Annotated[str, typer.Option(help="Worker processes, or auto.")]
LimitMemory = Annotated[str, typer.Option(help="Most memory the plan may use, all processes.")]
Keep = Annotated[str, typer.Option(help="Versions of a scan's colours that stay, the new one among them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]


@app.command()
def run(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Scans, folders or patterns.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    tile: Annotated[str, typer.Option(help="Tile in pixels: 256, HEIGHTxWIDTH such as 2048x4096, or whole.")] = "256",
    stride: Annotated[
        str | None,
        typer.Option(help="Pixels between tiles; smaller is smoother and slower.", show_default="half a tile"),
    ] = None,
    window: Annotated[str, typer.Option(help="Weights in overlaps: average, hann, triangle, gaussian.")] = "hann",
    anchor: Annotated[bool, typer.Option(help="Take the palette from the whole scan, so that its tiles agree.")] = True,
    quality: Annotated[
        str | None,
        typer.Option(help="Seam score to reach, such as 1.05: finer tiles where tiles disagree.", show_default="none"),
    ] = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    model: Annotated[str, typer.Option(help="A shipped model, or a folder with model.onnx and card.json.")] = "default",
    workers: Workers = "auto",
    cluster: Cluster = "local",
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    limit_memory: LimitMemory = "2GiB",
    keep: Keep = "2",
    formats: Annotated[
        str, typer.Option("--format", help="tiff, cog, omezarr, jp2, iiif, png, jpeg, or several: tiff,iiif.")
    ] = "tiff",
    metadata: Annotated[bool, typer.Option(help="Carry over what the scan says beside its pixels.")] = True,
    pages: Annotated[str, typer.Option(help="Of files that have several: all, or numbers such as 1,3-5.")] = "all",
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Colour damaged scans too: what cannot be read is gray, and listed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Colour scans again whose result is there.")] = False,
    until: Annotated[
        str | None, typer.Option(help="When to end, at a block: 06:00, +90m or an ISO time. The next run goes on.")
    ] = None,
    quarantine_after: Annotated[
        str, typer.Option(help="Failures in a row that take a scan out of later runs until it changes; 0: none.")
    ] = "3",
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try all scans, whatever became of them in earlier runs.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Colour scans.

    Exit code 0: all done; 1: some scans failed, the others finished; 2: bad usage; 3: the time was up before the end.
    """
    parameters = {name: value for name, value in locals().items() if name not in ("inputs", "dry_run")}

    def prepared() -> tuple[Prepared, Callable[[], list[Job | Outcome]]]:
        from flows.bookkeeping import reading_books
        from flows.inputs import find_scans
        from flows.jobs import Prepared
        from flows.planning import plan_scans
        from flows.settings import parse_options

        found, ready = find_scans(inputs), Prepared.of(parse_options(**parameters))

        def plan() -> list[Job | Outcome]:
            for line in found.aside.lines:
                errors.print(line, markup=False, highlight=False)
            with reading_books(ready.options.output) as files:
                return plan_scans(found.scans, replace(ready, files=files))

        return ready, plan

    def flow() -> Any:
        from flows.archive import colorize_archive

        return colorize_archive

    _do(prepared, flow, {"inputs": inputs, **parameters}, dry_run)


@app.command()
def reprocess(
    output: Annotated[str, typer.Argument(help="Folder of earlier results.")],
    scans: Annotated[
        list[str] | None, typer.Argument(metavar="[SCAN]...", help="Names, patterns, folders/; else all.")
    ] = None,
    tile: Annotated[str | None, typer.Option(help="As in run.", show_default="as it was")] = None,
    stride: Annotated[str | None, typer.Option(help="As in run.", show_default="as it was")] = None,
    window: Annotated[str | None, typer.Option(help="As in run.", show_default="as it was")] = None,
    anchor: Annotated[
        bool | None, typer.Option("--anchor/--no-anchor", help="As in run.", show_default="as it was")
    ] = None,
    quality: Annotated[
        str | None, typer.Option(help="As in run, or none.", show_default="as it was; none where a stride is given")
    ] = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    model: Annotated[str | None, typer.Option(help="As in run.", show_default="as it was")] = None,
    workers: Workers = "auto",
    cluster: Cluster = "local",
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    limit_memory: LimitMemory = "2GiB",
    keep: Keep = "2",
    formats: Annotated[str | None, typer.Option("--format", help="As in run.", show_default="as it was")] = None,
    metadata: Annotated[
        bool | None, typer.Option("--metadata/--no-metadata", help="As in run.", show_default="as it was")
    ] = None,
    worse_than: Annotated[
        str | None, typer.Option(help="Only scans whose seam score is above this, such as 1.05.", show_default="all")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make versions again that are there.")] = False,
    reuse: Annotated[
        bool, typer.Option(help="Take over the tiles of a version with twice the stride: a quarter less work.")
    ] = True,
    dry_run: DryRun = False,
) -> None:
    """Make new versions with other settings from what was ingested before. Exit codes as for run."""
    parameters = {name: value for name, value in locals().items() if name not in ("scans", "dry_run")}

    def prepared() -> tuple[Prepared, Callable[[], list[Job | Outcome]]]:
        from flows.jobs import Prepared
        from flows.stores import find_stores, parse_reprocess, plan_stores

        options, changes = parse_reprocess(**parameters)
        stores = find_stores(options.output, scans or [])
        return Prepared.of(options), lambda: plan_stores(stores, changes, options)

    def flow() -> Any:
        from flows.reprocess import reprocess_archive

        return reprocess_archive

    _do(prepared, flow, {"scans": scans, **parameters}, dry_run)


Prepare = Callable[[], "tuple[Prepared, Callable[[], list[Job | Outcome]]]"]


def _do(prepare: Prepare, flow: Callable[[], Any], parameters: dict[str, Any], dry_run: bool) -> NoReturn:
    """Run or plan, and leave with the exit code; errors of usage are one line."""
    from engines.errors import EngineError
    from pipeline.errors import ColorizeError

    try:
        code = _dry_run(prepare) if dry_run else _run(prepare, flow, parameters)
    except (ColorizeError, EngineError) as error:
        stop(error, USAGE)
    except KeyboardInterrupt:
        stop("stopped; finished results and blocks stay, run the same command to go on", STOPPED)
    raise typer.Exit(code)


def _run(prepare: Prepare, flow: Callable[[], Any], parameters: dict[str, Any]) -> int:
    """Run the flow in this process; returns the exit code."""
    from flows.cluster import prestarted
    from flows.jobs import prepare_output
    from flows.progress import listening
    from flows.report import RunReport
    from flows.server import embedded_server

    prepared, _ = prepare()
    options = prepared.options
    prepare_output(options.output)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with (
        embedded_server() as wait_for_server,
        prestarted(prepared.workers, options.cluster, options.limit_memory_bytes, prepared.engine_spec),
        RunReport(errors) as report,
        listening(report),
    ):
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from flows.endings import ALL_FAILED, BUSY, NOT_STARTED, SOME_FAILED

        try:
            called = flow()
            wait_for_server()
            # Nobody watches a run that ends with its command for lost heartbeats, and stopping them takes a second.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                state: Any = called(**parameters, return_state=True)
        except Exception as trouble:
            stop(f"Prefect did not start ({trouble}); check PREFECT_API_URL and PREFECT_HOME", FAILED)
    if state.name in (BUSY, NOT_STARTED):
        stop(state.message, USAGE)
    if not state.is_completed() and state.name not in (SOME_FAILED, ALL_FAILED):
        error = state.result(raise_on_failure=False)
        stop(f"the run broke off: {error}; finished results and blocks stay, run it again", FAILED)
    return report.print_summary()


def _dry_run(prepare: Prepare) -> int:
    """Print the plan; returns the exit code, by whether all scans could be planned."""
    from flows.jobs import Job, Outcome
    from flows.report import print_plan

    prepared, plan = prepare()
    planned = plan()
    jobs = [p for p in planned if isinstance(p, Job)]
    outcomes = [p for p in planned if isinstance(p, Outcome)]
    print_plan(Console(soft_wrap=True), prepared, jobs, outcomes, _seconds_per_tile(jobs))
    return FAILED if any(outcome.has_failed for outcome in outcomes) else DONE


def _seconds_per_tile(jobs: list[Job]) -> float:
    """Of one engine stream, measured here and now on a warm batch."""
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
        return (time.perf_counter() - started) / spec.batch


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A scan, a result or a store.")],
    heat_map: Annotated[
        Path | None, typer.Option("--map", help="Write a PNG of where the tiles of a store or result disagree.")
    ] = None,
) -> None:
    """Say what a scan, a result or a store is."""
    from flows.report import print_inspection
    from pipeline.errors import ColorizeError

    try:
        if heat_map is not None:
            from flows.compare import write_disagreement

            write_disagreement(path, heat_map)
        console = Console(soft_wrap=True)
        print_inspection(console, path)
        if heat_map is not None:
            legend = "dark where tiles agree, yellow where they differ by 20 CIELAB units and more, in squares of 32 px"
            console.print(f"{'map':14}{heat_map}: {legend}", highlight=False, markup=False)
    except ColorizeError as error:
        stop(error, USAGE)


@app.command()
def verify(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="NAME.color.json, a picture, or folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Certify results: lightness against the scan, size, depth, pyramid, and every byte of picture and store.

    Exit code 0: all are whole; 1: some are not; 2: bad usage.
    """
    import json

    from pipeline.errors import ColorizeError
    from pipeline.manifest import sidecar_of
    from pipeline.verify import verify as certify

    found = [each for path in results for each in ([path] if sidecar_of(path) else _results_in(path))]
    if not found:
        stop(f"{' '.join(map(str, results))}: no NAME.color.json there; give results, or folders of them", USAGE)
    certificates, strangers = [], []
    for result in found:
        try:
            made = certify(result)
        except ColorizeError as error:
            strangers.append(str(error))
            continue
        certificates += made
        if not as_json:
            typer.echo("\n".join(map(str, made)))
    if as_json:
        typer.echo(json.dumps([certificate.to_json() for certificate in certificates], indent=2))
    for reason in strangers:
        errors.print(f"colorize-archive: {reason}", markup=False)
    whole = all(certificate.passes for certificate in certificates)
    raise typer.Exit(USAGE if strangers else DONE if whole else FAILED)


def _results_in(folder: Path) -> list[Path]:
    """Every result below a folder, also those of which only a picture or only the JSON is left."""
    from pipeline.manifest import pictures_of, sidecar_of
    from pipeline.writers import ENDINGS

    found: set[Path] = set()
    for ending in (".color.json", *ENDINGS.values()):
        for path in folder.rglob(f"*{ending}"):
            sidecar = sidecar_of(path)
            found.add(sidecar if sidecar is not None and pictures_of(sidecar) else path)
    return sorted(found)


@app.command()
def diff(
    store: Annotated[Path, typer.Argument(help="NAME.zarr of a scan with two versions.")],
    old: Annotated[str | None, typer.Argument(help="Version, or the beginning of its name.")] = None,
    new: Annotated[str | None, typer.Argument(help="Version; the current one if not given.")] = None,
    heat_map: Annotated[Path | None, typer.Option("--map", help="Write a PNG of where they differ.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two versions of a scan's colours: CIEDE2000 figures, where they differ most, and a heat map."""
    import json

    from flows.compare import choose_versions, compare, print_difference, write_map
    from pipeline.errors import ColorizeError
    from pipeline.store import ScanStore

    try:
        opened = ScanStore.open(store)
        before, after = choose_versions(opened, old, new)
        found = compare(opened, before, after)
        if heat_map is not None:
            write_map(found, heat_map)
    except ColorizeError as error:
        stop(error, USAGE)
    if as_json:
        typer.echo(json.dumps({"old": before.name, "new": after.name, **found.to_json()}, indent=2))
    else:
        print_difference(Console(soft_wrap=True), opened, before.name, after.name, found)


@app.command()
def sheet(output: Annotated[Path, typer.Argument(help="Folder of earlier results.")]) -> None:
    """Make the contact sheet OUTPUT/index.html anew: every scan before and after, failures first."""
    from flows.catalogue import Catalogue
    from flows.sheet import write_sheet
    from pipeline.errors import ColorizeError, UsageError

    try:
        folder = output.expanduser().resolve()
        if not (folder / "runs").is_dir():
            raise UsageError(f"{output}: no run has ended in this folder; give the --output folder of one that has")
        with contextlib.ExitStack() as stack:
            is_alone = _is_locked(stack, folder)
            catalogue = stack.enter_context(Catalogue.open(folder, is_locked=is_alone))
            typer.echo(str(write_sheet(folder, catalogue, tidies=is_alone)))
    except ColorizeError as error:
        stop(error, USAGE)


def _is_locked(stack: contextlib.ExitStack, folder: Path) -> bool:
    """Lock the folder until the stack is closed; False where a run works on it."""
    from pipeline.errors import UsageError
    from pipeline.files import folder_lock

    try:
        stack.enter_context(folder_lock(folder))
    except UsageError:
        return False
    return True


@app.command()
def models() -> None:
    """List the shipped models."""
    from engines.spec import find_model, shipped_models

    for name in shipped_models():
        card = find_model(name).card
        Console(soft_wrap=True).print(f"{name}: {card.generator}, tiles in multiples of {card.size_multiple} px")


learning.register(app)
status.register(app)
app.add_typer(engine_commands.app, name="engines")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"colorize-archive {version('colorize-archive')}")
        raise typer.Exit(DONE)


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Entry point of all commands."""


def main() -> None:
    """Run the command line; whatever was not foreseen is one line too, unless COLORIZE_ARCHIVE_DEBUG is set."""
    try:
        app(prog_name="colorize-archive")
    except Exception as error:
        if os.environ.get("COLORIZE_ARCHIVE_DEBUG"):
            raise
        errors.print(f"colorize-archive: {type(error).__name__}: {error}; please report this", markup=False)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
