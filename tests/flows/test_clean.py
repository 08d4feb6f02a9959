"""``clean``: what may go does, and nothing that a run would miss or that could not be had again."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.catalogue.database import Catalogue
from flows.run import clean
from flows.run.clean import LEFT_OVER, STORE, VERSION, Kept, Removable, clear, find_removable
from pipeline.store import ScanStore
from pipeline.support.files import folder_lock, size_bytes

ALL = {LEFT_OVER, VERSION, STORE}
SETTINGS = ("--engine", "identity", "--tile", "64")


@pytest.fixture(scope="module")
def coloured(command, tmp_path_factory):
    """A folder with one scan in two versions, and the scan."""
    scan, output = tmp_path_factory.mktemp("in") / "plate.png", tmp_path_factory.mktemp("out")
    cv2.imwrite(str(scan), np.arange(128 * 192, dtype=np.uint32).reshape(128, 192).astype(np.uint8))
    for stride in ("64", "32"):
        assert command("run", scan, "-o", output, *SETTINGS, "--stride", stride).code == 0
    return scan, output


@pytest.fixture
def copied(coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    output = tmp_path / "out"
    shutil.copytree(coloured[1], output)
    return coloured[0], output


def found_in(output, kinds=frozenset(ALL), keep=1):
    with Catalogue.open(output, is_locked=True) as catalogue:
        return find_removable(output, catalogue, kinds, keep)


def removed_from(output, **asked):
    with Catalogue.open(output, is_locked=True) as catalogue:
        found = [each for each in find_removable(output, catalogue, **asked) if isinstance(each, Removable)]
        clear(output, catalogue, found)
    return found


def kept(found):
    return {each.name.partition(" ")[0]: each.reason for each in found if isinstance(each, Kept)}


def test_after_cleaning_all_the_scan_is_still_done_and_its_result_whole(command, copied):
    scan, output = copied
    picture = (output / "plate.color.tif").read_bytes()
    before = size_bytes(output)
    told = json.loads(command("clean", output, "--versions", "--stores", "--dry-run", "--json").out)
    assert size_bytes(output) == before
    ran = command("clean", output, "--versions", "--stores")
    assert ran.code == 0, ran.err
    assert "cannot be reprocessed" in ran.out
    # This machine's temporary folder may have left-overs too.
    ours = [each for each in told["removable"] if each["kind"] != "left-over"]
    assert sorted(each["kind"] for each in ours) == ["store", "version"]
    freed = sum(each["bytes"] for each in ours)
    assert before - size_bytes(output) == pytest.approx(freed, abs=16384)  # the catalogue itself may grow by a page
    names = {path.name for path in output.iterdir()}
    assert {"plate.color.tif", "plate.color.json"} == {name for name in names if name.startswith("plate")}
    assert (output / "plate.color.tif").read_bytes() == picture
    assert command("verify", output).code == 0
    assert "1 skipped" in command("run", scan, "-o", output, *SETTINGS, "--stride", "32").err
    assert [v["is_current"] for v in json.loads(command("status", output, "--json").out)["versions"]] == [True]


def test_left_overs_of_ours_go_and_others_with_such_names_stay(copied):
    _, output = copied
    version = next((output / "plate.zarr" / "versions").iterdir())
    ours = [
        output / "plate.color.tif.part",
        output / "plate.color.tif.0123abcd.part",
        output / "plate.color.tif.c2pa.0123abcd.part",
        output / "plate.color.json.0123abcd.part",
        output / "runs" / "run.json.0123abcd.part",
        output / f"catalogue.sqlite.{'0' * 32}.part",
        output / "catalogue.damaged.sqlite",
        version / "chroma" / "x.partial",
    ]
    theirs = [output / "film.mkv.part", output / "notes.part", output / "plate.tif.part"]
    for path in (*ours, *theirs):
        path.write_bytes(b"half")
    half = output / "plate.zarr" / "versions" / "half"
    (half / "chroma").mkdir(parents=True)
    found = removed_from(output, kinds={LEFT_OVER})
    assert {each.path for each in found} == {*ours, half}
    assert [path for path in (*ours, half) if path.exists()] == []
    assert [path for path in theirs if not path.exists()] == []


def test_a_new_store_beside_the_old_one_goes_with_no_version_lost(copied):
    """As a stopped exchange leaves them."""
    _, output = copied
    versions = {path.name for path in (output / "plate.zarr" / "versions").iterdir() if path.is_dir()}
    shutil.copytree(output / "plate.zarr", output / "plate.zarr.old.part")
    removed = next(iter(sorted(versions)))
    shutil.rmtree(output / "plate.zarr" / "versions" / removed)
    shutil.copytree(output / "plate.zarr", output / "plate.zarr.part")
    shutil.move(output / "plate.zarr.old.part" / "versions" / removed, output / "plate.zarr.part" / "versions")
    assert len(removed_from(output, kinds={LEFT_OVER})) == 2
    assert set(ScanStore.open(output / "plate.zarr").version_names()) == versions
    assert sorted(path.name for path in output.glob("plate.zarr*")) == ["plate.zarr"]


def test_a_store_stays_while_something_depends_on_it(copied, tmp_path):
    scan, output = copied
    assert not kept(found_in(output, {STORE}))
    store = ScanStore.open(output / "plate.zarr", writable=True)
    settings = store.version(store.version_names()[-1]).settings
    store.create_version("begun", settings, 512, 1.0, "2026-01-01")
    assert "goes on with" in kept(found_in(output, {STORE}))["plate.zarr"]
    store.remove_version("begun")
    picture = output / "plate.color.tif"
    picture.rename(tmp_path / "away.tif")
    assert "missing" in kept(found_in(output, {STORE}))["plate.zarr"]
    (tmp_path / "away.tif").rename(picture)
    scan.rename(tmp_path / "away.png")
    try:
        assert "only copy" in kept(found_in(output, {STORE}))["plate.zarr"]
        scan.write_bytes(b"another file")
        assert "only copy" in kept(found_in(output, {STORE}))["plate.zarr"]
    finally:
        (tmp_path / "away.png").rename(scan)
    (output / "plate.color.json").unlink()
    assert "no finished result" in kept(found_in(output, {STORE}))["plate.zarr"]


def test_as_many_versions_stay_as_were_asked_for(copied):
    _, output = copied
    assert found_in(output, {VERSION}, keep=2) == []
    (version,) = found_in(output, {VERSION})
    assert version.bytes > (output / "plate.color.tif").stat().st_size
    assert "64-64" in version.name


def test_a_version_that_was_never_published_stays(copied):
    _, output = copied
    with Catalogue.open(output, is_locked=True) as catalogue:
        old = next(each for each in catalogue.versions() if not each.is_current)
        sidecar = output / f"plate.{old.version}.color.json"
        away = sidecar.rename(output / "away")
        catalogue.look_again("plate")
        away.rename(sidecar)
    assert "not yet published" in kept(found_in(output, {VERSION}))["plate"]


def test_a_folder_in_which_a_run_works_is_left_alone(command, copied):
    _, output = copied
    (output / "plate.color.tif.part").write_bytes(b"in work")
    with folder_lock(output):
        ran = command("clean", output)
    assert ran.code == 2
    assert "another run is working" in ran.err
    assert (output / "plate.color.tif.part").exists()


def test_temporary_folders_go_only_when_quiet_and_unused(copied, tmp_path, monkeypatch):
    _, output = copied
    temporary = tmp_path / "tmp"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    old = time.time() - 2 * 3600
    folders = {name: temporary / f"colorize-archive-{name}" for name in ("fresh", "killed", "used")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "prefect.db").write_bytes(b"database")
    for name in ("killed", "used"):
        for path in (folders[name] / "prefect.db", folders[name]):
            os.utime(path, (old, old))
    monkeypatch.chdir(folders["used"])
    assert [each.path for each in removed_from(output, kinds={LEFT_OVER})] == [folders["killed"]]
    assert {path.name for path in temporary.iterdir()} == {folders["fresh"].name, folders["used"].name}


def test_it_knows_the_names_of_parts_as_they_are_written():
    from pipeline.support.files import UNFINISHED

    assert clean._PARTS.fullmatch(f"a.color.json{UNFINISHED}")
    assert not clean._PARTS.fullmatch(f"film.mkv{UNFINISHED}")


def test_a_folder_that_is_no_output_folder_is_refused(command, tmp_path):
    (Path(tmp_path) / "a.color.tif.part").write_bytes(b"a")
    ran = command("clean", tmp_path)
    assert ran.code == 2
    assert "no results of a run" in ran.err
    assert (tmp_path / "a.color.tif.part").exists()
