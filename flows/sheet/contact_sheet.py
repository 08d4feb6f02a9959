"""The contact sheet of an output folder: ``<output>/index.html``, every scan before and after, failures first.

It is a single page that works from the disk: no server, no library, nothing fetched but the thumbnails beside it. A
page on the disk may not read other files, so all its data are embedded as JSON. Names come from the archive and are not
trusted: the JSON has no character that could end it, special characters in links are encoded, the page shows names as
text only, and its policy allows no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from flows.catalogue.records import KnownRun, KnownScan, KnownVersion
from flows.inputs import SHEET, is_sheet
from flows.sheet.thumbnails import Shown, remove_others, thumbnails
from pipeline.errors import OutputError
from pipeline.results.run_spec import utc_now
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from pipeline.support.files import write_whole, writing
from pipeline.support.names import shown

PAGE = SHEET
TEMPLATE = Path(__file__).with_name("sheet.html")

_DATA, _TITLE, _SCRIPT = "/*DATA*/", "<!--TITLE-->", "<!--SCRIPT-HASH-->"
_AT_ONCE = 4
_RUNS = 5
_DEPTHS = {"uint8": 8, "uint16": 16}


class Known(Protocol):
    """The part of :class:`flows.catalogue.database.Catalogue` that the sheet needs."""

    def scans(self) -> list[KnownScan]: ...

    def versions(self, stem: str | None = None) -> list[KnownVersion]: ...

    def runs(self) -> list[KnownRun]: ...


def write_sheet(output: Path, catalogue: Known, tidies: bool = True, makes_large: bool = False) -> Path:
    """Make the contact sheet of ``output`` and any missing thumbnails; returns its path.

    With ``tidies``, obsolete thumbnails are removed; not to be used beside a run, which makes new ones. With
    ``makes_large``, all missing large pictures are made, which reads every scan of a folder of an earlier release.

    Raises
    ------
    OutputError : the sheet cannot be written, or a foreign page is in its place.
    """
    _check_ours(output / PAGE)
    versions: dict[str, list[KnownVersion]] = defaultdict(list)
    for each in catalogue.versions():
        versions[each.stem].append(each)
    scans = catalogue.scans()
    # If several files claimed one name, the result belongs to the one that was coloured.
    done = {scan.stem for scan in scans if scan.state == "done"}

    def owned(scan: KnownScan) -> list[KnownVersion]:
        return versions.get(scan.stem, []) if scan.state == "done" or scan.stem not in done else []

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(lambda scan: _Result.of(output, scan, owned(scan), makes_large), scans))
    record = _record(output, [_entry(result) for result in results], catalogue.runs())
    write_whole(output / PAGE, page_of(record).encode())
    # Only after the page is written, because the old page may show the old thumbnails.
    if tidies:
        remove_others(output, {path for result in results for path in result.shown.paths})
    return output / PAGE


def _check_ours(page: Path) -> None:
    with writing(page):
        if page.exists() and not is_sheet(page):
            raise OutputError(f"{page}: not a contact sheet, and would be lost; move it, or give another --output")


@dataclass(frozen=True)
class _Result:
    """A scan, its versions, the sidecar of the current one (None if there is nothing to show), and its thumbnails."""

    output: Path
    scan: KnownScan
    versions: list[KnownVersion]
    sidecar: Sidecar | None
    shown: Shown

    @classmethod
    def of(cls, output: Path, scan: KnownScan, versions: list[KnownVersion], makes_large: bool) -> _Result:
        sidecar = Sidecar.find(ResultPaths.of(output, scan.stem).sidecar) if versions else None
        if (
            sidecar is None
            or not sidecar.whole_source
            or not sidecar.says("settings", "result", "pictures", "finished")
        ):
            return cls(output, scan, versions, None, Shown())
        return cls(output, scan, versions, sidecar, thumbnails(output, scan.stem, sidecar, makes_large))

    def link(self, path: Path) -> str:
        return link_to(path.relative_to(self.output))


def link_to(path: Path) -> str:
    """A relative path as a link, correct for any name: spaces, #, %, colons, bytes that are not text.

    >>> link_to(Path("albums/1910 #3/50 %.tif"))
    'albums/1910%20%233/50%20%25.tif'
    """
    return quote(os.fsencode(path.as_posix()), safe="/")


def page_of(record: Mapping[str, Any]) -> str:
    """The page that shows ``record``."""
    # Escape "<", ">" and "&", so that no data can end the element around the JSON.
    text = json.dumps(record, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    page = TEMPLATE.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None, TEMPLATE
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    values = {_DATA: text, _TITLE: html.escape(str(record["folder"])), _SCRIPT: f"sha256-{digest}"}
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], page)


def _record(output: Path, entries: list[dict[str, Any]], runs: Iterable[KnownRun]) -> dict[str, Any]:
    latest = sorted(runs, key=lambda run: run.started, reverse=True)[:_RUNS]
    return {
        "folder": _text(output.name or str(output)),
        "made": utc_now(),
        "software": f"colorize-archive {version('colorize-archive')}",
        "entries": entries,
        "runs": [
            {
                "started": run.started,
                "finished": run.finished,
                "kind": run.kind,
                "state": run.state,
                "engine": _text(run.engine),
                "counts": {"done": run.done, "skipped": run.skipped, "failed": run.failed, "stopped": run.stopped},
            }
            for run in latest
        ],
    }


def _entry(result: _Result) -> dict[str, Any]:
    """The page's entry for one scan; unknown values are left out."""
    scan = result.scan
    current = next((each for each in result.versions if each.is_current), None)
    ordered = sorted(result.versions, key=lambda each: (each.is_current, each.finished), reverse=True)
    warnings = [*(current.warnings if current else ()), *result.shown.troubles]
    if scan.state == "done" and current is None:
        warnings.append("its result is not there any more; the next run makes it again")
    entry = {
        "name": _text(scan.stem),
        "title": _title(scan),
        "state": scan.state,
        "message": "" if scan.state == "done" else _text(scan.message),
        "kind": scan.failure_kind if scan.state != "done" else None,
        "failures": scan.failures or None,
        "retry": scan.retry_after,
        "run": scan.run,
        "path": _text(scan.path),
        "page": scan.page if scan.page > 1 else None,
        "scan": Path(scan.path).as_uri() if Path(scan.path).is_absolute() else "",
        "bytes": scan.bytes,
        "sha256": scan.sha256,
        "megapixels": scan.megapixels or None,
        "warnings": [_text(warning) for warning in warnings],
        "versions": [_version(each) for each in ordered],
        **(_figures(current) if current else {}),
        **(_of_sidecar(result, result.sidecar) if result.sidecar else {}),
    }
    return {name: value for name, value in entry.items() if value not in (None, "", [])}


