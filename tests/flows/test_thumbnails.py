"""Thumbnails: from every format, as they are to be seen, with flat memory, and no more often than needed."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from flows.sheet.thumbnails import (
    LARGE_SIDE_PX,
    LONG_SIDE_PX,
    large_path,
    remove_others,
    shrunk,
    thumbnail_path,
    thumbnails,
    upright,
)
from pipeline.formats import ENDINGS, OutputImage, write_picture
from pipeline.results.sidecar import Sidecar
from pipeline.support.files import file_sha256

SHAPE_YX = (700, 1300)
Y, X = np.mgrid[: SHAPE_YX[0], : SHAPE_YX[1]]
RGB = np.stack([X * 250 // SHAPE_YX[1], Y * 250 // SHAPE_YX[0], 250 - X * 250 // SHAPE_YX[1]], axis=2).astype(np.uint8)
GRAY = RGB[..., 1]


def sidecar(scan: Path, formats=(), orientation=None, finished="2026-01-01T00:00:00+00:00", shape_yx=SHAPE_YX):
    source = {
        "path": str(scan),
        "page": 1,
        "bytes": scan.stat().st_size,
        "sha256": file_sha256(scan),
        "height_px": shape_yx[0],
        "width_px": shape_yx[1],
        "holes": [],
        "metadata": {"orientation": orientation} if orientation else {},
    }
    result = {"version": "256-128-hann-default-00000000", "store": "a.zarr"}
    told = {"source": source, "result": result, "finished": finished, "pictures": {name: {} for name in formats}}
    return Sidecar.from_json(told)


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), GRAY)
    return path


def write(output, name, stem="a", depth=np.uint8):
    samples = RGB.astype(depth) * (257 if depth == np.uint16 else 1)
    picture = OutputImage(SHAPE_YX, samples.dtype, lambda *window: samples[window], channels=3)
    write_picture(name, output / f"{stem}{ENDINGS[name]}", picture, 1)


@pytest.mark.parametrize("name", ENDINGS)
def test_of_every_format(name, scan, tmp_path):
    stem = "50 % #1 ä" if name != "cog" else "a"
    write(tmp_path, name, stem, np.uint8 if name in ("jpeg", "iiif") else np.uint16)
    shown = thumbnails(tmp_path, stem, sidecar(scan, (name,)))
    assert shown.troubles == ()
    small = cv2.resize(RGB, (LONG_SIDE_PX, 172), interpolation=cv2.INTER_AREA).astype(int)
    after = np.asarray(Image.open(shown.after)).astype(int)
    before = np.asarray(Image.open(shown.before)).astype(int)
    assert after.shape == small.shape
    assert before.shape == small.shape[:2]
    assert np.abs(after - small).mean() < 2.5
    assert np.abs(before - small[..., 1]).mean() < 2.5
    large = [np.asarray(Image.open(path)).astype(int) for path in (shown.before_large, shown.after_large)]
    assert [each.shape for each in large] == [SHAPE_YX, RGB.shape]  # the whole of it, for it has less than 2048 px
    assert np.abs(large[1] - RGB).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_as_pillow_turns_it(orientation, tmp_path):
    told = Image.Exif()
    told[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=told)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert (upright(RGB, orientation) == expected).all()
    assert (upright(GRAY, orientation) == expected[..., 1]).all()


def test_an_orientation_that_is_none_turns_nothing(scan, tmp_path):
    write(tmp_path, "tiff")
    shown = thumbnails(tmp_path, "a", sidecar(scan, ("tiff",), orientation=6))
    assert Image.open(shown.after).size == Image.open(shown.before).size == (172, LONG_SIDE_PX)
    for strange in (None, 0, 9, 65_535):
        assert (upright(RGB, strange) == RGB).all()


@pytest.mark.parametrize("name", ["tiff", "iiif", "jp2", "omezarr"])
def test_large_pictures_of_scan_and_result_fit_to_the_pixel(name, tmp_path):
    shape_yx = (2333, 4111)
    y, x = np.ogrid[: shape_yx[0], : shape_yx[1]]
    gray = ((y // 7 + x // 5) % 200).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    rgb = np.stack([gray, gray // 2, gray // 3], axis=2)
    picture = OutputImage(shape_yx, rgb.dtype, lambda *window: rgb[window], channels=3, orientation=6)
    write_picture(name, tmp_path / f"a{ENDINGS[name]}", picture, 1)
    told = sidecar(tmp_path / "a.png", (name,), orientation=6, shape_yx=shape_yx)
    shown = thumbnails(tmp_path, "a", told)
    assert shown.troubles == ()
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (shown.before_large, shown.after_large))
    assert before.shape == after.shape[:2] == (LARGE_SIDE_PX, 1162)
    plain = cv2.resize(np.rot90(gray, -1), (1162, LARGE_SIDE_PX), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(before - plain).mean() < 6
    # Nearer to the same place than to a place 8 pixels off: no shift, and turned the same way.
    red = after[..., 0]
    assert 2 * np.abs(red - before).mean() < np.abs(red[8:] - before[:-8]).mean()


def test_a_folder_of_an_earlier_release_gets_its_large_pictures_when_asked(scan, tmp_path):
    write(tmp_path, "tiff")
    told = sidecar(scan, ("tiff",))
    thumbnails(tmp_path, "a", told)
    for kind in ("before", "after"):
        large_path(tmp_path, "a", kind).unlink()
    shown = thumbnails(tmp_path, "a", told, makes_large=False)
    assert (shown.before_large, shown.after_large) == (None, None)
    assert {shown.before, shown.after} == shown.paths
    assert thumbnails(tmp_path, "a", told).before_large == large_path(tmp_path, "a", "before")


def test_large_pictures_are_read_by_windows():
    shape_yx = (5003, 9001)
    y, x = np.ogrid[: shape_yx[0], : shape_yx[1]]
    whole = ((y // 40 + x // 60) % 256).astype(np.uint8)
    asked = []

    def read(roi):
        asked.append(roi.shape_yx)
        return whole[roi.rows, roi.columns]

    small = shrunk(read, shape_yx)
    assert max(height * width for height, width in asked) <= 2048**2
    assert sum(height * width for height, width in asked) == whole.size  # nothing twice
    assert LONG_SIDE_PX <= max(small.shape) < 2 * LONG_SIDE_PX
    plain = whole[:4992, :8992].reshape(312, 16, 562, 16).mean((1, 3))
    assert np.abs(small[:312, :562] - plain).max() <= 0.5


@pytest.mark.parametrize(("shape_yx", "small_yx"), [((1, 1), (1, 1)), ((1, 5001), (1, 626)), ((5000, 3), (625, 1))])
def test_odd_shapes(shape_yx, small_yx):
    small = shrunk(lambda roi: np.full(roi.shape_yx, 7, np.uint8), shape_yx)
    assert small.shape == small_yx
    assert (small == 7).all()


def test_made_again_only_for_another_version(scan, tmp_path):
    write(tmp_path, "tiff")
    told = sidecar(scan, ("tiff",))
    shown = thumbnails(tmp_path, "a", told)
    first = [path.stat().st_mtime_ns for path in (shown.before, shown.after)]
    scan.unlink()  # what is there already is not looked for
    assert thumbnails(tmp_path, "a", told) == shown
    again = thumbnails(tmp_path, "a", replace(told, finished="2026-01-02T00:00:00+00:00"))
    second = [path.stat().st_mtime_ns for path in (again.before, again.after)]
    assert second[0] == first[0]
    assert second[1] > first[1]


def test_what_cannot_be_shown_says_why(scan, tmp_path):
    told = sidecar(scan, ("tiff",))
    (tmp_path / "a.color.tif").write_text("no TIFF")
    cv2.imwrite(str(scan), GRAY[:, ::-1] // 2)
    shown = thumbnails(tmp_path, "a", told)
    assert (shown.before, shown.after) == (None, None)
    assert "has changed since it was coloured" in shown.troubles[0]
    assert "no picture of it after" in shown.troubles[1]
    assert "\n" not in json.dumps(shown.troubles)


def test_others_of_ours_are_removed(scan, tmp_path):
    write(tmp_path, "tiff", "a")
    (tmp_path / "box").mkdir()
    write(tmp_path, "tiff", "box/b")
    kept = thumbnails(tmp_path, "a", sidecar(scan, ("tiff",)))
    gone = thumbnails(tmp_path, "box/b", sidecar(scan, ("tiff",)))
    assert gone.after == thumbnail_path(tmp_path, "box/b", "after")
    strange = tmp_path / "thumbs" / "mine.after.jpg"
    cv2.imwrite(str(strange), RGB)
    remove_others(tmp_path, kept.paths)
    names = [f"a.{kind}{size}.jpg" for kind in ("after", "before") for size in (".2048", "")]
    assert sorted(p.name for p in (tmp_path / "thumbs").iterdir()) == [*names, strange.name]


SECRET = 253


def lead_to_secret(name: str, folder: Path, secret: Path) -> Path:
    """What somebody who may write into the output folder puts in a picture's place, to have another file shown."""
    path = folder / f"a{ENDINGS[name]}"
    vrt = (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="{0}"><SimpleSource>'
        "<SourceFilename>{1}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    bands = "".join(vrt.format(band, secret)[vrt.index("<VRTR") : -len("</VRTDataset>")] for band in (1, 2, 3))
    texts = {
        "jp2": f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>',
        "jpeg": f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="{secret}"/></svg>',
    }
    texts["png"], texts["cog"] = texts["jpeg"], texts["jp2"]
    if name in texts:
        path.write_text(texts[name])
    elif name == "tiff":
        ome = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" '
            'SizeC="1" SizeZ="1" SizeT="1"><TiffData IFD="0" PlaneCount="1">'
            f'<UUID FileName="{secret.name}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
        )
        tifffile.imwrite(path, np.zeros((64, 64), np.uint8), description=ome, metadata=None)
        shutil.copy(secret.with_suffix(".tif"), folder / secret.name)  # tifffile looks for it in the same folder
    else:
        folders = {"omezarr": path / "0", "iiif": path / "full"}
        path.mkdir()
        write(secret.parent, name)
        shutil.copy(secret.parent / path.name / {"omezarr": "zarr.json", "iiif": "info.json"}[name], path)
        folders[name].symlink_to(secret.parent / path.name / folders[name].name)
    return path


