"""Every file of a folder, read or refused, against what other programs make of it.

    python -m tests.benchmarks.odd_files FOLDER [--table docs/odd_tiffs.md]

Prints a Markdown table and totals. A file is *right* where its lightness is that of at least one referee: `tifffile`
with the plain formulas below, Pillow, OpenCV or GDAL; those that give another answer are named beside. The reader
itself decodes with `tifffile`, so files that no other program agrees on are counted apart: there only the conversion
was checked. Each file is read in a process of its own with `SECONDS` and `BYTES`.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.errors import ScanError
from pipeline.readers import open_scan

SECONDS, BYTES = 10, 2**30
NEAR, NEAR_PROFILE = 0.3, 1.5  # L*: half a step of 8 bits; ImageCms answers in 8 bits
Lightness = NDArray[np.floating]

Image.MAX_IMAGE_PIXELS = None


def lightness(rgb: NDArray) -> Lightness:
    """CIE L* of sRGB-encoded gray (h, w) or RGB (h, w, 3) from 0 to 1 (IEC 61966-2-1; CIE 15:2018)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    y = linear if rgb.ndim == 2 else linear @ np.array([0.2126390, 0.7151687, 0.0721923])
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def ours(path: Path) -> tuple[Lightness, str]:
    with open_scan(path) as reader:
        samples, info = reader.read(slice(None), slice(None)), reader.info
        if info.mask:
            reader.read_mask(slice(None), slice(None))
        assert reader.embedded is not None
        words = [f"{info.shape_yx[1]} x {info.shape_yx[0]}", "gray" if info.channels == 1 else "RGB", info.depth]
        words += [f"mask: {info.mask}"] * bool(info.mask) + [str(info.metadata.get("lightness", ""))]
        words += [f"dropped: {', '.join(info.metadata['dropped'])}"] if "dropped" in info.metadata else []
    unit = samples / np.iinfo(samples.dtype).max
    return (unit * 100 if info.tone == "lightness" else lightness(unit)), "; ".join(word for word in words if word)


def by_tifffile(path: Path) -> Lightness:
    with tifffile.TiffFile(path) as file:
        page = next((p for p in file.pages if not p.subfiletype & 5), file.pages[0])
        stored = np.asarray(page.asarray())
        tags = {code: page.tags.valueof(code) for code in (258, 320, 338, 340, 341, 34675)}
        photometric, samples = int(page.photometric) if 262 in page.tags else 1, page.samplesperpixel
        bits = page.bitspersample
        planar, jpeg = page.planarconfig == 2, page.compression in (6, 7)
    if stored.ndim == 2:
        stored = stored[:, :, None]
    elif planar and samples > 1:
        stored = np.moveaxis(stored, 0, 2)
    if photometric == 3:
        table = np.asarray(tags[320]).reshape(3, -1).T
        unit = (table if table.max() < 256 else table >> 8)[stored[:, :, 0].astype(int)] / 255
        return by_profile(unit, tags[34675]) if tags[34675] else lightness(unit)
    colours = {0: 1, 5: 4}.get(photometric, 3 if samples >= 3 else 1)
    unit = plain_unit(stored[:, :, :colours], bits, tags)
    if tags[338] and int(np.ravel(tags[338])[0]) == 1:
        alpha = plain_unit(stored[:, :, colours : colours + 1], bits, tags)
        unit = np.where(alpha > 0, np.minimum(unit / np.where(alpha > 0, alpha, 1), 1), 0)
    if photometric == 0:
        unit = 1 - unit
    if photometric in (8, 9, 10):
        return unit[:, :, 0] * 100
    if photometric == 5 and not tags[34675]:
        unit = (1 - unit[:, :, :3]) * (1 - unit[:, :, 3:])
    if photometric == 6 and not jpeg:
        raise ValueError("YCbCr")
    unit = unit[:, :, 0] if unit.shape[2] == 1 else unit
    return by_profile(unit, tags[34675]) if tags[34675] else lightness(unit)


def plain_unit(stored: NDArray, bits: int, tags: dict[int, Any]) -> NDArray:
    """Samples as numbers from 0 (black) to 1 (white)."""
    if stored.dtype.kind in "bu" and bits <= 31:
        return stored / (2**bits - 1)
    if tags[340] is not None:
        low, high = np.min(tags[340]), np.max(tags[341])
    else:
        low, high = stored.min(), stored.max()
        if stored.dtype.kind == "f" and low >= 0 and high <= 1:
            low, high = 0, 1
    if low == high:
        return np.full(stored.shape, 0.5)
    return (stored.astype(float) - float(low)) / (float(high) - float(low))


def by_profile(unit: NDArray, icc: bytes) -> Lightness:
    eight = np.rint(unit * 255).astype(np.uint8)
    image = Image.fromarray(eight, "CMYK" if eight.ndim == 3 and eight.shape[2] == 4 else None)
    profile = ImageCms.getOpenProfile(io.BytesIO(icc))
    if image.mode == "L" and profile.profile.xcolor_space.strip() == "RGB":
        image = image.convert("RGB")
    lab = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("LAB"), renderingIntent=1, outputMode="LAB")
    return np.asarray(lab)[:, :, 0] / 2.55


