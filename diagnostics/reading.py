"""How a log is read by any process at any time: every committed row, whatever its writer does meanwhile."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from .rows import Columns, Row, from_columns, from_line

SQLITE, LINES = "trace.sqlite", "trace.jsonl"

PATIENCE = 5.0
"""Seconds for which a reader tries again when the writer's locks or a half-made file stand in its way."""


def read_rows(file: Path) -> list[Row]:
    """Return the committed rows of a log; none if the file is not there yet."""
    if not file.exists():
        return []
    if file.name == SQLITE:
        return [from_columns(columns) for columns in read_columns(file)]
    return [from_line(line) for line in complete_lines(file)]


def read_columns(file: Path) -> list[Columns]:
    """Return the committed rows of a database as columns, whatever its writer does meanwhile.

    A closed database is read without locks, so that nothing appears beside it. While there is a write-ahead
    log it is shared with the writer; where that fails (a read-only directory, say) a copy of both is read.
    """
    wal = file.with_name(file.name + "-wal")
    deadline = time.monotonic() + PATIENCE
    while True:
        if not wal.exists():
            with suppress(sqlite3.DatabaseError):
                columns = select(file, "immutable=1")
                if not wal.exists():
                    return columns
        try:
            return select(file)
        except sqlite3.OperationalError as error:
            lasting = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
            if lasting or time.monotonic() > deadline:
                raise
        copied = read_copy(file, wal)
        if copied is not None:
            return copied
        time.sleep(0.02)


def read_copy(file: Path, wal: Path) -> list[Columns] | None:
    """Return the rows of a copy of the database, or None if it changed while it was copied."""
    with tempfile.TemporaryDirectory() as scratch, suppress(FileNotFoundError):
        before = stamps(file, wal)
        for source in (file, wal):
            if source in before:
                shutil.copyfile(source, Path(scratch) / source.name)
        if stamps(file, wal) == before:
            return select(Path(scratch) / file.name)
    return None


def stamps(*files: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of change of those files that are there."""
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()}


def select(path: Path, options: str = "mode=ro") -> list[Columns]:
    """Return the committed rows' columns as one snapshot; none if the table is not there yet."""
    uri = f"{path.absolute().as_uri()}?{options}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        return read_table(connection) if holds_log(connection) else []


def read_table(connection: sqlite3.Connection) -> list[Columns]:
    """Return the columns of all rows that a connection sees."""
    order = "SELECT kind, segment, step, facts, numbers, shape FROM log ORDER BY id"
    return connection.execute(order).fetchall()


def holds_log(connection: sqlite3.Connection) -> bool:
    """Return whether the table is there; a database with other tables only is a ValueError."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    tables = [str(name) for (name,) in names]
    if tables and "log" not in tables:
        raise ValueError(f"expected a table `log`, found {', '.join(tables)}")
    return bool(tables)


def unreadable(path: Path, error: Exception) -> ValueError:
    """Return the one sentence about a log that is damaged or not ours."""
    why = str(error) if isinstance(error, ValueError | sqlite3.Error) else f"a damaged row: {error!r}"
    return ValueError(
        f"'{path}' is not a log that this stepscope can read ({why}); "
        "restore it from a copy or choose another directory."
    )


def complete_lines(file: Path | int) -> Iterator[bytes]:
    """Yield the lines of a file, or of an open one by its descriptor, without a torn last one."""
    with open(file, "rb", closefd=not isinstance(file, int)) as lines:
        lines.seek(0)
        yield from (line for line in lines if line.endswith(b"\n"))
