"""What an alert is, and how it stands in the record: as one line, from which it can be read again (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from .trace import Event, Trace

RECORDED = 5
"""Alerts of a run with which the flight recorder is written out, which keeps others for the end."""
RULES = (
    "nonfinite",
    "learning rate",
    "update surge",
    "stepsize growth",
    "drift reversal",
    "moment reset",
    "edge crossing",
)
"""What an alert may be called; docs/alerts.md says what each means."""
CAUSE, TO_TRY = ". Likely cause: ", ". To try: "


@dataclass(frozen=True)
class Alert:
    """What is about to go wrong: where, the numbers that say so, the likely cause, and what to try."""

    rule: str
    step: int
    tensor: str | None
    message: str
    cause: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.rule} at step {self.step}: {self._words()}"

    def line(self) -> str:
        """Return the message of the event that keeps this alert; step and tensor stand beside it there."""
        return f"{self.rule}: {self._words()}"

    def _words(self) -> str:
        return f"{self.message}{CAUSE}{self.cause}{TO_TRY}{self.suggestion}."

    @classmethod
    def read(cls, event: Event) -> Alert:
        """Return the alert that an event keeps; records of old have neither cause nor suggestion, which are empty."""
        rule, _, words = event.message.partition(": ")
        message, _, rest = words.partition(CAUSE)
        cause, _, suggestion = rest.partition(TO_TRY)
        return cls(rule, event.step, event.tensor, message, cause, suggestion.removesuffix("."))


def alerts_of(trace: Trace) -> list[Alert]:
    """Return the alerts that were given while a run went on, the first first."""
    return [Alert.read(event) for event in trace.events if event.kind == "alert"]
