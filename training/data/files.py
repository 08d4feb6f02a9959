"""Which picture files there are, which photograph each was cut from, and which half of the split it belongs to."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engines.spec import CARD_FILE, MODEL_FILE
from training.errors import DataError

# By ending, not by content: a data set's folder also holds tables and notes, which must not count as unreadable.
_ENDINGS = "jpg jpeg jpe jfif png tif tiff webp bmp dib gif avif jp2 j2k jpx ppm pgm pnm tga pcx"
ENDINGS = frozenset(f".{ending}" for ending in _ENDINGS.split())
# Files by which the folder of a run, a table or a model is recognized. Its grids and sheets show the truth of held-out
# pictures. The names are repeated here, because the modules that write these files need torch.
_OURS = (
    {"checkpoint.pt"},
    {"run.json", "recipe.yaml"},
    {"table.json", "quiz.html"},
    {"table.json", "sheet.jpg"},
    {MODEL_FILE, CARD_FILE},
)
_DRAWN = re.compile(r"curves\.png|sheet\.jpg|sheet_.*\.png")
_GRIDS = "samples"
_TEST_OF = 5
_SPLIT_DEPTH = 3  # ILSVRC/Data/CLS-LOC/train
_SIZE = r"[_-]?(\d+|large|small|standard)?"
_TRAIN = re.compile(rf"(?:train(?:ing)?{_SIZE}|data[_-](256|large))", re.IGNORECASE)
_HELD_BACK = [  # a test folder counts only if there is no validation folder: published test folders lack the truth
    re.compile(rf"val(?:id(?:ation)?)?{_SIZE}", re.IGNORECASE),
    re.compile(rf"test(?:ing)?{_SIZE}", re.IGNORECASE),
]


@dataclass(frozen=True)
class Photograph:
    """A colour photograph on disk; ``group`` names the photograph that it was cut from."""

    path: Path
    group: str
    licence: str = ""
    source: str = ""

    @property
    def is_free(self) -> bool:
        """True if its licence is known and allows more than research."""
        licence = self.licence.strip().lower()
        return bool(licence) and licence != "unknown" and not licence.startswith("research")


def files_under(folder: Path, missed: dict[Path, str] | None = None) -> list[Path]:
    """All files under ``folder``, sorted; nothing hidden, and no folder twice however symbolic links lead to it.

    Folders written by a training run, an evaluation or an export are skipped; if ``folder`` itself is one, the pictures
    drawn in it are. Pipes, sockets and devices are never opened.

    Parameters
    ----------
    missed : collects everything else that was skipped, with the reason

    Raises
    ------
    DataError : no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of photographs")
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    missed = {} if missed is None else missed

    def cannot_list(error: OSError) -> None:
        missed[Path(error.filename)] = f"cannot be listed ({error.strerror})"

    for place, folders, names in os.walk(folder, followlinks=True, onerror=cannot_list):
        status = Path(place).stat()
        ours, given = any(made.issubset(names) for made in _OURS), Path(place) == folder
        if (status.st_dev, status.st_ino) in seen or (ours and not given):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        missed |= {Path(place, name): "hidden" for name in folders if name.startswith(".")}
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (ours and name == _GRIDS))
        if ours:
            names = [name for name in names if not _DRAWN.fullmatch(name)]
        for name in names:
            path = Path(place, name)
            if not name.startswith("."):
                if path.is_file():
                    found.append(path)
                else:
                    missed[path] = "no file: a pipe, socket or device, or a link to nothing"
            elif path.suffix.lower() in ENDINGS:
                missed[path] = "hidden"
    return sorted(found)


