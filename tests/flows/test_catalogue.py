"""The catalogue of an output folder: what it knows, whatever was killed, lost or damaged."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sqlalchemy.exc import OperationalError

from flows.catalogue.database import Catalogue, rebuild
from flows.catalogue.recorder import recording
from flows.outcome import ScanOutcome
from pipeline.errors import UsageError
from pipeline.results.run_spec import RunSpec
from pipeline.results.versions import ResultPaths, publish
from pipeline.support import fingerprint
from pipeline.support.files import folder_lock, write_json
from pipeline.support.fingerprint import KnownFile, StatFingerprint

SPEC = RunSpec((256, 256), (128, 128), "hann", "identity", "1", "fp32", 4, "default", "ab" * 32, 0.0)


def sidecar(stem, path, stride, finished):
    """As export writes it, of a version with a PNG."""
    spec = replace(SPEC, stride_yx=(stride, stride))
    return spec.version, {
        "what": "colour added by an algorithm; lightness is the scan's own",
        "finished": finished,
        "source": {
            "path": path, "page": 1, "name": Path(path).name, "bytes": 1000, "sha256": f"{len(stem):064x}",
            "height_px": 1000, "width_px": 1500, "holes": [],
        },
        "settings": spec.to_json(),
        "result": {"version": spec.version, "store": f"{Path(stem).name}.zarr"},
        "pictures": {"png": {"file": f"{Path(stem).name}.color.png", "bytes": 3, "not_carried": {}}},
        "quality": {
            "seam": 1.01, "seam_edge": 1.0, "seam_patch": 1.0, "disagreement_mean": 2.0, "disagreement_p95": 4.0,
            "strides_px": [[stride, stride]], "tiles": 12, "wanted": 0.0,
        },
        "work": {"seconds": {"ingest": 0.5, "colorize": 2.0}},
    }  # fmt: skip


def make_result(output, stem, path, stride, finished):
    """A version, published as a run publishes it."""
    version, told = sidecar(stem, path, stride, finished)
    paths = ResultPaths.of(output, stem)
    new = paths.of_version(version)
    new.sidecar.parent.mkdir(parents=True, exist_ok=True)
    new.picture("png").write_bytes(b"png")
    write_json(new.sidecar, told)
    publish(paths, version)


def outcome(stem, status, message="", page=1):
    path = f"/scans/{stem}.tif"
    done = status in ("done", "skipped")
    result = f"{stem}.color.png" if done else ""
    return ScanOutcome(
        stem, path, status, message, 1.5 if done else 0.0, 12, result, page=page, is_scans_fault=not done
    )


def of_file(each, file_bytes):
    """With what a run says of a file at fault."""
    return replace(each, file_bytes=file_bytes, file_modified_ns=file_bytes * 10**9)


def run_once(output, catalogue, number, outcomes, kind="colorize"):
    """Record a run as a run does, and write its own record."""
    run, started = f"2026-01-{number:02}T020000Z-7", f"2026-01-{number:02}T02:00:00+00:00"
    finished = f"2026-01-{number:02}T02:10:00+00:00"
    catalogue.begin_run(run, kind, started, "identity", "default")
    for each in outcomes:
        catalogue.record(run, each)
    state = "Some scans failed" if any(each.status == "failed" for each in outcomes) else "Completed"
    record = {"kind": kind, "started": started, "finished": finished, "engine": "identity", "model": "default"}
    (output / "runs").mkdir(exist_ok=True)
    scans = [each.to_json() for each in outcomes]
    write_json(output / "runs" / f"{run}.json", {**record, "state": state, "scans": scans})
    catalogue.end_run(run, finished, state)
    return run


def everything(catalogue):
    """All that a catalogue knows, without what only it knows of the files of scans that are done."""
    scans = [replace(scan, modified_ns=0, bytes=0) if scan.state == "done" else scan for scan in catalogue.scans()]
    return scans, catalogue.versions(), catalogue.runs(), catalogue.failures()


@pytest.mark.parametrize("seed", range(6))
def test_made_anew_from_the_results_it_is_the_one_that_was_recorded(tmp_path, seed):
    """Some nights of scans that are done, done otherwise, fail, come back and are quarantined."""
    chance = random.Random(seed)
    stems = [f"album/{n}" if n % 2 else f"scan{n}" for n in range(8)]
    with Catalogue.open(tmp_path) as catalogue:
        for night in range(1, 8):
            outcomes = []
            for stem in chance.sample(stems, 5):
                status = chance.choice(["done", "done", "failed", "failed", "quarantined", "stopped", "skipped"])
                if status == "skipped" and not ResultPaths.of(tmp_path, stem).sidecar.exists():
                    status = "failed"
                if status == "done":
                    stride, when = chance.choice([32, 64, 128]), f"2026-01-{night:02}T02:05:00+00:00"
                    make_result(tmp_path, stem, f"/scans/{stem}.tif", stride, when)
                each = outcome(stem, status, "cut off" if status in ("failed", "quarantined") else "")
                outcomes.append(of_file(each, chance.choice([7, 7, 9])) if each.has_failed else each)
            run_once(tmp_path, catalogue, night, outcomes, chance.choice(["colorize", "reprocess"]))
        run_once(tmp_path, catalogue, 8, [of_file(outcome(f"new{n}", "quarantined", "cut off"), 7) for n in range(2)])
        assert {scan.state for scan in catalogue.scans()} >= {"done", "quarantined"}
        catalogue.release([s.stem for s in catalogue.scans() if s.state == "quarantined"][:1])
        recorded = everything(catalogue)
    with rebuild(tmp_path) as made:
        assert everything(made) == recorded


def test_it_knows_scans_versions_runs_and_failures(tmp_path):
    make_result(tmp_path, "album/a", "/scans/album/a.tif", 128, "2026-01-01T02:05:00+00:00")
    with Catalogue.open(tmp_path) as catalogue:
        run_once(tmp_path, catalogue, 1, [outcome("album/a", "done"), outcome("b", "failed", "cut off")])
        make_result(tmp_path, "album/a", "/scans/album/a.tif", 64, "2026-01-02T02:05:00+00:00")
        run_once(tmp_path, catalogue, 2, [outcome("album/a", "done"), outcome("b", "failed", "cut off")])
        a, b = catalogue.scans()
        assert (a.state, a.megapixels, a.failures, a.sha256) == ("done", 1.5, 0, f"{len('album/a'):064x}")
        assert (b.state, b.message, b.failures) == ("failed", "cut off", 2)
        now, before = catalogue.versions("album/a")
        assert (now.is_current, now.stride, now.seam, now.seconds) == (True, "64", 1.01, 2.5)
        assert now.pictures == {"png": "album/a.color.png"}
        assert before.pictures == {"png": f"album/a.{before.version}.color.png"}
        assert all((tmp_path / each.pictures["png"]).is_file() for each in (now, before))
        assert [(run.done, run.failed, run.seconds) for run in catalogue.runs()] == [(1, 1, 600.0)] * 2
        assert len(catalogue.failures()) == 2
        run_once(tmp_path, catalogue, 3, [outcome("b", "quarantined", "cut off")])
        assert catalogue.known(Path("/scans/b.tif")).state == "quarantined"
        catalogue.release(["b"])
        assert (catalogue.known(Path("/scans/b.tif")).state, catalogue.known(Path("/scans/b.tif")).failures) == (
            "failed",
            0,
        )


def _write_for_ever(output, told):
    with Catalogue.open(output) as catalogue:
        catalogue.begin_run("r", "colorize", "2026-01-01T02:00:00+00:00", "identity", "default")
        for number in range(10**6):
            catalogue.record("r", outcome(f"s{number}", "failed", "cut off"))
            told.value = number + 1


@pytest.mark.e2e
@pytest.mark.parametrize("after", [1, 7, 40])
def test_killed_at_any_moment_it_opens_again_with_all_that_was_recorded(tmp_path, after):
    context = multiprocessing.get_context("spawn")
    told = context.Value("i", 0)
    process = context.Process(target=_write_for_ever, args=(tmp_path, told))
    process.start()
    while told.value < after and process.is_alive():
        time.sleep(0.001)
    with Catalogue.open(tmp_path) as reader:  # while it is being written
        assert len(reader.scans()) >= after
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Catalogue.open(tmp_path, is_locked=True) as catalogue:
        assert len(catalogue.scans()) in (told.value, told.value + 1)
        (run,) = catalogue.runs()
        assert run.failed == len(catalogue.scans()) == len(catalogue.failures())
        assert run.state == "killed"


def _damage_header(path):
    path.write_bytes(b"SQLite format 3\x00" + b"?" * 5000)


def _damage_page(path):
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = b"\xa5" * 8192
    path.write_bytes(data)


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _of_someone_else(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE guests (name TEXT)")


def _of_another_layout(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    "harm", [_damage_header, _damage_page, _cut, _of_someone_else, _of_another_layout, Path.unlink]
)
def test_damaged_foreign_or_lost_it_is_made_anew(tmp_path, harm):
    make_result(tmp_path, "a", "/scans/a.tif", 128, "2026-01-01T02:05:00+00:00")
    with Catalogue.open(tmp_path) as catalogue:
        run_once(tmp_path, catalogue, 1, [outcome("a", "done"), outcome("b", "failed", "cut off")])
        recorded = everything(catalogue)
    harm(tmp_path / "catalogue.sqlite")
    with Catalogue.open(tmp_path) as catalogue:
        assert everything(catalogue) == recorded
    assert (tmp_path / "catalogue.damaged.sqlite").exists() is (harm is not Path.unlink)
    assert not list(tmp_path.glob("*.part"))


def test_it_is_not_made_anew_under_a_run(tmp_path):
    with folder_lock(tmp_path):
        with pytest.raises(UsageError, match="another run"):
            Catalogue.open(tmp_path)
        Catalogue.open(tmp_path, is_locked=True).close()
        Catalogue.open(tmp_path).close()


def test_a_run_that_it_missed_is_read_from_its_record(tmp_path):
    with Catalogue.open(tmp_path) as catalogue:
        run_once(tmp_path, catalogue, 1, [outcome("b", "failed", "cut off")])
        path = tmp_path / "in.tif"
        path.write_bytes(b"scan")
        catalogue.remember(path, KnownFile(StatFingerprint.of(path), "ff" * 32))
    make_result(tmp_path, "a", "/scans/a.tif", 128, "2026-01-02T02:05:00+00:00")
    record = {"started": "2026-01-02T02:00:00+00:00", "finished": "2026-01-02T03:00:00+00:00"}
    scans = [outcome("a", "done").to_json()]
    write_json(
        tmp_path / "runs/2026-01-02T020000Z-9.json", {**record, "engine": "x", "model": "default", "scans": scans}
    )
    with Catalogue.open(tmp_path, is_locked=True) as catalogue:
        assert [run.id for run in catalogue.runs()] == ["2026-01-01T020000Z-7", "2026-01-02T020000Z-9"]
        assert catalogue.known(Path("/scans/a.tif")).state == "done"
        assert catalogue.sha256_of(path) == "ff" * 32  # hashes are in no result, and stay


def test_a_hash_is_known_until_anything_of_the_file_changes(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"scan")
    with Catalogue.open(tmp_path) as catalogue:
        assert catalogue.sha256_of(path) is None
        catalogue.remember(path, KnownFile(StatFingerprint.of(path), "ff" * 32, 3))
        assert (catalogue.sha256_of(path), catalogue.file(path).pages) == ("ff" * 32, 3)
        before = path.stat()
        path.write_bytes(b"SCAN")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the change time cannot be set back
        assert catalogue.sha256_of(path) is None
        catalogue.remember(path, KnownFile(StatFingerprint.of(path), "ee" * 32))
        (tmp_path / "new.tif").write_bytes(b"SCAN")
        os.utime(tmp_path / "new.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "new.tif", path)
        assert catalogue.sha256_of(path) is None
        path.unlink()
        assert catalogue.sha256_of(path) is None


def test_a_file_that_was_just_written_is_not_trusted_until_it_was_at_rest(tmp_path):
    """Clocks of file systems tick as slowly as every two seconds: it may be written again without a trace."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"scan")
    os.utime(path, (time.time() - 86400,) * 2)  # the modification time lies, the change time does not
    record = tmp_path / "runs" / "2026-01-01T020000Z-7.json"
    with recording(record, "colorize", "2026-01-01T02:00:00+00:00", "identity", "default") as files:
        sha256 = files.source_of(path, 1).sha256
        assert files.known(path, 1) is None
        time.sleep(2.1)
        assert files.source_of(path, 1).sha256 == sha256
        assert files.known(path, 1) == files.source_of(path, 1)
    with Catalogue.open(tmp_path) as catalogue:
        assert catalogue.sha256_of(path) == sha256


