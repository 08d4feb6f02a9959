"""One palette, figures, finer tiles where they are needed: the same bytes whatever divides or stops the work."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import flows.cluster.worker as blocks_module
from flows.cluster.grade_factors import run_factors
from flows.cluster.worker import BlockDone, run_anchors, run_blocks
from flows.inputs import ScanFile
from flows.options import parse_options
from flows.outcome import ScanOutcome
from flows.request import ReprocessRequest
from flows.run.batches import ScanProgress
from flows.run.jobs import RunContext, ScanJob
from flows.run.reprocess_plan import find_stores, parse_reprocess, plan_stores
from flows.run.stages import colorize_batch, export_batch, ingest_batch
from pipeline.store import ScanStore
from pipeline.store import chroma as chroma_module
from pipeline.store.chroma import ChromaVersion
from pipeline.types import Roi
from tests.models import make_model
from tests.request import asked

SIDE = ("--tile", "128")


class Stopped(BaseException):
    """What nothing in the code catches, as nothing catches SIGKILL."""


class Here:
    """What a cluster does with blocks, in this process and one after the other."""

    def threads(self):
        return 1

    def group_tiles(self, tiles, batch):
        return 4 * batch

    def anchors(self, groups):
        return map(run_anchors, groups)

    def factors(self, groups):
        return map(run_factors, groups)

    def results(self, groups):
        return map(run_blocks, groups)


class Counted:
    """Counts how often a function is called; the ``last`` time breaks off instead, or just ``after`` it."""

    def __init__(self, monkeypatch, place, name, last=0, after=False):
        self.calls, self._function = 0, getattr(place, name)
        self._last, self._after = last, after
        monkeypatch.setattr(place, name, lambda *words: self._call(*words))

    def _call(self, *words):
        self.calls += 1
        if self.calls == self._last and not self._after:
            raise Stopped
        self._function(*words)
        if self.calls == self._last:
            raise Stopped


@pytest.fixture(scope="module")
def photograph(scans):
    return cv2.imread(str(scans / "sunset-beach.jpg"), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="module")
def beach(photograph, tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "beach.png"
    cv2.imwrite(str(path), photograph[600:1368, 1000:2024])
    return path


@pytest.fixture(scope="module")
def part(photograph, tmp_path_factory):
    """Two blocks of 512 px by two, of which only the first is whole."""
    path = tmp_path_factory.mktemp("in") / "part.png"
    cv2.imwrite(str(path), photograph[600:1230, 1000:1750])
    return path


@pytest.fixture(scope="module")
def done(command, beach, tmp_path_factory):
    """The shipped model with everything as it is by itself."""
    output = tmp_path_factory.mktemp("out")
    ran = command("run", beach, "-o", output)
    assert ran.code == 0, ran.err
    return output, ran, sidecar(output, "beach")


def sidecar(output, name="part"):
    return json.loads((output / f"{name}.color.json").read_text())


def job_of(scan, output, block_px, **options):
    """As the run plans it, but for the blocks."""
    output.mkdir(exist_ok=True)
    job = RunContext.of(parse_options(asked(output, **options))).job(ScanFile(scan, scan.stem))
    assert isinstance(job, ScanJob)
    return replace(job, plan=replace(job.plan, block_px=block_px))


def made(job):
    """Do a job's stages here; its outcome, its picture, and which tiles each refinement added."""
    (outcome,) = export_batch(colorize_batch(ingest_batch((ScanProgress(job),)), Here(), ""))
    assert outcome.status == "done", outcome.message
    version = ScanStore.open(job.paths.store).version(job.spec.version)
    chosen = [version.chosen(level) for level in range(1, version.levels_chosen + 1)]
    return outcome, Path(outcome.result).read_bytes(), chosen


