"""``doctor``: what is there is named, and what is wrong is said with what helps."""

import json
import resource
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engines.registry import backend_names
from flows.service import doctor
from pipeline.support.files import LOCK_FILE, folder_lock


def named(found):
    return {each.name: each for each in found}


@pytest.fixture
def answering(monkeypatch):
    """A Prefect server of another major version, as far as it is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'"99.1.0"' if self.path == "/api/admin/version" else b"{}")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_address[1]}/api")
        yield
        server.shutdown()
        thread.join()


def test_the_page_and_the_json_say_the_same(command, tmp_path):
    page = command("doctor", tmp_path / "colour")
    told = command("doctor", tmp_path / "colour", "--json")
    found = json.loads(told.out)
    wrong = [each for each in found["findings"] if each["trouble"]]
    assert found["is_well"] is (wrong == [])
    assert page.code == told.code == (1 if wrong else 0)
    words = page.out.split()
    assert all(each["name"].split()[-1] in words for each in found["findings"])
    assert {*backend_names(), "default", "memory", "processors", "output", "server"} <= {
        each["name"] for each in found["findings"]
    }
    assert not (tmp_path / "colour").exists()


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    well = doctor.folder_finding("output", tmp_path, 1, is_locked=True)
    assert not well.is_wrong
    assert "free" in well.value
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path):
        assert not doctor.folder_finding("output", tmp_path, 1, is_locked=True).is_wrong
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    found = doctor.folder_finding("output", tmp_path / "file" / "below", 1)
    assert "cannot be written" in found.trouble
    assert found.remedy
    assert "only" in doctor.folder_finding("output", tmp_path, 2**62).trouble


def test_a_server_that_does_not_answer_is_wrong(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (found,) = doctor._server()
    assert "does not answer" in found.trouble
    assert "PREFECT_API_URL" in found.remedy


def test_a_server_of_another_major_version_is_wrong(answering):
    (found,) = doctor._server()
    assert "99.1.0" in found.trouble


def test_no_server_of_ones_own_is_well(monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (found,) = doctor._server()
    assert not found.is_wrong


def test_too_few_open_files_are_wrong():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = named(doctor._machine())["open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit" in found.remedy
    assert "256" in found.value


def test_too_little_memory_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 2**30)
    found = named(doctor._machine())["memory"]
    assert "limited to 1.0 GiB" in found.value
    assert found.is_wrong


def test_what_cannot_be_looked_at_does_not_hide_the_rest():
    def broken():
        yield doctor.Finding("machine", "memory", "there")
        raise RuntimeError("a library's own words")

    first, second = doctor._looked("machine", broken)
    assert not first.is_wrong
    assert "a library's own words" in second.trouble


def test_an_engine_that_cannot_run_says_why_and_is_nothing_wrong():
    found = named(doctor._engines())
    assert found["auto takes"].value in backend_names()
    assert all(found[name].value and not found[name].is_wrong for name in backend_names())
