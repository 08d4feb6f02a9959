"""Which objects are scans."""

import os
from glob import glob
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.inputs import NoScansError, find_scans
from flows.objects.layout import is_small, of_scan, stems_for
from flows.objects.search import ScanObjects, Unit, _matches, find_objects, parts_of

_OUT = "s3://elsewhere/out"


def _put(objects, bucket, *keys):
    for key in keys:
        objects.put(bucket, key, key.encode())


def test_a_folder_is_searched_as_one_on_a_disk_is(objects, bucket, tmp_path):
    keys = [
        "in/a.tif", "in/a.tfw", "in/box/b.JPG", "in/box/deep/c.png", "in/notes.txt", "in/readme", "in/.hidden.tif",
        "in/d.color.tif", "in/d.color.json", "in/e.color.tif", "in/f.hints.json",
    ]  # fmt: skip
    _put(objects, bucket, *keys)
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"x")
    found, report = find_objects([f"s3://{bucket}/in"], _OUT)
    there = find_scans([str(tmp_path / "in")])
    assert sorted(each.stem for each in found) == sorted(scan.stem for scan in there.scans)
    assert report.ignored_files == there.ignored.ignored_files
    counts = {why: each.count for why, each in report.passed_over.items()}
    assert counts == {why: each.count for why, each in there.ignored.passed_over.items()}
    a = next(each for each in found if each.stem == "a")
    assert [each.key for each in a.objects] == ["in/a.tif", "in/a.tfw"]


def test_a_named_object_a_pattern_and_a_folder_that_is_a_scan(objects, bucket):
    _put(objects, bucket, "in/a.scan", "in/1910a.tif", "in/1910b.tif", "in/1911.tif", "in/z.ome.zarr/zarr.json")
    _put(objects, bucket, "in/z.ome.zarr/0/c/0", "in/1910a.hints.json")
    found, _ = find_objects([f"s3://{bucket}/in/a.scan"], _OUT)
    assert [(each.stem, each.is_named) for each in found] == [("a", True)]
    found, _ = find_objects([f"s3://{bucket}/in/1910*.tif"], _OUT)
    assert [each.stem for each in found] == ["1910a", "1910b"]
    assert [each.key for each in found[0].objects] == ["in/1910a.tif", "in/1910a.hints.json"]
    found, _ = find_objects([f"s3://{bucket}/in/"], _OUT)
    assert [each.stem for each in found] == ["1910a", "1910b", "1911", "z"]
    folder = found[-1]
    assert len(folder.objects) == 2
    _put(objects, bucket, "in/z.ome.zarr/0/c/1")
    assert find_objects([f"s3://{bucket}/in/"], _OUT)[0][-1].etag != folder.etag


def test_results_in_the_same_bucket_are_no_scans(objects, bucket):
    _put(objects, bucket, "in/a.tif", "in/colour/a.color.tif", "in/colour/a.zarr/scan/x.png", "in/colour/thumbs/a.jpg")
    found, _ = find_objects([f"s3://{bucket}/in"], f"s3://{bucket}/in/colour")
    assert [each.stem for each in found] == ["a"]


def test_results_may_go_above_the_scans_or_beside_them(objects, bucket):
    _put(objects, bucket, "in/a.tif", "in/a.color.tif", "in/a.color.json", "thumbs/in/b.before.jpg", "index.html")
    for output in (f"s3://{bucket}", f"s3://{bucket}/", f"s3://{bucket}/in"):
        assert [each.stem for each in find_objects([f"s3://{bucket}/in"], output)[0]] == ["a"]
    assert [each.stem for each in find_objects([f"s3://{bucket}"], f"s3://{bucket}")[0]] == ["in/a"]


def test_an_ome_zarr_is_named_and_has_hints_beside_it(objects, bucket):
    _put(objects, bucket, "in/z.OME.zarr/zarr.json", "in/z.OME.zarr/0/c/0", "in/z.hints.json", "in/zz.hints.json")
    _put(objects, bucket, "in/.trash/y.ome.zarr/zarr.json")
    for text in (f"s3://{bucket}/in/z.OME.zarr", f"s3://{bucket}/in/z.OME.zarr/", f"s3://{bucket}/in"):
        (found,) = find_objects([text], _OUT)[0]
        assert (found.stem, found.bytes) == ("z", len("in/z.OME.zarr/zarr.json") + len("in/z.OME.zarr/0/c/0"))
        assert {each.key for each in found.objects} == {
            "in/z.OME.zarr/zarr.json", "in/z.OME.zarr/0/c/0", "in/z.hints.json",
        }  # fmt: skip