def test_pages_stay_known_when_a_file_is_hashed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_CLOCK_TICK_NS", -(10**18))
    path = tmp_path / "three.tif"
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), photometric="minisblack")
    for night in range(2):
        record = tmp_path / "runs" / f"2026-01-0{night + 1}T020000Z-7.json"
        with recording(record, "colorize", "2026-01-01T02:00:00+00:00", "identity", "default") as files:
            assert files.page_count(path) == 3
            assert {files.source_of(path, page).page for page in (1, 2, 3)} == {1, 2, 3}
    with Catalogue.open(tmp_path) as catalogue:
        assert catalogue.file(path).pages == 3


@pytest.fixture(scope="module")
def night(command, tmp_path_factory):
    """A folder of small scans, one of them cut off and one of two pages, and the output of one run."""
    folder, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    random = np.random.default_rng(5)
    for number in range(3):
        tifffile.imwrite(folder / f"card{number}.tif", random.integers(0, 256, (90 + number, 140), np.uint8))
    with tifffile.TiffWriter(folder / "two.tif") as writer:
        for _ in range(2):
            writer.write(random.integers(0, 256, (80, 60), np.uint8))
    (folder / "cut.tif").write_bytes((folder / "two.tif").read_bytes()[:1000])
    for path in folder.iterdir():  # of yesterday; their change time is now, so wait
        os.utime(path, (time.time() - 86400,) * 2)
    time.sleep(2.5)
    ran = command("run", folder, "-o", output, *IDENTITY)
    assert ran.code == 1, ran.err
    return folder, output, ran


