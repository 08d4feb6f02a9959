"""The command ``colorize-archive``. Heavy imports wait until a command needs them; workers import this file too."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from flows.cli import clean, configured, doctor, engines, hint, review, sharing, status, training
from flows.cli.configured import ConfiguredCommand, explained
from flows.cli.console import DONE, FAILED, STOPPED, USAGE, answer_usage, errors, outlive_readers, stop, warn
from flows.cli.examples import add_examples
from flows.cli.first_words import refuse_missing, say_first
from flows.cli.json_output import AsJson, print_json
from flows.cli.request import asked, taking
from flows.cli.sources import strange_variables
from flows.environment import is_in_utf8
from flows.request import OBJECTS, CommandOptions, ReprocessRequest, Request, RunRequest, names_objects

if TYPE_CHECKING:
    from flows.outcome import ScanOutcome
    from flows.run.endings import RunEnd
    from flows.run.jobs import RunContext, ScanJob
    from pipeline.results.verify import Certificate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Colours black-and-white scans: tiles, compiled engines, overlap averaging; lightness stays the scan's own.",
)
# Log lines of Prefect would drown the report.
_ENVIRONMENT = {
    # Multiprocessing's tracker cleans up after killed processes; its warning helps nobody.
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "0",  # file names on a command line may exceed the default of 512 KiB
}


@app.command(cls=ConfiguredCommand)
@taking(RunRequest)
def run(**given: Any) -> None:
    """Colour scans.

    Exit code 0: all done; 1: some scans failed, the others finished; 2: bad usage; 3: the time was up before the end.
    """
    request, own = asked(RunRequest, given)
    began = datetime.now(UTC)
    refuse_missing(request.inputs)
    if not own.quiet:
        say_first(request.inputs)
    _refuse_wrong(request, began)

    def context() -> tuple[RunContext, Callable[[], list[ScanJob | ScanOutcome]]]:
        from flows.catalogue.recorder import reading_catalogue
        from flows.inputs import find_scans
        from flows.options import parse_options
        from flows.run.jobs import RunContext
        from flows.run.planning import plan_scans
        from pipeline.errors import UsageError
        from pipeline.support.names import shown

        if names_objects(request):
            raise UsageError(
                "dry-run: tiles and times are in the scans themselves, which would all have to be fetched from object "
                "storage; give it some that are on a disk"
            )
        options = parse_options(request, began)
        found, ready = find_scans(request.inputs, options.output, options.force), RunContext.of(options)

        def plan() -> list[ScanJob | ScanOutcome]:
            for line in found.ignored.lines:
                errors.print(shown(line), markup=False, highlight=False)
            with reading_catalogue(ready.options.output) as files:
                return plan_scans(found.scans, replace(ready, files=files))

        return ready, plan

    def here() -> RunEnd:
        if names_objects(request):
            from flows.objects.requests import colorize
        else:
            from flows.run.requests import colorize

        return colorize(request, began)

    def flow() -> Any:
        from flows.orchestration.colorize import colorize_archive

        return colorize_archive

    from flows.deadline import counting_from

    with counting_from(began):
        _do(context, here, flow, request, own)


@app.command(cls=ConfiguredCommand)
@taking(ReprocessRequest)
def reprocess(**given: Any) -> None:
    """Make new versions with other settings from what was ingested before. Exit codes as for run."""
    _reprocess(*asked(ReprocessRequest, given))


def _reprocess(request: ReprocessRequest, own: CommandOptions) -> NoReturn:
    if names_objects(request):
        stop(f"{request.output}: only run and verify work in object storage; copy the results to a disk first", USAGE)

    def context() -> tuple[RunContext, Callable[[], list[ScanJob | ScanOutcome]]]:
        from flows.run.jobs import RunContext
        from flows.run.reprocess_plan import find_stores, parse_reprocess, plan_stores

        options = parse_reprocess(request)
        stores = find_stores(options.output, request.scans or [])
        return RunContext.of(options), lambda: plan_stores(stores, request, options)

    def here() -> RunEnd:
        from flows.run.requests import reprocess

        return reprocess(request)

    def flow() -> Any:
        from flows.orchestration.reprocess import reprocess_archive

        return reprocess_archive

    _do(context, here, flow, request, own)


@app.command()
def variants(
    result: Annotated[Path, typer.Argument(help="A scan's store or result, also without its ending.")],
    sheet: Annotated[
        Path | None, typer.Option(help="File for the sheet; NAME.variants.html beside the results if not given.")
    ] = None,
    take: Annotated[int | None, typer.Option(help="Make the look of this number, for the whole scan.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show nine looks of a scan at reduced size, each with the command that makes it, or make one of them.

    Exit codes as for run.
    """
    from engines.errors import EngineError
    from flows.run.variants import taken, variants_of, write_sheet
    from pipeline.errors import ColorizeError
    from pipeline.support.names import shown

    try:
        output, stem, looks = variants_of(result)
        if take is None:
            path = sheet or output / f"{stem}.variants.html"
            write_sheet(path, output, stem, looks)
            if as_json:
                told = [
                    {"number": number, "options": dict(look.options), "command": look.command(output, stem)}
                    for number, look in enumerate(looks, 1)
                ]
                print_json("variants", {"output": str(output), "scan": stem, "sheet": str(path), "looks": told})
                return
            for number, look in enumerate(looks, 1):
                typer.echo(shown(f"{number}  {look.command(output, stem) or 'as it is'}"))
            typer.echo(shown(f"sheet: {path}"))
            return
        options = taken(looks, take)
    except (ColorizeError, EngineError) as error:
        stop(error, USAGE)
    _reprocess(ReprocessRequest(output=str(output), scans=[stem], **options), CommandOptions(json=as_json))


