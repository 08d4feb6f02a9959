"""What a user asks for, as values: sizes, memory, workers, and which files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from flows.cluster import CUDA, LOCAL, ClusterOptions
from pipeline.errors import UsageError
from pipeline.readers import ENDINGS as SCAN_ENDINGS
from pipeline.readers import FOLDER_ENDINGS, is_folder_scan
from pipeline.windows import window_weights
from pipeline.writers import ENDINGS

AUTO = "auto"
WHOLE = "whole"
ALL = "all"
_MOST_PAGES = 10**6
# A store, one that is being made, and one that is being replaced.
STORE_ENDINGS = (".zarr", ".zarr.part", ".zarr.old.part")
_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Pages:
    """Which pages of files that have several: first and last of each run of them, from 1; all where there is none."""

    runs: tuple[tuple[int, int], ...] = ()

    def of(self, count: int) -> list[int]:
        """Those of a file of ``count`` pages, in its order."""
        return [n for n in range(1, count + 1) if not self.runs or any(a <= n <= b for a, b in self.runs)]


@dataclass(frozen=True)
class RunOptions:
    """The options of ``colorize-archive run``, checked.

    ``tile_yx`` None is one tile as large as the scan; ``stride_yx`` None is half a tile; ``workers`` None chooses;
    ``anchor`` takes the palette from the whole scan; ``quality`` is the seam score that finer tiles are added for, 0 is
    none; ``keep`` is how many versions of a scan's colours stay, the current one among them; ``metadata`` carries over
    what the scan says beside its pixels; ``salvage`` fills what cannot be read.
    """

    output: Path
    tile_yx: tuple[int, int] | None = (256, 256)
    stride_yx: tuple[int, int] | None = None
    window: str = "hann"
    anchor: bool = True
    quality: float = 0.0
    engine: str = AUTO
    precision: str = AUTO
    model: str = "default"
    workers: int | None = None
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    limit_memory_bytes: int = 2 * 2**30
    keep: int = 2
    force: bool = False
    formats: tuple[str, ...] = ("tiff",)
    metadata: bool = True
    pages: Pages = Pages()
    salvage: bool = False


def parse_formats(text: str) -> tuple[str, ...]:
    """``tiff`` or several such as ``tiff,iiif``, each once, in the order given. Raises UsageError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    strange = [name for name in names if name not in ENDINGS]
    if strange or not names:
        raise UsageError(
            f"format {', '.join(strange) or text!r}: unknown, nothing would be written; give one or more of "
            f"{', '.join(ENDINGS)}, with commas between"
        )
    return names


def parse_pages(text: str | int) -> Pages:
    """``all``, or numbers and ranges such as ``1,3-5``. Raises UsageError."""
    if str(text) == ALL:
        return Pages()
    parts = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", str(text).replace(" ", ""))
    bounds = [[int(n) for n in part.split("-")] for part in parts[0].split(",")] if parts else []
    if not bounds or any(not 1 <= b[0] <= b[-1] <= _MOST_PAGES for b in bounds):
        raise UsageError(f"pages {text!r}: give all, or numbers from 1 up such as 1,3-5")
    return Pages(tuple((b[0], b[-1]) for b in bounds))


