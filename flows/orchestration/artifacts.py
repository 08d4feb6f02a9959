"""What Prefect's page shows of a run beside its state: a report, a table, pictures, progress, and log lines.

Artifact keys are the titles that the page gives them. They derive from the output folder, so that the page keeps their
history from night to night. A run costs a few requests, however many scans it has: rows, lists and pictures are
bounded, and progress is reported every few seconds. The page never makes a run fail: a problem with it is one line.

Pictures are Markdown and not artifacts of the type image: those are one click each, and show their data as a link.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import cv2
import numpy as np

from flows.outcome import ScanOutcome
from flows.run.endings import in_words
from flows.sheet.thumbnails import KINDS, thumbnail_path
from pipeline.support.files import open_file
from pipeline.support.names import shown

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

REPORT, SCAN_TABLE, PICTURES, PROGRESS = "report", "scan-table", "pictures", "progress"
MOST_ROWS = 1000
MOST_LINES = 50
MOST_PICTURES = 20
_HEIGHT_PX = 240
_JPEG_QUALITY = 75
_KEY_PART_CHARACTERS = 40
# Failures first, then scans worth a look, then scans without problems.
_RANKS = {"quarantined": 0, "failed": 1, "left out": 2, "stopped": 3, "done": 5, "already there": 6}
_WARNED = 4


def key_of(output: Path, what: str) -> str:
    """The key of an artifact, in the letters that Prefect takes: the last two folders of the results, and what it is.

    >>> key_of(Path("/archive/Glass plates"), "report")
    'archive-glass-plates-report'
    >>> key_of(Path("/Müller"), "scan-table")
    'muller-scan-table'
    >>> key_of(Path("/data/京"), "report")
    'data-fe9c84-report'
    """
    names = [_slug(name) for name in output.parts[-2:]]
    return "-".join([*filter(None, names), what])


def _slug(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text)
    plain = letters.encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_KEY_PART_CHARACTERS].strip("-")
    if any(letter.isalnum() and not letter.isascii() for letter in letters):
        # Names that differ in another script are still told apart.
        slug = f"{slug}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:6]}".strip("-")
    return slug


@dataclass(frozen=True)
class RunPage:
    """The artifacts of one flow run on the server that ``client`` talks to."""

    client: SyncPrefectClient
    flow_run_id: UUID
    output: Path

    def show(self, what: str, type: str, data: Any, description: str) -> UUID:
        """Create an artifact and return its id. With an empty ``what``, it has no key and belongs to this run alone."""
        from prefect.client.schemas.actions import ArtifactCreate

        key = key_of(self.output, what) if what else None
        made = ArtifactCreate(
            key=key, type=type, data=data, description=description or None, flow_run_id=self.flow_run_id
        )
        return self.client.create_artifact(made).id

    def change(self, artifact: UUID, data: Any, description: str) -> None:
        """Replace an artifact's data and description."""
        from prefect.client.schemas.actions import ArtifactUpdate

        self.client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))

    def show_results(
        self, outcomes: Sequence[ScanOutcome], state: str, record: Path, seconds: float, notes: Sequence[str] = ()
    ) -> None:
        """Show the pictures, the table, and the report with ``notes`` and links to both, of a run that has ended."""
        links = {}
        pictures = pictures_of(outcomes, self.output)
        if pictures:
            told = f"{len(pictures)} scans before and after, those most worth a look first"
            links["Pictures"] = self.show(PICTURES, "markdown", "\n\n".join(["# Before and after", *pictures]), told)
        rows = table_of(outcomes)
        left = f"; {len(outcomes) - len(rows)} more in {shown(record)}" if len(rows) < len(outcomes) else ""
        links["Scan table"] = self.show(SCAN_TABLE, "table", json.dumps(rows), f"{in_words(outcomes)}{left}")
        report = report_of(outcomes, state, self.output, record, seconds, notes, links)
        self.show(REPORT, "markdown", report, f"{state}: {in_words(outcomes)}")


def status_of(outcome: ScanOutcome) -> str:
    """The status as people read it; a skipped scan was done already, or is left out because it failed before."""
    if outcome.status == "skipped":
        return "left out" if outcome.is_left_out or outcome.is_forbidden else "already there"
    return outcome.status


def in_order_of_concern(outcomes: Iterable[ScanOutcome]) -> list[ScanOutcome]:
    """Sort outcomes: failed, left out, stopped, done with warnings, and the rest."""

    def rank(outcome: ScanOutcome) -> int:
        status = status_of(outcome)
        return _WARNED if status == "done" and outcome.warnings else _RANKS[status]

    return sorted(outcomes, key=rank)


def table_of(outcomes: Sequence[ScanOutcome]) -> list[dict[str, Any]]:
    """At most 1000 rows for a table artifact, the most worrying first."""
    return [_row(outcome) for outcome in in_order_of_concern(outcomes)[:MOST_ROWS]]


