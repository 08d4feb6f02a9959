"""The commands for what leaves the house: ``publish``, ``package``, ``sign`` and ``catalogue``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import DONE, FAILED, STOPPED, USAGE, say, stop, warn
from flows.cli.json_output import AsJson, print_json

if TYPE_CHECKING:
    from flows.run.withdrawal import Withdrawal
    from flows.sharing.outgoing import Kept
    from flows.sharing.site import Site, Step

_OUTPUT = Annotated[Path, typer.Argument(help="The --output folder of earlier runs.")]
_UNREVIEWED = Annotated[bool, typer.Option("--unreviewed", help="Let out what nobody has reviewed, too.")]
_CODES = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Reference codes: a CSV of file names and the archive's codes.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(publish)
    app.command()(package)
    app.command()(sign)
    app.command()(catalogue)


def publish(
    output: _OUTPUT,
    to: Annotated[Path, typer.Option(help="Folder of the site, for any web server.")],
    base_url: Annotated[
        str | None, typer.Option(help="Address at which that folder is served; kept for the next time.")
    ] = None,
    unreviewed: _UNREVIEWED = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is missing, damaged or older; write nothing.")
    ] = False,
    wording: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Title, statement, rights, provider; else OUTPUT/publish.yaml.")
    ] = None,
    codes: _CODES = None,
    as_json: AsJson = False,
) -> None:
    """Publish scans and their colours: IIIF tiles and manifests, and a page to look at them, as files.

    Only what may go out, and only what changed; what may no longer go out is removed first.

    Exit code 0: the site is up to date; 1: some scans failed, or --check found something; 2: bad usage.
    """
    from dataclasses import replace

    from engines.machine import processors
    from flows.sharing.outgoing import read_codes
    from flows.sharing.site import open_site
    from flows.sharing.wording import Wording
    from pipeline.errors import ColorizeError

    try:
        folder, results = to.expanduser().resolve(), output.expanduser().resolve()
        site = open_site(folder, results, base_url, Wording.read(wording, results))
        known = read_codes(codes) if codes else {}
        code = _publish(replace(site, unreviewed=unreviewed, codes=known, threads=processors()), check, as_json)
    except ColorizeError as error:
        stop(error, USAGE)
    except KeyboardInterrupt:
        stop("stopped; finished items stay, run the same command to go on", STOPPED)
    raise typer.Exit(code)


def _publish(site: Site, check: bool, as_json: bool) -> int:
    from contextlib import nullcontext

    from flows.sharing.site import check_site, publish_site
    from pipeline.support.files import folder_lock, writing

    told = _Told(as_json)
    withdrawn, failed = _withdrawn_beside(site.output, check)
    for each in withdrawn if not as_json else ():
        say(f"withdrawn  {each.line}")
    told.counted(failed)
    if not check:
        with writing(site.folder):
            site.folder.mkdir(parents=True, exist_ok=True)
    with nullcontext() if check else folder_lock(site.folder):
        counts = told.counted(check_site(site) if check else publish_site(site))
    facts = {"site": str(site.folder), "base_url": site.base_url, "is_written": not check}
    told.end("publish", site.unreviewed, {**facts, "withdrawn": [each.to_json() for each in withdrawn]})
    if not check and not as_json:
        say(f"{site.folder}, to be served at {site.base_url}/")
    changed = withdrawn or any(counts[name] for name in ("new", "changed", "withdrawn"))
    return FAILED if counts["failed"] or (check and changed) else DONE


def _withdrawn_beside(results: Path, check: bool) -> tuple[list[Withdrawal], list[Step]]:
    """Withdraw copies for others that lie among the results, too, unless that is only asked.

    Returns what was withdrawn, and a failure for each scan where that cannot be: the site must lose them all the same.
    """
    from flows.run.withdrawal import find_withdrawals, withdraw
    from flows.sharing.site import Step
    from pipeline.errors import FolderBusyError, OutputError, UsageError
    from pipeline.support.files import folder_lock

    found = find_withdrawals(results)
    if check or not found:
        return found, []
    done, why = None, ""
    try:
        with folder_lock(results):
            done = withdraw(results, "publish")
    except FolderBusyError:
        warn(f"{results}: a run works there, which at its end withdraws what lies there and may no longer go out")
        return [], []
    except (OutputError, UsageError) as error:
        why = f" ({error})"
    left = find_withdrawals(results)
    if done is None:
        done = [each for each in found if each not in left]
    lines = ((each, f"{each.reason}: {', '.join(each.removed)} could not be removed{why}") for each in left)
    return done, [Step("failed", each.stem, line) for each, line in lines]


def package(
    output: _OUTPUT,
    kind: Annotated[str, typer.Option("--as", help="bagit, ocfl or archivematica.")],
    to: Annotated[Path, typer.Option(help="The package: a new folder; for ocfl, a storage root that may be there.")],
    reference: Annotated[
        bool, typer.Option("--reference", help="Name the originals' paths and hashes instead of taking the files.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links to the results where the drive is the same, instead of copies.")
    ] = False,
    mets: Annotated[bool, typer.Option("--mets", help="Add METS documents: of each scan, and one of all.")] = False,
    unreviewed: _UNREVIEWED = False,
    wording: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Names the institution (provider); else OUTPUT/publish.yaml.")
    ] = None,
    codes: _CODES = None,
    as_json: AsJson = False,
) -> None:
    """Package originals, colours, records, decisions and PREMIS for preservation.

    Exit code 0: all that may go out is in the package; 1: some scans failed, the others are in it; 2: bad usage.
    """
    from flows.sharing.contents import Choice
    from flows.sharing.outgoing import read_codes
    from flows.sharing.packages import Order
    from flows.sharing.packages import package as packaged
    from flows.sharing.wording import Wording
    from pipeline.errors import ColorizeError

    try:
        results = output.expanduser().resolve()
        choice = Choice(reference, mets, link, Wording.read(wording, results).organization)
        known = read_codes(codes) if codes else {}
        order = Order(results, to.expanduser().resolve(), choice, unreviewed, known)
        told = _Told(as_json)
        counts = told.counted(packaged(order, kind))
        told.end("package", unreviewed, {"package": str(order.to), "kind": kind})
        if not as_json:
            say(order.to)
    except ColorizeError as error:
        stop(error, USAGE)
    except KeyboardInterrupt:
        stop("stopped; there is no package yet, run the same command again", STOPPED)
    raise typer.Exit(FAILED if counts["failed"] else DONE)


def sign(
    output: _OUTPUT,
    certificate: Annotated[Path, typer.Option(metavar="PEM", help="The signer's certificate and those above it.")],
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    command: Annotated[
        str,
        typer.Option(help="Instead of a key: a program that reads bytes and writes their signature, of a token say."),
    ] = "",
    timestamp: Annotated[str, typer.Option(metavar="URL", help="RFC 3161 authority; needs the network.")] = "",
    scan_type: Annotated[
        str, typer.Option(metavar="TYPE", help="What was scanned: print, negativeFilm, positiveFilm, digitalCapture.")
    ] = "",
    names: Annotated[bool, typer.Option("--names", help="Name those who approved; ask them first.")] = False,
    embed: Annotated[
        bool, typer.Option("--embed/--beside", help="Into TIFF, JPEG and PNG; or all in PICTURE.c2pa beside them.")
    ] = True,
    unreviewed: _UNREVIEWED = False,
    as_json: AsJson = False,
) -> None:
    """Sign results with Content Credentials (C2PA), in the picture, or in PICTURE.c2pa where it takes none.

    Pictures that are signed already, and say the same, stay as they are. Exit code 0: all that may go out are
    signed; 1: some failed; 2: bad usage.
    """
    from flows.sharing.signing import check_signing, read_signing, sign_results
    from pipeline.errors import ColorizeError
    from pipeline.support.files import folder_lock

    try:
        signing, results = read_signing(certificate, key, command, timestamp), output.expanduser().resolve()
        check_signing(results, scan_type)
        told = _Told(as_json)
        with folder_lock(results):
            counts = told.counted(sign_results(results, signing, scan_type, names, unreviewed, embed))
        told.end("sign", unreviewed, {"output": str(results)})
    except ColorizeError as error:
        stop(error, USAGE)
    except KeyboardInterrupt:
        stop("stopped; what was signed stays, run the same command to go on", STOPPED)
    raise typer.Exit(FAILED if counts["failed"] else DONE)


def catalogue(
    output: _OUTPUT,
    to: Annotated[Path, typer.Option(metavar="FILE", help="NAME.csv, or NAME.jsonl for JSON Lines.")],
    codes: _CODES = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of the published site, for the manifests' addresses.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what is known of all results as a table for other systems, with reference codes and who approved what.

    Exit code 0: all results are in it; 1: some cannot be read; 2: bad usage.
    """
    from flows.sharing.exchange import write_catalogue
    from flows.sharing.outgoing import read_codes
    from pipeline.errors import ColorizeError

    try:
        known = read_codes(codes) if codes else {}
        count, unread = write_catalogue(output.expanduser().resolve(), to.expanduser().resolve(), known, base_url or "")
    except ColorizeError as error:
        stop(error, USAGE)
    if as_json:
        print_json("catalogue", {"file": str(to), "results": count, "unread": unread})
        raise typer.Exit(FAILED if unread else DONE)
    for reason in unread:
        say(f"FAILED     {reason}")
    say(f"{count} results in {to}")
    raise typer.Exit(FAILED if unread else DONE)


