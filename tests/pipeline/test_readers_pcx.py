"""PCX: the pixels that Pillow gives, by windows in any order; what is cut, hostile or of another kind in one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.endings import SCANS
from pipeline.errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import open_scan, pcx
from pipeline.types import ReadOptions
from tests.benchmarks.variants.pcx import RAMP, by_pillow
from tests.benchmarks.variants.pcx import pcx as written

EVERYTHING = slice(None), slice(None)
RNG = np.random.default_rng(3)
BITS = RNG.integers(0, 2, (90, 131), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (90, 131), dtype=np.uint8)
RGB = RNG.integers(0, 256, (90, 131, 3), dtype=np.uint8)
TABLE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
WHOLE = {
    "bits": (written(BITS, 1), BITS * 255),
    "gray": (written(GRAY, table=RAMP), GRAY),
    "palette": (written(GRAY, table=TABLE), TABLE[GRAY]),
    "rgb": (written(RGB), RGB),
    "rgb by Pillow": (by_pillow(RGB), RGB),
}


def put(folder: Path, data: bytes) -> Path:
    path = folder / "a.pcx"
    path.write_bytes(data)
    return path


def with_field(data: bytes, at: int, form: str, *values: int) -> bytes:
    made = bytearray(data)
    struct.pack_into(form, made, at, *values)
    return bytes(made)


@pytest.mark.parametrize("kind", WHOLE)
def test_pixels_are_those_of_pillow(tmp_path: Path, kind: str) -> None:
    data, expected = WHOLE[kind]
    path = put(tmp_path, data)
    with Image.open(path) as image:
        by_other = np.asarray(image.convert("RGB" if expected.ndim == 3 else "L"))
    np.testing.assert_array_equal(by_other, expected)
    with open_scan(path) as reader:
        info = reader.info
        assert (info.shape_yx, info.channels, info.dtype) == ((90, 131), 3 if expected.ndim == 3 else 1, "uint8")
        assert info.metadata["format"] == "PCX"
        assert info.metadata["resolution"] == ([100, 100, "inch"] if "Pillow" in kind else [300, 300, "inch"])
        np.testing.assert_array_equal(reader.read(slice(30, 41), slice(7, 99)), expected[30:41, 7:99])
        np.testing.assert_array_equal(reader.read(*EVERYTHING), expected)
    assert ".pcx" in SCANS


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 12),
    levels=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    over_rows=st.booleans(),
    data=st.data(),
)
def test_windows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    levels: int,
    channels: int,
    over_rows: bool,
    data: st.DataObject,
) -> None:
    """Long and short runs, small parts of the file at once, bands of some rows."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    picture: NDArray = rng.choice(np.array([1, 0xC1, 0xFF], np.uint8)[:levels], (height, width, channels))
    table = RAMP if channels == 1 else None
    path = put(tmp_path_factory.mktemp("pcx"), written(picture, table=table, over_rows=over_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pcx, "_BAND_BYTES", data.draw(st.integers(1, 3000)))
        patch.setattr(pcx, "_MOST_CODED_BYTES", data.draw(st.integers(2, 100)))
        with open_scan(path) as reader:
            for y in data.draw(st.permutations(range(height))):
                np.testing.assert_array_equal(
                    reader.read(slice(y, y + 1), slice(None)),
                    picture[y : y + 1].squeeze(-1) if channels == 1 else picture[y : y + 1],
                )


def test_a_tall_picture_is_read_by_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcx, "_BAND_BYTES", 132 * 8)
    with open_scan(put(tmp_path, WHOLE["palette"][0])) as reader:
        assert reader.segment_yx == (8, 131)
        np.testing.assert_array_equal(reader.read(slice(80, 90), slice(None)), WHOLE["palette"][1][80:])
        np.testing.assert_array_equal(reader.read(*EVERYTHING), WHOLE["palette"][1])