def _row(outcome: ScanOutcome) -> dict[str, Any]:
    seconds = sum(value for _, value in outcome.seconds)
    seam = outcome.quality.seam if outcome.quality else None
    message = "" if outcome.status in ("done", "skipped") and outcome.result else outcome.message
    messages = [each.removeprefix(f"{outcome.path}: ") for each in (message, *outcome.warnings) if each]
    # Six columns fit Prefect's page, where the row says which scan it is; version and tiles are in the record.
    return {
        "scan": shown(outcome.scan),
        "status": status_of(outcome),
        "MP": round(outcome.megapixels, 2) or None,
        "s": round(seconds, 1) or None,
        "seam": None if seam is None else round(seam, 3),
        "to know": shown("; ".join(messages)),
    }


def report_of(
    outcomes: Sequence[ScanOutcome],
    state: str,
    output: Path,
    record: Path,
    seconds: float,
    notes: Sequence[str] = (),
    links: Mapping[str, UUID] | None = None,
) -> str:
    """Markdown: totals, ``links`` to other artifacts, ``notes``, then failures, then everything else to look at."""
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    megapixels = sum(outcome.megapixels for outcome in done)
    lines = [
        f"# {state}",
        "",
        f"**{in_words(outcomes)}** of {len(outcomes)} scans",
        "",
        f"{megapixels:.1f} megapixels, {sum(o.tiles for o in done)} tiles in {_span(seconds)}"
        + (f", {megapixels / seconds:.2f} megapixels/s" if megapixels and seconds else ""),
        "",
        *_linked(links or {}),
        f"- Results: {code(output)}",
        f"- Contact sheet: {code(output / 'index.html')}",
        f"- Record: {code(record)}",
    ]
    lines += [line for note in notes for line in ("", code(note))]
    lists: list[tuple[str, Sequence[str]]] = [
        ("Quarantined, left out from now on", _messages(outcomes, lambda o: o.status == "quarantined")),
        ("Failed", _messages(outcomes, lambda o: o.status == "failed")),
        ("Left out after failures", _messages(outcomes, lambda o: o.is_left_out)),
        ("Left out by policy.yaml", _messages(outcomes, lambda o: o.is_forbidden)),
        ("Warnings", [warning for outcome in outcomes for warning in outcome.warnings]),
        ("Left for the next run", _messages(outcomes, lambda o: o.status == "stopped")),
    ]
    for title, entries in lists:
        if entries:
            lines += ["", f"## {title} ({len(entries)})", "", *(f"- {code(text)}" for text in entries[:MOST_LINES])]
            lines += [f"- and {len(entries) - MOST_LINES} more"] if len(entries) > MOST_LINES else []
    return "\n".join(lines) + "\n"


def _linked(links: Mapping[str, UUID]) -> list[str]:
    """A line of links to artifacts, from anywhere on the page's own server: under which name it is seen, it knows."""
    if not links:
        return []
    return [" | ".join(f"[{title}](/artifacts/artifact/{artifact})" for title, artifact in links.items()), ""]


def _messages(outcomes: Sequence[ScanOutcome], belongs: Callable[[ScanOutcome], bool]) -> list[str]:
    return [outcome.message for outcome in outcomes if belongs(outcome)]


def code(text: object) -> str:
    """A name or message as Markdown code, so that every character shows as it is.

    >>> code("50 `%` *.tif")
    '``50 `%` *.tif``'
    """
    line = " ".join(shown(text).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def to_picture(outcomes: Sequence[ScanOutcome]) -> list[ScanOutcome]:
    """The finished scans most worth a look: those with warnings first, then by seam score."""

    def concern(outcome: ScanOutcome) -> tuple[bool, float]:
        seam = outcome.quality.seam if outcome.quality else None
        return bool(outcome.warnings), seam or 0.0

    done = [outcome for outcome in outcomes if outcome.status == "done"]
    return sorted(done, key=concern, reverse=True)[:MOST_PICTURES]


def pictures_of(outcomes: Sequence[ScanOutcome], output: Path) -> list[str]:
    """Markdown for each finished scan that is shown: its name, the picture before and after, and the facts."""
    shown_ones = [(outcome, before_and_after(output, outcome.scan)) for outcome in to_picture(outcomes)]
    return [
        "\n\n".join([f"### {code(outcome.scan)}", f"![before and after]({picture})", *_caption(outcome)])
        for outcome, picture in shown_ones
        if picture
    ]


def _caption(outcome: ScanOutcome) -> list[str]:
    quality = f", {outcome.quality}" if outcome.quality else ""
    facts = f"{outcome.megapixels:.1f} MP{quality}, version {code(outcome.version)}"
    return [facts, *(code(warning) for warning in outcome.warnings)]


def before_and_after(output: Path, stem: str) -> str:
    """Both thumbnails of the contact sheet side by side, as a ``data:`` URI; empty if one is missing."""
    halves = []
    for kind in KINDS:
        try:
            with open_file(thumbnail_path(output, stem, kind)) as stream:
                data = stream.read()
        except OSError:
            return ""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            return ""
        width = max(1, round(picture.shape[1] * _HEIGHT_PX / picture.shape[0]))
        halves.append(cv2.resize(picture, (min(width, 3 * _HEIGHT_PX), _HEIGHT_PX), interpolation=cv2.INTER_AREA))
    gap = np.full((_HEIGHT_PX, 6, 3), 255, np.uint8)
    joined = np.concatenate([halves[0], gap, halves[1]], axis=1)
    _, encoded = cv2.imencode(".jpg", joined, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
