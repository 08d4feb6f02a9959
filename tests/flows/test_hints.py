"""Hints in runs: what they change and what they leave, versions, records, and what is wrong with them."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile

from pipeline.colour.lab import lab_from_rgb, lightness_from_samples
from pipeline.store import ScanStore
from tests.flows.test_palette_from import as_scan
from tests.pipeline.test_registration import photograph

AUTHOR, SOURCE = "A. Curator", "museum no. 17, wool tunic"


def hints_file(*hints):
    return json.dumps({"format": "colorize-archive hints", "version": 1, "hints": list(hints)})


def lab(picture):
    return lab_from_rgb(picture.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    """A scan with a hint and a gray mount beside it, one with a wrong hint, and what a run said."""
    folder = tmp_path_factory.mktemp("hints")
    scans = folder / "scans"
    scans.mkdir()
    for index, name in enumerate(("a", "wrong", "alone")):
        cv2.imwrite(str(scans / f"{name}.png"), as_scan(photograph(index, side=260)))
    (scans / "a.hints.json").write_text(
        hints_file(
            {"at": [120, 90], "colour": "#556b2f", "author": AUTHOR, "source": SOURCE, "reach": 0.3},
            {"polygon": [[200, 200], [259, 200], [259, 259], [200, 259]], "colour": "gray"},
        )
    )
    (scans / "wrong.hints.json").write_text(hints_file({"at": [5000, 1], "colour": "red"}))
    words = ("run", scans, "-o", folder / "out", "--precision", "fp32", "--keep", "9")
    return folder, words, command(*words)


def test_a_hint_holds_where_it_is_and_gray_stays_without_colour_to_the_bit(done):
    folder, _, _ = done
    store = ScanStore.open(folder / "out" / "a.zarr")
    version = store.version(json.loads((folder / "out" / "a.color.json").read_text())["result"]["version"])
    chroma = version.read(version_roi(store))
    wanted = lab(np.array([[[0x55, 0x6B, 0x2F]]], np.uint8))[1:, 0, 0]
    assert chroma[:, 90, 120].astype(np.float32) == pytest.approx(wanted, abs=0.02)
    assert not chroma[:, 200:259, 200:259].any()
    picture = tifffile.imread(folder / "out" / "a.color.tif")
    assert (np.ptp(picture[200:259, 200:259].astype(int), axis=2) == 0).all()
    scan = cv2.imread(str(folder / "scans" / "a.png"), cv2.IMREAD_GRAYSCALE)
    gray = lightness_from_samples(np.stack([scan] * 3, axis=2))
    assert np.abs(lightness_from_samples(picture) - gray).max() < 1


def version_roi(store):
    from pipeline.types import Roi

    return Roi(0, store.info.shape_yx[0], 0, store.info.shape_yx[1])


def test_beyond_the_reach_not_one_byte_differs_from_the_colours_that_were_predicted(done):
    folder, _, _ = done
    store = ScanStore.open(folder / "out" / "a.zarr")
    told = json.loads((folder / "out" / "a.color.json").read_text())["settings"]
    after = next(store.version(name) for name in store.version_names() if "_hinted" in name)
    before = store.version(told["hints_from"])
    one, other = (each.read(version_roi(store)) for each in (before, after))
    y, x = np.mgrid[: one.shape[1], : one.shape[2]]
    far = (np.hypot(y - 90, x - 120) > 0.3 * min(one.shape[1:]) + 4) & ~((y >= 200) & (x >= 200))
    assert far.mean() > 0.3
    assert (one[:, far].view(np.uint16) == other[:, far].view(np.uint16)).all()
    assert (one[:, 88:93, 118:123] != other[:, 88:93, 118:123]).any()


def test_the_records_name_authors_and_sources(done, command):
    folder, _, _ = done
    told = json.loads((folder / "out" / "a.color.json").read_text())
    assert (told["hints"]["count"], told["hints"]["authors"], told["hints"]["sources"]) == (2, [AUTHOR], [SOURCE])
    assert told["hints"]["sha256"] == told["settings"]["hints_sha256"]
    event = told["pictures"]["tiff"]["premis"]["eventDetailInformation"][0]["eventDetail"]
    assert AUTHOR in event
    assert SOURCE in event
    assert AUTHOR in (folder / "out" / "a.color.tif").read_bytes().decode("latin-1")
    assert AUTHOR in command("inspect", folder / "out" / "a.color.tif").out
    assert command("verify", folder / "out" / "a.color.tif").code == 0


def test_a_wrong_hint_fails_its_scan_alone_unless_it_is_lenient(done, command):
    folder, words, ran = done
    assert ran.code == 1
    ran.line("wrong.png", "wrong.hints.json", "hint 1", "outside the scan")
    assert not (folder / "out" / "wrong.color.tif").exists()
    assert (folder / "out" / "alone.color.tif").exists()
    predicted = ScanStore.open(folder / "out" / "a.zarr").version_names()
    # A changed hint is taken anew, and only it: nothing is predicted again.
    path = folder / "scans" / "a.hints.json"
    shutil.copy(path, folder / "kept.json")
    path.write_text(hints_file({"box": [100, 80, 20, 20], "colour": {"as_in": "alone", "at": [30, 30]}}))
    ran = command(*words, "--lenient")
    ran.line("wrong.hints.json", "coloured without hints")
    assert ran.code == 0
    told = json.loads((folder / "out" / "a.color.json").read_text())
    assert told["work"]["predictions"] == 0
    names = ScanStore.open(folder / "out" / "a.zarr").version_names()
    assert len(names) == len(predicted) + 1
    # Without a file the colours are those of the network again, which are there.
    path.unlink()
    command(*words, "--lenient")
    told = json.loads((folder / "out" / "a.color.json").read_text())
    assert told["hints"] is None
    assert ScanStore.open(folder / "out" / "a.zarr").version_names() == names


def test_pictures_that_take_their_colours_from_each_other_are_told(done, command):
    folder, words, _ = done
    cycle = folder / "cycle"
    cycle.mkdir()
    for index, (name, other) in enumerate((("one", "two"), ("two", "one"))):
        cv2.imwrite(str(cycle / f"{name}.png"), as_scan(photograph(index, side=260)))
        hint = {"at": [30, 30], "colour": {"as_in": other, "at": [40, 40]}}
        (cycle / f"{name}.hints.json").write_text(hints_file(hint))
    ran = command("run", cycle, "-o", folder / "cycle_out", *words[4:])
    assert ran.code == 1
    assert len([line for line in ran.lines if line.startswith("failed") and "as in" in line]) == 2, ran.err


def test_a_grade_starts_from_the_hinted_colours(done, command):
    folder, words, _ = done
    cv2.imwrite(str(folder / "scans" / "graded.png"), as_scan(photograph(3, side=260)))
    path = folder / "scans" / "graded.hints.json"
    path.write_text(hints_file({"box": [100, 80, 60, 60], "colour": "#556b2f"}))
    only = ("run", folder / "scans" / "graded.png", *words[2:])
    assert command(*only).code == 0
    hinted = lab(tifffile.imread(folder / "out" / "graded.color.tif"))
    ran = command("reprocess", folder / "out", "graded", "--saturation", "0.5", "--keep", "9")
    assert ran.code == 0, ran.err
    graded = lab(tifffile.imread(folder / "out" / "graded.color.tif"))
    inside = (slice(90, 130), slice(110, 150))
    for plane in (1, 2):
        before, after = hinted[plane][inside].mean(), graded[plane][inside].mean()
        # Not half to the last: where the hint's colour left the gamut, the picture shows less of it.
        assert 0.45 < after / before < 0.6
    assert abs(hinted[2][inside].mean()) > 10


def test_a_hint_for_a_file_of_several_pages_asks_for_one(command, tmp_path):
    book = tmp_path / "book.tif"
    tifffile.imwrite(book, np.full((3, 60, 80), 128, np.uint8), photometric="minisblack")
    ran = command("hint", book, "--at", "5,5", "--colour", "red")
    assert (ran.code, list(tmp_path.iterdir())) == (2, [book])
    ran.line("book.tif", "has 3 pages", "give the result of that page")


def test_the_command_writes_lists_and_removes_hints_and_says_what_is_wrong(command, tmp_path):
    scan = tmp_path / "plate.png"
    cv2.imwrite(str(scan), np.full((60, 80), 128, np.uint8))
    place = ("--at", "10,12", "--to", "20,30")
    assert command("hint", scan, *place, "--colour", "olivedrab", "--author", AUTHOR, "--source", SOURCE).code == 0
    kept = (tmp_path / "plate.hints.json").read_text()
    told = json.loads(kept)["hints"][0]
    assert (told["box"], told["author"], told["source"]) == ([10, 12, 11, 19], AUTHOR, SOURCE)
    for words, said in (
        (("--at", "80,0", "--colour", "red"), "is outside the scan, which has 80 x 60 pixels"),
        (("--at", "15,15", "--colour", "red"), "give 15,15 two colours"),
        (("--at", "50,15"), "give --colour too"),
        (("--at", "50,15", "--colour", "lab(50, 120, -120)"), "outside sRGB"),
        (("--remove", "2"), "has 1 hints"),
    ):
        ran = command("hint", scan, *words)
        assert ran.code == 2
        ran.line(said)
        assert (tmp_path / "plate.hints.json").read_text() == kept
    ran = command("hint", scan, "--polygon", "40,5 60,5 60,20", "--colour", "as in other at 3,4", "--list")
    assert "2: polygon 40,5 20x15: as in other at 3,4" in ran.out
    assert command("hint", scan, "--remove", "1", "--list").code == 0
    assert len(json.loads((tmp_path / "plate.hints.json").read_text())["hints"]) == 1
