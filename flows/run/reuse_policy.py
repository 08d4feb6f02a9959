"""When a run keeps a scan's current result: unless a setting that somebody chose differs.

An archive of a hundred thousand pictures is not coloured anew because a runtime was updated overnight, and the next run
over a folder does not undo what a curator reprocessed with other settings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from engines.spec import AUTO
from flows.options import RunOptions
from pipeline.errors import StoreError
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ReadSidecar, ResultPaths, valid_pictures
from pipeline.store import ScanStore, Source

COLORIZE, REPROCESS = "colorize-archive", "reprocess-archive"
_IDENTITY = "identity"
_SETTINGS_KEPT = 64  # thousands of scans have the same few


def settings_to_reuse(
    paths: ResultPaths, source: Source, wanted: RunSpec, options: RunOptions, read: ReadSidecar = Sidecar.find
) -> RunSpec:
    """The settings of the current result if it is kept, else ``wanted``.

    A result of the same bytes is kept if `reprocess` made it, whatever its settings, or if it differs from ``wanted``
    only in what nobody chose: the engine's version, and its kind and precision if they were chosen automatically.
    Either the result or its colours must be complete, so that pictures can be written again: no block of another
    engine or model gets into the version.
    """
    sidecar = None if options.force else read(paths.sidecar)
    current = sidecar.spec if sidecar else None
    if sidecar is None or current is None or not sidecar.is_of(source.sha256) or current.algorithm != wanted.algorithm:
        return wanted
    if sidecar.flow != REPROCESS and is_other_choice(current, wanted, options):
        return wanted
    there = valid_pictures(paths, source, current, options.metadata, read=read)
    return current if set(options.formats) <= set(there) or _has_colours(paths, source, current) else wanted


def is_other_choice(one: RunSpec, other: RunSpec, options: RunOptions) -> bool:
    """True if two settings differ in something that somebody chose."""
    is_engine, is_precision = options.engine != AUTO, options.precision != AUTO
    return _chosen(one, is_engine, is_precision) != _chosen(other, is_engine, is_precision)


@lru_cache(maxsize=_SETTINGS_KEPT)
def _chosen(spec: RunSpec, is_engine_chosen: bool, is_precision_chosen: bool) -> RunSpec:
    """The settings without those that nobody chose; the identity engine, which colours nothing, is always a choice."""
    spec = replace(spec, reused="", hints_from="")
    if spec.engine == _IDENTITY:
        return spec
    spec = replace(spec, engine_version="", palette_engine="")
    if not is_engine_chosen:
        spec = replace(spec, engine="")
    if not is_precision_chosen:
        spec = replace(spec, precision="", int8_sha256="", palette_precision="")
    return spec


def _has_colours(paths: ResultPaths, source: Source, spec: RunSpec) -> bool:
    try:
        store = ScanStore.open(paths.store)
        version = store.find_version(spec.version)
    except StoreError:
        return False
    return store.source.sha256 == source.sha256 and version is not None and version.is_whole()
