"""The catalogue of an output folder: every scan, version, run and failure, in ``catalogue.sqlite``.

The results are the truth. The catalogue is an index that saves opening each of them, and can be rebuilt from their
sidecars and ``runs/*.json``. One run writes it and holds the folder's lock, while anybody may read: SQLite's
write-ahead log isolates them, and survives a kill at any moment. Only the hashes of scan files are in no result: they
save reading every scan again.

Why SQLAlchemy's Core and no object mapper: five flat tables with one query each need no more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update
from sqlalchemy.exc import DatabaseError

from flows.catalogue import schema as tables
from flows.catalogue.rebuild import RELEASED, Results, is_gone, is_record, results_of, write_decision
from flows.catalogue.records import (
    RUNNING,
    KnownFailure,
    KnownRun,
    KnownScan,
    KnownVersion,
    key_of,
    released,
    scan_after,
    version_of_sidecar,
    with_source,
)
from flows.catalogue.schema import engine_for, is_sound
from flows.outcome import KILLED, ScanOutcome
from pipeline.errors import ColorizeError, UsageError
from pipeline.results.decisions import UNREADABLE, Decision
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from pipeline.support.files import folder_lock, remove, writing
from pipeline.support.fingerprint import KnownFile, StatFingerprint

__all__ = ["Catalogue", "KnownFailure", "KnownRun", "KnownScan", "KnownVersion", "rebuild"]

FILE, DAMAGED = "catalogue.sqlite", "catalogue.damaged.sqlite"


class Catalogue:
    """An open catalogue; a context manager. Threads may share it."""

    def __init__(self, output: Path, engine: Engine) -> None:
        self.output = output
        self._engine = engine
        self._writing = threading.Lock()
        self._looked: dict[str, StatFingerprint] = {}

    @classmethod
    def open(cls, output: Path, is_locked: bool = False) -> Catalogue:
        """Open the catalogue of ``output``; rebuild it from the results if it is missing, damaged or of another layout.

        ``is_locked`` says that the caller holds the folder's lock: the catalogue is then updated with runs that it
        missed, and killed runs are marked as such.

        Raises
        ------
        UsageError : a rebuild is needed while a run works on the folder. OutputError : the catalogue is not writable.
        """
        path = output / FILE
        if not is_sound(path):
            return rebuild(output, is_locked)
        catalogue = cls(output, engine_for(path))
        if not is_locked:
            return catalogue
        if catalogue._misses_runs():
            catalogue.close()
            return rebuild(output, is_locked)
        catalogue._mark_killed()
        return catalogue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; SQLite merges its journal and removes it."""
        self._engine.dispose()

    # Reading

    def scans(self) -> list[KnownScan]:
        """All scans, by stem."""
        rows = self._rows(select(tables.scans).order_by(tables.scans.c.stem, tables.scans.c.path, tables.scans.c.page))
        return [KnownScan(**row) for row in rows]

    def scans_not_done(self) -> list[KnownScan]:
        """The scans that failed, or were stopped, in the last run that took them."""
        return [KnownScan(**row) for row in self._rows(select(tables.scans).where(tables.scans.c.state != "done"))]

    def versions(self, stem: str | None = None) -> list[KnownVersion]:
        """The versions of one scan, or of all; by stem, the current version first."""
        query = select(tables.versions).order_by(
            tables.versions.c.stem, tables.versions.c.is_current.desc(), tables.versions.c.finished.desc()
        )
        rows = self._rows(query if stem is None else query.where(tables.versions.c.stem == stem))
        return [_version(row) for row in rows]

    def runs(self) -> list[KnownRun]:
        """All runs, the oldest first."""
        return [KnownRun(**row) for row in self._rows(select(tables.runs).order_by(tables.runs.c.id))]

    def failures(self, run: str | None = None) -> list[KnownFailure]:
        """The failures of one run, or of all runs."""
        table = tables.failures
        query = select(table).order_by(table.c.run, table.c.stem, table.c.path, table.c.page)
        return [KnownFailure(**row) for row in self._rows(query if run is None else query.where(table.c.run == run))]

    def decisions(self, stem: str | None = None) -> list[Decision]:
        """What people decided about one scan, or about all, as it was when the rows were last brought up to date."""
        table = tables.decisions
        query = select(table).order_by(table.c.stem, table.c.when, table.c.id)
        rows = self._rows(query if stem is None else query.where(table.c.stem == stem))
        return [Decision(scan=row.pop("stem"), lifts=tuple(row.pop("lifts")), **row) for row in rows]

    def known(self, path: Path, page: int = 1) -> KnownScan | None:
        """The scan of this page of a file; if it has several results, the one last worked on."""
        table = tables.scans
        rows = self._rows(
            select(table).where(table.c.path == str(path), table.c.page == page).order_by(table.c.run.desc())
        )
        return KnownScan(**rows[0]) if rows else None

    def look(self, path: Path) -> StatFingerprint | None:
        """The current state of a file, kept for the record of its scan; None if the file cannot be read."""
        try:
            state = StatFingerprint.of(path)
        except OSError:
            return None
        self._looked[str(path)] = state
        return state

    def sha256_of(self, path: Path) -> str | None:
        """The recorded hash of a file, if its size, modification and change times and inode still match; else None."""
        found = self.file(path)
        return found.sha256 if found else None

    def file(self, path: Path) -> KnownFile | None:
        """The record of a file, if the file has not changed since; else None."""
        state = self.look(path)
        if state is None:
            return None
        rows = self._rows(select(tables.files).where(tables.files.c.path == str(path)))
        found = [_file(row) for row in rows]
        return found[0] if found and found[0].state == state else None

    def files(self) -> dict[str, KnownFile]:
        """The records of all files, by path, whether or not the files have changed since."""
        columns = tables.files.c
        wanted = (columns.path, columns.bytes, columns.modified_ns, columns.changed_ns, columns.inode)
        with self._engine.connect() as connection:
            rows = connection.execute(select(*wanted, columns.sha256, columns.pages)).tuples()
            return {path: KnownFile(StatFingerprint(*state), sha256, pages) for path, *state, sha256, pages in rows}

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # Writing

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing, self._engine.begin() as connection:
            yield connection

    def remember(self, path: Path, file: KnownFile) -> None:
        """Keep the hash of a file that stayed in the recorded state while it was read."""
        values = {"path": str(path), **asdict(file.state), "sha256": file.sha256, "pages": file.pages}
        with self._transaction() as connection:
            _replace(connection, tables.files, values)

    def begin_run(self, id: str, kind: str, started: str, engine: str, model: str) -> None:
        """Record the start of a run: ``id`` is the name of its record, ``kind`` colorize or reprocess."""
        with self._transaction() as connection:
            _replace(connection, tables.runs, vars(KnownRun(id, kind, started, "", engine, model, RUNNING)))

    def add_run(self, run: KnownRun) -> None:
        """Record a run that has ended and changed no scan."""
        with self._transaction() as connection:
            _replace(connection, tables.runs, vars(run))

    def record(self, run_id: str, outcome: ScanOutcome, sidecar: Sidecar | None = None) -> None:
        """Record an outcome in one transaction; if no sidecar is given, the scan's current one is read."""
        self.record_all(run_id, [(outcome, sidecar)])

    def record_all(
        self, run_id: str, outcomes: Iterable[tuple[ScanOutcome | Mapping[str, Any], Sidecar | None]]
    ) -> None:
        """Record several outcomes (or their JSON), each with its sidecar, in one transaction."""
        with self._transaction() as connection:
            rows = connection.execute(select(tables.runs).where(tables.runs.c.id == run_id)).mappings()
            run = KnownRun(**rows.one())
            for outcome, sidecar in outcomes:
                told = outcome if isinstance(outcome, Mapping) else outcome.to_json()
                run = run.counting(told)
                self._record(connection, run_id, told, sidecar)
            _replace(connection, tables.runs, vars(run))

    def _record(self, connection: Connection, run_id: str, told: Mapping[str, Any], sidecar: Sidecar | None) -> None:
        stem, path, page = key = key_of(told)
        before = _scan(connection, key)
        after = scan_after(before, told, run_id)
        if after is None or after == before:
            return
        if (state := self._looked.get(path)) and not told.get("file_modified_ns"):
            after = replace(after, bytes=state.bytes, modified_ns=state.modified_ns)
        if after.state == "done":
            sidecar = sidecar or Sidecar.find(ResultPaths.of(self.output, stem).sidecar)
            after = with_source(after, sidecar.whole_source) if sidecar and sidecar.whole_source else after
            self._update_versions(connection, stem)
            # Rows of earlier runs, such as failures or results under another path, are out of date.
            table = tables.scans
            connection.execute(delete(table).where(table.c.stem == stem, table.c.run != run_id))
        if told["status"] in ("failed", "quarantined"):
            row = KnownFailure(run_id, stem, path, page, after.message)
            _replace(connection, tables.failures, vars(row))
        if told["status"] in ("failed", "quarantined") and told.get("is_scans_fault", True):
            # In case the recorded hash was wrong, the next attempt reads the file again.
            connection.execute(delete(tables.files).where(tables.files.c.path == path))
        _replace(connection, tables.scans, vars(after))

    def _update_versions(self, connection: Connection, stem: str) -> None:
        """Replace the rows of a scan's versions by those that exist now: one is new, and others may be gone."""
        paths, table = ResultPaths.of(self.output, stem), tables.versions
        names = connection.execute(select(table.c.version).where(table.c.stem == stem)).scalars().all()
        connection.execute(delete(table).where(table.c.stem == stem))
        for path in (*(paths.of_version(name).sidecar for name in names), paths.sidecar):
            sidecar = Sidecar.find(path)
            version = version_of_sidecar(self.output, path, sidecar) if sidecar else None
            if version is not None:
                _replace(connection, table, _version_row(version))

    def look_again(self, stem: str) -> None:
        """At the versions of a scan, one of which took another's place. The folder is locked."""
        with self._transaction() as connection:
            self._update_versions(connection, stem)

    @classmethod
    def keep_decisions(cls, output: Path, decisions: Mapping[str, Sequence[Decision]]) -> None:
        """Bring the rows of decisions up to date with the files, if there is a catalogue that can be written."""
        path = output / FILE
        with contextlib.suppress(ColorizeError, DatabaseError, OSError):
            if not is_sound(path) or not os.access(path, os.W_OK):
                return
            with cls(output, engine_for(path)) as catalogue, catalogue._transaction() as connection:
                connection.execute(delete(tables.decisions))
                if rows := _decision_rows(each for said in decisions.values() for each in said):
                    connection.execute(insert(tables.decisions), rows)

    def end_run(self, id: str, finished: str, state: str) -> None:
        """Record the end of a run, with the name of its final state."""
        with self._transaction() as connection:
            connection.execute(update(tables.runs).where(tables.runs.c.id == id).values(finished=finished, state=state))

    def release(self, stems: Iterable[str]) -> None:
        """Let the next run retry failed scans, their count of failures reset. The caller holds the folder's lock."""
        chosen = sorted(set(stems))
        write_decision(self.output, RELEASED, chosen)
        with self._transaction() as connection:
            for stem in chosen:
                query = select(tables.scans).where(tables.scans.c.stem == stem)
                for row in connection.execute(query).mappings().all():
                    _replace(connection, tables.scans, vars(released(KnownScan(**row))))

    def forget_gone(self, passing: Path | None = None) -> None:
        """Delete failed scans whose file is gone and that have no result: nobody needs to look at them.

        Those in the folder ``passing`` stay: files are there only while a run works on them.
        """
        gone = [s for s in self.scans_not_done() if is_gone(s) and not _has_result(self.output, s)]
        if passing is not None:
            gone = [scan for scan in gone if not Path(scan.path).is_relative_to(passing)]
        table = tables.scans
        with self._transaction() as connection:
            for scan in gone:
                wanted = (table.c.stem == scan.stem, table.c.path == scan.path, table.c.page == scan.page)
                connection.execute(delete(table).where(*wanted))

    def _misses_runs(self) -> bool:
        """True if there are records of runs whose end is missing in the catalogue."""
        ended = {run.id for run in self.runs() if run.finished}
        return any(path.stem not in ended and is_record(path) for path in self.output.glob("runs/*.json"))

    def _mark_killed(self) -> None:
        with self._transaction() as connection:
            connection.execute(update(tables.runs).where(tables.runs.c.state == RUNNING).values(state=KILLED))

    def _fill(self, results: Results, runs: list[KnownRun], files: list[dict[str, Any]]) -> None:
        """Insert all rows into an empty catalogue."""
        rows: dict[Table, list[dict[str, Any]]] = {
            tables.scans: [vars(scan) for scan in results.scans],
            tables.versions: [_version_row(version) for version in results.versions],
            tables.runs: [vars(run) for run in (*results.runs, *runs)],
            tables.failures: [vars(failure) for failure in results.failures],
            tables.decisions: _decision_rows(results.decisions),
            tables.files: files,
        }
        with self._transaction() as connection:
            for table, values in rows.items():
                if values:
                    connection.execute(insert(table), values)


