"""Alerts: what tells of a loss that is about to burst, weighed while the run goes on, and told of once.

`signals.py` suspects in every step; here a suspicion is weighed by what lies at hand only after a step, the gradient
and the momentum beside it. Each rule returns an alert, or nothing. docs/alerts.md says when, and how often by chance.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import signals
from .alert import RECORDED, Alert
from .drift import HarmDecision, judge_harm
from .one_step import SCANNED
from .recorder import Recorder
from .schedule import PROVED
from .signals import BLOCK, BLOCKS, LOOSER
from .store import groups_of
from .trace import SUMS

if TYPE_CHECKING:
    from .edge import Edge

__all__ = ["Alert", "Alerts", "Quiet"]

Array = NDArray[np.float64]
logger = logging.getLogger("stepscope")

MOST = 50
"""Alerts of one run; what comes later is counted."""
PAUSE, PAUSE_THERE = BLOCK, BLOCK * BLOCKS
"""Steps of quiet after the first alert of a rule, and of a rule at one tensor; they double with each further one."""
HEEDLESS = 0.05
"""Share of the weights that no step should move: with a memory of ten steps it is half of them."""
SLIGHT = 1e-4
"""Share of the weights below which a step does no harm, however large for its tensor: a thousand move a tenth."""
DOWNHILL = 0.5
"""Cosine of gradient and earlier momentum from which the steps went where they should: the loss falls ever faster."""
GROWN = 1.25
"""Times that a stepsize has grown while v decayed alone, since it was last judged."""
LOOKS = 5
"""Looks at the momentum whose median tells oscillation from noise."""
FEWEST_MEMBERS = 8
"""Coordinates without which a mean square tells nothing."""
SETTLED = 512
"""Steps before which drift is not looked at: its stretches are too short to be independent."""
TURNS = 2
"""Looks running that must find the steps going uphill; their windows share two fifths."""
AWAY = 0.9
"""Ratio below which a run has left the edge of stability again."""
GO_BACK = "set a finite learning rate, and go back to the last checkpoint from before it was lost"

NONFINITE, G2, RMS2, TAKEN = (SUMS.index(name) for name in ("nonfinite", "g2", "rms2", "steps"))
LR, SCALE, BETA1 = 0, 2, 4  # places among the coefficients


class Leap(NamedTuple):
    """A learning rate far above all before it."""

    step: int
    tensor: int
    before: float
    after: float
    told: bool = False

    def __str__(self) -> str:
        return f"the learning rate, which went from at most {self.before:.3g} to {self.after:.3g} at step {self.step}"


@dataclass
class Decay:
    """What is known of a tensor whose v decays alone."""

    run: float
    """Steps of it at the newest look."""
    stepsize: float
    """The median stepsize, and then the learning rate and the mean log ‖g‖², when it was last judged."""
    lr: float
    size: float
    first: tuple[float, float]
    """The median stepsize and log ‖g‖² at the first look."""
    kept: list[float] = field(default_factory=list)
    """What the momentum kept of the gradient, at the looks before it is judged."""


class Quiet:
    """Which alerts would only repeat what was said: each one makes the pause after it twice as long."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str | None], tuple[int, int]] = {}
        self.held: Counter[str] = Counter()
        """Alerts that were not told, by rule."""

    def admits(self, alert: Alert) -> bool:
        """Return whether to tell; a rule rests for a while everywhere, and for longer at the tensor that it named."""
        pauses = {(alert.rule, ""): PAUSE, (alert.rule, alert.tensor): PAUSE_THERE}
        for key in pauses:
            last, pause = self._said.get(key, (0, 0))
            if last <= alert.step < last + pause:
                self.held[alert.rule] += 1
                return False
        for key, first in pauses.items():
            self._said[key] = alert.step, 2 * self._said[key][1] if key in self._said else first
        return True


