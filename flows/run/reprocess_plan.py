"""Which stores of an output folder get a new version, and with which settings.

What is not asked for stays as it is in each scan's current version. Where a version with twice the new stride is there,
its tiles are not predicted again. Where a grade is asked for, nothing is predicted at all: it begins with the colours
that were, also where the current ones are graded already, so that a second grade takes the place of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from engines.spec import ModelCard, find_model, shipped_models
from flows.events import Message, tell, warn
from flows.inputs import STORE_ENDINGS, ScanFile, check_locale, is_result
from flows.options import RunOptions, parse_options, parse_size
from flows.outcome import ScanOutcome
from flows.request import GRADE_OPTIONS, REGION_OPTIONS, ReprocessRequest, RunRequest
from flows.run.jobs import RunContext, ScanJob
from flows.run.palette_copies import copy_of, needed_copy
from flows.run.planning import failure, fitting
from flows.run.policy_gate import forbidden, terms_of_store
from flows.run.series import series_in
from pipeline.colour.grading import Grade, LocalGrade
from pipeline.colour.regions import Region
from pipeline.errors import StoreError, UsageError
from pipeline.results.policy import Policy
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar, pictures_of, version_of
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.files import walk
from pipeline.tiling.anchor import has_anchor

# Halving the stride leaves a quarter of the tiles known. For a sixteenth, other bytes would be too high a price.
_REUSE_FACTOR = 2
# What a network has to be asked for.
_OF_NETWORKS = (
    *("tile", "stride", "window", "anchor", "quality", "vivid", "cautious", "answer", "palette_from", "model"),
    *("engine", "precision"),
)


def find_stores(output: Path, patterns: list[str]) -> list[ScanFile]:
    """The stores below ``output`` that match any of ``patterns``; all stores if there are no patterns.

    A pattern is a name without ending (``albums/1910-4``), a glob (``albums/1910*``) or a folder (``albums/``).

    Raises
    ------
    UsageError : no store is there, or none matches.
    """
    check_locale()
    found = sorted(store_stems(output))
    chosen = [stem for stem in found if not patterns or any(chooses(p, stem) for p in patterns)]
    if not found:
        raise UsageError(f"{output}: no NAME.zarr in this folder; give the --output folder of an earlier run")
    if not chosen:
        raise UsageError(f"{' '.join(patterns)}: none of the {len(found)} scans in {output} has such a name; check it")
    return [ScanFile(output / f"{stem}.zarr", stem) for stem in chosen]


def chooses(pattern: str, stem: str) -> bool:
    """True if ``pattern`` (a name without ending, a glob or a folder) matches the scan called ``stem``.

    >>> chooses("albums/", "albums/1910"), chooses("plate [1]", "plate [1]"), chooses("plate*", "plate [1]")
    (True, True, True)
    """
    if pattern.endswith("/"):
        return stem.startswith(pattern)
    return pattern == stem or fnmatchcase(stem, pattern)


def worse_than(score: float, stores: list[ScanFile], output: Path) -> list[ScanFile]:
    """The stores whose current seam score is above ``score``; scans too small to have a seam score are left out."""

    def seam(found: ScanFile) -> float:
        sidecar = Sidecar.find(ResultPaths.of(output, found.stem).sidecar)
        figures = sidecar.figures if sidecar else None
        return (figures.seam if figures else None) or 0.0

    chosen = [found for found in stores if seam(found) > score]
    tell(Message(f"{len(chosen)} of {len(stores)} scans have a seam score above {score:g}"))
    return chosen


def parse_worse_than(value: str | float | None) -> float | None:
    """Parse a seam score such as 1.05; None means not to select by it. Raises UsageError."""
    if value is None:
        return None
    try:
        score = float(value)
    except ValueError:
        score = 0.0
    if not 1.0 <= score < 100:
        raise UsageError(
            f"worse-than {value!r} is not a seam score, nothing could be chosen by it; give one like 1.05", "worse-than"
        )
    return score


def store_stems(output: Path) -> Iterator[str]:
    """The names of all scans that have a store below ``output``, in no order."""
    for parent, names, _ in walk(output):
        for name in [name for name in names if name.endswith(STORE_ENDINGS)]:
            names.remove(name)
            if name.endswith(".zarr") and not is_result(Path(name)):
                yield Path(parent, name).relative_to(output).as_posix().removesuffix(".zarr")


def _version_now(store: ScanStore, paths: ResultPaths) -> tuple[str, RunSpec]:
    """Name and settings of the current version, or of the newest. Raises StoreError where there is none."""
    names = store.version_names()
    current = version_of(paths.sidecar)
    name = current if current in names else next(reversed(names), None)
    if name is None:
        raise StoreError(f"{store.path}: has no colours yet to make a new version of; use colorize-archive run")
    return name, _settings_of(store, name)


def _settings_of(store: ScanStore, name: str) -> RunSpec:
    try:
        return RunSpec.from_json(store.version(name).settings)
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(f"{store.path}: version {name} is of another release; use colorize-archive run") from error


def _model_name(spec: RunSpec) -> str:
    """The name of the version's model, which must be a shipped one: only those are found by name. Raises UsageError."""
    if spec.engine == "identity":
        return "default"
    if spec.model in shipped_models():
        return spec.model
    raise UsageError(f"model {spec.model!r} is not a shipped one: where it lies is not known; give --model FOLDER")


