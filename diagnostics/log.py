"""Log: the ordered rows that a run is made of, in memory, in SQLite, or in a file of JSON lines.

A committed row survives the death of the process, and a second process may read while the first writes.
"""

from __future__ import annotations

import copy
import errno
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from .reading import LINES, SQLITE, complete_lines, holds_log, read_columns, read_table, select, unreadable
from .rows import Columns, Row, from_columns, from_line, to_columns, to_line

__all__ = ["JsonLinesLog", "Log", "MemoryLog", "Row", "SqliteLog", "open_log"]

logger = logging.getLogger("stepscope")

REPLACED = ("tensors", "drift", "what_if")
"""Kinds of which only the newest row counts."""

SLACK = 16_000_000
"""Bytes of outdated rows that a file of lines may carry before it is rewritten."""

ROOM = 200_000
"""Bytes that a directory has to have room for; more than a new database takes."""

TABLE = """CREATE TABLE IF NOT EXISTS log
(id INTEGER PRIMARY KEY, kind TEXT, segment INTEGER, step INTEGER, facts TEXT, numbers BLOB, shape TEXT)"""


class Log(Protocol):
    """What a monitor writes to."""

    def append(self, row: Row) -> None:
        """Take a row; it is written at the next commit."""

    def rows(self) -> Iterable[Row]:
        """Return the rows in order, those not yet committed included; a closed log still answers."""

    def thin(self, keep: Callable[[int], bool]) -> None:
        """Drop the records of steps not kept, except the newest record; what was appended is committed."""

    def commit(self) -> None:
        """Write what was appended: all of it or, with an `OSError` or `sqlite3.Error`, nothing.

        An error as well if the file is no longer where it was: what is written there would be lost.
        """

    def close(self) -> None:
        """Commit and let go of the file; closing twice is harmless."""


