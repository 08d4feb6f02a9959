"""What Prefect's page shows of a run: a real server, the command, and the server's own answers."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.orchestration.artifacts import (
    MOST_PICTURES,
    MOST_ROWS,
    PICTURES,
    PROGRESS,
    REPORT,
    SCAN_TABLE,
    before_and_after,
    code,
    key_of,
    report_of,
    table_of,
    to_picture,
)
from flows.outcome import ScanOutcome
from pipeline.quality.figures import Quality
from pipeline.support.names import shown as shown_name
from tests.patience import PATIENCE_SECONDS, wait_until

LIMIT = "colorize-archive-cpu"


@pytest.fixture(scope="module")
def server(shared_server):
    return shared_server


def following(server, *words):
    """Start the command so that its log and artifacts go to the server's page."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", *map(str, words), "--engine", "identity"],
        env={**server.environment, "PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_LEVEL": "INFO"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def scan(path, height, width, seed):
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


@pytest.fixture(scope="module")
def night(server, tmp_path_factory):
    """A run over three scans, one of them bad, that first waits for the place which another has; and a second run."""
    folder, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("Glass plates")
    scan(folder / "large #1.png", 700, 900, 1)
    scan(folder / "small.png", 90, 120, 2)
    (folder / "letter `x`.tif").write_text("Dear archive,\n")
    (folder / "negative.cr3").write_bytes(b"?")
    before = {run["id"] for run in server.flow_runs()}
    limit = server.post("/v2/concurrency_limits/", name=LIMIT, limit=1)["id"]
    server.post("/v2/concurrency_limits/increment", names=[LIMIT], slots=1, mode="concurrency")
    process = following(server, folder, "-o", output, "--tile", 64, "--stride", 8)

    def told():
        runs = [run["id"] for run in server.flow_runs() if run["id"] not in before]
        return [line["message"] for run in runs for line in server.logs(run)]

    wait_until(lambda: any("waiting" in line for line in told()), every_seconds=0.3)
    assert not list(output.glob("*.color.tif"))
    server.post("/v2/concurrency_limits/decrement", names=[LIMIT], slots=1)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, said
    first = server.flow_runs()[0]
    again = following(server, folder, "-o", output, "--tile", 64, "--stride", 8, "--quarantine-after", 2)
    again.communicate(timeout=PATIENCE_SECONDS)
    assert server.get(f"/v2/concurrency_limits/{limit}")["active_slots"] == 0
    server.delete(f"/v2/concurrency_limits/{limit}")
    return output, first, server.flow_runs()[0]


def of_type(server, run, kind):
    return [each for each in server.artifacts(run["id"]) if each["type"] == kind]


def called(server, run, key):
    return [each for each in server.artifacts(run["id"]) if each["key"] == key]


@pytest.mark.service
def test_the_state_says_that_some_failed(night):
    _, first, second = night
    assert (first["state"]["type"], first["state"]["name"]) == ("FAILED", "Some scans failed")
    assert "2 done, 1 failed" in first["state"]["message"]
    assert "2 already there, 1 failed" in second["state"]["message"]


@pytest.mark.service
def test_the_table_has_a_row_for_each_scan_and_failures_first(server, night):
    output, first, _ = night
    (table,) = of_type(server, first, "table")
    assert table["key"] == key_of(output, SCAN_TABLE)
    rows = json.loads(table["data"])
    # After the failure the small one: it was done first.
    assert [(row["scan"], row["status"]) for row in rows] == [
        ("letter `x`", "failed"),
        ("small", "done"),
        ("large #1", "done"),
    ]
    assert rows[2]["MP"] == 0.63
    assert rows[2]["s"] > 0
    assert len(rows[2]) == 6
    assert rows[0]["to know"].startswith("not an image"), "without the path: the row says which scan it is"
    assert re.fullmatch(rf"{re.escape(output.name)}, \d{{4}}-\d\d-\d\d \d\d:\d\d", first["name"])


@pytest.mark.service
def test_the_report_names_failures_with_every_character(server, night):
    output, first, second = night
    (report,) = called(server, first, key_of(output, REPORT))
    assert report["type"] == "markdown"
    assert report["data"].startswith("# Some scans failed\n")
    assert report["description"].startswith("Some scans failed: 2 done, 1 failed")
    assert "## Failed (1)" in report["data"]
    assert "letter `x`.tif" in report["data"]
    assert "1 file not taken for scans by their endings: 1 .cr3" in report["data"]
    assert str(output / "index.html") in report["data"]
    (later,) = called(server, second, report["key"])
    assert "## Quarantined, left out from now on (1)" in later["data"]


@pytest.mark.service
def test_links_of_the_report_lead_to_the_table_and_the_pictures(server, night):
    output, first, second = night
    (report,) = called(server, first, key_of(output, REPORT))
    links = dict(re.findall(r"\[([\w ]+)\]\(/artifacts/artifact/([-\w]+)\)", report["data"]))
    keys = {each["id"]: each["key"] for each in server.artifacts(first["id"])}
    assert {title: keys[artifact] for title, artifact in links.items()} == {
        "Pictures": key_of(output, PICTURES),
        "Scan table": key_of(output, SCAN_TABLE),
    }
    (later,) = called(server, second, key_of(output, REPORT))
    assert "[Pictures]" not in later["data"], "nothing was coloured"


@pytest.mark.service
def test_pictures_show_the_scans_before_and_after_on_one_page(server, night):
    output, first, second = night
    (pictures,) = called(server, first, key_of(output, PICTURES))
    assert pictures["type"] == "markdown"
    assert re.findall(r"^### `(.*)`$", pictures["data"], re.MULTILINE) == ["small", "large #1"]
    found = re.findall(r"!\[before and after\]\(data:image/jpeg;base64,([^)]+)\)", pictures["data"])
    assert len(found) == 2
    for data in found:
        assert len(data) < 100_000
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] > 2 * picture.shape[0]
    assert called(server, second, pictures["key"]) == []


