"""The page of a site in a real browser, under a sub-path that its files know nothing of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.sharing.outgoing import address_of
from flows.sharing.site import Site, open_site, publish_site
from flows.sharing.wording import Wording
from pipeline.metadata.model import EmbeddedMetadata
from tests.chromium import Browser, chromium, fits
from tests.patience import wait_until
from tests.results import make_result

TITLE = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
<rdf:Description rdf:about=""><dc:title><rdf:Alt><rdf:li xml:lang="en">&lt;img src=x onerror=hacked=1&gt;</rdf:li>
</rdf:Alt></dc:title><dc:description>&lt;b&gt;ships&lt;/b&gt;</dc:description></rdf:Description></rdf:RDF>"""
NAMES = "[...document.querySelectorAll('#items span')].map(e => e.textContent)"
PAINTED = "document.getElementById('picture').dataset.layers === '2'"


@pytest.fixture(scope="module")
def page(web: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the page; manifests and tiles say another one."""
    folder, address = web
    output = tmp_path_factory.mktemp("archive") / "colour"
    make_result(output, "harbour", shape_yx=(800, 1200))
    make_result(output, "albums/1910/Straße #5 %", embedded=EmbeddedMetadata(xmp=TITLE), seed=1)
    make_result(output, "albums/plate", seed=2)
    site = open_site(folder, output, "https://archive.example/elsewhere", Wording())
    list(publish_site(Site(site.folder, output, site.base_url, site.wording, unreviewed=True)))
    return f"{address}/index.html"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile"), "the page of a site") as opened:
        yield opened


@pytest.fixture
def browser(opened: Browser, page: str) -> Browser:
    opened.call("Page.navigate", url="about:blank")
    opened.events.clear()
    opened.width(1400, 900)
    opened.go(page)
    opened.wait(f"{NAMES}.length")
    return opened


def test_search_finds_by_name_folder_and_title(browser: Browser) -> None:
    assert browser.value(NAMES) == ["harbour", "plate", "<img src=x onerror=hacked=1>"]
    browser.click("#words")
    browser.type("strasse")
    assert browser.value(NAMES) == []
    browser.value("document.getElementById('words').value = 'STRAßE 5'")
    browser.value("document.getElementById('words').dispatchEvent(new Event('input'))")
    assert browser.value(NAMES) == ["<img src=x onerror=hacked=1>"]
    assert browser.value("document.getElementById('count').textContent") == "1 of 3 scans"
    assert browser.value("[...document.getElementById('folder').options].map(e => e.value)") == [
        "",
        "albums",
        "albums/1910",
    ]
    assert browser.value("typeof hacked") == "undefined"
    assert not browser.troubles()


def test_the_curtain_parts_the_scan_from_its_colours(browser: Browser, tmp_path: Path) -> None:
    browser.value(f"location.hash = '{address_of('harbour')}'")
    browser.wait(PAINTED)
    browser.wait("document.querySelector('#facts').textContent.includes('not evidence')")
    for share, expected in ((0, [True, True]), (500, [False, True]), (1000, [False, False])):
        browser.value(f"document.getElementById('curtain').value = {share}")
        browser.value("document.getElementById('curtain').dispatchEvent(new Event('input'))")
        wait_until(lambda wanted=expected: are_coloured(browser, tmp_path / "page.png") == wanted)
    assert not browser.troubles()
    assert [each for each in browser.requests() if "archive.example" in each] == []


def test_it_fits_a_telephone_and_shows_texts_as_texts(browser: Browser) -> None:
    browser.width(400)
    assert fits(browser)
    browser.value(f"location.hash = '{address_of('albums/1910/Straße #5 %')}'")
    browser.wait(PAINTED)
    browser.wait("document.querySelector('#summary').textContent")
    assert browser.value("document.querySelector('#summary').textContent") == "<b>ships</b>"
    assert browser.value("document.querySelector('#name').textContent") == "<img src=x onerror=hacked=1>"
    assert fits(browser)
    assert not browser.troubles()


def are_coloured(browser: Browser, screenshot: Path) -> list[bool]:
    """Whether there is colour left and right of the middle of the viewer."""
    x, y, wide, tall = browser.value(
        "(() => { const b = document.getElementById('picture').getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height].map(Math.round); })()"
    )
    browser.screenshot(screenshot)
    picture = cv2.imread(str(screenshot))[y + tall // 4 : y + tall * 3 // 4, x : x + wide]
    spread, middle = np.ptp(picture, axis=2).mean(axis=0), wide // 2
    halves = spread[middle - 150 : middle - 20], spread[middle + 20 : middle + 150]
    return [bool(half.mean() > 8) for half in halves]