def picture_files(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Those of ``files`` that have the ending of a picture.

    Raises
    ------
    DataError : there is none.
    """
    found = [path for path in files if path.suffix.lower() in ENDINGS]
    if not found:
        raise DataError(f"{folder}: no pictures ({' '.join(sorted(ENDINGS))}); give a folder of photographs")
    return found


def read_bytes(path: Path) -> bytes:
    """A file's content; empty if it is unreadable or not a regular file: reading a named pipe would wait for ever."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


class Manifest:
    """The rows of the ``MANIFEST.tsv`` in a folder or up to two folders above; without a manifest there are no rows.

    Raises
    ------
    DataError : not a table of tab-separated UTF-8 text with a column ``file``.
    """

    def __init__(self, folder: Path) -> None:
        self._rows: dict[str, dict[str, str]] = {}
        resolved = folder.resolve()
        for place in (resolved, *resolved.parents[:2]):
            table = place / "MANIFEST.tsv"
            if table.is_file():
                self._rows = self._read(table)
                return

    @staticmethod
    def _read(table: Path) -> dict[str, dict[str, str]]:
        try:
            with table.open(newline="", encoding="utf-8") as lines:
                rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
                return {str((table.parent / row["file"]).resolve()): row for row in rows}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
            raise DataError(
                f"{table}: not a tab-separated UTF-8 table with a column 'file', so groups cannot be kept together; "
                "mend or remove it"
            ) from error

    def photograph(self, path: Path, sha256: str | None = None) -> Photograph:
        """A file with the values of its row; without a row it is its own group, named by the SHA-256 of its content."""
        row = self._rows.get(str(path.resolve()), {}) if self._rows else {}
        group = row.get("group") or sha256 or hashlib.sha256(read_bytes(path)).hexdigest()
        return Photograph(path, group, row.get("licence") or "", row.get("source") or "")


def find_photographs(folder: Path) -> list[Photograph]:
    """All pictures under ``folder``, sorted, with groups from a ``MANIFEST.tsv`` in it or up to two folders above.

    Without a manifest each file is its own group, named by its content.

    Raises
    ------
    DataError : no such folder, no picture under it, or a manifest that cannot be read.
    """
    manifest = Manifest(folder)
    paths = picture_files(folder, files_under(folder))
    return [manifest.photograph(path) for path in paths]


def is_test(photograph: Photograph) -> bool:
    """True for the fifth of the groups that training never sees."""
    return hashlib.sha256(photograph.group.encode()).digest()[0] % _TEST_OF == 0


def own_split(folder: Path, pictures: Iterable[Path]) -> tuple[Path, Path] | None:
    """The training and validation folders of a data set with its own split, such as COCO, ImageNet and Places.

    The two lie side by side, in ``folder`` or at most three levels below; deeper, or with pictures elsewhere, they are
    ordinary folders. Of several pairs (train2014, train2017), the last one with equal suffixes is taken.
    """
    beside: dict[tuple[str, ...], set[str]] = {}
    places = {path.relative_to(folder).parts[:-1] for path in pictures}
    for parts in places:
        for depth in range(min(len(parts), _SPLIT_DEPTH + 1)):
            beside.setdefault(parts[:depth], set()).add(parts[depth])
    for parent in sorted(beside, key=lambda parts: (len(parts), parts)):
        pair = _pair(beside[parent])
        if pair and all(parts[: len(parent)] == parent for parts in places):
            return folder.joinpath(*parent, pair[0]), folder.joinpath(*parent, pair[1])
    return None


def _pair(names: set[str]) -> tuple[str, str] | None:
    """The names of a training folder and its validation folder among sibling folders."""

    def sizes(pattern: re.Pattern[str]) -> dict[str, str]:
        matches = {name: pattern.fullmatch(name) for name in sorted(names)}
        return {next(filter(None, match.groups()), ""): name for name, match in matches.items() if match}

    train = sizes(_TRAIN)
    held_back = next(filter(None, map(sizes, _HELD_BACK)), {})
    if not train or not held_back:
        return None
    alike = [size for size in train if size in held_back]
    return (train[alike[-1]], held_back[alike[-1]]) if alike else ([*train.values()][-1], [*held_back.values()][-1])
