"""What commands print: the plan of a run, what a file is, and how two versions differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flows.cli.run_report import outcome_line
from flows.cli.tables import local_time
from flows.outcome import ScanOutcome
from flows.run.forecast import Forecast
from flows.run.jobs import RunContext, ScanJob
from pipeline.colour.icc import description
from pipeline.errors import ScanNotFoundError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.quality.difference import Difference
from pipeline.quality.figures import Quality
from pipeline.readers import open_scan
from pipeline.results.credentials import check_credentials, credential_of, is_available
from pipeline.results.sidecar import Sidecar, sidecar_of, version_of
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.names import shown

_NAME_COLUMNS = 18  # what an 80-column terminal has beside the figures
_FINISHED = "finished"
_PARTS = ("what", "source", "result", "settings", _FINISHED, "software", "pictures")


def print_plan(
    console: Console,
    context: RunContext,
    jobs: list[ScanJob],
    outcomes: list[ScanOutcome],
    times: Forecast,
    verbose: bool = False,
) -> None:
    """Print the plan of a run as a table with totals, or that there is nothing to do."""
    if jobs:
        model = f"; model {context.model_name}" if context.model_name else ""
        engines = context.engines if verbose else context.engines_in_brief
        console.print(f"{engines}{model}", highlight=False, markup=False)
        console.print(_plan_table(jobs, times))
        said = "memory is the peak of all processes, disk is before compression; nothing was done"
        console.print(f"time by {times.basis}; {said}", highlight=False, markup=False)
    for outcome in outcomes:
        console.print(shown(outcome_line(outcome)), markup=False, highlight=False)
    if not jobs:
        due = sum(outcome.status == "skipped" for outcome in outcomes)
        console.print(f"nothing to do for {due} scan{'s' * (due != 1)}", highlight=False)


def _plan_table(jobs: list[ScanJob], times: Forecast) -> Table:
    longest = max(len(job.scan.stem) for job in jobs)
    table = Table(Column("scan", overflow="fold", min_width=min(_NAME_COLUMNS, longest)))
    for head in ("megapixels", "tiles", "blocks", "memory\nMiB", "disk\nMiB", "seconds"):
        table.add_column(head, justify="right", no_wrap=True)
    total = [0.0, 0, 0, 0.0, 0.0, times.start_seconds]
    for job, seconds in zip(jobs, times.scan_seconds, strict=True):
        plan = job.plan
        memory, disk = plan.memory_bytes / 2**20, plan.disk_bytes / 2**20
        cells = [plan.megapixels, plan.tiles, plan.blocks, memory, disk, seconds]
        total = [max(a, b) if i == 3 else a + b for i, (a, b) in enumerate(zip(total, cells, strict=True))]
        table.add_row(Text(shown(job.scan.stem)), *_cells(cells))
    table.add_row("all", *_cells(total))
    return table


def plan_facts(
    context: RunContext, jobs: list[ScanJob], outcomes: list[ScanOutcome], times: Forecast
) -> dict[str, Any]:
    """The plan of a run for programs; ``memory_bytes`` is the peak of all processes, and the total is the largest."""
    names = ("megapixels", "tiles", "blocks", "memory_bytes", "disk_bytes")
    rows: list[dict[str, Any]] = [
        {"scan": job.scan.stem, **{name: getattr(job.plan, name) for name in names}, "seconds": round(seconds, 1)}
        for job, seconds in zip(jobs, times.scan_seconds, strict=True)
    ]
    total = {name: sum(row[name] for row in rows) for name in ("megapixels", "tiles", "blocks", "disk_bytes")}
    memory_bytes = max((row["memory_bytes"] for row in rows), default=0)
    return {
        "engine": context.engines,
        "model": context.model_name,
        "scans": rows,
        "total": {**total, "memory_bytes": memory_bytes, "seconds": round(times.seconds, 1)},
        "others": [outcome.to_json() for outcome in outcomes],
    }


def _cells(values: list[Any]) -> list[str]:
    megapixels, tiles, blocks, memory, disk, seconds = values
    return [f"{megapixels:.1f}", f"{tiles}", f"{blocks}", f"{memory:.0f}", f"{disk:.0f}", f"{seconds:.0f}"]


def print_inspection(console: Console, path: Path) -> None:
    """Print what ``path`` is: a store, a result with its sidecar, or a scan. Raises ColorizeError."""
    if not path.exists():
        raise ScanNotFoundError(f"{path}: no such file; check the name")
    for name, value in _inspection(path).items():
        value = local_time(str(value)) if name == _FINISHED else value
        lines = value if isinstance(value, tuple) else (value,)
        text = f"\n{'':<14}".join(map(shown, lines))
        console.print(f"{name:<14}{text}", markup=False, highlight=False)


def inspected(path: Path) -> dict[str, Any]:
    """The facts about ``path`` for programs. Raises ColorizeError."""
    if not path.exists():
        raise ScanNotFoundError(f"{path}: no such file; check the name")
    return {
        name: [str(each) for each in value] if isinstance(value, tuple | list) else str(value)
        for name, value in _inspection(path).items()
    }


def _inspection(path: Path) -> dict[str, object]:
    """The facts to print about ``path``, by name; a tuple has a line for each item."""
    sidecar_path = sidecar_of(path)
    sidecar = None if sidecar_path is None else Sidecar.find(sidecar_path)
    if sidecar_path is not None and sidecar is not None and sidecar.says(*_PARTS):
        return _of_result(sidecar_path, sidecar)
    if path.is_dir() and (path / "versions").is_dir():
        store = ScanStore.open(path)
        return {
            "what": "store of an ingested scan",
            "source": store.source.name,
            "sha256": store.source.sha256,
            **_size(store.info),
            **_holes(len(store.missing_regions)),
            **_versions(store, path),
        }
    with open_scan(path) as reader:
        return {"what": "scan", **_size(reader.info), **_texts(reader.info.metadata), **_carried(reader.embedded)}


def _signed(path: Path, sidecar: Sidecar) -> dict[str, object]:
    """What the Content Credentials of each picture say; nobody is trusted here, which verify --trust is for."""
    lines = []
    for record in sidecar.pictures.values():
        picture = path.with_name(record.file)
        if not record.signed and not credential_of(picture).is_file():
            continue
        if not is_available():
            lines.append(f"{picture.name}: not read, pip install 'colorize-archive[c2pa]'")
        elif finding := check_credentials(picture, record):
            people = ", ".join(map(str, finding.told.get("approved_by", ())))
            lines.append(f"{picture.name}: {finding}{f'; approved by {people}' if people else ''}")
    return {"signed": tuple(lines)} if lines else {}


def _of_result(path: Path, sidecar: Sidecar) -> dict[str, object]:
    source, result = sidecar.needed("source", sidecar.whole_source), sidecar.needed("result", sidecar.result)
    settings = sidecar.settings
    pictures = [
        f"{path.with_name(each.file)} ({each.levels} level{'s' * (each.levels != 1)})"
        for each in sidecar.pictures.values()
    ]
    lost = [
        f"{name}: {what} ({why})" for name, each in sidecar.pictures.items() for what, why in each.not_carried.items()
    ]
    return {
        "what": sidecar.what,
        "source": source.path,
        "sha256": source.sha256,
        "picture": tuple(pictures),
        **_signed(path, sidecar),
        **({"not carried": tuple(lost)} if lost else {}),
        **_holes(len(source.holes)),
        "version": result.version,
        "engine": f"{settings.get('engine')} {settings.get('engine_version')}",
        "model": f"{settings.get('model')} {str(settings.get('model_sha256'))[:12]}",
        "tile, stride": f"{_pixels(settings.get('tile_yx'))}, {_pixels(settings.get('stride_yx'))}, "
        f"window {settings.get('window')}",
        "palette": "of the whole scan" if settings.get("anchor") else "of each tile",
        **_hints(sidecar),
        **_grade(sidecar),
        **_quality(sidecar.figures),
        _FINISHED: sidecar.finished,
        "by": sidecar.software,
    }


def _pixels(size_yx: Any) -> str:
    """A size as the options take it: 256 px, or 2048x4096 px."""
    if not isinstance(size_yx, list | tuple) or not size_yx:
        return "not said"
    return f"{'x'.join(map(str, size_yx if len(set(size_yx)) > 1 else size_yx[:1]))} px"


def _in_words(value: object) -> object:
    """A value of a scan's metadata for people: lists as words with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_in_words(each)) for each in value)
    return value


