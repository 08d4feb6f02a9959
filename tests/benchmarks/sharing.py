"""Publish and package many small results: are all files there, is each valid, does memory stay the same?

    python -m tests.benchmarks.sharing [SCANS] [--many COUNT] [--kinds KIND...] [--flips COUNT]

It makes SCANS small results (200), publishes them, follows the collection as a strict level-0 client, loads every
manifest with iiif-prezi3, and packages them in every way: bagit-python validates the bag, ocfl-py the storage root, and
the schemas of PREMIS and METS every record. The most memory of a tenth of them is compared with that of all.

With ``--many`` it does so for memory alone with that many results that share their bytes, by hard links: 10,000 of them
need no more room than one; with ``--kinds`` only in those ways. With ``--flips`` it signs a result in all formats and
flips that many bits, one at a time, in pictures and credentials, embedded and beside.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import bagit
import ocfl
from iiif_prezi3 import Manifest

from flows.sharing.signing import sign_results
from pipeline.formats import FORMATS
from pipeline.results.credentials import Signing, check_credentials, credential_of
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from tests.certificates import signer
from tests.level0 import Crawl
from tests.results import make_result
from tests.schemas import problems

BASE = "https://archive.example/colour"
KINDS = ("publish", "bagit", "ocfl", "archivematica")
_MEASURED = """
import resource, sys
from flows.cli.app import app
try:
    app(sys.argv[1:], standalone_mode=True)
except SystemExit as end:
    assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main(scans: int, many: int, flips: int, kinds: Sequence[str]) -> None:
    logging.disable(logging.INFO)  # the validators name every file
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, every = root / "few", root / "every"
        for output, count in ((few, max(1, scans // 10)), (every, scans)):
            for number in range(count):
                make_result(output, f"album {number % 7}/plate {number:05}", shape_yx=(60, 80), seed=number)
        _memory(root, few, every, scans, KINDS)
        _check(root / "publish-every", root / "bagit-every", root / "ocfl-every")
        if many:
            tenth, all_of_them = root / "tenth", root / "many"
            for output, count in ((tenth, many // 10), (all_of_them, many)):
                _linked(output, count)
            _memory(root, tenth, all_of_them, many, kinds)
        if flips:
            _flip(root / "signed", flips)


def _linked(output: Path, count: int) -> None:
    """Many results with the bytes of one, and with its store."""
    first = make_result(output, "plate", shape_yx=(60, 80))
    told = json.loads(first.sidecar.read_text())
    for number in range(1, count):
        paths = ResultPaths.of(output, f"plate {number:05}")
        os.link(first.picture("tiff"), paths.picture("tiff"))
        told["pictures"]["tiff"]["file"] = paths.picture("tiff").name
        paths.sidecar.write_text(json.dumps(told))


def _memory(root: Path, few: Path, every: Path, count: int, kinds: Sequence[str]) -> None:
    print("| | scans | ms a scan | most memory, all / a tenth |\n|---|---|---|---|", flush=True)
    for kind in kinds:
        measured = [_run(kind, each, root / f"{kind}-{each.name}") for each in (few, every)]
        seconds, ratio = measured[1][0], measured[1][1] / measured[0][1]
        print(f"| `{kind}` | {count} | {seconds / count * 1000:.0f} | {ratio:.2f} |", flush=True)


def _check(site: Path, bag: Path, storage: Path) -> None:
    crawl = Crawl.of(f"{BASE}/collection.json", lambda address: (site / unquote(address[len(BASE) + 1 :])).read_bytes())
    manifests = list((site / "items").glob("*/manifest.json"))
    for path in manifests:
        Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    bagit.Bag(str(bag)).validate()
    is_valid = ocfl.StorageRoot(root=str(storage)).validate(validate_objects=True, check_digests=True)
    schemas = {
        "data/*/premis.xml": "premis-3.0.xsd",
        "data/*/mets.xml": "mets-with-premis.xsd",
        "data/mets.xml": "mets-1.12.xsd",
    }
    wrong = [
        each
        for names, schema in schemas.items()
        for path in bag.glob(names)
        for each in problems(path.read_bytes(), schema)
    ]
    print(f"{crawl.manifests} manifests crawled, {crawl.tiles} pictures, {len(crawl.missing)} missing")
    print(f"{len(manifests)} manifests loaded by iiif-prezi3, a valid bag, {len(wrong)} errors of PREMIS and METS")
    objects = sum(1 for _ in storage.rglob("0=ocfl_object_1.1"))
    print(f"an OCFL storage root of {objects} objects, {'valid' if is_valid else 'INVALID'}", flush=True)


def _flip(output: Path, flips: int) -> None:
    """Flip single bits, in turn in each format, embedded and beside; print how many were found."""
    archive, chance = signer(), random.Random(0)
    paths = make_result(output, "plate", shape_yx=(60, 80), formats=tuple(FORMATS))
    for embeds in (True, False):
        list(sign_results(output, Signing(archive.chain, archive.key), "", False, True, embeds))
        records, found = Sidecar.read(paths.sidecar).pictures, Counter[str]()
        for number in range(flips):
            name = list(FORMATS)[number % len(FORMATS)]
            picture = paths.picture(name)
            files = [p for p in picture.rglob("*") if p.is_file()] if picture.is_dir() else [picture]
            files += [credential_of(picture)] if credential_of(picture).is_file() else []
            file = chance.choice(files)
            whole = bytearray(file.read_bytes())
            at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
            whole[at] ^= bit
            file.write_bytes(whole)
            finding = check_credentials(picture, records[name], archive.root)
            found[finding.state if finding is not None else "none"] += 1
            whole[at] ^= bit
            file.write_bytes(whole)
        where = "embedded where the format takes them" if embeds else "beside"
        print(f"{flips} flipped bits, credentials {where}: {dict(found)}", flush=True)


def _run(kind: str, output: Path, to: Path) -> tuple[float, int]:
    """Seconds and the most memory of the command in a process of its own."""
    command = [kind] if kind == "publish" else ["package"]
    words = [*command, str(output), "--to", str(to), "--unreviewed"]
    words += ["--base-url", BASE] if kind == "publish" else ["--as", kind, "--mets"]
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _MEASURED, *words], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, int(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="?", type=int, default=200)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--flips", type=int, default=0)
    asked = parser.parse_args()
    main(asked.scans, asked.many, asked.flips, asked.kinds)
