"""Instruments: what is measured of any run at its rare records, and recorded as scalars (docs/instruments.md).

An instrument is a function of the recorder that returns numbers by name. A new one is a file and a line in `AT_PROOFS`;
the first words of its names go into `MEASURED` of `trace.py`. Its price is paid at a record and in no other step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from .agreement import conformity
from .inertia import inertia
from .recorder import Recorder
from .schedule import PROVED
from .travel import Travel
from .underflow import underflow

logger = logging.getLogger("stepscope")

Instrument = Callable[[Recorder], Mapping[str, float]]

AT_PROOFS: tuple[Instrument, ...] = (conformity, inertia, underflow)
"""Those that are asked at the steps `PROVED`, two to a doubling of the run."""


class Instruments:
    """The instruments of one run; one that fails is told of once and asked no more, and the rest goes on.

    Args:
        strict: raise what an instrument raises.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict, self.travel = strict, Travel()
        self._failed: list[Instrument] = []

    def ask(self, recorder: Recorder) -> None:
        """Record what the instruments say of the newest step, which is one to be recorded."""
        if not recorder.watchers:  # this process holds no piece of any tensor
            return
        due = list(AT_PROOFS) if recorder.step in PROVED else []
        if recorder.step % recorder.schedule.interval == 0:
            due.append(self.travel)
        for instrument in due:
            if instrument not in self._failed:
                self._ask(instrument, recorder)

    def _ask(self, instrument: Instrument, recorder: Recorder) -> None:
        try:
            for name, value in instrument(recorder).items():
                recorder.add_scalar(name, value)
        except Exception as fault:
            if self.strict:
                raise
            self._failed.append(instrument)
            name = getattr(instrument, "__name__", type(instrument).__name__.lower())
            text = f"{name} is measured no more: {type(fault).__name__}: {fault}"
            logger.error("stepscope goes on after step %d, but %s", recorder.step, text)
            recorder.note("instrument", text)
