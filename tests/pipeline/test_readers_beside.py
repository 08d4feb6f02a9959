"""What lies beside a scan: world files are read, by a few lines that lead nowhere else; other neighbours are named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from pipeline.formats import FORMATS, OutputImage, write_picture
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.results.read_back import carried_by_result
from pipeline.types import ReadOptions

GRAY = np.arange(64 * 96, dtype=np.uint8).reshape(64, 96)
WORLD = "2.0\n0.5\n-0.25\n-2.0\n500000\n4600000\n"
PLACED = (2.0, -0.25, 499_999.125, 0.5, -2.0, 4_600_000.75)


def look(path: Path, **reading: Any) -> tuple[EmbeddedMetadata, list[str]]:
    with open_scan(path, ReadOptions(**reading)) as reader:
        np.testing.assert_array_equal(reader.read(slice(0, 5), slice(0, 5)).shape[:2], (5, 5))
        return reader.embedded, list(reader.info.metadata.get("dropped", ()))


def transform(path: Path, **reading: Any) -> tuple[float, ...]:
    place = look(path, **reading)[0].place
    return place.transform if place else ()


@pytest.mark.parametrize(
    ("scan", "world"),
    [
        ("a.tif", "a.tfw"),
        ("a.tif", "a.tifw"),
        ("a.tif", "a.TFW"),
        ("a.b.tiff", "a.b.tfw"),
        ("a.jpg", "a.jgw"),
        ("a.jpg", "a.jpw"),
        ("a.jpeg", "a.jgw"),
        ("a.png", "a.pgw"),
        ("a.bmp", "a.bpw"),
        ("a.jp2", "a.j2w"),
        ("a.gif", "a.wld"),
        ("a.PNG", "a.wld"),
    ],
)
def test_a_world_file_places_a_scan_of_any_format(tmp_path: Path, scan: str, world: str) -> None:
    Image.fromarray(GRAY).save(tmp_path / scan)
    assert transform(tmp_path / scan) == ()
    (tmp_path / world).write_text(WORLD)
    assert transform(tmp_path / scan) == PLACED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / scan) as file:  # GDAL reads the same; some names of Esri's it does not know
            assert tuple(file.transform)[:6] == PLACED or world == "a.jpw"
    assert look(tmp_path / scan)[1] == []


@pytest.mark.parametrize(
    "text",
    [
        "2 0 0 -2 5",
        "2 0 0 -2 5 6 7",
        "2 0 0 -2 nan 6",
        "2 0 0 -2 inf 6",
        "2 0 0 -2 1e999 6",
        "0 0 0 0 5 6",
        "2 0 0 -2 0x5 6",
        "2 0 0 -2 1_000 6",
        "<GDAL_WMS>",
        "",
        "2 0 0 -2 5 6" + " " * 1024,
    ],
)
def test_what_is_no_world_file_is_said(tmp_path: Path, text: str) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(text)
    embedded, dropped = look(tmp_path / "a.png")
    assert embedded.place is None
    assert dropped == ["a.pgw beside it (not the six numbers of a world file)"]
    (tmp_path / "a.wld").write_text(WORLD.replace(".", ","))
    assert transform(tmp_path / "a.png") == PLACED


def test_a_second_world_file_that_says_something_else_is_named(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(WORLD)
    (tmp_path / "a.wld").write_text(WORLD)
    assert look(tmp_path / "a.png")[1] == []
    (tmp_path / "a.wld").write_text(WORLD.replace("500000", "500001"))
    assert transform(tmp_path / "a.png") == PLACED
    assert look(tmp_path / "a.png")[1] == ["a.wld beside it (another world file than a.pgw)"]


def test_coordinates_in_the_file_come_first(tmp_path: Path) -> None:
    path, own = tmp_path / "a.tif", rasterio.Affine(1, 0, 7, 0, -1, 8)
    with rasterio.open(path, "w", "GTiff", 96, 64, 1, crs="EPSG:32633", transform=own, dtype="uint8") as file:
        file.write(GRAY, 1)
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n7.5\n7.5\n")
    assert look(path)[1] == []
    (tmp_path / "a.tfw").write_text(WORLD)
    assert transform(path) == tuple(own)[:6]
    assert look(path)[1] == ["a.tfw beside it (the file has coordinates of its own)"]


@pytest.mark.parametrize("raster_type", [1, 2])
def test_a_geotiff_that_says_only_its_coordinate_system(tmp_path: Path, raster_type: int) -> None:
    """Its tags go on, with one for the place of the world file: the result lies where the scan does."""
    path = tmp_path / "a.tif"
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, raster_type, 3072, 0, 1, 32633)
    tifffile.imwrite(path, GRAY, metadata=None, extratags=[(34735, 3, len(keys), keys, True)])
    (tmp_path / "a.tfw").write_text(WORLD)
    place = look(path)[0].place
    assert place is not None
    assert place.transform == PLACED
    assert "32633" in place.crs
    written(path, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert tuple(file.transform)[:6] == PLACED
        assert file.crs.to_epsg() == 32633


def written(scan: Path, result: Path) -> None:
    embedded, description, _ = carried_by_result(look(scan)[0], "us", "coloured", "scan")
    colour = np.full((64, 96, 3), 90, np.uint8)
    picture = OutputImage(
        (64, 96),
        np.dtype("uint8"),
        lambda rows, columns: colour[rows, columns],
        software="us",
        description=description,
        embedded=embedded,
    )
    write_picture("tiff", result, picture, 1)


def test_the_result_of_a_jpeg_lies_where_its_world_file_says(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    (tmp_path / "a.jgw").write_text(WORLD)
    written(tmp_path / "a.jpg", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert tuple(file.transform)[:6] == PLACED


def beside(path: Path, **reading: Any) -> str | None:
    with open_scan(path, ReadOptions(**reading)) as reader:
        return reader.info.metadata.get("beside")


def test_which_world_file_was_read_is_told_and_may_be_chosen(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    (tmp_path / "a.wld").write_text(WORLD)
    assert beside(tmp_path / "a.jpg") == "a.wld"
    (tmp_path / "a.jgw").write_text(WORLD.replace("500000", "7"))
    assert beside(tmp_path / "a.jpg") == "a.jgw"
    assert beside(tmp_path / "a.jpg", world_file="a.wld") == "a.wld"
    assert transform(tmp_path / "a.jpg", world_file="a.wld") == PLACED
    for without in ("", "a.jpw"):
        assert beside(tmp_path / "a.jpg", world_file=without) is None
        assert look(tmp_path / "a.jpg", world_file=without)[0].place is None
    (tmp_path / "a.jgw").write_text("no numbers")
    assert beside(tmp_path / "a.jpg", world_file="a.jgw") is None


def test_what_lies_beside_a_result_is_not_found_in_it(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    (tmp_path / "a.jgw").write_text(WORLD)
    assert FORMATS["jpeg"].embedded(tmp_path / "a.jpg").place is None


def test_other_neighbours_are_named(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    for name in ("a.prj", "a.png.aux.xml", "a.png.msk", "a.xmp", "a.png.xmp", "b.prj", "a.txt", "a2.xmp", "a"):
        (tmp_path / name).write_text("text")
    expected = [
        f"{name} beside it (not read)" for name in ("a.prj", "a.xmp", "a.png.aux.xml", "a.png.msk", "a.png.xmp")
    ]
    assert look(tmp_path / "a.png")[1] == expected


def test_neighbours_speak_of_the_first_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(GRAY, metadata=None)
    (tmp_path / "a.tfw").write_text(WORLD)
    (tmp_path / "a.xmp").write_text("text")
    assert transform(path) == PLACED
    assert transform(path, page=2) == ()
    assert look(path, page=2)[1] == []


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    Image.fromarray(GRAY).save(inside / "a.png")
    (outside / "a.pgw").write_text(WORLD)
    (inside / "a.pgw").symlink_to(outside / "a.pgw")
    (inside / "a.prj").symlink_to("../out/a.pgw")
    (inside / "a.xmp").symlink_to("/nowhere")
    (inside / "a.png.msk").mkdir()
    os.mkfifo(inside / "a.wld")
    embedded, dropped = look(inside / "a.png")
    assert embedded.place is None
    assert dropped == [f"{name} beside it (a link out of its folder)" for name in ("a.pgw", "a.prj")]
    (inside / "all.txt").write_text(WORLD)
    (inside / "a.pgw").unlink()
    (inside / "a.pgw").symlink_to("all.txt")
    assert transform(inside / "a.png") == PLACED
