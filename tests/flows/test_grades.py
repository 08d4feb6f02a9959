"""Other colours from a store: nothing but the store is needed, and what was before can be had back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from engines.select import EngineChoice
from engines.spec import find_model
from flows.cluster.derived_blocks import check_blocks
from flows.cluster.grade_factors import FactorTask, run_factors, sampled
from flows.cluster.worker import BlockDone
from flows.request import ReprocessRequest
from flows.run.jobs import as_before
from flows.run.publish import prune
from flows.run.reprocess_plan import find_stores, parse_reprocess, plan_stores
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.grading import Grade, LocalGrade
from pipeline.colour.regions import Region
from pipeline.errors import StoreError, UsageError
from pipeline.export import render_rgb
from pipeline.results.run_spec import RunSpec
from pipeline.results.versions import ResultPaths, publish
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats, squares
from pipeline.types import Roi, ScanInfo

SHAPE = (700, 1100)
WHOLE = Roi(0, SHAPE[0], 0, SHAPE[1])
SPEC = RunSpec((256, 256), (128, 128), "hann", "openvino", "2026", "fp32", 8, "default", "ab", 110.0)


@pytest.fixture(scope="module")
def coloured(command, moody, scans, tmp_path_factory):
    """A scan of several blocks in the colours of a model that is gone, as is the scan."""
    folder, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    model = shutil.copytree(moody, tmp_path_factory.mktemp("gone") / "moody")
    scan = folder / "girls.png"
    image = cv2.imread(str(scans / "peasant-girls-1909.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(scan), np.tile(image, (1, 2))[: SHAPE[0], : SHAPE[1]])
    ran = command("run", scan, "-o", output, "--model", model, "--tile", "128", "--stride", "64")
    assert ran.code == 0, ran.err
    shutil.rmtree(model)
    scan.unlink()
    return output


def sidecar(output, name="girls"):
    return json.loads((output / f"{name}.color.json").read_text())


def versions(output):
    return ScanStore.open(output / "girls.zarr").version_names()


def colours(output, name):
    store = ScanStore.open(output / "girls.zarr")
    return store.version(name).read(WHOLE).astype(np.float32), store.read_lightness(WHOLE)


def test_a_grade_needs_no_network_and_begins_with_the_colours_that_were(command, coloured, tmp_path):
    output = shutil.copytree(coloured, tmp_path / "out")
    (plain,) = versions(output)
    before = (output / "girls.color.tif").read_bytes()
    assert "not a shipped one" in command("reprocess", output, "--stride", "128", "--engine", "identity").err

    words = ("reprocess", output, "--saturation", "0.5", "--warmth", "-3", "--hue-map", "violet:0.4, blue>brown")
    ran = command(*words)
    assert ran.code == 0, ran.err
    assert ran.line("no network: colours of the store")
    settings, first = sidecar(output)["settings"], sidecar(output)["result"]["version"]
    grade = Grade.parse("0.5", "-3", "violet:0.4, blue>brown")
    assert (settings["grade"], settings["graded_from"]) == (grade.to_json(), plain)
    assert versions(output) == [plain, first]
    store = ScanStore.open(output / "girls.zarr")
    assert store.version(first).block_px == store.version(plain).block_px < max(SHAPE)
    wanted = grade.apply(*colours(output, plain))
    np.testing.assert_array_equal(colours(output, first)[0], wanted.astype(np.float16))
    assert (output / f"girls.{plain}.color.tif").read_bytes() == before
    verified = command("verify", output, "--json")
    assert verified.code == 0, verified.out
    graded = (output / "girls.color.tif").read_bytes()

    # In another format it is the same picture; the grade stays where nothing is said of it.
    request = ReprocessRequest(output=str(output), formats="png")
    options = replace(parse_reprocess(request), engine="identity")
    (job,) = plan_stores(find_stores(output, []), request, options)
    assert (job.spec.grade, job.formats, job.engine_spec) == (grade, ("png",), None)
    assert command(*words, "--format", "png").code == 0
    assert sidecar(output)["settings"] == settings
    png = cv2.imread(str(output / "girls.color.png"))[..., ::-1]
    np.testing.assert_array_equal(png, tifffile.imread(output / "girls.color.tif"))
    assert (output / "girls.color.tif").read_bytes() == graded
    assert "grade" in command("inspect", output / "girls.color.tif").out
    assert f"from {plain}" in (output / "index.html").read_text()

    # The second grade begins where the first did, whose colours are kept beside those of the network.
    ran = command("reprocess", output, "--saturation", "0.25", "--format", "tiff")
    assert ran.code == 0, ran.err
    second = sidecar(output)["result"]["version"]
    assert versions(output) == [plain, first, second]
    np.testing.assert_array_equal(colours(output, second)[0], (colours(output, plain)[0] / 4).astype(np.float16))

    # One that changes nothing gives back what was before there was any; then there is nothing to do.
    assert command("reprocess", output, "--saturation", "1", "--format", "tiff").code == 0
    assert (output / "girls.color.tif").read_bytes() == before
    ran = command("reprocess", output, "--warmth", "0")
    assert "1 skipped" in ran.line("done,")
    assert ran.line("skipped", "nothing would change")
    assert sidecar(output)["result"]["version"] == plain


def test_parts_of_a_picture_are_graded_one_after_the_other(command, coloured, tmp_path):
    output = shutil.copytree(coloured, tmp_path / "out")
    (plain,) = versions(output)
    before = tifffile.imread(output / "girls.color.tif")
    words = ("reprocess", output, "gir*", "--within", "100,50,300,200", "--feather", "9")
    ran = command(*words, "--saturation", "0")
    assert ran.code == 0, ran.err
    first, settings = sidecar(output)["result"]["version"], sidecar(output)["settings"]
    assert settings["graded_from"] == plain
    assert settings["grade"]["regions"][0]["shapes"] == [{"kind": "boxes", "numbers": [[100, 50, 300, 200]]}]
    after = tifffile.imread(output / "girls.color.tif")
    differs = np.argwhere((after != before).any(-1))
    assert (differs.min(0) >= (50, 100)).all()
    assert (differs.max(0) < (250, 400)).all()
    inside = after[60:240, 110:390].astype(int)
    assert np.abs(inside - inside[..., 1:2]).max() <= 1
    assert "within 100,50,300,200: saturation 0" in json.dumps(sidecar(output)["pictures"]["tiff"]["premis"])
    assert command("verify", output).code == 0

    # Another part is added; the first one's own end leaves that; and after both ends nothing was ever graded.
    others = ("reprocess", output, "--within", "500,300 900,300 700,600", "--warmth", "9")
    assert command(*others).code == 0
    assert len(sidecar(output)["settings"]["grade"]["regions"]) == 2
    assert command(*words, "--saturation", "1").code == 0
    assert len(sidecar(output)["settings"]["grade"]["regions"]) == 1
    assert command(*others[:-1], "0").code == 0
    assert sidecar(output)["result"]["version"] == plain
    np.testing.assert_array_equal(tifffile.imread(output / "girls.color.tif"), before)

    ran = command("reprocess", output, "--saturation", "0", "--within", "0,0,4000,4000")
    assert ran.code == 1
    assert ran.line("within 0,0,4000,4000: is outside the scan")
    assert first not in (plain, sidecar(output)["result"]["version"])


def test_a_grade_that_is_killed_goes_on_to_the_same_bytes(command, killed, coloured, tmp_path):
    words = ("--hue-map", "blue>brown", "--colourfulness", "24")
    undisturbed, output = (shutil.copytree(coloured, tmp_path / name) for name in ("undisturbed", "killed"))
    before = (output / "girls.color.tif").read_bytes()
    assert command("reprocess", undisturbed, *words).code == 0
    killed(("reprocess", output, *words), lambda: any(output.glob("girls.zarr/versions/*graded*/factor.json")))
    assert (output / "girls.color.tif").read_bytes() in (before, (undisturbed / "girls.color.tif").read_bytes())
    ran = command("reprocess", output, *words)
    assert ran.code == 0, ran.err
    for name in (f"girls.zarr/versions/{versions(undisturbed)[-1]}/factor.json", "girls.color.tif"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes()
    # A version that is graded has no colours of its own to keep.
    assert not list(output.glob("girls.zarr/versions/*graded*/chroma"))


def test_a_version_that_was_kept_is_put_back(command, coloured, tmp_path):
    output = shutil.copytree(coloured, tmp_path / "out")
    (plain,), before = versions(output), (output / "girls.color.tif").read_bytes()
    ran = command("reprocess", output, "--colourfulness", "28")
    assert ran.code == 0, ran.err
    after, name = (output / "girls.color.tif").read_bytes(), sidecar(output)["result"]["version"]
    assert colourfulness(tifffile.imread(output / "girls.color.tif") / 255) == pytest.approx(28, rel=0.02)

    ran = command("restore", output / "girls.zarr", plain)
    assert ran.code == 0, ran.err
    assert (output / "girls.color.tif").read_bytes() == before
    assert (output / f"girls.{name}.color.tif").read_bytes() == after
    told = json.loads(command("status", output, "--json").out)["versions"]
    assert {each["version"]: each["is_current"] for each in told} == {plain: True, name: False}
    assert command("verify", output).code == 0
    assert command("restore", output / "girls.color.tif", name).code == 0
    assert (output / "girls.color.tif").read_bytes() == after

    for wrong, why in ((name, "is the current version"), ("512", "fits 0 of")):
        ran = command("restore", output / "girls", wrong)
        assert (ran.code, len(ran.lines)) == (2, 1)
        assert why in ran.err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"saturation": 0.9, "model": "free"}, "--saturation with --model: "),
        ({"hue_map": "blue:0", "stride": 64, "vivid": 0.5}, "--hue-map with --stride, --vivid: "),
        ({"warmth": 2, "engine": "identity"}, "--warmth with --engine: "),
        ({"warmth": "30"}, "warmth '30'"),
        ({"hue_map": "purple:1"}, "purple is not a hue"),
        ({"saturation": "5"}, "saturation '5'"),
        ({"colourfulness": "-1"}, "colourfulness '-1'"),
        ({"within": "0,0,9,9"}, "--within: says where"),
        ({"saturation": 1, "feather": 9}, "--feather: is the soft edge of a part"),
        ({"colourfulness": 9, "within": "0,0,9,9"}, "--colourfulness with --within"),
        ({"saturation": 2, "within": "0,0,9"}, "within '0,0,9': is no place of a scan"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_done(asked, words):
    with pytest.raises(UsageError) as told:
        parse_reprocess(ReprocessRequest(output=".", **asked))
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def stored(folder, block_px=512, mask=""):
    """A store with colours of all hues, made without a network; its left third is no picture, where it has a mask."""
    rng = np.random.default_rng(5)
    store = ScanStore.create(folder / "a.zarr", ScanInfo(SHAPE, 1, "uint8", mask=mask), Source("a", 1, "5"))
    store.write_scan(WHOLE, cv2.GaussianBlur(rng.integers(0, 256, SHAPE, np.uint8), (0, 0), 1))
    if mask:
        store.write_mask(WHOLE, np.where(np.indices(SHAPE)[1] < 367, 0, 255).astype(np.uint8))
    version = store.create_version(SPEC.version, SPEC.to_json(), block_px, 1.0, "2026-01-01")
    slow = cv2.GaussianBlur(rng.standard_normal((*SHAPE, 2), np.float32), (0, 0), 8)
    chroma = np.moveaxis(slow * (10 / slow.std()), -1, 0)
    for index, roi in blocks(block_px):
        count = tuple(map(squares, roi.shape_yx))
        agreement = OverlapStats(*(np.ones((*planes, *count), np.float32) for planes in ((2,), (), ())))
        coloured = BlockResult(chroma[:, roi.rows, roi.columns], agreement)
        version.write(index, coloured, version.attempt, BlockTiming(1, 0.1))
    version.finish()
    return store


def blocks(block_px):
    for y in range(-(-SHAPE[0] // block_px)):
        for x in range(-(-SHAPE[1] // block_px)):
            place = Roi(y * block_px, (y + 1) * block_px, x * block_px, (x + 1) * block_px)
            yield (y, x), place.clipped(SHAPE)


def begun(store, grade, name="g"):
    """A graded version that is begun, and the search for its factor."""
    settings = replace(SPEC, grade=grade, graded_from=SPEC.version).to_json()
    version = store.create_graded_version(name, settings, "2026-01-02")
    return version, FactorTask("a", store.path, name, version.attempt, SPEC.version, grade)


def graded(store, grade):
    """A graded version that is finished."""
    version, task = begun(store, grade)
    if grade.colourfulness is not None:
        assert all(isinstance(each, BlockDone) for each in run_factors((task,)))
    version.finish()
    return ScanStore.open(store.path).version("g")


def test_strips_and_windows_come_to_the_same_colours_whatever_the_blocks(tmp_path):
    grade = Grade.parse("0.7", "5", "green:2, red>violet").then(within("40,60,300,200", Grade.parse("0.5")))
    made = []
    for block_px in (512, 1024):
        (tmp_path / str(block_px)).mkdir()
        store = stored(tmp_path / str(block_px), block_px)
        version = graded(store, grade)
        assert version.is_whole()
        made.append(version.read(WHOLE))
        for roi in (Roi(0, 300, 0, 200), Roi(130, 700, 330, 1100)):
            np.testing.assert_array_equal(version.read(roi), made[-1][:, roi.rows, roi.columns])
        roi = Roi(200, 700, 100, 900)
        lightness, colours = store.read_lightness(roi), version.window(roi)
        strips = [colours(slice(y, y + 100), lightness[y : y + 100]) for y in range(0, 500, 100)]
        np.testing.assert_array_equal(np.concatenate(strips, 1), colours(slice(None), lightness))
        rgb = render_rgb(store, version, WHOLE)
        np.testing.assert_array_equal(rgb[roi.rows, roi.columns], render_rgb(store, version, roi))
    assert made[0].tobytes() == made[1].tobytes()


def within(text, grade, feather=None):
    return Grade(regions=(LocalGrade(Region.parse(text, feather), grade),))


def test_outside_a_region_not_a_byte_of_a_version_differs(tmp_path):
    store = stored(tmp_path)
    grade = within("40,60,300,200; 900,10 1090,10 1000,200", Grade.parse("0.5", "-4", "red>blue"))
    version, before = graded(store, grade), store.version(SPEC.version)
    here, there = version.read(WHOLE), before.read(WHOLE)
    weight = grade.regions[0].region.weight(WHOLE, SHAPE)
    np.testing.assert_array_equal(here[:, weight == 0].view(np.uint16), there[:, weight == 0].view(np.uint16))
    full = grade.regions[0].grade.apply(there.astype(np.float32), store.read_lightness(WHOLE)).astype(np.float16)
    np.testing.assert_array_equal(here[:, weight == 1], full[:, weight == 1])
    assert (here != there)[:, weight > 0].any(0).mean() > 0.9
    outside = render_rgb(store, version, WHOLE)[weight == 0]
    np.testing.assert_array_equal(outside, render_rgb(store, before, WHOLE)[weight == 0])


def test_what_a_stopped_run_left_is_not_made_again(tmp_path):
    store = stored(tmp_path)
    version, task = begun(store, Grade.parse(colourfulness=25))
    run_factors((task,))
    kept = version.path / "factor.json"
    before = kept.stat().st_mtime_ns
    assert not version.is_complete
    run_factors((task,))
    assert kept.stat().st_mtime_ns == before


def test_without_the_colours_that_it_begins_with_or_its_factor_a_version_has_none(tmp_path):
    store = stored(tmp_path)
    version = graded(store, Grade.parse(colourfulness=25))
    (version.path / "factor.json").unlink()
    with pytest.raises(StoreError, match="its factor is gone"):
        version.read(WHOLE)
    next((store.version(SPEC.version).path / "chroma" / "c").rglob("1")).rename(tmp_path / "gone")
    assert not ScanStore.open(store.path).version("g").is_complete
    ScanStore.open(store.path, writable=True).remove_version(SPEC.version)
    assert ScanStore.open(store.path).find_version("g") is None


@pytest.mark.parametrize("mask", ["", "alpha"])
def test_the_colourfulness_of_what_is_pictured_is_reached(tmp_path, mask):
    store = stored(tmp_path, mask=mask)
    version = graded(store, Grade.parse(warmth=4, hue_map="orange:0.5", colourfulness=30))
    picture = render_rgb(store, version, WHOLE)[:, 367 if mask else 0 :, :3] / 255
    assert colourfulness(picture) == pytest.approx(30, rel=0.02)
    if mask:
        left = Roi(0, SHAPE[0], 0, 367)
        before = store.version(SPEC.version).read(left).astype(np.float32)
        untinted = Grade.parse(hue_map="orange:0.5").apply(before, store.read_lightness(left), factor=version.factor)
        np.testing.assert_array_equal(version.read(left), untinted.astype(np.float16))


def test_a_few_pixels_tell_the_colourfulness_of_all(tmp_path):
    store = stored(tmp_path)
    version = store.version(SPEC.version)
    every, few = sampled(store, version), sampled(store, version, 20_000)
    assert every[1].size == SHAPE[0] * SHAPE[1]
    assert 15_000 < few[1].size < 25_000
    np.testing.assert_array_equal(np.sort(every[0].reshape(2, *SHAPE)[0, ::6, ::6].ravel()), np.sort(few[0][0].ravel()))


def test_a_colourfulness_beyond_reach_leaves_no_version(tmp_path):
    store = stored(tmp_path)
    _, task = begun(store, Grade(colourfulness=149))
    (done,) = run_factors((task,))
    assert isinstance(done.error, UsageError)
    assert store.version_names() == [SPEC.version]


def test_colours_that_are_damaged_are_not_graded(tmp_path):
    store = stored(tmp_path)
    shard = next(p for p in (store.path / "versions" / SPEC.version / "chroma" / "c").rglob("0") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        check_blocks(store, store.version(SPEC.version), WHOLE)
    assert not graded(store, Grade(saturation=0.5)).is_whole()


def test_what_a_kept_version_was_graded_from_stays(tmp_path):
    store, paths = stored(tmp_path), ResultPaths.of(tmp_path, "a")
    for day in range(2, 6):
        settings = RunSpec.from_json({**SPEC.to_json(), "graded_from": SPEC.version, "grade": Grade(day / 8).to_json()})
        store.create_graded_version(settings.version, settings.to_json(), f"2026-01-{day:02}")
        lies = paths.of_version(settings.version)
        lies.sidecar.write_text(json.dumps({"settings": settings.to_json(), "finished": f"2026-01-{day:02}"}))
        before = publish(paths, settings.version)
        prune(store, paths, settings.version, before, 2)
    assert store.version_names() == [SPEC.version, *store.version_names()[1:]]
    assert len(store.version_names()) == 3


def test_the_name_says_that_it_is_graded_how_and_from_what():
    one = RunSpec.from_json({**SPEC.to_json(), "graded_from": SPEC.version, "grade": Grade(0.5).to_json()})
    assert one.version.startswith("256-128-hann-default_graded-")
    others = [
        RunSpec.from_json({**one.to_json(), "grade": Grade(0.6).to_json()}),
        RunSpec.from_json({**one.to_json(), "graded_from": "256-128-hann-default-00000000"}),
        SPEC,
    ]
    assert len({one.version, *(other.version for other in others)}) == 4
    assert RunSpec.from_json(json.loads(json.dumps(one.to_json()))) == one
    # What is not graded has the name that it had before there were grades.
    assert set(SPEC.to_json()) == set(one.to_json()) - {"grade", "graded_from"}


def test_the_run_after_a_grade_computes_as_the_run_before_it(tmp_path):
    model = find_model("efficientnet-unet")
    (tmp_path / "runs").mkdir()
    run = {"kind": "colorize", "backend": "openvino", "precision": "bf16", "model_sha256": model.card.sha256}
    for name, record in (("1", run), ("2", {"kind": "grade", "engine": "no network", "model": ""})):
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(record))
    assert as_before(EngineChoice("openvino", "2026", "fp32", ""), model, tmp_path).precision == "bf16"