@pytest.mark.service
def test_progress_ends_at_all_of_it(server, night):
    output, first, _ = night
    progress = {each["key"]: each for each in of_type(server, first, "progress")}
    whole = progress[key_of(output, PROGRESS)]
    assert whole["data"] == 100
    assert whole["description"] == "2 of 2 scans"


@pytest.mark.service
def test_log_lines_have_the_scans_names(server, night):
    _, first, second = night
    lines = {(line["level"], line["message"]) for line in server.logs(first["id"])}
    assert any(level == 20 and text.startswith("large #1: done, 0.6 MP") for level, text in lines)
    assert any(level == 40 and text.startswith("letter `x`: ") for level, text in lines)
    assert any(level == 30 and text.startswith("waiting ") and LIMIT in text for level, text in lines)
    assert any("quarantined" in line["message"] for line in server.logs(second["id"]) if line["level"] == 40)
    assert not any(line["message"].startswith("small") for line in server.logs(second["id"]))


def test_what_is_shown_is_bounded(tmp_path):
    many = [ScanOutcome(f"s{n}", f"/s{n}.tif", "done", "", 1.0, 1, f"/o/s{n}") for n in range(MOST_ROWS + 1)]
    failed = ScanOutcome("bad", "/bad.tif", "failed", "/bad.tif: torn")
    quality = Quality(1.4, 1.4, 1.0, 2.0, 3.0, ((8, 8),))
    shows = ScanOutcome("shows", "/a.tif", "done", "", 1.0, 1, "/o/a", quality=quality)
    rows = table_of([*many, shows, failed])
    assert len(rows) == MOST_ROWS
    assert rows[0]["scan"] == "bad"
    pictures = to_picture([*many, shows, failed])
    assert len(pictures) == MOST_PICTURES
    assert pictures[0].scan == "shows"
    report = report_of([failed] * 80, "All scans failed", tmp_path, tmp_path / "r.json", 1.0)
    assert report.count("/bad.tif: torn") == 50
    assert "- and 30 more" in report


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("/colour", "colour-report"),
        ("/archive/Glass plates/colour", "glass-plates-colour-report"),
        ("/Фото", "45c2f1-report"),
        ("/srv/Ångström & Söhne", "srv-angstrom-sohne-report"),
    ],
)
def test_keys_are_plain_names_in_the_letters_that_prefect_takes(folder, key):
    from prefect.client.schemas.actions import ArtifactCreate

    assert key_of(Path(folder), REPORT) == key
    ArtifactCreate(key=key, type="markdown", data="")


def test_folders_of_other_scripts_have_keys_of_their_own():
    assert len({key_of(Path(f"/data/{name}"), REPORT) for name in ("京都", "大阪", "Фото", "photo")}) == 4


def test_a_scan_without_thumbnails_has_no_picture(tmp_path):
    assert before_and_after(tmp_path, "nothing") == ""


@pytest.mark.parametrize("text", ["plain", "`a`", "``", "a\nb", "*x* <b>"])
def test_code_in_markdown_shows_text_as_it_is(text):
    from markdown_it import MarkdownIt

    html = MarkdownIt().render(code(text))
    shown = html.removeprefix("<p><code>").removesuffix("</code></p>\n")
    assert shown.replace("&lt;", "<").replace("&gt;", ">") == " ".join(shown_name(text).split())
