"""The review desk's page in a real browser: keys, curtain, zoom, narrow screens, hostile names."""

from __future__ import annotations

import time

import pytest

from flows.catalogue.database import rebuild
from pipeline.results.decisions import read_decisions
from tests.chromium import fits
from tests.flows.test_review_desk import HOSTILE, result
from tests.served_desk import desk_browser, serving

SCANS = [f"album/plate {number}" for number in range(6)]


@pytest.fixture
def served(tmp_path):
    """Address and folder of a desk with a few scans."""
    output = tmp_path / "colour"
    for stem in (*SCANS, HOSTILE):
        result(output, stem, doubt=9.0)
    rebuild(output).close()
    with serving(output) as address:
        yield address, output


@pytest.fixture
def browser(tmp_path):
    with desk_browser(tmp_path / "profile") as opened:
        yield opened


def visit(browser, address):
    browser.call("Page.navigate", url=address)
    browser.wait("window.deskIsReady === true && !!document.body.dataset.shown")


def shown(browser):
    return browser.value("document.body.dataset.shown")


def wait_for(browser, scan):
    browser.wait(f"document.body.dataset.shown === {scan!r}")


def place(browser):
    return float(browser.value("document.getElementById('curtain').getAttribute('aria-valuenow')"))


def test_scans_are_reviewed_by_keys_alone(served, browser):
    address, output = served
    browser.width(1280)
    visit(browser, f"{address}#folder=album")
    assert shown(browser) == SCANS[0]
    browser.key("a")
    assert browser.value("document.activeElement.id") == "person"  # a decision is somebody's
    browser.type("Ada")
    browser.key("Escape")
    for scan, key in zip(SCANS[:4], "aarw", strict=True):
        wait_for(browser, scan)
        browser.key(key)
    wait_for(browser, SCANS[4])
    browser.key("u")
    wait_for(browser, SCANS[3])
    browser.key("n")
    browser.type("too red, a bit")
    browser.key("Escape")
    browser.key("r")
    browser.wait("document.getElementById('filters').textContent.includes('Rejected2')")
    said = {stem: [(each.decision, each.person) for each in all] for stem, all in read_decisions(output).items()}
    assert said == {
        SCANS[0]: [("approve", "Ada")],
        SCANS[1]: [("approve", "Ada")],
        SCANS[2]: [("reject", "Ada")],
        SCANS[3]: [("needs work", "Ada"), ("undo", "Ada"), ("reject", "Ada")],
    }
    assert read_decisions(output)[SCANS[3]][-1].note == "too red, a bit"
    assert browser.troubles() == []
    assert all(each.startswith((address, "data:", "blob:")) for each in browser.requests())


def test_the_curtain_follows_keys_mouse_and_finger(served, browser):
    browser.width(1000)
    visit(browser, served[0])
    before = place(browser)
    for _ in range(5):
        browser.key("ArrowRight")
    assert place(browser) == before + 10
    box = browser.value("(() => { const b = document.getElementById('stage').getBoundingClientRect(); "
                        "return [b.x, b.y, b.width, b.height]; })()")  # fmt: skip
    y = box[1] + box[3] / 2

    def x(percent):
        return box[0] + box[2] * percent / 100

    for kind, percent in (("mousePressed", place(browser)), ("mouseMoved", 20), ("mouseReleased", 20)):
        at = {"x": x(percent), "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.call("Input.dispatchMouseEvent", type=kind, **at)
    assert place(browser) == pytest.approx(20, abs=1)
    for kind, points in (("touchStart", [20]), ("touchMove", [70]), ("touchEnd", [])):
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x(each), "y": y} for each in points])
    assert place(browser) == pytest.approx(70, abs=1)
    for view in ("side by side", "scan", "colours", "curtain"):
        browser.key("v")
        assert f"view={view.replace(' ', '+')}" in browser.value("location.hash")
    browser.key("1")
    browser.wait("document.getElementById('zoom').textContent === '100 %'")
    browser.wait("performance.getEntriesByType('resource').some(e => e.name.includes('/tile/colour/0/'))")
    assert browser.troubles() == []


def test_hostile_names_are_text_and_addresses_are_kept(served, browser):
    visit(browser, f"{served[0]}#show=all&q=onerror")
    assert shown(browser) == HOSTILE
    assert browser.value("document.getElementById('name').textContent") == HOSTILE
    assert browser.value("document.querySelectorAll('img[onerror]').length") == 0
    address = browser.value("location.href")
    browser.call("Page.navigate", url="about:blank")
    visit(browser, address)
    assert shown(browser) == HOSTILE
    assert browser.value("document.querySelectorAll('#scans button').length") == 1
    assert browser.troubles() == []


def test_narrow_screens_have_all_of_it_without_scrolling_sideways(served, browser):
    browser.width(400)
    visit(browser, served[0])
    time.sleep(0.2)
    assert fits(browser)
    browser.click("[data-decision=approve]")
    assert browser.value("document.activeElement.id") == "person"
