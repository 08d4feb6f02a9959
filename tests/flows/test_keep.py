"""Which versions go when there are too many."""

import json
from dataclasses import replace

import numpy as np

from flows.run.publish import prune
from pipeline.results.run_spec import RunSpec
from pipeline.results.versions import ResultPaths, publish
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats
from pipeline.types import ScanInfo

SPEC = RunSpec((256, 256), (128, 128), "hann", "openvino", "2026", "fp32", 8, "default", "ab", 128.0)


def make(store, paths, stride_px, day, finished=True):
    spec = replace(SPEC, stride_yx=(stride_px, stride_px))
    version = store.create_version(spec.version, spec.to_json(), 512, 1.0, f"2026-01-{day:02}")
    agreement = OverlapStats(*(np.zeros((*planes, 10, 10), np.float32) for planes in ((2,), (), ())))
    coloured = BlockResult(np.zeros((2, 300, 300), np.float32), agreement)
    version.write((0, 0), coloured, version.attempt, BlockTiming(1, 0.1))
    if finished:
        lies = paths.of_version(spec.version)
        lies.picture("tiff").write_bytes(b"picture")
        told = {"settings": spec.to_json(), "finished": f"2026-01-{day:02}", "pictures": {"tiff": {"bytes": 7}}}
        lies.sidecar.write_text(json.dumps(told))
    return spec.version


def prepared(tmp_path):
    store = ScanStore.create(tmp_path / "a.zarr", ScanInfo((300, 300), 1, "uint8"), Source("a", 1, "5"))
    return store, ResultPaths.of(tmp_path, "a")


def test_what_was_begun_and_never_finished_goes_before_any_picture(tmp_path):
    store, paths = prepared(tmp_path)
    first = make(store, paths, 128, 1)
    publish(paths, first)
    make(store, paths, 32, 2, finished=False)
    third = make(store, paths, 64, 3)
    before = publish(paths, third)
    prune(store, paths, third, before, 2)
    assert store.version_names() == [first, third]
    assert paths.of_version(first).picture("tiff").exists()


def test_the_version_before_stays_however_old_it_is(tmp_path):
    store, paths = prepared(tmp_path)
    oldest, newer = make(store, paths, 128, 1), make(store, paths, 64, 2)
    for version in (oldest, newer, oldest):
        publish(paths, version)
    newest = make(store, paths, 32, 3)
    before = publish(paths, newest)
    assert before == oldest
    prune(store, paths, newest, before, 2)
    assert sorted(store.version_names()) == sorted([oldest, newest])
    assert not paths.of_version(newer).picture("tiff").exists()