def _changed(spec: RunSpec, request: ReprocessRequest, options: RunOptions, shape_yx: tuple[int, int]) -> RunOptions:
    """``options``, with every setting that the request leaves alone taken from ``spec``."""
    tile_yx = spec.tile_yx if request.tile is None else options.tile_yx
    stride_yx = options.stride_yx
    if request.stride is None and request.tile is None:
        stride_yx = spec.stride_yx
    model = _model_name(spec) if request.model is None else options.model
    must_have = request.anchor is None and options.engine != "identity" and _card(model).takes_palette
    return replace(
        options,
        tile_yx=tile_yx,
        stride_yx=stride_yx,
        window=spec.window if request.window is None else options.window,
        # A model that takes a palette always gets one, even if the previous version had none.
        anchor=must_have or _anchor(spec, request, options, shape_yx),
        quality=_quality(spec, request, options),
        model=model,
        **_taste(spec, request, options, model),
    )


def _taste(spec: RunSpec, request: ReprocessRequest, options: RunOptions, model: str) -> dict[str, Any]:
    """Which of the possible colours: as requested, else as before, as far as the model's palette network can."""
    is_copied = options.palette_from is not None and not options.lenient
    palette = None if is_copied or options.engine == "identity" else _card(model).palette
    vivid = spec.vivid if palette else 0.0
    cautious = spec.cautious and palette is not None and palette.has_doubt
    return {
        "vivid": vivid if request.vivid is None else options.vivid,
        "cautious": cautious if request.cautious is None else options.cautious,
        "answer": (spec.answer if palette else 1) if request.answer is None else options.answer,
    }


@cache
def _card(model: str) -> ModelCard:
    """The model's card, read once per command and not once per scan. Raises ModelError."""
    return find_model(model).card


def _written_as_before(paths: ResultPaths, request: ReprocessRequest, options: RunOptions) -> RunOptions:
    """``options``, with formats and metadata as in the current result unless the request gives them."""
    pictures = pictures_of(paths.sidecar)
    carries = all(each.carries_metadata is not False for each in pictures.values())
    return replace(
        options,
        formats=tuple(pictures) or options.formats if request.formats is None else options.formats,
        metadata=carries if request.metadata is None else options.metadata,
    )


def _anchor(spec: RunSpec, request: ReprocessRequest, options: RunOptions, shape_yx: tuple[int, int]) -> bool:
    """True to use a palette. One left out only because a tile covered the whole scan does not count as refused."""
    could_have = has_anchor(shape_yx, spec.tile_yx)
    return spec.anchor if request.anchor is None and could_have else options.anchor


def _quality(spec: RunSpec, request: ReprocessRequest, options: RunOptions) -> float:
    """The quality to use. A request with a stride and no quality resets an earlier quality."""
    if request.quality is not None:
        return options.quality
    return spec.quality if request.stride is None else 0.0


def reusable(store: ScanStore, spec: RunSpec) -> str:
    """Name of a complete version with twice the stride whose tiles ``spec`` can reuse, or an empty string."""
    if spec.quality:
        return ""  # its coarsest tiles are few
    double = (spec.stride_yx[0] * _REUSE_FACTOR, spec.stride_yx[1] * _REUSE_FACTOR)
    wanted = replace(spec, stride_yx=double).version
    version = store.find_version(wanted)
    return wanted if version is not None and version.is_complete else ""


@cache
def _prepared(options: RunOptions) -> RunContext:
    return RunContext.of(options)


