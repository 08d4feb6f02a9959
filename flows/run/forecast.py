"""How long a run will take: from runs into the same folder, else from the machine's own trials of its engines.

A scan by itself uses one processor for a block, while many scans fill all of them; so the work of all scans is added up
and divided by what the machine does at once, which is what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engines.measure.autotune import machine_rate
from flows.run.jobs import ScanJob
from pipeline.planning.cost import MEASURED
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from pipeline.support.files import read_json

# Shorter runs say little: most of their time is the cluster's start.
_LEAST_SECONDS = 10.0
_RUNS, _SCANS = 20, 200


@dataclass(frozen=True)
class Forecast:
    """Seconds of a run.

    Attributes
    ----------
    scan_seconds : of each job, its share of the whole; in order
    start_seconds : once a run
    basis : where the speed is from, for people
    """

    scan_seconds: tuple[float, ...]
    start_seconds: float
    basis: str

    @property
    def seconds(self) -> float:
        return self.start_seconds + sum(self.scan_seconds)


def forecast(jobs: Sequence[ScanJob], output: Path) -> Forecast:
    """The seconds of ``jobs``, which run together into ``output``. Raises EngineError."""
    if not jobs:
        return Forecast((), 0.0, "")
    start = MEASURED.start_seconds
    if (speed := recorded_speed(output, jobs[0].spec)) is not None:
        rate, when = speed
        seconds = tuple(job.plan.predictions / rate for job in jobs)
        return Forecast(seconds, start, f"{rate:.1f} tiles a second, as in the run of {when} into this folder")
    engine = jobs[0].engine_spec
    rate = 0.0 if engine is None else machine_rate(engine)
    basis = f"{rate:.1f} tiles a second of this machine's engine alone" if rate else "the rates of processors alone"
    return Forecast(tuple(_seconds(job, rate) for job in jobs), start, basis)


def _seconds(job: ScanJob, tiles_per_second: float) -> float:
    """A scan's share of the machine's time: its tiles, and what processors do beside them."""
    plan, tile_yx = job.plan, job.spec.tile_yx
    megapixels = plan.megapixels
    beside = megapixels * (
        1 / MEASURED.ingest_megapixels_per_second
        + 1 / MEASURED.block_megapixels_per_second
        + 1 / MEASURED.export_megapixels_per_second
    )
    beside += plan.predictions * tile_yx[0] * tile_yx[1] / 1e6 / MEASURED.blend_megapixels_per_second
    tiles = plan.predictions / tiles_per_second if tiles_per_second else 0.0
    return tiles + beside / job.workers.blocks_at_once + MEASURED.seconds_per_scan


def recorded_speed(output: Path, spec: RunSpec) -> tuple[float, str] | None:
    """Tiles a second of the last run into ``output`` with this engine, model and tile, and its day; None if none."""
    for path in sorted((output / "runs").glob("*.json"), reverse=True)[:_RUNS]:
        record = read_json(path)
        if record is None:
            continue
        try:
            seconds = (_time(record["finished"]) - _time(record["started"])).total_seconds()
            done = [str(each["scan"]) for each in record["scans"] if each["status"] == "done"][:_SCANS]
            share = len(done) / max(1, sum(each["status"] == "done" for each in record["scans"]))
            began = _time(record["started"])
        except (KeyError, TypeError, ValueError):
            continue
        tiles = sum(_tiles_of(output, done, spec, began))
        if tiles and seconds * share > _LEAST_SECONDS:
            return tiles / (seconds * share), f"{began.astimezone():%Y-%m-%d %H:%M}"
    return None


def _tiles_of(output: Path, stems: Sequence[str], spec: RunSpec, began: datetime) -> Iterator[int]:
    """Tiles that were predicted for each result that was finished since and has the same engine, model and tile."""
    for stem in stems:
        sidecar = Sidecar.find(ResultPaths.of(output, stem).sidecar)
        made, work = (sidecar.spec, sidecar.work) if sidecar else (None, None)
        if sidecar is None or made is None or work is None or _time(sidecar.finished) < began or work.blocks_there:
            continue
        if _engine_of(made) == _engine_of(spec):
            yield work.predictions


def _engine_of(spec: RunSpec) -> tuple[Any, ...]:
    return spec.engine, spec.precision, spec.model_sha256, spec.tile_yx, spec.anchor, spec.palette_sha256


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
