"""Writer: a log that a thread of its own keeps on disk, so that nobody who hands it a row waits for a disk.

What is handed over waits in memory until it is written, about a second. If the disk hangs it waits on, and is thinned
there by the schedule of the record as it would be on disk: so however long that lasts, it takes no more memory than the
whole run would take on disk, and ten flight recordings (docs/cost.md). Nothing is ever dropped for want of room.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from weakref import WeakSet

from .log import REPLACED, Log, MemoryLog, Row, outgrown

__all__ = ["Writer"]

logger = logging.getLogger("stepscope")

NAME = "stepscope-writer"
PATIENCE = 30.0
"""Seconds that reading and closing wait for a disk, and after which a user is told that it does not answer."""
BEFORE_FORK = 0.1
"""Seconds that a fork waits for a write to end: the child would inherit SQLite's locks as they are in its midst."""

Keep = Callable[[int], bool]
Item = Row | Keep
"""A row to append, or by what to thin."""

WRITERS: WeakSet[Writer] = WeakSet()


class StillSilent(TimeoutError):
    """A disk that has not answered since the user was told so."""


class Writer:
    """A log, and the thread that writes it.

    Rows are handed over, not copied: they are not to be changed any more. What goes wrong in the thread is kept for
    `check`; what could not be written is tried again at the next commit, and a last time by `close`.

    Three rules keep it free of deadlocks, as the garbage collector may close any writer in any thread at any moment:
    `_hand` can be entered again and is never held while something is written; the thread is woken through a
    `SimpleQueue`, in which one may put while one puts; and a writer thread waits for no other.

    Args:
        log: what the rows are written to; from now on only the thread writes there.
        then: called in the thread when the log was closed.
    """

    def __init__(self, log: Log, then: Callable[[], None] = lambda: None) -> None:
        self._log, self._then = log, then
        self._items: list[Item] = []
        self._jobs: deque[Callable[[], None]] = deque()
        self._left: list[Row] | None = None
        self._fault: BaseException | None = None
        self._closing = self._asked = False
        self._writes = 0
        self._told: int | None = None
        """How many writes had ended as the user was told of a disk that hangs."""
        self._asked_at = self._deadline = 0.0
        self._tokens: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._hand, self._disk = threading.RLock(), threading.Lock()
        self._thread = self._started()
        WRITERS.add(self)

    # --- in the thread that trains -----------------------------------------------------------------------------

    def append(self, row: Row) -> None:
        """Take a row; it is written at the next commit."""
        with self._hand:
            if row.kind in REPLACED:
                self._items = [item for item in self._items if not (isinstance(item, Row) and item.kind == row.kind)]
            self._items.append(row)

    def thin(self, keep: Keep) -> None:
        """Drop the records of steps not kept, except the newest: of those that wait at once, of the others in time."""
        with self._hand:
            records = [
                (n, item.step) for n, item in enumerate(self._items) if isinstance(item, Row) and item.kind == "record"
            ]
            doomed = outgrown(records, keep)
            self._items = [item for n, item in enumerate(self._items) if n not in doomed]
            self._items.append(keep)

    def run(self, job: Callable[[], None]) -> None:
        """Take what else is to be written, after the rows of the next commit."""
        self._jobs.append(job)

    def commit(self) -> None:
        """Ask the thread to write what was handed over, and do not wait for it."""
        if not self._asked:
            self._asked, self._asked_at = True, time.monotonic()
            self._tokens.put(None)
        elif self._told is None and time.monotonic() - self._asked_at > PATIENCE:
            self._told = self._writes
            waits = "the record waits in memory, and is written when it does, if the process still runs"
            logger.warning("stepscope: %s; %s; the training goes on", silence(), waits)

    def check(self) -> None:
        """Raise what went wrong in the thread since this was last called."""
        fault, self._fault = self._fault, None
        if fault is None and not (self._closing or self._thread.is_alive()):
            raise RuntimeError("the thread that writes the record has died.")
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:  # such as SystemExit, which is not meant for this thread
            raise RuntimeError(f"writing the record ended by {type(fault).__name__}: {fault}") from fault

    def settle(self) -> bool:
        """Wait until what was handed over was written, or could not be; return False if the disk does not answer."""
        if self._closing:
            self.join()
            return not self._thread.is_alive()
        written = threading.Event()
        self._tokens.put(written)
        return written.wait(PATIENCE)

    def rows(self) -> list[Row]:
        """Return the rows in order, those that still wait included; this reads the disk, and waits for it.

        Raises:
            TimeoutError: if a write under way does not end.
        """
        if not self._disk.acquire(timeout=PATIENCE):
            raise TimeoutError(f"{silence()}; read the run when it does.")
        try:
            view = MemoryLog(self._log.rows() if self._left is None else self._left)
            for item in list(self._items):
                put(view, item)
            return view.rows()
        finally:
            self._disk.release()

    def close(self) -> None:
        """Write all that was handed over and let go of the file; a writer thread that comes here does not wait.

        Raises:
            TimeoutError: if the disk does not answer; it is written when it does, should the process live on.
            StillSilent: the same, where the user was told so before.
            OSError, sqlite3.Error, RuntimeError: if it cannot be written; then it stays readable in memory.
        """
        if self._closing:
            return
        self.end()
        if threading.current_thread().name == NAME:
            return
        self.join()
        if self._thread.is_alive():
            kind = StillSilent if self._told == self._writes else TimeoutError
            raise kind(f"{silence()}; what is left is written when it does, if the process still runs.")
        self.check()

    def end(self) -> None:
        """Have the thread write all that was handed over and let go of the file, and do not wait for it."""
        if self._closing:
            return
        self._closing, self._deadline = True, time.monotonic() + PATIENCE
        if not self._thread.is_alive():
            self._thread = self._started()
        self._tokens.put(None)

    def join(self) -> None:
        """Wait for a writer that was closed or ended, until its patience does."""
        if self._closing:
            self._thread.join(max(0.0, self._deadline - time.monotonic()))

    # --- in the thread that writes -----------------------------------------------------------------------------

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        with self._noting():
            while not self._closing:
                written = self._tokens.get()
                with self._disk:
                    self._write()
                if written is not None:
                    written.set()
            with self._disk:
                self._end()
            self._then()

    def _write(self) -> None:
        """Write what waits; what cannot be taken waits on, and holds up nothing else."""
        self._asked = False  # first: who asks from here on may have come too late for this write
        refused: list[Item] = []
        fresh: list[Item] = []
        with self._hand:
            items, self._items = self._items, fresh
        for item in items:
            refused.append(item)
            with self._noting():
                put(self._log, item)
                refused.pop()
        with self._hand:
            self._items[:0] = refused
        with self._noting():
            self._log.commit()
            while self._jobs:
                self._jobs[0]()
                self._jobs.popleft()
        self._writes += 1

    def _end(self) -> None:
        self._fault = None
        self._write()
        if self._fault is not None:
            with suppress(Exception):  # the file may be gone, and still be open
                self._left = list(self._log.rows())
        with self._noting():
            self._log.close()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BaseException as fault:
            self._fault = fault

    # --- around a fork -----------------------------------------------------------------------------------------

    def pause(self) -> bool:
        """Wait a moment for a write to end, and let none begin; return whether that came about."""
        return self._disk.acquire(timeout=BEFORE_FORK)

    def resume(self) -> None:
        """Let the thread write again."""
        self._disk.release()

    def let_go(self) -> None:
        """Be closed, in a forked process that has neither the thread nor a right to the file."""
        self._closing = True
        self._hand, self._disk = threading.RLock(), threading.Lock()


def put(log: Log, item: Item) -> None:
    """Append a row to a log, or thin it."""
    if isinstance(item, Row):
        log.append(item)
    else:
        log.thin(item)


def silence() -> str:
    """Return the beginning of what is said of a disk that hangs."""
    return f"the disk has not answered for {PATIENCE:g} seconds"


@atexit.register
def _join_all() -> None:
    """Wait for writers that were closed where nobody waited for them, before the process ends theirs."""
    for writer in list(WRITERS):
        writer.join()


class Paused(threading.local):
    """The writers that wait while this thread forks."""

    writers: Sequence[Writer] = ()


PAUSED = Paused()


def _pause_all() -> None:
    PAUSED.writers = [writer for writer in list(WRITERS) if writer.pause()]


def _resume_all() -> None:
    for writer in PAUSED.writers:
        writer.resume()
    PAUSED.writers = ()


def _let_go_all() -> None:
    PAUSED.writers = ()
    for writer in list(WRITERS):
        writer.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause_all, after_in_parent=_resume_all, after_in_child=_let_go_all)
