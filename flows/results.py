"""A coloured version to its picture and sidecar, published as the current one; those beyond the kept are removed."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import Any

from flows.jobs import Job
from pipeline.export import export_picture, picture_of
from pipeline.files import file_sha256, remove, write_json
from pipeline.manifest import (
    ResultPaths,
    is_current,
    publish,
    read_sidecar,
    remove_version,
    settle,
    utc_now,
    version_of,
)
from pipeline.provenance import xmp_packet
from pipeline.quality import Quality
from pipeline.store import ChromaVersion, ScanStore

SOFTWARE = "colorize-archive"
Seconds = tuple[tuple[str, float], ...]


def export_job(
    job: Job, seconds: Seconds, blocks_there: int, quality: Quality | None, threads: int, started: float
) -> Seconds:
    """Write, publish and prune; returns the stages' seconds with the export's, which began at ``started``."""
    store = ScanStore.open(job.paths.store)
    made = job.spec.version
    paths = job.paths.of_version(made)
    settle(job.paths)
    # A picture that an interrupted run had finished only needs its name.
    if job.force or not is_current(paths, store.source, job.spec):
        remove(paths.sidecar)  # a picture without one is not current, whatever stops this run now
        levels = _export(job, store, store.version(made), paths, threads)
        seconds = (*seconds, ("export", time.perf_counter() - started))
        write_json(paths.sidecar, _sidecar(job, store, paths, levels, seconds, blocks_there, quality))
    before = publish(job.paths, made)
    prune(store, job.paths, made, before, job.keep)
    return seconds


def _export(job: Job, store: ScanStore, coloured: ChromaVersion, paths: ResultPaths, threads: int) -> int:
    description = (
        f"Colour added by an algorithm: {_software()}, model {job.spec.model} {job.spec.model_sha256[:12]}. "
        f"Lightness is that of the scan {store.source.name}, SHA-256 {store.source.sha256}."
    )
    model = f"model {job.spec.model} {job.spec.model_sha256[:12]}"
    xmp = xmp_packet(f"{_software()}, {model}", description, f"{store.source.name}, SHA-256 {store.source.sha256}")
    picture = picture_of(store, coloured, _software(), description, xmp)
    return len(export_picture("tiff", paths.picture, picture, threads).levels_yx)


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


def _software() -> str:
    return f"{SOFTWARE} {version(SOFTWARE)}"


def _described(store: ScanStore, made: str) -> dict[str, str]:
    """SHA-256 of the small files of a store, by their path in it; its shards have checksums of their own."""
    files = [*store.described_by(), *store.version(made).described_by()]
    return {path.relative_to(store.path).as_posix(): file_sha256(path) for path in files}


def _sidecar(
    job: Job,
    store: ScanStore,
    paths: ResultPaths,
    levels: int,
    seconds: Seconds,
    blocks_there: int,
    quality: Quality | None,
) -> dict[str, Any]:
    height, width = job.info.shape_yx
    packages = ("numpy", "zarr", "tifffile", "dask", "prefect")
    return {
        "what": "colour added by an algorithm; lightness is the scan's own",
        "software": _software(),
        "finished": utc_now(),
        "source": {
            "path": store.source.path,
            "name": store.source.name,
            "bytes": store.source.bytes,
            "sha256": store.source.sha256,
            "height_px": height,
            "width_px": width,
            "channels": job.info.channels,
            "dtype": job.info.dtype,
            "metadata": dict(job.info.metadata),
        },
        "settings": job.spec.to_json(),
        "result": {
            "version": job.spec.version,
            "bytes": paths.picture.stat().st_size,
            "sha256": file_sha256(paths.picture),
            "levels": levels,
            "store": paths.store.name,
        },
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
            "blocks": job.plan.blocks,
            "blocks_there": blocks_there,
            "block_px": job.plan.block_px,
            "seconds": {name: round(value, 3) for name, value in seconds},
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
