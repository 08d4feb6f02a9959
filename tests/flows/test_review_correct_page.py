"""Corrections in a real browser: a hint placed and seen, sliders, undo, the whole scan made, a version put back."""

from __future__ import annotations

import time

import pytest

from flows.catalogue.database import rebuild
from pipeline.results.decisions import read_decisions
from tests.chromium import fits
from tests.flows.test_review_correct import coloured, hints_in
from tests.patience import wait_until
from tests.served_desk import desk_browser, serving


@pytest.fixture
def browser(tmp_path):
    with desk_browser(tmp_path / "profile") as opened:
        opened.width(1300)
        yield opened


def visit(browser, address, name="Ada"):
    browser.call("Page.navigate", url=address)
    browser.wait("window.deskIsReady === true && !!document.body.dataset.shown")
    if name:
        browser.click("#person")
        browser.type(name)
        browser.key("Escape")


def correct(browser, across=0.7, down=0.5, colour="#2e4a8f"):
    """Click into the picture and choose a colour."""
    browser.key("c")
    browser.wait("document.getElementById('correct-words').textContent.startsWith('Click')")
    click(browser, across, down)
    browser.wait("document.getElementById('correct-words').textContent.startsWith('Which')")
    browser.value(
        f"(() => {{ const c = document.getElementById('colour'); c.value = '{colour}'; "
        "c.dispatchEvent(new Event('input')); })()"
    )


def click(browser, across, down):
    x, y, width, height = browser.value(
        "(() => { const b = document.getElementById('stage').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    at = {"x": x + across * width, "y": y + down * height, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, **at)


def hints(count):
    return f"document.getElementById('hints-count').textContent === 'Hints: {count}'"


def drawn(what):
    return f"(document.body.dataset.drawn || '').includes({what!r})"


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "colour"
    coloured(folder, "album/a")
    coloured(folder, "album/b", orientation=6, seed=6)
    rebuild(folder).close()
    return folder


def test_a_hint_is_placed_seen_undone_and_done_again(output, browser):
    with serving(output) as address:
        visit(browser, f"{address}#show=all&view=colours")
        correct(browser)
        browser.click("#source")
        browser.type("museum no. 17")
        browser.key("Escape")
        browser.key("Enter")
        browser.wait(drawn("hints"))
        (hint,) = hints_in(output / "album/a.hints.json")
        assert (hint["colour"], hint["author"], hint["source"]) == ("#2e4a8f", "Ada", "museum no. 17")
        browser.key("u")
        browser.wait(hints(0))
        assert hints_in(output / "album/a.hints.json") == []
        browser.key("y")
        browser.wait(hints(1))
        browser.key("a")  # decisions and hints are undone in one order
        browser.wait("document.body.dataset.shown === 'album/b'")
        browser.key("u")
        browser.wait("document.body.dataset.shown === 'album/a'")
        decided = ["approve", "undo"]
        wait_until(lambda: [each.decision for each in read_decisions(output).get("album/a", ())] == decided)
        browser.key("u")
        browser.wait(hints(0))
        assert browser.troubles() == []


def test_a_colour_is_taken_from_another_place_and_another_scan(output, browser):
    with serving(output) as address:
        visit(browser, f"{address}#show=all")
        correct(browser)
        browser.click("#pick")
        click(browser, 0.8, 0.6)
        browser.wait("document.querySelector('#swatches [aria-pressed=true]')?.textContent === 'picked'")
        browser.click("#from-other")
        browser.click("#other-name")
        browser.type("album/b")
        browser.key("Tab")
        browser.wait("document.getElementById('other-image').naturalWidth > 0")
        browser.click("#other-picture")
        browser.wait("document.querySelector('#swatches [aria-pressed=true]')?.textContent === 'as in album/b'")
        browser.click("#add-hint")
        browser.wait(hints(1))
        assert hints_in(output / "album/a.hints.json")[0]["colour"]["as_in"] == "album/b"
        assert browser.troubles() == []


def test_sliders_are_seen_at_once_and_narrow_screens_have_all_of_it(output, browser):
    with serving(output) as address:
        browser.width(400)
        visit(browser, f"{address}#show=all", name="")
        browser.click("#try summary")
        for slider, value in (("saturation", 1.5), ("vivid", 0.6)):
            browser.value(
                f"(() => {{ const s = document.getElementById('{slider}'); s.value = {value}; "
                "s.dispatchEvent(new Event('input')); })()"
            )
            browser.wait(drawn(slider))
        browser.click("#correct-button")
        browser.wait("!document.getElementById('correct').hidden")
        time.sleep(0.2)
        assert fits(browser)
        assert browser.troubles() == []


def test_a_desk_for_looking_only_offers_no_correction(output, browser):
    with serving(output, read_only=True) as address:
        visit(browser, f"{address}#show=all", name="")
        browser.key("c")
        browser.wait("document.getElementById('correct-words').textContent.startsWith('Click')")
        assert browser.value("document.getElementById('add-hint').disabled && document.getElementById('make').disabled")
        assert browser.value("document.getElementById('keep').hidden")
