"""The contact sheet of docs/usage.md: python -m tests.benchmarks.sheet (needs Chromium and websockets)

sheet.png       index.html of what the main job makes of tests/scans and of a file that is cut off, 1400 px wide
sheet_look.jpg  the closer look at one of them
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
_LOOK_SCALE = 0.7
_LARGE_ARE_THERE = "[...document.querySelectorAll('#details img')].every(e => e.complete && e.naturalWidth > 320)"


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
            browser.value("document.querySelectorAll('#sheet .open')[1].click()")
            browser.wait(_LARGE_ARE_THERE)
            time.sleep(0.5)
            browser.screenshot(Path(folder, "look.png"))
        thumbs = output / "thumbs"
        large = sorted(path.stat().st_size for path in thumbs.rglob("*.2048.jpg"))
        every = [path.stat().st_size for path in thumbs.rglob("*.jpg")]
        print(f"large pictures {large[0] // 1000} to {large[-1] // 1000} kB, thumbs {sum(every) // 1000} kB")
        # With a palette it has a third of the bytes.
        image = pyvips.Image.new_from_file(str(Path(folder, "sheet.png")))
        image.pngsave(
            str(PICTURES / "sheet.png"), palette=True, Q=90, dither=0.6, effort=10, compression=9, keep="none"
        )
        look = pyvips.Image.new_from_file(str(Path(folder, "look.png"))).extract_band(0, n=3).resize(_LOOK_SCALE)
        look.jpegsave(str(PICTURES / "sheet_look.jpg"), Q=80, optimize_coding=True, keep="none")
        for name in ("sheet.png", "sheet_look.jpg"):
            print(PICTURES / name, (PICTURES / name).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
