"""From a click on the review desk to a picture on disk: a real scan, the shipped network, a browser, the command."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from pipeline.colour.lab import lab_from_rgb
from pipeline.results.verify import verify
from tests.flows.test_review_correct_page import correct, hints, visit
from tests.served_desk import desk_browser, serving

SIDE_PX = 256
ACROSS, DOWN = 0.6, 0.45


@pytest.fixture
def output(tmp_path, lone_command, scans):
    """One scan, coloured."""
    gray = cv2.imread(str(scans / "peasant-girls-1909.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "girls.png"), gray[600 : 600 + SIDE_PX, 300 : 300 + SIDE_PX])
    words = ("run", tmp_path / "girls.png", "-o", tmp_path / "colour", "--precision", "fp32", "--workers", 1)
    assert lone_command(*words).code == 0
    return tmp_path / "colour"


def lab_of(output):
    rgb = tifffile.imread(output / "girls.color.tif").astype(np.float32) / 255
    return np.stack(lab_from_rgb(rgb))


def test_a_hint_colours_the_whole_scan_and_a_version_is_put_back(tmp_path, output):
    before = (output / "girls.color.tif").read_bytes()
    plain = lab_of(output)
    with desk_browser(tmp_path / "profile") as browser, serving(output) as address:
        browser.width(1300)
        visit(browser, f"{address}#show=all&view=colours")
        correct(browser, ACROSS, DOWN, colour="#2e4a8f")
        browser.key("Enter")
        browser.wait(hints(1))
        browser.click("#make")
        browser.wait("document.body.textContent.includes('girls: coloured with its hints')")
        hinted = lab_of(output)
        # What is shown at once is what was then made: the picked blue, where it was clicked.
        moved = np.hypot(*(hinted - plain)[1:])
        y, x = np.unravel_index(moved.argmax(), moved.shape)
        assert moved.max() > 15
        assert hinted[2, y, x] < -15, "as blue as was asked for"
        assert np.abs(hinted[0] - plain[0]).max() < 0.5, "a hint changes no lightness"
        assert all(certificate.passes for certificate in verify(output / "girls.color.tif"))
        browser.wait("document.getElementById('make').textContent === 'The whole scan has them'")
        (kept,) = browser.value("[...document.querySelectorAll('#versions option')].map(o => o.value).filter(v => v)")
        browser.value(
            "(() => { const v = document.getElementById('versions'); v.value = '" + kept + "'; "
            "v.dispatchEvent(new Event('change')); })()"
        )
        browser.wait("!document.getElementById('restore').hidden")
        browser.click("#restore")
        browser.wait("document.body.textContent.includes('is the current one again')")
        assert (output / "girls.color.tif").read_bytes() == before
        assert browser.troubles() == []
