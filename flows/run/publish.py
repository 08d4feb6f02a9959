"""Export a coloured version to pictures and a sidecar, publish it as the current one, and prune old versions."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from flows.run.jobs import ScanJob
from flows.run.reuse_policy import COLORIZE, REPROCESS
from pipeline.colour.icc import description
from pipeline.export import export_picture, output_image
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import premis_event
from pipeline.quality.figures import Quality
from pipeline.results.read_back import carried_by_result, missing_in
from pipeline.results.run_spec import RunSpec, utc_now
from pipeline.results.sidecar import (
    HintsRecord,
    PaletteCopyRecord,
    PictureRecord,
    ResultRecord,
    SeriesRecord,
    Sidecar,
    SourceRecord,
    StoreRecord,
    WorkRecord,
    pictures_of,
    version_of,
)
from pipeline.results.version_names import leftovers
from pipeline.results.versions import ResultPaths, publish, recover_publish, remove_version, valid_pictures
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.files import file_sha256, remove, tree_sha256, write_json

SOFTWARE = "colorize-archive"
Seconds = tuple[tuple[str, float], ...]
Pictures = dict[str, PictureRecord]


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes
    ----------
    seconds : time of each stage, the export included
    written : formats of the pictures written by this export, requested ones first; others existed already
    warnings : one line for each picture that could not carry all metadata
    """

    seconds: Seconds
    written: tuple[str, ...]
    warnings: tuple[str, ...]


def export_job(
    job: ScanJob, seconds: Seconds, blocks_there: int, quality: Quality | None, threads: int, started: float
) -> Exported:
    """Write the pictures, publish the version, prune old ones; the export began at ``started``."""
    store = ScanStore.open(job.paths.store)
    made = job.spec.version
    paths = job.paths.of_version(made)
    recover_publish(job.paths)
    for left in leftovers(job.paths.store.parent, job.paths.store.name.removesuffix(".zarr")):
        remove(left)
    # A picture that an interrupted run had finished only needs its name.
    pictures = {} if job.force else _whole(job, store, made)
    formats = _formats(job, made)
    missing = [name for name in formats if name not in pictures]
    if not set(formats) <= set(pictures) or not paths.sidecar.exists():
        pictures |= _export(job, store, store.version(made), paths, missing, threads)
        seconds = (*seconds, ("export", time.perf_counter() - started))
        write_json(paths.sidecar, _sidecar(job, store, pictures, seconds, blocks_there, quality).to_json())
    before = publish(job.paths, made)
    prune(store, job.paths, made, before, job.keep)
    lost = ((pictures[name].file, name, _lost(pictures[name], job, store)) for name in job.formats)
    warnings = tuple(f"{file}: {name} does not carry all of the scan ({what})" for file, name, what in lost if what)
    return Exported(seconds, tuple(missing), warnings)


def _whole(job: ScanJob, store: ScanStore, made: str) -> Pictures:
    """Complete pictures of the version ``made``, under its own name or as the current ones."""
    places = (job.paths, job.paths.of_version(made))
    found = [valid_pictures(place, store.source, job.spec, job.metadata) for place in places]
    return {**found[0], **found[1]}


def _formats(job: ScanJob, made: str) -> list[str]:
    """The requested formats and those that the version already has: its pictures stay one set."""
    sidecars = [job.paths.of_version(made).sidecar]
    if version_of(job.paths.sidecar) == made:
        sidecars.append(job.paths.sidecar)
    there = [name for sidecar in sidecars for name in pictures_of(sidecar)]
    return list(dict.fromkeys((*job.formats, *there)))


def _lost(picture: PictureRecord, job: ScanJob, store: ScanStore) -> str:
    """Metadata of the scan, not of ours, that a picture does not carry, with the reasons."""
    ours = {name for name in ("icc", "xmp") if not job.metadata or not getattr(store.embedded, name)}
    return "; ".join(f"{what}: {why}" for what, why in picture.not_carried.items() if what not in ours)


def _export(
    job: ScanJob, store: ScanStore, coloured: ChromaVersion, paths: ResultPaths, formats: list[str], threads: int
) -> Pictures:
    """Write the picture in each of ``formats``, check which metadata it carries, and record it."""
    scan = f"{store.source.name}, SHA-256 {store.source.sha256}"
    model = f"model {job.spec.model} {job.spec.model_sha256[:12]}"
    ours = f"Colour added by an algorithm: {_software()}, {model}. Lightness is that of the scan {scan}."
    for told in filter(None, (_of_copy(store, job.spec), _of_hints(store, job.spec))):
        ours = f"{ours} {told[0].upper()}{told[1:]}."
    scans = store.embedded if job.metadata else EmbeddedMetadata()
    embedded, text, left_out = carried_by_result(scans, f"{_software()}, {model}", ours, scan)
    picture = replace(output_image(store, coloured, _software(), text, embedded), name=job.paths.stem)
    records: Pictures = {}
    for name in formats:
        path = paths.picture(name)
        written = export_picture(name, path, picture, threads)
        lost = {**left_out, **written.not_carried}
        records[name] = PictureRecord(
            file=job.paths.picture(name).name,
            bytes=written.bytes,
            sha256=tree_sha256(path),
            levels=len(written.levels_yx),
            carries_metadata=job.metadata,
            not_carried={**lost, **missing_in(name, path, picture, lost)},
        )
    return records


