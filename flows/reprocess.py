"""The flow ``reprocess-archive``: new versions of scans that were ingested before. Nothing is read but the stores."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import parameters
from flows.archive import STAGE_RUNNER, run_in
from flows.changes import Changed
from flows.endings import told
from flows.stores import find_stores, parse_reprocess, plan_stores


@flow(name="reprocess-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
def reprocess_archive(
    output: parameters.Results,
    scans: parameters.Selection = None,
    tile: parameters.NewTile = None,
    stride: parameters.Stride = None,
    window: parameters.NewWindow = None,
    engine: parameters.Engine = "auto",
    model: parameters.NewModel = None,
    workers: parameters.Workers = "auto",
    cluster: parameters.Cluster = "local",
    scheduler: parameters.Scheduler = None,
    tls_ca: parameters.TlsCa = None,
    tls_cert: parameters.TlsCert = None,
    tls_key: parameters.TlsKey = None,
    limit_memory: parameters.LimitMemory = "2GiB",
    keep: parameters.Keep = 2,
    force: parameters.Force = False,
    reuse: parameters.Reuse = True,
    anchor: parameters.NewAnchor = None,
    quality: parameters.Quality = None,
    precision: parameters.Precision = "auto",
    formats: parameters.NewFormats = None,
    metadata: parameters.NewMetadata = None,
    worse_than: parameters.WorseThan = None,
) -> State[Any]:
    """Make new versions of scans that were coloured before, from their stores, and say how much they differ.

    Parameters
    ----------
    output : folder of the earlier results
    scans : names without ending, patterns or folders (``albums/``) of those to do; all if not given
    worse_than : of those, only scans whose seam score is above this
    tile, stride, window, model, anchor, quality, formats, metadata : as in colorize-archive; what is not given stays
        as it is in the current version
    engine, precision, workers, cluster, scheduler, tls_ca, tls_cert, tls_key, limit_memory, keep, force : as in
        colorize-archive
    reuse : take over the tiles of a version with twice the stride
    """

    def run() -> State[Any]:
        options, changes = parse_reprocess(
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
            reuse,
            anchor,
            quality,
            precision,
            formats,
            metadata,
            worse_than,
            cluster=cluster,
            scheduler=scheduler,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
        stores = find_stores(options.output, scans or [])
        changed = Changed(options.output)
        return run_in(
            options, lambda *_: changed.noting(plan_stores(stores, changes, options)), "reprocess", changed.told
        )

    return told(run)
