"""The commands ``status``, which prints the catalogue of an output folder, and ``release``."""

from __future__ import annotations

import fcntl
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import USAGE, stop
from flows.cli.json_output import print_json
from flows.cli.tables import local_time
from pipeline.errors import ColorizeError, UsageError
from pipeline.support.files import LOCK_FILE
from pipeline.support.names import shown

if TYPE_CHECKING:
    from flows.catalogue.database import Catalogue, KnownRun, KnownScan, KnownVersion

_RUNS_SHOWN, _SCANS_SHOWN = 5, 50
_STATES = ("done", "failed", "quarantined", "stopped")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(status)
    app.command()(release)
    app.command()(restore)


def status(
    output: Annotated[Path, typer.Argument(help="The --output folder of earlier runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all of it.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="First make the catalogue anew from the results.")] = False,
) -> None:
    """Print what is in an output folder: totals, failures with their reasons, the last runs, the versions.

    Exit code 0, whatever failed; 2: bad usage.
    """
    try:
        with _opened(output.expanduser().resolve(), rebuild) as catalogue:
            found = status_of(catalogue)
    except ColorizeError as error:
        stop(error, USAGE)
    if as_json:
        print_json("status", found)
        return
    console = Console(soft_wrap=True)
    for line in lines_of(found):
        console.print(shown(line), markup=False, highlight=False)


def release(
    output: Annotated[Path, typer.Argument(help="The --output folder of earlier runs.")],
    scans: Annotated[
        list[str],
        typer.Argument(metavar="SCAN...", help="Names as status has them, patterns, or folders (albums/)."),
    ],
) -> None:
    """Have the next run try scans again that wait after failures or are quarantined; their count begins anew.

    Exit code 2: bad usage, such as a name that none of them has.
    """
    from flows.catalogue.database import Catalogue
    from flows.run.reprocess_plan import chooses
    from pipeline.support.files import folder_lock

    try:
        folder = output.expanduser().resolve()
        check_output(folder)
        with folder_lock(folder), Catalogue.open(folder, is_locked=True) as catalogue:
            failed = [scan for scan in catalogue.scans() if scan.state in ("failed", "quarantined")]
            chosen = [
                scan.stem
                for scan in failed
                if any(chooses(pattern, name) for pattern in scans for name in (scan.stem, _named(vars(scan))))
            ]
            if not chosen:
                raise UsageError(f"{' '.join(scans)}: none of the {len(failed)} scans that failed has such a name")
            catalogue.release(chosen)
    except ColorizeError as error:
        stop(error, USAGE)
    for stem in chosen:
        typer.echo(f"released     {shown(stem)}")


def restore(
    result: Annotated[Path, typer.Argument(metavar="NAME", help="NAME.zarr, or a result of the scan.")],
    version: Annotated[str, typer.Argument(help="A version that was kept, or the beginning of its name.")],
) -> None:
    """Put back an earlier version of a scan's colours that was kept; the current one takes its place among those.

    Exit code 2: bad usage, such as a version that is not there.
    """
    from flows.run.restore import restore as put_back

    try:
        name, before = put_back(result, version)
    except ColorizeError as error:
        stop(error, USAGE)
    typer.echo(f"restored     {shown(name)}; {shown(before or 'nothing')} was current")


def check_output(output: Path) -> None:
    """Raise UsageError unless runs have worked here, so that a folder given by mistake gets no catalogue."""
    from flows.catalogue.database import FILE

    if not (output / FILE).exists() and not (output / "runs").is_dir():
        raise UsageError(f"{output}: no results of a run are here; give the --output folder of an earlier run")


def _opened(output: Path, anew: bool) -> Catalogue:
    from flows.catalogue.database import Catalogue, rebuild

    check_output(output)
    return rebuild(output) if anew else Catalogue.open(output)


def status_of(catalogue: Catalogue) -> dict[str, Any]:
    """All that ``status --json`` prints."""
    scans, versions, runs = catalogue.scans(), catalogue.versions(), catalogue.runs()
    counts: Counter[str] = Counter(scan.state for scan in scans)
    running = _is_locked(catalogue.output) if any(run.state == "running" for run in runs) else False
    return {
        "output": str(catalogue.output),
        "scans": {"all": len(scans), **{state: counts[state] for state in _STATES}},
        "megapixels": round(sum(scan.megapixels for scan in scans if scan.state == "done"), 3),
        "failed": [_scan(scan) for scan in scans if scan.state == "failed"],
        "quarantined": [_scan(scan) for scan in scans if scan.state == "quarantined"],
        "stopped": [_scan(scan) for scan in scans if scan.state == "stopped"],
        "runs": [_run(run, running and run is runs[-1]) for run in reversed(runs)],
        "versions": [_version(version) for version in versions],
    }


def _scan(scan: KnownScan) -> dict[str, Any]:
    reason = scan.message.removeprefix(f"{shown(scan.path)}: ")
    return {
        "scan": scan.stem,
        "path": scan.path,
        "page": scan.page,
        "reason": reason,
        "failures": scan.failures,
        "retry_after": scan.retry_after,
        "run": scan.run,
    }


def _run(run: KnownRun, is_running: bool) -> dict[str, Any]:
    """A run as JSON. It counts as ``running`` only if it is the last run and somebody holds the folder's lock."""
    state = "killed" if run.state == "running" and not is_running else run.state
    return {**vars(run), "state": state, "seconds": run.seconds}


def _version(version: KnownVersion) -> dict[str, Any]:
    return {**vars(version), "warnings": list(version.warnings)}


def _is_locked(output: Path) -> bool:
    try:
        with (output / LOCK_FILE).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """The lines for people: problems first."""
    for state in ("failed", "quarantined", "stopped"):
        scans = found[state]
        for scan in scans[:_SCANS_SHOWN]:
            yield f"{state:<12} {_named(scan)}: {scan['reason']}{_since(scan)}"
        if len(scans) > _SCANS_SHOWN:
            yield f"{state:<12} and {len(scans) - _SCANS_SHOWN} more; --json lists all"
    counts = found["scans"]
    yield f"{'folder':<12} {found['output']}"
    parts = [f"{counts[state]} {state}" for state in _STATES if counts[state] or state == "done"]
    yield f"{'scans':<12} {counts['all']}: {', '.join(parts)}; {found['megapixels']:.1f} megapixels done"
    for run in found["runs"][:_RUNS_SHOWN]:
        what = ", ".join(f"{run[name]} {name}" for name in ("done", "skipped", "failed", "stopped") if run[name])
        took = f" in {run['seconds']:.0f} s" if run["finished"] else ""
        done = f"{what or 'nothing done'}, {run['megapixels']:.1f} megapixels{took}"
        yield f"{'run':<12} {local_time(run['started'])} {run['kind']}: {run['state']}; {done}"
    if len(found["runs"]) > _RUNS_SHOWN:
        yield f"{'runs':<12} {len(found['runs']) - _RUNS_SHOWN} earlier ones"
    yield from _version_lines(found["versions"])


def _named(scan: Mapping[str, Any]) -> str:
    """A scan by its folder, its file with the ending, and the page if the name has one: albums/plate.tif."""
    stem, path = Path(scan.get("scan") or scan["stem"]), Path(scan["path"])
    page = f", page {scan['page']}" if scan["page"] != 1 or stem.name.endswith(".p001") else ""
    return f"{(stem.parent / path.name).as_posix()}{page}"


def _since(scan: dict[str, Any]) -> str:
    more = [f"{scan['failures']} failures in a row"] if scan["failures"] > 1 else []
    more += [f"tried again after {local_time(scan['retry_after'])}"] if scan["retry_after"] else []
    return f" ({'; '.join(more)})" if more else ""


def _version_lines(versions: list[dict[str, Any]]) -> Iterator[str]:
    """Lines with the number of scans for each version, the most frequent first."""
    names = Counter((v["version"], v["is_current"]) for v in versions)
    totals = Counter(v["version"] for v in versions)
    warned = Counter(v["version"] for v in versions if v["warnings"] and v["is_current"])
    for name, total in totals.most_common():
        current = names[name, True]
        kept = f", {total - current} kept from before" if total > current else ""
        warnings = f", {warned[name]} with warnings" if warned[name] else ""
        yield f"{'version':<12} {name}: {current} current{kept}{warnings}"