def prune(store: ScanStore, paths: ResultPaths, current: str, before: str | None, keep: int) -> None:
    """Keep ``keep`` versions: the current one, the one before, and the newest others. Raises OutputError.

    Others are those of the store and pictures whose version the store has no more; what was begun and never finished
    goes first. What one that is kept was made from stays as well, for the next grade or hint begins with it.
    """
    finished = {version_of(each.sidecar): each for each in paths.all_versions()}
    others = []
    for name in {*store.version_names(), *finished} - {current, None}:
        sidecar = Sidecar.find(finished[name].sidecar) if name in finished else None
        when = sidecar.finished if sidecar else store.version(str(name)).created
        # A version without a date counts as the newest.
        others.append((name == before, sidecar is not None, not when, when, str(name)))
    ordered = [name for *_, name in sorted(others)]
    too_many = max(0, len(ordered) - (keep - 1))
    needed = {made for name in (current, *ordered[too_many:]) for made in _made_from(store, name)}
    for name in ordered[:too_many]:
        if name not in needed:
            remove_version(paths, name)
            store.remove_version(name)


def _made_from(store: ScanStore, name: str) -> set[str]:
    """The versions whose colours another's were made from; none where they were predicted."""
    version = store.find_version(name)
    settings = version.settings if version else {}
    return {str(settings[way]) for way in ("graded_from", "hints_from") if way in settings}


def _with_event(picture: PictureRecord, job: ScanJob, store: ScanStore, when: str) -> PictureRecord:
    """``picture`` with a PREMIS event that says how it was made; an event that it already has stays."""
    if picture.premis:
        return picture
    spec = job.spec
    agents = {SOFTWARE: version(SOFTWARE), f"model {spec.model}": f"SHA-256 {spec.model_sha256}"}
    detail = f"colour added by an algorithm; lightness is the scan's own; version {spec.version}"
    if spec.grade is not None:
        detail += f", its colours those of version {spec.graded_from}, graded: {spec.grade}"
    if copied := _of_copy(store, spec):
        detail = f"{detail}; {copied}"
    if hinted := _of_hints(store, spec):
        detail = f"{detail}; {hinted}"
    notes = tuple(f"not carried over: {what} ({why})" for what, why in picture.not_carried.items())
    if store.missing_regions:
        notes = (*notes, f"{len(store.missing_regions)} parts of the scan could not be read and are plain gray")
    source, result = (store.source.name, store.source.sha256), (picture.file, picture.sha256)
    premis = premis_event(when, detail, agents, source, result, notes)
    return replace(picture, premis=premis, unwritten=picture.unwritten - {"premis"})


def _copy_record(store: ScanStore, spec: RunSpec) -> Mapping[str, Any] | None:
    """The record of the coloured copy that gave the palette, of the ungraded colours if these are graded."""
    return store.version(spec.hints_from or spec.graded_from or spec.version).palette_copy


def _hints_record(store: ScanStore, spec: RunSpec) -> Mapping[str, Any] | None:
    """What the version with these hints keeps of them."""
    return store.version(spec.graded_from or spec.version).hints if spec.hints_sha256 else None


def _of_hints(store: ScanStore, spec: RunSpec) -> str:
    """Whose hints corrected the colours, and from what they know it; empty where none did."""
    record = _hints_record(store, spec)
    if record is None:
        return ""
    by = f" by {', '.join(record['authors'])}" if record["authors"] else ""
    sources = f" ({'; '.join(record['sources'])})" if record["sources"] else ""
    fellows = ", ".join(
        f"{count} of them carried over from {name}" for name, count in record.get("from_series", {}).items()
    )
    carried = f", {fellows}," if fellows else ""
    return f"{record['count']} hint{'s' * (record['count'] != 1)}{by}{carried} corrected its colours{sources}"


def _hints(store: ScanStore, spec: RunSpec) -> HintsRecord | None:
    record = _hints_record(store, spec)
    if record is None:
        return None
    names = ("files", "sha256", "count", "authors", "sources", "from_series")
    return HintsRecord.from_json({name: record[name] for name in names if name in record})


def _of_copy(store: ScanStore, spec: RunSpec) -> str:
    """Which coloured copy gave the palette and which program it names, for people; empty if none did."""
    record = _copy_record(store, spec)
    if record is None:
        return ""
    keys = ("creator_tool", "software", "claim_generator")
    maker = next((record["made_by"][key] for key in keys if record["made_by"].get(key)), None)
    made = f", made with {maker}" if maker else ""
    return f"the colours are those of the copy {record['name']}, SHA-256 {record['sha256']}{made}"