class MemoryLog:
    """A log that lives as long as the process."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = list(rows)

    def append(self, row: Row) -> None:
        """Take a copy of the row."""
        if row.kind in REPLACED:
            self._rows = [old for old in self._rows if old.kind != row.kind]
        self._rows.append(copy.deepcopy(row))

    def rows(self) -> list[Row]:
        """Return the rows in order."""
        return list(self._rows)

    def thin(self, keep: Callable[[int], bool]) -> None:
        """Drop the records of steps not kept, except the newest record."""
        doomed = outgrown([(n, row.step) for n, row in enumerate(self._rows) if row.kind == "record"], keep)
        self._rows = [row for n, row in enumerate(self._rows) if n not in doomed]

    def commit(self) -> None:
        """Do nothing: memory is all there is."""

    def check(self) -> None:
        """Do nothing: nothing can go wrong."""

    def end(self) -> None:
        """Do nothing: nobody writes."""

    def join(self) -> None:
        """Do nothing: there is nobody to wait for."""

    def close(self) -> None:
        """Do nothing: memory is all there is."""


class SqliteLog:
    """A log in the table `log` of a SQLite database with a write-ahead log, which readers never block.

    Raises:
        ValueError: if the file is no database, or another program's.
        sqlite3.OperationalError: if no write-ahead log can be kept here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[Columns] = []
        self._closed = False
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            self._opened = path.stat()
        except BaseException:
            self._connection.close()
            raise

    def append(self, row: Row) -> None:
        """Take a row; no lock is held until the next commit."""
        self._pending.append(to_columns(row))

    def rows(self) -> list[Row]:
        """Return the rows in order, those not yet committed included."""
        there = self._closed or is_still(self._path, self._opened)
        written = read_columns(self._path) if there else read_table(self._connection)
        return [from_columns(columns) for columns in [*written, *self._pending]]

    def thin(self, keep: Callable[[int], bool]) -> None:
        """Drop the records of steps not kept, except the newest record; later rows fill the free pages."""
        with self._transaction() as connection:
            self._insert(connection)
            records = connection.execute("SELECT id, step FROM log WHERE kind = 'record' ORDER BY id")
            doomed = [(key,) for key in outgrown(records, keep)]
            connection.executemany("DELETE FROM log WHERE id = ?", doomed)
        self._pending.clear()

    def commit(self) -> None:
        """Write what was appended in one transaction."""
        if self._pending:
            with self._transaction() as connection:
                self._insert(connection)
            self._pending.clear()

    def close(self) -> None:
        """Commit, and fold the write-ahead log into the database."""
        try:
            self.commit()
        finally:
            self._closed = True
            self._connection.close()

    def _prepare(self) -> None:
        try:
            holds_log(self._connection)
            (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:
            raise
        except (ValueError, sqlite3.DatabaseError) as error:
            raise unreadable(self._path, error) from error
        if mode != "wal":
            raise sqlite3.OperationalError(f"SQLite keeps a {mode} journal here instead of a write-ahead log")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # Some builds of SQLite overwrite with zeros what is deleted, which costs a write per page.
        self._connection.execute("PRAGMA secure_delete = OFF")
        self._connection.execute("PRAGMA journal_size_limit = 16777216")
        self._connection.execute(TABLE)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        check_still(self._path, self._opened)
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            yield self._connection

    def _insert(self, connection: sqlite3.Connection) -> None:
        for columns in self._pending:
            if columns[0] in REPLACED:
                connection.execute("DELETE FROM log WHERE kind = ?", columns[:1])
            connection.execute(
                "INSERT INTO log (kind, segment, step, facts, numbers, shape) VALUES (?, ?, ?, ?, ?, ?)",
                columns,
            )


class JsonLinesLog:
    """A log in a file that is appended to, a JSON object per line: for file systems without shared memory.

    Raises:
        ValueError: if the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._newest: dict[str, int] = {}  # length of the newest row of each replaced kind
        self._stale = 0
        self._file = path.open("a+b", buffering=0)
        try:
            self._file.truncate(sum(self._weigh(json.loads(line)["kind"], line) for line in complete_lines(path)))
        except (ValueError, LookupError, TypeError) as error:
            self._file.close()
            raise unreadable(path, error) from error

    def append(self, row: Row) -> None:
        """Take a row; it is written at the next commit."""
        line = to_line(row)
        self._weigh(row.kind, line)
        self._pending.append(line)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order, those not yet committed included."""
        there = self._file.closed or is_still(self._path, os.fstat(self._file.fileno()))
        yield from map(from_line, complete_lines(self._path if there else self._file.fileno()))
        yield from map(from_line, self._pending)

    def thin(self, keep: Callable[[int], bool]) -> None:
        """Rewrite the file without outdated rows and the records not kept, except the newest record."""
        self.commit()
        lines = list(complete_lines(self._path))
        heads = [(head["kind"], head["step"]) for head in map(json.loads, lines)]
        doomed = outgrown([(n, step) for n, (kind, step) in enumerate(heads) if kind == "record"], keep)
        for replaced in REPLACED:
            doomed |= set([n for n, (kind, _) in enumerate(heads) if kind == replaced][:-1])
        replace_file(self._path, b"".join(line for n, line in enumerate(lines) if n not in doomed))
        fresh = self._path.open("ab", buffering=0)
        self._file.close()
        self._file, self._stale = fresh, 0

    def commit(self) -> None:
        """Write what was appended; if that fails midway, what did get written is taken back."""
        opened = os.fstat(self._file.fileno())
        check_still(self._path, opened)
        if not self._pending:
            return
        rest, end = memoryview(b"".join(self._pending)), opened.st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(end)
            raise
        self._pending.clear()
        if self._stale > SLACK:
            self.thin(lambda step: True)

    def close(self) -> None:
        """Commit and close the file."""
        try:
            self.commit()
        finally:
            self._file.close()

    def _weigh(self, kind: str, line: bytes) -> int:
        if kind in REPLACED:
            self._stale += self._newest.get(kind, 0)
            self._newest[kind] = len(line)
        return len(line)


def open_log(directory: Path) -> Log:
    """Open the log of a run for writing: the one that is there, else the best that works here."""
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / SQLITE).exists():
        return SqliteLog(directory / SQLITE)
    if (directory / LINES).exists():
        return JsonLinesLog(directory / LINES)
    try:
        probe(directory)
    except (OSError, sqlite3.Error) as error:
        check_room(directory)
        log = JsonLinesLog(directory / LINES)
        logger.warning(
            "SQLite's write-ahead log does not work in '%s' (%s); the run is written to %s instead.",
            directory,
            error,
            LINES,
        )
        return log
    return SqliteLog(directory / SQLITE)


def probe(directory: Path) -> None:
    """Write a scratch database and read it beside the writer: some file systems promise a WAL, then fail."""
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=directory, ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / SQLITE
        with closing(SqliteLog(path)) as log:
            log.append(Row("probe", 0, 0, {}))
            log.commit()
            if len(select(path)) != 1:
                raise sqlite3.OperationalError("a reader does not see what the writer committed")


def check_room(directory: Path) -> None:
    """Raise if nothing can be written here: not SQLite is to blame then."""
    with tempfile.TemporaryFile(dir=directory) as scratch:
        scratch.write(bytes(ROOM))
        scratch.flush()


def is_still(path: Path, opened: os.stat_result) -> bool:
    """Return whether a file that is open lies where it was opened."""
    try:
        return os.path.samestat(path.stat(), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_still(path: Path, opened: os.stat_result) -> None:
    """Raise if a file that is open was deleted or moved: one could write on, into nothing."""
    if not is_still(path, opened):
        raise FileNotFoundError(errno.ENOENT, "the record was deleted or moved while it was written", str(path))


def outgrown(records: Iterable[tuple[int, int]], keep: Callable[[int], bool]) -> set[int]:
    """Return the keys of those `(key, step)` whose step is not kept; the last one always is."""
    return {key for key, step in list(records)[:-1] if not keep(step)}


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, also when the machine stops."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
