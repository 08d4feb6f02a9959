"""OME-Zarr: what zarr-python and ome-zarr write is read as they read it; a hostile folder gives one line."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.endings import SCAN_FOLDERS
from pipeline.errors import ScanError, ScanNotFoundError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import open_scan
from pipeline.store import ScanStore
from pipeline.store import Source as StoreSource
from pipeline.types import ReadOptions, Roi, ScanInfo

pytestmark = pytest.mark.filterwarnings("error")

EVERYTHING = slice(None), slice(None)
SHAPE_YX = 150, 210


def noise(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE_YX) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return np.random.default_rng(5).random(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return np.random.default_rng(5).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def described(
    folder: Path, axes: str = "yx", version: str = "0.5", scale: float | None = None, unit: str = "", **more: Any
) -> None:
    """The metadata of a multiscale image whose only array is called "0"."""
    kinds = {"t": "time", "c": "channel"}
    dimensions: list[dict[str, str]] = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    if unit:
        for dimension in dimensions[-2:]:
            dimension["unit"] = unit
    steps = [{"type": "scale", "scale": [scale or 1.0] * len(axes)}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    multiscale: dict[str, Any] = {"axes": dimensions, "datasets": datasets, **more}
    if version == "0.5":
        attributes = {"ome": {"version": version, "multiscales": [multiscale]}}
        (folder / "zarr.json").write_text(
            json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
        )
    else:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"version": version, **multiscale}]}))


def written(folder: Path, picture: NDArray[Any], axes: str = "yx", **options: Any) -> Path:
    """A folder as zarr-python writes it."""
    v2 = options.get("zarr_format") == 2
    described(_made(folder), axes, "0.4" if v2 else "0.5")
    array = zarr.create_array(folder / "0", shape=picture.shape, dtype=picture.dtype, **options)
    array[...] = picture
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def read(path: Path, **reading: Any) -> tuple[NDArray[Any], ScanInfo]:
    with open_scan(path, ReadOptions(**reading)) as reader:
        whole = reader.read(*EVERYTHING)
        for part in ((slice(40, 97), slice(60, 300)), (slice(149, 150), slice(0, 1)), (slice(7, 7), slice(None))):
            np.testing.assert_array_equal(reader.read(*part), whole[part])
        return whole, reader.info


STORAGE: dict[str, dict[str, Any]] = {
    "v3": {"chunks": (64, 64)},
    "v3-shards": {"chunks": (32, 32), "shards": (64, 128)},
    "v3-gzip-shards": {"chunks": (32, 48), "shards": (128, 96), "compressors": zarr.codecs.GzipCodec()},
    "v3-blosc": {"chunks": (50, 70), "compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "v3-raw": {"chunks": (64, 64), "compressors": None},
    "v3-crc": {"chunks": (64, 64), "compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "v3-crc-raw": {"chunks": (64, 64), "compressors": [zarr.codecs.Crc32cCodec()]},
    "v3-transpose": {"chunks": (64, 80), "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    "v3-big": {"chunks": (64, 64), "serializer": zarr.codecs.BytesCodec(endian="big")},
    "v3-dots": {"chunks": (64, 64), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v2": {"zarr_format": 2, "chunks": (64, 64)},
    "v2-slashes": {"zarr_format": 2, "chunks": (64, 64), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2-fortran": {"zarr_format": 2, "chunks": (64, 80), "order": "F"},
    **{
        f"v2-{name}": {"zarr_format": 2, "chunks": (64, 64), "compressors": codec}
        for name, codec in {
            "none": None,
            "blosc": numcodecs.Blosc("zlib"),
            "zlib": numcodecs.Zlib(),
            "gzip": numcodecs.GZip(),
            "zstd": numcodecs.Zstd(),
            "lz4": numcodecs.LZ4(),
            "bz2": numcodecs.BZ2(),
        }.items()
    },
}


@pytest.mark.parametrize("storage", STORAGE)
def test_what_zarr_writes_is_read(tmp_path: Path, storage: str) -> None:
    picture = noise()
    picture[64:128, 64:128] = 0  # chunks that zarr leaves out
    got, info = read(written(tmp_path / "a.zarr", picture, **STORAGE[storage]))
    np.testing.assert_array_equal(got, picture)
    assert (info.channels, info.dtype, info.tone) == (1, "uint16", "srgb")
    assert info.metadata["format"] == "OME-Zarr"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_ome_zarr_writes_is_read(tmp_path: Path, version: str) -> None:
    writer, formats = pytest.importorskip("ome_zarr.writer"), pytest.importorskip("ome_zarr.format")
    form = formats.FormatV04() if version == "0.4" else formats.FormatV05()
    folder = tmp_path / "a.ome.zarr"
    picture = noise("uint8", (3, *SHAPE_YX))
    group = zarr.open_group(folder, mode="w", zarr_format=form.zarr_format)
    writer.write_image(picture, group, axes="cyx", fmt=form)
    got, info = read(folder)
    np.testing.assert_array_equal(got, np.moveaxis(picture, 0, 2))
    assert info.channels == 3
    assert folder.suffix in SCAN_FOLDERS


@pytest.mark.parametrize(
    ("axes", "leading", "dropped"),
    [
        ("cyx", (1,), []),
        ("cyx", (2,), ["channel 2"]),
        ("cyx", (5,), ["channels 2-5"]),
        ("tczyx", (4, 3, 7), ["moments 2-4", "planes 2-7"]),
        ("zyx", (2,), ["plane 2"]),
    ],
)
def test_the_first_of_each_axis_is_read_and_the_rest_named(
    tmp_path: Path, axes: str, leading: tuple[int, ...], dropped: list[str]
) -> None:
    picture = noise("uint8", (*leading, *SHAPE_YX))
    chunks = (2, 2, 3)[-len(leading) :]
    got, info = read(written(tmp_path / "a.zarr", picture, axes, chunks=(*chunks, 64, 100)))
    first = picture[
        tuple(slice(3) if axis == "c" and size == 3 else 0 for axis, size in zip(axes, leading, strict=False))
    ]
    np.testing.assert_array_equal(got, np.moveaxis(first, 0, 2) if first.ndim == 3 else first)
    assert info.metadata.get("dropped", []) == dropped


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "bool"])
def test_types(tmp_path: Path, dtype: str) -> None:
    picture = noise(dtype) if dtype != "bool" else noise("uint8") > 90
    got, info = read(written(tmp_path / "a.zarr", picture, chunks=(64, 64)))
    match dtype:
        case "uint8":
            expected = picture
        case "bool":
            expected = picture * np.uint8(255)
        case "float32":
            expected = np.rint(picture.astype(float) * 65535)
        case _:
            low, high = float(picture.min()), float(picture.max())
            expected = np.rint((picture - low) * (65535 / (high - low)))
    assert np.abs(got - expected.astype(np.float64)).max() <= (0 if dtype in ("uint8", "bool") else 1)
    assert ("lightness" in info.metadata) == (dtype not in ("uint8", "bool"))


def test_pixel_size_becomes_resolution(tmp_path: Path) -> None:
    folder = written(tmp_path / "a.zarr", noise("uint8"), chunks=(64, 64))
    described(folder, scale=25.0, unit="micrometer", name="Plate 7")
    with open_scan(folder) as reader:
        assert reader.info.metadata["resolution"] == pytest.approx([400, 400, "cm"], abs=1e-9)
        assert [(tag.code, tag.value) for tag in reader.embedded.tags] == [(269, b"Plate 7\0")]
    described(folder, scale=2.0, unit="parsec")
    assert "resolution" not in read(folder)[1].metadata


@pytest.mark.parametrize("storage", ["v3", "v3-shards", "v2"])
def test_missing_chunks_are_the_fill_value(tmp_path: Path, storage: str) -> None:
    options = STORAGE[storage]
    folder = _made(tmp_path / "a.zarr")
    described(folder, version="0.4" if storage == "v2" else "0.5")
    array = zarr.create_array(folder / "0", shape=SHAPE_YX, dtype="uint16", fill_value=777, **options)
    array[:70, :70] = 5
    np.testing.assert_array_equal(read(folder)[0], zarr.open_array(folder / "0", mode="r")[...])


def test_only_the_shards_of_the_window_are_opened(tmp_path: Path) -> None:
    folder = written(tmp_path / "a.zarr", noise(shape=(2048, 2048)), chunks=(64, 64), shards=(1024, 1024))
    for name in ("c/0/1", "c/1/0", "c/1/1"):
        (folder / "0" / name).write_bytes(b"damaged")
    with open_scan(folder) as reader:
        np.testing.assert_array_equal(reader.read(slice(0, 300), slice(0, 300)), noise(shape=(2048, 2048))[:300, :300])
        with pytest.raises(ScanUnreadableError, match=r"a\.zarr"):
            reader.read(slice(0, 300), slice(0, 1100))


def test_folders_that_are_no_scan(tmp_path: Path) -> None:
    store = ScanStore.create(tmp_path / "ours.zarr", ScanInfo((64, 64), 1, "uint8"), StoreSource("a.tif", 1, "0"))
    del store
    zarr.create_array(tmp_path / "plain.zarr", shape=(9, 9), dtype="uint8")
    for name in ("ours.zarr", "plain.zarr", "."):
        with pytest.raises(ScanNotFoundError, match="folder"):
            open_scan(tmp_path / name)


# Damage and harm


def test_damaged_chunks_are_salvaged_one_by_one(tmp_path: Path) -> None:
    picture = noise()
    folder = written(tmp_path / "a.zarr", picture, **STORAGE["v3-crc"])
    chunk = folder / "0" / "c" / "1" / "1"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    with pytest.raises(ScanUnreadableError, match="damaged"):
        read(folder)
    with open_scan(folder, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert reader.missing_regions == (Roi(64, 128, 64, 128),)
    expected = picture.copy()
    expected[64:128, 64:128] = 32767
    np.testing.assert_array_equal(got, expected)


def change(path: Path, **changes: Any) -> None:
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | changes))


def test_names_and_links_do_not_lead_outside(tmp_path: Path) -> None:
    outside = written(tmp_path / "outside.zarr", noise("uint8"), chunks=(64, 64))
    folder = written(tmp_path / "a.zarr", noise("uint8"), chunks=(64, 64))
    for name in (
        "../outside.zarr/0",
        str(outside / "0"),
        "0/../../outside.zarr/0",
        "http://127.0.0.1/0",
        "s3://a/0",
        "",
    ):
        described(folder)
        text = (folder / "zarr.json").read_text()
        (folder / "zarr.json").write_text(text.replace('"path": "0"', f'"path": "{name}"'))
        with pytest.raises(ScanError, match=r"a\.zarr"):
            read(folder)
    described(folder)
    chunk = folder / "0" / "c" / "1" / "0"
    chunk.unlink()
    chunk.symlink_to(outside / "0" / "c" / "1" / "0")
    with pytest.raises(ScanUnsupportedError, match="link"):
        read(folder)
    shutil.rmtree(folder / "0")
    (folder / "0").symlink_to(outside / "0")
    with pytest.raises(ScanUnsupportedError, match="link"):
        read(folder)


@pytest.mark.parametrize("codec", ["pickle", "json2", "blosc2", "../evil"])
def test_other_codecs_are_refused_before_anything_is_read(tmp_path: Path, codec: str) -> None:
    new, old = (tmp_path / name for name in ("new.zarr", "old.zarr"))
    written(new, noise("uint8"), chunks=(64, 64))
    written(old, noise("uint8"), chunks=(64, 64), zarr_format=2)
    change(new / "0" / "zarr.json", codecs=[{"name": "bytes"}, {"name": codec}])
    change(old / "0" / ".zarray", compressor={"id": codec})
    for folder in (new, old):
        with pytest.raises(ScanUnsupportedError, match="codec"):
            open_scan(folder)
    change(old / "0" / ".zarray", compressor=None, filters=[{"id": codec}])
    with pytest.raises(ScanUnsupportedError, match="filters"):
        open_scan(old)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
def test_chunks_that_inflate_without_end_are_refused(tmp_path: Path, codec: str) -> None:
    folder = written(tmp_path / "a.zarr", noise("uint8"), chunks=(64, 64))
    change(folder / "0" / "zarr.json", codecs=[{"name": "bytes"}, {"name": codec, "configuration": {}}])
    zeros = bytes(60_000_000)
    bomb = {
        "gzip": lambda: zlib.compress(zeros, 9, 31),
        "zstd": lambda: imagecodecs.zstd_encode(zeros, level=9),
        "blosc": lambda: imagecodecs.blosc_encode(zeros, level=9, compressor="zstd"),
    }[codec]()
    (folder / "0" / "c" / "0" / "0").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ScanUnreadableError, match="damaged"):
            read(folder)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"shape": [10**9, 10**9]}, "limit"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6, 10**6]}}}, "chunks"),
        ({"shape": [-3, 5]}, "damaged"),
        ({"shape": [10.5, 5]}, "damaged"),
        ({"data_type": "string"}, "string"),
        ({"chunk_grid": {}}, "damaged"),
        ({"codecs": "zstd"}, "damaged"),
        ({"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}}, "chunk names"),
        ({"shape": [0, 10]}, "empty"),
    ],
)
def test_metadata_is_checked_before_memory_is_asked_for(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    folder = written(tmp_path / "a.zarr", noise("uint8"), chunks=(64, 64))
    change(folder / "0" / "zarr.json", **changes)
    with pytest.raises(ScanError, match=word) as caught:
        open_scan(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_that_say_nonsense(tmp_path: Path) -> None:
    folder = written(tmp_path / "a.zarr", noise("uint8"), chunks=(64, 64))
    for multiscales in ([], {}, 7, [{}], [{"axes": [], "datasets": []}], [{"axes": 3, "datasets": [{"path": "0"}]}]):
        text = json.dumps({"attributes": {"ome": {"version": "0.5", "multiscales": multiscales}}})
        (folder / "zarr.json").write_text(text)
        with pytest.raises(ScanError):
            open_scan(folder)
    (folder / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(ScanError):
        open_scan(folder)
    for axes in ("yxc", "xy", "qyx"):
        described(folder, axes)
        with pytest.raises(ScanError):
            open_scan(folder)