@pytest.mark.parametrize("kind", ["bits", "gray", "rgb"])
def test_a_cut_one_gives_all_rows_that_are_there(tmp_path: Path, kind: str) -> None:
    data, expected = WHOLE[kind]
    upper = {"bits": BITS, "gray": GRAY, "rgb": RGB}[kind][:40]
    path = put(tmp_path, data[: len(written(upper, 1 if kind == "bits" else 8)) + 16])
    told = "palette of 256 colours is missing" if kind == "gray" else "of 90 rows the file holds 40;"
    with pytest.raises(ScanUnreadableError, match=told), open_scan(path) as reader:
        reader.read(*EVERYTHING)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert [(hole.y0, hole.y1) for hole in reader.missing_regions] == [(40, 90)]
        assert ("the palette" in str(reader.info.metadata.get("dropped"))) == (kind == "gray")
    np.testing.assert_array_equal(got[:40], expected[:40])
    assert (got[40:] == 127).all()


def test_a_palette_mark_by_chance_does_not_hide_a_cut(tmp_path: Path) -> None:
    data = written(np.full((90, 131), 12, np.uint8) + np.arange(131, dtype=np.uint8) % 2, table=RAMP)
    cut = data[: data.index(b"\x0c\x0d", 5000) + 769]
    with open_scan(put(tmp_path, cut)) as reader, pytest.raises(ScanUnreadableError, match="of 90 rows"):
        reader.read(*EVERYTHING)


def test_a_gray_one_needs_no_palette(tmp_path: Path) -> None:
    with open_scan(put(tmp_path, written(GRAY, kind=2))) as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), GRAY)
        assert "dropped" not in reader.info.metadata


def test_what_a_header_declares_is_checked_first(tmp_path: Path) -> None:
    data = WHOLE["rgb"][0]
    largest = with_field(with_field(data, 4, "<4H", 0, 0, 65534, 65535), 66, "<H", 65535)
    path = put(tmp_path, largest)
    with pytest.raises(ScanUnsupportedError, match="above the limit"):
        open_scan(path, ReadOptions(limit_pixels=10**9))
    with pytest.raises(ScanUnreadableError, match="of 65536 rows the file holds at most"):
        open_scan(path)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        assert (reader.read(slice(60000, 60100), slice(0, 100)) == 127).all()
    for box in ((9, 0, 8, 89), (0, 9, 130, 8), (65535, 65535, 0, 0)):
        with pytest.raises(ScanUnsupportedError, match="empty"):
            open_scan(put(tmp_path, with_field(data, 4, "<4H", *box)))
    for plane_bytes in (0, 1, 130):
        with pytest.raises(ScanUnreadableError, match=f"rows of {plane_bytes} bytes for 131 pixels"):
            open_scan(put(tmp_path, with_field(data, 66, "<H", plane_bytes)))


def test_runs_of_nothing_end(tmp_path: Path) -> None:
    path = put(tmp_path, WHOLE["rgb"][0][:128] + b"\xc0\x07" * 100_000)
    with open_scan(path) as reader, pytest.raises(ScanUnreadableError, match="of 90 rows the file holds 0"):
        reader.read(*EVERYTHING)
    for length in range(4, 128, 31):
        with pytest.raises(ScanError):
            open_scan(put(tmp_path, WHOLE["rgb"][0][:length]))


@pytest.mark.parametrize(
    "data",
    [
        written(BITS, 1, version=3),
        written(GRAY, version=0),
        written(GRAY, encoding=0),
        written(np.dstack([BITS] * 4), 1),
        written(GRAY[:, :, None].repeat(4, 2)),
        with_field(written(GRAY), 3, "<B", 2),
    ],
)
def test_other_kinds_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ScanUnsupportedError, match=r"a PCX of version .*; convert it to PNG or TIFF$") as caught:
        open_scan(put(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Two colours of which the first is white; the size of a screen where the resolution should be."""
    data = with_field(written(BITS, 1, dpi=(131, 90)), 16, "<3B", 255, 255, 255)
    with open_scan(put(tmp_path, data)) as reader:
        assert "the first is the lighter" in reader.info.metadata["dropped"][0]
        assert "resolution" not in reader.info.metadata
