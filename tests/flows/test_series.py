"""Scans that belong together get one colour where they show the same: --series."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from skimage.color import deltaE_ciede2000

from flows.catalogue.recorder import ScanFiles
from flows.inputs import ScanFile
from flows.options import parse_options
from flows.run.hint_fellows import Carried, Look, carry
from flows.run.jobs import RunContext
from flows.run.series import find_series
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.errors import UsageError
from tests.flows.test_palette_from import as_scan
from tests.pipeline.test_registration import lightness as lightness_of
from tests.pipeline.test_registration import photograph
from tests.request import asked


def scan(folder, name):
    path = folder / "scans" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
    return ScanFile(path, name.rsplit(".", 1)[0])


def listed(folder, text):
    path = folder / "together.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    """Two scans that overlap and one of something else, coloured alone and as a series; and what the run said."""
    folder = tmp_path_factory.mktemp("series")
    (folder / "scans").mkdir()
    whole, other = as_scan(photograph(0, side=260)), as_scan(photograph(3, side=260))
    third = whole.shape[1] // 3
    for name, samples in (("left", whole[:, : 2 * third]), ("right", whole[:, third:]), ("other", other)):
        cv2.imwrite(str(folder / "scans" / f"{name}.png"), samples)
    words = ("run", folder / "scans", "--precision", "fp32")
    assert command(*words, "-o", folder / "alone").code == 0
    ran = command(*words, "-o", folder / "out", "--series", folder / "scans")
    assert ran.code == 0, ran.err
    return folder, third, ran


def apart(folder, third):
    """Mean CIEDE2000 between both results where both show the same."""
    left, right = (tifffile.imread(folder / f"{name}.color.tif") for name in ("left", "right"))
    pair = left[:, third : 2 * third], right[:, :third]
    one, two = (np.moveaxis(lab_from_rgb(each.astype(np.float32) / 255), 0, -1) for each in pair)
    return float(deltaE_ciede2000(one, two).mean())


def told(folder, name):
    return json.loads((folder / f"{name}.color.json").read_text())


def test_what_two_scans_show_gets_one_colour_and_another_keeps_its_own(done):
    folder, third, ran = done
    assert apart(folder / "out", third) < 0.5 * apart(folder / "alone", third)
    pictures = [tifffile.imread(folder / where / "other.color.tif") for where in ("alone", "out")]
    assert np.array_equal(*pictures)
    ran.line("series scans", "2 of 3 scans show something together", "nothing in common with the others have other")


def test_the_sidecar_says_which_series_and_what_is_shared(done):
    folder, _, _ = done
    series = told(folder / "out", "left")["series"]
    assert (series["name"], series["members"], series["missing"]) == ("scans", ["left", "other", "right"], [])
    assert series["shared"]["right"] == pytest.approx(0.5, abs=0.02)
    assert series["sha256"] == told(folder / "out", "left")["settings"]["series_sha256"]
    assert told(folder / "alone", "left")["series"] is None
    assert "series_sha256" not in told(folder / "alone", "left")["settings"]


def test_a_second_run_does_nothing_and_reprocess_stays_in_the_series(command, done):
    folder, third, _ = done
    words = ("run", folder / "scans", "--precision", "fp32", "-o", folder / "out", "--series", folder / "scans")
    before = (folder / "out" / "left.color.tif").read_bytes()
    again = command(*words)
    assert again.code == 0
    assert "already there" in again.err + again.out
    assert (folder / "out" / "left.color.tif").read_bytes() == before

    ran = command("reprocess", folder / "out", "left", "--stride", "160", "--precision", "fp32")
    assert ran.code == 0, ran.err
    assert told(folder / "out", "left")["series"]["shared"]["right"] == pytest.approx(0.5, abs=0.02)
    assert apart(folder / "out", third) < 0.5 * apart(folder / "alone", third)


def test_lists_name_scans_by_name_file_or_pattern(tmp_path):
    scans = [scan(tmp_path, name) for name in ("1910-1.tif", "1910-2.tif", "album/plate.jpg", "rest.png")]
    found = find_series(listed(tmp_path, "scan,series\n1910*,street\nplate.jpg,family\n"), scans, ScanFiles())
    assert {stem: series.name for stem, series in found.items()} == {
        "1910-1": "street",
        "1910-2": "street",
        "album/plate": "family",
    }
    assert found["1910-1"].members == ("1910-1", "1910-2")
    one = find_series(listed(tmp_path, "rest\n1910-1\n"), scans, ScanFiles())
    assert {series.name for series in one.values()} == {"together"}
    shuffled = find_series(listed(tmp_path, "1910-1\nrest\n"), scans[::-1], ScanFiles())
    assert shuffled["rest"].sha256 == one["rest"].sha256, "whatever the order"
    (tmp_path / "scans" / "rest.png").write_bytes(b"another")
    assert find_series(listed(tmp_path, "1910-1\nrest\n"), scans, ScanFiles())["rest"].sha256 != one["rest"].sha256


def test_lists_that_cannot_be_followed_are_refused(tmp_path):
    scans = [scan(tmp_path, name) for name in ("a.tif", "b.tif")]
    for text, words in (
        ("a,one\nc,one\n", r"line 2: 'c' is none of the 2 scans.*check the name"),
        ("a,one\n*,two\n", r"line 2: a is in 'one' already.*give it one series"),
        ("a,one,two\n", r"line 1: give a scan and its series"),
    ):
        with pytest.raises(UsageError, match=words):
            find_series(listed(tmp_path, text), scans, ScanFiles())
    (tmp_path / "latin.csv").write_bytes("caf\u00e9,one\n".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot be read as CSV in UTF-8"):
        find_series(tmp_path / "latin.csv", scans, ScanFiles())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="none of the 2 scans lies in it"):
        find_series(tmp_path / "empty", scans, ScanFiles())


def test_what_can_be_joined_with_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"neither a folder nor a \.csv file"):
        parse_options(asked(tmp_path, series=str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="give one of them"):
        parse_options(asked(tmp_path, series=str(tmp_path), palette_from=str(tmp_path)))
    with pytest.raises(UsageError, match="efficientnet-unet has no palette network"):
        RunContext.of(parse_options(asked(tmp_path, series=str(tmp_path), model="efficientnet-unet")))
    options = replace(parse_options(asked(tmp_path, series=str(tmp_path), precision="fp32")), series=None)
    assert RunContext.of(options).spec_for((500, 500)).series_sha256 == ""


def test_a_hint_of_one_scan_is_carried_over_to_a_fellow_that_shows_the_place(command, done):
    folder, third, _ = done
    left = tifffile.imread(folder / "out" / "left.color.tif")
    lightness = lab_from_rgb(left.astype(np.float32) / 255)[0]
    # Where little else lies near, so that what spreads is of one thing.
    rough = cv2.blur(np.abs(cv2.Laplacian(lightness, cv2.CV_32F)), (15, 15))[30:-30, third + 30 : 2 * third - 30]
    y, x = np.unravel_index(rough.argmin(), rough.shape) + np.array([30, third + 30])
    hint = {"at": [int(x), int(y)], "colour": "lab(50, 30, 30)", "author": "A. Curator", "source": "museum no. 17"}
    path = folder / "scans" / "left.hints.json"
    path.write_text(json.dumps({"format": "colorize-archive hints", "version": 1, "hints": [hint]}))
    before = [told(folder / "out", name)["settings"] for name in ("left", "right", "other")]
    words = ("run", folder / "scans", "--precision", "fp32", "-o", folder / "out", "--series", folder / "scans")
    ran = command(*words)
    path.unlink()
    assert ran.code == 0, ran.err
    right = told(folder / "out", "right")
    assert right["hints"]["from_series"] == {"left": 1}
    assert (right["hints"]["authors"], right["hints"]["files"]) == (["A. Curator"], [str(path)])
    assert right["work"]["predictions"] == 0
    assert right["series"]["shared"]["left"] > 0.3
    assert "carried over from left" in json.dumps(right["pictures"]["tiff"]["premis"])
    assert told(folder / "out", "left")["hints"]["from_series"] == {}
    assert told(folder / "out", "other")["settings"] == before[2]
    colours = tifffile.imread(folder / "out" / "right.color.tif").astype(np.float32) / 255
    place = lab_from_rgb(colours)[:, y - 2 : y + 3, x - third - 2 : x - third + 3]
    # What sRGB can show of it at this lightness.
    wanted = lab_from_rgb(rgb_from_lab(place[0], np.full((2, 5, 5), 30, np.float32)))
    assert np.hypot(*(place - wanted)[1:]).mean() < 6


def look(seen, name):
    return Look(name, seen, seen.shape, ScanFile(Path(name), name), {})


def test_what_looks_different_or_contradicts_is_not_carried_over():
    plane = lightness_of(photograph(2, side=200))
    moved = np.array([[1, 0, -20], [0, 1, -10], [0, 0, 1]], float)
    part = np.ascontiguousarray(plane[10:, 20:])
    known = {"kind": "points", "numbers": [[100, 90]], "ab": [20.0, 10.0], "reach": 1.0}
    one, other = look(plane, "one"), look(part, "other")
    carried = carry(known, one, other, moved, [])
    assert carried.known["numbers"] == [[80, 80]]
    assert carried.known["reach"] == pytest.approx(200 / min(part.shape), rel=0.01)
    assert carried.left_out == ""
    near = {"kind": "points", "numbers": [[82, 80]], "ab": [-20.0, 10.0], "reach": 1.0}
    assert "says another colour" in carry(known, one, other, moved, [near]).left_out
    assert carry(known, one, other, moved, [{**near, "ab": [21.0, 10.0]}]).left_out == ""
    noise = np.random.default_rng(1).uniform(0, 100, part.shape).astype(np.float32)
    assert "looks different" in carry(known, one, look(noise, "other"), moved, []).left_out
    outside = {**known, "numbers": [[5, 5]]}
    assert carry(outside, one, other, moved, []) == Carried(None)