def _title(scan: KnownScan) -> str:
    """The scan file's whole name, with the folders of its results."""
    name = Path(scan.path).name or Path(scan.stem).name
    page = f", page {scan.page}" if scan.page > 1 else ""
    return _text((Path(scan.stem).parent / name).as_posix()) + page


def _figures(current: KnownVersion) -> dict[str, Any]:
    """Figures of the current version, by which the list is sorted and filtered."""
    engine = f"{current.engine} {current.precision}".strip()
    return {
        "settings": _text(f"{current.tile} / {current.stride} {current.window}, {current.model}, {engine}"),
        "finished": current.finished,
        "seconds": round(current.seconds, 2),
        "seam": current.seam,
        "disagreement": current.disagreement,
    }


def _version(known: KnownVersion) -> dict[str, Any]:
    told = {
        "name": _text(known.version),
        "current": known.is_current,
        "finished": known.finished,
        "seam": known.seam,
        "disagreement": known.disagreement,
        "pictures": {name: link_to(Path(file)) for name, file in known.pictures.items()},
    }
    return {name: value for name, value in told.items() if value not in (None, "", {}, False)}


def _of_sidecar(result: _Result, sidecar: Sidecar) -> dict[str, Any]:
    """Details that are only in the sidecar, not in the catalogue."""
    source, settings, figures = sidecar.needed("source", sidecar.whole_source), sidecar.settings, sidecar.figures
    height, width = source.shape_yx
    is_turned = source.metadata.get("orientation") in (5, 6, 7, 8)
    kinds, depth = ("before", "after", "before_large", "after_large"), _DEPTHS.get(source.depth or source.dtype, 8)
    kept = {kind: result.link(path) for kind in kinds if (path := getattr(result.shown, kind))}
    return {
        **kept,
        "size": [height, width] if is_turned else [width, height],
        "samples": f"{'RGB' if source.channels == 3 else 'gray'}, {depth} bits a sample",
        "json": result.link(ResultPaths.of(result.output, result.scan.stem).sidecar),
        "engine": _text(f"{settings.get('engine')} {settings.get('engine_version')}, {settings.get('precision')}"),
        "model": _text(str(settings.get("model"))),
        "model_sha256": settings.get("model_sha256"),
        "palette": "of the whole scan" if settings.get("anchor") else "of each tile",
        "quality": settings.get("quality") or None,
        "grade": _text(f"{spec.grade}; from {spec.graded_from}") if (spec := sidecar.spec) and spec.grade else None,
        "doubt": figures.doubt.word if figures and figures.doubt else None,
        "tiles": (sidecar.work.tiles or None) if sidecar.work else None,
        "hashes": {_text(each.file): each.sha256 for each in sidecar.pictures.values()},
        "software": _text(sidecar.software),
    }


def _text(name: str) -> str:
    """A name to display: invalid bytes become the replacement character, invisible characters are spelt out."""
    return shown(os.fsencode(name).decode("utf-8", "replace"))