def parse_size(text: str | int, what: str) -> tuple[int, int]:
    """``256`` or ``2048x4096`` (height x width) in pixels. Raises UsageError."""
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", str(text).strip())
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise UsageError(f"{what} {text!r} is not a size in pixels; give a number such as 256, or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def parse_memory(text: str | int) -> int:
    """``2GiB``, ``1500MB`` or plain bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?b)?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"memory {text!r} is not an amount of memory; give one such as 2GiB or 1500MB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def _parse_workers(value: str | int) -> int | None:
    if str(value) == AUTO:
        return None
    if not re.fullmatch(r"\d+", str(value)) or not 1 <= int(value) <= 4096:
        raise UsageError(f"workers {value!r}: give auto or a number from 1 to 4096")
    return int(value)


def _parse_keep(value: str | int) -> int:
    if not re.fullmatch(r"\d+", str(value)) or int(value) < 1:
        raise UsageError(f"keep {value!r}: the current version is always kept; give a number from 1 up")
    return int(value)


def parse_quality(value: str | float | None) -> float:
    """A seam score such as 1.05; None and ``none`` are 0, which asks for none. Raises UsageError."""
    if value is None or value == "none":
        return 0.0
    try:
        score = float(value)
    except ValueError:
        score = 0.0
    if not 1.0 < score < 100:
        raise UsageError(
            f"quality {value!r} is not a seam score above 1: no number of tiles would reach it; give 1.05 or none"
        )
    return score


def parse_cluster(
    cluster: str = LOCAL,
    scheduler: str | None = None,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> ClusterOptions:
    """Check which cluster is meant. Raises UsageError."""
    if cluster not in (LOCAL, CUDA):
        raise UsageError(f"cluster {cluster!r}: give local or cuda, or the address of one as --scheduler")
    if scheduler is not None and cluster != LOCAL:
        raise UsageError(f"cluster {cluster} and scheduler {scheduler}: only one of them can run the blocks; give one")
    if scheduler is not None and not re.match(r"(tcp|tls|ucx|ws|wss|inproc)://", scheduler):
        if not Path(scheduler).is_file():
            raise UsageError(
                f"scheduler {scheduler!r} is neither a Dask address such as tcp://host:8786 nor a scheduler file; "
                "give one of these"
            )
        scheduler = str(Path(scheduler).absolute())
    return ClusterOptions(cluster, scheduler, tls_ca, tls_cert, tls_key)


def parse_options(
    output: str,
    tile: str | int = 256,
    stride: str | int | None = None,
    window: str = "hann",
    engine: str = AUTO,
    model: str = "default",
    workers: str | int = AUTO,
    limit_memory: str | int = "2GiB",
    keep: str | int = 2,
    force: bool = False,
    anchor: bool = True,
    quality: str | float | None = None,
    precision: str = AUTO,
    formats: str = "tiff",
    metadata: bool = True,
    pages: str | int = ALL,
    salvage: bool = False,
    **cluster: str | None,
) -> RunOptions:
    """Check everything that can be checked without a scan; ``cluster`` as :func:`parse_cluster`. Raises UsageError."""
    tile_yx = None if str(tile) == WHOLE else parse_size(tile, "tile")
    stride_yx = None if stride is None else parse_size(stride, "stride")
    if tile_yx and stride_yx and any(s > t for s, t in zip(stride_yx, tile_yx, strict=True)):
        raise UsageError(
            f"stride {stride} is larger than the tile ({tile}): pixels between tiles would stay gray; "
            f"give a stride of at most {min(tile_yx)}"
        )
    window_weights(window, 1)
    if not str(output).isprintable() and os.fsencode(output).decode("utf-8", "replace") != str(output):
        raise UsageError(f"output {output!r}: its name is not UTF-8, so no record could name it; give another")
    return RunOptions(
        output=Path(output).expanduser().resolve(),
        tile_yx=tile_yx,
        stride_yx=stride_yx,
        window=window,
        anchor=anchor,
        quality=parse_quality(quality),
        engine=engine,
        precision=precision,
        model=model,
        workers=_parse_workers(workers),
        cluster=parse_cluster(**cluster),  # type: ignore[arg-type]
        limit_memory_bytes=parse_memory(limit_memory),
        keep=_parse_keep(keep),
        force=force,
        formats=parse_formats(formats),
        metadata=metadata,
        pages=parse_pages(pages),
        salvage=salvage,
    )


@dataclass(frozen=True)
class ScanFile:
    """A scan to colour and the place of its results below the output folder, without ending; its page, from 1."""

    path: Path
    stem: str
    page: int = 1


def is_result(path: Path) -> bool:
    """Whether the name is one of a picture that this project writes."""
    return path.name.endswith(tuple(ENDINGS.values()))


def _is_ours(path: Path) -> bool:
    return is_result(path) or any(part.endswith((*STORE_ENDINGS, ".iiif")) for part in path.parts)


def _stem(path: Path) -> str:
    """The name without its ending; that of a folder may have two."""
    ending = next((ending for ending in FOLDER_ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.as_posix().removesuffix(path.name[len(path.name) - len(ending) :]) if ending else path.as_posix()


def _is_scan_folder(path: Path) -> bool:
    """Whether a folder is a scan itself; our stores are none."""
    return path.name.lower().endswith(FOLDER_ENDINGS) and path.is_dir() and is_folder_scan(path)


def _fixed_part(pattern: Path) -> Path:
    """What stands before the first wildcard: a folder above, whatever its name, makes no result of a scan."""
    return next((parent for parent in pattern.parents if not has_magic(str(parent))), Path())


def _in_folder(folder: Path) -> list[ScanFile]:
    found = []

    def stop(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be listed ({error.strerror}); its scans would be missed; check it")

    for parent, names, files in os.walk(folder, onerror=stop):
        names.sort()
        if {"runs", "thumbs"} <= set(names) and "index.html" in files:  # an output folder
            names.remove("thumbs")
        scans = [name for name in names if _is_scan_folder(Path(parent, name)) and not is_result(Path(name))]
        # Hidden ones are of the system or of other programs: thumbnails, deleted files, halves that macOS leaves.
        left_out = (*STORE_ENDINGS, *FOLDER_ENDINGS, ".iiif", ".part")
        names[:] = [name for name in names if not name.endswith(left_out) and not name.startswith(".")]
        found += [ScanFile(Path(parent, name), _stem(Path(parent, name).relative_to(folder))) for name in scans]
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in SCAN_ENDINGS and name[0] != "." and not _is_ours(path.relative_to(folder)):
                found.append(ScanFile(path, _stem(path.relative_to(folder))))
    if not found:
        raise UsageError(f"{folder}: no scans in this folder ({' '.join(SCAN_ENDINGS)}); give a folder that has some")
    return found


def _expanded(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{text[:100]!r}: not a possible file name ({error}); check it") from error
    return path


def find_scans(inputs: list[str]) -> list[ScanFile]:
    """Files, folders (searched through; sub-folders are kept in the output) and globs, each file once.

    A named file that does not exist is listed: its failure is that scan's, not the run's.

    Raises
    ------
    UsageError : nothing was given, a glob that matches nothing, or a folder without scans.
    """
    found: dict[Path, ScanFile] = {}
    for text in inputs:
        path = _expanded(text)
        if _is_scan_folder(path):
            scans = [ScanFile(path, _stem(Path(path.name)))]
        elif path.is_dir():
            scans = _in_folder(path)
        elif not path.exists() and has_magic(text):
            matches = sorted(Path(p) for p in glob(str(path), recursive=True))
            root = _fixed_part(path)
            scans = [
                ScanFile(p, _stem(Path(p.name)))
                for p in matches
                if (p.is_file() and not _is_ours(p.relative_to(root)))
                or (_is_scan_folder(p) and not is_result(p) and not _is_ours(p.relative_to(root).parent))
            ]
            if not scans:
                raise UsageError(f"{text}: no file matches this pattern; check it (and quote it)")
        else:
            scans = [ScanFile(path, path.stem)]
        for scan in scans:
            found.setdefault(scan.path.resolve(), ScanFile(scan.path.absolute(), scan.stem))
    if not found:
        raise UsageError("no input: give scans, folders or patterns to colour")
    return list(found.values())