def rebuild(output: Path, is_locked: bool = False) -> Catalogue:
    """Make the catalogue from sidecars and ``runs/*.json`` alone; a damaged catalogue is moved aside.

    File hashes and killed runs are taken over from a sound catalogue; failures that only killed runs knew of are lost.
    ``is_locked`` as in :meth:`Catalogue.open`.

    Raises
    ------
    UsageError : a run is working on the folder. OutputError : the catalogue cannot be written.
    """
    path = output / FILE
    if not output.is_dir():
        raise UsageError(f"{output}: no such folder; give the --output folder of an earlier run")
    part = path.with_name(f"{FILE}.{uuid.uuid4().hex}.part")
    with contextlib.nullcontext() if is_locked else folder_lock(output), writing(path):
        results = results_of(output)
        runs, files = _to_keep(path, {run.id for run in results.runs}) if is_sound(path) else ([], [])
        try:
            with Catalogue(output, engine_for(part, is_new=True)) as made:
                made._fill(results, runs, files)
            if path.exists() and not is_sound(path):
                _move(path, output / DAMAGED)
            for journal in _journals(path):
                remove(journal)
            os.replace(part, path)
        finally:
            remove(part)
    return Catalogue(output, engine_for(path))


def _to_keep(path: Path, recorded: set[str]) -> tuple[list[KnownRun], list[dict[str, Any]]]:
    """The rows that no result contains: killed runs, and hashes of files."""
    with Catalogue(path.parent, engine_for(path)) as old:
        gone = [run for run in old.runs() if run.id not in recorded]
        killed = [replace(run, state=KILLED) if run.state == RUNNING else run for run in gone]
        return killed, old._rows(select(tables.files))


