"""How light other programs say that a picture is: Pillow, libvips, GDAL, OpenCV, tifffile and zarr-python.

Each answers with L* (h, w), or not at all: any exception. They decode; what their samples mean goes by the plain
formulas of `odd_files`, and by ImageCms where there is a profile, libvips' own by libvips.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips
import rasterio
import zarr
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks.odd_files import Lightness, by_profile, by_tifffile, lightness, plain_unit

pyvips.concurrency_set(1)  # several workers of one image may wait for each other for ever (libvips issue 4068)
pyvips.cache_set_max(0)  # it knows files by their names, and here one name is many files
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


class NoAnswerError(Exception):
    """The program has no opinion on such a file."""


def of_light(light: NDArray) -> Lightness:
    """L* of luminance from 0 to 1."""
    return np.where(light > (6 / 29) ** 3, 116 * np.cbrt(light) - 16, light * (29 / 3) ** 3)


def by_power(unit: NDArray, gamma: float, primaries: tuple[float, ...] = ()) -> Lightness:
    """Samples that are ``light ** (1 / gamma)`` of RGB with these primaries (SMPTE RP 177)."""
    linear = unit**gamma
    if unit.ndim == 2:
        return of_light(linear)
    white, *lights = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.reshape(primaries or _SRGB, (4, 2)).astype(float)
    )
    return of_light(linear @ np.linalg.solve(np.stack(lights, axis=1), white))


def of_ink(unit: NDArray, icc: bytes | None) -> Lightness:
    """Of ink, 0 for none."""
    return by_profile(unit, icc) if icc else lightness((1 - unit[:, :, :3]) * (1 - unit[:, :, 3:4]))


def pillow(path: Path) -> Lightness:
    with Image.open(path) as image:
        icc = image.info.get("icc_profile")
        unit, is_final = _pillow_unit(image)
        if is_final:
            return unit
        if image.mode == "CMYK":
            return of_ink(unit, icc)
        if icc:
            return by_profile(unit, icc)
        if image.format == "PNG" and "gamma" in image.info and "srgb" not in image.info:
            return by_power(unit, 1 / image.info["gamma"], image.info.get("chromaticity", ()))
        return lightness(unit)


def _pillow_unit(image: Image.Image) -> tuple[NDArray, bool]:
    """Samples from 0 to 1; or L* itself, and that it is."""
    if image.mode in ("I;16", "I;16B", "I;16L"):
        bits = int(np.ravel(image.tag_v2.get(258, 16))[0]) if image.format == "TIFF" else 16
        return np.asarray(image).astype(float) / (2**bits - 1), False
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return np.asarray(image) / 65535, False
    if image.mode == "LAB":
        return np.asarray(image)[:, :, 0] / 2.55, True
    if image.mode == "CMYK":
        return np.asarray(image) / 255, False
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L")) / 255, False
    if image.mode == "La":
        return np.asarray(image.convert("LA"))[:, :, 0] / 255, False
    if image.mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        image = image.convert("RGBA") if image.mode == "RGBa" else image
        return np.asarray(image.convert("RGB")) / 255, False
    raise NoAnswerError(image.mode)


def libvips(path: Path) -> Lightness:
    image = pyvips.Image.new_from_file(str(path), fail_on="error")
    kind, icc = image.interpretation, None
    if "icc-profile-data" in image.get_fields():
        icc = bytes(image.get("icc-profile-data"))
    if kind in ("lab", "labs"):
        return image.numpy()[:, :, 0].astype(float) * (1 if kind == "lab" else 100 / 32767)
    top = {"uchar": 255, "ushort": 65535}.get(image.format)
    if top is None or kind not in ("b-w", "grey16", "srgb", "rgb", "rgb16", "cmyk", "multiband"):
        raise NoAnswerError(f"{kind} {image.format}")
    bands = 4 if kind == "cmyk" else 3 if image.bands >= 3 else 1
    image = image.extract_band(0, n=bands)
    if icc:
        imported = image.icc_import(embedded=True, intent="relative", pcs="lab")
        return imported.numpy()[:, :, 0].astype(float)
    samples = image.numpy()
    unit = samples.reshape(image.height, image.width, -1) / top
    if kind == "cmyk":
        return of_ink(unit, None)
    return lightness(unit[:, :, 0] if bands == 1 else unit)


def gdal(path: Path) -> Lightness:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By itself it looks for neighbours; another file of that name may have been there a moment ago.
        with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(path) as dataset:
            return _of_dataset(dataset)


def _of_dataset(dataset: Any) -> Lightness:
    meanings = [meaning.name for meaning in dataset.colorinterp]
    said, colours = dataset.tags(1, ns="IMAGE_STRUCTURE"), dataset.tags(ns="COLOR_PROFILE")
    icc = base64.b64decode(colours.get("SOURCE_ICC_PROFILE", "")) or None
    if dataset.dtypes[0].startswith("complex") or str(dataset.photometric).lower().endswith("lab"):
        raise NoAnswerError("neither gray nor RGB")
    stored = np.moveaxis(dataset.read(), 0, 2)
    if meanings[0] == "palette":
        table = np.zeros((int(np.iinfo(stored.dtype).max) + 1, 3))
        for index, entry in dataset.colormap(1).items():
            table[index] = entry[:3]
        unit = table[stored[:, :, 0]] / 255
        return _gdal_tone(unit, icc, colours)
    bits = int(said.get("NBITS", 8 * stored.dtype.itemsize))
    if "cyan" in meanings:
        return of_ink(plain_unit(stored[:, :, :4], bits, _NO_TAGS), icc)
    bands = 3 if meanings[:3] == ["red", "green", "blue"] or dataset.count >= 3 else 1
    unit = plain_unit(stored[:, :, :bands], bits, _NO_TAGS)
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        unit = 1 - unit
    return _gdal_tone(unit[:, :, 0] if bands == 1 else unit, icc, colours)


_NO_TAGS: dict[int, Any] = {340: None, 341: None}


def _gdal_tone(unit: NDArray, icc: bytes | None, colours: dict[str, str]) -> Lightness:
    if icc:
        return by_profile(unit, icc)
    if "PNG_GAMMA" in colours:
        names = "WHITEPOINT", "PRIMARIES_RED", "PRIMARIES_GREEN", "PRIMARIES_BLUE"
        points = [colours[f"SOURCE_{name}"].split(",")[:2] for name in names if f"SOURCE_{name}" in colours]
        primaries = tuple(float(number) for point in points for number in point)
        return by_power(unit, 1 / float(colours["PNG_GAMMA"]), primaries)
    return lightness(unit)


def opencv(path: Path) -> Lightness:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise NoAnswerError("no picture")
    unit = image / np.iinfo(image.dtype).max
    unit = unit[:, :, 0] if unit.ndim == 3 and unit.shape[2] <= 2 else unit
    return lightness(unit if unit.ndim == 2 else unit[:, :, 2::-1])


def of_tifffile(path: Path) -> Lightness:
    with path.open("rb") as file:
        if file.read(2) not in (b"II", b"MM"):
            raise NoAnswerError("no TIFF")
    return by_tifffile(path)


def zarr_python(path: Path) -> Lightness:
    if not path.is_dir():
        raise NoAnswerError("no folder")
    stored = np.asarray(zarr.open_group(path, mode="r")["0"])
    stored = stored.reshape(-1, *stored.shape[-2:])
    stored = np.moveaxis(stored[:3], 0, 2) if len(stored) in (3, 4) else stored[0]
    unit = plain_unit(stored.astype(np.uint8) * 255 if stored.dtype == bool else stored, 8 * stored.itemsize, _NO_TAGS)
    return lightness(unit)


REFEREES: dict[str, Callable[[Path], Lightness]] = {
    "Pillow": pillow,
    "libvips": libvips,
    "GDAL": gdal,
    "OpenCV": opencv,
    "tifffile": of_tifffile,
    "zarr": zarr_python,
}
