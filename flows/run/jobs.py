"""One scan of a run: its job, planned before any work begins, or at once its outcome."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

from engines.machine import memory_bytes
from engines.palette import PALETTE_BYTES, palette_spec
from engines.registry import extra_bytes, precisions_of
from engines.select import EngineChoice, choose, choose_palette
from engines.spec import AUTO, PALETTE, EngineSpec, Model
from flows.catalogue.recorder import ScanFiles
from flows.events import warn
from flows.inputs import ScanFile
from flows.options import RunOptions
from flows.outcome import ScanOutcome
from flows.resources import split_workers
from flows.run.hint_files import Asked, NamesIn, Places, TakenHints, take_hints
from flows.run.palette_copies import PaletteCopy, needed_copy, was_refused
from flows.run.policy_gate import Terms, forbidden, let_out, outcome_of
from flows.run.reuse_policy import is_other_choice, settings_to_reuse
from flows.run.series import Series
from pipeline.errors import HintError, OutputError, ScanNotFoundError, ScanUnsupportedError, StoreError, UsageError
from pipeline.formats import check_formats, held_bytes
from pipeline.metadata.provenance import is_of_result
from pipeline.planning.plan import LibraryMemory, Plan, Workers, batch_for, make_plan
from pipeline.readers import open_scan
from pipeline.results.policy import Policy, Subject, terms_of
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import (
    IsThere,
    ReadSidecar,
    ResultPaths,
    find_conflict,
    has_recorded_size,
    valid_pictures,
)
from pipeline.store import ScanStore, Source, is_store
from pipeline.support.files import output_error, read_text
from pipeline.tiling.anchor import canvas_px, has_anchor
from pipeline.tiling.grid import TileGrid
from pipeline.types import ReadOptions, ScanInfo

IDENTITY = "identity"  # the engine of no network
GRADE = "grade"  # what a run is called that asks none


@dataclass(frozen=True)
class ScanJob:
    """A scan that will be coloured: source, settings, plan, and where the results go.

    ``source`` is None where the file is to be hashed just before it is ingested, by ``files``. Where ``is_ingested``,
    the samples come from the store and the scan file is not looked for again. ``formats`` are those that the picture is
    to be there in, ``metadata`` whether it carries what the scan says beside its pixels. Without an ``engine_spec``
    nothing is predicted: the colours are made from those of another version, or are there. Where it ``is_kept``, the
    colours are there, of other settings, engines or models than this run's, which must make none of them. ``copy`` is
    the coloured copy that gives the palette, where one does, and ``without_copy`` what is done instead where it is
    refused and that is no failure; ``series`` are the scans that it is made with. ``terms``
    are the scan's keywords and catalogue numbers, by which a policy knows it; None where they are not known.
    """

    scan: ScanFile
    info: ScanInfo
    source: Source | None
    spec: RunSpec
    plan: Plan
    paths: ResultPaths
    engine_spec: EngineSpec | None
    anchor_spec: EngineSpec | None
    chroma_scale: float
    takes_palette: bool
    workers: Workers
    force: bool
    keep: int
    formats: tuple[str, ...] = ("tiff",)
    metadata: bool = True
    reading: ReadOptions = field(default_factory=ReadOptions)
    files: ScanFiles = field(default_factory=ScanFiles, compare=False, repr=False)
    is_ingested: bool = False
    is_kept: bool = False
    copy: PaletteCopy | None = None
    without_copy: ScanJob | ScanOutcome | None = None
    hints: TakenHints | None = None
    terms: Terms | None = field(default=None, compare=False, repr=False)
    series: Series | None = None

    @property
    def output(self) -> Path:
        """The folder of all results."""
        return self.paths.store.parents[len(Path(self.scan.stem).parts) - 1]

    @cached_property
    def grid(self) -> TileGrid:
        return grid_of(self.spec, self.info.shape_yx)


def _check_palette_network(model: Model) -> None:
    """Raises UsageError where the model needs a palette that nothing makes."""
    card = model.card
    if card.takes_palette and card.palette is None:
        raise UsageError(
            f"model {card.name}: takes a palette and has no network that makes one: its tiles would stay gray; "
            "join it with a palette network first (colorize-archive train palette)",
            "model",
        )


def _check_anchor(model: Model, options: RunOptions) -> None:
    """Raises UsageError where the model needs the palette that is to be left out."""
    if model.card.takes_palette and not options.anchor:
        raise UsageError(
            f"--no-anchor: model {model.card.name} colours tiles by the palette of the whole scan and can do nothing "
            "without; leave it out, or give another --model",
            "anchor",
        )


def _check_copies(model: Model, options: RunOptions) -> None:
    """Raises UsageError where the model can do nothing with the palette of a coloured copy."""
    if options.palette_from is not None and not model.card.takes_palette:
        raise UsageError(
            f"--palette-from: model {model.card.name} takes no palette, the copies would change nothing; leave "
            "it out, or give another --model, such as default",
            "palette-from",
        )


def _check_series(model: Model, options: RunOptions) -> None:
    """Raises UsageError where the model has no palettes that could be joined."""
    if options.series is not None and model.card.palette is None:
        raise UsageError(
            f"--series: model {model.card.name} has no palette network, there would be nothing to join; leave it out, "
            "or give another --model, such as default",
            "series",
        )


def _check_taste(model: Model, options: RunOptions, copy: PaletteCopy | None) -> None:
    """Raises UsageError where there are no possible colours to choose from, or none is known to be a guess."""
    palette = model.card.palette
    asked = {"vivid": bool(options.vivid), "cautious": options.cautious, "answer": options.answer > 1}
    option = next((name for name, is_asked in asked.items() if is_asked), None)
    if copy is not None and option:
        raise UsageError(
            f"--{option}: the coloured copy {copy.path.name} knows only one colour of each place; leave it out, or run "
            "without --palette-from",
            option,
        )
    if palette is None and option:
        raise UsageError(
            f"--{option}: model {model.card.name} has no palette network and knows only one colour of each place; "
            "leave it out, or give another --model",
            option,
        )
    if palette is not None and options.cautious and not palette.has_doubt:
        raise UsageError(
            f"--cautious: model {model.card.name} was calibrated on no photographs and cannot tell a guess: nothing "
            "would fade; leave it out, or train its palette on more photographs",
            "cautious",
        )


@dataclass(frozen=True)
class RunContext:
    """Engine and model of a run, chosen once, and the options.

    ``palette`` is where the palette network computes; None without one, also where all palettes are those of coloured
    copies. ``copy`` and ``series`` are those of the one scan that the context is for. Where the options have a grade,
    engine and model are those of no network, and none is opened. ``policy`` is that of the output folder. ``is_there``
    says whether the picture of a sidecar is there, which is elsewhere if the results are; ``hints_in`` says which files
    with hints lie in a folder.
    """

    options: RunOptions
    choice: EngineChoice
    model: Model
    workers: Workers
    palette: EngineChoice | None = None
    files: ScanFiles = field(default_factory=ScanFiles, compare=False, repr=False)
    copy: PaletteCopy | None = None
    hints: TakenHints | None = None
    policy: Policy = field(default_factory=Policy)
    series: Series | None = None
    is_there: IsThere = field(default=has_recorded_size, compare=False, repr=False)
    hints_in: NamesIn = field(default=Asked, compare=False, repr=False)

    @classmethod
    def of(cls, options: RunOptions) -> RunContext:
        """Choose engine and model. Raises EngineUnavailableError, ModelError."""
        if options.grade is not None:
            workers = split_workers(options.workers, options.tile_yx, options.limit_memory_bytes)
            return cls(options, *choose(IDENTITY), workers, policy=Policy.read(options.output))
        policy = Policy.read(options.output)  # a mistake in it is told before models are loaded
        choice, model = choose(options.engine, options.model, options.precision, options.tile_yx)
        _check_copies(model, options)
        _check_series(model, options)
        has_network = model.card.palette is not None
        if options.palette_from is None or options.lenient:
            _check_palette_network(model)
        else:
            has_network = False
        palette = choose_palette(model, choice.backend, options.precision) if has_network else None
        if options.precision == AUTO:
            choice = as_before(choice, model, options.output)
            palette = palette and as_before(palette, model.as_network(PALETTE), options.output, f"{PALETTE}_")
        workers = split_workers(options.workers, options.tile_yx, options.limit_memory_bytes)
        return cls(options, choice, model, workers, palette, policy=policy)

    @property
    def engines(self) -> str:
        """What computes tiles and palette, in words."""
        if self.options.grade is not None:
            return f"no network: colours of the store ({self.options.grade})"
        if self.options.palette_from is not None:
            return f"{self.choice}; palettes from the coloured copies in {self.options.palette_from}"
        if self.palette is None:
            return str(self.choice)
        elsewhere = "" if self.palette.backend == self.choice.backend else f" by {self.palette.backend}"
        return f"{self.choice}; palette in {self.palette.precision}{elsewhere}"

    @property
    def engines_in_brief(self) -> str:
        """The same without versions and reasons."""
        if self.options.grade is not None:
            return self.engines
        return f"engine {self.choice.backend} {self.choice.precision}"

    @property
    def model_name(self) -> str:
        """Empty where no network is asked."""
        return "" if self.options.grade is not None else self.model.card.name

    @cached_property
    def _specs(self) -> dict[tuple[int, int], RunSpec]:
        """The settings by the shape of a scan, once they were asked for."""
        return {}

    def spec_for(self, shape_yx: tuple[int, int]) -> RunSpec:
        """The settings for a scan of ``shape_yx``; a whole-scan tile is rounded up to the model's multiple."""
        if shape_yx not in self._specs:
            self._specs[shape_yx] = self._made_spec(shape_yx)
        return self._specs[shape_yx]

    def _made_spec(self, shape_yx: tuple[int, int]) -> RunSpec:
        _check_anchor(self.model, self.options)
        _check_taste(self.model, self.options, self.copy)
        network = self.palette if self.copy is None else None
        card = self.model.card
        multiple = card.size_multiple
        tile = self.options.tile_yx or tuple(ceil(side / multiple) * multiple for side in shape_yx)
        # Where a palette holds tiles together they need little overlap: tests.benchmarks.default_grid.
        share = 7 / 8 if card.takes_palette else 1 / 2
        stride = self.options.stride_yx or tuple(max(1, int(side * share)) for side in tile)
        spec = RunSpec(
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
            anchor=card.takes_palette
            or (self.options.anchor and card.chroma_scale != 0 and has_anchor(shape_yx, (tile[0], tile[1]))),
            quality=self.options.quality,
            vivid=self.options.vivid,
            cautious=self.options.cautious,
            answer=self.options.answer,
            palette_sha256=card.palette.network_sha256 if card.palette and self.copy is None else "",
            palette_engine=network.backend if network else "",
            palette_precision=network.precision if network else "",
            palette_copy_sha256=self.copy.sha256 if self.copy else "",
            series_sha256=self.series.sha256 if self.series and network else "",
        )
        return spec.with_hints(self.hints.sha256) if self.hints else spec

    @property
    def engine_spec(self) -> EngineSpec | None:
        """The engine of every scan; None where there is none, or where the tile, and so the engine, is the scan's."""
        if self.options.tile_yx is None or self.options.grade is not None:
            return None
        return self._engine_spec(self.spec_for(self.options.tile_yx))

    def _anchor_spec(self, spec: RunSpec) -> EngineSpec | None:
        """The engine that takes a whole scan, shrunk; None where no palette is made.

        A palette network where the model has one. The generator does it in float32 whatever the tiles are computed in:
        once a scan its speed does not count.
        """
        if spec.palette_copy_sha256:
            return None
        if self.palette is not None:
            threads = self.workers.engine_threads * self.workers.threads
            return palette_spec(self.model, threads, self.palette.backend, self.palette.precision)
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

    def _reading(self, scan: ScanFile) -> ReadOptions:
        return ReadOptions(page=scan.page, salvage=self.options.salvage)

    def job(self, scan: ScanFile, scans: int = 1) -> ScanJob | ScanOutcome:
        """As :meth:`_job`, with the scan's coloured copy where palettes are those of copies."""
        if not scan.path.exists():
            raise ScanNotFoundError(f"{scan.path}: no such file; check the name")
        if (stopped := forbidden(self.policy, scan)) is not None:
            return stopped
        if (folder := self.options.palette_from) is None:
            return self._job(scan, scans)
        copy = needed_copy(folder, scan, self.files, self.options.lenient)
        if copy is None or not self.options.lenient:
            return replace(self, copy=copy)._job(scan, scans)
        store = ResultPaths.of(self.options.output, scan.stem).store
        if was_refused(store, copy) and not self.options.force:
            return replace(self, copy=None)._job(scan, scans)
        job = replace(self, copy=copy)._job(scan, scans)
        alone = replace(self, copy=None)._job(scan, scans) if isinstance(job, ScanJob) and job.copy else None
        return replace(job, without_copy=alone) if isinstance(job, ScanJob) else job

    def _job(self, scan: ScanFile, scans: int) -> ScanJob | ScanOutcome:
        """Read what the scan is and plan it, as one of ``scans``; a current result gives a skipped outcome.

        Raises
        ------
        ScanError : the scan cannot be read. UsageError : it does not fit the limits. OutputError : no room for it.
        """
        if (there := self.unchanged(scan)) is not None:
            return there
        with open_scan(scan.path, self._reading(scan)) as reader:
            info, decoder_bytes = reader.info, reader.decoder_bytes
            terms = terms_of(reader.embedded)
            if (stopped := forbidden(self.policy, scan, terms)) is not None:
                return stopped
            if not self.options.force and is_of_result(reader.embedded.xmp):
                raise ScanUnsupportedError(
                    f"{scan.path}: was coloured by this project, as its XMP says, and would be coloured a second time; "
                    "give the scan that it was made from, or --force"
                )
        source, ready = self._source(scan), self.with_hints(scan, info.shape_yx)
        wanted = ready.spec_for(info.shape_yx)
        spec = ready._spec_to_keep(scan, source, info.shape_yx) if source else wanted
        job = ready.job_for(scan, info, source, spec, scans, decoder_bytes=decoder_bytes, terms=terms)
        is_kept = spec.predicted != wanted.predicted or spec.grade is not None
        return replace(job, is_kept=is_kept) if isinstance(job, ScanJob) else job

    def with_hints(self, scan: ScanFile, shape_yx: tuple[int, int], is_told: bool = True) -> RunContext:
        """The context with the hints of a scan of this size; ``is_told`` whether they are warned of if left out.

        Raises
        ------
        HintError : something is wrong with them, and that is not lenient
        """
        try:
            places = Places(self.options.output, self.options.hints, self.hints_in)
            hints, lines = take_hints(places, scan, shape_yx, self.series)
        except HintError as error:
            if not self.options.lenient:
                raise
            if is_told:
                warn(f"{error}; coloured without hints")
            hints, lines = None, []
        for line in lines if is_told else ():
            warn(line)
        return replace(self, hints=hints)

    def _source(self, scan: ScanFile) -> Source | None:
        """None if there is no earlier result of this name: hashing all new scans first would take hours."""
        paths = ResultPaths.of(self.options.output, scan.stem)
        if paths.sidecar.exists() or paths.store.exists():
            return self.files.source_of(scan.path, scan.page)
        return self.files.known(scan.path, scan.page)

    def unchanged(self, scan: ScanFile, read: ReadSidecar = Sidecar.find) -> ScanOutcome | None:
        """The outcome of a scan whose file has not changed since its current result: the file is not even opened.

        ``read`` reads sidecars.
        """
        source = None if self.options.force else self.files.known(scan.path, scan.page)
        sidecar = read(ResultPaths.of(self.options.output, scan.stem).sidecar) if source else None
        if source is None or sidecar is None or sidecar.whole_source is None:
            return None
        shape_yx, subject = sidecar.whole_source.shape_yx, Subject.of_sidecar(sidecar, scan.stem)
        if self.policy.needs_terms and None in (subject.keywords, subject.numbers):
            return None  # a result of an earlier release; the scan file says them
        if rule := self.policy.forbidding(subject):
            return outcome_of(rule, scan, self.policy)
        ready = self.with_hints(scan, shape_yx, is_told=False)
        return ready._there(scan, shape_yx, source, ready._spec_to_keep(scan, source, shape_yx, read), read=read)

    def _spec_to_keep(
        self, scan: ScanFile, source: Source, shape_yx: tuple[int, int], read: ReadSidecar = Sidecar.find
    ) -> RunSpec:
        paths = ResultPaths.of(self.options.output, scan.stem)
        kept = settings_to_reuse(paths, source, self.spec_for(shape_yx), self.options, read)
        # Other colours that were kept get the hints of today, too.
        is_other = self.hints is not None and kept.hints_sha256 != self.hints.sha256
        return kept.with_hints(self.hints.sha256) if self.hints is not None and is_other else kept

    def _there(
        self,
        scan: ScanFile,
        shape_yx: tuple[int, int],
        source: Source,
        spec: RunSpec,
        is_exact: bool = False,
        read: ReadSidecar = Sidecar.find,
    ) -> ScanOutcome | None:
        """The outcome of a scan whose pictures are there, whole, for these bytes and settings."""
        options = self.options
        paths = ResultPaths.of(options.output, scan.stem)
        there = (
            {}
            if options.force
            else valid_pictures(paths, source, spec, options.metadata, is_exact, read, self.is_there)
        )
        if not set(options.formats) <= set(there):
            return None
        message = "already there for these bytes, model and settings; --force does it again"
        if is_other_choice(spec, self.spec_for(shape_yx), options):
            message = "already there, as reprocess made it; --force takes the settings of this run"
        picture, megapixels = str(paths.picture(options.formats[0])), shape_yx[0] * shape_yx[1] / 1e6
        return ScanOutcome(scan.stem, str(scan.path), "skipped", message, megapixels, 0, picture, page=scan.page)

    def job_for(
        self,
        scan: ScanFile,
        info: ScanInfo,
        source: Source | None,
        spec: RunSpec,
        scans: int = 1,
        is_exact: bool = False,
        decoder_bytes: int = 0,
        terms: Terms | None = None,
    ) -> ScanJob | ScanOutcome:
        """Plan a scan that is known already; ``is_exact`` as in :func:`pipeline.results.versions.valid_pictures`.

        ``decoder_bytes`` is what reading its file takes, 0 where that is not read; ``terms`` are those of the job.
        """
        options = let_out(self.options, self.policy, scan, spec.version, source.sha256 if source else None, terms)
        if options is None:
            message = "its colours may not go out, and no other format is asked for"
            return ScanOutcome(
                scan.stem, str(scan.path), "skipped", message, info.megapixels, failure_kind="policy", page=scan.page
            )
        if options != self.options:
            return replace(self, options=options).job_for(
                scan, info, source, spec, scans, is_exact=is_exact, decoder_bytes=decoder_bytes, terms=terms
            )
        paths = ResultPaths.of(options.output, scan.stem)
        _check_places(scan, paths, options)
        there = self._there(scan, info.shape_yx, source, spec, is_exact) if source else None
        if there is not None:
            return there
        check_formats(options.formats, info.shape_yx, info.result_dtype)
        grid = grid_of(spec, info.shape_yx)
        begun_px = None if options.force or source is None else _begun_px(paths.store, source, spec.version)
        for before in (spec.graded_from, spec.hints_from):
            begun_px = begun_px or (_begun_px(paths.store, source, before) if source and before else None)
        is_graded = options.grade is not None
        # To find a copy on its scan takes less than a palette network.
        palette_bytes = PALETTE_BYTES if self.model.card.palette or self.copy else 0
        engine_bytes = 0 if is_graded else extra_bytes(self._engine_spec(spec))
        held = LibraryMemory(engine_bytes, decoder_bytes, held_bytes(options.formats), palette_bytes)
        limit_bytes = options.limit_memory_bytes
        plan = make_plan(
            info,
            grid,
            spec.batch,
            self.workers,
            limit_bytes,
            scans,
            begun_px,
            spec.anchor and not is_graded,
            held,
            len(options.formats),
            memory_bytes(),
        )
        _check_room(options.output, plan, paths.store)
        scale = 0.0 if self.model.card.chroma_scale == 0 and not is_graded else 1.0
        return ScanJob(
            scan=scan,
            info=info,
            source=source,
            spec=spec,
            plan=plan,
            paths=paths,
            engine_spec=None if is_graded else self._engine_spec(spec),
            anchor_spec=None if is_graded else self._anchor_spec(spec),
            chroma_scale=scale,
            takes_palette=self.model.card.takes_palette,
            workers=self.workers,
            force=options.force,
            keep=max(1, options.keep),
            formats=options.formats,
            metadata=options.metadata,
            reading=self._reading(scan),
            files=self.files,
            copy=self.copy if spec.palette_copy_sha256 else None,
            hints=self.hints if spec.is_hinted else None,
            terms=terms,
            series=self.series if spec.series_sha256 else None,
        )