def _hints(sidecar: Sidecar) -> dict[str, object]:
    """Who gave hints, and from what."""
    if (hints := sidecar.hints) is None:
        return {}
    by = f" by {', '.join(hints.authors)}" if hints.authors else ""
    return {"hints": (f"{hints.count}{by}, from {', '.join(map(shown, hints.files))}", *hints.sources)}


def _grade(sidecar: Sidecar) -> dict[str, object]:
    spec = sidecar.spec
    return {"graded": f"{spec.grade}; from {spec.graded_from}"} if spec and spec.grade else {}


def _holes(count: int) -> dict[str, object]:
    return {"damaged": f"{count} part{'s' * (count != 1)} could not be read, plain gray"} if count else {}


def _texts(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Metadata in a form for people."""
    told: dict[str, object] = dict(metadata)
    if resolution := metadata.get("resolution"):
        x, y, unit = resolution
        told["resolution"] = f"{x:g} x {y:g} px" + ("" if unit == "none" else f" per {unit}")
    if dropped := metadata.get("dropped"):
        del told["dropped"]
        told["left out"] = tuple(dropped)
    return {name: each if name == "left out" else _in_words(each) for name, each in told.items()}


def _carried(embedded: EmbeddedMetadata) -> dict[str, object]:
    """The embedded metadata of a scan, by name."""
    blocks = {name: getattr(embedded, name) for name in ("exif", "iptc", "xmp", "photoshop")}
    there = [f"{name} {len(block)} bytes" for name, block in blocks.items() if block]
    told: dict[str, object] = {"metadata": ", ".join(there)} if there else {}
    if embedded.icc:
        told["profile"] = description(embedded.icc) or f"ICC profile of {len(embedded.icc)} bytes"
    if embedded.place is not None:
        told["place"] = embedded.place.crs[:60] or "georeference without a coordinate system"
    return told


def _quality(quality: Quality | None) -> dict[str, object]:
    if quality is None:
        return {}
    strides = ", ".join("x".join(map(str, stride)) for stride in quality.strides_px)
    seam = "too small to show a grid" if quality.seam is None else f"{quality.seam:.3f} (1 shows no grid)"
    spread = f"{quality.disagreement_mean:.1f} on average, {quality.disagreement_p95:.1f} at 95 %, in CIELAB units"
    if quality.wanted:
        seam += f"; {quality.wanted:g} was asked for" + (", finer tiles did not reach it" if quality.is_missed else "")
    colours = {"colours": str(quality.doubt)} if quality.doubt else {}
    return {**colours, "strides used": strides, "seam score": seam, "disagreement": f"of the tiles {spread}"}


def _versions(store: ScanStore, path: Path) -> dict[str, object]:
    current = version_of(ResultPaths.of(path.parent, path.stem).sidecar)
    lines = []
    for name in store.version_names():
        state = "complete" if store.version(name).is_complete else "not complete: run the same command again"
        lines.append(f"{name} ({'current, ' if name == current else ''}{state})")
    return {"versions": tuple(lines) or "none"}


def _size(info: Any) -> dict[str, object]:
    height, width = info.shape_yx
    kind = "lightness" if info.tone == "lightness" else "gray" if info.channels == 1 else "RGB"
    masks = {"alpha": ", with alpha", "nodata": f", nodata {info.nodata}", "": ""}
    return {
        "size": f"{width} x {height} px, {info.megapixels:.1f} megapixels",
        "samples": f"{kind}, {info.dtype}{masks[info.mask]}",
    }


def print_difference(console: Console, store: ScanStore, old: str, new: str, found: Difference) -> None:
    """Print the figures as a table."""
    every = "every pixel" if found.step_px == 1 else f"every {found.step_px}th pixel of every {found.step_px}th row"
    console.print(f"{shown(store.path.stem)}: {old} -> {new}; CIEDE2000 over {every}", highlight=False, markup=False)
    figures = Table("mean", "median", "95 %", "99 %", "largest", "above 1", "above 5", "chroma before", "after")
    numbers = (found.mean, found.median, found.p95, found.p99, found.max)
    shares = (found.share_above_1, found.share_above_5)
    chroma = (found.chroma_old, found.chroma_new)
    figures.add_row(*map("{:.2f}".format, numbers), *map("{:.1%}".format, shares), *map("{:.1f}".format, chroma))
    console.print(figures)
    for name in (old, new):
        if (hints := store.version(name).hints) is not None:
            by = f" by {', '.join(hints['authors'])}" if hints["authors"] else ""
            console.print(
                f"{name}: {hints['count']} hint{'s' * (hints['count'] != 1)}{by}", highlight=False, markup=False
            )
    for window in found.worst:
        roi = window.roi
        where = f"rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}"
        console.print(f"mean {window.mean:.1f} in {where}", highlight=False, markup=False)
