"""The command ``clean``: what of an output folder may go without losing a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import FAILED, USAGE, say, stop
from flows.cli.json_output import print_json

if TYPE_CHECKING:
    from flows.run.clean import Finding, Kind

_NAMES_SHOWN = 20
_TITLES = {"left-over": "left-overs", "version": "old versions", "store": "stores"}
# What can no longer be done, once a kind of thing is gone.
_PRICE = {
    "version": "versions that are gone cannot be restored or compared; reprocess with their settings makes them again",
    "store": "scans without a store cannot be reprocessed, compared or inspected with --at and --map until "
    "`run --force` has read the scan file again",
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(clean)


def clean(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="The --output folder of earlier runs.")],
    stores: Annotated[
        bool, typer.Option("--stores", help="Also NAME.zarr of scans that are finished and whose file is unchanged.")
    ] = False,
    versions: Annotated[bool, typer.Option("--versions", help="Also versions that are not current.")] = False,
    keep: Annotated[
        int, typer.Option(min=1, help="Versions of each scan that stay with --versions, the current one included.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what stopped runs left behind; with options also old versions and the stores of finished scans.

    Results and their JSON always stay. Exit code 0; 1: something could not be removed; 2: bad usage, or a run works
    on the folder.
    """
    from flows.catalogue.database import Catalogue
    from flows.cli.status import check_output
    from flows.run.clean import LEFT_OVER, STORE, VERSION, Removable, clear, find_removable, to_json
    from pipeline.errors import ColorizeError, OutputError
    from pipeline.support.files import folder_lock

    wanted: set[Kind] = {LEFT_OVER, *([VERSION] if versions else []), *([STORE] if stores else [])}
    folder = output.expanduser().resolve()
    try:
        check_output(folder)
        with folder_lock(folder), Catalogue.open(folder, is_locked=True) as catalogue:
            found = find_removable(folder, catalogue, {LEFT_OVER, VERSION, STORE} if dry_run else wanted, keep)
            if not dry_run:
                clear(folder, catalogue, [each for each in found if isinstance(each, Removable)])
    except OutputError as error:
        stop(error, FAILED)
    except ColorizeError as error:
        stop(error, USAGE)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; check its permissions, and clean again", FAILED)
    if as_json:
        print_json("clean", {"output": str(folder), "is_removed": not dry_run, **to_json(found)})
        return
    for line in _lines(found, wanted, dry_run):
        say(line)


def _lines(found: list[Finding], wanted: set[Kind], dry_run: bool) -> Iterator[str]:
    """What went or would go, by kind; what stays, and why; what cannot be done any more."""
    from rich.filesize import decimal

    from flows.run.clean import Kept, Removable

    for kind, title in _TITLES.items():
        there = [each for each in found if isinstance(each, Removable) and each.kind == kind]
        if not there:
            continue
        did = "removed" if not dry_run else "would go" if kind in wanted else f"would go with --{title.split()[-1]}"
        yield f"{title:<13}{len(there)}, {decimal(sum(each.bytes for each in there))}: {did}"
        for each in there[:_NAMES_SHOWN]:
            yield f"{'':<13}{decimal(each.bytes):>9}  {each.name}"
        if len(there) > _NAMES_SHOWN:
            yield f"{'':<13}and {len(there) - _NAMES_SHOWN} more; --json lists all"
    staying = [each for each in found if isinstance(each, Kept)]
    for (kind, reason), count in Counter((each.kind, each.reason) for each in staying).items():
        names = [each.name for each in staying if (each.kind, each.reason) == (kind, reason)]
        more = f" and {count - 3} more" if count > 3 else ""
        yield f"{'stay':<13}{count} {_TITLES[kind]}, {reason}: {', '.join(names[:3])}{more}"
    gone = {each.kind for each in found if isinstance(each, Removable)}
    for kind, price in _PRICE.items():
        if kind in gone:
            yield f"{'note':<13}{price}"
    if not gone:
        yield "nothing to remove"
