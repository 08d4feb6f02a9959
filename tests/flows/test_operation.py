"""What an operator finds after a run that met something: its log, its state, and what was counted against the scans."""

from __future__ import annotations

import json
import logging
import pickle
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from distributed import KilledWorker
from distributed.comm import CommClosedError
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from engines.spec import EngineSpec
from flows.catalogue.database import Catalogue, KnownRun, KnownScan
from flows.catalogue.records import scan_after
from flows.cluster import worker
from flows.cluster.worker import AnchorTask, BlockFailed, run_anchors
from flows.deadline import Deadline, counting_from
from flows.inputs import ScanFile
from flows.options import parse_options
from flows.orchestration import colorize
from flows.outcome import KILLED
from flows.run import batches, requests, running, stages
from flows.run.planning import failure
from flows.run.retry_policy import RetryPolicy
from flows.run.run_log import keep_traceback, logging_to
from pipeline.errors import (
    OutputError,
    ScanDamagedError,
    ScanUnreachableError,
    ScanUnreadableError,
    StoreBusyError,
    UsageError,
)
from pipeline.palettes.answers import Taste
from tests.request import asked

SCAN = ScanFile(Path("/scans/a.tif"), "a")


@pytest.mark.parametrize(
    ("error", "kind", "is_counted"),
    [
        (ScanDamagedError("/scans/a.tif: cut off"), "damaged", True),
        (ScanUnreadableError("/scans/a.tif: no picture"), "scan", True),
        (ScanUnreachableError("/scans/a.tif: its drive failed"), "disk", False),
        (OutputError("/out: disk full"), "disk", False),
        (OSError(5, "Input/output error"), "disk", False),
        (UsageError("/scans/a.tif: too large"), "request", False),
        (MemoryError(), "memory", False),
        (StoreBusyError("/out/a.zarr: other workers write it"), "busy", False),
        (CommClosedError("gone"), "cluster", False),
        (CancelledError(), "cluster", False),
        (KilledWorker("task", "worker", 3), "killed", True),
        (TypeError("a bug"), "unforeseen", True),
    ],
)
def test_why_a_scan_failed_is_told_by_what_was_raised(error, kind, is_counted, tmp_path):
    with logging_to(tmp_path / "log"):
        outcome = failure(SCAN, error)
    assert (outcome.failure_kind, outcome.is_scans_fault) == (kind, is_counted)


def test_salvage_is_offered_for_damage_and_not_for_the_word():
    assert "--salvage" in failure(SCAN, ScanDamagedError("torn"), can_salvage=True).message
    assert "--salvage" not in failure(SCAN, ScanUnreadableError("/scans/a.tif: damaged"), can_salvage=True).message


# A restart is nobody's failure

NIGHTS = [KnownRun("night", "colorize", "", "", "", "", "All done")]


def failed_in(tmp_path, run_state, failures):
    path = tmp_path / "a.tif"
    path.write_bytes(b"not a picture")
    state = path.stat()
    known = KnownScan(
        "a",
        str(path),
        bytes=state.st_size,
        modified_ns=state.st_mtime_ns,
        state="failed",
        failures=failures,
        retry_after=(datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        message="torn",
        run="broken",
        failure_kind="scan",
    )
    runs = [*NIGHTS, KnownRun("broken", "colorize", "", "", "", "", run_state)]
    return ScanFile(path, "a"), known, RetryPolicy.of(parse_options(asked(tmp_path)), [known], runs)


@pytest.mark.parametrize("run_state", [KILLED, "Cancelled", "Broke off"])
def test_what_failed_in_a_run_that_was_broken_off_is_tried_again_and_counts_once(tmp_path, run_state):
    scan, known, retry_policy = failed_in(tmp_path, run_state, 2)
    assert retry_policy.deferred(scan) is None
    with_retry = retry_policy.with_retry(failure(scan, ScanUnreadableError("torn")))
    assert (with_retry.status, with_retry.failures) == ("failed", 2)
    assert scan_after(known, with_retry.to_json(), "next").failures == 2


def test_what_failed_in_a_run_that_ended_counts_again(tmp_path):
    scan, known, retry_policy = failed_in(tmp_path, "Some scans failed", 2)
    assert retry_policy.deferred(scan) is not None
    with_retry = retry_policy.with_retry(failure(scan, ScanUnreadableError("torn")))
    assert (with_retry.status, with_retry.failures) == ("quarantined", 3)
    assert scan_after(known, with_retry.to_json(), "next").failures == 3


def test_errors_of_a_run_that_is_being_cancelled_are_nobodys(tmp_path):
    deadline = Deadline()
    job = SimpleNamespace(scan=SCAN, plan=SimpleNamespace(blocks=4), info=SimpleNamespace(megapixels=1.0))
    deadline.cancel()
    ended = (
        batches.ScanProgress(job).ended_by(RuntimeError("cannot schedule new futures after shutdown"), deadline).ended
    )
    assert ended.status == "stopped"


# What nobody foresaw


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        samples = np.random.default_rng(number).integers(0, 256, (60, 70), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), samples)
    return folder