def _refuse_wrong(request: RunRequest, began: datetime) -> None:
    """End the command for a value that is wrong whatever the scans are, before the packages that do the work load."""
    from engines.errors import EngineError
    from flows.options import parse_options
    from pipeline.errors import UsageError

    try:
        parse_options(request, began)
    except (UsageError, EngineError) as error:
        stop(explained(error), USAGE)


Prepare = Callable[[], "tuple[RunContext, Callable[[], list[ScanJob | ScanOutcome]]]"]


def _do(
    prepare: Prepare, here: Callable[[], RunEnd], flow: Callable[[], Any], request: Request, own: CommandOptions
) -> NoReturn:
    """Run or plan, then exit with the code; usage errors are one line."""
    from engines.errors import EngineError
    from pipeline.errors import ColorizeError

    for line in strange_variables(os.environ):
        warn(line)
    try:
        with _logged(own):
            command = "run" if isinstance(request, RunRequest) else "reprocess"
            code = _dry_run(prepare, own, command) if own.dry_run else _run(prepare, here, flow, request, own)
    except (ColorizeError, EngineError) as error:
        stop(explained(error), USAGE)
    except KeyboardInterrupt:
        stop("stopped; finished results and blocks stay, run the same command to go on", STOPPED)
    raise typer.Exit(code)


@contextlib.contextmanager
def _logged(own: CommandOptions) -> Iterator[None]:
    """Append the log of the body to the log file that was asked for. Raises UsageError if it cannot be written."""
    from flows.run.run_log import logging_to
    from pipeline.errors import UsageError

    if own.quiet and own.verbose:
        raise UsageError("quiet and verbose: the command cannot print less and more; give one of them")
    if own.log_file is None:
        yield
        return
    path = Path(own.log_file).expanduser().absolute()
    try:
        path.open("a").close()
    except OSError as error:
        raise UsageError(f"log-file {own.log_file}: cannot be written ({error.strerror}); give another file") from error
    with logging_to(path):
        try:
            yield
        except Exception as error:
            logging.getLogger("colorize_archive").error("%s", error)
            raise


def _run(
    prepare: Prepare, here: Callable[[], RunEnd], flow: Callable[[], Any], request: Request, own: CommandOptions
) -> int:
    """Run in this process, as a flow where the user has a Prefect server; returns the exit code."""
    from flows.cli.run_report import reporting
    from flows.orchestration.server import users_server
    from flows.outcome import BROKE_OFF, CANCELLED
    from flows.run.endings import BUSY, NOT_STARTED

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with reporting(own) as report, _ending_on_sigterm():
        if users_server() is None:
            end = _end_here(here)
        else:
            if not names_objects(request):
                prepare()  # what is wrong with the request is told before Prefect is imported
            end = _end_of_flow(flow, request)
    if end.name in (BUSY, NOT_STARTED):
        stop(end.message, USAGE)
    if end.name == CANCELLED:
        raise KeyboardInterrupt
    if end.name == BROKE_OFF:
        stop(f"the run broke off: {end.message}; finished results and blocks stay, run it again", FAILED)
    return report.print_summary(request.output)


def _end_here(run: Callable[[], RunEnd]) -> RunEnd:
    """How a run ended. Raises UsageError and EngineError where it did not begin."""
    from engines.errors import EngineError
    from flows.run.endings import end_of
    from pipeline.errors import UsageError

    return end_of(run, (UsageError, EngineError))


def _end_of_flow(flow: Callable[[], Any], request: Request) -> RunEnd:
    """How the flow ended that this process ran, on the user's Prefect server."""
    from flows.orchestration.states import end_here

    try:
        end = end_here(flow(), vars(request))
    except Exception as trouble:
        stop(f"Prefect or Dask did not start, nothing was coloured ({_kept(trouble)}); mend what is named", FAILED)
    return end if not isinstance(end, BaseException) else _broke_off(end)