def test_a_key_with_brackets_is_first_of_all_a_key(objects, bucket):
    _put(objects, bucket, "in/a [1].tif", "in/a 1.tif")
    assert [each.stem for each in find_objects([f"s3://{bucket}/in/a [1].tif"], _OUT)[0]] == ["a [1]"]
    assert [each.stem for each in find_objects([f"s3://{bucket}/in/a [123].tif"], _OUT)[0]] == ["a 1"]


def test_nothing_found_is_said(objects, bucket):
    with pytest.raises(NoScansError, match="no scans there"):
        find_objects([f"s3://{bucket}/in"], _OUT)


_NAMES = st.sampled_from(["a", "b", "ab", "a.tif", "b.tif"])
_PATTERNS = st.sampled_from(["*", "a*", "?", "*.tif", "**", "[ab]", "a.tif"])


@given(st.lists(st.lists(_NAMES, min_size=1, max_size=3), max_size=6), st.lists(_PATTERNS, min_size=1, max_size=3))
def test_patterns_match_as_glob_does(tmp_path_factory, keys, patterns):
    if patterns[-1] == "**":  # names folders there
        patterns = [*patterns, "*"]
    folder = tmp_path_factory.mktemp("keys")
    files = set()
    for parts in keys:
        path = Path(folder, *parts)
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            files.add("/".join(parts))
    pattern = "/".join(patterns)
    found = {
        os.path.relpath(each, folder) for each in glob(str(folder / pattern), recursive=True) if Path(each).is_file()
    }
    assert {key for key in files if _matches(key, pattern)} == found


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 50)), max_size=20), st.integers(1, 100))
def test_parts_keep_the_limit_and_what_is_alike_together(scans, limit_bytes):
    from flows.inputs import ScanFile

    units = [Unit(ScanFile(Path(f"{n}.tif"), stem), size) for n, (stem, size) in enumerate(scans)]
    parts = list(parts_of(units, limit_bytes, 5))
    assert sorted(unit.file.path for part in parts for unit in part) == sorted(unit.file.path for unit in units)
    where = [{unit.file.stem for unit in part} for part in parts]
    assert sum(map(len, where)) == len({stem for stem, _ in scans})
    for part, stems in zip(parts, where, strict=True):
        assert len(stems) == 1 or (sum(unit.bytes for unit in part) <= limit_bytes and len(part) <= 5)


@pytest.mark.parametrize(
    ("path", "stem", "ending", "top"),
    [
        ("box/a.color.tif", "box/a", ".color.tif", "box/a.color.tif"),
        ("a.color.cog.tif", "a", ".color.cog.tif", "a.color.cog.tif"),
        ("a.color.json", "a", ".color.json", "a.color.json"),
        ("a.zarr/versions/v/zarr.json", "a", ".zarr", "a.zarr"),
        ("a.color.ome.zarr/zarr.json", "a", ".color.ome.zarr", "a.color.ome.zarr"),
        ("a.256-224-hann-default-0123abcd.color.iiif/info.json", "a", ".color.iiif", None),
        ("a.p002.color.tif", "a.p002", ".color.tif", None),
    ],
)
def test_what_an_object_is_of_a_scan(path, stem, ending, top):
    found = of_scan(path)
    assert found is not None
    assert (found.stem, found.ending) == (stem, ending)
    assert top is None or found.top == top
    assert found.is_current == (stem == found.base)
    assert is_small(path) == (ending == ".color.json")


def test_small_files():
    assert all(map(is_small, ["runs/1.json", "index.html", "thumbs/a.before.jpg", "policy.yaml", "a.hints.json"]))
    assert not any(map(is_small, [".lock", "catalogue.sqlite", "catalogue.sqlite-wal", "runs/1.json.01234567.part"]))
    assert stems_for("a", ".tif", {"a", "a.p001", "a.tif", "a.tif.p012", "b", "a.x"}) == {
        "a", "a.p001", "a.tif", "a.tif.p012",
    }  # fmt: skip


def test_scans_are_named_by_their_address():
    from flows.objects.bucket import Address

    scan = ScanObjects(Address("bucket", "in/a.tif"), "etag", 1, 2, (), "a")
    file = scan.scan_in(Path("/work"))
    assert (str(file.path), file.origin) == ("/work/bucket/in/a.tif", "s3://bucket/in/a.tif")
