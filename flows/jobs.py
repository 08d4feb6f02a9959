"""One scan of a run: what is to be done with it, worked out before any work, and what became of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

from engines.select import AUTO, Choice, choose, extra_bytes, precisions_of
from engines.spec import EngineSpec, Model
from flows.bookkeeping import ScanFiles
from flows.cluster import split_workers
from flows.current import is_other_choice, settings_to_keep
from flows.inputs import ScanFile
from flows.settings import RunOptions
from pipeline.anchor import canvas_px, has_anchor
from pipeline.errors import OutputError, ScanNotFoundError, StoreError, UsageError
from pipeline.files import output_error
from pipeline.grid import TileGrid
from pipeline.manifest import ResultPaths, RunSpec, in_the_way, read_sidecar, whole_pictures
from pipeline.plan import Held, Plan, Workers, batch_for, make_plan
from pipeline.quality import Quality
from pipeline.readers import open_scan
from pipeline.store import ScanStore, Source, is_store
from pipeline.types import Reading, ScanInfo
from pipeline.writers import check_formats, held_bytes

Status = Literal["done", "skipped", "failed", "quarantined", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan. ``message`` is one line; ``seconds`` by stage; ``warnings`` one line each.

    ``stopped`` is one that the time budget or a cancellation ended, to go on with; ``quarantined`` one that failed once
    too often, and later runs leave out. ``is_scans_fault`` tells a failure that the same scan would meet again from one
    of the disk, the cluster or the options, which is not counted against it; ``retry_after`` (ISO 8601, UTC) is when a
    run tries it again; ``file_bytes`` and ``file_modified_ns`` are of the file at fault. ``version`` is that of
    the scan's colours that was made, and ``difference`` what is other in it than in the one before, where they were
    compared.
    """

    scan: str
    path: str
    status: Status
    message: str
    megapixels: float = 0.0
    tiles: int = 0
    result: str = ""
    seconds: tuple[tuple[str, float], ...] = ()
    quality: Quality | None = None
    version: str = ""
    warnings: tuple[str, ...] = ()
    is_scans_fault: bool = False
    retry_after: str = ""
    file_bytes: int = 0
    file_modified_ns: int = 0
    page: int = 1
    difference: Mapping[str, Any] | None = None

    @property
    def has_failed(self) -> bool:
        """In this run."""
        return self.status in ("failed", "quarantined")

    @property
    def is_left_out(self) -> bool:
        """Not tried in this run, because of failures in earlier ones."""
        return self.status == "skipped" and not self.result

    def to_json(self) -> dict[str, Any]:
        quality = self.quality.to_json() if self.quality else None
        return {
            **vars(self),
            "megapixels": round(self.megapixels, 3),
            "seconds": dict(self.seconds),
            "quality": quality,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Job:
    """A scan that will be coloured: source, settings, plan, and where the results go.

    ``source`` is None where the file is to be hashed just before it is ingested, by ``files``. Where ``is_ingested``,
    the samples come from the store and the scan file is not looked for again. ``formats`` are those that the picture is
    to be there in, ``metadata`` whether it carries what the scan says beside its pixels. Where it ``is_kept``, the
    colours are there, of other settings, engines or models than this run's, which must make none of them.
    """

    scan: ScanFile
    info: ScanInfo
    source: Source | None
    spec: RunSpec
    plan: Plan
    paths: ResultPaths
    engine_spec: EngineSpec
    anchor_spec: EngineSpec | None
    chroma_scale: float
    workers: Workers
    force: bool
    keep: int
    formats: tuple[str, ...] = ("tiff",)
    metadata: bool = True
    reading: Reading = field(default_factory=Reading)
    files: ScanFiles = field(default_factory=ScanFiles, compare=False, repr=False)
    is_ingested: bool = False
    is_kept: bool = False

    @property
    def output(self) -> Path:
        """The folder of all results."""
        return self.paths.store.parents[len(Path(self.scan.stem).parts) - 1]

    @cached_property
    def grid(self) -> TileGrid:
        return grid_of(self.spec, self.info.shape_yx)


@dataclass(frozen=True)
class Prepared:
    """Engine and model of a run, chosen once, and the options."""

    options: RunOptions
    choice: Choice
    model: Model
    workers: Workers
    files: ScanFiles = field(default_factory=ScanFiles, compare=False, repr=False)

    @classmethod
    def of(cls, options: RunOptions) -> Prepared:
        """Choose engine and model. Raises EngineUnavailableError, ModelError."""
        choice, model = choose(options.engine, options.model, options.precision, options.tile_yx)
        if options.precision == AUTO:
            choice = _as_before(choice, model, options.output)
        return cls(options, choice, model, split_workers(options.workers, options.tile_yx, options.limit_memory_bytes))

    def spec_for(self, shape_yx: tuple[int, int]) -> RunSpec:
        """The settings for a scan of ``shape_yx``; a whole-scan tile is rounded up to the model's multiple."""
        card = self.model.card
        multiple = card.size_multiple
        tile = self.options.tile_yx or tuple(ceil(side / multiple) * multiple for side in shape_yx)
        stride = self.options.stride_yx or tuple(max(1, side // 2) for side in tile)
        return RunSpec(
            tile_yx=(tile[0], tile[1]),
            stride_yx=(stride[0], stride[1]),
            window=self.options.window,
            engine=self.choice.backend,
            engine_version=self.choice.version,
            precision=self.choice.precision,
            batch=batch_for((tile[0], tile[1])),
            model=card.name,
            model_sha256=card.sha256,
            int8_sha256=card.int8_sha256 if self.choice.precision == "int8" else "",
            chroma_scale=card.chroma_scale,
            align=multiple if all(side % multiple == 0 for side in tile) else 1,
            anchor=self.options.anchor and card.chroma_scale != 0 and has_anchor(shape_yx, (tile[0], tile[1])),
            quality=self.options.quality,
        )

    @property
    def engine_spec(self) -> EngineSpec | None:
        """The engine of every scan; None where the tile, and with it the engine, depends on the scan."""
        return None if self.options.tile_yx is None else self._engine_spec(self.spec_for(self.options.tile_yx))

    def _anchor_spec(self, spec: RunSpec) -> EngineSpec | None:
        """The engine that takes a whole scan, shrunk; None where no palette is made.

        In float32 whatever the tiles are computed in: once a scan its speed does not count.
        """
        side = canvas_px(self.model.card.size_multiple)
        tiles = replace(self._engine_spec(spec), tile_yx=(side, side), batch=1, streams=1, precision="fp32")
        return tiles if spec.anchor else None

    def _engine_spec(self, spec: RunSpec) -> EngineSpec:
        return EngineSpec(
            backend=self.choice.backend,
            model_folder=str(self.model.folder),
            tile_yx=spec.tile_yx,
            batch=spec.batch,
            threads=self.workers.engine_threads,
            streams=self.workers.threads,
            precision=self.choice.precision,
        )

    def _reading(self, scan: ScanFile) -> Reading:
        return Reading(page=scan.page, salvage=self.options.salvage)

    def job(self, scan: ScanFile, scans: int = 1) -> Job | Outcome:
        """Read what the scan is and plan it, as one of ``scans``; a current result gives a skipped outcome.

        Raises
        ------
        ScanError : it cannot be read. UsageError : it cannot be done within the limits. OutputError : no room for it.
        """
        if not scan.path.exists():
            raise ScanNotFoundError(f"{scan.path}: no such file; check the name")
        if (there := self._unchanged(scan)) is not None:
            return there
        with open_scan(scan.path, self._reading(scan)) as reader:
            info, decoder_bytes = reader.info, reader.decoder_bytes
        source = self._source(scan)
        spec = self._spec_to_keep(scan, source, info.shape_yx) if source else self.spec_for(info.shape_yx)
        job = self.job_for(scan, info, source, spec, scans, decoder_bytes=decoder_bytes)
        return replace(job, is_kept=spec != self.spec_for(info.shape_yx)) if isinstance(job, Job) else job

    def _source(self, scan: ScanFile) -> Source | None:
        """None where nothing was made of a scan of this name: hashing all that is new takes a night's first hours."""
        paths = ResultPaths.of(self.options.output, scan.stem)
        if paths.sidecar.exists() or paths.store.exists():
            return self.files.source_of(scan.path, scan.page)
        return self.files.known(scan.path, scan.page)

    def _unchanged(self, scan: ScanFile) -> Outcome | None:
        """A scan whose file is as it was when its current result was made of it: it is not even opened."""
        source = None if self.options.force else self.files.known(scan.path, scan.page)
        told = read_sidecar(ResultPaths.of(self.options.output, scan.stem).sidecar) if source else None
        try:
            shape_yx = int(told["source"]["height_px"]), int(told["source"]["width_px"])  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None
        return self._there(scan, shape_yx, source, self._spec_to_keep(scan, source, shape_yx)) if source else None

    def _spec_to_keep(self, scan: ScanFile, source: Source, shape_yx: tuple[int, int]) -> RunSpec:
        paths = ResultPaths.of(self.options.output, scan.stem)
        return settings_to_keep(paths, source, self.spec_for(shape_yx), self.options)

    def _there(
        self, scan: ScanFile, shape_yx: tuple[int, int], source: Source, spec: RunSpec, is_exact: bool = False
    ) -> Outcome | None:
        """The outcome of a scan whose pictures are there, whole, for these bytes and settings."""
        options = self.options
        paths = ResultPaths.of(options.output, scan.stem)
        there = {} if options.force else whole_pictures(paths, source, spec, options.metadata, is_exact)
        if not set(options.formats) <= set(there):
            return None
        message = "already there for these bytes, model and settings; --force does it again"
        if is_other_choice(spec, self.spec_for(shape_yx), options):
            message = "already there, as reprocess made it; --force takes the settings of this run"
        picture, megapixels = str(paths.picture(options.formats[0])), shape_yx[0] * shape_yx[1] / 1e6
        return Outcome(scan.stem, str(scan.path), "skipped", message, megapixels, 0, picture, page=scan.page)

    def job_for(
        self,
        scan: ScanFile,
        info: ScanInfo,
        source: Source | None,
        spec: RunSpec,
        scans: int = 1,
        is_exact: bool = False,
        decoder_bytes: int = 0,
    ) -> Job | Outcome:
        """Plan a scan that is known already; ``is_exact`` as in :func:`pipeline.manifest.is_current`.

        ``decoder_bytes`` is what reading its file takes, 0 where that is not read.
        """
        options = self.options
        paths = ResultPaths.of(options.output, scan.stem)
        _check_places(scan, paths, options)
        there = self._there(scan, info.shape_yx, source, spec, is_exact) if source else None
        if there is not None:
            return there
        check_formats(options.formats, info.shape_yx, info.result_dtype)
        grid = grid_of(spec, info.shape_yx)
        begun_px = None if options.force or source is None else _begun_px(paths.store, source, spec)
        held = Held(extra_bytes(self._engine_spec(spec)), decoder_bytes, held_bytes(options.formats))
        limit_bytes = options.limit_memory_bytes
        plan = make_plan(
            info,
            grid,
            spec.batch,
            self.workers,
            limit_bytes,
            scans,
            begun_px,
            spec.anchor,
            held,
            len(options.formats),
        )
        _check_room(options.output, plan, paths.store)
        scale = 0.0 if self.model.card.chroma_scale == 0 else 1.0
        return Job(
            scan=scan,
            info=info,
            source=source,
            spec=spec,
            plan=plan,
            paths=paths,
            engine_spec=self._engine_spec(spec),
            anchor_spec=self._anchor_spec(spec),
            chroma_scale=scale,
            workers=self.workers,
            force=options.force,
            keep=max(1, options.keep),
            formats=options.formats,
            metadata=options.metadata,
            reading=self._reading(scan),
            files=self.files,
        )


def _check_places(scan: ScanFile, paths: ResultPaths, options: RunOptions) -> None:
    """Nothing of anybody else's is to be replaced. Raises UsageError."""
    store = paths.store
    if store.exists() and not is_store(store):
        what = "the scan itself" if scan.path.exists() and store.samefile(scan.path) else "not this project's"
        raise UsageError(f"{store}: is {what}, and the store would take its place; give another --output")
    # Beside a store of the scan lie results of the scan, also those whose JSON was deleted.
    taken = None if options.force or store.exists() else in_the_way(paths, options.formats)
    if taken is not None:
        raise UsageError(
            f"{taken}: is there without a JSON that says what it is, and would be replaced; move it away, "
            "give another --output, or --force"
        )


def _as_before(choice: Choice, model: Model, output: Path) -> Choice:
    """The precision of the last run into this folder, where it can be had: another would make every scan anew."""
    records = sorted(output.glob("runs/*.json"))
    try:
        last = json.loads(records[-1].read_text(encoding="utf-8"))
        backend, precision, sha256 = (last[name] for name in ("backend", "precision", "model_sha256"))
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return choice
    same = (backend, sha256) == (choice.backend, model.card.sha256)
    if not same or precision == choice.precision or precision not in precisions_of(backend, model):
        return choice
    return replace(choice, precision=precision, reason=f"{choice.reason}; {precision} as in the last run into {output}")


def grid_of(spec: RunSpec, shape_yx: tuple[int, int]) -> TileGrid:
    """The tiles of a scan under these settings; the coarsest of them where they ask for a quality."""
    return TileGrid.of(shape_yx, spec.tile_yx, spec.stride_yx, spec.align)


def _begun_px(store: Path, source: Source, spec: RunSpec) -> int | None:
    """Block size of the version that an earlier run began for the same bytes and settings, if one did."""
    try:
        opened = ScanStore.open(store)
    except StoreError:
        return None
    begun = opened.find_version(spec.version)
    return begun.block_px if begun is not None and opened.source.sha256 == source.sha256 else None


def prepare_output(output: Path) -> None:
    """Make the output folder and see that it can be written. Raises OutputError."""
    probe = output / ".colorize-archive.part"
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, output) from error


def _check_room(output: Path, plan: Plan, store: Path) -> None:
    existing = next(p for p in (output, *output.parents) if p.exists())
    free = shutil.disk_usage(existing).free + sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    # Stores and results compress to well below the projection; a third is the least that was seen.
    if free < plan.disk_bytes / 3:
        raise OutputError(
            f"{output}: {free / 2**20:.0f} MiB free, about {plan.disk_bytes / 2**20:.0f} MiB needed: the disk would "
            "fill up half-way; free space or choose another --output"
        )
