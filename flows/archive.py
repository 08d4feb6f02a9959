"""The flow ``colorize-archive``: many scans, each ingested, coloured and exported.

Prefect sees lots of scans and their stages; Dask sees blocks. Stages of different lots overlap: while one is coloured,
the next is ingested and the one before exported. A scan that fails never stops the others.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import parameters
from flows.cluster import open_cluster
from flows.jobs import Job, Outcome, Prepared, prepare_output
from flows.planning import failure, plan_scans
from flows.progress import listener
from flows.scheduling import BlockQueue
from flows.settings import RunOptions, find_scans, parse_options
from flows.stages import Lot, colorize_lot, export_lot, ingest_lot, lot_name, lots
from pipeline.files import folder_lock, write_json, writing
from pipeline.manifest import utc_now

SOME_FAILED = "Some scans failed"
_STAGES_AT_ONCE = 3
_queues: list[BlockQueue] = []


@task(name="ingest", task_run_name="ingest {name}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scans(lot: Lot, name: str) -> Lot:
    """Scan files to Zarr."""
    return ingest_lot(lot)


@task(name="colorize", task_run_name="colorize {name}", cache_policy=NO_CACHE, persist_result=False)
def colorize_scans(lot: Lot, name: str, topic: str) -> Lot:
    """Chroma of every block, on the cluster that is open."""
    return colorize_lot(lot, _queues[-1], topic)


@task(name="export", task_run_name="export {name}", cache_policy=NO_CACHE, persist_result=False)
def export_scans(lot: Lot, name: str) -> tuple[Outcome, ...]:
    """Zarr to the coloured TIFFs and their sidecars."""
    return export_lot(lot)


def _tell_tiles(event: tuple[float, dict[str, Any]]) -> None:
    _, what = event
    listener().predicted(what["scan"], what["tiles"])


def _outcomes(lot: Lot, futures: list[PrefectFuture[Any]]) -> tuple[Outcome, ...]:
    """Wait for a lot's stages. One that broke off as a whole is a failure of each of its scans."""
    for future in futures:
        future.wait()
        if not future.state.is_completed():
            error = future.state.result(raise_on_failure=False)
            reason = error if isinstance(error, BaseException) else RuntimeError(str(error))
            return tuple(failure(step.job.scan, reason) for step in lot)
    outcomes: tuple[Outcome, ...] = futures[-1].result()
    return outcomes


def run_jobs(jobs: list[Job], prepared: Prepared) -> list[Outcome]:
    """Submit every lot's stages and collect the outcomes as they come, in order."""
    options = prepared.options
    engine = jobs[0].engine_spec
    with open_cluster(jobs[0].workers, options.cluster, options.limit_memory_bytes, engine) as client:
        topic = f"colorize-archive-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, _tell_tiles)
        _queues.append(BlockQueue(client))
        try:
            return _run_lots(list(lots(jobs)), topic)
        finally:
            _queues.pop()


def _run_lots(every: list[Lot], topic: str) -> list[Outcome]:
    submitted = []
    for lot in every:
        for step in lot:
            listener().planned(step.job.scan.stem, step.job.plan.predictions, step.job.info.megapixels)
        name = lot_name(lot)
        ingested = ingest_scans.submit(lot, name)
        coloured = colorize_scans.submit(ingested, name, topic)  # type: ignore[call-overload]
        submitted.append((lot, [ingested, coloured, export_scans.submit(coloured, name)]))
    outcomes = []
    for lot, futures in submitted:
        for outcome in _outcomes(lot, futures):
            outcomes.append(outcome)
            listener().finished(outcome)
    return outcomes


def run_planned(planned: list[Job | Outcome], prepared: Prepared) -> list[Outcome]:
    """Tell what is skipped or failed already, and do the rest."""
    known = [p for p in planned if isinstance(p, Outcome)]
    for outcome in known:
        listener().finished(outcome)
    jobs = [p for p in planned if isinstance(p, Job)]
    return known + (run_jobs(jobs, prepared) if jobs else [])


