"""Recorder: keeps the running sums of all watched tensors and decides what of them is written, and when."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Accumulators
from .drift import Products, Stretches
from .efficiency import measure
from .flight import FlightRecorder
from .imagined import Alternatives, Imagined
from .log import MemoryLog, Row, open_log
from .one_step import STALE
from .parts import PART, common_steps, parts_below
from .schedule import PROVED, Schedule
from .signals import Signals
from .store import META, build_trace, load, write_meta
from .trace import COLUMNS, ERRORS, SUMS, Scalars, Trace, measured
from .watcher import Watcher
from .writer import Writer

Array = NDArray[np.float64]
logger = logging.getLogger("stepscope")

RECORD_BYTES = 24_000_000
"""What the evenly spread records may take on disk; the number of tensors decides how many records that is."""
MOST_RECORDS = 2048
MOST_DUMPS = 10
"""Flight recorder dumps of one run: the first are the ones that show how it began."""
COMMIT_SECONDS = 1.0
"""A killed process loses at most the records of this long, or of one record interval."""
PRODUCTS_SHARE = 1 / 500
"""Of all time, what the products of the harm test may take: a killed process may lose some more of those."""
RMS2 = SUMS.index("rms2")
UNSCALED = np.array([name in ("rms2", "steps") for name in SUMS])
"""Means and counts of the tensor as a whole, which a sample estimates without scaling up."""


class Recorder:
    """The sums of one run, per tensor, and the log they are written to.

    `accumulators` holds the running sums and the newest step's, which the watchers fill in; `step` is the number of
    steps recorded.
    """

    def __init__(
        self,
        directory: Path | None,
        meta: dict[str, Any],
        watchers: list[Watcher],
        rules: Sequence[Imagined] = (),
    ) -> None:
        self.directory = directory
        self.watchers: list[Watcher] = []
        self.step, self.segment, self.harm_from = 0, 0, 0
        self.stretches = Stretches(0)
        self.accumulators = Accumulators()
        self.alternatives = Alternatives(rules)
        self.signals = Signals()
        self.base_error = np.zeros((0, len(ERRORS)))
        self.base_what_if: Array = np.zeros_like(self.alternatives.sums)
        """Sums of the alternatives in an earlier process."""
        self.scalars: dict[str, list[float]] = {}
        self._came: dict[str, int] = {}
        """The step after which each scalar came last: a record has those of the instruments only where they are new."""
        self._pending: list[tuple[str, torch.Tensor]] = []
        self._recorded, self._committed = -1, time.monotonic()
        self._products_due = -math.inf
        self._dumps, self.closed = 0, False
        self._products: tuple[tuple[int, ...], tuple[Products, Array] | None] = (), None
        """The products of the harm test, and of what."""
        self.groups: Mapping[str, list[float]] = {}
        """The newest schedules of the parameter groups."""
        past = self._past(directory, meta, watchers)
        self.meta = past.meta if past else meta
        self._lock = claim(directory) if directory else None
        self.log: Writer | MemoryLog = MemoryLog()
        try:
            if directory:
                self.log = Writer(open_log(directory), self._unlock)
                if past is None:
                    write_meta(directory, meta)
            self.add(watchers)
            if past is not None:
                self._continue(past)
        except BaseException:
            with suppress(Exception):
                self.log.close()
            self._unlock()
            raise

    def add(self, watchers: list[Watcher]) -> None:
        """Make room for more tensors."""
        self.stretches.extend(sum(w.coordinates.lead for w in watchers))
        self.alternatives.extend([(w.coordinates.members, w.coordinates.member_scale) for w in watchers])
        self.watchers = [*self.watchers, *watchers]
        more = len(watchers)
        self.base_error = np.pad(self.base_error, ((0, more), (0, 0)))
        for watcher, row in zip(
            self.watchers,
            self.accumulators.extend([w.coordinates for w in watchers], [w.rooted for w in watchers]),
            strict=True,
        ):
            watcher.accumulator = row
        row_bytes = 8 * len(COLUMNS) * max(1, len(self.watchers))
        self.schedule = Schedule(min(MOST_RECORDS, max(256, RECORD_BYTES // row_bytes)))
        self.schedule.widen(self.step)
        self.flight = FlightRecorder(len(self.watchers))
        self.signals.extend(more)
        self.accumulators.tie(self.stretches, self.alternatives, self.signals, self.flight)
        self.write_layout()

    # --- as the run goes on ----------------------------------------------------------------------------------

    def due(self) -> bool:
        """Return whether the newest step is one to record."""
        return self.schedule.keeps(self.step)

    def advance(self) -> int:
        """Take the newest step in; return what is noteworthy, in bits of `one_step`. A `STALE` step is not taken in."""
        step = self.step + 1
        found = self.accumulators.add(step)
        if found != STALE:
            self.step = step
            self.stretches.advance()
            self.alternatives.stretches.advance()
        return found

    def pass_over(self) -> None:
        """Count a step that is not looked at."""
        self.step += 1

    def note(self, kind: str, message: str, tensor: str | None = None) -> None:
        """Write an event down; the next commit makes it last."""
        self._append("event", {"kind": kind, "message": message, "tensor": tensor})

    def add_scalar(self, name: str, value: float | torch.Tensor) -> None:
        """Take a logged number in; one that lies on an accelerator waits there until the next record."""
        if isinstance(value, torch.Tensor):
            self._pending.append((name, value))
            return
        entry = self.scalars.setdefault(name, [math.nan, 0.0, 0.0])
        self._recorded = -1  # what was recorded of this step lacks the number
        self._came[name] = self.step
        entry[0] = value
        if math.isfinite(value):
            entry[1] += value
            entry[2] += 1.0

    def record(self, groups: Mapping[str, list[float]]) -> None:
        """Write the sums as they stand, thinning older records when they have become too many.

        What went wrong in writing earlier ones is raised here.
        """
        self.log.check()
        self.groups = groups
        self._write_record()
        if self.schedule.widen(self.step):
            self.log.thin(copy(self.schedule).keeps)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def _write_record(self) -> None:
        self.log.append(self._record_row(self.groups))
        if self.step in PROVED:
            self._measure_efficiency()
        self._recorded = self.step

    def _measure_efficiency(self) -> None:
        for row in self._drift_rows():
            assert row.numbers is not None
            grams = row.numbers[:3]
            facts = {"products": grams.sum(axis=1).tolist()} if PART in self.meta else {}
            self._append("efficiency", facts, measure(*grams))

    def _record_row(self, groups: Mapping[str, list[float]]) -> Row:
        for name, value in self._pending:
            self.add_scalar(name, float(value))
        self._pending.clear()
        new = {name for name, step in self._came.items() if step == self.step}
        told = {name: list(entry) for name, entry in self.scalars.items() if name in new or not measured(name)}
        facts = {"groups": dict(groups), "scalars": told}
        if self.alternatives.rules:
            facts["what_if"] = (self.base_what_if + self.alternatives.sums).tolist()
        return Row("record", self.segment, self.step, facts, self._rows())

    def _rows(self) -> Array:
        """Return one row per tensor, in the order of `COLUMNS`, scaled up to the whole tensor."""
        scales = np.array([w.coordinates.scale for w in self.watchers]).reshape(-1, 1)
        sums = self.accumulators.sums * np.where(UNSCALED, 1.0, scales)
        sums[[not w.gauges for w in self.watchers], RMS2] = math.nan
        rms_max = np.sqrt(self.accumulators.rms2_max)
        own = [w.instants(self.step, most) for w, most in zip(self.watchers, rms_max, strict=True)]
        rows = np.hstack([sums, np.reshape(own, (len(self.watchers), len(COLUMNS) - len(SUMS)))])
        rows[:, len(SUMS) : len(SUMS) + len(ERRORS)] += self.base_error
        return rows

    def finish(self, message: str, crashed: bool, wait: bool = True) -> None:
        """Write the newest step, whether or not it is due, and close the log; `wait` until all is on disk."""
        if self.closed:
            return
        self.closed = True
        try:
            self.note("closed", message)
            if self._recorded != self.step and self.step > 0:
                self._write_record()
            self._products_due = -math.inf
            self.commit()
            if crashed:
                self.save_flight()
        finally:
            if wait:
                self.log.close()
            else:
                self.log.end()

    def join(self) -> None:
        """Wait, within limits, for a finished record to be on disk."""
        self.log.join()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            release(lock)

    def commit(self) -> None:
        """Have everything put on disk, and now and then the products of the harm test with it; wait for neither."""
        begin = time.monotonic()
        if begin >= self._products_due:
            for row in [*self._drift_rows(), *self._what_if_rows()]:
                self.log.append(row)
            self._products_due = time.monotonic() + (time.monotonic() - begin) / PRODUCTS_SHARE
        self.log.commit()
        self._committed = time.monotonic()

    def products(self) -> tuple[Products, Array] | None:
        """Return the products of the harm test, see `Stretches.gram` and `third`; made when a stretch has closed."""
        key = len(self.watchers), self.segment, self.stretches.full, self.stretches.length
        if self._products[0] != key:
            sizes = [(w.coordinates.lead, w.coordinates.lead_scale) for w in self.watchers]
            gram, third = self.stretches.gram(sizes), self.stretches.third(sizes)
            self._products = key, None if gram is None or third is None else (gram, third)
        return self._products[1]

    def window(self, first: int, last: int) -> tuple[int, int]:
        """Return which steps a window has, given in those that were looked at, as if they were spread evenly."""
        looked = self.stretches.full * self.stretches.length + self.stretches.taken
        each = (self.step - self.harm_from) / looked
        return self.harm_from + round(first * each), self.harm_from + round(last * each)

    def _drift_rows(self) -> list[Row]:
        found = self.products()
        if found is None:
            return []
        ((first, last), *products), third = found
        first, last = self.window(first, last)
        window = {"first_step": first, "last_step": last}
        return [Row("drift", self.segment, self.step, window, np.stack([*products, third]))]

    def _what_if_rows(self) -> list[Row]:
        found = self.alternatives.grams()
        if found is None:
            return []
        (first, last), products = found
        first, last = self.window(first, last)
        window = {"first_step": first, "last_step": last}
        return [Row("what_if", self.segment, self.step, window, products)]

    def save_flight(self) -> None:
        """Dump the flight recorder, the first times; without a directory it stays in memory as `flight`."""
        self._dumps += 1
        if isinstance(self.log, Writer) and self.directory and self._dumps <= MOST_DUMPS:
            names = [w.name for w in self.watchers]
            self.log.run(self.flight.saving(self.directory / "snapshots" / f"flight-{self.step}.npz", names))

    def write_layout(self) -> None:
        """Write what is known of each tensor; newer layouts replace older ones."""
        self._append("tensors", {"tensors": [vars(w.info()) for w in self.watchers]})

    def unread(self, row: int) -> None:
        """Blank the sums of a tensor whose stepsize turned out not to be readable."""
        stepsizes = [i for i, name in enumerate(SUMS) if name not in ("g2", "nonfinite", "steps")]
        self.accumulators.sums[row, stepsizes] = math.nan

    def trace(self, groups: Mapping[str, list[float]]) -> Trace:
        """Return what the log holds, and the newest step with it; nothing is written."""
        newest = [] if self.step in (0, self._recorded) else [self._record_row(groups)]
        return build_trace(self.meta, [*self.log.rows(), *newest, *self._drift_rows(), *self._what_if_rows()])

    def _append(self, kind: str, facts: dict[str, Any], numbers: Array | None = None) -> None:
        self.log.append(Row(kind, self.segment, self.step, facts, numbers))

    # --- continuing ------------------------------------------------------------------------------------------

    @staticmethod
    def _past(directory: Path | None, meta: dict[str, Any], watchers: list[Watcher]) -> Trace | None:
        """Return the run that `directory` already holds, if it is this one."""
        if directory is None or not (directory / "meta.json").exists():
            return None
        past = load(directory)
        here, there = ([(t.name, t.shape) for t in ts] for ts in ([w.info() for w in watchers], past.tensors))
        for key in ("seed", "coordinates"):
            if past.meta.get(key) != meta[key]:
                raise ValueError(
                    f"{directory} was recorded with {key}={past.meta.get(key)!r}, got {meta[key]!r}: other coordinates "
                    f"would be watched; pass {key}={past.meta.get(key)!r} to continue, or choose another directory."
                )
        if past.meta.get("what_if", []) != meta["what_if"]:
            rules = tuple(past.meta.get("what_if", [])[1:])
            raise ValueError(
                f"{directory} was recorded with what_if={rules}, got {tuple(meta['what_if'][1:])}; pass the former to "
                "continue, or choose another directory."
            )
        if past.meta.get("optimizer") != meta["optimizer"]:
            raise ValueError(
                f"{directory} holds the record of another run ({past.meta.get('optimizer')}), expected one of "
                f"{meta['optimizer']}; choose another directory."
            )
        parts = [run.get(PART, {"rank": 0, "of": 1}) for run in (past.meta, meta)]
        then, now = (f"rank {part['rank']} of {part['of']}" for part in parts)
        if then != now:
            raise ValueError(
                f"{directory} was recorded by {then}, got {now}: it holds other pieces of the tensors; continue with "
                "as many processes, or choose another directory."
            )
        if there and here != there:
            raise ValueError(
                f"{directory} holds the record of other tensors: {difference(there, here)}; choose another directory, "
                "or watch the tensors that it was begun with."
            )
        return past if PART not in meta else shortened(past, directory)

    def _continue(self, past: Trace) -> None:
        """Go on with the sums of a run recorded earlier; its standard errors are added to the coming ones."""
        self.segment = max((row.segment for row in self.log.rows()), default=0)
        if len(past.steps):
            self.step = self.harm_from = int(past.steps[-1])
            newest = past.values[-1]
            scale = np.array([w.coordinates.scale for w in self.watchers])[:, None]
            self.accumulators.sums[:] = newest[:, : len(SUMS)] / np.where(UNSCALED, 1.0, scale)
            self.base_error[:] = newest[:, len(SUMS) : len(SUMS) + len(ERRORS)]
            if past.what_if is not None:
                self.base_what_if = past.what_if.sums[-1]
            self.accumulators.rms2_max[:] = np.nan_to_num(newest[:, COLUMNS.index("rms_max")]) ** 2
            self.scalars = {n: [float(x[-1]) for x in (s.last, s.total, s.count)] for n, s in past.scalars.items()}
            for row, info in enumerate(past.tensors):
                if info.formula is None:
                    self.watchers[row].reader = None
                    self.unread(row)
        self.schedule.widen(self.step)
        self.begin_segment(f"the run was reopened after step {self.step}; the harm test starts anew from here")

    def begin_segment(self, message: str) -> None:
        """Mark that what follows continues from `step`; later records of earlier segments are superseded."""
        self.segment += 1
        self._products_due = -math.inf
        self._recorded = self.step  # the segment before has it
        self._pending.clear()
        self._came.clear()
        self._append("segment", {"from": self.step + 1})
        self.write_layout()
        self.note("resumed", message)
        self.log.commit()

    def state(self) -> dict[str, Any]:
        """Return everything needed to continue exactly: numbers, and arrays as tensors."""
        arrays: dict[str, NDArray[Any]] = {
            "sums": self.accumulators.sums,
            "rms2_max": self.accumulators.rms2_max,
            "base_error": self.base_error,
        }
        arrays |= {f"stretches/{key}": value for key, value in self.stretches.state().items()}
        arrays |= {f"what_if/{key}": value for key, value in self.alternatives.arrays().items()}
        arrays["base_what_if"] = self.base_what_if
        for w in self.watchers:
            arrays |= {f"{w.name}/root": w.accumulator.root, f"{w.name}/each": w.accumulator.each}
        return {
            "step": self.step,
            "harm_from": self.harm_from,
            "scalars": {name: list(entry) for name, entry in self.scalars.items()},
            "then": {w.name: w.accumulator.then.tolist() for w in self.watchers},
            "counted": {w.name: w.counted for w in self.watchers},
            "arrays": {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of a recorder of the same tensors, coordinates and seed."""
        arrays = {key: value.numpy() for key, value in state["arrays"].items()}
        mine = self.state()["arrays"]
        if {key: tuple(x.shape) for key, x in mine.items()} != {key: x.shape for key, x in arrays.items()}:
            raise ValueError(
                "`state` must come from a monitor of the same tensors and `coordinates`, got one with others; "
                "resume with the same model, or start without the monitor's state."
            )
        self.step, self.harm_from = int(state["step"]), int(state["harm_from"])
        self.scalars = {name: list(entry) for name, entry in state["scalars"].items()}
        self.accumulators.sums[:], self.accumulators.rms2_max[:] = arrays["sums"], arrays["rms2_max"]
        self.base_error[:] = arrays["base_error"]
        self.stretches.restore(under("stretches/", arrays))
        self.alternatives.restore(under("what_if/", arrays))
        self.base_what_if = arrays["base_what_if"]
        for w in self.watchers:
            w.accumulator.root[:], w.accumulator.each[:] = arrays[f"{w.name}/root"], arrays[f"{w.name}/each"]
            w.accumulator.then[:], w.counted = state["then"][w.name], state["counted"][w.name]
        self.schedule.widen(self.step)
        self.begin_segment(f"continued from a saved state of step {self.step}")


