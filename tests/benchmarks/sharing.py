"""Publish and package many small results: are all files there, is each valid, does memory stay the same?

    python -m tests.benchmarks.sharing [SCANS]

It makes SCANS small results (500), publishes them, follows the collection as a strict level-0 client, loads every
manifest with iiif-prezi3, packages as many into a bag that bagit-python validates, and compares the most memory of a
tenth of them with that of all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote

import bagit
from iiif_prezi3 import Manifest

from tests.level0 import Crawl
from tests.results import make_result
from tests.schemas import problems

BASE = "https://archive.example/colour"
_MEASURED = """
import resource, sys
from flows.cli.app import app
try:
    app(sys.argv[1:], standalone_mode=True)
except SystemExit as end:
    assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main(scans: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for count in (max(1, scans // 10), scans):
            output = root / f"colour-{count}"
            for number in range(count):
                make_result(output, f"album {number % 7}/plate {number:05}", shape_yx=(60, 80), seed=number)
        few, many = root / f"colour-{max(1, scans // 10)}", root / f"colour-{scans}"
        rows = []
        for kind in ("publish", "package"):
            measured = [_run(kind, each, root / f"{kind}-{each.name}") for each in (few, many)]
            rows.append((kind, scans, measured[1][0] / scans * 1000, measured[1][1] / measured[0][1]))
        site, bag = root / f"publish-{many.name}", root / f"package-{many.name}"
        crawl = Crawl.of(
            f"{BASE}/collection.json", lambda address: (site / unquote(address[len(BASE) + 1 :])).read_bytes()
        )
        manifests = list((site / "items").glob("*/manifest.json"))
        for path in manifests:
            Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        bagit.Bag(str(bag)).validate()
        wrong = [
            each for path in bag.glob("data/*/premis.xml") for each in problems(path.read_bytes(), "premis-3.0.xsd")
        ]
        wrong += [
            each for path in bag.glob("data/*/mets.xml") for each in problems(path.read_bytes(), "mets-with-premis.xsd")
        ]
        print("| | scans | ms a scan | most memory, all / a tenth |\n|---|---|---|---|")
        for kind, count, milliseconds, ratio in rows:
            print(f"| `{kind}` | {count} | {milliseconds:.0f} | {ratio:.2f} |")
        print(f"{crawl.manifests} manifests crawled, {crawl.tiles} pictures, {len(crawl.missing)} missing")
        print(f"{len(manifests)} manifests loaded by iiif-prezi3, a valid bag, {len(wrong)} errors of PREMIS and METS")


def _run(kind: str, output: Path, to: Path) -> tuple[float, int]:
    """Seconds and the most memory of the command in a process of its own."""
    words = [kind, str(output), "--to", str(to), "--unreviewed"]
    words += ["--base-url", BASE] if kind == "publish" else ["--as", "bagit", "--mets"]
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _MEASURED, *words], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, int(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
