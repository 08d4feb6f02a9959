"""The contact sheet in a real browser, from the disk: a run's own results, hostile names, five hundred entries."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import cv2
import numpy as np
import pytest

from flows.catalogue.database import rebuild
from flows.sheet.contact_sheet import write_sheet
from pipeline.errors import OutputError
from pipeline.support.names import shown
from tests.chromium import Browser, chromium, fits

# The folder's "<" and the file's name make "</script>" of a path.
HOSTILE = (
    "a<",
    "script><img src=x onerror=window.hacked=1>.png",
    "quote\"'><svg onload=window.hacked=2>.png",
    "<!--<script>window.hacked=3.png",
    "50 % & #1 ?x=1 Köln.png",
    "javascript:window.hacked=4.png",
    "&lt;b&gt; \u2028 \u202egnp.png",
    "back\\slash.png",
)
ENTRIES = 500
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd > 0"
DRAWN = "performance.getEntriesByName('drawn').length > 0"
NAMES = "[...document.querySelectorAll('#sheet h3')].map(e => e.textContent)"
TROUBLES = "[...document.querySelectorAll('#troubles h3')].map(e => e.textContent)"

# Ratio and element, as WCAG 2.2 (1.4.3) counts it.
WORST_CONTRAST = """(() => {
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  let worst = [99, ""];
  for (const e of document.querySelectorAll("body *")) {
    if (!speaks(e) || !e.checkVisibility() || e.closest("[disabled]")) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 200)];
  }
  return worst;
})()"""


def draw(path: Path) -> None:
    rows, columns = np.mgrid[:300, :420]
    cv2.imwrite(str(path), ((rows + columns) % 256).astype(np.uint8))


@pytest.fixture(scope="module")
def output(command, tmp_path_factory) -> Path:
    """A run's own results: hostile names, a text file, a file that is cut off; and their contact sheet."""
    scans, output = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("out") / "album #1 <b>"
    (scans / HOSTILE[0]).mkdir()
    for name in HOSTILE[1:]:
        draw(scans / HOSTILE[0] / name if name.startswith("script>") else scans / name)
    (scans / "letter.tif").write_text("Dear sir, </script><script>window.hacked=5</script>")
    whole = (scans / HOSTILE[-1]).read_bytes()
    (scans / "cut off.png").write_bytes(whole[: len(whole) // 2])
    ran = command("run", scans, "--output", output, "--engine", "identity", "--format", "tiff,jpeg")
    assert ran.code == 1, ran.err
    (output / "index.html").unlink(missing_ok=True)  # the command makes it anew
    made = command("sheet", output)
    assert (made.code, made.out.strip()) == (0, str(output / "index.html"))
    return output


@pytest.fixture(scope="module")
def archive(output, tmp_path_factory) -> Path:
    """Five hundred results, twenty of which failed since or before, some with warnings."""
    archive = tmp_path_factory.mktemp("archive")
    stem = HOSTILE[-1].removesuffix(".png")
    told = json.loads((output / f"{stem}.color.json").read_text())
    told["pictures"] = {"tiff": told["pictures"]["tiff"]}
    (archive / "thumbs").mkdir()
    chance = random.Random(4)
    failed = [failure(f"plate {n:03}") for n in range(0, ENTRIES, 25)]
    for n in range(ENTRIES):
        name = f"plate {n:03}"
        if n % 50 == 0:
            continue  # it has never been coloured
        told["source"]["path"] = f"/scans/{name}.png"
        told["quality"] |= {"seam": round(chance.uniform(0.9, 1.3), 4), "disagreement_mean": chance.uniform(0, 9)}
        told["quality"]["doubt"] = {"expected": (5, 9, 16)[n % 3], "low": 4, "high": 19}
        told["work"]["seconds"] = {"colorize": chance.uniform(0.5, 7000)}
        told["source"]["width_px"] = chance.randint(100, 30_000)
        told["source"]["depth"] = "uint16" if n % 2 else "uint8"
        told["settings"]["window"] = "average" if n % 7 == 0 else "hann"
        told["source"]["holes"] = [[0, 9, 0, 9]] if n % 100 == 7 else []
        (archive / f"{name}.color.json").write_text(json.dumps(told))
        for kind in ("before", "after"):
            shutil.copyfile(output / "thumbs" / f"{stem}.{kind}.jpg", archive / "thumbs" / f"{name}.{kind}.jpg")
    (archive / "runs").mkdir()
    run = json.loads(next((output / "runs").glob("*.json")).read_text()) | {"scans": failed}
    (archive / "runs" / "2026-01-01T000000Z-1.json").write_text(json.dumps(run))
    make(archive)
    return archive


def failure(name: str) -> dict[str, Any]:
    path = f"/scans/{name}.png"
    message = f"{path}: cut off: no end; copy it again"
    return {"scan": name, "path": path, "status": "failed", "message": message, "megapixels": 0.0}


def make(output: Path) -> Path:
    with rebuild(output) as catalogue:
        return write_sheet(output, catalogue)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile"), "the contact sheet") as opened:
        yield opened


@pytest.fixture
def browser(opened: Browser) -> Browser:
    opened.events.clear()
    opened.width(1400, 900)
    opened.scheme("light")
    return opened


def visit(browser: Browser, page: Path) -> None:
    browser.call("Page.navigate", url="about:blank")
    browser.open(page)
    browser.wait(DRAWN)


def choose(browser: Browser, select: str, value: str) -> None:
    browser.value(
        f"(() => {{ const e = document.getElementById({json.dumps(select)}); e.value = {json.dumps(value)}; "
        "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def search(browser: Browser, text: str) -> None:
    browser.key("/")
    browser.value("document.activeElement.select()")
    browser.type(text)


def entries(page: Path) -> list[dict[str, Any]]:
    text = page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    return json.loads(text)["entries"]


def seconds_until_there(browser: Browser, page: Path) -> float:
    """From the navigation on, until the list is drawn and all that the page itself waits for is loaded."""
    visit(browser, page)
    browser.wait(LOADED)
    drawn = browser.value("performance.getEntriesByName('drawn')[0].startTime")
    return max(drawn, browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd")) / 1000


def test_five_hundred_entries_are_there_at_once(browser: Browser, archive: Path) -> None:
    browser.call("Network.setCacheDisabled", cacheDisabled=True)
    visit(browser, archive / "index.html")
    browser.wait("[...document.images].some(e => e.complete && e.naturalWidth)")
    assert browser.value("document.querySelectorAll('#sheet > li, #troubles > li').length") == ENTRIES
    assert browser.value("document.getElementById('count').textContent") == f"{ENTRIES} scans"
    assert browser.value("document.querySelectorAll('img').length") == 2 * (ENTRIES - 10)
    loaded = browser.value("[...document.images].filter(e => e.complete && e.naturalWidth).length")
    assert 0 < loaded < ENTRIES  # those far below are not asked for yet
    assert not browser.troubles()
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests())
    # The best of several: another process of a shared machine can make any one of them late.
    assert min(seconds_until_there(browser, archive / "index.html") for _ in range(5)) < 2
    browser.call("Network.setCacheDisabled", cacheDisabled=False)


def test_failures_come_first_with_their_reason(browser: Browser, archive: Path) -> None:
    visit(browser, archive / "index.html")
    assert browser.value(TROUBLES) == [f"plate {n:03}.png" for n in range(0, ENTRIES, 25)]
    # Some have a result all the same, from before: it stays in sight.
    first, second = browser.value("[...document.querySelectorAll('#troubles > li')].slice(0, 2).map(e => e.innerText)")
    assert "FAILED" in first
    assert "cut off: no end; copy it again" in first
    assert "failed once" in first
    assert "earlier result" in second
    assert "earlier result" not in first
    above, below = browser.value(
        "['troubles', 'sheet'].map(id => document.getElementById(id).getBoundingClientRect().y)"
    )
    assert above < below


def test_search_by_name_state_and_settings(browser: Browser, archive: Path) -> None:
    visit(browser, archive / "index.html")
    count = "document.getElementById('count').textContent"
    search(browser, 'hann "PLATE 12"')
    assert browser.value(NAMES) == [f"plate {n}.png" for n in range(120, 130) if n % 7 and n != 125]
    assert browser.value(TROUBLES) == ["plate 125.png"]
    assert browser.value(count) == f"9 of {ENTRIES} scans"
    browser.call("Page.reload")  # what was chosen stands in the address
    browser.wait(DRAWN)
    assert browser.value(count) == f"9 of {ENTRIES} scans"
    search(browser, "nothing like this")
    assert browser.value("document.getElementById('empty').hidden") is False
    browser.click("#clear")
    assert browser.value(count) == f"{ENTRIES} scans"
    choose(browser, "state", "failed")
    assert (browser.value(NAMES), len(browser.value(TROUBLES))) == ([], 20)
    choose(browser, "state", "warnings")
    assert browser.value(NAMES) == [f"plate {n:03}.png" for n in range(7, ENTRIES, 100)]
    choose(browser, "state", "doubtful")
    doubtful = [
        entry["title"] for entry in entries(archive / "index.html") if entry.get("doubt") in ("unsure", "a guess")
    ]
    assert 200 < len(doubtful) < 400
    assert sorted(browser.value(NAMES) + browser.value(TROUBLES)) == sorted(doubtful)
    assert browser.value("document.querySelector('.card .soft').textContent").endswith(
        ("colours unsure", "colours a guess")
    )
    choose(browser, "state", "")
    options = browser.value("[...document.getElementById('settings').options].map(e => e.value)")
    (average,) = [value for value in options if "average" in value]
    choose(browser, "settings", average)
    assert browser.value(NAMES) == [f"plate {n:03}.png" for n in range(0, ENTRIES, 7) if n % 25]
    assert not browser.troubles()


@pytest.mark.parametrize("key", ["name", "finished", "megapixels", "seconds", "seam", "disagreement"])
def test_sort(key: str, browser: Browser, archive: Path) -> None:
    visit(browser, archive / "index.html")
    done = [entry for entry in entries(archive / "index.html") if entry["state"] == "done"]
    choose(browser, "sort", key)
    falling = key != "name"
    for turned in (False, True):
        expected = sorted(done, key=lambda entry: entry["name"])
        expected.sort(key=lambda entry: entry[key], reverse=falling != turned)
        assert browser.value(NAMES) == [entry["title"] for entry in expected]
        assert len(browser.value(TROUBLES)) == 20
        browser.click("#turn")


def test_times_are_those_of_whoever_reads(browser: Browser, archive: Path) -> None:
    browser.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kathmandu")
    visit(browser, archive / "index.html")
    made = datetime.fromisoformat(browser.value("data.made")).astimezone(timezone(timedelta(hours=5, minutes=45)))
    shown = browser.value("document.getElementById('made').textContent")
    browser.call("Emulation.setTimezoneOverride", timezoneId="")
    assert f"{made:%M}" in shown
    assert f"{int(f'{made:%I}')}:{made:%M}" in shown or f"{made:%H:%M}" in shown


def test_four_hundred_pixels(browser: Browser, archive: Path, output: Path) -> None:
    browser.width(400)
    for folder in (archive, output):
        visit(browser, folder / "index.html")
        assert fits(browser)
        browser.click(".card .open")
        browser.wait("document.getElementById('details').open")
        assert fits(browser)
        wide = "document.querySelector('#details').scrollWidth <= document.querySelector('#details').clientWidth"
        assert browser.value(wide)
        browser.key("Escape")
        small = "[...document.querySelectorAll('body *')].filter(e => e.offsetParent && e.childNodes.length === 1 &&"
        small += " e.firstChild.nodeType === 3 && parseFloat(getComputedStyle(e).fontSize) < 12).length"
        assert browser.value(small) == 0


def test_hostile_names_are_text_and_their_links_are_right(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    names = (f"{HOSTILE[0]}/{HOSTILE[1]}", *HOSTILE[2:])
    stems = {shown(name) for name in names}
    assert "&lt;b&gt; \\u2028 \\u202egnp.png" in stems  # nothing that breaks or turns a line
    assert set(browser.value(NAMES)) == stems
    assert set(browser.value(TROUBLES)) == {"letter.tif", "cut off.png"}
    assert browser.value("document.title") == "album #1 <b>, contact sheet"
    links = []
    for n in range(len(stems)):
        browser.value(f"document.querySelectorAll('#sheet .open')[{n}].click()")
        links += browser.value("[...document.querySelectorAll('#details a')].map(e => e.href)")
        browser.wait("[...document.querySelectorAll('#details img')].every(e => e.complete && e.naturalWidth === 420)")
        browser.click("#close")
    found = [Path(unquote_to_bytes(urlsplit(link).path).decode()) for link in links]
    assert {urlsplit(link)._replace(path="") for link in links} == {urlsplit("file:")}  # no query, no fragment
    assert all(path.is_file() for path in found), found
    assert len(set(found)) >= 4 * len(stems)  # scan, JSON and two pictures each
    browser.value("document.getElementById('sheet').scrollIntoView({block: 'end'})")
    browser.wait("[...document.querySelectorAll('main img')].every(e => e.complete && e.naturalWidth === 320)")
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.value("document.querySelectorAll('svg, main b, main script').length") == 0
    assert not browser.troubles()


def test_no_script_but_the_pages_own_may_run(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=window.hacked=1>')")
    browser.value("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked=2'}))")
    assert browser.value("new Promise(done => setTimeout(() => done(typeof window.hacked), 200))") == "undefined"
    assert browser.troubles()


def test_by_keyboard_alone(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    for _ in range(40):
        browser.key("Tab")
        if browser.value("Boolean(document.activeElement.closest('#sheet'))"):
            break
    name = browser.value("document.activeElement.querySelector('h3').textContent")
    assert name == browser.value(NAMES)[0]
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.key("Enter")
    shown = "document.getElementById('d-name').textContent"
    assert browser.value(shown) == name
    browser.key("ArrowRight")
    assert browser.value(shown) == browser.value(NAMES)[1]
    browser.key("Escape")
    browser.wait(f"(document.activeElement.querySelector('h3') || {{}}).textContent === {NAMES}[1]")


def test_details_say_what_was_done(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    search(browser, "back")
    browser.click("#sheet .open")
    text = browser.value("document.getElementById('d-body').innerText")
    told = json.loads((output / "back\\slash.color.json").read_text())
    for part in (
        told["source"]["sha256"],
        told["settings"]["model_sha256"],
        told["pictures"]["tiff"]["sha256"],
        told["pictures"]["jpeg"]["sha256"],
        told["result"]["version"],
        "420 x 300 px",
        "256 / 128 hann",
        "identity",
    ):
        assert part in text


def test_the_depth_is_the_scans_own(archive: Path) -> None:
    depths = {entry["name"]: entry["samples"] for entry in entries(archive / "index.html") if "samples" in entry}
    assert depths["plate 001"] == "gray, 16 bits a sample"
    assert depths["plate 002"] == "gray, 8 bits a sample"


LARGE = "[...document.querySelectorAll('#details img')]"
AT = "Number(document.querySelector('#details .curtain').getAttribute('aria-valuenow'))"


def test_a_closer_look_with_a_curtain_for_mouse_keys_and_fingers(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    browser.wait("[...document.images].some(e => e.complete && e.naturalWidth)")
    assert not [url for url in browser.requests() if ".2048." in url]  # only what is looked at is loaded
    search(browser, "back")
    browser.click("#sheet .open")
    browser.wait(f"{LARGE}.every(e => e.complete && e.naturalWidth === 420)")
    assert browser.value(f"{LARGE}.map(e => [e.naturalWidth, e.naturalHeight])") == [[420, 300]] * 2
    assert len([url for url in browser.requests() if ".2048." in url]) == 2
    box = "document.querySelector('#details .frame').getBoundingClientRect()"
    left, top, width = browser.value(f"[{box}.x, {box}.y + {box}.height / 3, {box}.width]")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width / 4, y=top)
    assert browser.value(AT) == 25
    browser.value("document.querySelector('#details .curtain').focus()")
    browser.key("ArrowRight")
    assert browser.value(AT) == 27
    assert browser.value("document.getElementById('d-name').textContent") == "back\\slash.png"
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    for kind, at in (("touchStart", 0.27), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", 0.8)):
        points = [] if kind == "touchEnd" else [{"x": left + width * at, "y": top}]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert abs(browser.value(AT) - 80) <= 1
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    clip = "getComputedStyle(document.querySelector('#details .before')).clipPath"
    assert browser.value(clip) != "none"
    browser.click("#details [data-look=only-after]")
    assert browser.value("document.querySelector('#details .before').checkVisibility()") is False
    browser.click("#details [data-look=split]")
    browser.click("#full")
    assert browser.value("document.querySelector('#details .frame').clientWidth") == 420
    browser.click("#full")
    assert not browser.troubles()


def test_large_pictures_that_are_gone_leave_the_thumbnails(browser: Browser, output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(output, copy, copy_function=shutil.copy2)
    for path in copy.rglob("*.2048.jpg"):
        path.unlink()
    visit(browser, copy / "index.html")
    browser.click("#sheet .open")
    browser.wait(f"{LARGE}.length === 2 && {LARGE}.every(e => e.complete && e.naturalWidth === 320)")
    make(copy)  # as a run does at its end, which makes none anew
    assert not list(copy.rglob("*.2048.jpg"))
    visit(browser, copy / "index.html")
    browser.click("#sheet .open")
    browser.wait(f"{LARGE}.length === 2 && {LARGE}.every(e => e.complete && e.naturalWidth === 320)")
    assert not [url for url in browser.requests() if url.startswith(copy.as_uri()) and ".2048." in url][2:]


def test_each_failure_says_what_helps(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")
    items = "[...document.querySelectorAll('#troubles li.trouble')]"
    assert browser.value(f"{items}.every(e => !e.innerText.includes('--salvage:'))")
    browser.value(f"{items}.forEach(e => e.querySelector('summary').click())")
    cut, letter = browser.value(f"{items}.map(e => e.innerText)")
    assert "give --salvage: what can be read is coloured" in cut
    assert "Save it in a format that is read" in letter
    browser.click("#troubles .open")
    assert "give --salvage" in browser.value("document.getElementById('d-body').innerText")


def test_before_and_after(browser: Browser, output: Path) -> None:
    visit(browser, output / "index.html")

    def seen() -> dict[str, bool]:
        """Which of the first pair can be seen at its left and at its right."""
        return browser.value(
            "(() => { const box = document.querySelector('#sheet .frame'); box.scrollIntoView({block: 'center'});"
            "const b = box.getBoundingClientRect(); const y = b.y + b.height / 2;"
            "const on = x => document.elementFromPoint(x, y).className;"
            "return [on(b.x + .1 * b.width), on(b.x + .9 * b.width)]; })()"
        )

    assert seen() == ["before", "after"]
    for view, expected in (("only-before", "before"), ("only-after", "after")):
        browser.value(f"document.querySelector('[value={view}]').click()")
        assert seen() == [expected, expected]
    browser.value("document.querySelector('[value=both]').click()")
    assert seen() == ["before", "after"]
    widths = browser.value("[...document.querySelectorAll('#sheet .frame')[0].children].map(e => e.clientWidth)")
    frame = browser.value("document.querySelector('#sheet .frame').clientWidth")
    assert [abs(2 * width - frame) <= 2 for width in widths] == [True, True]  # the whole of each


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names_for_those_who_listen(scheme: str, browser: Browser, archive: Path) -> None:
    browser.scheme(scheme)
    visit(browser, archive / "index.html")
    browser.click("#troubles .open")
    worst = browser.value(WORST_CONTRAST)
    assert worst[0] >= 4.5, worst
    dark = browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(v => v < 80)")
    assert dark is (scheme == "dark")
    browser.click("#close")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    names = {
        (node["role"]["value"], str(node.get("name", {}).get("value", "")).strip())
        for node in nodes
        if not node["ignored"]
    }
    labels = {role: {name for is_role, name in names if is_role == role} for role, _ in names}
    assert {"State", "Settings", "Sort by"} <= labels["combobox"]
    assert any(name.startswith("Search") for name in labels["searchbox"])
    assert {"Split", "Both", "Before", "After"} <= labels["radio"]
    assert "" not in labels["button"] | labels["image"]
    assert {"plate 001.png, before", "plate 001.png, after"} <= labels["image"]


def test_print_shows_all_of_both(browser: Browser, archive: Path) -> None:
    visit(browser, archive / "index.html")
    search(browser, "plate 00")
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.value("dispatchEvent(new Event('beforeprint'))")
    assert browser.value("document.querySelector('.tools').checkVisibility()") is False
    assert browser.value("getComputedStyle(document.querySelector('#sheet .before')).clipPath") == "none"
    browser.wait("[...document.images].every(e => e.complete && e.naturalWidth)")
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_new_run_is_seen_and_nothing_else_is_made_again(output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(output, copy, copy_function=shutil.copy2)
    made = {path: path.stat().st_mtime_ns for path in copy.rglob("thumbs/**/*.jpg")}
    assert len(made) == 4 * (len(HOSTILE) - 1)
    for path in copy.glob("back*.color.*"):
        path.unlink()
    make(copy)
    endings = [f"{kind}{size}.jpg" for kind in ("before", "after") for size in ("", ".2048")]
    gone = {copy / "thumbs" / f"back\\slash.{ending}" for ending in endings}
    now = {path: path.stat().st_mtime_ns for path in copy.rglob("thumbs/**/*.jpg")}
    assert now == {path: when for path, when in made.items() if path not in gone}
    assert not list(copy.rglob("*.part"))


def test_a_page_of_somebody_elses_stays(output: Path, tmp_path: Path, command) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    (copy / "index.html").write_text("<h1>Our archive</h1>")
    with pytest.raises(OutputError, match="not a contact sheet"):
        make(copy)
    assert (copy / "index.html").read_text() == "<h1>Our archive</h1>"
    ran = command("sheet", tmp_path)
    assert ran.code == 2
    ran.line("no run has ended in this folder")
    assert not (tmp_path / "index.html").exists()
