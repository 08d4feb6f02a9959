"""Open a published manifest in viewers of others, in headless Chromium: do they show it, and know both pictures?

    python -m tests.benchmarks.viewers [SCREENSHOTS]

Mirador and Universal Viewer come from the npm registry (``npm pack``), for this test alone. It prints what each viewer
shows, and writes screenshots into the folder SCREENSHOTS if one is given.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from flows.sharing.outgoing import address_of
from flows.sharing.site import Site, open_site, publish_site
from flows.sharing.wording import Wording
from tests.chromium import chromium
from tests.results import make_result

PACKAGES = ("mirador@4.0.0", "universalviewer@4.4.0")
_LABELS = ("Coloured by an algorithm", "Scan")
_PAGES = {
    "mirador": """<!DOCTYPE html><meta charset="utf-8"><div id="viewer" style="position:absolute;inset:0"></div>
<script src="mirador/dist/mirador.min.js"></script><script>
Mirador.viewer({id: "viewer", windows: [{manifestId: MANIFEST, sideBarOpen: true, sideBarPanel: "layers"}],
  window: {panels: {layers: true, info: true}, defaultSideBarPanel: "layers", sideBarOpenByDefault: true}});
</script>""",
    "universalviewer": """<!DOCTYPE html><meta charset="utf-8">
<link rel="stylesheet" href="universalviewer/dist/uv.css">
<div id="viewer" class="uv" style="position:absolute;inset:0"></div>
<script src="universalviewer/dist/umd/UV.js"></script><script>
UV.init("viewer", {manifest: MANIFEST, embedded: true});
</script>""",
}
_TEXT = "document.body.innerText"
_DRAWN = "[...document.querySelectorAll('canvas')].some(c => c.width > 300 && c.offsetParent)"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main(screenshots: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for package in PACKAGES:
            _unpack(package, root)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        make_result(root / "colour", "harbour", shape_yx=(900, 1400))
        site = open_site(root / "site", root / "colour", f"{address}/site", Wording())
        list(publish_site(Site(site.folder, site.output, site.base_url, site.wording, unreviewed=True)))
        manifest = f"{site.base_url}/items/{address_of('harbour')}/manifest.json"
        with chromium(root / "profile", "viewers") as browser:
            browser.width(1400, 900)
            print("| viewer | picture shown | in colour | choices named |\n|---|---|---|---|")
            for name, page in _PAGES.items():
                (root / f"{name}.html").write_text(page.replace("MANIFEST", json.dumps(manifest)))
                browser.events.clear()
                browser.go(f"{address}/{name}.html")
                until = time.monotonic() + 45
                shown, coloured, labels = False, False, list[str]()
                while time.monotonic() < until and not (shown and coloured and len(labels) == len(_LABELS)):
                    time.sleep(1)
                    text = browser.value(_TEXT) or ""
                    lines = [line.strip() for line in text.splitlines()]
                    labels = [label for label in _LABELS if label in lines]
                    shown = bool(browser.value(_DRAWN))
                    picture = root / f"{name}.png"
                    browser.screenshot(picture)
                    middle = cv2.imread(str(picture))[300:600, 600:1100]
                    coloured = bool(np.ptp(middle, axis=2).mean() > 8)
                print(f"| {name} | {shown} | {coloured} | {', '.join(labels) or 'none'} |")
                if screenshots is not None:
                    screenshots.mkdir(parents=True, exist_ok=True)
                    (screenshots / f"{name}.png").write_bytes((root / f"{name}.png").read_bytes())
        server.shutdown()


def _unpack(package: str, root: Path) -> None:
    """An npm package, without what it depends on: its bundle has that already."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=root, capture_output=True, text=True, check=True, timeout=300
    )
    with tarfile.open(root / packed.stdout.split()[-1]) as archive:
        archive.extractall(root, filter="data")
    (root / "package").rename(root / package.partition("@")[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