IDENTITY = ("--engine", "identity", "--tile", "64")


def test_a_run_writes_it_and_a_catalogue_from_its_results_is_the_same(night, command):
    folder, output, ran = night
    assert "warning" not in ran.err
    with Catalogue.open(output) as catalogue:
        states = {scan.stem: (scan.state, scan.page) for scan in catalogue.scans()}
        assert states.pop("cut")[0] == "failed"
        assert states == {f"card{n}": ("done", 1) for n in range(3)} | {f"two.p00{n}": ("done", n) for n in (1, 2)}
        (run,) = catalogue.runs()
        assert (run.kind, run.state, run.done, run.failed) == ("colorize", "Some scans failed", 5, 1)
        assert (output / "runs" / f"{run.id}.json").is_file()
        assert all((output / v.pictures["tiff"]).is_file() for v in catalogue.versions())
        assert catalogue.known(folder / "cut.tif").modified_ns == (folder / "cut.tif").stat().st_mtime_ns
        recorded = everything(catalogue)
    with rebuild(output) as made:
        assert everything(made) == recorded


def test_status_says_what_is_wrong_first_and_all_of_it_to_scripts(night, command, tmp_path):
    folder, output, _ = night
    ran = command("status", output)
    lines = ran.out.splitlines()
    assert lines[0].startswith("failed       cut.tif: ")
    assert lines[1] == f"folder       {output}"
    assert lines[2].startswith("scans        6: 5 done, 1 failed; 0.0")
    assert "colorize: Some scans failed; 5 done, 1 failed" in lines[3]
    assert lines[4].startswith("version      64-32-hann-identity-")
    assert lines[4].endswith(": 5 current")
    told = json.loads(command("status", output, "--json").out)
    assert told["scans"] == {"all": 6, "done": 5, "failed": 1, "quarantined": 0, "stopped": 0}
    (failed,) = told["failed"]
    assert (failed["path"], failed["failures"]) == (str(folder / "cut.tif"), 1)
    assert json.loads(command("status", output, "--json", "--rebuild").out) == told
    (tmp_path / "holiday").mkdir()
    for nowhere in (tmp_path / "holiday", tmp_path / "none"):
        ran = command("status", nowhere)
        assert (ran.code, len(ran.lines)) == (2, 1)
        assert not list(tmp_path.rglob("catalogue*"))


