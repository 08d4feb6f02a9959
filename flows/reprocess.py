"""The flow ``reprocess-archive``: new versions of scans that were ingested before. Nothing is read but the stores."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.archive import STAGE_RUNNER, run_in
from flows.endings import told
from flows.stores import find_stores, parse_reprocess, plan_stores


@flow(name="reprocess-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
def reprocess_archive(
    output: str,
    scans: list[str] | None = None,
    tile: int | str | None = None,
    stride: int | str | None = None,
    window: str | None = None,
    engine: str = "auto",
    model: str | None = None,
    workers: int | str = "auto",
    cluster: str = "local",
    scheduler: str | None = None,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    limit_memory: int | str = "2GiB",
    keep: int | str = 2,
    force: bool = False,
    reuse: bool = True,
    anchor: bool | None = None,
    quality: float | str | None = None,
    precision: str = "auto",
    formats: str | None = None,
    metadata: bool | None = None,
) -> State[Any]:
    """Make new versions of scans that were coloured before, from their stores.

    Parameters
    ----------
    output : folder of the earlier results
    scans : names or patterns of those to do, without ending; all if not given
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
            cluster=cluster,
            scheduler=scheduler,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
        stores = find_stores(options.output, scans or [])
        return run_in(options, lambda _: plan_stores(stores, changes, options))

    return told(run)