class Alerts:
    """The alerts of one run: `watch` after each step, the other methods when the monitor meets what they are named for.

    `tell` is the user's function, called with each alert.
    """

    def __init__(self, recorder: Recorder, tell: Callable[[Alert], object] | None = None) -> None:
        self.sent: list[Alert] = []
        self.after_gap = recorder.step > 0
        """Whether the next step may be the first of an empty optimizer."""
        self._recorder, self._tell = recorder, tell
        self._signals, self._quiet = recorder.signals, Quiet()
        self._waiting: list[Alert] = []
        self._decays: dict[int, Decay] = {}
        self._grown: dict[int, int] = {}
        """The step at which such a tensor had begun to oscillate."""
        self._leap: Leap | None = None
        self._rateless: int | None = None
        """The step since which a learning rate is NaN or infinite."""
        self._downhill: tuple[int, float] | None = None
        self._uphill, self._edge, self._complained = 0, math.nan, False
        past = recorder.log.rows() if recorder.step else ()
        self._told = sum(row.kind == "event" and row.facts["kind"] == "alert" for row in past)
        rates = groups_of([row for row in past if row.kind == "record"]).get("lr", np.empty((0, 0)))
        self._reached: Array = np.fmax.reduce(rates, axis=0, initial=0.0)
        """The largest learning rate of each group before the run was continued, until its next step."""

    # --- when ------------------------------------------------------------------------------------------------

    def watch(self, suspected: int) -> None:
        """Weigh what the signals of the newest step suspect, in bits, and what else is to be looked at after it."""
        recorder, found = self._recorder, self._waiting
        due = recorder.step in PROVED and recorder.step >= SETTLED
        lost = suspected & signals.LOST
        if suspected or due or found or self._leap or self.after_gap:
            self._waiting = []
            with np.errstate(all="ignore"):
                found += self._lost() if lost else self._weigh(suspected, due)
            self._send(found)
        if not lost:
            self._rateless = None

    def _weigh(self, suspected: int, due: bool) -> list[Alert]:
        """Apply the rules that have reason to be applied."""
        found = [self._reset()] if self.after_gap else []
        if len(self._reached):
            self._continue()
        self.after_gap = False
        if suspected & signals.RATE:
            self._leap = self._leapt()
        if self._leap:
            found.append(self._rate(self._leap))
        if suspected & signals.SURGE:
            found.append(self._surge())
        if suspected & signals.DECAY:
            found.append(self._growth())
        if due:
            found.append(self._drift())
        return [alert for alert in found if alert is not None]

    def restart(self) -> None:
        """Forget what came before: the optimizer's state was replaced, or the run goes on from an earlier step."""
        self.after_gap = True
        self._signals.forget()
        self._decays.clear()
        self._leap = None

    def nonfinite(self, tensors: Sequence[int]) -> None:
        """Tell, after this step, of NaN and infinities in gradients or second moments.

        Watched coordinates are looked at in every step, and the whole gradient of tensors up to 16 384 elements. The
        first tensor is named, in the order of the model; a learning rate that was lost before is named as the cause.
        """
        watchers, first = self._recorder.watchers, tensors[0]
        cause, suggestion = self._why_nonfinite(everywhere=len(tensors) == len(watchers))
        coordinates, count = watchers[first].coordinates, self._recorder.accumulators.last[first, NONFINITE]
        seen = f"{count:.0f} of {coordinates.watched} watched"
        if coordinates.numel <= SCANNED:
            seen = f"{count * coordinates.scale:.0f} of {coordinates.numel}"
        message = (
            f"{seen} coordinates of {watchers[first].name} are NaN or infinite, and so are some in {len(tensors)} of "
            f"{len(watchers)} tensors"
        )
        self._waiting.append(self._alert("nonfinite", first, message, cause, suggestion))

    def _why_nonfinite(self, everywhere: bool) -> tuple[str, str]:
        """Return cause and suggestion."""
        if self._rateless is not None:
            return (
                f"the learning rate, which is not finite since step {self._rateless}",
                GO_BACK,
            )
        where = "in the layers of these tensors, or behind them"
        return (
            "the loss itself, as it is in every tensor"
            if everywhere
            else f"an overflow or an undefined operation {where}",
            "go back to the last checkpoint, for the step was taken; look at its batch; lower the rate or the loss "
            "scale; torch.autograd.set_detect_anomaly(True) names the operation",
        )

    def edge(self, found: Edge) -> None:
        """Tell when a measured curvature passes what the steps can bear.

        That is λ_max(S^½ H S^½) ≥ 1, S = e·boost/2, see `edge.py`: beyond it a quadratic is left in the sharpest
        direction. It is measured by `monitor.edge(closure)` alone, and told of again only after the ratio was below
        0.9 in between: without noise a run may hover at 1.
        """
        was_beyond = self._edge >= 1.0
        if not AWAY < found.ratio < 1.0:
            self._edge = found.ratio
        if found.ratio >= 1.0 and not was_beyond:
            alert = self._alert(
                "edge crossing",
                None,
                f"the sharpness is {found.sharpness:.3g}, {found.ratio:.3g} times the {found.threshold:.3g} that a "
                "step can bear",
                "stepsizes or curvature have grown until the steps overshoot in the sharpest direction",
                "lower the rate if the loss bursts; without noise a run may hover at 1 and descend all the same",
            )
            self._send([alert])

    def close(self) -> None:
        """Say at the end how much was not told."""
        if self._quiet.held:
            counts = ", ".join(f"{rule}: {n}" for rule, n in self._quiet.held.items())
            self._recorder.note("alerts held back", f"too soon after their like, or too many: {counts}")

    # --- the rules -------------------------------------------------------------------------------------------

    def _lost(self) -> list[Alert]:
        """Tell once of a learning rate that is NaN or infinite, with its parameter group, in the step itself.

        The other rules, which compare sizes, have to wait.
        """
        self._signals.forget()
        if self._rateless is not None:
            return []
        self._rateless = self._recorder.step
        watchers, rates = self._recorder.watchers, self._recorder.accumulators.then[:, LR]
        lost = self._signals.suspected(signals.LOST)
        groups = sorted({watchers[p].group for p in lost})
        return [
            self._alert(
                "learning rate",
                lost[0],
                f"the learning rate is {rates[lost[0]]} in parameter group {' and '.join(map(str, groups))}, which "
                f"leaves no finite step in {len(lost)} of {len(watchers)} tensors, {watchers[lost[0]].name} first",
                "a schedule or a setting that came out of a division by 0, an overflow or another broken number",
                GO_BACK,
            )
        ]

    def _leapt(self) -> Leap:
        """Return a learning rate far above all before it, and note it. That alone is no alert: warm-ups do it."""
        rows = self._signals.suspected(signals.RATE)
        before, after = self._signals.past[rows[0], [signals.LEAPT, signals.TOP]]
        self._note_leap(rows, before, after)
        return Leap(self._recorder.step, rows[0], before, after)

    def _continue(self) -> None:
        """Note a learning rate far above all that the run had before it was continued."""
        watchers, rates, reached = self._recorder.watchers, self._recorder.accumulators.then[:, LR], self._reached
        known = [(p, reached[w.group]) for p, w in enumerate(watchers) if w.group < len(reached)]
        rows = [p for p, before in known if 0.0 < signals.LEAP * before < rates[p]]
        if rows:
            self._note_leap(rows, reached[watchers[rows[0]].group], rates[rows[0]])
        self._reached = np.empty(0)

    def _note_leap(self, rows: Sequence[int], before: float, after: float) -> None:
        first, count = self._recorder.watchers[rows[0]], f"{len(rows)} of {len(self._recorder.watchers)} tensors"
        went = f"the learning rate of group {first.group} went from at most {before:.3g} to {after:.3g}"
        self._recorder.note("rate leap", f"{went} in {count}", first.name)

    def _rate(self, leap: Leap) -> Alert | None:
        """Judge a leap of the learning rate by how far the steps that follow move the weights.

        A leap is a rate of more than ten times the largest so far; that alone is an event and no alert, for warm-ups do
        it. Told is, within 64 steps of it, that ‖Δθ‖ > ‖θ‖/20 over the members of the harm test.
        """
        recorder = self._recorder
        if recorder.step >= leap.step + BLOCK:
            self._leap = None
            return None
        if leap.told:
            return None
        moved = theta = 0.0
        for p, w in enumerate(recorder.watchers):
            e, m = self._members(p)
            if len(e):
                moved += w.coordinates.numel * float(np.mean((e * m) ** 2))
                theta += w.coordinates.numel * float(np.mean(w.theta() ** 2))
        if not moved > HEEDLESS**2 * theta:
            return None
        self._leap = leap._replace(told=True)
        return self._alert(
            "learning rate",
            leap.tensor,
            f"after a learning rate of at most {leap.before:.3g} it is {leap.after:.3g} since step {leap.step}, and a "
            f"step moves the weights by {math.sqrt(moved / theta):.0%} of their size",
            "a schedule, a unit or a resumed setting that is not what was meant",
            f"lower the rate to about {leap.before:.3g} and go back to the last checkpoint; if the leap is meant, "
            "raise it in steps",
        )

    def _surge(self) -> Alert | None:
        """Judge updates out of all proportion to the tensor's own past.

        With RMS_t² = mean(g²/v̂), suspected is RMS_t above 1 and above its largest of the last 1024 steps, fourfold in
        two steps running or twofold in three; or ‖g‖ above its own by twice as much. Not told is a run that descends
        ever faster, whose gradient goes along with the momentum before it (cosine from ½ on), nor, where there is no
        second moment, a step that moves the weights by less than 10⁻⁴ of their size.
        """
        past, last = self._signals.past, self._recorder.accumulators.last
        rows = self._signals.suspected(signals.SURGE)
        past[rows, signals.QUIET] = BLOCK
        rows = [p for p in rows if self._overshoots(p)]
        if not rows or (self._leap and not self._leap.told):  # a leap makes surges: `_rate` judges what they do
            return None
        of_root, of_gradient = np.sqrt(past[:, [signals.TIMES, signals.TIMES + 1]]).T
        factors = np.maximum(of_root, of_gradient / LOOSER)
        worst = max(rows, key=lambda p: factors[p])
        beside = int(np.count_nonzero((factors > 1) & (last[:, TAKEN] > 0)))
        span = min(past[worst, signals.TAKEN], BLOCK * BLOCKS)
        rms = f"RMS_t is {math.sqrt(last[worst, RMS2]):.3g}, {of_root[worst]:.3g} times its largest, and "
        return self._alert(
            "update surge",
            worst,
            f"in {self._recorder.watchers[worst].name} {rms if of_root[worst] > 0 else ''}the gradient is "
            f"{of_gradient[worst]:.3g} times its largest of the last {span:.0f} steps; {beside} of {len(last)} tensors "
            "are above theirs",
            self._cause(worst, alone=beside <= max(1, len(last) // 4)),
            "look at the last batches; if it goes on, go back to a checkpoint with a lower rate; clipping the "
            "gradient, or dividing the step by max(1, RMS_t) as StableAdamW does, bounds it",
        )

    def _overshoots(self, p: int) -> bool:
        """Return whether a surge may do harm: not if the run descends ever faster, nor if the step is slight."""
        found, w = self._now(p), self._recorder.watchers[p]
        if found is not None and w.accumulator.then[SCALE] == 0:
            e, _, g = found
            return bool(np.mean((e * g) ** 2) > SLIGHT**2 * np.mean(w.theta() ** 2))
        return not self._course(p) >= DOWNHILL

    def _course(self, p: int) -> float:
        """Return the cosine of the gradient and the momentum before it; NaN where there is none."""
        found, beta1 = self._now(p), self._recorder.watchers[p].accumulator.then[BETA1]
        if found is None or beta1 <= 0:
            return math.nan
        _, m, g = found
        before = m - (1 - beta1) * g
        return float(before @ g) / (_length(before) * _length(g))

    def _cause(self, p: int, alone: bool) -> str:
        """Return the likely cause of a surge, from what came before it."""
        before, rate = self._signals.past[p, signals.BEFORE], self._recorder.accumulators.then[p, 0]
        if self._leap:
            return str(self._leap)
        if 0 < 2 * before < rate:
            return f"the learning rate, which rose from {before:.3g} to {rate:.3g} within {BLOCK} steps"
        if p in self._grown:
            return (
                f"v has decayed while gradients were small, see step {self._grown[p]}, and the steps have become long"
            )
        if self._course(p) <= -DOWNHILL:
            return "steps that overshoot, for the gradient turns against the momentum: the rate is too large here"
        if alone:
            return "something in this layer alone: its scale, its input, or a term of the loss that only it feels"
        return "an odd batch or another loss scale, or a step before that went too far"

    def _growth(self) -> Alert | None:
        """Judge a v that decays alone by whether the steps have begun to overshoot.

        Then gradients flip their sign from step to step, and no longer fall as v does: by the half at most. Flipping
        leaves (1-β1)/(1+β1) of their size in the momentum; white noise leaves the root of that, and a steady descent
        all of it. The line is drawn half-way, on a logarithmic scale.
        """
        rows = [p for p in self._signals.suspected(signals.DECAY) if self._overshot(p)]
        if not rows:
            return None
        p, last = rows[0], self._recorder.accumulators.last
        self._grown |= dict.fromkeys(rows, self._recorder.step)
        w, decay = self._recorder.watchers[p], self._decays[p]
        stepsize, gradient = decay.stepsize / decay.first[0], math.exp((decay.first[1] - math.log(last[p, G2])) / 2)
        root = w.accumulator.then[SCALE] * float(np.median(w.lead_roots()))
        return self._alert(
            "stepsize growth",
            p,
            f"in {decay.run:.0f} steps the stepsizes of {w.name} grew {stepsize:.3g}-fold as its gradients "
            f"fell {gradient:.3g}-fold; RMS_t is {math.sqrt(last[p, RMS2]):.2g}, and the gradient flips "
            f"from step to step in {len(rows)} of {len(last)} tensors",
            "v decays alone, for the gradients are too small for it, and the steps have become so long that they "
            "overshoot",
            f"let the learning rate fall, or stop here; amsgrad=True keeps v up; eps helps from about {root:.1g} on, "
            "the median of the root that it is added to",
        )

    def _overshot(self, p: int) -> bool:
        """Look at the momentum once more; when that was often enough, judge, and wait for the stepsize to grow on."""
        w, run, decay = self._recorder.watchers[p], self._signals.past[p, signals.RUN], self._decays.get(p)
        beta1, (e, m) = w.accumulator.then[BETA1], self._members(p)
        if beta1 <= 0 or len(e) < FEWEST_MEMBERS:
            return False
        stepsize, lr = float(np.median(e[e > 0])), w.accumulator.then[0]
        if decay is None or run < decay.run:
            size = math.log(self._recorder.accumulators.last[p, G2])
            decay = self._decays[p] = Decay(run, stepsize, lr, math.inf, (stepsize, size))
        decay.run = run
        # By v, whatever the schedule did, and in effect: a schedule that falls makes up for v.
        if stepsize < GROWN * decay.stepsize * max(1.0, lr / decay.lr):
            self._signals.wait(p)
            return False
        g = w.lead_gradient()
        if g is None:
            return False
        decay.kept.append(_keeps(e, m, g))
        if len(decay.kept) < LOOKS:
            return False
        flips = float(np.median(decay.kept)) < ((1 - beta1) / (1 + beta1)) ** 0.75
        before, decay.size = decay.size, self._signals.size(p)
        decay.stepsize, decay.lr = stepsize, lr
        decay.kept.clear()
        self._signals.wait(p)
        return flips and decay.size > before - math.log(GROWN)  # half of log GROWN², by which v has fallen

    def _drift(self) -> Alert | None:
        """Judge whether the steps of the last half of the run went against the mean gradient, twice in a row.

        It is the harm test of `drift.py`: ρ = U(d, g)/U(g, g) below 0, at one chance in a thousand. It looks from step
        512 on at the steps 2^(j/2); two looks running must agree, whose windows share two fifths.
        """
        recorder = self._recorder
        found = recorder.products()
        if found is None:
            return None
        ((first, last), dd, dg, gg), _ = found
        whole = [np.nansum(product, axis=0) for product in (dd, dg, gg)]
        harm = judge_harm(whole[0], whole[1], whole[2], *recorder.window(first, last))
        self._uphill = self._uphill + 1 if harm.decision is HarmDecision.HARMFUL else 0
        if harm.decision is HarmDecision.HARMLESS:
            self._downhill = recorder.step, harm.rho
        if self._uphill < TURNS:
            return None
        alone = [judge_harm(*own, 0, 0).z for own in zip(dd, dg, gg, strict=True)]
        then = f"; at step {self._downhill[0]} it was {self._downhill[1]:.2g}" if self._downhill else ""
        return self._alert(
            "drift reversal",
            int(np.argmin(np.nan_to_num(alone, nan=math.inf))),
            f"from step {harm.first_step} to {harm.last_step} the steps went against the mean gradient: rho is "
            f"{harm.rho:.2g}, with z = {harm.z:.1f}{then}",
            "gradients that are rare and large, which Adam divides by themselves",
            "raise beta2, or use amsgrad=True, AdaShift or ADOPT, which weigh rare large gradients in full",
        )

    def _reset(self) -> Alert | None:
        """Judge whether the optimizer's counters began anew in the midst of the run.

        Told is a tensor of which the optimizer counts its first step, t = 1, though steps of it are on record. Its
        second moment is then that of one gradient, and a step is as long as the rate in every coordinate.
        """
        watchers, taken = self._recorder.watchers, self._recorder.accumulators.sums[:, TAKEN]
        rows = [p for p, w in enumerate(watchers) if w.counted == 1 and taken[p] > 1]
        if not rows:
            return None
        self._signals.forget()
        return self._alert(
            "moment reset",
            rows[0],
            f"the optimizer counts its first step of {watchers[rows[0]].name} where {taken[rows[0]] - 1:.0f} were "
            f"recorded, and so in {len(rows)} of {len(taken)} tensors",
            "the optimizer's state was not loaded, or was cleared; or this is a new run in an old directory",
            "load the optimizer's state_dict before the first step; without it, warm the rate up again over "
            "1/(1-beta2) steps, for the first ones are as long as the rate in every coordinate",
        )

    # --- what the rules read ---------------------------------------------------------------------------------

    def _members(self, p: int) -> tuple[Array, Array]:
        """Return stepsize and momentum of the tensor's members of the harm test; empty where none is readable."""
        w, begin = self._recorder.watchers[p], sum(w.coordinates.lead for w in self._recorder.watchers[:p])
        if w.reader is None:
            return np.empty(0), np.empty(0)
        lr, gain, scale, eps = w.accumulator.then[:4]
        root = w.lead_roots()
        e = np.where(root > 0, lr * gain / (scale * root + eps), 0.0)
        return e, self._recorder.stretches.momentum[begin : begin + len(e)]

    def _now(self, p: int) -> tuple[Array, Array, Array] | None:
        """Return stepsize, momentum and gradient of the members; None where the gradient is gone."""
        (e, m), g = self._members(p), self._recorder.watchers[p].lead_gradient()
        return None if g is None or not len(e) else (e, m, g)

    # --- telling ---------------------------------------------------------------------------------------------

    def _alert(self, rule: str, p: int | None, message: str, cause: str, suggestion: str) -> Alert:
        name = None if p is None else self._recorder.watchers[p].name
        return Alert(rule, self._recorder.step, name, message, cause, suggestion)

    def _send(self, found: Sequence[Alert]) -> None:
        """Tell of alerts that are new: in the record, in the log, and to the user's function, which may do anything."""
        for alert in found:
            recorder = self._recorder
            if recorder.closed or not self._quiet.admits(alert):
                continue
            if self._told >= MOST:
                self._quiet.held[alert.rule] += 1
                continue
            self._told += 1
            self.sent.append(alert)
            recorder.note("alert", alert.line(), alert.tensor)
            if self._told == MOST:
                recorder.note("alerts held back", f"{MOST} alerts were told; further ones are counted until the end")
            if self._told <= RECORDED:
                recorder.save_flight()
            recorder.log.commit()
            logger.warning("stepscope: %s", alert)
            self._call(alert)

    def _call(self, alert: Alert) -> None:
        """Hand the alert to the user's function; what goes wrong there is said once and touches nothing."""
        try:
            if self._tell is not None:
                self._tell(alert)
        except Exception as fault:
            if not self._complained:
                logger.error("stepscope: `on_alert` failed: %s: %s", type(fault).__name__, fault)
            self._complained = True


def _keeps(e: Array, m: Array, g: Array) -> float:
    """Return how much of the gradient the momentum keeps, as the steps weigh them: little where gradients flip."""
    return _length(e * m) / _length(e * g)


def _length(x: Array) -> float:
    """Return the Euclidean length, NaN in place of 0: what is divided by it has no answer then."""
    return math.sqrt(float(x @ x)) or math.nan
