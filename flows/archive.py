"""The flow ``colorize-archive``: many scans, each ingested, coloured and exported.

Prefect sees scans and stages; Dask sees blocks. Stages of different scans overlap: while one is coloured, the next is
ingested and the one before exported. A scan that fails never stops the others.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed import Client, as_completed
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.blocks import BlockTask, BlockTimes, run_block
from flows.cluster import open_client, open_cluster, processors
from flows.jobs import Job, Outcome, Prepared, prepare_output
from flows.planning import failure, plan_scans
from flows.progress import listener
from flows.settings import ScanFile, find_scans, parse_options
from pipeline.export import export_tiff
from pipeline.files import file_sha256, folder_lock, remove, write_json, writing
from pipeline.ingest import ingest
from pipeline.manifest import utc_now
from pipeline.store import ScanStore

SOFTWARE = "colorize-archive"
SOME_FAILED = "Some scans failed"
_STAGES_AT_ONCE = 3


@dataclass(frozen=True)
class Stage:
    """A stage that is done: its seconds, and those of the stages before it."""

    seconds: tuple[tuple[str, float], ...]


def _timed(before: Stage, name: str, work: Callable[[], Any]) -> tuple[Stage, Any]:
    started = time.perf_counter()
    value = work()
    return replace(before, seconds=(*before.seconds, (name, time.perf_counter() - started))), value


@task(name="ingest", task_run_name="ingest {job.scan.stem}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scan(job: Job) -> Stage:
    """Scan file to Zarr."""
    job.paths.store.parent.mkdir(parents=True, exist_ok=True)
    return _timed(Stage(()), "ingest", lambda: ingest(job.scan.path, job.paths.store, job.source, job.force))[0]


@task(name="colorize", task_run_name="colorize {job.scan.stem}", cache_policy=NO_CACHE, persist_result=False)
def colorize_scan(job: Job, ingested: Stage, topic: str) -> Stage:
    """Chroma of every block, on the cluster that is open."""
    return _timed(ingested, "colorize", lambda: _run_blocks(job, open_client(), topic))[0]


def _run_blocks(job: Job, client: Client, topic: str) -> list[BlockTimes]:
    settings = job.spec.to_json()
    store = ScanStore.open(job.paths.store, writable=True)
    if store.chroma_spec() == settings and not job.force:
        listener().predicted(job.scan.stem, job.plan.predictions)
        return []
    attempt = store.create_chroma(settings, job.plan.block_px, job.chroma_scale)
    rows, columns = job.grid.block_counts_yx(job.plan.block_px)
    tasks = [
        BlockTask(
            job.scan.stem,
            job.paths.store,
            job.grid,
            job.plan.block_px,
            (y, x),
            job.spec.window,
            job.engine_spec,
            attempt,
            topic,
        )
        for y in range(rows)
        for x in range(columns)
    ]
    futures = client.map(run_block, tasks, pure=False)
    try:
        times = [future.result() for future in as_completed(futures, loop=client.loop)]
    except BaseException:
        client.cancel(futures)
        raise
    store.finish_chroma()
    return times


def _tell_tiles(event: tuple[float, dict[str, Any]]) -> None:
    _, what = event
    listener().predicted(what["scan"], what["tiles"])


@task(name="export", task_run_name="export {job.scan.stem}", cache_policy=NO_CACHE, persist_result=False)
def export_scan(job: Job, coloured: Stage) -> Outcome:
    """Zarr to the coloured TIFF, and the JSON that says what was done."""
    store = ScanStore.open(job.paths.store)
    software = f"{SOFTWARE} {version(SOFTWARE)}"
    description = (
        f"Colour added by an algorithm: {software}, model {job.spec.model} {job.spec.model_sha256[:12]}. "
        f"Lightness is that of the scan {job.source.name}, SHA-256 {job.source.sha256}."
    )
    remove(job.paths.sidecar)  # a picture without one is not current, whatever stops this run now
    stage, summary = _timed(
        coloured, "export", lambda: export_tiff(store, job.paths.picture, software, description, processors())
    )
    write_json(job.paths.sidecar, _sidecar(job, stage, len(summary.levels_yx), software))
    return Outcome(
        job.scan.stem,
        str(job.scan.path),
        "done",
        str(job.paths.picture),
        job.info.megapixels,
        job.plan.tiles,
        str(job.paths.picture),
        stage.seconds,
    )


def _sidecar(job: Job, stage: Stage, levels: int, software: str) -> dict[str, Any]:
    height, width = job.info.shape_yx
    packages = ("numpy", "zarr", "tifffile", "dask", "prefect")
    return {
        "what": "colour added by an algorithm; lightness is the scan's own",
        "software": software,
        "finished": utc_now(),
        "source": {
            "path": str(job.scan.path),
            "name": job.source.name,
            "bytes": job.source.bytes,
            "sha256": job.source.sha256,
            "height_px": height,
            "width_px": width,
            "channels": job.info.channels,
            "dtype": job.info.dtype,
            "metadata": dict(job.info.metadata),
        },
        "settings": job.spec.to_json(),
        "result": {
            "path": str(job.paths.picture),
            "bytes": job.paths.picture.stat().st_size,
            "sha256": file_sha256(job.paths.picture),
            "levels": levels,
            "store": str(job.paths.store),
        },
        "work": {
            "megapixels": round(job.info.megapixels, 3),
            "tiles": job.plan.tiles,
            "predictions": job.plan.predictions,
            "blocks": job.plan.blocks,
            "block_px": job.plan.block_px,
            "seconds": {name: round(seconds, 3) for name, seconds in stage.seconds},
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _outcome(job: Job, futures: list[PrefectFuture[Any]]) -> Outcome:
    """Wait for a scan's stages; the first that failed says why."""
    for future in futures:
        future.wait()
        if not future.state.is_completed():
            error = future.state.result(raise_on_failure=False)
            return failure(job.scan, error if isinstance(error, BaseException) else RuntimeError(str(error)))
    result = futures[-1].result()
    assert isinstance(result, Outcome)
    return result