def open_recorder(
    directory: Path | None, meta: dict[str, Any], watchers: list[Watcher], rules: Sequence[Imagined], strict: bool
) -> Recorder:
    """Return a recorder of a run in `directory`, or in memory if the disk refuses it; that is said, or raised."""
    try:
        return Recorder(directory, meta, watchers, rules)
    except (OSError, sqlite3.Error) as fault:
        if strict:
            raise
        text = f"{type(fault).__name__}: {fault}"
        logger.error("stepscope cannot write to '%s' and records this run in memory only: %s", directory, text)
        return Recorder(None, meta, watchers, rules)


def difference(there: Sequence[tuple[str, tuple[int, ...]]], here: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    """Return where two lists of names and shapes differ first."""
    if len(there) != len(here):
        return f"it has {len(there)}, expected {len(here)}"
    place, (then, now) = next((i, pair) for i, pair in enumerate(zip(there, here, strict=True)) if pair[0] != pair[1])
    if then[0] != now[0]:
        return f"the names differ, first of tensor {place}, which is {then[0]!r} there, expected {now[0]!r}"
    return f"the shapes differ, first that of {then[0]!r}, which is {then[1]} there, expected {now[1]}"


def shortened(past: Trace, directory: Path) -> Trace:
    """Return a part of a run up to the last step that all parts have: each may have lost a little more at its end."""
    steps = common_steps([load(part) for part in parts_below(directory.parent, META)])
    keep = np.isin(past.steps, steps)
    past.steps, past.values = past.steps[keep], past.values[keep]
    if past.what_if is not None:
        past.what_if = replace(past.what_if, sums=past.what_if.sums[keep])
    for name, scalar in past.scalars.items():
        known = np.isin(scalar.steps, steps)
        past.scalars[name] = Scalars(*(getattr(scalar, field)[known] for field in ("steps", "last", "total", "count")))
    past.scalars = {name: scalar for name, scalar in past.scalars.items() if len(scalar.steps)}
    return past


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose name begins with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def claim(directory: Path) -> int | None:
    """Lock the directory for this monitor until the returned descriptor is closed; None where locks do not work."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ValueError(
            f"{directory} is being recorded by another monitor, expected a directory of its own; give each optimizer "
            "another one, and close a monitor before its run is reopened."
        ) from error
    except OSError:  # some network file systems know no locks
        os.close(lock)
        return None
    return lock


def release(lock: int) -> None:
    """Give up what `claim` returned, also where a forked process, such as a data loader's, holds it open as well."""
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)