def _broke_off(error: BaseException) -> RunEnd:
    from flows.outcome import BROKE_OFF
    from flows.run.endings import RunEnd

    return RunEnd(BROKE_OFF, _kept(error), "failed")


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """In the body, end on SIGTERM as on Ctrl-C."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kept(error: BaseException) -> str:
    """An unforeseen error in one line, with the path of its traceback."""
    from flows.run.run_log import in_one_line, keep_traceback

    return f"{in_one_line(error)}; its traceback is in {keep_traceback(error, 'the run broke off')}"


def _dry_run(prepare: Prepare, own: CommandOptions, command: str) -> int:
    """Print the plan; returns the exit code, which says whether all scans could be planned."""
    from flows.cli.report import plan_facts, print_plan
    from flows.outcome import ScanOutcome
    from flows.run.forecast import forecast
    from flows.run.jobs import ScanJob
    from flows.run.planning import naming_log
    from flows.run.run_log import logging_to, own_log

    context, plan = prepare()
    log = own_log()
    with logging_to(log, level=logging.ERROR):
        planned = plan()
    jobs = [p for p in planned if isinstance(p, ScanJob)]
    outcomes = [naming_log(p, log) for p in planned if isinstance(p, ScanOutcome)]
    times = forecast(jobs, context.options.output)
    if own.json:
        print_json(f"{command} --dry-run", plan_facts(context, jobs, outcomes, times))
    else:
        print_plan(Console(soft_wrap=True), context, jobs, outcomes, times, own.verbose)
    return FAILED if any(outcome.has_failed for outcome in outcomes) else DONE


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A scan, a result or a store.")],
    heat_map: Annotated[
        Path | None,
        typer.Option(
            "--map", help="Write a PNG of where colours of a store or result are doubtful, or tiles disagree."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="X,Y: what the model thinks possible at this pixel of a store or result.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a scan, a result or a store is."""
    from flows.cli.report import inspected, print_inspection
    from pipeline.errors import ColorizeError
    from pipeline.support.names import shown

    try:
        legend = answers = None
        if heat_map is not None:
            from flows.run.compare import write_disagreement

            legend = write_disagreement(path, heat_map)
        if at is not None:
            from flows.run.compare import answers_at

            answers = answers_at(path, at)
        if as_json:
            facts: dict[str, Any] = {"path": str(path), "facts": inspected(path)}
            facts |= {} if legend is None else {"map": legend}
            facts |= {} if answers is None else {"at": list(answers)}
            print_json("inspect", facts)
            return
        console = Console(soft_wrap=True)
        print_inspection(console, path)
        if heat_map is not None:
            console.print(f"{'map':14}{shown(heat_map)}: {legend}", highlight=False, markup=False)
        if answers is not None:
            indent = f"\n{'':14}"
            console.print(f"{'at ' + shown(at or ''):14}{indent.join(answers)}", highlight=False, markup=False)
    except ColorizeError as error:
        stop(error, USAGE)


@app.command()
def verify(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...", help="NAME.color.json, a picture, or folders, also in object storage (s3://...)."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificates trusted to sign Content Credentials, or to issue.")
    ] = None,
) -> None:
    """Certify results: lightness against the scan, size, depth, pyramid, and every byte of picture and store;
    and their Content Credentials, where they are signed.

    Exit code 0: all are whole; 1: some are not; 2: bad usage.
    """
    from pipeline.errors import ColorizeError
    from pipeline.results.sidecar import sidecar_of
    from pipeline.results.verify import verify as certify
    from pipeline.support.files import read_text
    from pipeline.support.names import shown

    try:
        trusted = read_text(trust) if trust is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        stop(f"--trust {trust}: cannot be read ({error}); give certificates in PEM", USAGE)
    strangers: list[str] = []
    paths = [Path(each) for each in results if not each.startswith(OBJECTS)]
    addresses = [each for each in results if each.startswith(OBJECTS)]
    found = [each for path in paths for each in ([path] if sidecar_of(path) else _results_in(path, strangers))]
    if not found and not strangers and not addresses:
        stop(f"{' '.join(results)}: no NAME.color.json there; give results, or folders of them", USAGE)
    certificates = [each for address in addresses for each in _certified(address, trusted, strangers, as_json)]
    for result in found:
        try:
            made = certify(result, trusted)
        except ColorizeError as error:
            strangers.append(str(error))
            continue
        certificates += made
        if not as_json:
            typer.echo("\n".join(map(shown, made)))
    if as_json:
        print_json("verify", {"certificates": [certificate.to_json() for certificate in certificates]})
    for reason in strangers:
        errors.print(f"colorize-archive: {shown(reason)}", markup=False)
    whole = all(certificate.passes for certificate in certificates)
    raise typer.Exit(USAGE if strangers else DONE if whole else FAILED)


