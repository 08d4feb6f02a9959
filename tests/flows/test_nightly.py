"""Runs night after night: which scans they take, when they end, and what a later one makes of it."""

import errno
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import psutil
import pytest
from distributed import LocalCluster

from flows.catalogue.database import Catalogue, KnownScan
from flows.catalogue.records import scan_after
from flows.deadline import Deadline
from flows.inputs import ScanFile
from flows.options import parse_options, parse_until
from flows.outcome import ScanOutcome
from flows.run.endings import name_of
from flows.run.jobs import RunContext, ScanJob
from flows.run.passing_faults import is_passing, trying_again
from flows.run.planning import plan_scans
from flows.run.retry_policy import RetryPolicy, wait_after
from pipeline.errors import ScanUnreachableError, ScanUnreadableError, UsageError
from pipeline.support.files import folder_lock
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.prefect_server import serving
from tests.request import asked

NOW = datetime(2026, 3, 10, 22, 0, tzinfo=UTC)


@pytest.fixture
def zone(monkeypatch):
    """The machine's local time is Berlin's."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "now", "end"),
    [
        ("06:00", "2026-03-10T22:00+01:00", "2026-03-11T06:00+01:00"),
        ("06:00", "2026-03-10T05:59+01:00", "2026-03-10T06:00+01:00"),
        ("06:00", "2026-03-10T06:00+01:00", "2026-03-11T06:00+01:00"),
        # The clocks change in between: the end is at six by the clock on the wall.
        ("06:00", "2026-03-28T22:00+01:00", "2026-03-29T06:00+02:00"),
        ("06:00", "2026-10-24T22:00+02:00", "2026-10-25T06:00+01:00"),
        # Put forward from two to three: half past two is never shown, and is over at three.
        ("02:30", "2026-03-28T22:00+01:00", "2026-03-29T03:00+02:00"),
        ("02:30", "2026-03-29T01:59+01:00", "2026-03-29T03:00+02:00"),
        ("02:30", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"),
        ("2026-03-29T02:30", "2026-03-28T22:00+01:00", "2026-03-29T03:00+02:00"),
        # Put back from three to two: half past two is shown twice.
        ("02:30", "2026-10-24T22:00+02:00", "2026-10-25T02:30+02:00"),
        ("02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
        ("02:50", "2026-10-25T02:45+01:00", "2026-10-25T02:50+01:00"),
        ("02:30", "2026-10-25T02:45+01:00", "2026-10-26T02:30+01:00"),
        ("2026-10-25T02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
        ("+1h", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        ("+90m", "2026-03-10T22:00+01:00", "2026-03-10T23:30+01:00"),
        ("+8h", "2026-03-28T22:00+01:00", "2026-03-29T07:00+02:00"),
        ("+1h30m", "2026-03-10T22:00+01:00", "2026-03-10T23:30+01:00"),
        ("2026-03-11T06:00", "2026-03-10T22:00+01:00", "2026-03-11T06:00+01:00"),
        ("2026-03-11T06:00Z", "2026-03-10T22:00+01:00", "2026-03-11T07:00+01:00"),
        ("none", "2026-03-10T22:00+01:00", None),
        (None, "2026-03-10T22:00+01:00", None),
    ],
)
def test_until_is_local_time(zone, text, now, end):
    assert parse_until(text, datetime.fromisoformat(now)) == (end and datetime.fromisoformat(end))


@pytest.mark.parametrize("text", ["6", "24:00", "06:60", "+", "+0m", "-1h", "2026-03-01T06:00", "2029-01-01", "soon"])
def test_an_until_that_is_no_time_to_come_is_refused_in_a_line(zone, text):
    with pytest.raises(UsageError, match="the run would not know when to end"):
        parse_until(text, NOW)


def retry_policy(output, tmp_path, options=(), **known):
    """A history in which the scan a.tif, which is there, is known so."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"not a picture")
    state = path.stat()
    told = {"bytes": state.st_size, "modified_ns": state.st_mtime_ns, "message": f"{path}: torn", **known}
    scan = KnownScan("a", str(path), **told)
    return ScanFile(path, "a"), RetryPolicy(parse_options(asked(output, **dict(options))), {scan.key: scan}, NOW)


LATER = (NOW + timedelta(hours=1)).isoformat()
QUARANTINED = {"state": "quarantined", "failures": 3}


