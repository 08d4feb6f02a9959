"""Buckets, by obstore: addresses, lists, and objects that are fetched, put and removed. Errors are one line.

obstore is Rust's ``object_store`` as one wheel: it retries, sends large files in parts that appear as one object when
the last is there, and reads the ``AWS_*`` variables, among them ``AWS_ENDPOINT_URL`` for storage that is not Amazon's.

References
----------
Amazon S3 API Reference: ListObjectsV2, PutObject, CompleteMultipartUpload, error codes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.request import OBJECTS
from pipeline.errors import OutputError, UsageError
from pipeline.support.files import writing
from pipeline.support.names import shown

AT_ONCE = 8  # objects on their way at the same time
_CONNECT_SECONDS = 5
_RETRIES, _RETRY_SECONDS = 3, 30
_ODD_KEY = re.compile(r'Path "(.*?)"(?: contained|: Encountered)', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # in no key that obstore puts
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_DENIED = {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


class BucketError(OutputError):
    """A bucket that is not there, or that refuses or does not answer."""


class NoObjectError(BucketError):
    """No such object."""


def is_address(text: object) -> bool:
    """True if a text names something in a bucket."""
    return str(text).startswith(OBJECTS)


@dataclass(frozen=True)
class Address:
    """A bucket, and a key or the beginning of keys in it, without a slash at the ends."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``s3://bucket/prefix``. Raises UsageError."""
        bucket, _, key = text.removeprefix(OBJECTS).partition("/")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket) or not is_safe(key.strip("/") or "a"):
            raise UsageError(f"{text!r}: no address of object storage; give one such as s3://bucket/folder")
        return cls(bucket, key.strip("/"))

    def of(self, key: str) -> str:
        """The address of an object of the bucket, as text."""
        return f"{OBJECTS}{self.bucket}/{key}"

    def __str__(self) -> str:
        return self.of(self.key)


@dataclass(frozen=True)
class ObjectInfo:
    """What a list says of an object: ``etag`` changes with its bytes, ``modified_ns`` is its time since 1970."""

    key: str
    etag: str
    bytes: int
    modified_ns: int


def is_safe(key: str) -> bool:
    """True if a key is also a relative path on a disk that leads nowhere else, and has no control characters."""
    return not _CONTROL.search(key) and all(part not in ("", ".", "..") for part in key.split("/"))


class Bucket:
    """One bucket. Every error is a :class:`BucketError` of one line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._endpoint = next((os.environ[each] for each in _ENDPOINTS if os.environ.get(each)), "")
        self._store = _store_of(name, self._endpoint)

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """All objects below a folder, in no order."""
        import obstore

        with self._told(folder):
            for found in obstore.list(self._store, prefix=folder or None):
                yield from map(_info, found)

    def find(self, key: str) -> ObjectInfo | None:
        """What is known of an object; None if there is none."""
        import obstore

        try:
            with self._told(key):
                return _info(obstore.head(self._store, key))
        except NoObjectError:
            return None

    def fetch(self, key: str, path: Path, modified_ns: int | None = None) -> str:
        """Bring an object to a file, which appears when it is whole, with the time of the object; returns its etag."""
        import obstore

        part = path.with_name(f".{path.name[:200]}.part")
        with self._told(key):
            got = obstore.get(self._store, key)
        with self._told(key), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            written = 0
            with part.open("wb") as stream:
                for piece in got.stream(min_chunk_size=2**20):
                    written += stream.write(piece)
            if written != got.meta["size"]:
                raise BucketError(f"{self._of(key)}: ended after {written} of {got.meta['size']} bytes; run again")
            when = _info(got.meta).modified_ns if modified_ns is None else modified_ns
            os.utime(part, ns=(when, when))
            os.replace(part, path)
            return str(got.meta["e_tag"])

    def fetch_head(self, found: ObjectInfo, path: Path, count: int) -> None:
        """Bring the first ``count`` bytes of an object to a file."""
        import obstore

        with self._told(found.key), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            length = min(count, found.bytes)
            path.write_bytes(
                bytes(obstore.get_range(self._store, found.key, start=0, length=length)) if length else b""
            )

    def put(self, key: str, data: Path | bytes) -> str:
        """Put a file or bytes; the object appears, or replaces the one before, when all is there. Returns its etag."""
        import obstore

        with self._told(key):
            return str(obstore.put(self._store, key, data)["e_tag"])

    def check_writable(self, key: str) -> None:
        """Put and remove an empty object. Raises BucketError."""
        self.put(key, b"")
        self.remove([key])

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        import obstore

        if found := list(keys):
            with self._told(found[0]), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, found)

    def _of(self, key: str) -> str:
        return f"{OBJECTS}{self.name}/{key}"

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn what obstore raises in the body into one line about an object or folder."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, PermissionError, ValueError) as error:
            raise self._error(key, error) from error

    def _error(self, key: str, error: Exception) -> BucketError:
        text, where = str(error), self._of(key)
        code = found[1] if (found := _CODE.search(text)) else ""
        if code == "NoSuchBucket":
            at = f" at {self._endpoint}" if self._endpoint else ""
            return BucketError(f"{where}: no bucket {self.name}{at}; check the name, or AWS_ENDPOINT_URL")
        if code in _DENIED or isinstance(error, PermissionError) or "403 Forbidden" in text:
            return BucketError(
                f"{where}: refused to these credentials ({code or 'Forbidden'}); give AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY that may list, read and write there"
            )
        if (odd := _ODD_KEY.search(text)) is not None:
            return BucketError(
                f"{where}: the key {shown(odd[1])} would be no path on a disk (//, . or .. or a control character); "
                "rename or remove that object, or give a folder without it"
            )
        if isinstance(error, FileNotFoundError):
            return NoObjectError(f"{where}: no such object; check the name")
        if "error sending request" in text or "credential" in text.lower():
            at = self._endpoint or "Amazon S3"
            return BucketError(
                f"{where}: no answer from {at}; check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the network"
            )
        reason = f"{code}, " * bool(code) + text.split(" in ", 1)[0].splitlines()[0][:200]
        return BucketError(f"{where}: {reason}; check the bucket and its rules")


def _info(meta: Mapping[str, Any]) -> ObjectInfo:
    when: datetime = meta["last_modified"]
    since = when - datetime(1970, 1, 1, tzinfo=UTC)
    modified_ns = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    return ObjectInfo(meta["path"], str(meta["e_tag"]), int(meta["size"]), modified_ns)


def _store_of(name: str, endpoint: str) -> Any:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise UsageError(
            f"{OBJECTS}{name}: obstore, which reads and writes buckets, is not installed; "
            "pip install 'colorize-archive[s3]'"
        ) from error
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    given: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        name,
        region=region,
        client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": f"{_CONNECT_SECONDS}s"},
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        **given,
    )