def write_run(output: Path, started: str, prepared: Prepared, outcomes: list[Outcome]) -> State[Any]:
    """Write the run's own record, every scan with what became of it; returns the state that the flow ends in."""
    path = output / "runs" / f"{started.replace(':', '').replace('+0000', 'Z')}-{os.getpid()}.json"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    record = {
        "started": started,
        "finished": utc_now(),
        "engine": str(prepared.choice),
        "backend": prepared.choice.backend,
        "precision": prepared.choice.precision,
        "model": prepared.model.card.name,
        "model_sha256": prepared.model.card.sha256,
        "scans": [outcome.to_json() for outcome in outcomes],
    }
    write_json(path, record)
    failed = [o for o in outcomes if o.status == "failed"]
    message = f"{len(outcomes) - len(failed)} of {len(outcomes)} scans are there; {path}"
    return Failed(message=message, name=SOME_FAILED) if failed else Completed(message=message)


def run_in(options: RunOptions, plan: Callable[[Prepared], list[Job | Outcome]]) -> State[Any]:
    """Plan and do a run in the output folder, which nobody else may use meanwhile; returns the state it ends in."""
    started = utc_now()
    prepared = Prepared.of(options)
    prepare_output(options.output)
    listener().said(str(prepared.choice))
    with folder_lock(options.output):
        outcomes = run_planned(plan(prepared), prepared)
        return write_run(options.output, started, prepared, outcomes)


STAGE_RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_STAGES_AT_ONCE)


@flow(name="colorize-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
def colorize_archive(
    inputs: parameters.Inputs,
    output: parameters.Output,
    tile: parameters.Tile = 256,
    stride: parameters.Stride = None,
    window: parameters.WindowName = "hann",
    engine: parameters.Engine = "auto",
    model: parameters.ModelName = "default",
    workers: parameters.Workers = "auto",
    cluster: parameters.Cluster = "local",
    scheduler: parameters.Scheduler = None,
    tls_ca: parameters.TlsCa = None,
    tls_cert: parameters.TlsCert = None,
    tls_key: parameters.TlsKey = None,
    limit_memory: parameters.LimitMemory = "2GiB",
    keep: parameters.Keep = 2,
    force: parameters.Force = False,
    anchor: parameters.Anchor = True,
    quality: parameters.Quality = None,
    precision: parameters.Precision = "auto",
    formats: parameters.Formats = "tiff",
    metadata: parameters.Metadata = True,
    pages: parameters.Pages = "all",
    salvage: parameters.Salvage = False,
) -> State[Any]:
    """Colour black-and-white scans.

    Parameters
    ----------
    inputs : files, folders or globs
    output : folder for the results
    tile : tile size in pixels: 256, 2048x4096 (height x width) or "whole"
    stride : pixels between tiles; half a tile if not given
    window : weights where tiles overlap: average, hann, triangle, gaussian
    engine : auto, or a backend such as tensorrt, openvino, onnxruntime, identity
    model : shipped model by name, or a model folder
    workers : worker processes, or auto
    cluster : local, or cuda for one worker a GPU
    scheduler : address or scheduler file of a Dask cluster that is already there
    tls_ca, tls_cert, tls_key : PEM files for a scheduler with TLS
    limit_memory : most memory that all processes together are planned to use
    keep : versions of a scan's colours that stay, the new one among them
    force : colour scans again whose result is there
    anchor : take the palette from the whole scan, so that its tiles agree
    quality : seam score to reach, such as 1.05, by finer tiles where tiles disagree; stride is then the coarsest
    precision : auto, fp32, bf16, fp16 or int8: what the engine computes in
    formats : of the pictures: tiff, cog, omezarr, jp2, iiif, png, jpeg, or several with commas between
    metadata : carry over what the scan says beside its pixels
    pages : of files that have several: all, or numbers such as 1,3-5
    salvage : colour damaged scans too; what cannot be read is plain gray and listed
    """
    options = parse_options(
        output,
        tile,
        stride,
        window,
        engine,
        model,
        workers,
        limit_memory,
        keep,
        force,
        anchor,
        quality,
        precision,
        formats,
        metadata,
        pages,
        salvage,
        cluster=cluster,
        scheduler=scheduler,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    scans = find_scans(inputs)
    return run_in(options, lambda prepared: plan_scans(scans, prepared))