def has_profile(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        return 34675 in file.pages[0].tags


def by_pillow(path: Path) -> Lightness:
    with Image.open(path) as image:
        if image.info.get("icc_profile"):
            raise ValueError("profile")
        bits = np.ravel(image.tag_v2.get(258, 1))[0]
        if image.mode in ("I;16", "I;16B", "I;16L"):
            return lightness(np.asarray(image).astype(float) / (2**bits - 1))
        if image.mode == "LAB":
            return np.asarray(image)[:, :, 0] / 2.55
        if image.mode == "CMYK":
            unit = np.asarray(image) / 255
            return lightness((1 - unit[:, :, :3]) * (1 - unit[:, :, 3:]))
        if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"):
            raise ValueError(image.mode)
        if image.mode == "La":
            image = image.convert("LA")
        return lightness(np.asarray(image.convert("RGB")) / 255)


def by_opencv(path: Path) -> Lightness:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ValueError("no answer")
    unit = image / np.iinfo(image.dtype).max
    return lightness(unit if unit.ndim == 2 else unit[:, :, 2::-1])


def by_gdal(path: Path) -> Lightness:
    with tifffile.TiffFile(path) as file:
        tags = {code: file.pages[0].tags.valueof(code) for code in (340, 341, 34675)}
        photometric = file.pages[0].tags.valueof(262, default=1)
    with rasterio.open(path, driver="GTiff") as dataset:
        said = dataset.tags(1, ns="IMAGE_STRUCTURE")
        colours = [int(band) for band in dataset.colorinterp[:3]]
        premultiplied = any("ALPHA" in dataset.tags(band, ns="IMAGE_STRUCTURE") for band in dataset.indexes)
        if photometric not in (0, 1, 2, 6) or premultiplied or tags[34675]:
            raise ValueError("no answer")
        stored = np.moveaxis(dataset.read((1, 2, 3) if colours == [3, 4, 5] or dataset.count >= 3 else 1), 0, -1)
        stored = stored if stored.ndim == 3 else np.moveaxis(stored, 0, 1)
    bits = int(said.get("NBITS", 8 * stored.dtype.itemsize))
    unit = plain_unit(stored, bits, tags)
    return lightness(1 - unit if photometric == 0 else unit)


REFEREES: dict[str, Callable[[Path], Lightness]] = {
    "tifffile": by_tifffile,
    "Pillow": by_pillow,
    "OpenCV": by_opencv,
    "GDAL": by_gdal,
}


def with_retry(path: Path) -> tuple[str, str, str]:
    """What it is, the verdict, and the reason."""
    try:
        found, words = ours(path)
    except ScanError as error:
        text = str(error).removeprefix(f"{path}: ")
        return "", "refused" if "\n" not in str(error) else "WRONG", text
    except Exception as error:
        return "", "TRACEBACK", f"{type(error).__name__}: {error}"
    agree, differ = [], []
    for name, referee in REFEREES.items():
        try:
            expected = referee(path)
        except Exception:
            continue  # no answer
        if expected.shape != found.shape:
            differ.append(f"{name} {expected.shape}")
            continue
        off = float(np.abs(expected - found).max())
        near = NEAR_PROFILE if name == "tifffile" and has_profile(path) else NEAR
        (agree if off <= near else differ).append(name if off <= near else f"{name} by {off:.1f} L*")
    reason = "equals " + ", ".join(agree) if agree else "equals none"
    return words, "right" if agree else "WRONG", reason + (f" (not {', '.join(differ)})" if differ else "")


def alone(path: Path, channel: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES + 2**29, BYTES + 2**29))  # what the imports hold comes on top
    warnings.simplefilter("ignore")
    channel.send(with_retry(path))


def watched(path: Path) -> tuple[str, str, str]:
    """As `judged`, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=alone, args=(path, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(SECONDS) else ("", "HANG", f"more than {SECONDS} s")
    except EOFError:
        process.join()
        return "", "TRACEBACK", f"the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()


def table_of(folder: Path) -> str:
    rows, totals, alike = [], Counter[str](), 0
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        what, verdict, reason = watched(path)
        totals[verdict] += 1
        alike += reason.split(" (")[0] == "equals tifffile"
        cells = [cell.replace("|", "\\|") for cell in (path.name, what, f"{verdict}: {reason}")]
        rows.append(f"| {' | '.join(cells)} |")
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(totals.items()))
    head = f"{sum(totals.values())} files: {total}; {alike} of the right ones by tifffile alone\n\n"
    head += "| file | what it is | result |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


_HEADING = """# Odd and broken TIFFs

`python -m tests.benchmarks.odd_files FOLDER --table docs/odd_tiffs.md`. A file is right if its lightness is that of at
least one other program; programs that give another answer are named with the difference in L\\*.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    table = table_of(arguments.folder)
    print(table)
    if arguments.table:
        arguments.table.write_text(_HEADING + table)


if __name__ == "__main__":
    main()
