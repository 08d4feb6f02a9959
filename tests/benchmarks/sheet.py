"""The contact sheet of docs/usage.md: python -m tests.benchmarks.sheet (needs Chromium and websockets)

sheet.png  index.html of what the main job makes of tests/scans and of a file that is cut off, in a window of 1400 px
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

from tests.benchmarks.pictures import PICTURES, SCANS
from tests.chromium import chromium

_SIZE = (1400, 735)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scans, output = Path(folder, "scans"), Path(folder, "Views and maps")
        shutil.copytree(SCANS, scans, ignore=shutil.ignore_patterns("*.tsv"))
        (scans / "harbour-1912.jpg").write_bytes((SCANS / "sunset-beach.jpg").read_bytes()[:500_000])
        for words in (["run", str(scans), "--output", str(output)], ["sheet", str(output)]):
            subprocess.run([sys.executable, "-m", "flows.cli", *words], check=words[0] == "sheet")
        with chromium(Path(folder, "profile"), "the contact sheet") as browser:
            browser.scheme("light")
            browser.width(*_SIZE)
            browser.call("Emulation.setScrollbarsHidden", hidden=True)
            browser.open(output / "index.html")
            browser.wait("[...document.images].every(e => e.complete && e.naturalWidth)")
            time.sleep(0.5)  # until it is painted
            browser.screenshot(Path(folder, "sheet.png"))
        # With a palette it has a third of the bytes.
        image = pyvips.Image.new_from_file(str(Path(folder, "sheet.png")))
        image.pngsave(
            str(PICTURES / "sheet.png"), palette=True, Q=90, dither=0.6, effort=10, compression=9, keep="none"
        )
        print(PICTURES / "sheet.png", (PICTURES / "sheet.png").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