def _palette_copy(store: ScanStore, spec: RunSpec) -> PaletteCopyRecord | None:
    record = _copy_record(store, spec)
    return None if record is None else PaletteCopyRecord.from_json(record)


def _series(store: ScanStore, spec: RunSpec) -> SeriesRecord | None:
    """The series that the palette was made in, of the ungraded colours if these are graded."""
    record = store.version(spec.graded_from or spec.version).series
    return None if record is None else SeriesRecord.from_json(record)


def _software() -> str:
    return f"{SOFTWARE} {version(SOFTWARE)}"


def _flow(job: ScanJob) -> str:
    """Which flow made the version. Writing only its pictures again does not change that."""
    if job.is_ingested:
        return REPROCESS
    before = None if job.force else Sidecar.find(job.paths.sidecar)
    return (before.flow if before is not None and before.version == job.spec.version else "") or COLORIZE


def _described(store: ScanStore, made: str) -> dict[str, str]:
    """SHA-256 of a store's small files, by path within the store; its shards have checksums of their own."""
    files = [*store.described_by(), *store.version(made).described_by()]
    return {path.relative_to(store.path).as_posix(): file_sha256(path) for path in files}


def _work_before(job: ScanJob, store: ScanStore, blocks_there: int) -> WorkRecord | None:
    """The work recorded with an earlier result, if all colours come from earlier runs; else None."""
    if job.force or blocks_there < job.plan.blocks:
        return None
    made = job.spec.version
    for paths in (job.paths.of_version(made), job.paths):
        sidecar = Sidecar.find(paths.sidecar)
        if sidecar is not None and sidecar.version == made and sidecar.is_of(store.source.sha256) and sidecar.work:
            return sidecar.work
    return None


def _work(job: ScanJob, store: ScanStore, seconds: Seconds, blocks_there: int, quality: Quality | None) -> WorkRecord:
    """The record of the work on a scan. Colours of an earlier run keep theirs, plus the seconds of this export."""
    made = store.version(job.spec.version)
    blocks = math.prod(job.grid.block_counts_yx(made.block_px))
    if (before := _work_before(job, store, blocks_there)) is not None:
        export = round(before.seconds.get("export", 0.0) + dict(seconds).get("export", 0.0), 3)
        return replace(before, seconds={**before.seconds, "export": export})
    return WorkRecord(
        megapixels=round(job.info.megapixels, 3),
        tiles=quality.tiles if quality else job.plan.tiles,
        # Tiles on block edges count once per block; tiles reused from another version do not count.
        predictions=made.work_done()[0],
        blocks=blocks,
        blocks_there=blocks if blocks_there == job.plan.blocks else blocks_there,
        block_px=made.block_px,
        seconds={name: round(value, 3) for name, value in seconds},
    )


def _source(job: ScanJob, store: ScanStore) -> SourceRecord:
    height, width = job.info.shape_yx
    return SourceRecord(
        path=store.source.path,
        page=store.source.page,
        name=store.source.name,
        bytes=store.source.bytes,
        sha256=store.source.sha256,
        height_px=height,
        width_px=width,
        channels=store.info.channels,
        dtype=store.info.dtype,
        depth=store.info.result_dtype.name,
        tone=store.info.tone,
        mask=store.info.mask,
        holes=[[hole.y0, hole.y1, hole.x0, hole.x1] for hole in store.missing_regions],
        icc_profile=description(store.embedded.icc) or None,
        metadata={**store.info.metadata, **(job.terms or {})},
    )


def _sidecar(
    job: ScanJob, store: ScanStore, pictures: Pictures, seconds: Seconds, blocks_there: int, quality: Quality | None
) -> Sidecar:
    packages = ("numpy", "zarr", "tifffile", "dask", "prefect")
    finished = utc_now()
    return Sidecar(
        what="colour added by an algorithm; lightness is the scan's own",
        software=_software(),
        flow=_flow(job),
        finished=finished,
        source=_source(job, store),
        settings=job.spec.to_json(),
        palette_copy=_palette_copy(store, job.spec),
        series=_series(store, job.spec),
        hints=_hints(store, job.spec),
        result=ResultRecord(version=job.spec.version, store=job.paths.store.name),
        pictures={name: _with_event(each, job, store, finished) for name, each in pictures.items()},
        # Holds for this store alone: other block sizes or interruptions give another store with the same picture.
        store=StoreRecord(
            sha256=_described(store, job.spec.version),
            records_sha256=store.version(job.spec.version).records_sha256(),
        ),
        quality=quality.to_json() if quality else None,
        work=_work(job, store, seconds, blocks_there, quality),
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
    )
