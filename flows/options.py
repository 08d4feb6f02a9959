"""A user's options as checked values: sizes, memory, workers, pages and more."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from engines.machine import memory_bytes, processors
from engines.registry import check_engine
from flows.request import ALL, AUTO, CUDA, LOCAL, WHOLE, RunRequest
from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import UsageError
from pipeline.palettes import MOST_ANSWERS
from pipeline.planning.limits import check_limit, default_limit_bytes
from pipeline.tiling.windows import check_window

if TYPE_CHECKING:
    from pipeline.colour.grading import Grade

_MOST_PAGES = 10**6
# A longer time is a typing error; a run that needs more needs no deadline.
_MOST_HOURS = 24 * 31
_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster to use.

    Attributes
    ----------
    kind : "local", or "cuda" for one worker pinned to each GPU of this machine
    scheduler : address (tcp://host:8786) or scheduler file of an existing cluster; None makes a new one
    tls_ca, tls_cert, tls_key : PEM files for a scheduler with TLS; those not given come from Dask's configuration
    """

    kind: str = LOCAL
    scheduler: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


@dataclass(frozen=True)
class Pages:
    """Which pages of multi-page files to colour: first and last page of each range, from 1; without ranges, all."""

    runs: tuple[tuple[int, int], ...] = ()

    def of(self, count: int) -> list[int]:
        """The chosen pages of a file of ``count`` pages, in ascending order."""
        return [n for n in range(1, count + 1) if not self.runs or any(a <= n <= b for a, b in self.runs)]


@dataclass(frozen=True)
class RunOptions:
    """The options of ``colorize-archive run``, checked.

    ``tile_yx`` None is one tile as large as the scan; ``stride_yx`` None is seven eighths of a tile for models that
    take a palette and half a tile for others; ``workers`` None chooses automatically; ``anchor`` takes the palette from
    the whole scan; ``quality`` is the seam score that refinement aims at, 0 is no refinement; ``vivid``,
    ``cautious`` and ``answer`` say which of the possible colours are taken (:mod:`pipeline.palettes.answers`);
    ``palette_from`` is a folder of coloured copies, and ``lenient`` colours scans without one, or with hints that are
    wrong, without;
    ``series`` is a folder of scans, or a list of them, that belong together; ``hints`` is a folder of hints; ``keep``
    is the number of
    versions of a scan's colours to keep, the current one included; ``metadata`` carries over the embedded metadata;
    ``salvage`` fills missing regions. ``until`` is the deadline; ``quarantine_after`` is the number of failures in a
    row that puts a scan into quarantine, 0 is never, and ``retry_quarantined`` tries those scans all the same. A
    ``grade`` changes colours that the store holds, and none are predicted.
    """

    output: Path
    tile_yx: tuple[int, int] | None
    stride_yx: tuple[int, int] | None
    window: str
    anchor: bool
    quality: float
    vivid: float
    cautious: bool
    answer: int
    palette_from: Path | None
    lenient: bool
    series: Path | None
    hints: Path | None
    engine: str
    precision: str
    model: str
    workers: int | None
    cluster: ClusterOptions
    limit_memory_bytes: int
    keep: int
    force: bool
    formats: tuple[str, ...]
    metadata: bool
    pages: Pages
    salvage: bool
    until: datetime | None
    quarantine_after: int
    retry_quarantined: bool
    grade: Grade | None = None


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse ``tiff`` or a list such as ``tiff,iiif``, without duplicates, in the given order. Raises UsageError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    strange = [name for name in names if name not in ENDINGS]
    if strange or not names:
        raise UsageError(
            f"format {', '.join(strange) or text!r}: unknown, nothing would be written; give one or more of "
            f"{', '.join(ENDINGS)}, with commas between",
            "format",
        )
    return names


def parse_pages(text: str | int) -> Pages:
    """Parse ``all``, or numbers and ranges such as ``1,3-5``. Raises UsageError."""
    if str(text) == ALL:
        return Pages()
    parts = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", str(text).replace(" ", ""))
    bounds = [[int(n) for n in part.split("-")] for part in parts[0].split(",")] if parts else []
    if not bounds or any(not 1 <= b[0] <= b[-1] <= _MOST_PAGES for b in bounds):
        raise UsageError(f"pages {text!r}: give all, or numbers from 1 up such as 1,3-5", "pages")
    return Pages(tuple((b[0], b[-1]) for b in bounds))


def parse_size(text: str | int, what: str) -> tuple[int, int]:
    """Parse ``256`` or ``2048x4096`` (height x width) in pixels. Raises UsageError."""
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", str(text).strip())
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise UsageError(f"{what} {text!r} is not a size in pixels; give a number such as 256, or HEIGHTxWIDTH", what)
    return int(match[1]), int(match[2] or match[1])