@pytest.fixture
def run(shared_server, scans, tmp_path):
    """The flow in this process: the state that it ends in, its record where it has one, and its log."""

    def run(**more):
        given = {"inputs": [str(scans)], "output": str(tmp_path / "out"), "engine": "identity", "workers": 1, **more}
        with temporary_settings({PREFECT_API_URL: shared_server.url, PREFECT_LOGGING_TO_API_ENABLED: False}):
            state = colorize.colorize_archive(**given, return_state=True)
        records = list((tmp_path / "out").glob("runs/*.json"))
        (log,) = (tmp_path / "out").glob("runs/*.log")
        return state, json.loads(records[0].read_text()) if records else None, log

    return run


def test_an_error_of_a_stage_is_a_line_that_names_the_log_with_its_traceback(run, monkeypatch, capfd):
    real = stages.ingest

    def ingest(path, *rest):
        if path.name == "0.png":
            raise TypeError("a bug of ours")
        return real(path, *rest)

    monkeypatch.setattr(stages, "ingest", ingest)
    state, record, log = run()
    assert state.name == "Some scans failed"
    failed, done = sorted(record["scans"], key=lambda scan: scan["scan"])
    assert (failed["status"], failed["failure_kind"], done["status"]) == ("failed", "unforeseen", "done")
    assert failed["message"].endswith(f"0.png: TypeError: a bug of ours; its traceback is in {log}")
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert 'raise TypeError("a bug of ours")' in text
    assert "done: " in text
    assert "a bug of ours" not in capfd.readouterr().err


def test_an_error_of_the_run_itself_is_a_state_that_names_the_log(run, monkeypatch, tmp_path):
    def scan_batches(_):
        raise ZeroDivisionError("nobody saw it coming")

    monkeypatch.setattr(running, "scan_batches", scan_batches)
    state, record, log = run()
    assert (state.name, record) == ("Broke off", None)
    assert state.message == f"ZeroDivisionError: nobody saw it coming; its traceback is in {log}"
    assert "in scan_batches" in log.read_text()
    with Catalogue.open(tmp_path / "out") as catalogue:
        assert [each.state for each in catalogue.runs()] == ["Broke off"]


def test_the_time_of_a_run_counts_from_its_command(run):
    """Prefect's server may have taken minutes to start in between."""
    with counting_from(datetime.now(UTC) - timedelta(minutes=5)):
        state, record, _ = run(until="+1m")
    assert state.name == "Time is up"
    assert [scan["status"] for scan in record["scans"]] == ["stopped", "stopped"]


def test_ctrl_c_while_it_plans_is_recorded_as_that(run, monkeypatch, tmp_path):
    def plan_scans(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(requests, "plan_scans", plan_scans)
    state, record, _ = run()
    assert (state.type.name, state.name) == ("CANCELLED", "Cancelled")
    assert record["state"] == "Cancelled"
    with Catalogue.open(tmp_path / "out") as catalogue:
        assert [each.state for each in catalogue.runs()] == ["Cancelled"]


def test_an_error_in_a_worker_travels_with_its_traceback_and_is_in_the_workers_log(monkeypatch, tmp_path):
    class OddError(Exception):
        """As of libraries: it needs two arguments, so it cannot be unpickled."""

        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    def opened(_):
        raise OddError("not", "foreseen")

    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("distributed.worker.blocks")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logger, "level", logging.INFO)  # a run's own cluster has silenced it here
    logger.manager._clear_cache()
    monkeypatch.setattr(worker.ScanStore, "open", opened)
    spec = EngineSpec("identity", "", (8, 8), 1, 1)
    (failed,) = run_anchors((AnchorTask("a", tmp_path / "a.zarr", "v", "1", spec, Taste()),))
    logger.removeHandler(handler)
    assert isinstance(failed, BlockFailed)
    assert [record.exc_info[0] for record in heard] == [OddError]
    with logging_to(tmp_path / "run.log"):
        outcome = failure(SCAN, pickle.loads(pickle.dumps(failed)).error)
    assert outcome.message == "/scans/a.tif: RuntimeError: OddError: not foreseen"
    assert 'raise OddError("not", "foreseen")' in (tmp_path / "run.log").read_text()


def test_a_log_that_cannot_be_written_stops_nobody_and_loses_nothing(tmp_path, capfd):
    (tmp_path / "file").write_text("in the way")
    with logging_to(tmp_path / "file" / "run.log"):
        logging.getLogger("flows.x").info("told")
        logging.getLogger("flows.x").error("a traceback")
    assert capfd.readouterr().err == "a traceback\n"


def test_without_a_run_the_traceback_lies_in_the_users_own_log(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        raise ValueError("odd")
    except ValueError as error:
        log = keep_traceback(error, "verify")
    assert log.is_relative_to(tmp_path)
    assert "ValueError: odd" in log.read_text()