def test_every_result_has_its_figures(done):
    output, ran, told = done
    quality = told["quality"]
    assert 0.8 < quality["seam"] < 1.3
    # Of a scan of so few periods the patches have no score.
    assert quality["seam"] == max(score for score in (quality["seam_edge"], quality["seam_patch"]) if score is not None)
    assert 0 < quality["disagreement_mean"] < quality["disagreement_p95"] < 50
    assert quality["strides_px"] == [[224, 224]]
    assert (told["settings"]["anchor"], told["settings"]["quality"], told["settings"]["window"]) == (True, 0, "hann")
    (record,) = (output / "runs").glob("*.json")
    (scan,) = json.loads(record.read_text())["scans"]
    assert scan["quality"] == quality
    assert quality["doubt"]["word"] in ("likely", "unsure", "a guess")
    assert 0 <= quality["doubt"]["low"] < quality["doubt"]["expected"] < quality["doubt"]["high"]
    assert f"seam {quality['seam']:.2f}, {quality['doubt']['word']}" in ran.line("done     ")


def test_inspect_tells_the_figures_and_draws_a_map(command, done, tmp_path):
    output, _, told = done
    drawn = tmp_path / "where.png"
    ran = command("inspect", output / "beach.color.tif", "--map", drawn)
    assert ran.code == 0, ran.err
    assert f"{told['quality']['seam']:.3f} (1 shows no grid)" in ran.out
    assert f"{told['quality']['disagreement_mean']:.1f} on average" in ran.out
    assert "palette       of the whole scan" in ran.out
    assert "strides used  224x224" in ran.out
    assert f"colours       {told['quality']['doubt']['word']}: CIEDE2000 to the truth probably" in ran.out
    picture = cv2.imread(str(drawn))
    height, width = picture.shape[:2]
    assert max(height, width) <= 1024
    assert width / height == pytest.approx(1024 / 768, rel=0.02)
    brightness = picture.max(axis=2)
    assert brightness.max() > 100
    assert np.ptp(brightness) > 40


def test_a_map_of_what_has_none_is_one_line(command, done, beach, tmp_path):
    output, _, _ = done
    for words in ((beach, "--map", tmp_path / "where.png"), (output / "beach.zarr", "--map", tmp_path / "where.jpg")):
        ran = command("inspect", *words)
        assert (ran.code, len(ran.lines)) == (2, 1), ran.err
    assert not list(tmp_path.iterdir())


def test_a_map_of_a_version_that_is_gone_is_not_that_of_another(command, done, tmp_path):
    output, _, told = done
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "beach.zarr" / "versions" / told["result"]["version"])
    ran = command("inspect", copy / "beach.color.tif", "--map", tmp_path / "where.png")
    assert (ran.code, len(ran.lines)) == (2, 1), ran.err
    assert told["result"]["version"] in ran.lines[0]
    assert not (tmp_path / "where.png").exists()


@pytest.mark.parametrize("value", ["0.9", "abc"])
def test_a_quality_that_is_none_is_one_line(command, beach, tmp_path, value):
    ran = command("run", beach, "-o", tmp_path / "out", "--quality", value)
    assert (ran.code, len(ran.lines)) == (2, 1), ran.err
    assert "quality" in ran.lines[0]
    assert value in ran.lines[0]
    assert not (tmp_path / "out").exists()


def planned(output, **options):
    """What ``reprocess`` is going to do with the one store in a folder."""
    request = ReprocessRequest(output=str(output), **options)
    given = parse_reprocess(request)
    (job,) = plan_stores(find_stores(given.output, []), request, given)
    return job


def test_without_the_anchor_it_is_another_version_with_other_bytes(command, beach, moody, tmp_path):
    output = tmp_path / "out"
    assert command("run", beach, "-o", output, "--model", moody).code == 0
    before = sidecar(output, "beach")
    picture = (output / "beach.color.tif").read_bytes()
    outcome, other, _ = made(planned(output, anchor=False, model=str(moody)))
    after = sidecar(output, "beach")
    assert after["settings"] == {**before["settings"], "anchor": False}
    assert after["result"]["version"] != before["result"]["version"]
    assert other != picture
    assert (output / f"beach.{before['result']['version']}.color.tif").read_bytes() == picture
    # Opinions are compared before the anchor brings them together.
    assert outcome.quality.disagreement_mean == before["quality"]["disagreement_mean"]


