"""The palette that a scan gets from a coloured copy of it."""

import cv2
import numpy as np
import pytest

from pipeline.colour.lab import lab_from_rgb, lightness_from_samples
from pipeline.errors import PaletteCopyError
from pipeline.palettes.copies import CELLS, laid_on, palette_of_copy, shrunk_copy
from pipeline.palettes.registration import Registration
from pipeline.readers import open_scan
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
