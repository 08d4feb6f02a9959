"""The catalogue of a folder of results for other systems, as CSV or JSON Lines: one row a result.

Rows are written as they are read, so that a catalogue of any size needs the memory of one.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from flows.sharing.manifest import MANIFEST
from flows.sharing.outgoing import Kept, Outgoing, results_of
from pipeline.errors import UsageError
from pipeline.support.files import remove, writing

COLUMNS = (
    "name",
    "reference_code",
    "scan",
    "page",
    "scan_bytes",
    "scan_sha256",
    "width_px",
    "height_px",
    "title",
    "description",
    "creator",
    "date",
    "rights",
    "version",
    "model",
    "model_sha256",
    "finished",
    "expected_ciede2000",
    "doubt",
    "pictures",
    "may_go_out",
    "why_not",
    "approved_by",
    "manifest",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_catalogue(output: Path, to: Path, codes: Mapping[str, str], base_url: str) -> tuple[int, list[str]]:
    """Write the table to ``to``, whose ending says in which form; it appears when it is complete.

    Returns
    -------
    The number of rows, and a line for each result that cannot be read.

    Raises
    ------
    UsageError : no such form, or no such folder. OutputError : it cannot be written.
    """
    writers = {".csv": _as_csv, ".jsonl": _as_lines}
    if to.suffix.lower() not in writers:
        raise UsageError(f"--to {to.name!r}: a form that is not known; give a name that ends in .csv or .jsonl")
    if not output.is_dir():
        raise UsageError(f"{output}: no folder, nothing to list; give the --output of earlier runs")
    unread: list[str] = []
    part = to.with_name(f"{to.name}.{secrets.token_hex(4)}.part")
    with writing(to):
        try:
            with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                count = writers[to.suffix.lower()](stream, _rows(output, codes, base_url.rstrip("/"), unread))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, to)
        finally:
            remove(part)
    return count, unread


def _rows(output: Path, codes: Mapping[str, str], base_url: str, unread: list[str]) -> Iterator[dict[str, Any]]:
    for found in results_of(output, False, codes):
        result = found.result if isinstance(found, Kept) else found
        if result is None:
            unread.append(found.reason if isinstance(found, Kept) else found.stem)
            continue
        yield _row(result, found.reason if isinstance(found, Kept) else "", base_url)


def _row(result: Outgoing, why_not: str, base_url: str) -> dict[str, Any]:
    source, told, spec = result.source, result.description, result.sidecar.spec
    doubt = (result.sidecar.quality or {}).get("doubt") or {}
    values = {
        "name": "/".join(filter(None, (result.folder, result.name))),
        "reference_code": result.code,
        "scan": source.path,
        "page": source.page,
        "scan_bytes": source.bytes,
        "scan_sha256": source.sha256,
        "width_px": source.width_px,
        "height_px": source.height_px,
        "title": _maps(told.title),
        "description": _maps(told.summary),
        "creator": _maps(told.creator),
        "date": _maps(told.date),
        "rights": _maps(told.rights),
        "version": result.result.version,
        "model": spec.model if spec else "",
        "model_sha256": spec.model_sha256 if spec else "",
        "finished": result.sidecar.finished,
        "expected_ciede2000": doubt.get("expected"),
        "doubt": doubt.get("word", ""),
        "pictures": [record.file for record in result.sidecar.pictures.values()],
        "may_go_out": not why_not,
        "why_not": why_not,
        "approved_by": list(result.approved_by),
        "manifest": f"{base_url}/items/{result.address}/{MANIFEST}" if base_url and not why_not else "",
    }
    return {name: values[name] for name in COLUMNS}


def _maps(texts: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {language: list(each) for language, each in texts.items()}


def _as_lines(stream: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def _as_csv(stream: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    stream.write("\ufeff")
    table = csv.writer(stream)
    table.writerow(COLUMNS)
    count = 0
    for row in rows:
        table.writerow([_cell(value) for value in row.values()])
        count += 1
    return count


def _cell(value: Any) -> str | int | float:
    """A value in one cell; what a spreadsheet would take for a formula is marked as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    if isinstance(value, Mapping):
        value = [text for texts in value.values() for text in texts]
    text = " | ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