def parse_memory(text: str | int, option: str = "limit-memory") -> int:
    """Parse ``2GiB``, ``1500MB``, plain bytes, or ``auto``, which depends on this machine; ``option`` has this value.

    Raises
    ------
    UsageError
    """
    if str(text).strip().lower() == AUTO:
        return default_limit_bytes(memory_bytes(), processors())
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?b)?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{option} {text!r}: is no amount of memory; give one such as 2GiB or 1500MB, or auto", option)
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def _parse_workers(value: str | int) -> int | None:
    if str(value) == AUTO:
        return None
    if not re.fullmatch(r"\d+", str(value)) or not 1 <= int(value) <= 4096:
        raise UsageError(f"workers {value!r}: give auto or a number from 1 to 4096", "workers")
    return int(value)


def _parse_keep(value: str | int) -> int:
    if not re.fullmatch(r"\d+", str(value)) or int(value) < 1:
        raise UsageError(f"keep {value!r}: the current version is always kept; give a number from 1 up", "keep")
    return int(value)


def _parse_quarantine_after(value: str | int) -> int:
    if not re.fullmatch(r"\d+", str(value)) or int(value) > 1000:
        raise UsageError(
            f"quarantine-after {value!r}: give a number of failures in a row, or 0 for no quarantine",
            "quarantine-after",
        )
    return int(value)


def parse_until(text: str | None, now: datetime | None = None) -> datetime | None:
    """Parse a deadline to UTC: ``06:00`` (the next one, local time), ``+90m``, ``+1h30m`` or an ISO 8601 time.

    An ISO time without an offset is local. None, ``none`` and an empty text give None. Raises UsageError.
    """
    if text is None or text.strip().lower() in ("", "none"):
        return None
    now = (now or datetime.now(UTC)).astimezone()
    wrong = UsageError(
        f"until {text!r}: the run would not know when to end; give 06:00, +90m or an ISO 8601 time, in "
        "the future and within 31 days",
        "until",
    )
    if clock := re.fullmatch(r"(\d{1,2}):(\d{2})", text.strip()):
        if int(clock[1]) > 23 or int(clock[2]) > 59:
            raise wrong
        end = _next_at(now, int(clock[1]), int(clock[2]))
    elif span := re.fullmatch(r"\+(?:(\d{1,6})h)?(?:(\d{1,6})m?)?", text.strip().lower()):
        end = now + timedelta(hours=int(span[1] or 0), minutes=int(span[2] or 0))
    else:
        try:
            end = _first_after(now, datetime.fromisoformat(text.strip()))
        except (ValueError, OverflowError, OSError) as error:
            raise wrong from error
    if not now < end <= now + timedelta(hours=_MOST_HOURS):
        raise wrong
    return end.astimezone(UTC)


def _next_at(now: datetime, hour: int, minute: int) -> datetime:
    """The next time at which the local clock shows ``hour``:``minute``, even across a clock change."""
    today = now.replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    end = _first_after(now, today)
    return end if end > now else _first_after(now, today + timedelta(days=1))


