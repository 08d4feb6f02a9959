"""A coloured version to its picture and sidecar, published as the current one; those beyond the kept are removed."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from flows.current import COLORIZE, REPROCESS, made_by
from flows.jobs import Job
from pipeline.carried import Carried
from pipeline.export import export_picture, picture_of
from pipeline.files import file_sha256, remove, tree_sha256, write_json
from pipeline.handover import carried_by_result, missing_in
from pipeline.manifest import (
    ResultPaths,
    pictures_of,
    publish,
    read_sidecar,
    remove_version,
    settle,
    utc_now,
    version_of,
    whole_pictures,
)
from pipeline.profiles import description
from pipeline.provenance import premis_event
from pipeline.quality import Quality
from pipeline.store import ChromaVersion, ScanStore
from pipeline.writers import leftovers

SOFTWARE = "colorize-archive"
Seconds = tuple[tuple[str, float], ...]
Told = Mapping[str, Any]


def export_job(
    job: Job, seconds: Seconds, blocks_there: int, quality: Quality | None, threads: int, started: float
) -> tuple[Seconds, tuple[str, ...]]:
    """Write, publish and prune; the export began at ``started``.

    Returns the stages' seconds with the export's, and one line for each picture that could not carry all there is.
    """
    store = ScanStore.open(job.paths.store)
    made = job.spec.version
    paths = job.paths.of_version(made)
    settle(job.paths)
    for left in leftovers(job.paths.store.parent, job.paths.store.name.removesuffix(".zarr")):
        remove(left)
    # A picture that an interrupted run had finished only needs its name.
    told = {} if job.force else _whole(job, store, made)
    formats = _formats(job, made)
    if not set(formats) <= set(told) or not paths.sidecar.exists():
        told |= _export(job, store, store.version(made), paths, [name for name in formats if name not in told], threads)
        seconds = (*seconds, ("export", time.perf_counter() - started))
        write_json(paths.sidecar, _sidecar(job, store, told, seconds, blocks_there, quality))
    before = publish(job.paths, made)
    prune(store, job.paths, made, before, job.keep)
    lost = ((told[name]["file"], name, _lost(told[name], job, store)) for name in job.formats)
    return seconds, tuple(
        f"{file}: {name} does not carry all of the scan ({what})" for file, name, what in lost if what
    )


def _whole(job: Job, store: ScanStore, made: str) -> dict[str, Told]:
    """Pictures of the version ``made`` that are there and whole, under its own name or as the current ones."""
    places = (job.paths, job.paths.of_version(made))
    found = [whole_pictures(place, store.source, job.spec, job.metadata) for place in places]
    return {**found[0], **found[1]}


def _formats(job: Job, made: str) -> list[str]:
    """Those that are asked for, and those that the version has already: its pictures stay one set."""
    sidecars = [job.paths.of_version(made).sidecar]
    if version_of(job.paths.sidecar) == made:
        sidecars.append(job.paths.sidecar)
    there = [name for sidecar in sidecars for name in pictures_of(sidecar)]
    return list(dict.fromkeys((*job.formats, *there)))


def _lost(told: Told, job: Job, store: ScanStore) -> str:
    """What of the scan, other than of ours, a picture does not carry."""
    ours = {name for name in ("icc", "xmp") if not job.metadata or not getattr(store.carried, name)}
    return "; ".join(f"{what}: {why}" for what, why in told["not_carried"].items() if what not in ours)


def _export(
    job: Job, store: ScanStore, coloured: ChromaVersion, paths: ResultPaths, formats: list[str], threads: int
) -> dict[str, Told]:
    """Write the picture in each of ``formats``, look what it carries, and tell of it."""
    scan = f"{store.source.name}, SHA-256 {store.source.sha256}"
    model = f"model {job.spec.model} {job.spec.model_sha256[:12]}"
    ours = f"Colour added by an algorithm: {_software()}, {model}. Lightness is that of the scan {scan}."
    scans = store.carried if job.metadata else Carried()
    carried, text, left_out = carried_by_result(scans, f"{_software()}, {model}", ours, scan)
    picture = replace(picture_of(store, coloured, _software(), text, carried), name=job.paths.stem)
    told: dict[str, Told] = {}
    for name in formats:
        path = paths.picture(name)
        written = export_picture(name, path, picture, threads)
        lost = {**left_out, **written.not_carried}
        told[name] = {
            "file": job.paths.picture(name).name,
            "bytes": written.bytes,
            "sha256": tree_sha256(path),
            "levels": len(written.levels_yx),
            "carries_metadata": job.metadata,
            "not_carried": {**lost, **missing_in(path, picture, lost)},
        }
    return told


def prune(store: ScanStore, paths: ResultPaths, current: str, before: str | None, keep: int) -> None:
    """Keep the current version, the one before, and of the others the newest, ``keep`` in all. Raises OutputError.

    Others are those of the store and pictures whose version the store has no more; what was begun and never finished
    goes first.
    """
    finished = {version_of(each.sidecar): each for each in paths.all_versions()}
    others = []
    for name in {*store.version_names(), *finished} - {current, None}:
        sidecar = read_sidecar(finished[name].sidecar) if name in finished else None
        when = str(sidecar.get("finished")) if sidecar else store.version(str(name)).created
        others.append((name == before, sidecar is not None, when, str(name)))
    for *_, name in sorted(others)[: max(0, len(others) - (keep - 1))]:
        remove_version(paths, name)
        store.remove_version(name)


def _event(job: Job, store: ScanStore, told: Told, when: str) -> dict[str, Any]:
    """PREMIS's record of how a picture was made; that of one which is there already stays."""
    if "premis" in told:
        return dict(told["premis"])
    spec = job.spec
    agents = {SOFTWARE: version(SOFTWARE), f"model {spec.model}": f"SHA-256 {spec.model_sha256}"}
    detail = f"colour added by an algorithm; lightness is the scan's own; version {spec.version}"
    notes = tuple(f"not carried over: {what} ({why})" for what, why in told["not_carried"].items())
    if store.holes:
        notes = (*notes, f"{len(store.holes)} parts of the scan could not be read and are plain gray")
    source, result = (store.source.name, store.source.sha256), (str(told["file"]), str(told["sha256"]))
    return premis_event(when, detail, agents, source, result, notes)


