"""What archives have beside plain photographs: pages, no-data, transparency, damage, metadata, several formats."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.transform import from_origin
from skimage.color import rgb2lab

from pipeline.formats import ENDINGS

RAMP = np.add.outer(np.arange(300), np.arange(340)) % 251 + 2


def sidecar(output: Path, name: str) -> dict:
    return json.loads((output / f"{name}.color.json").read_text())


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A few scans of each a kind of its own."""
    folder = tmp_path_factory.mktemp("box")
    pages = [((RAMP + 40 * n) % 256).astype(np.uint8) for n in range(3)]
    with tifffile.TiffWriter(folder / "film.tif") as film:
        for n, page in enumerate(pages):
            film.write(page, extratags=[(285, "s", 0, f"frame {n + 1}", True)], metadata=None)
    holed = RAMP.astype(np.uint8)
    holed[40:90, 100:200] = 0
    place = {"crs": "EPSG:32633", "transform": from_origin(400_000, 5_800_000, 0.5, 0.5), "nodata": 0}
    with rasterio.open(
        folder / "map.tif", "w", driver="GTiff", width=340, height=300, count=1, dtype="uint8", **place
    ) as dataset:
        dataset.write(holed, 1)
    cut = np.dstack([RAMP, RAMP, RAMP, np.where(RAMP > 100, 255, 0)]).astype(np.uint8)
    Image.fromarray(cut, "RGBA").save(folder / "cutout.png")
    Image.fromarray(RAMP.astype(np.uint8)).save(folder / "postcard.jpg", quality=95, comment="1912")
    return folder


@pytest.fixture(scope="module")
def output(command, box, moody, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    ran = command("run", box, "-o", output, "--model", moody, "--tile", "128", "--format", "tiff,cog,png")
    assert ran.code == 0, ran.err
    return output


def test_every_page_is_a_scan_of_its_own(output):
    for n in range(3):
        name = f"film.p{n + 1:03}"
        told = sidecar(output, name)
        assert told["source"]["page"] == n + 1
        with tifffile.TiffFile(output / f"{name}.color.tif") as file:
            assert file.pages[0].tags[285].value == f"frame {n + 1}"
            seen = rgb2lab(file.pages[0].asarray())[..., 0]
        wanted = rgb2lab(np.repeat(((RAMP + 40 * n) % 256).astype(np.uint8)[..., None], 3, axis=2))[..., 0]
        assert np.abs(seen - wanted).max() < 0.5
    assert not (output / "film.color.tif").exists()


def test_chosen_pages_only(command, box, tmp_path):
    film = box / "film.tif"
    assert command("run", film, "-o", tmp_path, "--engine", "identity", "--pages", "3").code == 0
    assert [path.name for path in tmp_path.glob("*.color.tif")] == ["film.p003.color.tif"]
    ran = command("run", film, "-o", tmp_path, "--engine", "identity", "--pages", "7-9")
    assert ran.code == 1
    assert "has 3 pages" in ran.line("failed", "film.tif")
    for wrong in ("0", "2-1", "first"):
        ran = command("run", film, "-o", tmp_path, "--pages", wrong)
        assert (ran.code, len(ran.lines)) == (2, 1)


@pytest.mark.parametrize("ending", [".color.tif", ".color.cog.tif"])
def test_where_there_is_no_map_there_is_none_in_colour_either(output, box, ending):
    with rasterio.open(box / "map.tif") as before, rasterio.open(output / f"map{ending}") as after:
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, before.nodata)
        mask = before.read(1) == 0
        colours = after.read()
        assert (colours[:, mask] == 0).all()
        assert (colours[:, ~mask] != 0).all()
        assert (after.dataset_mask() == before.dataset_mask()).all()
        assert np.ptp(colours[:, ~mask].astype(int), axis=0).mean() > 5  # it is coloured


def test_transparency_is_the_scans(output, box):
    before = np.asarray(Image.open(box / "cutout.png"))
    for name in ("cutout.color.png", "cutout.color.tif"):
        after = np.asarray(Image.open(output / name))
        np.testing.assert_array_equal(after[..., 3], before[..., 3])
        under = before[..., 3] == 0
        assert (np.ptp(after[under][:, :3].astype(int), axis=1) <= 1).all()


def test_all_of_it_is_certified(command, output):
    ran = command("verify", output)
    assert ran.code == 0, ran.out
    assert ran.out.count("whole") == 6 * 3


