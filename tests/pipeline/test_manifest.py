"""Versions and their names, and how a new one becomes the current one."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pipeline.colour.grading import Grade
from pipeline.results import versions
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import PictureRecord, Sidecar, SourceRecord, version_of
from pipeline.results.versions import ResultPaths, publish, valid_pictures
from pipeline.store import Source

SPEC = RunSpec((256, 256), (128, 128), "hann", "openvino", "2026", "fp32", 8, "default", "ab", 128.0)
SOURCE = Source("a.tif", 3, "5" * 64)


def test_every_setting_has_a_version_of_its_own():
    spec = replace(SPEC, model="de fault")
    changes = {
        "tile_yx": (256, 512),
        "stride_yx": (64, 128),
        "precision": "bf16",
        "window": "average",
        "engine": "torch",
        "engine_version": "2027",
        "batch": 9,
        "model": "other",
        "model_sha256": "ac",
        "chroma_scale": 1.0,
        "align": 32,
        "anchor": True,
        "quality": 1.05,
        "vivid": 0.5,
        "cautious": True,
        "answer": 2,
        "palette_sha256": "ae",
        "palette_engine": "torch",
        "palette_precision": "bf16",
        "palette_copy_sha256": "ae",
        "series_sha256": "ae",
        "reused": "x",
        "int8_sha256": "ad",
        "algorithm": 1,
        "grade": Grade(0.5),
        "hints_sha256": "ae",
    }
    # What a version was made from counts where it was graded, or corrected by hints.
    assert {*changes, "graded_from", "hints_from"} == {field.name for field in fields(RunSpec)}
    others = [replace(spec, **{name: value}) for name, value in changes.items()]
    assert spec.version.startswith("256-128-hann-de_fault-")
    assert len({spec.version, *(other.version for other in others)}) == 1 + len(changes)
    for each in (spec, *others):
        assert RunSpec.from_json(json.loads(json.dumps(each.to_json()))) == each


def finish(paths, spec, samples, formats=("tiff",), kept=()):
    """A version as the export leaves it: pictures and sidecar under the version's own name, ``kept`` ones elsewhere."""
    lies = paths.of_version(spec.version)
    for name in formats:
        picture = lies.picture(name)
        if name == "iiif":
            picture.mkdir()
            picture /= "info.json"
        picture.write_bytes(samples)
    record = PictureRecord(bytes=len(samples), carries_metadata=True)
    source = SourceRecord(path="/a.tif", bytes=SOURCE.bytes, sha256=SOURCE.sha256, height_px=1, width_px=1)
    pictures = dict.fromkeys([*formats, *kept], record)
    lies.sidecar.write_text(json.dumps(Sidecar(source=source, settings=spec.to_json(), pictures=pictures).to_json()))


def is_current(paths, source, spec, formats=("tiff",)):
    return set(valid_pictures(paths, source, spec)) == set(formats)


def test_publishing_keeps_the_one_before_under_its_own_name(tmp_path):
    paths = ResultPaths.of(tmp_path, "box/a.b")
    paths.store.parent.mkdir()
    finer = replace(SPEC, stride_yx=(64, 64))
    for spec, samples in ((SPEC, b"first"), (finer, b"second one"), (SPEC, b"again")):
        finish(paths, spec, samples)
        publish(paths, spec.version)
        assert is_current(paths, SOURCE, spec)
        assert paths.picture("tiff").read_bytes() == samples
    old = paths.of_version(finer.version)
    assert old.picture("tiff").read_bytes() == b"second one"
    assert version_of(old.sidecar) == finer.version
    assert len(list(paths.store.parent.iterdir())) == 4


BOTH = ("tiff", "iiif")


@pytest.mark.parametrize("stopped_after", range(6))
def test_a_publication_that_was_stopped_is_put_right_by_the_next(tmp_path, monkeypatch, stopped_after):
    """Stopped after each of its six renamings, the next one finds both versions whole; one picture is a folder."""
    paths = ResultPaths.of(tmp_path, "a")
    finer = replace(SPEC, stride_yx=(64, 64))
    finish(paths, SPEC, b"first", BOTH)
    publish(paths, SPEC.version)
    finish(paths, finer, b"second one", BOTH)
    renamed = []

    def stop(source, target):
        if len(renamed) == stopped_after:
            raise KeyboardInterrupt
        renamed.append(target)
        Path(source).rename(target)

    monkeypatch.setattr(versions.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        publish(paths, finer.version)
    monkeypatch.undo()
    versions.recover_publish(paths)
    assert is_current(paths, SOURCE, SPEC, BOTH) == (stopped_after == 0)
    assert is_current(paths.of_version(finer.version), SOURCE, finer, BOTH)
    publish(paths, finer.version)
    assert is_current(paths, SOURCE, finer, BOTH)
    assert is_current(paths.of_version(SPEC.version), SOURCE, SPEC, BOTH)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("stopped_after", range(3))
def test_another_format_of_the_current_version_joins_the_others(tmp_path, monkeypatch, stopped_after):
    paths = ResultPaths.of(tmp_path, "a")
    finish(paths, SPEC, b"first")
    publish(paths, SPEC.version)
    finish(paths, SPEC, b"iiif!", ("iiif",), kept=("tiff",))
    renamed = []

    def stop(source, target):
        if len(renamed) == stopped_after:
            raise KeyboardInterrupt
        renamed.append(target)
        Path(source).rename(target)

    monkeypatch.setattr(versions.os, "replace", stop)
    if stopped_after < 2:
        with pytest.raises(KeyboardInterrupt):
            publish(paths, SPEC.version)
    else:
        publish(paths, SPEC.version)
    monkeypatch.undo()
    if stopped_after < 2:
        publish(paths, SPEC.version)
    assert is_current(paths, SOURCE, SPEC, BOTH)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_result_of_other_bytes_or_settings_is_not_current(tmp_path):
    paths = ResultPaths.of(tmp_path, "a")
    finish(paths, SPEC, b"first")
    publish(paths, SPEC.version)
    assert is_current(paths, SOURCE, SPEC)
    assert is_current(paths, SOURCE, replace(SPEC, reused="other-version"))
    assert not is_current(paths, replace(SOURCE, sha256="6" * 64), SPEC)
    for change in ({"window": "average"}, {"anchor": True}, {"quality": 1.05}, {"align": 32}):
        assert not is_current(paths, SOURCE, replace(SPEC, **change))
    paths.picture("tiff").write_bytes(b"cut")
    assert not is_current(paths, SOURCE, SPEC)


def test_a_result_of_an_earlier_release_is_out_of_date(tmp_path):
    """It has none of the newer settings, and its tiles were blended otherwise."""
    paths = ResultPaths.of(tmp_path, "a")
    finish(paths, SPEC, b"first")
    publish(paths, SPEC.version)
    sidecar = json.loads(paths.sidecar.read_text())
    sidecar["settings"] = {k: v for k, v in sidecar["settings"].items() if k not in ("align", "anchor", "quality")}
    sidecar["settings"]["algorithm"] = 1
    paths.sidecar.write_text(json.dumps(sidecar))
    assert not is_current(paths, SOURCE, SPEC)


def test_another_scan_whose_name_begins_the_same_is_no_version(tmp_path):
    mine, other = ResultPaths.of(tmp_path, "photo"), ResultPaths.of(tmp_path, "photo.1")
    finish(other, SPEC, b"other")
    publish(other, SPEC.version)
    assert mine.all_versions() == []
    finish(mine, SPEC, b"mine")
    assert mine.all_versions() == [mine.of_version(SPEC.version)]
