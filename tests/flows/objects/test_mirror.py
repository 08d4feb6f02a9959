"""What is brought from results in a bucket and what goes back, without a run."""

import pytest

from flows.objects import mirror
from flows.objects.bucket import Address
from flows.objects.mirror import Mirror


@pytest.fixture
def begun(bucket, tmp_path):
    """Begin with what is at an address of the bucket."""
    pytest.importorskip("obstore")

    def begin(folder="out", work="work"):
        found = Mirror(Address(bucket, folder), tmp_path / work)
        found.folder.mkdir(parents=True, exist_ok=True)
        found.begin()
        return found

    return begin


def _put(objects, bucket, *names):
    for name in names:
        objects.put(bucket, f"out/{name}", name.encode())


_RESULT = ("a.zarr/zarr.json", "a.zarr/c/0", "a.color.tif", "a.color.json")


def test_a_result_stays_whole_when_taking_it_away_here_is_interrupted(objects, bucket, begun, monkeypatch):
    _put(objects, bucket, *_RESULT)
    before = objects.keys(bucket)
    for count in (1, 2):
        place = begun()
        place.check_out(["a"])
        removed, remove = [], mirror.remove

        def stopping(path, removed=removed, remove=remove, count=count):
            if len(removed) == count:
                raise KeyboardInterrupt
            removed.append(path)
            remove(path)

        with monkeypatch.context() as patched:
            patched.setattr(mirror, "remove", stopping)
            with pytest.raises(KeyboardInterrupt):
                place.commit("a")
        again = begun()
        again.check_out(["a"])
        again.commit("a")
        again.end_part()
        assert objects.keys(bucket) == before


def test_what_was_not_brought_is_not_removed_there(objects, bucket, begun):
    _put(objects, bucket, *_RESULT)
    place = begun()
    (place.folder / "a.color.png").write_bytes(b"new")
    place.commit("a")
    assert set(objects.keys(bucket)) == {f"out/{name}" for name in (*_RESULT, "a.color.png")}


def test_only_files_of_the_project_are_brought_and_what_is_removed_there_stays_away(objects, bucket, begun):
    _put(objects, bucket, "backup.tar", "scans/a.tif", "policy.yaml", "a.hints.json", "runs/1.json")
    place = begun()
    here = {path.relative_to(place.folder).as_posix() for path in place.folder.rglob("*") if path.is_file()}
    assert here == {"policy.yaml", "a.hints.json", "runs/1.json"}
    place.end_part()
    for name in ("policy.yaml", "a.hints.json"):
        objects.client.delete_object(Bucket=bucket, Key=f"out/{name}")
    begun().end_part()
    assert set(objects.keys(bucket)) == {"out/backup.tar", "out/scans/a.tif", "out/runs/1.json"}


def test_a_sidecar_that_changed_without_its_scan_is_put(objects, bucket, begun):
    _put(objects, bucket, *_RESULT)
    place = begun()
    (place.folder / "a.color.json").write_bytes(b"unsigned")
    place.end_part()
    assert objects.get(bucket, "out/a.color.json") == b"unsigned"
    assert len(objects.keys(bucket)) == len(_RESULT)


def test_addresses_take_the_places_of_links_and_paths(objects, bucket, begun):
    place = begun(folder="", work="a folder")
    link = (place.folder / "box" / "a b.tif").as_uri()
    (place.folder / "index.html").write_text(f"{link} {place.folder}/c.tif")
    place.end_part()
    assert objects.get(bucket, "index.html").decode() == f"s3://{bucket}/box/a%20b.tif s3://{bucket}/c.tif"