class _Told:
    """What became of each scan: printed as it comes where it needs a line, or kept and printed as JSON at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._counts: Counter[str] = Counter()
        self._scans: list[dict[str, str]] = []

    def counted(self, steps: Iterable[Step | Kept]) -> Counter[str]:
        """Do the steps; returns how many of each kind there were."""
        from flows.sharing.outgoing import Kept

        for step in steps:
            if isinstance(step, Kept):
                state, name, line = "failed" if step.is_fault else "kept", step.stem, step.reason
            else:
                state, name = step.state, step.name
                line = f"{name}{f'  ({step.reason})' if step.reason else ''}"
            self._counts[state] += 1
            self._scans.append({"scan": name, "state": state, "reason": step.reason})
            if not self._as_json and state not in ("same", "kept"):
                say(f"{'FAILED' if state == 'failed' else state:10} {line}")
        return self._counts

    def end(self, command: str, unreviewed: bool, facts: dict[str, Any]) -> None:
        """Print how many there were of each kind, or everything as JSON."""
        counts = {name: self._counts[name] for name in _COUNTED}
        if self._as_json:
            print_json(command, {**facts, "counts": counts, "scans": self._scans})
            return
        say(", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing may go out")
        if counts["kept"]:
            say(_kept(unreviewed))


def _kept(unreviewed: bool) -> str:
    out = "" if unreviewed else "; --unreviewed lets out what nobody has reviewed, where the policy allows it"
    return f"kept: not approved, or held by the policy{out}"


_COUNTED = ("new", "changed", "same", "withdrawn", "kept", "failed")