@pytest.mark.parametrize("anchor", [True, False])
def test_reprocess_keeps_what_is_not_asked_for(part, moody, tmp_path, anchor):
    options = {"tile": "128", "window": "average", "model": str(moody), "quality": 8}
    outcome, *_ = made(job_of(part, tmp_path, 512, anchor=anchor, **options))
    assert len(outcome.quality.strides_px) > 1
    same = {"model": str(moody)}  # not a shipped one: where it lies is not kept
    now = sidecar(tmp_path)["settings"]
    assert (now["anchor"], now["quality"]) == (anchor, 8)
    assert isinstance(planned(tmp_path, **same), ScanOutcome)  # there already
    assert planned(tmp_path, force=True, **same).spec.to_json() == now
    assert planned(tmp_path, window="hann", **same).spec.to_json() == {**now, "window": "hann"}
    assert planned(tmp_path, anchor=not anchor, **same).spec.to_json() == {**now, "anchor": not anchor}
    assert planned(tmp_path, quality=5, **same).spec.to_json() == {**now, "quality": 5}
    assert planned(tmp_path, quality="none", **same).spec.to_json() == {**now, "quality": 0}
    # A stride is meant as such; with a quality it is the coarsest one.
    assert planned(tmp_path, stride=32, **same).spec.to_json() == {**now, "stride_yx": [32, 32], "quality": 0}
    both = planned(tmp_path, stride=32, quality=5, **same).spec
    assert (both.stride_yx, both.quality, both.anchor) == ((32, 32), 5, anchor)


def test_a_grade_has_the_finer_tiles_of_the_colours_that_it_began_with(part, moody, tmp_path):
    options = {"tile": "128", "window": "average", "model": str(moody), "quality": 8, "anchor": False}
    outcome, _, chosen = made(job_of(part, tmp_path, 512, **options))
    now = sidecar(tmp_path)["settings"]
    graded, _, tiles = made(planned(tmp_path, saturation=0.5))
    assert [each.tobytes() for each in tiles] == [each.tobytes() for each in chosen]
    for name in ("strides_px", "tiles", "disagreement_mean", "wanted"):
        assert getattr(graded.quality, name) == getattr(outcome.quality, name)
    # Other settings end it, and begin with those of the network.
    other = planned(tmp_path, model=str(moody), window="hann").spec
    assert other.to_json() == {**now, "window": "hann"}


def test_reprocess_gives_a_palette_to_what_had_none_only_because_one_tile_saw_it_all(part, moody, tmp_path):
    made(job_of(part, tmp_path, 512, tile="768", model=str(moody)))
    assert not sidecar(tmp_path)["settings"]["anchor"]
    assert planned(tmp_path, model=str(moody), tile=128).spec.anchor
    assert not planned(tmp_path, model=str(moody), tile=128, anchor=False).spec.anchor


def test_a_model_of_one_size_only_cannot_make_a_palette_and_says_what_to_do(command, part, tmp_path):
    model = make_model(tmp_path / "model", fixed_px=128)
    words = ("run", part, "-o", tmp_path / "out", "--model", model, *SIDE, "--engine", "onnxruntime")
    ran = command(*words)
    assert ran.code == 1, ran.err
    assert "give --no-anchor" in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert command(*words, "--no-anchor").code == 0


def test_only_what_colours_has_an_anchor(part, photograph, moody, tmp_path):
    """Neither the identity nor a scan that a tile sees as a whole."""
    cv2.imwrite(str(tmp_path / "tiny.png"), photograph[:100, :128])
    tiny = tmp_path / "tiny.png"
    for scan, engine, wanted in ((part, "auto", True), (part, "identity", False), (tiny, "auto", False)):
        job = job_of(scan, tmp_path / "out", 512, tile="128", engine=engine, model=str(moody))
        assert (job.spec.anchor, job.anchor_spec is not None) == (wanted, wanted)