def _certified(address: str, trust: str, strangers: list[str], as_json: bool) -> Iterator[Certificate]:
    """Certificates of results in object storage, each printed as it comes; what cannot be certified is noted."""
    from flows.objects.verify import verify_objects
    from pipeline.errors import ColorizeError
    from pipeline.support.names import shown

    try:
        for found in verify_objects(address, trust):
            if isinstance(found, ColorizeError):
                strangers.append(str(found))
                continue
            if not as_json:
                typer.echo(shown(found))
            yield found
    except ColorizeError as error:
        stop(error, USAGE)


def _results_in(folder: Path, missed: list[str]) -> list[Path]:
    """Every result below a folder, even if only a picture or only the JSON is left of it.

    Each folder that cannot be read adds a line to ``missed``.
    """
    from flows.inputs import STORE_ENDINGS
    from pipeline.endings import FORMATS as ENDINGS
    from pipeline.results.sidecar import SIDECAR_ENDING, pictures_of, sidecar_of
    from pipeline.support.files import walk

    def cannot_list(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            missed.append(f"{error.filename}: cannot be listed ({error.strerror}), so its results were not looked at")

    found: set[Path] = set()
    results = (SIDECAR_ENDING, *ENDINGS.values())
    for parent, folders, files in walk(folder, cannot_list):
        for path in (parent / name for name in (*folders, *files) if name.endswith(results)):
            sidecar = sidecar_of(path)
            found.add(sidecar if sidecar is not None and pictures_of(sidecar) else path)
        folders[:] = [name for name in folders if not name.endswith((*STORE_ENDINGS, *results))]
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
    from flows.cli.report import print_difference
    from flows.run.compare import choose_versions, compare, write_map
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
        print_json("diff", {"old": before.name, "new": after.name, **found.to_json()})
    else:
        print_difference(Console(soft_wrap=True), opened, before.name, after.name, found)


@app.command()
def sheet(output: Annotated[Path, typer.Argument(help="Folder of earlier results.")]) -> None:
    """Make the contact sheet OUTPUT/index.html anew: every scan before and after, failures first."""
    from flows.catalogue.database import Catalogue
    from flows.sheet.contact_sheet import write_sheet
    from pipeline.errors import ColorizeError, UsageError
    from pipeline.support.names import shown

    try:
        folder = output.expanduser().resolve()
        if not (folder / "runs").is_dir():
            raise UsageError(f"{output}: no run has ended in this folder; give the --output folder of one that has")
        with contextlib.ExitStack() as stack:
            is_alone = _is_locked(stack, folder)
            catalogue = stack.enter_context(Catalogue.open(folder, is_locked=is_alone))
            typer.echo(shown(write_sheet(folder, catalogue, tidies=is_alone, makes_large=True)))
    except ColorizeError as error:
        stop(error, USAGE)


def _is_locked(stack: contextlib.ExitStack, folder: Path) -> bool:
    """Lock the folder until the stack is closed; False if a run works on it."""
    from pipeline.errors import UsageError
    from pipeline.support.files import folder_lock

    try:
        stack.enter_context(folder_lock(folder))
    except UsageError:
        return False
    return True


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the shipped models."""
    from engines.spec import find_model, shipped_models

    if as_json:
        cards = {name: find_model(name).card for name in shipped_models()}
        rows = [
            {"name": name, "generator": card.generator, "size_multiple_px": card.size_multiple}
            for name, card in cards.items()
        ]
        print_json("models", {"models": rows})
        return
    for name in shipped_models():
        card = find_model(name).card
        Console(soft_wrap=True).print(f"{name}: {card.generator}, tiles in multiples of {card.size_multiple} px")


training.register(app)
status.register(app)
hint.register(app)
review.register(app)
clean.register(app)
doctor.register(app)
sharing.register(app)
app.add_typer(engines.app, name="engines")
app.add_typer(configured.app, name="config")
add_examples(app)


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
    """Run the command line. Even an unforeseen error is one line, which names the log with its traceback."""
    if not is_in_utf8():
        # A running process cannot change its encoding.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    outlive_readers()
    try:
        sys.exit(app(prog_name="colorize-archive", standalone_mode=False) or DONE)
    except Exception as error:
        if (code := answer_usage(error)) is not None:
            sys.exit(code)
        from flows.run.run_log import in_one_line, keep_traceback
        from pipeline.support.names import shown

        log = keep_traceback(error, f"colorize-archive {' '.join(sys.argv[1:])}")
        errors.print(f"colorize-archive: {in_one_line(error)}; its traceback is in {shown(log)}", markup=False)
        sys.exit(FAILED)