def test_another_format_is_made_of_the_colours_that_are_there(command, box, output, moody, tmp_path):
    shutil.copytree(output, tmp_path / "out")
    copy = tmp_path / "out"
    before, work = (copy / "map.color.tif").read_bytes(), sidecar(copy, "map")["work"]
    words = ("run", box / "map.tif", "-o", copy, "--model", moody, "--tile", "128")
    ran = command(*words, "--format", "tiff,jp2")
    assert ran.code == 0
    assert ran.line("done ", str(copy / "map.color.jp2")), "the file that is new"
    told = sidecar(copy, "map")
    # How the colours were made, and how long that took, stays as it was.
    export = told["work"]["seconds"].pop("export")
    assert export > work["seconds"].pop("export")
    assert told["work"] == work
    assert set(told["pictures"]) == {"tiff", "cog", "png", "jp2"}
    assert (copy / "map.color.tif").read_bytes() == before
    assert cv2.imread(str(copy / "map.color.jp2")).shape == (300, 340, 3)
    assert "skipped" in command(*words, "--format", "cog").err
    # A new version takes the formats of the one before, and that one keeps its pictures.
    assert command("reprocess", copy, "map", "--stride", "32", "--model", moody).code == 0
    assert set(sidecar(copy, "map")["pictures"]) == set(told["pictures"])
    version = told["result"]["version"]
    assert all((copy / f"map.{version}{ENDINGS[name]}").is_file() for name in told["pictures"])
    assert command("verify", copy).code == 0
    ran = command("run", box / "map.tif", "-o", copy, "--format", "tiff,bmp")
    assert (ran.code, len(ran.lines)) == (2, 1)


def test_damaged_scans_are_refused_or_salvaged_with_the_hole_marked(command, box, tmp_path, moody):
    whole = (box / "postcard.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    words = ("run", tmp_path / "cut.jpg", "-o", tmp_path / "out", "--model", moody, "--tile", "128")
    ran = command(*words)
    assert ran.code == 1
    assert "cut off" in ran.line("failed", "cut.jpg", "--salvage")
    ran = command(*words, "--salvage")
    assert ran.code == 0
    assert "could not be read" in ran.line("warning")
    holes = sidecar(tmp_path / "out", "cut")["source"]["holes"]
    top = min(y0 for y0, *_ in holes)
    assert 100 < top < 250
    picture = tifffile.imread(tmp_path / "out" / "cut.color.tif").astype(int)
    assert np.ptp(picture[top:].reshape(-1, 3), axis=0).max() <= 1  # plain gray
    lightness = rgb2lab(picture[: top - 16].astype(np.uint8))[..., 0]
    gray = np.asarray(Image.open(box / "postcard.jpg"))[: top - 16]
    assert np.abs(lightness - rgb2lab(np.dstack([gray] * 3))[..., 0]).max() < 0.5


def test_metadata_is_carried_unless_it_is_not_to_be(command, tmp_path):
    exif = Image.Exif()
    exif[0x013B] = "Frida Beckmann"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    words = ("run", tmp_path / "a.jpg", "-o", tmp_path / "out", "--engine", "identity", "--format", "tiff,jpeg")
    for switch, there in (("--metadata", True), ("--no-metadata", False)):
        assert command(*words, switch).code == 0
        for name in ("a.color.tif", "a.color.jpg"):
            picture = Image.open(tmp_path / "out" / name)
            found = picture.getexif()
            assert (found.get(0x013B) == "Frida Beckmann") == there
            assert (found.get_ifd(0x8825).get(1) == "N") == there
            assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "out" / name).read_bytes()
        assert sidecar(tmp_path / "out", "a")["pictures"]["tiff"]["carries_metadata"] == there
        store = json.loads((tmp_path / "out" / "a.zarr" / "carried.json").read_text())
        assert ("exif" in store) == there
    assert command("verify", tmp_path / "out").code == 0


def test_what_a_format_cannot_carry_is_said_once_and_written_down(command, box, tmp_path):
    ran = command("run", box / "map.tif", "-o", tmp_path, "--engine", "identity", "--format", "png")
    assert ran.code == 0
    assert "place" in ran.line("warning", "map.color.png")
    told = sidecar(tmp_path, "map")["pictures"]["png"]
    assert "place" in told["not_carried"]
    outcome = told["premis"]["eventOutcomeInformation"][0]["eventOutcome"]["value"]
    assert outcome == "warning"
    assert "not carried" in command("inspect", tmp_path / "map.color.png").out


def test_a_name_that_is_no_text_is_refused_and_the_others_go_on(command, box, tmp_path):
    shutil.copy(box / "map.tif", tmp_path / "map.tif")
    shutil.copy(box / "map.tif", os.fsdecode(bytes(tmp_path) + b"/caf\xe9.tif"))
    ran = command("run", tmp_path, "-o", tmp_path / "out", "--engine", "identity")
    assert ran.code == 1
    assert "not UTF-8" in ran.line("failed", "caf")
    assert (tmp_path / "out" / "map.color.tif").is_file()


def test_nothing_of_others_is_replaced(command, box, tmp_path):
    """A folder with a result's name, a store's name, and the scan itself where its store would be."""
    words = ("run", box / "map.tif", "-o", tmp_path, "--engine", "identity")
    for name in ("map.color.tif", "map.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
        ran = command(*words)
        assert ran.code == 1
        assert name in ran.line("failed", "another --output")
        assert (tmp_path / name / "notes.txt").read_text() == "mine"
        shutil.rmtree(tmp_path / name)
    assert command(*words).code == 0
    # Searched itself, the output folder offers no store and no picture as a scan.
    ran = command("run", tmp_path, "-o", tmp_path, "--engine", "identity")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "no scans" in ran.lines[0]
