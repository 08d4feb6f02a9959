"""Objects of a real server, and what is said when there is none."""

import socket

import pytest

from flows.objects.bucket import Address, Bucket, BucketError, NoObjectError, is_safe
from pipeline.errors import UsageError
from pipeline.support.names import shown


def test_what_was_put_is_what_is_fetched(objects, bucket, tmp_path):
    ours, (file, back) = Bucket(bucket), (tmp_path / "a.bin", tmp_path / "deep" / "b.bin")
    file.write_bytes(bytes(range(256)) * 50_000)  # 12.8 MB: sent in parts
    key = "box 1/ä #3/50 %.tif"
    etag = ours.put(key, file)
    assert objects.keys(bucket) == {key: file.stat().st_size}
    assert ours.fetch(key, back) == etag
    assert back.read_bytes() == file.read_bytes()
    found = ours.find(key)
    assert found is not None
    assert (found.etag, found.bytes) == (etag, file.stat().st_size)
    assert back.stat().st_mtime_ns == found.modified_ns
    assert [each.key for each in ours.list("box 1")] == [key]
    ours.remove([key, "never there"])
    assert objects.keys(bucket) == {}


def test_a_file_that_is_being_fetched_has_no_name_yet(objects, bucket, tmp_path):
    with pytest.raises(NoObjectError, match=rf"^s3://{bucket}/a.tif: no such object; check the name$"):
        Bucket(bucket).fetch("a.tif", tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line_with_the_address_and_the_remedy(objects, bucket, monkeypatch):
    def said(name):
        with pytest.raises(BucketError) as raised:
            list(Bucket(name).list("scans"))
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert said("no-such-bucket").startswith("s3://no-such-bucket/scans: no bucket no-such-bucket at http://")
    objects.need_rights(0)
    try:
        assert "refused to these credentials" in said(bucket)
    finally:
        objects.need_rights(None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert "no answer from http://127.0.0.1:" in said(bucket)


@pytest.mark.parametrize("key", ["in/a//b.tif", "in/../x.tif", "in/a\tb.tif"])
def test_a_key_that_is_no_path_is_named_with_the_remedy(objects, bucket, key):
    objects.put(bucket, key, b"x")
    with pytest.raises(BucketError) as raised:
        list(Bucket(bucket).list("in"))
    said = str(raised.value)
    assert "\n" not in said
    assert f"the key {shown(key)} would be no path" in said
    assert "rename or remove that object" in said


@pytest.mark.parametrize("text", ["s3://", "s3:///key", "s3://a", "s3://bucket/../x", "s3://bucket/a//b"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="no address of object storage"):
        Address.parse(text)


def test_addresses():
    assert Address.parse("s3://bucket/a/b/") == Address("bucket", "a/b")
    assert str(Address.parse("s3://bucket")) == "s3://bucket/"
    assert not is_safe("../../etc/passwd")
    assert not is_safe("/etc/passwd")
    assert is_safe("...tif")