def test_a_scan_that_is_as_it_was_is_not_read_again_and_one_that_changed_is(night, command):
    """The one's bytes are changed behind the catalogue's back, the other's with its modification time set back."""
    folder, output, _ = night
    path, other = folder / "card0.tif", folder / "card1.tif"
    seen = other.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with closing(sqlite3.connect(output / "catalogue.sqlite")) as connection, connection:
        status = path.stat()
        times = (status.st_mtime_ns, status.st_ctime_ns, str(path))
        connection.execute("UPDATE files SET modified_ns = ?, changed_ns = ? WHERE path = ?", times)
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    os.utime(other, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    plan = command("run", folder, "-o", output, *IDENTITY, "--dry-run")
    assert plan.out.count("skipped") == 4  # a plan takes the same shortcut
    ran = command("run", folder, "-o", output, *IDENTITY)
    assert "1 done, 4 skipped" in ran.line("done,"), ran.err
    assert ran.line("done     ", "card1")


def test_a_catalogue_that_cannot_be_kept_stops_no_run_and_the_next_one_mends_it(night, command):
    folder, output, _ = night
    with closing(sqlite3.connect(output / "catalogue.sqlite")) as connection, connection:
        fault = "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        connection.execute(f"CREATE TRIGGER fault BEFORE INSERT ON scans {fault}")
    ran = command("run", folder / "card0.tif", "-o", output, *IDENTITY, "--force")
    assert ran.code == 0, ran.err
    assert ran.line("warning", "the catalogue cannot be kept (disk is full)")
    assert "1 done" in ran.line("done,")  # by force the scan is read, whatever is known of it
    with Catalogue.open(output, is_locked=True) as catalogue:
        *_, last = catalogue.runs()
        assert (last.state, last.done) == ("All done", 1)
        assert catalogue.known(folder / "card0.tif").run == last.id


def test_a_run_that_is_killed_is_told_as_such_and_the_next_one_goes_on(command, killed, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    random = np.random.default_rng(6)
    for number in range(60):
        tifffile.imwrite(folder / f"card{number:02}.tif", random.integers(0, 256, (90, 140), np.uint8))

    def done():
        if not (output / "catalogue.sqlite").exists():
            return 0
        with closing(sqlite3.connect(f"file:{output}/catalogue.sqlite?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM scans").fetchone()[0]

    words = ("run", folder, "-o", output, *IDENTITY)
    killed(words, lambda: done() > 0)
    told = json.loads(command("status", output, "--json").out)
    assert 0 < told["scans"]["done"] <= 60
    assert [(run["state"], run["done"]) for run in told["runs"]] == [("killed", told["scans"]["done"])]
    ran = command(*words)
    assert ran.code == 0, ran.err
    told = json.loads(command("status", output, "--json").out)
    assert told["scans"]["done"] == 60
    assert [run["state"] for run in told["runs"]] in (["All done", "killed"], ["Nothing to do", "killed"])
    anew = json.loads(command("status", output, "--json", "--rebuild").out)
    assert anew == told


def test_a_failed_scan_that_was_taken_away_is_forgotten(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    output.mkdir()
    away, there, no_drive = (
        ScanOutcome(name, str(folder / name), "failed", "cut off") for name in ("a", "b", "drive/c")
    )
    (folder / "b").write_text("Dear archivist,")
    with Catalogue.open(output) as catalogue:
        run_once(output, catalogue, 1, [away, there, no_drive])
    with rebuild(output) as catalogue:
        assert len(catalogue.scans()) == 3, "only a run forgets"
    with recording(output / "runs" / "2026-01-02T020000Z-7.json", "colorize", "", "", "") as files:
        assert [scan.stem for scan in files.scans()] == ["b", "drive/c"]
    (folder / "b").unlink()  # the folder is empty: as one is whose drive is away
    with recording(output / "runs" / "2026-01-03T020000Z-7.json", "colorize", "", "", "") as files:
        assert [scan.stem for scan in files.scans()] == ["b", "drive/c"]


def test_files_of_others_among_the_records_are_passed_over(tmp_path):
    with Catalogue.open(tmp_path) as catalogue:
        run_once(tmp_path, catalogue, 1, [of_file(outcome("b", "quarantined", "cut off"), 7)])
        catalogue.remember(Path(__file__), KnownFile(StatFingerprint(1, 2, 3, 4), "ff", 1))
    before = (tmp_path / "catalogue.sqlite").stat().st_ino
    (tmp_path / "runs" / "notes.json").write_text('{"what": "mine"}')
    (tmp_path / "runs" / "half.json").write_text('{"started": ')
    with Catalogue.open(tmp_path, is_locked=True) as catalogue:
        assert [scan.state for scan in catalogue.scans()] == ["quarantined"]
    assert (tmp_path / "catalogue.sqlite").stat().st_ino == before


def test_who_may_not_write_can_read(tmp_path, monkeypatch):
    with Catalogue.open(tmp_path) as catalogue:
        run_once(tmp_path, catalogue, 1, [outcome("b", "failed", "cut off")])
    names = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Catalogue.open(tmp_path) as catalogue:
        assert [scan.stem for scan in catalogue.scans()] == ["b"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        with pytest.raises(OperationalError, match="readonly"):
            catalogue.begin_run("x", "colorize", "", "", "")


def test_released_scans_are_tried_again(command, cold_command, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    (folder / "plate [1]").mkdir(parents=True)
    for name in ("plate [1]/a.tif", "b.tif"):
        (folder / name).write_text("Dear archivist,")
    words = ("run", folder, "-o", output, *IDENTITY, "--quarantine-after", 1)
    assert command(*words).code == 1
    assert "2 left out after failures" in command(*words).err
    refused = command("release", output, "c*")
    assert (refused.code, len(refused.lines)) == (2, 1)
    ran = cold_command("release", output, "plate [1]/a")
    assert (ran.code, ran.out.split(None, 1)) == (0, ["released", "plate [1]/a\n"])
    with rebuild(output) as catalogue:
        assert {scan.stem: scan.state for scan in catalogue.scans()} == {"b": "quarantined", "plate [1]/a": "failed"}
    again = command(*words).err
    assert "1 left out after failures" in again
    assert "1 failed" in again
