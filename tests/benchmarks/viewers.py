"""Open a published manifest in viewers of others, in headless Chromium: do they show both pictures?

    python -m tests.benchmarks.viewers [SCREENSHOTS]

Mirador and Universal Viewer come from the npm registry (``npm pack``), for this test alone. In each, the scan is
chosen as a reader would: by the viewer's own control. It prints what each viewer shows before and after, and writes
screenshots into the folder SCREENSHOTS if one is given.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from flows.sharing.outgoing import address_of
from flows.sharing.site import Site, open_site, publish_site
from flows.sharing.wording import Wording
from tests.chromium import Browser, chromium
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
# How a reader comes to the scan: press these one after the other, each found by an expression.
_CONTROLS = {
    "mirador": (
        """document.querySelector('[aria-label="Hide layer"]')""",
        """[...document.querySelectorAll('[aria-label="Show layer"]')].at(-1)""",
    ),
    "universalviewer": (
        "document.querySelector('.centerPanel .choiceSwitch')",
        "[...document.querySelectorAll('.choiceItem')].find(e => e.innerText.trim() === 'Scan')",
    ),
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
            print(
                "| viewer | picture shown | in colour | choices named | the scan when chosen |\n|---|---|---|---|---|"
            )
            for name, page in _PAGES.items():
                (root / f"{name}.html").write_text(page.replace("MANIFEST", json.dumps(manifest)))
                browser.events.clear()
                browser.go(f"{address}/{name}.html")
                looks = _Looks(browser, root / f"{name}.png")
                shown = _until(lambda: browser.value(_DRAWN))
                coloured = _until(looks.is_coloured)
                _keep(looks.picture, screenshots, name)
                is_chosen = all(_until(partial(_pressed, browser, control)) for control in _CONTROLS[name])
                labels = [label for label in _LABELS if label in looks.lines()]
                gray = is_chosen and _until(looks.is_gray)
                _keep(looks.picture, screenshots, f"{name}-scan")
                print(f"| {name} | {shown} | {coloured} | {', '.join(labels) or 'none'} | {gray} |", flush=True)
        server.shutdown()


class _Looks:
    """What a page shows."""

    def __init__(self, browser: Browser, picture: Path) -> None:
        self.picture, self._browser = picture, browser

    def lines(self) -> list[str]:
        return [line.strip() for line in (self._browser.value(_TEXT) or "").splitlines()]

    def is_coloured(self) -> bool:
        self._browser.screenshot(self.picture)
        middle = cv2.imread(str(self.picture))[300:600, 600:1100]
        return bool(np.ptp(middle, axis=2).mean() > 8)

    def is_gray(self) -> bool:
        return not self.is_coloured()


def _pressed(browser: Browser, control: str) -> bool:
    """Press a control as soon as there is one that can be seen."""
    return bool(
        browser.value(
            f"(() => {{ const e = {control}; if (!e || getComputedStyle(e).visibility !== 'visible') return false;"
            " (e.querySelector('input') || e).click(); return true; })()"
        )
    )


def _until(is_so: Callable[[], object], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(1)
    return False


def _keep(picture: Path, screenshots: Path | None, name: str) -> None:
    if screenshots is not None:
        screenshots.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, screenshots / f"{name}.png")


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
