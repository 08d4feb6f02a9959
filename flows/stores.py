"""Which stores of an output folder get a new version, and of which settings.

What is not asked for stays as it is in each scan's current version. Where a version with twice the new stride is there,
its tiles are not predicted again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from engines.spec import find_model, shipped_models
from flows.inputs import STORE_ENDINGS, ScanFile, is_result
from flows.jobs import Job, Outcome, Prepared
from flows.planning import failure
from flows.progress import listener
from flows.settings import RunOptions, parse_options, parse_size
from pipeline.anchor import has_anchor
from pipeline.errors import StoreError, UsageError
from pipeline.manifest import ResultPaths, RunSpec, pictures_of, read_sidecar, version_of
from pipeline.store import ScanStore

# A quarter of the tiles is known where the stride is halved. For a sixteenth, other bytes are too high a price.
_REUSE_FACTOR = 2


@dataclass(frozen=True)
class Changes:
    """What is to be other than in a scan's current version; None stays as it is. Text as the options of ``run``.

    ``worse_than`` leaves alone what has no seam score above it.
    """

    tile: str | None = None
    stride: str | None = None
    window: str | None = None
    model: str | None = None
    reuse: bool = True
    anchor: bool | None = None
    quality: float | None = None
    formats: tuple[str, ...] | None = None
    metadata: bool | None = None
    worse_than: float | None = None


def find_stores(output: Path, patterns: list[str]) -> list[ScanFile]:
    """The stores below ``output`` that any of ``patterns`` chooses, all if there is none.

    A pattern is a name without ending (``albums/1910-4``), a glob (``albums/1910*``) or a folder (``albums/``).

    Raises
    ------
    UsageError : no store is there, or none matches.
    """
    found = sorted(_stores(output))
    chosen = [stem for stem in found if not patterns or any(chooses(p, stem) for p in patterns)]
    if not found:
        raise UsageError(f"{output}: no NAME.zarr in this folder; give the --output folder of an earlier run")
    if not chosen:
        raise UsageError(f"{' '.join(patterns)}: none of the {len(found)} scans in {output} has such a name; check it")
    return [ScanFile(output / f"{stem}.zarr", stem) for stem in chosen]


def chooses(pattern: str, stem: str) -> bool:
    """Whether a name without ending, a glob or a folder is, or has, the scan of that name.

    >>> chooses("albums/", "albums/1910"), chooses("plate [1]", "plate [1]"), chooses("plate*", "plate [1]")
    (True, True, True)
    """
    if pattern.endswith("/"):
        return stem.startswith(pattern)
    return pattern == stem or fnmatchcase(stem, pattern)


def worse_than(score: float, stores: list[ScanFile], output: Path) -> list[ScanFile]:
    """Those whose current result has a seam score above ``score``; scans too small for one have none to be above."""

    def seam(found: ScanFile) -> float:
        sidecar = read_sidecar(ResultPaths.of(output, found.stem).sidecar)
        try:
            return float((sidecar or {})["quality"]["seam"])
        except (KeyError, TypeError, ValueError):
            return 0.0

    chosen = [found for found in stores if seam(found) > score]
    listener().said(f"{len(chosen)} of {len(stores)} scans have a seam score above {score:g}")
    return chosen


def parse_worse_than(value: str | float | None) -> float | None:
    """A seam score such as 1.05, None for no choice by it. Raises UsageError."""
    if value is None:
        return None
    try:
        score = float(value)
    except ValueError:
        score = 0.0
    if not 1.0 <= score < 100:
        raise UsageError(f"worse-than {value!r} is not a seam score, nothing could be chosen by it; give one like 1.05")
    return score


def _stores(output: Path) -> Iterator[str]:
    for parent, names, _ in os.walk(output):
        for name in [name for name in names if name.endswith(STORE_ENDINGS)]:
            names.remove(name)
            if name.endswith(".zarr") and not is_result(Path(name)):
                yield Path(parent, name).relative_to(output).as_posix().removesuffix(".zarr")


def _settings_now(store: ScanStore, paths: ResultPaths) -> RunSpec:
    """Those of the current version, or of the newest. Raises StoreError where there is none."""
    names = store.version_names()
    current = version_of(paths.sidecar)
    name = current if current in names else next(reversed(names), None)
    if name is None:
        raise StoreError(f"{store.path}: has no colours yet to make a new version of; use colorize-archive run")
    try:
        return RunSpec.from_json(store.version(name).settings)
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(f"{store.path}: version {name} is of another release; use colorize-archive run") from error


def _model_name(spec: RunSpec) -> str:
    """A shipped model of that name; others cannot be found by their name alone. Raises UsageError."""
    if spec.engine == "identity":
        return "default"
    if spec.model in shipped_models():
        return spec.model
    raise UsageError(f"model {spec.model!r} is not a shipped one: where it lies is not known; give --model FOLDER")


def _changed(spec: RunSpec, changes: Changes, options: RunOptions, shape_yx: tuple[int, int]) -> RunOptions:
    """``options`` with what is not to change taken from ``spec``."""
    tile_yx = spec.tile_yx if changes.tile is None else options.tile_yx
    stride_yx = options.stride_yx
    if changes.stride is None and changes.tile is None:
        stride_yx = spec.stride_yx
    return replace(
        options,
        tile_yx=tile_yx,
        stride_yx=stride_yx,
        window=spec.window if changes.window is None else options.window,
        anchor=_anchor(spec, changes, options, shape_yx),
        quality=_quality(spec, changes, options),
        model=_model_name(spec) if changes.model is None else options.model,
    )


def _written_as_before(paths: ResultPaths, changes: Changes, options: RunOptions) -> RunOptions:
    """``options`` with the formats of the current result, and its metadata, where others were not asked for."""
    told = pictures_of(paths.sidecar)
    carries = all(each.get("carries_metadata", True) for each in told.values())
    return replace(
        options,
        formats=tuple(told) or options.formats if changes.formats is None else options.formats,
        metadata=carries if changes.metadata is None else options.metadata,
    )


def _anchor(spec: RunSpec, changes: Changes, options: RunOptions, shape_yx: tuple[int, int]) -> bool:
    """A palette that was left out only because its tiles saw the whole scan was not refused."""
    could_have = has_anchor(shape_yx, spec.tile_yx)
    return spec.anchor if changes.anchor is None and could_have else options.anchor


def _quality(spec: RunSpec, changes: Changes, options: RunOptions) -> float:
    """A stride that is asked for alone is meant as such: it ends an earlier quality."""
    if changes.quality is not None:
        return options.quality
    return spec.quality if changes.stride is None else 0.0


def reusable(store: ScanStore, spec: RunSpec) -> str:
    """Name of a complete version of twice the stride whose tiles ``spec`` can take over, or an empty string."""
    if spec.quality:
        return ""  # its coarsest tiles are few
    double = (spec.stride_yx[0] * _REUSE_FACTOR, spec.stride_yx[1] * _REUSE_FACTOR)
    wanted = replace(spec, stride_yx=double).version
    version = store.find_version(wanted)
    return wanted if version is not None and version.is_complete else ""


@cache
def _prepared(options: RunOptions) -> Prepared:
    return Prepared.of(options)


def plan_stores(stores: list[ScanFile], changes: Changes, options: RunOptions) -> list[Job | Outcome]:
    """A job, or at once an outcome, for every store."""
    workers = _prepared(options).workers
    if changes.worse_than is not None:
        stores = worse_than(changes.worse_than, stores, options.output)

    def plan(found: ScanFile) -> Job | Outcome:
        store = ScanStore.open(found.path)
        paths = ResultPaths.of(options.output, found.stem)
        # One cluster runs them all: what a large tile needs beyond its share is refused by the plan.
        shape_yx = store.info.shape_yx
        changed = _changed(_settings_now(store, paths), changes, options, shape_yx)
        prepared = replace(_prepared(_written_as_before(paths, changes, changed)), workers=workers)
        spec = prepared.spec_for(shape_yx)
        if changes.reuse:
            spec = replace(spec, reused=reusable(store, spec))
        scan = ScanFile(Path(store.source.path or found.path), found.stem, store.source.page)
        job = prepared.job_for(scan, store.info, store.source, spec, len(stores), is_exact=not changes.reuse)
        return replace(job, is_ingested=True) if isinstance(job, Job) else job

    planned: list[Job | Outcome] = []
    for found in stores:
        try:
            planned.append(plan(found))
        except Exception as error:
            # Whatever it is, the scan's file, which `run` takes, was not read.
            planned.append(replace(failure(_scan_of(found, options.output), error), is_scans_fault=False))
    return planned


def _scan_of(found: ScanFile, output: Path) -> ScanFile:
    """The scan that a store was made from, as its result tells, where the store itself cannot; else the store."""
    source = (read_sidecar(ResultPaths.of(output, found.stem).sidecar) or {}).get("source")
    try:
        return ScanFile(Path(source["path"]), found.stem, int(source["page"]))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return found


def parse_reprocess(
    output: str,
    tile: int | str | None = None,
    stride: int | str | None = None,
    window: str | None = None,
    engine: str = "auto",
    model: str | None = None,
    workers: int | str = "auto",
    limit_memory: int | str = "2GiB",
    keep: int | str = 2,
    force: bool = False,
    reuse: bool = True,
    anchor: bool | None = None,
    quality: str | float | None = None,
    precision: str = "auto",
    formats: str | None = None,
    metadata: bool | None = None,
    worse_than: str | float | None = None,
    **cluster: str | None,
) -> tuple[RunOptions, Changes]:
    """Check what can be checked without a store. Raises UsageError, ModelError."""
    if model is not None:
        find_model(model)
    options = parse_options(
        output,
        "256" if tile is None else tile,
        None,
        window or "hann",
        engine,
        model or "default",
        workers,
        limit_memory,
        keep,
        force,
        anchor is not False,
        quality,
        precision,
        formats or "tiff",
        metadata is not False,
        **cluster,  # type: ignore[arg-type]
    )
    stride_yx = None if stride is None else parse_size(stride, "stride")
    tile_text, stride_text = (None if value is None else str(value) for value in (tile, stride))
    return replace(options, stride_yx=stride_yx), Changes(
        tile_text,
        stride_text,
        window,
        model,
        reuse,
        anchor,
        None if quality is None else options.quality,
        None if formats is None else options.formats,
        metadata,
        parse_worse_than(worse_than),
    )