@pytest.mark.parametrize(
    ("known", "options", "is_held"),
    [
        ({"state": "failed", "failures": 1}, {}, False),
        ({"state": "failed", "failures": 2, "retry_after": LATER}, {}, True),
        ({"state": "failed", "failures": 2, "retry_after": NOW.isoformat()}, {}, False),
        ({"state": "failed", "failures": 2, "retry_after": "soon"}, {}, False),
        (QUARANTINED, {}, True),
        (QUARANTINED, {"retry_quarantined": True}, False),
        (QUARANTINED, {"quarantine_after": 0}, False),
        (QUARANTINED, {"force": True}, False),
        ({**QUARANTINED, "failure_kind": "damaged"}, {"salvage": True}, False),
        ({**QUARANTINED, "failure_kind": "scan", "message": "torn; give --salvage"}, {"salvage": True}, True),
        (QUARANTINED, {"salvage": True}, False),
        ({**QUARANTINED, "bytes": 5}, {}, False),
        ({"state": "done"}, {}, False),
        ({"state": "stopped"}, {}, False),
    ],
)
def test_what_failed_is_left_out_until_something_changes(tmp_path, known, options, is_held):
    scan, before = retry_policy(tmp_path, tmp_path, options, **known)
    held = before.deferred(scan)
    assert (held is not None) == is_held
    if held is not None:
        assert held.is_left_out
        assert "torn" in held.message
        assert "--retry-quarantined" in held.message


def test_a_scan_that_is_named_by_itself_is_always_tried(tmp_path):
    scan, before = retry_policy(tmp_path, tmp_path, **QUARANTINED)
    assert before.deferred(ScanFile(scan.path, scan.stem, is_named=True)) is None


def test_another_file_in_its_place_begins_anew(tmp_path):
    scan, before = retry_policy(tmp_path, tmp_path, state="failed", failures=2)
    failed = ScanOutcome("a", str(scan.path), "failed", "torn", is_scans_fault=True)
    assert before.with_retry(failed).status == "quarantined"
    scan.path.write_bytes(b"another file, torn too")
    with_retry = before.with_retry(failed)
    assert (with_retry.status, with_retry.retry_after, with_retry.file_bytes) == ("failed", "", 22)
    known = scan_after(before.scans[scan.stem, str(scan.path), 1], with_retry.to_json(), "night")
    assert (known.failures, known.bytes) == (1, 22)


def test_a_folder_that_is_a_scan_waits_like_any_other(tmp_path):
    path = tmp_path / "a.ome.zarr"
    (path / "0").mkdir(parents=True)
    (path / "zarr.json").write_text("{")
    scan, options = ScanFile(path, "a"), parse_options(asked(tmp_path))
    failed = RetryPolicy(options, {}, NOW).with_retry(
        ScanOutcome("a", str(path), "failed", "torn", is_scans_fault=True)
    )
    known = replace(scan_after(None, failed.to_json(), "night"), state="quarantined")
    assert RetryPolicy(options, {known.key: known}, NOW).deferred(scan)
    (path / "0" / "zarr.json").write_text("{}")
    assert not RetryPolicy(options, {known.key: known}, NOW).deferred(scan)


def test_planning_ends_with_the_time(tmp_path):
    """To hash and to look at an archive takes hours."""
    scans = []
    for number in range(3):
        scan(tmp_path / f"{number}.png", 50, 60, number)
        scans.append(ScanFile(tmp_path / f"{number}.png", str(number)))
    context = RunContext.of(parse_options(asked(tmp_path / "out", engine="identity")))
    planned = plan_scans(scans, context, deadline=Deadline(datetime.now(UTC)))
    assert [outcome.status for outcome in planned] == ["stopped"] * 3
    assert all(isinstance(job, ScanJob) and job.source is None for job in plan_scans(scans, context))


def test_a_run_that_comes_late_has_no_time_beyond_its_night(served, tmp_path):
    server, _ = served
    scan(tmp_path / "a.png", 60, 70, 4)
    given = {"inputs": [str(tmp_path)], "output": str(tmp_path / "out"), "engine": "identity", "until": "+2h"}
    due = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    state = server.ended(server.started({"type": "SCHEDULED", "state_details": {"scheduled_time": due}}, **given))
    assert (state["type"], state["name"]) == ("COMPLETED", "Time is up")
    assert not list((tmp_path / "out").glob("*.tif"))
    assert server.ended(server.started(**given))["name"] == "All done"


