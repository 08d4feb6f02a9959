"""The tables of the catalogue, and how its SQLite file is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import DatabaseError

from pipeline.errors import UsageError
from pipeline.support.files import open_file

# Incremented when the tables change: a catalogue of another layout is rebuilt from the results.
LAYOUT = 3
# In the file's header, to tell our databases from others: "clra" as a number.
APPLICATION_ID = 0x636C7261
_BUSY_SECONDS = 30
_NOT_ITS_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
}

metadata = MetaData()

scans = Table(
    "scans",
    metadata,
    Column("stem", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("page", Integer, primary_key=True),
    Column("bytes", Integer, nullable=False),
    Column("modified_ns", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("retry_after", String, nullable=False),
    Column("message", String, nullable=False),
    Column("run", String, nullable=False),
    Column("failure_kind", String, nullable=False),
    Index("scans_by_path", "path", "page"),
)

versions = Table(
    "versions",
    metadata,
    Column("stem", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("is_current", Boolean, nullable=False),
    Column("finished", String, nullable=False),
    Column("tile", String, nullable=False),
    Column("stride", String, nullable=False),
    Column("window", String, nullable=False),
    Column("model", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("precision", String, nullable=False),
    Column("seam", Float),
    Column("disagreement", Float),
    Column("doubt", Float),
    Column("seconds", Float, nullable=False),
    Column("pictures", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("started", String, nullable=False),
    Column("finished", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("model", String, nullable=False),
    Column("state", String, nullable=False),
    Column("done", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("stopped", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
)

failures = Table(
    "failures",
    metadata,
    Column("run", String, primary_key=True),
    Column("stem", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("page", Integer, primary_key=True),
    Column("message", String, nullable=False),
)

# What people decided, as in the files beside the results.
decisions = Table(
    "decisions",
    metadata,
    Column("stem", String, primary_key=True),
    Column("when", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("decision", String, nullable=False),
    Column("person", String, nullable=False),
    Column("version", String, nullable=False),
    Column("source_sha256", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("note", String, nullable=False),
    Column("lifts", JSON, nullable=False),
)

# Hashes of scan files, which save reading them again. They are not in the results, and are lost with this file.
files = Table(
    "files",
    metadata,
    Column("path", String, primary_key=True),
    Column("bytes", Integer, nullable=False),
    Column("modified_ns", Integer, nullable=False),
    Column("changed_ns", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("pages", Integer, nullable=False),
)


def engine_for(path: Path, is_new: bool = False) -> Engine:
    """An engine for the file; a new file gets its tables, and needs no write-ahead log until it has its final name.

    Users who may not write the file or its folder can still read it.
    """
    if not is_new and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return _reading(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: object) -> None:
        # A power cut may lose the last transactions, but not the file; the results still have their content.
        journal = "DELETE" if is_new else "WAL"
        connection.executescript(f"PRAGMA journal_mode={journal}; PRAGMA synchronous=NORMAL;")

    if is_new:
        with engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(text(f"PRAGMA user_version={LAYOUT}"))
            connection.execute(text(f"PRAGMA application_id={APPLICATION_ID}"))
    return engine


def _reading(path: Path) -> Engine:
    """A read-only engine. Without a journal the file is opened as immutable, because SQLite could not create one."""
    immutable = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    address = f"file:{quote(str(path))}?mode=ro{immutable}"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(address, timeout=_BUSY_SECONDS, uri=True))


def is_sound(path: Path) -> bool:
    """True if the file is a catalogue of this layout and passes SQLite's check of every page.

    Raises
    ------
    UsageError : the file cannot be checked, because it cannot be opened or somebody holds it.
    """
    if not path.is_file() or not _has_our_header(path):
        return False
    engine = engine_for(path)
    try:
        with engine.connect() as connection:
            is_whole = connection.execute(text("PRAGMA quick_check(1)")).scalar() == "ok"
            layout = connection.execute(text("PRAGMA user_version")).scalar()  # may be newer in the journal
            return is_whole and layout == LAYOUT and _has_tables(engine)
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _NOT_ITS_FAULT:
            raise UsageError(f"{path}: cannot be opened ({error.orig}); check its permissions, or try later") from error
        return False
    finally:
        engine.dispose()


def _has_our_header(path: Path) -> bool:
    # Checked before SQLite opens the file, which would change a foreign database. Offsets: sqlite.org/fileformat.
    with open_file(path) as stream:
        header = stream.read(100)
    numbers = [int.from_bytes(header[at : at + 4], "big") for at in (60, 68)]
    return header.startswith(b"SQLite format 3\x00") and numbers == [LAYOUT, APPLICATION_ID]


def _has_tables(engine: Engine) -> bool:
    found = inspect(engine)
    return all(
        found.has_table(table.name)
        and {column.name for column in table.columns} == {each["name"] for each in found.get_columns(table.name)}
        for table in metadata.sorted_tables
    )
