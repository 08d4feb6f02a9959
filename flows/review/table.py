"""Decisions as CSV, for spreadsheets and other systems: written, and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flows.catalogue.database import Catalogue
from pipeline.errors import UsageError
from pipeline.results.decisions import JUDGEMENTS, UNREADABLE, Decision, decisions_beside, read_decisions, save
from pipeline.results.policy import Policy
from pipeline.results.release import rules_to_lift
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from pipeline.support.names import shown

COLUMNS = ("scan", "decision", "person", "when", "reason", "note", "version", "source_sha256", "lifts", "id")
_JOINT = "; "
# A spreadsheet takes a cell that begins like this for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Imported:
    """How many rows became decisions, how many were there already, and one line for each that was refused."""

    taken: int
    there: int
    refused: tuple[str, ...]


def decisions_of(output: Path) -> list[Decision]:
    """All decisions of a folder, by scan and time; the catalogue's rows are brought up to date if it can be written."""
    found = read_decisions(output)
    Catalogue.keep_decisions(output, found)
    return [each for decisions in found.values() for each in decisions]


def as_csv(decisions: Iterable[Decision]) -> str:
    """A table with a line for each decision; what cannot be read is left out."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for each in decisions:
        if each.decision != UNREADABLE:
            values = {**vars(each), "lifts": _JOINT.join(each.lifts)}
            writer.writerow([_guarded(str(values[name])) for name in COLUMNS])
    return text.getvalue()


def _guarded(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def import_csv(output: Path, text: str) -> Imported:
    """Write the decisions of a table. A row without a version is on the current colours, one without a time on now.

    Raises
    ------
    UsageError : the columns scan, decision and person are not all there. OutputError : a file cannot be written.
    """
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    if not {"scan", "decision", "person"} <= set(rows.fieldnames or ()):
        raise UsageError(
            "the table has no columns scan, decision and person, so nothing was taken; name them in line 1"
        )
    taken = there = 0
    refused, policy = [], Policy.read(output)
    for row in rows:
        values = {name: _unguarded((row.get(name) or "").strip()) for name in COLUMNS}
        try:
            is_new = _take(output, values, policy)
        except (UsageError, ValueError) as error:
            refused.append(f"line {rows.line_num}: {shown(error)}")
            continue
        taken, there = taken + is_new, there + (not is_new)
    return Imported(taken, there, tuple(refused))


def _take(output: Path, values: Mapping[str, str], policy: Policy) -> bool:
    """Write the decision of one row; False if it is there already. Raises UsageError."""
    stem = values["scan"]
    result = ResultPaths.of(output, _inside(stem)).sidecar
    sidecar = Sidecar.find(result)
    if sidecar is None or sidecar.version is None or sidecar.source is None:
        raise UsageError(f"{stem!r:.200}: no result has this name; give names as status --json has them")
    if values["decision"] not in JUDGEMENTS:
        raise UsageError(f"decision {values['decision']!r:.40} is none; give one of {', '.join(JUDGEMENTS)}")
    known = decisions_beside(result)
    if values["id"] and any(each.id == values["id"] for each in known):
        return False
    given = {name: values[name] for name in COLUMNS if values[name] and name not in ("scan", "lifts")}
    current = {"version": sidecar.version, "source_sha256": sidecar.source.sha256}
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    made = Decision.from_json({**current, "when": now, "person": "", **given}, stem)
    if values["lifts"]:
        made = replace(made, lifts=tuple(values["lifts"].split(_JOINT)))
    elif made.decision == "approve" and not values["version"]:
        made = replace(made, lifts=rules_to_lift(sidecar, policy, stem))
    save(result, made)
    return True


def _inside(stem: str) -> str:
    """The name of a result below the folder. Raises UsageError for a path that leads elsewhere."""
    parts = stem.split("/")
    if not stem or "\0" in stem or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{stem!r:.200}: no name of a result")
    return stem
