"""The palette that a scan gets from a coloured copy of it."""

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipeline.colour.lab import lab_from_rgb, lightness_from_samples
from pipeline.errors import PaletteCopyError
from pipeline.palettes.copies import CELLS, laid_on, palette_of_copy, shrunk_copy
from pipeline.palettes.registration import Registration
from pipeline.readers import keeping_colours, open_scan
from tests.copies import handled
from tests.pipeline.test_registration import photograph

IN_PLACE = Registration(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), 1.0, 1.0, 1.0)


def lab_of(rgb):
    return lab_from_rgb(rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max))


def cell_means(lab, rows, columns):
    return np.stack([cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) for plane in lab[1:]])


def written(path, rgb):
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def test_the_cells_of_a_copy_in_its_place_are_its_mean_colours():
    lab = lab_of(photograph()[:256, :384])
    palette = laid_on((256, 384), lab, IN_PLACE, 32)
    assert palette.cells.shape == (2, 32, 48)
    assert palette.cell_yx == (8, 8)
    assert np.allclose(palette.cells, cell_means(lab, 32, 48), atol=1e-3)


def test_a_copy_gives_the_colours_of_its_scan_whatever_was_done_to_it(tmp_path):
    rgb = photograph(1, side=320)
    copy, _ = handled(rgb)
    gray = np.asarray(lightness_from_samples(rgb))
    with open_scan(written(tmp_path / "copy.jpg", copy)) as reader:
        seen, factor = shrunk_copy(reader)
    palette, found = palette_of_copy(lambda roi: gray[roi.rows, roi.columns], gray.shape, seen, factor)
    rows, columns = palette.cells.shape[1:]
    assert min(rows, columns) == CELLS
    truth = cell_means(lab_of(rgb), rows, columns)
    assert np.abs(palette.cells - truth).mean() < 2
    assert found.degrees == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_large_copy_is_shrunk_by_bands_to_the_means_of_the_whole(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("pipeline.palettes.copies._BAND_PIXELS", 50_000)
    rgb = cv2.resize(photograph(2), (1210, 901)).astype(dtype) * (1 if dtype == np.uint8 else 257)
    with open_scan(written(tmp_path / "copy.png", rgb)) as reader:
        seen, factor = shrunk_copy(reader)
    assert factor == 2
    assert seen.shape == (3, 451, 605)
    whole = lab_of(rgb)[:, :900].reshape(3, 450, 2, 605, 2).mean(axis=(2, 4))
    assert np.allclose(seen[:, :450], whole, atol=1e-2)


def test_what_lies_just_outside_the_copy_goes_on_and_what_lies_far_outside_is_gray():
    lab = np.stack([np.full((100, 60), value, np.float32) for value in (50, 20, -10)])
    palette = laid_on((100, 100), lab, IN_PLACE, 50)  # 2 px a cell: the copy ends at column 30
    assert np.allclose(palette.cells[:, :, :32].transpose(1, 2, 0), (20, -10), atol=0.1)
    assert np.all(np.abs(palette.cells[:, :, 36:]) < 0.1)


# Adobe RGB (1998), 4.3.5.3: XYZ of D65 to linear RGB.
_TO_ADOBE = np.array([[2.04159, -0.56501, -0.34473], [-0.96924, 1.87597, 0.04156], [0.01344, -0.11836, 1.01517]])
_SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def in_adobe_rgb(rgb, top):
    """sRGB samples as Adobe RGB's, by the definitions of both."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    wide = np.clip(linear @ (_TO_ADOBE @ _SRGB_TO_XYZ).T, 0, 1) ** (256 / 563)
    return np.rint(wide * top).astype(np.uint8 if top == 255 else np.uint16)


@pytest.mark.parametrize("name", ["copy.png", "copy.jpg", "copy.tif"])
def test_a_copy_in_a_wider_space_has_the_colours_that_its_profile_says(tmp_path, name):
    path, icc = tmp_path / name, imagecodecs.cms_profile("adobergb")
    few = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    rgb = cv2.resize(few, (360, 240), interpolation=cv2.INTER_CUBIC)
    if path.suffix == ".tif":
        tifffile.imwrite(path, in_adobe_rgb(rgb, 65535), photometric="rgb", iccprofile=icc)
    else:
        PIL.Image.fromarray(in_adobe_rgb(rgb, 255)).save(path, icc_profile=icc, quality=97, subsampling=0)
    with keeping_colours(), open_scan(path) as reader:
        seen, _ = shrunk_copy(reader)
    difference = np.abs(seen - lab_of(rgb)).mean(axis=(1, 2))
    assert difference.max() < 0.6, difference
    assert np.abs(lab_of(in_adobe_rgb(rgb, 255)) - lab_of(rgb)).mean(axis=(1, 2)).max() > 5
    # As a scan it is seen through the same profile, and gives its lightness alone.
    with open_scan(path) as reader:
        assert (reader.info.channels, reader.info.tone) == (1, "lightness")


def test_pictures_without_colour_are_refused(tmp_path):
    gray = photograph()[..., 1]
    with (
        open_scan(written(tmp_path / "a.png", gray[..., None])) as reader,
        pytest.raises(PaletteCopyError, match="gray"),
    ):
        shrunk_copy(reader)
    same = np.stack([gray] * 3, axis=2)
    same[0, 0] = (255, 0, 0)  # so that no reader takes it for one channel
    with open_scan(written(tmp_path / "b.png", same)) as reader, pytest.raises(PaletteCopyError, match="gray all over"):
        shrunk_copy(reader)