REFINED = {
    "few tiles": {"window": "average", "anchor": False, "quality": 8},
    "all tiles": {"window": "average", "anchor": False, "quality": 1.2},
    "with the anchor": {"window": "average", "anchor": True, "quality": 4},
}


@pytest.fixture(scope="module", params=REFINED)
def refined(request, part, moody, tmp_path_factory):
    """Options that make finer tiles necessary, what comes of them with blocks of 512 px, and how many records."""
    options = {"tile": "128", "model": str(moody), **REFINED[request.param]}
    job = job_of(part, tmp_path_factory.mktemp("out"), 512, **options)
    with pytest.MonkeyPatch.context() as context:
        records = Counted(context, chroma_module, "write_json")
        return options, job, made(job), records.calls


def test_finer_tiles_come_where_they_are_needed(refined):
    options, job, (outcome, _, chosen), records = refined
    strides = outcome.quality.strides_px
    assert strides == tuple((64 >> level, 64 >> level) for level in range(len(chosen) + 1))
    assert 1 <= len(chosen) <= 2
    new, finest = sum(int(level.sum()) for level in chosen), chosen[-1].size
    assert 0 < new <= finest - len(job.grid)
    if options["quality"] > 1.2:
        assert new < finest - len(job.grid)
    assert records > 4  # blocks
    told = sidecar(job.paths.store.parent)
    assert told["work"]["tiles"] == outcome.tiles == len(job.grid) + new
    assert told["work"]["predictions"] >= outcome.tiles
    # A score that is not reached is told.
    missed = outcome.quality.seam > options["quality"]
    assert (f"more than the {options['quality']:g} asked for" in str(outcome.quality)) == missed
    assert told["quality"] == outcome.to_json()["quality"]
    # It is worth it: less is seen of the coarsest grid, whose score is that of the same run without a quality.
    plain = replace(job, spec=replace(job.spec, quality=0.0), keep=9)
    before, *_ = made(plain)
    assert outcome.quality.seam < before.quality.seam


@pytest.mark.parametrize("block_px", [1024, 4096])
def test_refinement_makes_the_same_bytes_of_any_blocks(refined, part, tmp_path, block_px):
    options, job, (outcome, picture, chosen), _ = refined
    other = job_of(part, tmp_path, block_px, **options)
    again, same, tiles = made(other)
    assert [each.tobytes() for each in tiles] == [each.tobytes() for each in chosen]
    assert same == picture
    assert again.quality == outcome.quality
    # What chooses the next tiles must not differ by a rounding either.
    versions = [ScanStore.open(each.paths.store).version(each.spec.version) for each in (job, other)]
    one, two = (version.agreement(Roi(0, 630, 0, 750)) for version in versions)
    assert [getattr(one, name).tobytes() for name in vars(one)] == [getattr(two, name).tobytes() for name in vars(two)]


@pytest.mark.parametrize("refined", ["few tiles", "with the anchor"], indirect=True)
@pytest.mark.parametrize(("share", "after"), [(0.5, True), (0.5, False), (1, False)])
def test_a_stop_at_any_record_ends_in_the_same_bytes(refined, part, tmp_path, monkeypatch, share, after):
    """Between a block's shard and its record, or just after: of the coarsest tiles and of those that refine them.

    What a record says of a shard that the next level has overwritten must not count.
    """
    options, _, (outcome, picture, chosen), records = refined
    job = job_of(part, tmp_path, 512, **options)
    with monkeypatch.context() as context:
        Counted(context, chroma_module, "write_json", round(share * records), after)
        with pytest.raises(Stopped):
            made(job)
    again, same, tiles = made(job)
    assert [each.tobytes() for each in tiles] == [each.tobytes() for each in chosen]
    assert same == picture
    assert again.quality == outcome.quality


