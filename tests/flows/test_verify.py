"""``colorize-archive verify``: a result that keeps its promises is told from one that does not, down to a byte."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from pipeline.metadata.provenance import xmp_packet
from tests.models import make_model


def scan_of(path, dtype):
    """Every gray level of its depth, a gradient and grain, with a resolution and an orientation."""
    random = np.random.default_rng(0)
    most = np.iinfo(dtype).max
    ramp = np.linspace(0, most, 600 * 700).reshape(600, 700)
    samples = np.clip(ramp + random.normal(0, most / 50, ramp.shape), 0, most).astype(dtype)
    samples[:256, :256] = np.arange(65536).reshape(256, 256) % (most + 1)
    tifffile.imwrite(path, samples, resolution=(300, 300), resolutionunit="INCH", extratags=[(274, "H", 1, 6, True)])


@pytest.fixture(scope="module")
def results(command, tmp_path_factory):
    """Saturated colours everywhere: nearly all pixels are at the edge of the gamut."""
    folder = tmp_path_factory.mktemp("verify")
    model = make_model(folder / "model", gain=9)
    for dtype in (np.uint8, np.uint16):
        scan_of(folder / f"{np.dtype(dtype)}.tif", dtype)
    words = ("--model", model, "--tile", "256", "--window", "average")
    ran = command("run", *sorted(folder.glob("*.tif")), "-o", folder / "out", *words)
    assert ran.code == 0, ran.err
    return folder / "out"


@pytest.fixture
def copy(results, tmp_path):
    shutil.copytree(results, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(("dtype", "bound"), [("uint8", 0.5), ("uint16", 0.02)])
def test_lightness_is_the_scans_however_saturated_the_colours_are(command, results, dtype, bound):
    picture = results / f"{dtype}.color.tif"
    ran = command("verify", picture, "--json")
    assert ran.code == 0, ran.out
    (told,) = json.loads(ran.out)["certificates"]
    assert told["passes"]
    assert told["bound"] == bound
    assert 0 < told["lightness_mean"] < told["lightness_max"] <= bound
    # As another library computes it, in double precision; its matrix is rounded otherwise.
    most = np.iinfo(dtype).max
    lab = rgb2lab(tifffile.imread(picture) / most)
    gray = tifffile.imread(results.parent / f"{dtype}.tif") / most
    wanted = rgb2lab(np.stack([gray] * 3, axis=-1))
    assert np.abs(lab[..., 0] - wanted[..., 0]).max() == pytest.approx(told["lightness_max"], abs=0.005)
    assert np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 50) > 20
    assert command("verify", results).out.count("whole") == 2


def test_any_reader_sees_that_the_colour_is_an_algorithms_and_how_it_is_encoded(results):
    """Pillow and LittleCMS; the packet is parsed as XML, since names may hold what XML does not."""
    with Image.open(results / "uint8.color.tif") as picture:
        profile = ImageCms.ImageCmsProfile(BytesIO(picture.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        # It is the profile of the samples: through it and back to sRGB, nothing changes.
        crop = picture.crop((0, 0, 64, 64))
        same = ImageCms.profileToProfile(crop, profile, ImageCms.createProfile("sRGB"))
        assert np.abs(np.asarray(same).astype(int) - np.asarray(crop)).max() <= 1
        packet = ElementTree.fromstring(picture.tag_v2[700])
    (kind,) = packet.iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert kind.text.endswith("/compositeWithTrainedAlgorithmicMedia")
    (tool,) = packet.iter("{http://ns.adobe.com/xap/1.0/}CreatorTool")
    assert "colorize-archive" in tool.text
    assert "model tiny" in tool.text
    (source,) = packet.iter("{http://purl.org/dc/elements/1.1/}source")
    assert "uint8.tif" in source.text


def test_names_that_xml_does_not_hold_are_written_all_the_same():
    packet = xmp_packet("a < b", 'Löwe & "Söhne"', "<scan>.tif")
    texts = [each.text for each in ElementTree.fromstring(packet).iter() if each.text and each.text.strip()]
    assert texts[1:] == ["a < b", 'Löwe & "Söhne"', "<scan>.tif"]


def test_without_a_store_the_scan_itself_is_compared_and_without_both_it_says_so(command, copy):
    sidecar = copy / "uint8.color.json"
    shutil.rmtree(copy / "uint8.zarr")
    assert command("verify", copy / "uint8.color.tif").code == 0
    told = json.loads(sidecar.read_text())
    told["source"]["path"] = str(copy / "gone.tif")
    sidecar.write_text(json.dumps(told))
    ran = command("verify", copy / "uint8.color.tif")
    assert ran.code == 1
    assert "neither its store nor its scan" in ran.out


WORLD = "2\n0\n0\n-2\n500000\n4600000\n"


def coloured_jpeg(command, folder):
    """The result of a JPEG with what lies beside it, its store deleted."""
    gray = np.add.outer(np.arange(120), np.arange(140)).astype(np.uint8)
    Image.fromarray(gray).save(folder / "a.jpg", quality=95)
    ran = command("run", folder / "a.jpg", "-o", folder / "out", "--engine", "identity")
    assert ran.code == 0, ran.err
    shutil.rmtree(folder / "out" / "a.zarr")
    return folder / "out"


def test_a_world_file_that_came_later_says_nothing_of_a_result(command, tmp_path):
    output = coloured_jpeg(command, tmp_path)
    assert "beside" not in json.loads((output / "a.color.json").read_text())["source"]["metadata"]
    (tmp_path / "a.jgw").write_text(WORLD)
    ran = command("verify", output)
    assert (ran.code, "; place" in ran.out) == (0, False), ran.out


def test_the_place_is_compared_with_the_world_file_that_it_is_from(command, tmp_path):
    (tmp_path / "a.wld").write_text(WORLD)
    output = coloured_jpeg(command, tmp_path)
    assert json.loads((output / "a.color.json").read_text())["source"]["metadata"]["beside"] == "a.wld"
    (tmp_path / "a.jgw").write_text(WORLD.replace("500000", "7"))
    ran = command("verify", output)
    assert (ran.code, "; place" in ran.out) == (0, False), ran.out
    (tmp_path / "a.wld").write_text(WORLD.replace("500000", "8"))
    ran = command("verify", output)
    assert ran.code == 1
    assert "place is not kept" in ran.out
    (tmp_path / "a.wld").unlink()
    ran = command("verify", output)
    assert ran.code == 0
    assert "place not compared: no a.wld to read beside the scan any more" in ran.out


def test_a_picture_whose_lightness_was_changed_is_told_with_the_place(command, copy):
    picture, sidecar = copy / "uint8.color.tif", copy / "uint8.color.json"
    samples = tifffile.imread(picture)
    samples[300:310, 20:30] //= 2
    tifffile.imwrite(picture, samples, photometric="rgb")
    ran = command("verify", picture)
    assert (ran.code, len(ran.out.splitlines())) == (1, 1)
    for words in (
        "DAMAGED",
        "not the",
        "pyramid has 1 levels",
        "resolution",
        "orientation",
        "lightness is not the scan's",
    ):
        assert words in ran.out
    sidecar.unlink()
    ran = command("verify", picture)
    assert (ran.code, len(ran.lines)) == (2, 1)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_any_byte_that_is_other_is_found(copy):
    """In this process, because there are many: each file of the store and the picture, at several places."""
    from pipeline.results.verify import verify

    picture = copy / "uint8.color.tif"
    assert verify(picture)[0].passes
    files = [path for path in (copy / "uint8.zarr").rglob("*") if path.is_file()]
    kinds = {path.suffix or path.parent.parent.parent.name for path in files}
    assert len(files) > 8, kinds
    random = np.random.default_rng(1)
    missed = []
    for path in [picture, *files]:
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1, *random.integers(len(whole), size=3).tolist()}:
            flip(path, place)
            if verify(picture)[0].passes:
                missed.append((path.relative_to(copy), place))
            path.write_bytes(whole)
    assert missed == []
    assert verify(picture)[0].passes


def test_a_file_that_is_missing_is_named(command, copy):
    (copy / "uint8.color.tif").unlink()
    shutil.rmtree(copy / "uint16.zarr" / "scan" / "c")
    ran = command("verify", copy)
    assert (ran.code, len(ran.out.splitlines())) == (1, 2)
    assert "the picture is not there" in ran.out
    assert "files of uint16.zarr/scan are missing" in ran.out


def test_what_is_no_result_does_not_hide_the_others(command, copy):
    ran = command("verify", copy / "nowhere.color.tif", copy / "uint8.color.json", "--json")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "no result of this project" in ran.lines[0]
    (told,) = json.loads(ran.out)["certificates"]
    assert told["passes"]


def test_what_is_no_result_is_one_line(command, tmp_path):
    (tmp_path / "empty").mkdir()
    for words in ((tmp_path / "nowhere.color.tif",), (tmp_path / "empty",), (Path(__file__),)):
        ran = command("verify", *words)
        assert (ran.code, len(ran.lines)) == (2, 1), ran.err
