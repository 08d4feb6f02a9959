"""Scans from a bucket, results into one: runs whose engine gives the scan back, on a cluster that is there."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tifffile

from flows.events import ScanFinished, listening
from flows.request import RunRequest
from pipeline.errors import ColorizeError, OutputError, UsageError
from pipeline.results.verify import Certificate
from tests.patience import PATIENCE_SECONDS


def picture(seed, shape_yx=(60, 90)):
    grains = np.random.default_rng(seed).random(shape_yx, np.float32)
    return cv2.normalize(cv2.GaussianBlur(grains, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def png(seed, shape_yx=(60, 90)):
    return cv2.imencode(".png", picture(seed, shape_yx))[1].tobytes()


POLICY = b"rules: [{name: later, action: never, names: [a]}]"


class _Heard:
    def __init__(self):
        self.outcomes = []

    def on(self, event):
        if isinstance(event, ScanFinished):
            self.outcomes.append(event.outcome)


@pytest.fixture
def run(bucket, shared_cluster, tmp_path):
    """Run, in this process, scans into results; returns what became of each."""
    from flows.objects.requests import colorize

    def asked(inputs, output, work="work", **given):
        heard = _Heard()
        with listening(heard):
            request = RunRequest(
                inputs=list(map(str, inputs)),
                output=str(output),
                work=str(tmp_path / work),
                **{"engine": "identity", "scheduler": shared_cluster, "tile": 64, **given},
            )
            colorize(request, None)
        return {outcome.scan: outcome for outcome in heard.outcomes}

    return asked


def _statuses(outcomes):
    return {stem: outcome.status for stem, outcome in outcomes.items()}


def _certificates(address):
    from flows.objects.verify import verify_objects

    found = list(verify_objects(address))
    assert all(isinstance(each, Certificate) and each.passes for each in found), found
    return found


def test_results_are_put_and_what_has_not_changed_is_not_fetched(objects, bucket, run, tmp_path):
    scans, output = f"s3://{bucket}/in", f"s3://{bucket}/out"
    for name in ("a", "box/b", "box/c"):
        objects.put(bucket, f"in/{name}.png", png(len(name)))
    outcomes = run([scans], output)
    assert _statuses(outcomes) == {"a": "done", "box/b": "done", "box/c": "done"}
    assert outcomes["box/b"].path == f"{scans}/box/b.png"
    assert outcomes["box/b"].result == f"{output}/box/b.color.tif"
    there = objects.keys(bucket, "out")
    assert {"out/a.color.tif", "out/a.color.json", "out/a.zarr/zarr.json", "out/index.html"} <= set(there)
    sidecar = json.loads(objects.get(bucket, "out/box/b.color.json"))
    assert sidecar["source"]["path"] == f"{scans}/box/b.png"
    assert sidecar["source"]["object"]["bytes"] == len(png(5))
    assert len(_certificates(output)) == 3
    # Only small files stay here.
    left = [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".tif", ".png")) or name in ("zarr.json", "c")]

    assert set(_statuses(run([scans], output)).values()) == {"skipped"}
    # A machine that knows nothing of it asks the bucket.
    assert set(_statuses(run([scans], output, work="other")).values()) == {"skipped"}
    objects.put(bucket, "in/a.png", png(77))
    assert _statuses(run([scans], output)) == {"a": "done", "box/b": "skipped", "box/c": "skipped"}
    assert len(_certificates(output)) == 3
    # A further format is made from the store, which is brought back.
    outcomes = run([f"{scans}/box/b.png"], f"{output}/box", formats="tiff,omezarr", work="third")
    assert _statuses(outcomes) == {"b": "done"}, outcomes["b"].message
    assert {each.picture.rpartition(".color.")[2] for each in _certificates(f"{output}/box/b.color.json")} == {
        "tif", "ome.zarr",
    }  # fmt: skip
    assert objects.keys(bucket, "out/box/b.color.tif") == {"out/box/b.color.tif": there["out/box/b.color.tif"]}


def test_from_a_bucket_to_a_folder_and_from_a_folder_to_a_bucket(objects, bucket, run, tmp_path):
    objects.put(bucket, "in/a.png", png(1))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "b.png").write_bytes(png(2, (340, 200)))
    assert _statuses(run([f"s3://{bucket}/in", tmp_path / "scans"], tmp_path / "out")) == {"a": "done", "b": "done"}
    assert (tmp_path / "out" / "a.color.tif").is_file()
    assert _statuses(run([f"s3://{bucket}/in"], tmp_path / "out")) == {"a": "skipped"}
    objects.put(bucket, "in/a.png", png(3))
    assert _statuses(run([f"s3://{bucket}/in"], tmp_path / "out")) == {"a": "done"}
    assert _statuses(run([tmp_path / "scans"], f"s3://{bucket}/out")) == {"b": "done"}
    assert _statuses(run([tmp_path / "scans"], f"s3://{bucket}/out")) == {"b": "skipped"}
    assert len(_certificates(f"s3://{bucket}/out")) == 1


def test_large_thumbnails_do_not_pile_up_here_and_stay_in_the_sheet(objects, bucket, run, tmp_path):
    objects.put(bucket, "in/a.png", png(1, (340, 200)))
    run([f"s3://{bucket}/in"], f"s3://{bucket}/out")
    key = "out/thumbs/a.before.2048.jpg"
    assert objects.keys(bucket, key)[key] > 2048
    assert [path.stat().st_size for path in (tmp_path / "work").rglob("a.before.2048.jpg")] == [1024]
    objects.put(bucket, "in/b.png", png(2))
    for work in ("work", "other"):  # another machine knows of it, too
        objects.put(bucket, "in/b.png", png(len(work)))
        assert _statuses(run([f"s3://{bucket}/in"], f"s3://{bucket}/out", work=work)) == {"a": "skipped", "b": "done"}
        assert objects.keys(bucket, key)[key] > 2048
        assert b"a.before.2048.jpg" in objects.get(bucket, "out/index.html")


def test_pages_and_pictures_that_are_folders(objects, bucket, run):
    pages = io.BytesIO()
    tifffile.imwrite(pages, np.stack([picture(1), picture(2)]), photometric="minisblack")
    objects.put(bucket, "in/letters.tif", pages.getvalue())
    every = {"letters.p001", "letters.p002"}
    assert _statuses(run([f"s3://{bucket}/in"], f"s3://{bucket}/out", formats="tiff,iiif")) == dict.fromkeys(
        every, "done"
    )
    assert len(_certificates(f"s3://{bucket}/out")) == 4
    again = run([f"s3://{bucket}/in"], f"s3://{bucket}/out", formats="tiff,iiif", work="other")
    assert _statuses(again) == dict.fromkeys(every, "skipped")
    one = next(key for key in objects.keys(bucket, "out/letters.p002.color.iiif/") if key.endswith(".jpg"))
    objects.client.delete_object(Bucket=bucket, Key=one)
    again = run([f"s3://{bucket}/in"], f"s3://{bucket}/out", formats="tiff,iiif")
    assert _statuses(again) == {"letters.p001": "skipped", "letters.p002": "done"}
    assert objects.keys(bucket, one)


def test_scans_come_in_parts_and_one_that_fails_stops_no_other(objects, bucket, run):
    for number in range(5):
        objects.put(bucket, f"in/{number}.png", png(number))
    objects.put(bucket, "in/1.png", b"\x89PNG\r\n\x1a\n broken")
    outcomes = run([f"s3://{bucket}/in"], f"s3://{bucket}/out", work_limit=str(len(png(0)) * 2))
    assert _statuses(outcomes) == {"1": "failed"} | dict.fromkeys("0234", "done")
    assert outcomes["1"].message.startswith(f"s3://{bucket}/in/1.png: ")
    assert len([key for key in objects.keys(bucket, "out/runs") if key.endswith(".json")]) > 1
    # Later parts know of the failures of earlier ones, and later runs count them.
    assert b"in/1.png" in objects.get(bucket, "out/index.html")
    objects.put(bucket, "in/2.png", png(22))
    again = run([f"s3://{bucket}/in"], f"s3://{bucket}/out", work_limit="1", quarantine_after=2)
    assert _statuses(again) == {"1": "quarantined", "2": "done"} | dict.fromkeys("034", "skipped")
    assert b"in/1.png" in objects.get(bucket, "out/index.html")


def test_a_scan_whose_name_changed_in_case_keeps_its_results(objects, bucket, run):
    objects.put(bucket, "in/A.png", png(1))
    run([f"s3://{bucket}/in"], f"s3://{bucket}/out")
    before = objects.keys(bucket, "out/A.")
    objects.client.delete_object(Bucket=bucket, Key="in/A.png")
    objects.put(bucket, "in/a.png", png(1))
    again = run([f"s3://{bucket}/in"], f"s3://{bucket}/out", formats="tiff,png")
    assert _statuses(again) == {"A": "done"}
    assert set(objects.keys(bucket, "out/A.")) == {*before, "out/A.color.png"}
    assert len(_certificates(f"s3://{bucket}/out")) == 2


def test_a_name_that_no_object_can_have_is_refused_for_that_scan(bucket, run, tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("a.png", "b\t.png"):
        (tmp_path / "scans" / name).write_bytes(png(1))
    outcomes = run([tmp_path / "scans"], f"s3://{bucket}/out")
    assert sorted(_statuses(outcomes).values()) == ["done", "failed"]
    assert "control character" in next(each.message for each in outcomes.values() if each.status == "failed")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        run([f"s3://{bucket}/out/index.html"], tmp_path / "file" / "out")


def test_what_may_no_longer_go_out_is_withdrawn_also_when_nothing_is_due(objects, bucket, run, tmp_path):
    objects.put(bucket, "in/a.png", png(1))
    scans, output = [f"s3://{bucket}/in"], tmp_path / "out"
    run(scans, output, formats="tiff,iiif")
    assert (output / "a.color.iiif").is_dir()
    (output / "policy.yaml").write_bytes(POLICY)
    run(scans, output, formats="tiff")
    assert not (output / "a.color.iiif").exists()

    output = f"s3://{bucket}/out"
    objects.put(bucket, "in/b.png", png(2))
    run(scans, output, formats="tiff,iiif")
    objects.put(bucket, "out/a.color.tif.c2pa", b"signed")
    assert objects.keys(bucket, "out/a.color.iiif/")
    objects.put(bucket, "out/policy.yaml", POLICY)
    for work in ("work", "other"):
        run(scans, output, formats="tiff", work=work)
        assert not objects.keys(bucket, "out/a.color.iiif/") | objects.keys(bucket, "out/a.color.tif.c2pa")
        assert "iiif" not in json.loads(objects.get(bucket, "out/a.color.json"))["pictures"]
        assert len(objects.keys(bucket, "out/runs/withdrawn/")) == 1
    assert objects.keys(bucket, "out/b.color.iiif/")
    assert objects.keys(bucket, "out/a.zarr/")
    objects.put(bucket, "out/foreign.ome.zarr/zarr.json", b"{}")  # a scan, and no result
    assert len(_certificates(output)) == 3


def test_a_result_is_the_old_one_or_the_new_one_wherever_putting_it_stops(objects, bucket, run, monkeypatch):
    from flows.objects.bucket import Bucket

    objects.put(bucket, "in/a.png", png(1))
    run([f"s3://{bucket}/in"], f"s3://{bucket}/out")
    put, left = Bucket.put, [0]

    def stopping(self, key, data):
        if left[0] == 0:
            raise OutputError("the machine stopped")
        left[0] -= 1
        return put(self, key, data)

    for count in range(1, 12, 2):  # the first is the probe of the rights
        objects.put(bucket, "in/a.png", png(10 + count))
        before = json.loads(objects.get(bucket, "out/a.color.json"))
        left[0] = count
        monkeypatch.setattr(Bucket, "put", stopping)
        try:
            run([f"s3://{bucket}/in"], f"s3://{bucket}/out")
        except ColorizeError:
            after = json.loads(objects.get(bucket, "out/a.color.json"))
            assert after["source"]["sha256"] in (
                before["source"]["sha256"],
                hashlib.sha256(png(10 + count)).hexdigest(),
            )
        monkeypatch.setattr(Bucket, "put", put)
        assert _statuses(run([f"s3://{bucket}/in"], f"s3://{bucket}/out")).keys() == {"a"}
        sidecar = json.loads(objects.get(bucket, "out/a.color.json"))
        assert sidecar["source"]["sha256"] == hashlib.sha256(png(10 + count)).hexdigest()
        assert len(_certificates(f"s3://{bucket}/out")) == 1


def test_killed_commands_lose_nothing(objects, bucket, run, shared_cluster, tmp_path):
    for number in range(6):
        objects.put(bucket, f"in/{number}.png", png(number))
    run([f"s3://{bucket}/in"], f"s3://{bucket}/undisturbed")
    words = [
        "run", f"s3://{bucket}/in", "-o", f"s3://{bucket}/out", "--work", tmp_path / "killed", "--engine", "identity",
        "--tile", "64", "--scheduler", shared_cluster,
    ]  # fmt: skip
    for count in (3, 25):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, words)], env=dict(os.environ), start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(objects.keys(bucket, "out/")) < count and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(objects.keys(bucket, "out/")) >= count
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for key in objects.keys(bucket, "out/"):
            if key.endswith(".color.json"):
                picture = json.loads(objects.get(bucket, key))["pictures"]["tiff"]
                there = objects.get(bucket, f"out/{picture['file']}")
                assert hashlib.sha256(there).hexdigest() == picture["sha256"]
    run([f"s3://{bucket}/in"], f"s3://{bucket}/out", work="killed")
    for number in range(6):
        name = f"{number}.color.tif"
        assert objects.get(bucket, f"out/{name}") == objects.get(bucket, f"undisturbed/{name}")
    assert len(_certificates(f"s3://{bucket}/out")) == 6