def plan_stores(stores: list[ScanFile], request: ReprocessRequest, options: RunOptions) -> list[ScanJob | ScanOutcome]:
    """A job, or at once an outcome, for every store."""
    # Read for each plan: a service's process, which keeps the prepared context, may outlive a policy.
    workers, policy = _prepared(options).workers, Policy.read(options.output)
    if (score := parse_worse_than(request.worse_than)) is not None:
        stores = worse_than(score, stores, options.output)

    def plan(found: ScanFile) -> ScanJob | ScanOutcome:
        store = ScanStore.open(found.path)
        paths = ResultPaths.of(options.output, found.stem)
        scan = ScanFile(Path(store.source.path or found.path), found.stem, store.source.page)
        terms = terms_of_store(store, Sidecar.find(paths.sidecar))
        if (stopped := forbidden(policy, scan, terms, unknown=True)) is not None:
            return stopped
        # One cluster runs all scans: the plan refuses a tile that needs more memory than a worker's share.
        shape_yx = store.info.shape_yx
        name, now = _version_now(store, paths)
        grade = _grade(now, request, options, shape_yx)
        if options.grade is None and grade is not None and _are_other_hints(store, options, scan, shape_yx, now):
            grade = None
        changed = replace(options, grade=grade) if grade else _changed(now, request, options, shape_yx)
        context = replace(_prepared(_written_as_before(paths, request, changed)), workers=workers, policy=policy)
        if grade is None and options.palette_from is not None:
            context = replace(context, copy=needed_copy(options.palette_from, scan, context.files, options.lenient))
        elif grade is None and context.model.card.takes_palette:
            series = series_in(store, now.series_sha256)
            context = replace(context, copy=copy_of(store, now.palette_copy_sha256), series=series)
        again: RunSpec | None = None
        if grade is not None:
            spec = _graded(store, now, name, grade)
            if spec == now and grade.is_identity and request.formats is None and request.metadata is None:
                return _unchanged(scan, store, paths, context.options.formats[0])
        else:
            context = context.with_hints(scan, shape_yx)
            again = _with_hints_again(store, name, now, request, context)
            spec = again or _predicted_anew(store, request, context)
            if now.grade is not None:
                warn(f"{found.stem}: other settings are other colours, so its grade ({now.grade}) ends; give it again")
        exact = not request.reuse
        job = context.job_for(scan, store.info, store.source, spec, len(stores), is_exact=exact, terms=terms)
        # A grade that changes nothing is the colours that were, which are there; so are those that hints correct.
        is_kept = again is not None or (grade is not None and spec.grade is None)
        if isinstance(job, ScanJob):
            job = replace(job, is_ingested=True, is_kept=is_kept, force=job.force and not is_kept)
        if isinstance(job, ScanJob) and job.copy is not None and options.palette_from is not None and options.lenient:
            lone = replace(context, copy=None)
            predicted = _predicted_anew(store, request, lone)
            alone = lone.job_for(scan, store.info, store.source, predicted, len(stores), is_exact=exact, terms=terms)
            job = replace(job, without_copy=replace(alone, is_ingested=True) if isinstance(alone, ScanJob) else alone)
        return fitting(job)

    planned: list[ScanJob | ScanOutcome] = []
    for found in stores:
        try:
            planned.append(plan(found))
        except Exception as error:
            # Never the scan's fault: its file, which only `run` reads, was not read here.
            planned.append(replace(failure(_scan_of(found, options.output), error), is_scans_fault=False))
    return planned


def _grade(now: RunSpec, request: ReprocessRequest, options: RunOptions, shape_yx: tuple[int, int]) -> Grade | None:
    """The grade that a scan of this size gets, by what is asked and what it has; None for none.

    Raises
    ------
    UsageError : its regions do not lie on the scan.
    """
    if options.grade is None:
        return None if _of_networks(request) else now.grade
    for each in options.grade.regions:
        each.region.check(shape_yx)
    return (now.grade or Grade()).then(options.grade)


def _graded(store: ScanStore, now: RunSpec, name: str, grade: Grade) -> RunSpec:
    """The settings of the colours that a grade begins with, and of the grade, if it is any.

    Raises
    ------
    StoreError : those colours are not there.
    """
    before = now.graded_from or name
    version = store.find_version(before)
    if version is None or not version.is_complete:
        raise StoreError(
            f"{store.path}: the colours of {before}, which a grade begins with, are not all there, and no network is "
            "asked for them; colorize-archive run makes them"
        )
    spec = _settings_of(store, before)
    return spec if grade.is_identity else replace(spec, grade=grade, graded_from=before)


