"""Palettes from coloured copies that were made elsewhere: --palette-from."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import deltaE_ciede2000

from flows.catalogue.recorder import ScanFiles
from flows.inputs import ScanFile
from flows.options import parse_options
from flows.run.jobs import RunContext
from flows.run.palette_copies import PaletteCopy, find_copy
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples
from pipeline.errors import PaletteCopyError, UsageError
from pipeline.store import ScanStore
from tests.copies import handled
from tests.pipeline.test_registration import photograph
from tests.request import asked

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="{AI}">
<xmp:CreatorTool>Colourizer 7</xmp:CreatorTool></rdf:Description></rdf:RDF></x:xmpmeta>"""


def as_scan(rgb):
    """(H, W) uint8 of the same lightness."""
    levels = np.asarray(lightness_from_samples(np.arange(256, dtype=np.uint8)[None]))[0]
    return np.searchsorted(levels, lightness_from_samples(rgb)).clip(0, 255).astype(np.uint8)


def error(rgb, truth):
    one, other = (np.moveaxis(lab_from_rgb(each.astype(np.float32) / 255), 0, -1) for each in (rgb, truth))
    return float(deltaE_ciede2000(one, other).mean())


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    """Four scans: with a copy, with one in a folder, with another picture's, and without; and what a run said."""
    folder = tmp_path_factory.mktemp("copies")
    truths = {name: photograph(index, side=260) for index, name in enumerate(("a", "album/b", "wrong", "alone"))}
    for name, truth in truths.items():
        path = folder / "scans" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), as_scan(truth))
    for name, shows in (("a", "a"), ("album/b", "album/b"), ("wrong", "alone")):
        path = folder / "copies" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[305] = "Painter 2"
        Image.fromarray(handled(truths[shows])[0]).save(path, quality=85, xmp=XMP.encode(), exif=exif)
    ran = command("run", folder / "scans", "-o", folder / "out", "--palette-from", folder / "copies")
    return folder, truths, ran


def test_the_colours_are_those_of_the_copy_and_the_lightness_is_the_scans(done):
    folder, truths, _ = done
    for name in ("a", "album/b"):
        picture = tifffile.imread(folder / "out" / f"{name}.color.tif")
        gray = np.stack([as_scan(truths[name])] * 3, axis=2)
        assert error(picture, truths[name]) < 0.35 * error(gray, truths[name])
        assert np.abs(lightness_from_samples(picture) - lightness_from_samples(gray)).max() < 1


def test_scans_without_a_copy_or_with_another_pictures_fail_with_a_line(done):
    folder, _, ran = done
    assert ran.code != 0
    ran.line("alone.png", "no coloured copy of it in", "--lenient")
    ran.line("wrong.png", "wrong.jpg", "does not show what the scan shows")
    assert not (folder / "out" / "wrong.color.tif").exists()


def test_the_sidecar_names_the_copy_and_its_maker_and_knows_no_doubt(done):
    folder, _, ran = done
    told = json.loads((folder / "out" / "a.color.json").read_text())
    copy = told["palette_copy"]
    with Image.open(folder / "copies" / "a.jpg") as picture:
        assert (copy["name"], copy["width_px"]) == ("a.jpg", picture.width)
    assert copy["made_by"] == {"creator_tool": "Colourizer 7", "digital_source_type": AI, "software": "Painter 2"}
    assert copy["sha256"] == told["settings"]["palette_copy_sha256"]
    assert copy["score"] > 0.9
    assert told["settings"]["palette_sha256"] == ""
    assert told["quality"]["doubt"] is None
    assert "likely" not in ran.err
    assert "Colourizer 7" in told["pictures"]["tiff"]["premis"]["eventDetailInformation"][0]["eventDetail"]


def test_lenient_colours_the_others_by_the_model_and_a_changed_copy_is_taken_anew(command, done):
    folder, truths, _ = done
    before = (folder / "out" / "album" / "b.color.tif").read_bytes()
    Image.fromarray(np.roll(truths["a"], 1, axis=2)).save(folder / "copies" / "a.jpg", quality=95)
    words = ("run", folder / "scans", "-o", folder / "out", "--palette-from", folder / "copies", "--lenient")
    ran = command(*words)
    ran.line("wrong.png", "does not show", "coloured by the model alone")
    assert ran.code == 0, ran.err
    wrong = json.loads((folder / "out" / "wrong.color.json").read_text())
    assert (wrong["palette_copy"], wrong["settings"]["palette_copy_sha256"]) == (None, "")
    assert wrong["quality"]["doubt"]["word"]
    assert json.loads((folder / "out" / "alone.color.json").read_text())["quality"]["doubt"]["word"]
    assert json.loads((folder / "out" / "alone.color.json").read_text())["palette_copy"] is None
    assert error(tifffile.imread(folder / "out" / "a.color.tif"), truths["a"]) > 5
    assert (folder / "out" / "album" / "b.color.tif").read_bytes() == before
    again = command(*words)
    assert again.code == 0
    assert "coloured by the model alone" not in again.err, "known by now"