def test_waits_double_until_the_quarantine(tmp_path):
    scan, _ = retry_policy(tmp_path, tmp_path)
    failed = ScanOutcome("a", str(scan.path), "failed", "torn", is_scans_fault=True)
    waits = []
    for failures in range(6):
        _, before = retry_policy(tmp_path, tmp_path, {"quarantine_after": 6}, state="failed", failures=failures)
        with_retry = before.with_retry(failed)
        when = datetime.fromisoformat(with_retry.retry_after) if with_retry.retry_after else NOW
        waits.append((with_retry.status, (when - NOW).total_seconds() / 3600))
    assert waits == [*(("failed", hours) for hours in (0, 1, 2, 4, 8)), ("quarantined", 0)]
    assert wait_after(60) == timedelta(days=7)


def test_a_full_disk_or_a_lost_cluster_is_not_counted_against_the_scan(tmp_path):
    scan, before = retry_policy(tmp_path, tmp_path, state="failed", failures=2)
    lost = ScanOutcome("a", str(scan.path), "failed", "disk full")
    assert before.with_retry(lost) == lost


@pytest.mark.parametrize(
    ("statuses", "name"),
    [
        ("done done", "All done"),
        ("done skipped", "All done"),
        ("skipped", "Nothing to do"),
        ("", "Nothing to do"),
        ("done stopped", "Time is up"),
        ("done failed", "Some scans failed"),
        ("failed stopped", "Some scans failed"),
        ("failed skipped", "Some scans failed"),
        ("failed quarantined", "All scans failed"),
    ],
)
def test_states_tell_endings_apart(statuses, name):
    assert name_of([ScanOutcome("a", "/a", each, "", result="/o/a") for each in statuses.split()]) == name


def test_a_drive_that_is_away_for_a_moment_is_asked_again():
    """An error as readers wrap it, twice, then the work itself."""
    calls = []

    def work():
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ScanUnreadableError("a.tif: cannot be read") from OSError(errno.ESTALE, "Stale file handle")
        return "step"

    assert trying_again(work, "a.tif", Deadline(), (0.1, 0.2)) == "step"
    assert calls[1] - calls[0] >= 0.1
    assert calls[2] - calls[1] >= 0.2
    assert is_passing(ScanUnreachableError("a.tif: its drive failed"))
    assert not is_passing(ScanUnreadableError("a.tif: no picture"))
    assert not is_passing(FileNotFoundError(errno.ENOENT, "No such file"))


def test_a_drive_that_stays_away_fails_the_scan():
    calls = []

    def work():
        calls.append(1)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        trying_again(work, "a.tif", Deadline(), (0.01, 0.01))
    assert len(calls) == 3


def scan(path, height, width, seed):
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