@pytest.mark.parametrize("refined", ["few tiles"], indirect=True)
@pytest.mark.parametrize("moment", ["read", "agreement"])
def test_another_worker_that_makes_the_same_block_meanwhile_changes_nothing(
    refined, part, tmp_path, monkeypatch, moment
):
    """One that was taken for lost finishes the block while this one reads it: before its colours, or after."""
    options, _, (outcome, picture, _), _ = refined
    job = job_of(part, tmp_path, 512, **options)
    read, work, tasks, met = getattr(ChromaVersion, moment), blocks_module._work, [], []

    def watched(task):
        tasks.append(task)
        return work(task)

    def interrupted(version, *words):
        if len(tasks) > 1 and tasks[-1].level and tasks[-1] not in met:
            met.append(tasks[-1])
            assert all(isinstance(done, BlockDone) for done in run_blocks((tasks[-1],)))
        return read(version, *words)

    monkeypatch.setattr(blocks_module, "_work", watched)
    monkeypatch.setattr(ChromaVersion, moment, interrupted)
    again, same, _ = made(job)
    assert len(met) > 1
    assert same == picture
    assert again.quality == outcome.quality


@pytest.mark.parametrize("refined", ["few tiles", "with the anchor"], indirect=True)
@pytest.mark.parametrize("after", [False, True])
def test_a_stop_at_the_palette_or_the_choice_ends_in_the_same_bytes(refined, part, tmp_path, monkeypatch, after):
    options, _, (_, picture, _), _ = refined
    job = job_of(part, tmp_path, 512, **options)
    for name in ("write_anchor", "write_chosen") if options["anchor"] else ("write_chosen",):
        with monkeypatch.context() as context:
            Counted(context, ChromaVersion, name, 1, after)
            with pytest.raises(Stopped):
                made(job)
    assert made(job)[1] == picture


def records_in(output):
    """Levels of the blocks that are finished."""
    levels = []
    for path in output.glob("large.zarr/versions/*/chroma/records/*.json"):
        try:
            levels.append(json.loads(path.read_text())["level"])
        except ValueError:
            continue  # of a killed writer
    return levels


def test_killed_in_a_refinement_with_two_workers_it_ends_in_the_bytes_of_one(
    command, killed, photograph, moody, tmp_path
):
    """SIGKILL to all processes; blocks of 512 px against one for the whole scan."""
    cv2.imwrite(str(tmp_path / "large.png"), photograph[600:1700, 1000:2300])
    words = ("--model", moody, *SIDE, "--window", "average", "--no-anchor", "--quality", "6", "--precision", "fp32")
    two = ("run", tmp_path / "large.png", "-o", tmp_path / "two", *words, "--workers", 2, "--limit-memory", "2GiB")
    killed(two, lambda: max(records_in(tmp_path / "two"), default=0) > 0)
    levels = records_in(tmp_path / "two")
    assert len(levels) == 9
    assert max(levels) > 0
    assert min(levels) < 2
    assert not list((tmp_path / "two").glob("*.color.*"))
    ran = command(*two)
    assert ran.code == 0, ran.err
    one = ("run", tmp_path / "large.png", "-o", tmp_path / "one", *words, "--workers", 1, "--limit-memory", "1.4GiB")
    assert command(*one).code == 0
    told = [sidecar(tmp_path / name, "large") for name in ("two", "one")]
    assert [each["work"]["block_px"] for each in told] == [512, 4096]
    assert told[0]["work"]["blocks_there"] >= 9 - 2  # two threads were in the middle of one each
    assert told[0]["quality"] == told[1]["quality"]
    assert told[0]["quality"]["strides_px"][:2] == [[64, 64], [32, 32]]
    assert told[0]["pictures"]["tiff"]["sha256"] == told[1]["pictures"]["tiff"]["sha256"]
    pictures = [(tmp_path / name / "large.color.tif").read_bytes() for name in ("two", "one")]
    assert pictures[0] == pictures[1]