def _first_after(now: datetime, time: datetime) -> datetime:
    """The first moment after ``now`` at which local clocks show ``time``, or the last such moment if all are past.

    A clock put back shows a time twice. A clock put forward may skip it: the moment is then the end of the change. A
    time with an offset is a single moment.
    """
    if time.tzinfo is not None:
        return time.astimezone()
    ways = [time.replace(fold=fold).astimezone() for fold in (0, 1)]
    shown = sorted({way for way in ways if way.replace(tzinfo=None, fold=0) == time.replace(fold=0)})
    if not shown:
        early, late = min(ways), max(ways)  # the change is between them
        minutes = (early + timedelta(minutes=n) for n in range(int((late - early).total_seconds() // 60) + 1))
        shown = [next((m for m in minutes if m.astimezone(UTC).astimezone().replace(tzinfo=None) >= time), late)]
    return next((moment for moment in shown if moment > now), shown[-1]).astimezone(UTC).astimezone()


def parse_quality(value: str | float | None) -> float:
    """Parse a seam score such as 1.05; None and ``none`` give 0, which is no refinement. Raises UsageError."""
    if value is None or value == "none":
        return 0.0
    try:
        score = float(value)
    except ValueError:
        score = 0.0
    if not 1.0 < score < 100:
        raise UsageError(
            f"quality {value!r} is not a seam score above 1: no number of tiles would reach it; give 1.05 or none",
            "quality",
        )
    return score


def parse_vivid(value: str | float) -> float:
    """Parse a number from 0, the mean of the possible colours, to 1, the likeliest. Raises UsageError."""
    try:
        vivid = float(value)
    except ValueError:
        vivid = -1.0
    if not 0 <= vivid <= 1:
        raise UsageError(
            f"vivid {value!r}: give a number from 0, the mean of what is possible, to 1, the likeliest", "vivid"
        )
    return vivid


def parse_answer(value: str | int) -> int:
    """Parse which of the palette network's answers is taken, 1 to 3. Raises UsageError."""
    if str(value) not in map(str, range(1, MOST_ANSWERS + 1)):
        raise UsageError(
            f"answer {value!r}: the palette network is asked for its {MOST_ANSWERS} likeliest colours of a place; give "
            f"1, the best, to {MOST_ANSWERS}",
            "answer",
        )
    return int(value)


def parse_hints(folder: str | None) -> Path | None:
    """The folder of hints; None where they lie beside scans and results. Raises UsageError."""
    if folder is None:
        return None
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError(f"hints {folder!r}: no such folder; give the folder of the NAME.hints.json", "hints")
    return path.resolve()


def parse_palette_from(folder: str | None) -> Path | None:
    """The folder of coloured copies; None without one. Raises UsageError."""
    if folder is None:
        return None
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError(
            f"palette-from {folder!r}: no such folder; give the folder of the coloured copies", "palette-from"
        )
    return path.resolve()


def parse_series(given: str | None, palette_from: str | None) -> Path | None:
    """The folder or the list of scans that belong together; None without one. Raises UsageError."""
    if given is None:
        return None
    if palette_from is not None:
        raise UsageError(
            "series with palette-from: copies made elsewhere give each scan its own palette, and nothing would be "
            "joined; give one of them",
            "series",
        )
    path = Path(given).expanduser()
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() == ".csv"):
        raise UsageError(
            f"series {given!r}: neither a folder nor a .csv file, so nothing says what belongs together; give one",
            "series",
        )
    return path.resolve()


def parse_cluster(request: RunRequest) -> ClusterOptions:
    """Check the options of the cluster. Raises UsageError."""
    cluster, scheduler = request.cluster, request.scheduler
    if cluster not in (LOCAL, CUDA):
        raise UsageError(f"cluster {cluster!r}: give local or cuda, or the address of one as --scheduler", "cluster")
    if scheduler is not None and cluster != LOCAL:
        raise UsageError(
            f"cluster {cluster} and scheduler {scheduler}: only one of them can run the blocks; give one", "scheduler"
        )
    if scheduler is not None and not re.match(r"(tcp|tls|ucx|ws|wss|inproc)://", scheduler):
        if not Path(scheduler).is_file():
            raise UsageError(
                f"scheduler {scheduler!r} is neither a Dask address such as tcp://host:8786 nor a scheduler file; "
                "give one of these",
                "scheduler",
            )
        scheduler = str(Path(scheduler).absolute())
    return ClusterOptions(
        kind=cluster,
        scheduler=scheduler,
        tls_ca=request.tls_ca,
        tls_cert=request.tls_cert,
        tls_key=request.tls_key,
    )


def parse_options(request: RunRequest, now: datetime | None = None) -> RunOptions:
    """Check everything that can be checked without a scan or a library. Raises UsageError, EngineUnavailableError.

    ``until`` counts from ``now``.
    """
    tile_yx = None if str(request.tile) == WHOLE else parse_size(request.tile, "tile")
    stride_yx = None if request.stride is None else parse_size(request.stride, "stride")
    if tile_yx and stride_yx and any(s > t for s, t in zip(stride_yx, tile_yx, strict=True)):
        raise UsageError(
            f"stride {request.stride} is larger than the tile ({request.tile}): pixels between tiles would stay gray; "
            f"give a stride of at most {min(tile_yx)}",
            "stride",
        )
    check_window(request.window)
    limit_bytes = parse_memory(request.limit_memory)
    check_limit(limit_bytes, memory_bytes())
    if not request.output.isprintable() and os.fsencode(request.output).decode("utf-8", "replace") != request.output:
        raise UsageError(
            f"output {request.output!r}: its name is not UTF-8, so no record could name it; give another", "output"
        )
    check_engine(request.engine, request.precision)
    return RunOptions(
        output=Path(request.output).expanduser().resolve(),
        tile_yx=tile_yx,
        stride_yx=stride_yx,
        window=request.window,
        anchor=request.anchor,
        quality=parse_quality(request.quality),
        vivid=parse_vivid(request.vivid),
        cautious=request.cautious,
        answer=parse_answer(request.answer),
        palette_from=parse_palette_from(request.palette_from),
        hints=parse_hints(request.hints),
        lenient=request.lenient,
        series=parse_series(request.series, request.palette_from),
        engine=request.engine,
        precision=request.precision,
        model=request.model,
        workers=_parse_workers(request.workers),
        cluster=parse_cluster(request),
        limit_memory_bytes=limit_bytes,
        keep=_parse_keep(request.keep),
        force=request.force,
        formats=parse_formats(request.formats),
        metadata=request.metadata,
        pages=parse_pages(request.pages),
        salvage=request.salvage,
        until=parse_until(request.until, now),
        quarantine_after=_parse_quarantine_after(request.quarantine_after),
        retry_quarantined=request.retry_quarantined,
    )