def _software() -> str:
    return f"{SOFTWARE} {version(SOFTWARE)}"


def _flow(job: Job) -> str:
    """Which flow made the version: where only a picture is made anew, that is the one before."""
    if job.is_ingested:
        return REPROCESS
    is_the_same = not job.force and version_of(job.paths.sidecar) == job.spec.version
    return (made_by(read_sidecar(job.paths.sidecar)) if is_the_same else "") or COLORIZE


def _described(store: ScanStore, made: str) -> dict[str, str]:
    """SHA-256 of the small files of a store, by their path in it; its shards have checksums of their own."""
    files = [*store.described_by(), *store.version(made).described_by()]
    return {path.relative_to(store.path).as_posix(): file_sha256(path) for path in files}


def _sidecar(
    job: Job,
    store: ScanStore,
    told: Mapping[str, Told],
    seconds: Seconds,
    blocks_there: int,
    quality: Quality | None,
) -> dict[str, Any]:
    height, width = job.info.shape_yx
    made = store.version(job.spec.version)
    blocks = math.prod(job.grid.block_counts_yx(made.block_px))
    packages = ("numpy", "zarr", "tifffile", "dask", "prefect")
    finished = utc_now()
    return {
        "what": "colour added by an algorithm; lightness is the scan's own",
        "software": _software(),
        "flow": _flow(job),
        "finished": finished,
        "source": {
            "path": store.source.path,
            "page": store.source.page,
            "name": store.source.name,
            "bytes": store.source.bytes,
            "sha256": store.source.sha256,
            "height_px": height,
            "width_px": width,
            "channels": store.info.channels,
            "dtype": store.info.dtype,
            "depth": store.info.result_dtype.name,
            "tone": store.info.tone,
            "mask": store.info.mask,
            "holes": [[hole.y0, hole.y1, hole.x0, hole.x1] for hole in store.holes],
            "icc_profile": description(store.carried.icc) or None,
            "metadata": dict(store.info.metadata),
        },
        "settings": job.spec.to_json(),
        "result": {"version": job.spec.version, "store": job.paths.store.name},
        "pictures": {name: {**each, "premis": _event(job, store, each, finished)} for name, each in told.items()},
        # Of this store: other blocks and stops would have made another one, and the same picture.
        "store": {
            "sha256": _described(store, job.spec.version),
            "records_sha256": store.version(job.spec.version).records_sha256(),
        },
        "quality": quality.to_json() if quality else None,
        "work": {
            "megapixels": round(job.info.megapixels, 3),
            "tiles": quality.tiles if quality else job.plan.tiles,
            # Those on block edges once for each block, without those taken over from another version.
            "predictions": store.version(job.spec.version).work_done()[0],
            "blocks": blocks,
            "blocks_there": blocks if blocks_there == job.plan.blocks else blocks_there,
            "block_px": made.block_px,
            "seconds": {name: round(value, 3) for name, value in seconds},
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