def test_reprocess_keeps_the_palette_of_the_copy_also_where_that_is_gone(command, done):
    folder, truths, _ = done
    (folder / "copies" / "album" / "b.jpg").unlink()
    ran = command("reprocess", folder / "out", "album/b", "--stride", "160")
    assert ran.code == 0, ran.err
    told = json.loads((folder / "out" / "album" / "b.color.json").read_text())
    assert told["palette_copy"]["name"] == "b.jpg"
    assert error(tifffile.imread(folder / "out" / "album" / "b.color.tif"), truths["album/b"]) < 5
    store = ScanStore.open(folder / "out" / "album" / "b.zarr")
    one, other = (store.version(name).palette(store.info.shape_yx).cells for name in store.version_names())
    assert np.array_equal(one, other)

    ran = command("reprocess", folder / "out", "album/b", "--saturation", "0.5")
    assert ran.code == 0, ran.err
    graded = json.loads((folder / "out" / "album" / "b.color.json").read_text())
    assert (graded["settings"]["grade"]["saturation"], graded["palette_copy"]) == (0.5, told["palette_copy"])


def test_a_copy_that_comes_later_is_used_without_its_scan(command, done):
    folder, truths, _ = done
    (folder / "scans" / "alone.png").rename(folder / "away.png")
    Image.fromarray(handled(truths["alone"])[0]).save(folder / "copies" / "alone.jpg", quality=85)
    ran = command("reprocess", folder / "out", "alone", "--palette-from", folder / "copies")
    assert ran.code == 0, ran.err
    assert json.loads((folder / "out" / "alone.color.json").read_text())["palette_copy"]["name"] == "alone.jpg"
    gray = np.stack([as_scan(truths["alone"])] * 3, axis=2)
    picture = tifffile.imread(folder / "out" / "alone.color.tif")
    assert error(picture, truths["alone"]) < 0.35 * error(gray, truths["alone"])
    ran = command("reprocess", folder / "out", "album/b", "--palette-from", folder / "copies")
    assert ran.code == 1
    ran.line("b.png", "no coloured copy of it in", "--lenient")


def test_copies_are_found_by_the_names_of_results(tmp_path):
    def scan(stem, name, page=1):
        return ScanFile(tmp_path / "scans" / name, stem, page)

    for name in ("albums/plate.JPG", "flat.png", "book.p002.tif", "twice.jpg", "twice.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())

    def found(each):
        copy = find_copy(tmp_path, each, ScanFiles())
        return copy and copy.path.relative_to(tmp_path).as_posix()

    assert found(scan("albums/plate", "albums/plate.tif")) == "albums/plate.JPG"
    assert found(scan("albums/flat", "albums/flat.tif")) == "flat.png"
    assert found(scan("flat.tif", "flat.tif")) == "flat.png"
    assert found(scan("book.p002", "book.tif", 2)) == "book.p002.tif"
    assert found(scan("book.p001", "book.tif", 1)) is None
    assert found(ScanFile(tmp_path / "flat.png", "flat")) is None, "the scan itself"
    with pytest.raises(PaletteCopyError, match=r"2 coloured copies.*twice.jpg.*leave one"):
        found(scan("twice", "twice.tif"))


def test_what_can_do_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        parse_options(asked(tmp_path, palette_from=str(tmp_path / "nowhere")))
    given = {"palette_from": str(tmp_path), "precision": "fp32"}
    with pytest.raises(UsageError, match=r"efficientnet-unet takes no palette.*leave it out"):
        RunContext.of(parse_options(asked(tmp_path, model="efficientnet-unet", **given)))
    context = RunContext.of(parse_options(asked(tmp_path, cautious=True, **given)))
    assert context.palette is None, "no palette network is opened"
    with pytest.raises(UsageError, match=r"--cautious: the coloured copy a.jpg knows only one colour"):
        replace(context, copy=PaletteCopy(Path("a.jpg"), "ab")).spec_for((500, 500))
