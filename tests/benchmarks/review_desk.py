"""The review desk under load: random histories, a folder of many scans, a very large one, and hostile requests.

python -m tests.benchmarks.review_desk histories --count 10000
python -m tests.benchmarks.review_desk kills --count 300
python -m tests.benchmarks.review_desk folder --scans 10000
python -m tests.benchmarks.review_desk zoom --side 32768
python -m tests.benchmarks.review_desk zooming --minutes 60
python -m tests.benchmarks.review_desk correct COLOUR SCAN [--screenshots FOLDER]

`correct` places hints on a result that is there and takes them away again, and has axe-core look at the page, which
comes from the npm registry (``npm pack``) for this alone.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import psutil
from hypothesis import HealthCheck, Phase, given, settings

from flows.catalogue.database import rebuild
from pipeline.formats import OutputImage, write_picture
from pipeline.results.decisions import read_decisions
from pipeline.support.files import tree_sha256
from tests.chromium import Browser
from tests.killed_desk import Told, adapt, draw_scans, history
from tests.review_model import histories, played, released, sha256, spec

SCAN = Path(__file__).parents[1] / "scans" / "peasant-girls-1909.png"
_PEOPLE = 4
_TOLD_MINUTES = (1, 5, 15, 30, 60)
_HOSTILE = ("..", "%2e%2e", "%00", "\\", "/etc/passwd", "%c0%ae", "-1", "9" * 30, "a.color.tif", "catalogue.sqlite")


def random_histories(count: int) -> None:
    """Compare what the project lets out with a plain model of the rules, after each step of each history."""
    told = {"histories": 0, "looks": 0, "decisions": 0, "let out": 0}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "colour"

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(history=histories)
        def compare(history: list) -> None:
            def look(model) -> None:
                found = read_decisions(output)
                out = released(output, found)
                assert out == {stem for stem in model.made if model.goes_out(stem)}
                assert sum(map(len, found.values())) == len(model.said)
                told["looks"] += 1
                told["let out"] += len(out)

            model = played(output, history, look)
            told["histories"] += 1
            told["decisions"] += len(model.said)

        compare()
    print(", ".join(f"{number} {name}" for name, number in told.items()))
    print("0 pictures let out that policy or people forbid, 0 decisions lost")


def killed_histories(count: int) -> int:
    """Histories whose processes are killed at random moments (:mod:`tests.killed_desk`); returns how many faults."""
    told = Told()
    with tempfile.TemporaryDirectory() as folder:
        scans, template = Path(folder) / "scans", Path(folder) / "template"
        draw_scans(scans)
        words = ["run", str(scans), "--output", str(template), "--engine", "identity", "--tile", "32"]
        subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True, stderr=subprocess.DEVNULL)
        adapt(template)
        for seed in range(count):
            history(template, Path(folder) / "history", seed, told)
            if (seed + 1) % 20 == 0:
                print(f"{seed + 1} histories, {len(told.faults)} faults", *told.faults[-1:], flush=True)
    print(", ".join(f"{number} {name}" for name, number in sorted(told.counts.items())))
    print("\n".join(told.faults) or "0 pictures out that policy or people forbid, 0 decisions lost, 0 catalogues wrong")
    return len(told.faults)


def make_folder(output: Path, scans: int, image: np.ndarray, side_px: int = 0) -> None:
    """Results as a run leaves them, of the picture or a square of it repeated; all are one file under many names."""
    first = output / "first.tif"
    output.mkdir(parents=True)
    shape_yx = (side_px, side_px) if side_px else image.shape[:2]

    def window(rows: slice, columns: slice) -> np.ndarray:
        return np.take(
            np.take(image, np.arange(rows.start, rows.stop) % len(image), axis=0),
            np.arange(columns.start, columns.stop) % image.shape[1],
            axis=1,
        )

    written = write_picture("tiff", first, OutputImage(shape_yx, image.dtype, window), 2)
    told = {"file": "", "bytes": written.bytes, "sha256": tree_sha256(first), "levels": len(written.levels_yx)}
    for number in range(scans):
        stem = f"box {number // 100:03}/plate {number:05}"
        path = output / f"{stem}.color.json"
        path.parent.mkdir(exist_ok=True)
        os.link(first, path.with_name(path.name.replace(".json", ".tif")))
        source = {
            "path": f"/scans/{stem}.tif", "name": path.name, "bytes": 1, "sha256": sha256(stem, 0),
            "height_px": shape_yx[0], "width_px": shape_yx[1], "metadata": {"keywords": [], "numbers": []},
        }  # fmt: skip
        value = {
            "finished": "2026-05-04T12:00:00+00:00",
            "source": source,
            "settings": spec(0).to_json(),
            "result": {"version": spec(0).version, "store": f"{path.name.removesuffix('.color.json')}.zarr"},
            "pictures": {"tiff": told},
            "quality": None,
            "work": {"seconds": {}},
        }
        path.write_text(json.dumps(value))
    first.unlink()
    (output / "runs").mkdir()
    rebuild(output).close()


@contextlib.contextmanager
def served(output: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A desk in a process of its own: its port and its process. Prints how long it took to answer."""
    command = [sys.executable, "-m", "flows.cli", "review", str(output), "--port", "0", "--no-browser"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        print(f"server up after {time.perf_counter() - began:.1f} s")
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        try:
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def timed(path: str, connection: http.client.HTTPConnection) -> tuple[float, int, bytes]:
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    return time.perf_counter() - began, answer.status, body


def many_scans(scans: int, reviews: int) -> None:
    """Open the page of a large folder, review by keys, and ask for what is none of the asker's business."""
    image = cv2.imread(str(SCAN))[..., ::-1]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "colour"
        make_folder(output, scans, image)
        (output / "secret.txt").write_text("secret")
        with served(output) as (port, process):
            review_by_keys(Path(folder), output, port, reviews)
            refuse(port)
            print(f"memory of the server {process.memory_info().rss / 2**20:.0f} MiB")


def review_by_keys(folder: Path, output: Path, port: int, reviews: int) -> None:
    browser = Browser(folder / "profile")
    try:
        for domain in ("Runtime", "Log", "Page", "Network"):
            browser.call(f"{domain}.enable")
        browser.width(1280)
        began = time.perf_counter()
        browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
        browser.wait("window.deskIsReady === true && !!document.body.dataset.shown")
        print(f"page open, first scan shown: {time.perf_counter() - began:.2f} s")
        browser.click("#person")
        browser.type("Ada")
        browser.key("Escape")
        began = time.perf_counter()
        for number in range(reviews):
            scan = browser.value("document.body.dataset.shown")
            browser.key("aarw"[number % 4])
            browser.wait(f"document.body.dataset.shown && document.body.dataset.shown !== {scan!r}")
        seconds = time.perf_counter() - began
        time.sleep(2)
        said = read_decisions(output)
        print(f"{len(said)} of {reviews} scans decided on by keys alone, {reviews / seconds:.1f} a second")
        print(f"{len(browser.troubles())} console messages")
    finally:
        browser.close()


def refuse(port: int) -> None:
    draw, refused, read = random.Random(0), 0, 0
    for _ in range(1000):
        path = "/".join(draw.choices(_HOSTILE, k=draw.randint(1, 5)))
        start = draw.choice(["/", "/page/", "/tile/colour/0/0/0?scan=", "/api/scan?scan=", "/small/colour?scan="])
        host = draw.choice([f"127.0.0.1:{port}", "evil.example", f"evil.example:{port}"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        target = start + quote(path, safe="/%") if "?" in start else start + quote(path, safe="/%\\")
        connection.putrequest("GET", target, skip_host=True)
        connection.putheader("Host", host)
        connection.putheader("Range", "bytes=0-99999999999")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        refused += answer.status >= 400
        read += b"root:" in body or b"secret" in body or b"SQLite" in body
        connection.close()
    print(f"{refused} of 1000 hostile requests refused, {read} read a file")


def one_large(side: int, tiles: int) -> None:
    """Tiles of one very large result, at every size and anywhere."""
    image = cv2.imread(str(SCAN))[..., ::-1]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "colour"
        began = time.perf_counter()
        make_folder(output, 1, image, side)
        print(f"result of {side} x {side} pixels written in {time.perf_counter() - began:.0f} s")
        with served(output) as (port, process):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            scan = quote("box 000/plate 00000")
            seconds, _, body = timed(f"/api/scan?scan={scan}", connection)
            levels = json.loads(body)["levels"]
            first, _, _ = timed(f"/tile/colour/{len(levels) - 1}/0/0?scan={scan}", connection)
            print(f"first picture {1000 * (seconds + first):.0f} ms")
            draw, took = random.Random(0), []
            for _ in range(tiles):
                level = draw.randrange(len(levels))
                x, y = (draw.randrange(max(1, extent // 512)) for extent in levels[level])
                kind = draw.choice(["scan", "colour"])
                seconds, status, _ = timed(f"/tile/{kind}/{level}/{x}/{y}?scan={scan}", connection)
                assert status == 200
                took.append(1000 * seconds)
            slow = sorted(took)[int(0.95 * len(took))]
            print(f"{tiles} tiles: median {statistics.median(took):.0f} ms, 95 % within {slow:.0f} ms")
            print(f"memory of the server {process.memory_info().rss / 2**20:.0f} MiB")


def correct(output: Path, scan: str, count: int, screenshots: Path | None) -> None:
    """Time from the key that writes a hint until all that is in view has its new colours, at the size that fits."""
    with tempfile.TemporaryDirectory() as folder, served(output) as (port, process):
        browser = Browser(Path(folder) / "profile")
        try:
            for domain in ("Runtime", "Log", "Page", "Network"):
                browser.call(f"{domain}.enable")
            browser.width(1440, 900)
            browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/#show=all&scan={quote(scan)}")
            browser.wait("window.deskIsReady === true && !!document.body.dataset.shown")
            browser.click("#person")
            browser.type("Ada")
            browser.key("Escape")
            began = time.perf_counter()
            browser.key("c")
            browser.wait("document.getElementById('correct-words').textContent.startsWith('Click')")
            print(f"look at the whole scan: {time.perf_counter() - began:.2f} s")
            took = [place_hint(browser, number) for number in range(count)]
            print(f"{count} hints seen after {statistics.median(took):.2f} s (median), {max(took):.2f} s (longest)")
            if screenshots:
                browser.screenshot(screenshots / "review_correct.png")
            accessible(browser, Path(folder))
            for number in range(count):
                browser.key("u")
                browser.wait(f"document.getElementById('hints-count').textContent === 'Hints: {count - 1 - number}'")
            print(f"{len(browser.troubles())} console messages; server {process.memory_info().rss / 2**20:.0f} MiB")
        finally:
            browser.close()


def place_hint(browser: Browser, number: int) -> float:
    """Seconds until the hint is seen."""
    x, y, width, height = browser.value(
        "(() => { const b = document.getElementById('stage').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    place = {"x": x + width * (0.55 + 0.05 * number), "y": y + height * (0.4 + 0.06 * number)}
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)
    browser.wait("document.querySelectorAll('#swatches button').length > 1")
    browser.click(f"#swatches button:nth-child({2 + number % 2})")
    browser.value("document.activeElement.blur(); delete document.body.dataset.drawn")
    began = time.perf_counter()
    browser.key("Enter")
    browser.wait("(document.body.dataset.drawn || '').includes('hints')")
    return time.perf_counter() - began


def accessible(browser: Browser, folder: Path) -> None:
    """Print what axe-core finds serious on the page."""
    try:
        subprocess.run(["npm", "pack", "--silent", "axe-core"], cwd=folder, check=True, timeout=300)
        with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            browser.value(member.read().decode() + "; true")
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        print(f"axe-core is not at hand ({error})")
        return
    found = browser.value(
        "axe.run(document).then(r => r.violations.map(v => [v.impact, v.id, v.nodes.length, v.nodes[0].html]))"
    )
    print(f"axe-core: {sum(each[0] in ('serious', 'critical') for each in found)} serious of {len(found)} findings")
    for impact, name, count, html in found:
        print(f"  {impact} {name} x{count}: {html[:120]}")


def zooming(minutes: float, scans: int, side: int) -> float:
    """Zoom for a long time as several people would, and say what the server holds; returns the peak in MiB."""
    image = cv2.imread(str(SCAN))[..., ::-1]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "colour"
        make_folder(output, scans, image, side)
        with served(output) as (port, process):
            began, end = time.monotonic(), time.monotonic() + 60 * minutes
            with ThreadPoolExecutor(_PEOPLE) as pool:
                people = [pool.submit(_zoom, port, scans, number, end) for number in range(_PEOPLE)]
                peak = _watch(process, began, end)
                tiles = sum(person.result() for person in people)
    print(f"{tiles} tiles in {minutes:g} minutes, peak {peak:.0f} MiB")
    return peak


def _watch(process: psutil.Process, began: float, end: float) -> float:
    """The largest memory in MiB until ``end``, told at some minutes."""
    peak, told = 0.0, [minute for minute in _TOLD_MINUTES if began + 60 * minute <= end]
    while time.monotonic() < end:
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
        peak = max(peak, process.memory_info().rss / 2**20)
        while told and time.monotonic() >= began + 60 * told[0]:
            print(f"peak after {told.pop(0)} minutes {peak:.0f} MiB", flush=True)
    return peak


def _zoom(port: int, scans: int, seed: int, end: float) -> int:
    """One person: picture after picture, from the whole into some place and back; returns how many tiles he saw."""
    draw, tiles = random.Random(seed), 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.monotonic() < end:
        number = draw.randrange(scans)
        scan = quote(f"box {number // 100:03}/plate {number:05}")
        _, _, body = timed(f"/api/scan?scan={scan}", connection)
        timed(f"/small/colour?scan={scan}", connection)
        levels = json.loads(body)["levels"]
        x, y = draw.random(), draw.random()
        down = [*reversed(range(len(levels)))]
        for level in (*down, *down[::-1]):
            if time.monotonic() >= end:
                break
            across, tall = (max(1, extent // 512) for extent in levels[level])
            for kind, step in itertools.product(("scan", "colour"), (0, 1)):
                at = min(across - 1, int(x * across) + step), min(tall - 1, int(y * tall))
                _, status, _ = timed(f"/tile/{kind}/{level}/{at[0]}/{at[1]}?scan={scan}", connection)
                assert status == 200, (scan, level, at)
                tiles += 1
    return tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("histories").add_argument("--count", type=int, default=10_000)
    what.add_parser("kills").add_argument("--count", type=int, default=300)
    folder = what.add_parser("folder")
    folder.add_argument("--scans", type=int, default=10_000)
    folder.add_argument("--reviews", type=int, default=200)
    zoom = what.add_parser("zoom")
    zoom.add_argument("--side", type=int, default=32_768)
    zoom.add_argument("--tiles", type=int, default=500)
    hints = what.add_parser("correct")
    hints.add_argument("output", type=Path)
    hints.add_argument("scan")
    hints.add_argument("--count", type=int, default=5)
    hints.add_argument("--screenshots", type=Path)
    hour = what.add_parser("zooming")
    hour.add_argument("--minutes", type=float, default=60)
    hour.add_argument("--scans", type=int, default=300)
    hour.add_argument("--side", type=int, default=8192)
    given_ = parser.parse_args()
    if given_.what == "histories":
        random_histories(given_.count)
    elif given_.what == "correct":
        correct(given_.output.resolve(), given_.scan, given_.count, given_.screenshots)
    elif given_.what == "kills":
        sys.exit(killed_histories(given_.count) > 0)
    elif given_.what == "folder":
        many_scans(given_.scans, given_.reviews)
    elif given_.what == "zooming":
        zooming(given_.minutes, given_.scans, given_.side)
    else:
        one_large(given_.side, given_.tiles)


if __name__ == "__main__":
    main()