def _run_jobs(jobs: list[Job], scheduler: str | None) -> list[Outcome]:
    """Submit every scan's stages and collect the outcomes as they come, in order."""
    with open_cluster(jobs[0].workers, scheduler) as client:
        topic = f"colorize-archive-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, _tell_tiles)
        submitted = []
        for job in jobs:
            listener().planned(job.scan.stem, job.plan.predictions, job.info.megapixels)
            ingested = ingest_scan.submit(job)
            coloured = colorize_scan.submit(job, ingested, topic)  # type: ignore[call-overload]
            submitted.append((job, [ingested, coloured, export_scan.submit(job, coloured)]))
        outcomes = []
        for job, futures in submitted:
            outcomes.append(_outcome(job, futures))
            listener().finished(outcomes[-1])
        return outcomes


def _run_scans(scans: list[ScanFile], prepared: Prepared) -> list[Outcome]:
    """Skip, fail or colour every scan."""
    planned = plan_scans(scans, prepared)
    known = [p for p in planned if isinstance(p, Outcome)]
    for outcome in known:
        listener().finished(outcome)
    jobs = [p for p in planned if isinstance(p, Job)]
    return known + (_run_jobs(jobs, prepared.options.scheduler) if jobs else [])


def _write_run(output: Path, started: str, prepared: Prepared, outcomes: list[Outcome]) -> Path:
    """The run's own record: every scan with what became of it."""
    path = output / "runs" / f"{started.replace(':', '').replace('+0000', 'Z')}-{os.getpid()}.json"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    record = {
        "started": started,
        "finished": utc_now(),
        "engine": str(prepared.choice),
        "model": prepared.model.card.name,
        "scans": [outcome.to_json() for outcome in outcomes],
    }
    write_json(path, record)
    return path


_STAGE_RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_STAGES_AT_ONCE)


@flow(name="colorize-archive", task_runner=_STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
def colorize_archive(
    inputs: list[str],
    output: str,
    tile: int | str = 256,
    stride: int | str | None = None,
    window: str = "average",
    engine: str = "auto",
    model: str = "default",
    workers: int | str = "auto",
    scheduler: str | None = None,
    limit_memory: int | str = "2GiB",
    force: bool = False,
) -> State[Any]:
    """Colour black-and-white scans.

    Parameters
    ----------
    inputs : files, folders or globs
    output : folder for the results
    tile : tile size in pixels: 256, 2048x4096 (height x width) or "whole"
    stride : pixels between tiles; half a tile if not given
    window : weights where tiles overlap: average, hann, triangle, gaussian
    engine : auto, openvino, onnxruntime, identity
    model : shipped model by name, or a model folder
    workers : worker processes, or auto
    scheduler : address of an existing Dask scheduler
    limit_memory : most memory that all processes together are planned to use
    force : colour scans again whose result is there
    """
    started = utc_now()
    options = parse_options(output, tile, stride, window, engine, model, workers, scheduler, limit_memory, force)
    scans = find_scans(inputs)
    prepared = Prepared.of(options)
    prepare_output(options.output)
    listener().said(str(prepared.choice))
    with folder_lock(options.output):
        outcomes = _run_scans(scans, prepared)
        record = _write_run(options.output, started, prepared, outcomes)
    failed = [o for o in outcomes if o.status == "failed"]
    message = f"{len(outcomes) - len(failed)} of {len(outcomes)} scans are there; {record}"
    return Failed(message=message, name=SOME_FAILED) if failed else Completed(message=message)