def record(output):
    """The last run's."""
    return json.loads(max((output / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns).read_text())


def test_a_bad_scan_is_quarantined_listed_and_tried_again_when_it_changes(command, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "bad.tif").write_text("Dear archive,\n")
    scan(folder / "large.png", 200, 300, 1)
    scan(folder / "tiny.png", 60, 70, 2)
    words = ("run", folder, "-o", output, "--engine", "identity", "--quarantine-after", 1)
    first = command(*words)
    assert first.code == 1
    assert first.line("failed   ", "bad.tif", "quarantined")
    told = record(output)
    assert told["state"] == "Some scans failed"
    assert [each["scan"] for each in told["scans"]] == ["bad", "tiny", "large"]
    second = command(*words)
    assert second.code == 0
    assert "Dear" not in second.line("skipped  ", "bad.tif", "quarantined after 1 failures")
    assert second.line("1 left out after failures")
    assert record(output)["state"] == "Nothing to do"
    with Catalogue.open(output) as catalogue:
        assert [each.state for each in catalogue.scans() if each.stem == "bad"] == ["quarantined"]
    (folder / "bad.tif").unlink()
    scan(folder / "bad.tif", 50, 60, 3)
    third = command(*words)
    assert third.code == 0, third.err
    assert "1 done, 2 skipped" in third.line("done,")
    assert (output / "index.html").is_file()


@pytest.fixture(scope="module")
def served(shared_server):
    with serving(shared_server) as process:
        yield shared_server, psutil.Process(process.pid)


def test_cancelled_and_out_of_time_a_run_goes_on_to_the_same_bytes(served, command, moody, tmp_path):
    """Of one scan: cancelled on Prefect's page in the middle, then ended by its time, then done; beside an undisturbed
    run of the command."""
    server, process = served
    scan(tmp_path / "a.png", 1200, 1400, 5)
    settings = {"tile": 64, "stride": 8, "model": str(moody), "engine": "onnxruntime", "workers": 1}
    output = tmp_path / "out"
    given = {"inputs": [str(tmp_path / "a.png")], "output": str(output), **settings}

    def blocks():
        return list(output.glob("a.zarr/versions/*/chroma/c/**/*[0-9]"))

    run = server.started(**given)
    wait_until((output / "a.zarr" / "versions").is_dir)
    processes = process.children(recursive=True)
    # What the page's button and "prefect flow-run cancel" ask for.
    server.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    state = server.ended(run)
    assert (state["type"], state["name"]) == ("CANCELLED", "Cancelled")
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    assert alive == []
    assert not list(output.glob("*.color.*"))
    assert record(output)["state"] == "Cancelled"
    assert [each["status"] for each in record(output)["scans"]] == ["stopped"]

    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    there = set(blocks())
    # Blocks that no worker takes are given back when the time is up.
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        until = datetime.now(UTC) + timedelta(seconds=12)
        run = server.started(**given, scheduler=cluster.scheduler_address, until=until.isoformat())
        assert command("run", tmp_path / "a.png", "-o", tmp_path / "beside", *options).code == 0
        state = server.ended(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Time is up"), state["message"]
    assert "1 left for the next run" in state["message"]
    assert record(output)["scans"][0]["message"].endswith("the same command goes on with it")
    assert set(blocks()) == there

    state = server.ended(server.started(**given))
    assert (state["type"], state["name"]) == ("COMPLETED", "All done")
    assert there < set(blocks())
    assert (output / "a.color.tif").read_bytes() == (tmp_path / "beside" / "a.color.tif").read_bytes()


def test_a_night_that_meets_the_one_before_ends_at_once(served, tmp_path):
    server, _ = served
    scan(tmp_path / "a.png", 60, 70, 6)
    output = tmp_path / "out"
    output.mkdir()
    with folder_lock(output):
        state = server.ended(server.started(inputs=[str(tmp_path)], output=str(output), engine="identity"))
    assert (state["type"], state["name"]) == ("CANCELLED", "Another run is working on this output")
    assert "wait until it ends" in state["message"]


def test_a_folder_without_scans_and_a_wrong_parameter_are_states_of_their_own(served, tmp_path):
    server, _ = served
    (tmp_path / "in").mkdir()
    given = {"inputs": [str(tmp_path / "in")], "output": str(tmp_path / "out"), "engine": "identity"}
    runs = [server.started(**given, **more) for more in ({}, {"until": "2020-01-01"}, {"stride": 300})]
    empty, late, wide = (server.ended(run) for run in runs)
    assert (empty["type"], empty["name"]) == ("COMPLETED", "Nothing to do")
    for wrong, why in ((late, "until '2020-01-01'"), (wide, "stride 300 is larger than the tile (256)")):
        assert (wrong["type"], wrong["name"]) == ("FAILED", "Could not start")
        assert why in wrong["message"]
    assert wide["message"].endswith("give a stride of at most 256")
    for run in runs[1:]:
        said = [line["message"] for line in server.logs(run)]
        assert not any("Traceback" in line for line in said)
        assert all(len(line.splitlines()) == 1 for line in said if "stride 300" in line), said


def test_no_block_is_made_of_a_scan_that_is_forbidden_meanwhile(served, command, tmp_path):
    """By a deployment, by the command that goes on with a broken-off run, and by reprocess."""
    server, _ = served
    scan(tmp_path / "a.png", 60, 70, 7)
    output = tmp_path / "out"
    words = ("run", tmp_path / "a.png", "-o", output, "--engine", "identity", "--tile", 32)
    assert command(*words).code == 0
    blocks = sorted(output.glob("a.zarr/versions/*/chroma/c/**/*[0-9]"))
    for path in (*output.glob("a.color.*"), blocks.pop()):
        path.unlink()  # as if it had been killed before the last block
    (output / "policy.yaml").write_text("rules: [{name: later, action: never, names: [a]}]")

    def made() -> list:
        return sorted(output.glob("a.zarr/versions/*/chroma/c/**/*[0-9]")) + list(output.glob("a.color.tif"))

    given = {"inputs": [str(tmp_path / "a.png")], "output": str(output), "engine": "identity", "tile": 32}
    assert server.ended(server.started(**given))["type"] == "COMPLETED"
    told = record(output)["scans"]
    assert [(each["failure_kind"], each["tiles"]) for each in told] == [("policy", 0)]
    assert made() == blocks
    command(*words).line("a.png", "never coloured", "'later'")
    assert made() == blocks
    command("reprocess", output, "--stride", 8, "--engine", "identity").line("never coloured", "'later'")
    assert made() == blocks
