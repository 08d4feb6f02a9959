"""The commands of the review desk: ``review``, which serves its page, and ``decisions``."""

from __future__ import annotations

import ipaddress
import secrets
import threading
import webbrowser
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import DONE, FAILED, USAGE, errors, stop
from flows.cli.json_output import print_json
from flows.cli.status import check_output
from pipeline.errors import ColorizeError, UsageError
from pipeline.support.names import shown

if TYPE_CHECKING:
    from pipeline.results.decisions import Decision


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(decisions)
    app.command()(review)


def decisions(
    output: Annotated[Path, typer.Argument(help="The --output folder of earlier runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    export: Annotated[Path | None, typer.Option("--export", help="Write all of them as CSV to this file.")] = None,
    take: Annotated[Path | None, typer.Option("--import", help="Take decisions from a CSV file.")] = None,
) -> None:
    """List what people decided about results; write them as CSV, or take them from one.

    Exit code 0; 1: some lines of the CSV were refused, the others taken; 2: bad usage.
    """
    from flows.review.table import as_csv, decisions_of
    from pipeline.support.files import write_whole

    try:
        folder = output.expanduser().resolve()
        check_output(folder)
        if take is not None:
            raise typer.Exit(_take(folder, take, as_json))
        found = decisions_of(folder)
        if export is not None:
            write_whole(export, as_csv(found).encode())
    except ColorizeError as error:
        stop(error, USAGE)
    if export is not None:
        typer.echo(f"{len(found)} decisions written to {shown(export)}")
    elif as_json:
        print_json("decisions", {"decisions": [{"scan": each.scan, **each.to_json()} for each in found]})
    else:
        _print(found)


def review(
    output: Annotated[Path, typer.Argument(help="The --output folder of earlier runs.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8420,
    host: Annotated[
        str, typer.Option(help="Where to listen. Other machines need the token of the address that is printed.")
    ] = "127.0.0.1",
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nobody decide or correct.")] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Look closely at results and decide on them, on a page that this machine serves. Ctrl-C ends it.

    Exit code 2: bad usage.
    """
    from flows.review.desk import Desk
    from flows.review.server import bound, serve

    try:
        folder = output.expanduser().resolve()
        check_output(folder)
        desk = Desk(folder, read_only)
        listening = bound(host, port)
    except ColorizeError as error:
        stop(error, USAGE)
    token = "" if _is_loopback(host) else secrets.token_urlsafe(24)
    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")

    def started() -> None:
        typer.echo(f"review       {address}  (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(desk, listening, host, token, started)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _take(folder: Path, table: Path, as_json: bool) -> int:
    """Import a table; returns the exit code. Raises UsageError."""
    from flows.review.table import import_csv
    from pipeline.support.files import read_text

    try:
        text = read_text(table)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{table}: cannot be read as UTF-8 text ({error}); save it as CSV in UTF-8") from error
    done = import_csv(folder, text)
    if as_json:
        print_json("decisions --import", {"taken": done.taken, "there": done.there, "refused": list(done.refused)})
        return FAILED if done.refused else DONE
    for line in done.refused:
        errors.print(f"refused      {line}", markup=False, highlight=False)
    typer.echo(f"{done.taken} decisions taken, {done.there} there already, {len(done.refused)} refused")
    return FAILED if done.refused else DONE


def _print(found: list[Decision]) -> None:
    for each in found:
        if each.decision == "unreadable":
            typer.echo(f"{'unreadable':<12} {shown(each.scan)}: {shown(each.note)}")
            continue
        why = "; ".join(filter(None, (each.reason, each.note)))
        typer.echo(
            f"{each.decision:<12} {shown(each.scan)}  {each.version}  {shown(each.person)} {each.when[:19]}Z"
            + (f": {shown(why)}" if why else "")
        )
    counts = Counter(each.decision for each in found)
    typer.echo(f"{'decisions':<12} {len(found)}" + "".join(f", {count} {name}" for name, count in counts.most_common()))