@pytest.mark.parametrize("name", ENDINGS)
def test_a_picture_in_the_output_folder_leads_to_no_other_file(name, scan, tmp_path):
    secret = tmp_path / "secret" / "secret.png"
    secret.parent.mkdir()
    cv2.imwrite(str(secret), np.full((64, 64), SECRET, np.uint8))
    tifffile.imwrite(secret.with_suffix(".tif"), np.full((64, 64), SECRET, np.uint8))
    lead_to_secret(name, tmp_path, secret)
    shown = thumbnails(tmp_path, "a", sidecar(scan, (name,)))
    if name == "iiif":  # an address leads through a link as through any folder
        assert shown.after is not None
    else:
        assert shown.after is None
        assert "no picture of it after" in shown.troubles[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ENDINGS)
def test_a_pipe_in_the_place_of_a_picture_is_not_waited_for(name, scan, tmp_path):
    os.mkfifo(tmp_path / f"a{ENDINGS[name]}")
    os.mkfifo(tmp_path / "a.zarr")
    (tmp_path / "thumbs").mkdir()
    os.mkfifo(tmp_path / "thumbs" / "a.after.jpg")
    shown = thumbnails(tmp_path, "a", sidecar(scan, (name,)))
    assert shown.after is None
    assert shown.before is not None