def _journals(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]


def _move(path: Path, aside: Path) -> None:
    """Rename a database with its journals, replacing one moved there before."""
    for old, new in zip((path, *_journals(path)), (aside, *_journals(aside)), strict=True):
        remove(new)
        if old.exists():
            os.replace(old, new)


def _has_result(output: Path, scan: KnownScan) -> bool:
    return ResultPaths.of(output, scan.stem).sidecar.exists()


def _file(row: Mapping[str, Any]) -> KnownFile:
    state = StatFingerprint(row["bytes"], row["modified_ns"], row["changed_ns"], row["inode"])
    return KnownFile(state, row["sha256"], row["pages"])


def _scan(connection: Connection, key: tuple[str, str, int]) -> KnownScan | None:
    table = tables.scans
    where = (table.c.stem == key[0], table.c.path == key[1], table.c.page == key[2])
    row = connection.execute(select(table).where(*where)).mappings().one_or_none()
    return None if row is None else KnownScan(**row)


def _decision_rows(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """Rows of the decisions that can be read."""
    told = [{**vars(each), "lifts": list(each.lifts)} for each in decisions if each.decision != UNREADABLE]
    return [{"stem": values.pop("scan"), **values} for values in told]


def _version_row(version: KnownVersion) -> dict[str, Any]:
    return {**vars(version), "warnings": list(version.warnings)}


def _version(row: Mapping[str, Any]) -> KnownVersion:
    return KnownVersion(**{**row, "warnings": tuple(row["warnings"])})


def _replace(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    connection.execute(insert(table).prefix_with("OR REPLACE"), dict(values))
