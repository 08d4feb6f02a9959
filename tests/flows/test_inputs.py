"""What a search through folders takes, and what it says of the rest."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.catalogue.rebuild import _sidecars
from flows.catalogue.recorder import ScanFiles
from flows.cli.app import _results_in
from flows.inputs import NO_ENDING, SHEET_MARK, NoScansError, find_scans, ignored_files_line
from flows.run.reprocess_plan import find_stores
from pipeline.errors import ScanError, UsageError


def test_what_is_no_scan_by_its_ending_is_counted_and_ours_is_not(tmp_path, command):
    """The output lies in the folder of the scans, as many people have it."""
    (tmp_path / "box").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "box" / "b.PNG"):
        cv2.imwrite(str(path), np.zeros((40, 50), np.uint8))
    for name in ("a.xml", "box/b.xml", "box/README", "box/c.heic", "box/b.pgw", ".DS_Store"):
        (tmp_path / name).write_text("?")
    expected = {".xml": 2, ".heic": 1, NO_ENDING: 1}
    assert find_scans([str(tmp_path)]).ignored.ignored_files == expected
    ran = command("run", tmp_path, "-o", tmp_path / "out", "--engine", "identity", "--format", "tiff,iiif,omezarr")
    assert ran.code == 0, ran.err
    found = find_scans([str(tmp_path)])
    assert sorted(scan.stem for scan in found.scans) == ["a", "box/b"]
    assert found.ignored.ignored_files == expected
    assert find_scans([str(tmp_path / "*.xml"), str(tmp_path / "box" / "README")]).ignored.ignored_files == {}


def test_a_folder_without_scans_is_said(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"?")
    with pytest.raises(NoScansError, match="no scans in this folder"):
        find_scans([str(tmp_path)])


@pytest.mark.parametrize(
    ("ignored_files", "line"),
    [
        ({}, ""),
        ({".heic": 1}, "1 file not taken for scans by their endings: 1 .heic; name one to have it tried"),
        (
            {f".{letter}": 9 for letter in "abcdefgh"},
            "72 files not taken for scans by their endings: 9 .a, 9 .b, 9 .c, 9 .d, 9 .e, 9 .f, 2 endings more; "
            "name one to have it tried",
        ),
    ],
)
def test_the_line_is_short(ignored_files, line):
    assert ignored_files_line(ignored_files) == line


def test_an_input_without_scans_does_not_stop_the_others(tmp_path, command):
    (tmp_path / "full").mkdir()
    (tmp_path / "inbox").mkdir()
    cv2.imwrite(str(tmp_path / "full" / "a.png"), np.zeros((40, 50), np.uint8))
    inputs = tmp_path / "inbox", tmp_path / "full", tmp_path / "old" / "*.tif"
    ran = command("run", *inputs, "-o", tmp_path / "out", "--engine", "identity")
    assert ran.code == 0, ran.err
    assert ran.line("1 done")
    assert ran.line("inbox", "no scans in this folder")
    assert ran.line("*.tif", "no file matches")
    (record,) = (tmp_path / "out" / "runs").glob("*.json")
    assert [line.split(": ")[1][:8] for line in json.loads(record.read_text())["in_vain"]] == ["no scans", "no file "]


def test_a_folder_that_cannot_be_listed_is_said_and_the_others_are_searched(tmp_path, monkeypatch):
    for name in ("closed", "lost+found", "open"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.zeros((40, 50), np.uint8))
    listing = os.scandir

    def scandir(path):
        if Path(path).name in ("closed", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_scans([str(tmp_path)])
    assert [scan.stem for scan in found.scans] == ["open/a"]
    (line,) = found.ignored.empty_inputs
    assert line.startswith(f"{tmp_path / 'closed'}: cannot be listed (Permission denied)")
    with pytest.raises(UsageError, match="cannot be listed"):
        find_scans([str(tmp_path / "closed")])


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a scan, as far as a search is concerned")
    return path


def stems(found) -> list[str]:
    return sorted(scan.stem for scan in found.scans)


def passed(found) -> dict[str, list[str]]:
    return {why: sorted(Path(path).name for path in each.paths) for why, each in found.ignored.passed_over.items()}


@pytest.mark.timeout(120)
def test_what_is_no_file_is_told_and_never_opened(tmp_path, monkeypatch):
    draw(tmp_path / "ok.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "named.tif").symlink_to("pipe.tif")
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.tif")
    found = find_scans([str(tmp_path), str(tmp_path / "pip*.tif")])
    assert stems(found) == ["ok"]
    assert passed(found) == {"node": ["named.tif", "pipe.tif", "pipe.tif", "socket.tif"]}
    assert "4 pipes, sockets or devices passed over unopened: " in found.ignored.lines[-1]
    # One that is named by itself is that scan's failure.
    for path in (tmp_path / "pipe.tif", Path("/dev/zero")):
        files = ScanFiles()
        assert files.known(path, 1) is None
        with pytest.raises(ScanError, match=r"not a regular file|not a file"):
            files.source_of(path, 1)
        with pytest.raises(ScanError, match="not a regular file"):
            files.page_count(path)


def test_links_are_followed_once_each(tmp_path):
    scans, elsewhere = tmp_path / "scans", tmp_path / "elsewhere"
    for path in (scans / "ok.tif", scans / "box" / "b.tif", elsewhere / "other.tif", elsewhere / "deep" / "c.tif"):
        draw(path)
    (scans / "album").symlink_to(elsewhere)
    (scans / "again").symlink_to(elsewhere)
    (scans / "a_box").symlink_to("box")
    (scans / "box" / "up").symlink_to("..")
    (elsewhere / "back").symlink_to(scans)
    (scans / "a_link.tif").symlink_to("box/b.tif")
    (scans / "far.tif").symlink_to(draw(tmp_path / "far" / "d.tif"))
    (scans / "loop.tif").symlink_to("loop.tif")
    (scans / "gone.tif").symlink_to("not there.tif")
    (scans / "gone").symlink_to("not there")
    found = find_scans([str(scans)])
    assert stems(found) == ["again/deep/c", "again/other", "box/b", "far", "gone", "ok"]
    assert passed(found) == {
        "circle": ["loop.tif"],
        "again": ["a_box", "a_link.tif", "album", "back", "up"],
    }
    # Without a word too much: the same files, whichever way they are given.
    assert len(find_scans([str(scans), str(elsewhere), str(scans / "album")]).scans) == 6
    assert stems(find_scans([str(scans / "loop.tif")])) == ["loop"]


def test_nothing_is_left_out_without_a_word(tmp_path):
    for name in ("ok.tif", "photo.color.tif", "deck.part/in.tif", ".hid.tif", ".hidden/a.tif", "lost+found/b.tif"):
        draw(tmp_path / name)
    (tmp_path / "foreign.zarr").mkdir()
    draw(tmp_path / "foreign.zarr" / "a.tif")
    draw(tmp_path / "tiles.iiif" / "full.jpg")
    draw(tmp_path / "done.color.tif")
    draw(tmp_path / "done.color.json")
    draw(tmp_path / "half.zarr.part" / "a.tif")
    found = find_scans([str(tmp_path)])
    assert stems(found) == ["deck.part/in", "ok"]
    assert passed(found) == {
        "like a result": ["photo.color.tif"],
        "result": ["done.color.tif", "half.zarr.part"],
        "tiles": ["foreign.zarr", "tiles.iiif"],
        "hidden": [".hid.tif", ".hidden", "lost+found"],
    }
    assert f"without the JSON of one: {tmp_path}/photo.color.tif; name one" in "\n".join(found.ignored.lines)
    assert stems(find_scans([str(tmp_path / "photo.color.tif")])) == ["photo.color"]
    assert found.ignored.to_json()["passed_over"]["tiles"]["count"] == 2
    twice = found.ignored.joined(found.ignored).to_json()
    assert (twice["passed_over"]["tiles"]["count"], len(twice["passed_over"]["tiles"]["paths"])) == (4, 4)
    assert passed(find_scans([str(tmp_path / "*")]))["folder"] == [
        "deck.part",
        "foreign.zarr",
        "lost+found",
        "tiles.iiif",
    ]


def test_results_given_as_scans_are_refused_without_force(tmp_path, command):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(1).integers(0, 256, (64, 80), np.uint8))
    words = ("-o", tmp_path, "--engine", "identity")
    first = command("run", tmp_path, *words, "--format", "png,iiif,omezarr")
    assert first.code == 0, first.err
    assert first.line(str(tmp_path), "the results go into the folder of the scans")
    names = ("a.color.png", "a.color.iiif", "a.color.ome.zarr", "a.zarr")
    for name in names:
        with pytest.raises(UsageError, match=r"1 result of this project's not taken .*--force"):
            find_scans([str(tmp_path / name)])
    # As a shell expands a pattern.
    found = find_scans([str(tmp_path / name) for name in (*names, "a.png")])
    assert stems(found) == ["a"]
    assert passed(found) == {"result": sorted(names)}
    assert stems(find_scans([str(tmp_path / "a.color.png")], force=True)) == ["a.color"]
    # Under another name its XMP tells.
    renamed = tmp_path / "elsewhere" / "b.png"
    renamed.parent.mkdir()
    shutil.copy(tmp_path / "a.color.png", renamed)
    second = command("run", renamed, "-o", tmp_path / "out", "--engine", "identity", "--dry-run")
    assert second.code == 1
    assert "b.png: was coloured by this project" in second.out
    forced = command("run", renamed, "-o", tmp_path / "out", "--engine", "identity", "--dry-run", "--force")
    assert forced.code == 0


def test_results_that_go_into_an_input_are_said(tmp_path):
    draw(tmp_path / "scans" / "a.tif")
    (tmp_path / "link").symlink_to("scans")
    scans = tmp_path / "scans"
    for output, said in ((scans, "the folder of the scans"), (tmp_path / "link" / "out", "a folder of the input")):
        (line,) = find_scans([str(scans)], output).ignored.lines
        assert line.startswith(f"{output}: the results go into {said}")
    assert find_scans([str(scans)], tmp_path / "scans 2").ignored.lines == ()
    assert find_scans([str(scans)], tmp_path).ignored.lines == ()


def test_a_folder_called_as_those_of_a_run_is_searched_where_no_run_made_it(tmp_path):
    for name in ("runs/a.tif", "thumbs/b.jpg"):
        draw(tmp_path / name)
    (tmp_path / "index.html").write_text("<h1>Our collection</h1>")
    assert stems(find_scans([str(tmp_path)])) == ["runs/a", "thumbs/b"]
    (tmp_path / "index.html").write_bytes(b"<html>" + SHEET_MARK)
    draw(tmp_path / "c.tif")
    found = find_scans([str(tmp_path)])
    assert stems(found) == ["c"]
    assert passed(found) == {"result": ["runs", "thumbs"]}


EVIL = "evil \x1b[31m\u202e  a\nb [bold].png"
SPELT = "evil \\x1b[31m\\u202e  a\\nb [bold]"


def test_no_command_gives_control_codes_of_names_to_a_terminal_or_page(tmp_path, command):
    box = tmp_path / "in\x1b[2J"
    box.mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(1).integers(0, 256, (64, 80), np.uint8))
    (tmp_path / "a.png").rename(box / EVIL)
    (box / f"damaged {EVIL}").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.mkfifo(box / f"pipe {EVIL}")
    output = tmp_path / "out\x1b[2J"
    words = ("-o", output, "--engine", "identity")
    done = output / EVIL.replace(".png", ".color.json")
    failing = {
        ("run", box, *words): 1,
        ("run", box, *words, "--dry-run"): 1,
        ("verify", output): 0,
        ("verify", output / f"x{EVIL}"): 2,
        ("inspect", done): 0,
        ("inspect", box / f"damaged {EVIL}"): 2,
        ("status", output): 0,
        ("status", output, "--json"): 0,
        ("release", output, f"none {EVIL}"): 2,
        ("release", output, f"damaged {EVIL}".removesuffix(".png")): 0,
        ("sheet", output): 0,
        ("reprocess", output, "--engine", "identity", "--stride", "64", "--dry-run"): 0,
    }
    for each, code in failing.items():
        ran = command(*each)
        assert ran.code == code, ran.err
        said = ran.out + ran.err
        assert "\x1b[2J" not in said
        assert "\x1b[31m" not in said
        assert "\u202e" not in said
        if each[0] == "run":
            assert f"pipe {SPELT}.png" in said
            assert f"damaged {SPELT}.png: " in said
    for log in output.glob("runs/*.log"):
        assert not {letter for letter in log.read_text() if ord(letter) < 0x20} - {"\n"}
    page = (output / "index.html").read_text()
    assert not {letter for letter in page if ord(letter) < 0x20} - {"\n"}
    assert "\\\\x1b[31m\\\\u202e" in page


def test_results_on_another_disk_are_found_by_every_command(tmp_path, monkeypatch):
    output, disk = tmp_path / "out", tmp_path / "disk"
    draw(disk / "a.color.json")
    draw(disk / "a.zarr" / "scan" / "a.color.json")  # whatever is in a store
    (disk / "up").symlink_to(output)
    draw(output / "closed" / "c.color.tif")
    (output / "box").symlink_to(disk)
    listing = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    missed: list[str] = []
    assert _results_in(output, missed) == [output / "box" / "a.color.json"]
    assert [line.split(",")[0] for line in missed] == [f"{output / 'closed'}: cannot be listed (Permission denied)"]
    assert list(_sidecars(output)) == [output / "box" / "a.color.json"]
    assert [found.stem for found in find_stores(output, [])] == ["box/a"]
    assert _results_in(tmp_path / "nothing", missed) == []
    assert len(missed) == 1