def _check_places(scan: ScanFile, paths: ResultPaths, options: RunOptions) -> None:
    """Raise UsageError if the results would replace foreign files."""
    store = paths.store
    if store.exists() and not is_store(store):
        what = "the scan itself" if scan.path.exists() and store.samefile(scan.path) else "not this project's"
        raise UsageError(f"{store}: is {what}, and the store would take its place; give another --output")
    # Beside a store of the scan lie results of the scan, also those whose JSON was deleted.
    taken = None if options.force or store.exists() else find_conflict(paths, options.formats)
    if taken is not None:
        raise UsageError(
            f"{taken}: is there without a JSON that says what it is, and would be replaced; move it away, "
            "give another --output, or --force"
        )


def last_record(output: Path) -> Mapping[str, Any]:
    """The record of the last run into this folder that could ask a network; empty if there is none."""
    try:
        records = (json.loads(read_text(path)) for path in sorted(output.glob("runs/*.json"), reverse=True))
        return next((record for record in records if record.get("kind") != GRADE), {})
    except (OSError, ValueError, AttributeError):
        return {}


def as_before(choice: EngineChoice, model: Model, output: Path, network: str = "") -> EngineChoice:
    """The precision of the last run into this folder, where it can be had: another would make every scan anew.

    ``network`` is the prefix of the record's keys for a network other than the generator.
    """
    try:
        last = last_record(output)
        backend, precision, sha256 = (last[network + name] for name in ("backend", "precision", "model_sha256"))
    except (KeyError, TypeError):
        return choice
    same = (backend, sha256) == (choice.backend, model.card.sha256)
    if not same or precision == choice.precision or precision not in precisions_of(backend, model):
        return choice
    return replace(choice, precision=precision, reason=f"{choice.reason}; {precision} as in the last run into {output}")


def grid_of(spec: RunSpec, shape_yx: tuple[int, int]) -> TileGrid:
    """The tiles of a scan under these settings; the coarsest of them where they ask for a quality."""
    return TileGrid.of(shape_yx, spec.tile_yx, spec.stride_yx, spec.align)


def _begun_px(store: Path, source: Source, version: str) -> int | None:
    """Block size of the version that an earlier run began for the same bytes, if one did."""
    try:
        opened = ScanStore.open(store)
    except StoreError:
        return None
    begun = opened.find_version(version)
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
    # Stores and results compress to well below the projection; a quarter is the least that was seen.
    if free < plan.disk_bytes / 4:
        raise OutputError(
            f"{output}: {free / 2**20:.0f} MiB free, about {plan.disk_bytes / 2**20:.0f} MiB needed: the disk would "
            "fill up half-way; free space or choose another --output"
        )
