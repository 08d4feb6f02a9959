"""Chromium without a window, for pages that have to work in a real browser."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_SECONDS, wait_until

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_KEYS: dict[str, dict[str, Any]] = {
    "ArrowLeft": {"code": "ArrowLeft", "windowsVirtualKeyCode": 37},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Escape": {"code": "Escape", "windowsVirtualKeyCode": 27},
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
}


class Browser:
    """A page in headless Chromium, driven over the DevTools protocol as a person would: by mouse and keys."""

    def __init__(self, profile: Path) -> None:
        from websockets.sync.client import connect

        program = next(filter(None, map(shutil.which, BROWSERS)))
        command = [program, "--headless=new", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to run as root with it
        profile.mkdir(parents=True, exist_ok=True)
        self.log = (profile / "log").open("wb")
        self.process = subprocess.Popen([*command, f"--user-data-dir={profile}", "about:blank"], stderr=self.log)
        port_file = profile / "DevToolsActivePort"

        def is_listening() -> bool:
            return port_file.is_file() and "\n" in port_file.read_text()

        wait_until(lambda: is_listening() or self.process.poll() is not None)
        assert self.process.poll() is None, "Chromium does not start"
        port = port_file.read_text().splitlines()[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        targets = json.load(opener.open(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS))
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        self.socket = connect(address, max_size=None, proxy=None)
        self.ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=PATIENCE_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        wait_until(lambda: self.value(expression), lambda: expression, every_seconds=0.02)

    def open(self, path: Path) -> None:
        self.go(path.as_uri())

    def go(self, address: str) -> None:
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        scheme = address.partition(":")[0]
        self.wait(f"document.readyState === 'complete' && location.protocol === '{scheme}:'")

    def width(self, pixels: int, height: int = 800) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """``light`` or ``dark``, as the system asks for it."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def click(self, selector: str) -> None:
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def key(self, name: str) -> None:
        """A letter, or a key by its name, such as ArrowRight."""
        text = {"text": name} if len(name) == 1 else _KEYS[name]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, **text)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        for letter in text:
            self.key(letter)

    def troubles(self) -> list[dict[str, Any]]:
        """Exceptions, refused resources and console messages so far."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses of all that was asked for so far."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)
        self.log.close()


@contextlib.contextmanager
def chromium(profile: Path, what: str) -> Iterator[Browser]:
    """A browser with a new profile; the test is skipped where there is none to open ``what`` in."""
    pytest.importorskip("websockets.sync.client")
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip(f"no browser to open {what} in: none of {', '.join(BROWSERS)} is installed")
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()


def fits(browser: Browser) -> bool:
    """Whether the page is no wider than the window."""
    return bool(browser.value("document.documentElement.scrollWidth <= innerWidth"))