def _are_other_hints(
    store: ScanStore, options: RunOptions, scan: ScanFile, shape_yx: tuple[int, int], now: RunSpec
) -> bool:
    """Whether a scan's hints are not those that its colours have."""
    context = replace(_prepared(options), series=series_in(store, now.series_sha256))
    hints = context.with_hints(scan, shape_yx, is_told=False).hints
    return (hints.sha256 if hints else "") != now.hints_sha256


def _with_hints_again(
    store: ScanStore, name: str, now: RunSpec, request: ReprocessRequest, context: RunContext
) -> RunSpec | None:
    """The settings of the predicted colours that are there with today's hints; None where a network is to be asked."""
    if _of_networks(request) or request.force or (context.hints is None and not now.hints_sha256):
        return None
    before = now.hints_from or now.graded_from or name
    version = store.find_version(before)
    if version is None or not version.is_complete:
        return None
    spec = _settings_of(store, before)
    return spec.with_hints(context.hints.sha256) if context.hints else spec


def _predicted_anew(store: ScanStore, request: ReprocessRequest, context: RunContext) -> RunSpec:
    """The settings of colours that a network is asked for, and of today's hints on them."""
    spec = context.spec_for(store.info.shape_yx).predicted
    if request.reuse:
        spec = replace(spec, reused=reusable(store, spec))
    return spec.with_hints(context.hints.sha256) if context.hints else spec


def _unchanged(scan: ScanFile, store: ScanStore, paths: ResultPaths, form: str) -> ScanOutcome:
    message = "this grade leaves every colour as it is: nothing would change, no version was made"
    picture, megapixels = str(paths.picture(form)), store.info.megapixels
    return ScanOutcome(scan.stem, str(scan.path), "skipped", message, megapixels, 0, picture, page=scan.page)


def _of_networks(request: ReprocessRequest) -> list[str]:
    """What is asked for that a network has to be asked."""
    plain = ReprocessRequest(output=request.output)
    return [f"--{name.replace('_', '-')}" for name in _OF_NETWORKS if getattr(request, name) != getattr(plain, name)]


def parse_grade(request: ReprocessRequest) -> Grade | None:
    """The grade that is asked for; None where none is. Raises UsageError."""
    given = {name: value for name in GRADE_OPTIONS if (value := getattr(request, name)) is not None}
    where = {name: value for name in REGION_OPTIONS if (value := getattr(request, name)) is not None}
    if not given:
        if where:
            raise UsageError(f"{_flags(where)}: says where, and nothing what is done there; give --saturation or such")
        return None
    grade = Grade.parse(**given)
    if others := _of_networks(request):
        raise UsageError(
            f"{_flags(given)} with {', '.join(others)}: a grade changes the colours that are there and asks no "
            "network, so nothing would come of the latter; make that version first, then grade it"
        )
    return _local(grade, **where) if where else grade


def _local(grade: Grade, within: str = "", feather: str | float | None = None) -> Grade:
    """A grade of one region and nothing else. Raises UsageError."""
    if not within:
        raise UsageError("--feather: is the soft edge of a part, and none is given; give --within too, or leave it out")
    if grade.colourfulness is not None:
        raise UsageError(
            "--colourfulness with --within: a goal is that of a whole picture, and a part has none; give --saturation"
        )
    return Grade(regions=(LocalGrade(Region.parse(within, feather), grade),))


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _scan_of(found: ScanFile, output: Path) -> ScanFile:
    """The scan that a store was made from, according to its sidecar; the store itself if there is no usable sidecar."""
    sidecar = Sidecar.find(ResultPaths.of(output, found.stem).sidecar)
    source = sidecar.whole_source if sidecar else None
    return ScanFile(Path(source.path), found.stem, source.page) if source else found


def parse_reprocess(request: ReprocessRequest) -> RunOptions:
    """Check whatever needs no store. Settings that are not requested get ``run``'s defaults here.

    Raises
    ------
    UsageError, ModelError
    """
    grade = parse_grade(request)
    if request.model is not None:
        find_model(request.model)
    stride_yx = None if request.stride is None else parse_size(request.stride, "stride")
    known = {each.name for each in fields(RunRequest)}
    given = {name: value for name, value in vars(request).items() if name in known and value is not None}
    if request.tile is None:
        given.pop("stride", None)  # checked later, against the tile size that each scan already has
    options = parse_options(RunRequest(inputs=[], **given))
    parse_worse_than(request.worse_than)
    return replace(options, stride_yx=stride_yx, grade=grade)
