"""Windows of written pictures at every size, as a viewer that zooms asks for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.formats import FORMATS, OutputImage, open_levels, write_picture
from pipeline.formats import levels as levels_module

SHAPE_YX = (1300, 700)


def picture(dtype=np.uint8, orientation=1):
    """A smooth picture, so that different ways to shrink it agree."""
    y, x = np.mgrid[0:1, 0:1]
    y, x = np.mgrid[0 : SHAPE_YX[0], 0 : SHAPE_YX[1]] / np.array([[SHAPE_YX[0]], [SHAPE_YX[1]]])[:, :, None]
    image = np.stack([y, x, (x + y) / 2], axis=2) * np.iinfo(dtype).max
    image = image.astype(dtype)
    return image, OutputImage(SHAPE_YX, image.dtype, lambda *window: image[window], orientation=orientation)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_level_of_every_format_is_the_picture(name, tmp_path):
    dtype = np.uint8 if name in ("jpeg", "iiif") else np.uint16
    image, output = picture(dtype)
    path = tmp_path / f"a{FORMATS[name].ENDING}"
    write_picture(name, path, output, 1)
    eight = image if dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    with open_levels(name, path, SHAPE_YX) as levels:
        assert levels.levels_yx[0] == SHAPE_YX
        assert max(levels.levels_yx[-1]) <= 1024
        for level, (height, width) in enumerate(levels.levels_yx):
            rows, columns = slice(height // 3, min(height // 3 + 120, height)), slice(width // 2, width)
            window = levels.read(level, rows, columns)[..., :3].astype(np.int32)
            window = window if levels.read(level, rows, columns).dtype == np.uint8 else (window + 128) // 257
            wanted = cv2.resize(eight, (width, height), interpolation=cv2.INTER_AREA)[rows, columns]
            assert window.shape == wanted.shape
            assert np.abs(window - wanted).max() <= (6 if name in ("jpeg", "iiif") else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["tiff", "iiif"])
def test_levels_are_upright(name, orientation, tmp_path):
    image, output = picture(orientation=orientation)
    path = tmp_path / f"a{FORMATS[name].ENDING}"
    write_picture(name, path, output, 1)
    upright = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1],
        5: image.swapaxes(0, 1), 6: np.rot90(image, -1), 7: image[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(image),
    }[orientation]  # fmt: skip
    with open_levels(name, path, SHAPE_YX, orientation) as levels:
        assert levels.levels_yx[0] == upright.shape[:2]
        window = levels.read(0, slice(10, 500), slice(20, 90)).astype(np.int32)
    assert np.abs(window - upright[10:500, 20:90]).max() <= (6 if name == "iiif" else 0)


def test_a_large_picture_without_copies_is_refused_with_the_remedy(tmp_path, monkeypatch):
    _, output = picture()
    write_picture("png", tmp_path / "a.color.png", output, 1)
    monkeypatch.setattr(levels_module, "WHOLE_LIMIT_PX", 1000)
    with pytest.raises(StoreError, match="--format tiff"):
        open_levels("png", tmp_path / "a.color.png", SHAPE_YX)
