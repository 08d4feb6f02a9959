"""``verify`` of results in a bucket: each scan's results are fetched, certified as on a disk, and removed."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from flows.objects.bucket import AT_ONCE, Address, Bucket, ObjectInfo
from flows.objects.layout import of_scan
from pipeline.errors import ColorizeError, SidecarError
from pipeline.results.sidecar import sidecar_of
from pipeline.results.verify import Certificate, verify


def verify_objects(text: str, trust: str = "") -> Iterator[Certificate | ColorizeError]:
    """A certificate of every current picture below an address, or of the result that it names.

    A result that cannot be certified gives the error that says why.

    Raises
    ------
    SidecarError : there are no results. BucketError : the bucket cannot be read.
    """
    address = Address.parse(text)
    bucket = Bucket(address.bucket)
    is_one = sidecar_of(Path(address.key)) is not None
    folder = address.key.rpartition("/")[0] if is_one else address.key
    results: dict[str, list[ObjectInfo]] = defaultdict(list)
    for each in bucket.list(folder):
        found = of_scan(each.key)
        if found is not None and (found.is_current or found.ending == ".zarr"):
            results[found.stem].append(each)
    results = {stem: parts for stem, parts in results.items() if any(_says_so(each.key) for each in parts)}  # type: ignore[assignment]
    if is_one:
        named = of_scan(address.key)
        results = {stem: parts for stem, parts in results.items() if named is not None and stem == named.stem}  # type: ignore[assignment]
    if not results:
        raise SidecarError(f"{text}: no results there; give the address of a NAME.color.json, or a folder of them")
    for stem in sorted(results):
        yield from _certified(bucket, stem, results[stem], trust)


def _says_so(key: str) -> bool:
    """True if an object shows that there is a result: a sidecar or a picture. A store alone may be a scan."""
    found = of_scan(key)
    return found is not None and (found.is_sidecar or found.is_picture)


def _certified(
    bucket: Bucket, stem: str, objects: list[ObjectInfo], trust: str
) -> Iterator[Certificate | ColorizeError]:
    with tempfile.TemporaryDirectory(prefix="colorize-archive-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        here = Path(name)
        list(pool.map(lambda each: bucket.fetch(each.key, here / each.key), objects))
        address = str(Address(bucket.name))
        try:
            for certificate in verify(here / f"{stem}.color.json", trust):
                yield replace(certificate, picture=certificate.picture.replace(f"{here}/", address))
        except ColorizeError as error:
            yield SidecarError(str(error).replace(f"{here}/", address))
