"""What a format cannot hold is said before any work, by the same check that its writer makes."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.formats import FORMATS, OutputImage, check_formats, jp2, write_picture
from pipeline.readers import _raster_headers

UINT8 = np.dtype("uint8")
TOO_LARGE = {"png": (2**14, 2**14 + 1), "jpeg": (65_501, 2), "jp2": (2**19, 2**19), "iiif": (1, 100_000_001)}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_a_format_cannot_hold_is_refused_at_planning_and_at_writing(tmp_path, name):
    height, width = TOO_LARGE[name]
    messages = []
    with pytest.raises(UsageError) as caught:
        check_formats(["tiff", name], (height, width), UINT8)
    messages.append(str(caught.value))
    picture = OutputImage((height, width), UINT8, lambda rows, columns: np.zeros(0))
    with pytest.raises(UsageError) as caught:
        write_picture(name, tmp_path / "NAME", picture, 1)
    messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{width} x {height} pixels")
    assert "write tiff" in messages[0]
    assert not list(tmp_path.iterdir())


def test_a_remedy_of_a_message_is_one():
    largest = max(TOO_LARGE.values(), key=lambda shape_yx: shape_yx[0] * shape_yx[1])
    check_formats(["tiff", "cog", "omezarr"], largest, UINT8)


def test_every_format_holds_a_scan_as_there_are():
    check_formats(list(FORMATS), (16_000, 16_000), np.dtype("uint16"))


def test_a_format_that_is_not_known_is_refused():
    with pytest.raises(UsageError, match="'tif': unknown"):
        check_formats(["tif"], (10, 10), UINT8)


@pytest.mark.parametrize("shape_yx", [(1, 1), (80_000, 90_000), (132_000, 132_000), (8, 10**7), (2**18, 2**18)])
def test_a_large_jp2_has_few_enough_tiles_to_be_read(tmp_path, shape_yx):
    """By our own reader, of a header such as the writer's: four components of 8 bit."""
    side = jp2.tile_px(shape_yx)
    size = struct.pack(">HHIIIIIIIIH", 50, 0, shape_yx[1], shape_yx[0], 0, 0, side, side, 0, 0, 4) + b"\7\1\1" * 4
    (tmp_path / "a.j2c").write_bytes(b"\xff\x4f\xff\x51" + size)
    with (tmp_path / "a.j2c").open("rb") as file:
        assert _raster_headers.jpeg2000(file, False).shape_yx == shape_yx
    tiles = -(-shape_yx[0] // side) * -(-shape_yx[1] // side)
    assert tiles * 4 < 30_000
    assert side == 1024 or tiles > 1000  # no larger than they must be: a coder holds a whole one
