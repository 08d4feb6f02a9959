"""A strict client of static IIIF: it follows a collection to every picture, and asks for nothing but what it was told.

References
----------
IIIF Image API 3.0, 4.7 (canonical addresses) and 5; "Compliance", level 0: of regions and sizes, only what is announced
in ``info.json``.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from tests.patience import PATIENCE_SECONDS

Fetch = Callable[[str], bytes]


def fetched(address: str) -> bytes:
    """The bytes at an address of this machine; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=PATIENCE_SECONDS) as answer:
        return bytes(answer.read())


@dataclass
class Crawl:
    """What a client found: numbers of what was there, and addresses that were missing or of another size."""

    fetch: Fetch = fetched
    manifests: int = 0
    collections: int = 0
    tiles: int = 0
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, collection: str, fetch: Fetch = fetched) -> Crawl:
        """Crawl everything below a collection."""
        crawl = cls(fetch)
        crawl._collection(collection)
        return crawl

    def _json(self, address: str) -> dict[str, Any]:
        found = json.loads(self._bytes(address) or b"{}")
        if found and found.get("id") != address:
            self.missing.append(f"{address}: calls itself {found.get('id')}")
        return found

    def _bytes(self, address: str) -> bytes:
        try:
            return self.fetch(address)
        except OSError as error:
            self.missing.append(f"{address}: {error}")
            return b""

    def _collection(self, address: str) -> None:
        self.collections += 1
        for item in self._json(address).get("items", ()):
            if item["type"] == "Collection":
                self._collection(item["id"])
            else:
                self._manifest(item["id"])

    def _manifest(self, address: str) -> None:
        self.manifests += 1
        manifest = self._json(address)
        for link in (*manifest.get("seeAlso", ()), *manifest.get("thumbnail", ())):
            self._bytes(link["id"])
        for page in (page for canvas in manifest.get("items", ()) for page in canvas["items"]):
            for annotation in page["items"]:
                for choice in annotation["body"]["items"]:
                    self._picture(choice["id"], (choice["height"], choice["width"]))
                    self._service(choice["service"][0]["id"])

    def _service(self, service: str) -> None:
        info = json.loads(self._bytes(f"{service}/info.json") or b"{}")
        if not info:
            return
        if (info["id"], info["type"], info["profile"]) != (service, "ImageService3", "level0"):
            self.missing.append(f"{service}: {info['id']}, {info['type']}, {info['profile']}")
        for link in info.get("seeAlso", ()):
            self._bytes(link["id"])
        for size in info["sizes"]:
            shape_yx = size["height"], size["width"]
            self._picture(f"{service}/full/{size['width']},{size['height']}/0/default.jpg", shape_yx)
        for address, shape_yx in tiles_of(info):
            self._picture(address, shape_yx)

    def _picture(self, address: str, shape_yx: tuple[int, int]) -> None:
        self.tiles += 1
        data = self._bytes(address)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if data and (picture is None or picture.shape[:2] != shape_yx):
            self.missing.append(f"{address}: {None if picture is None else picture.shape}, not {shape_yx}")


def tiles_of(info: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The canonical address of every tile, and its rows and columns."""
    width, height = info["width"], info["height"]
    for tiles in info["tiles"]:
        side_x, side_y = tiles["width"], tiles.get("height", tiles["width"])
        for factor in tiles["scaleFactors"]:
            for y in range(0, height, side_y * factor):
                for x in range(0, width, side_x * factor):
                    wide, tall = min(side_x * factor, width - x), min(side_y * factor, height - y)
                    region = "full" if (wide, tall) == (width, height) else f"{x},{y},{wide},{tall}"
                    shape_yx = -(-tall // factor), -(-wide // factor)
                    yield f"{info['id']}/{region}/{shape_yx[1]},{shape_yx[0]}/0/default.jpg", shape_yx
