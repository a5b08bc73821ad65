"""Notes: what is written down when steps are not as usual; once for a run of such steps, and not in each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .alerts import Alerts
from .recorder import Recorder
from .trace import SUMS
from .watcher import Watcher

logger = logging.getLogger("stepscope")
NONFINITE = SUMS.index("nonfinite")


class Notes:
    """The events of one run, in its record and, where somebody should know at once, in the log."""

    def __init__(self, recorder: Recorder, alerts: Alerts) -> None:
        self._recorder, self._alerts = recorder, alerts
        self.skipping = self.sick = self.jumping = False
        """Whether the newest step was skipped, was not finite, or jumped."""

    @property
    def unusual(self) -> bool:
        """Whether the coming step may end what goes on."""
        return self.sick or self.jumping

    def continued(self, directory: Path | None, empty: bool) -> None:
        """Tell that a run of before is continued, by an optimizer whose state may be `empty`."""
        where = f"stepscope continues the run in {directory} after step {self._recorder.step}"
        logger.warning("%s; choose another directory for a new run", where)
        if empty:
            why = "the run goes on with an optimizer whose state is empty, or is a new one in an old directory"
            self._recorder.note("moment reset", why)
            self._recorder.log.commit()

    def unreadable(self, optimizer: str, why: str) -> None:
        """Tell that no stepsize of an optimizer is known."""
        message = (
            f"no elementwise stepsize is known for {optimizer}{why and f' ({why})'}; update size, "
            "update-to-weight ratio and alignment are recorded instead"
        )
        self._recorder.note("unreadable", message)
        logger.warning("stepscope: %s", message)
        self._recorder.log.commit()

    def given_up(self, tensors: dict[str, list[str]]) -> None:
        """Tell of tensors whose stepsize is not read any more, by the reason."""
        for trouble, names in tensors.items():
            for name in names:
                self._recorder.note("unreadable", trouble, name)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            logger.warning("stepscope reads no stepsize of %s%s: %s", names[0], more, trouble)

    def skip(self, refused: bool) -> None:
        """Tell that a call of `step` moved nothing; the optimizer `refused`, or there was no gradient."""
        if not self.skipping:
            why = (
                "the optimizer's own counter did not advance (a loss scaler met non-finite gradients, say)"
                if refused
                else "no watched parameter had a gradient"
            )
            self._recorder.note("skipped", f"a call of `step()` moved nothing: {why}")
        self.skipping = True

    def nonfinite(self, sick: bool) -> None:
        """Tell, after a step, of NaN and infinities in it, if it is `sick`."""
        recorder = self._recorder
        if sick and not self.sick:
            where = np.flatnonzero(recorder.accumulators.last[:, NONFINITE])
            first = recorder.watchers[where[0]].name
            recorder.note("nonfinite", f"NaN or infinite values in {len(where)} tensors, first {first}", first)
            recorder.save_flight()
            recorder.log.commit()
            self._alerts.nonfinite(where.tolist())
        self.sick = sick

    def jumps(self, watchers: Sequence[Watcher]) -> None:
        """Tell, once for all tensors that did so together, where the optimizer's counters did not go up by one."""
        jumped = [w for w in watchers if w.jump is not None]
        if jumped and not self.jumping:
            first = jumped[0]
            then, now = first.jump or 0.0, first.counted or 0.0
            kind = "moment reset" if now < then else "step jump"
            went = f"the optimizer's counter went from {then:g} to {now:g}"
            self._recorder.note(kind, f"{went} in {len(jumped)} tensors", first.name)
            self._recorder.log.commit()
            self._alerts.after_gap = True
        for w in jumped:
            w.jump = None
        self.jumping = bool(jumped)
