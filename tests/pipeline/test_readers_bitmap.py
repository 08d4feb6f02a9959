"""PBM: the pixels that Pillow and OpenCV give, by windows, whatever is damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.endings import SCANS
from pipeline.errors import ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import bitmap, open_scan
from pipeline.types import ReadOptions

EVERYTHING = slice(None), slice(None)
BITS = np.random.default_rng(3).integers(0, 2, (90, 131), dtype=np.uint8)  # 1 is black
GRAY = (1 - BITS) * 255


def packed(head: bytes = b"P4\n131 90\n") -> bytes:
    return head + np.packbits(BITS, axis=1).tobytes()


def text(head: bytes = b"P1\n131 90\n", between: bytes = b" ") -> bytes:
    return head + b"\n".join(between.join(b"%d" % bit for bit in row) for row in BITS)


@pytest.mark.parametrize(
    "data",
    [
        packed(),
        packed(b"P4 # by hand\n131\t90 "),
        text(),
        text(between=b""),
        text(b"P1 131 90\n# a comment with 0 and 1\n"),
    ],
)
def test_pixels_are_those_of_pillow_and_opencv(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pbm"
    path.write_bytes(data)
    with open_scan(path) as reader:
        info = reader.info
        assert (info.shape_yx, info.channels, info.dtype) == ((90, 131), 1, "uint8")
        np.testing.assert_array_equal(reader.read(*EVERYTHING), GRAY)
        np.testing.assert_array_equal(reader.read(slice(30, 41), slice(7, 99)), GRAY[30:41, 7:99])
        assert info.metadata.get("dropped") == (["comment"] if b"by hand" in data else None)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), GRAY)
    if b"#" not in data:
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), GRAY)
    assert ".pbm" in SCANS


def test_a_tall_picture_is_read_by_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitmap, "_BAND_BYTES", 131 * 8)
    (tmp_path / "a.pbm").write_bytes(packed())
    with open_scan(tmp_path / "a.pbm") as reader:
        assert reader.segment_yx == (8, 131)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(reader.read(*EVERYTHING), GRAY)


@pytest.mark.parametrize(("data", "kept"), [(packed()[: 10 + 17 * 40 + 16], 40), (text()[: -131 * 2 * 9 - 4], 80)])
def test_a_cut_one_gives_all_rows_that_are_there(tmp_path: Path, data: bytes, kept: int) -> None:
    path = tmp_path / "a.pbm"
    path.write_bytes(data)
    with open_scan(path) as reader, pytest.raises(ScanUnreadableError, match=f"of 90 rows the file holds {kept};"):
        reader.read(*EVERYTHING)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert sorted(row for hole in reader.missing_regions for row in range(hole.y0, hole.y1)) == list(
            range(kept, 90)
        )
    np.testing.assert_array_equal(got[:kept], GRAY[:kept])
    assert (got[kept:] == 127).all()


def test_what_a_header_declares_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pbm"
    for head in (b"P4\n1000000 1000000\n", b"P1\n1000000 1000000\n"):
        path.write_bytes(head + b"1")
        with pytest.raises(ScanUnsupportedError, match="above the limit"):
            open_scan(path)
        with (
            open_scan(path, ReadOptions(limit_pixels=10**13)) as reader,
            pytest.raises(ScanUnreadableError, match="cut off"),
        ):
            reader.read(slice(0, 100), slice(0, 100))
    for head in (b"P4\n0 9\n", b"P4\n9 99999999999999999999\n"):
        path.write_bytes(head)
        with pytest.raises(ScanUnsupportedError, match="empty"):
            open_scan(path)
    for data in (b"P4\n9", b"P1 -3 9\n", text().replace(b"0", b"7")):
        path.write_bytes(data)
        with pytest.raises(ScanUnreadableError):
            open_scan(path)
    monkeypatch.setattr(bitmap, "TEXT_LIMIT_BYTES", 100)
    path.write_bytes(text())
    with pytest.raises(ScanUnsupportedError, match="at once"):
        open_scan(path)


@pytest.mark.parametrize("top", [1, 255, 1000, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_text(tmp_path: Path, top: int, channels: int) -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, top, (20, 31, channels), endpoint=True)
    lines = [b"P2" if channels == 1 else b"P3", b"# by hand", b"31 20", b"%d" % top]
    lines += [b"  ".join(b"%d" % number for number in row) + b" # a row" for row in picture.reshape(20, -1)]
    path = tmp_path / "a.pnm"
    path.write_bytes(b"\n".join(lines))
    full = 255 if top < 256 else 65535
    with open_scan(path) as reader:
        expected = np.rint(picture * (full / top)).squeeze()
        np.testing.assert_array_equal(reader.read(*EVERYTHING), expected)
        np.testing.assert_array_equal(reader.read(slice(3, 7), slice(5, 9)), expected[3:7, 5:9])
        assert reader.info.metadata["format"] == ("PGM" if channels == 1 else "PPM")
    path.write_bytes(b"\n".join(lines[:-4]))
    with open_scan(path) as reader, pytest.raises(ScanUnreadableError, match="of 20 rows the file holds 16"):
        reader.read(*EVERYTHING)
    for damage in (b" -1 ", b" x ", b" %d " % (top + 1), b" 99999999999 "):
        path.write_bytes(b"\n".join([*lines[:5], damage, *lines[6:]]))
        with pytest.raises(ScanUnreadableError, match="damaged"):
            open_scan(path)
