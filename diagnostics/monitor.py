"""Monitor: hooks onto an optimizer and measures each step it takes; it never changes a number of the run."""

from __future__ import annotations

import contextvars
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.hooks import RemovableHandle

from . import facts
from .alerts import Alert, Alerts
from .budget import RUN, Budget, checked_share
from .glance import Glance
from .imagined import USUAL
from .instruments import Instruments
from .later import Later
from .notes import Notes
from .one_step import SICK, STALE
from .parts import with_others
from .pieces import Share
from .precision import held_fast
from .readers import reader_of, why_none
from .readers_by_state import Trial
from .recorder import Recorder, open_recorder
from .sampling import LARGE, NUMPY_DTYPES, Coordinates
from .scalars import scalars
from .schedule import OPENING, PROVED
from .several import Several, hooked, members, watchable
from .trace import Trace
from .watcher import Outcome, Watcher, kept_as, settled
from .writer import StillSilent

if TYPE_CHECKING:
    from .diagnosis import Diagnosis
    from .edge import Edge
    from .summary import Summary

logger = logging.getLogger("stepscope")
SURVEYED = 2**22
"""Elements of a model up to which all coordinates are summed in the opening though a sample is watched: it copies the
second moment in each step."""


OPEN: weakref.WeakSet[Monitor] = weakref.WeakSet()
"""The monitors of this process that were not closed."""
SECOND = (
    "stepscope: this optimizer has a monitor that is open; both watch every step, close the first unless you want two"
)
"""Two records of one run are worth something, of other coordinates or what-ifs say; more often one was forgotten."""

UNSEEN = (
    "stepscope saw no step of this %s; if there were any, another optimizer took them: make the monitor of the one "
    "that trains, once nothing replaces it any more"
)

Groups = Mapping[int, Mapping[str, Any]]
"""Parameter groups by their place."""
States = Mapping[torch.Tensor, Mapping[str, Any]]

QUIET = partial(np.errstate, all="ignore")
"""A diverging run is no fault of ours. Entered where numpy computes, and not in each step: that costs microseconds."""


class Monitor:
    """Records the effective stepsizes of an optimizer, step by step, and judges them at any time.

    Args:
        optimizer: any `torch.optim.Optimizer`, also as Accelerate wraps it; what is not readable is recorded by update
            size and alignment. A list or dict of optimizers of one class is watched as one, whose step is a round of
            theirs (docs/training.md).
        directory: where the run is kept, nothing else beside it; an existing run of the same optimizer is continued. Of
            several processes each keeps its part there (docs/distributed.md). None: in memory.
        model: only for the tensors' names; the one whose parameters the optimizer has.
        coordinates: how many coordinates of each tensor are watched, a random sample; `"all"` is exact.
        seed: of that sample.
        what_if: rules whose stepsizes are imagined on the same gradients, such as "adam(beta2=0.99)" or "amsgrad"; ()
            for none.
        budget: the share of the training's time that watching may take, such as 0.01; where it would take more, fewer
            steps are looked at, and each counts for more (docs/cost.md). None: every step is looked at.
        on_alert: called with each alert, such as a surge of the updates before the loss bursts (docs/alerts.md); what
            it raises is reported once and touches nothing.
        strict: raise what goes wrong inside the monitor, instead of reporting it once and standing aside.

    Raises:
        ValueError: for an optimizer without parameters, several of different classes, a model of other parameters,
            `coordinates` below 1, a `budget` out of range or for several optimizers or processes, an unknown rule, an
            `on_alert` that cannot be called, or a directory with another run or with other files.
        TypeError: for a setting that there is not.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | Mapping[Any, torch.optim.Optimizer],
        directory: str | Path | None = None,
        *,
        model: torch.nn.Module | None = None,
        coordinates: int | Literal["all"] = 1024,
        seed: int = 0,
        what_if: Sequence[str] = USUAL,
        budget: float | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        strict: bool = False,
        **unknown: Never,
    ) -> None:
        facts.check_settings(unknown)
        self._owner: torch.optim.Optimizer = watchable(optimizer)
        facts.check_optimizer(self._owner)
        facts.check_model(self._owner, model)
        self._share = Share(self._owner, model)
        watched = facts.stepping(self._owner)
        self._limit = facts.coordinate_limit(coordinates)
        if on_alert is not None and not callable(on_alert):
            raise ValueError(f"`on_alert` must be a function of an alert, got {type(on_alert).__name__}.")
        self.optimizer, self.model, self.seed, self.strict = watched, model, seed, strict
        self.directory = facts.checked_path(directory)
        self._reader = reader_of(watched)
        self._formula = self._reader and self._reader.formula  # a rule on trial may be settled later
        self._rates = facts.rates(watched.param_groups)
        self._watched: set[int] = set()
        self._groups_seen: list[tuple[int, int]] = []
        self._glances: dict[int, Glance] = {}
        self._later = Later(None if isinstance(watched, Several) or budget else self._reader)
        self._armed = self._proving = self._resting = self._owes_proof = False
        self._closed = self._stood_aside = self._compiled = False
        self._prepares, self._wakes = True, 0
        self._budget = self._budgeted(checked_share(budget))
        rules = facts.imagined_rules(watched, self._reader, what_if)
        watchers = self._new_watchers()
        meta = facts.describe(watched, coordinates, seed, rules, budget, self._part_of_run())
        place = facts.run_directory(directory, self._share, bool(watchers))
        self._recorder = open_recorder(place, meta, watchers, rules, strict)
        self._later.watch(self._recorder.watchers)
        self._alerts = Alerts(self._recorder, on_alert)
        self._notes, self._instruments = Notes(self._recorder, self._alerts), Instruments(strict)
        if self._reader is None:
            self._notes.unreadable(facts.class_name(watched), why_none(watched))
        if self.step:
            empty = not watched.state and self._reader is not None and self._reader.keeps_state
            self._notes.continued(self.directory, empty)
        if any({*members(other.optimizer)} & {*members(watched)} for other in list(OPEN)):
            logger.warning(SECOND)
        OPEN.add(self)
        self._loaded_at = -1
        self._after, self._ask = self._guarded(Monitor._after_step), self._guarded(Monitor._catch_up)
        self._found: set[Outcome] = set()
        """What the tensors that were looked at closer did in the newest step."""
        self._outcomes: set[Outcome] = set()
        """Of several optimizers: what they did in the round at hand."""
        self._moves: dict[torch.optim.Optimizer, list[tuple[Watcher, int]]] = {}
        """Of several optimizers: whom each moves, with the place of the group in its own list."""
        self._handles: list[RemovableHandle] = []
        for member in hooked(watched):
            self._hook_onto(member)
        left_open = "the process ended, or let go of the optimizer, with the monitor open"
        weakref.finalize(self, _finish_quietly, self._recorder, left_open, os.getpid(), self._later)

    # --- what a user calls ---------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Number of steps recorded so far; a skipped one does not count."""
        self._ask_for_late()
        return self._recorder.step

    @property
    def closed(self) -> bool:
        """Whether it records no more: it was closed, or stood aside after a fault."""
        return self._closed

    def log(self, *unnamed: object, **scalars: float | torch.Tensor) -> None:
        """Record numbers beside the steps (`loss=loss`); one on an accelerator is read at the next record.

        Raises:
            RuntimeError: after `close`.
            TypeError: for what has no name.
            ValueError: for a tensor of more than one element.
        """
        if unnamed:
            raise TypeError(
                f"`log` takes numbers by name, got a {type(unnamed[0]).__name__}; write `monitor.log(loss=loss)`, or "
                "`monitor.log(**numbers)` for a dict of them."
            )
        if self._closed:
            self._refuse_to_log()
            return
        for name, value in scalars.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                self._recorder.add_scalar(name, value.item() if value.is_cpu else value.detach().clone())
            elif isinstance(value, (int, float, np.number)):
                self._recorder.add_scalar(name, float(value))
            else:
                got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
                raise ValueError(
                    f"`{name}` must be a number or a tensor with one element, got {got}; log its mean, say."
                )

    def _refuse_to_log(self) -> None:
        """Say that the monitor was closed, if it was its owner who closed it."""
        if not self._stood_aside:
            raise RuntimeError(
                f"this monitor was closed after step {self.step} and records nothing more; "
                "create a new Monitor on the same directory to continue the run."
            )

    def scalars(self) -> dict[str, float]:
        """Return the newest numbers by name, to be handed to a logger every hundred steps or so.

        `stepsize/<parameter>/p1`, `/p50` and `/p99` are quantiles over the watched coordinates, `rms/<parameter>` is
        RMS_t of the newest step, `update_ratio/<parameter>` the size of the step over that of the weights where it was
        last measured, `lr/<group>` the learning rate of the newest step; `total/a`, `total/b_over_a` and
        `total/c_plus_over_a` are of the whole run. What is not measured is left out. Of an accelerator's memory only a
        learning rate that lies there is read.
        """
        self._ask_for_late()
        with QUIET():
            return scalars(self._recorder, [facts.number(rate) for rate in self._rates])

    def edge(self, closure: Callable[[], torch.Tensor]) -> Edge:
        """Measure how near the run is to the edge of stability, and record it as `edge/ratio` and `edge/sharpness`.

        `closure` returns the loss of a fixed batch without calling backward. The run is left as it was; it costs some
        twenty to fifty times a gradient, so a few points suffice. See `edge.py`.
        """
        from .edge import edge

        if self._closed:
            self._refuse_to_log()
        if self._share.sharded:
            raise ValueError("`optimizer` must have whole tensors for the edge, got pieces; measure it in one process.")
        found = edge(self.optimizer, closure)
        self._ask_for_late()
        self.log(**{"edge/ratio": found.ratio, "edge/sharpness": found.sharpness})
        self._alerts.edge(found)
        return found

    @property
    def alerts(self) -> list[Alert]:
        """The alerts of this monitor so far; those of earlier processes are events of the trace."""
        self._ask_for_late()
        return list(self._alerts.sent)

    @property
    def trace(self) -> Trace:
        """Everything recorded so far, the newest step included; of other ranks' parts, what they have committed."""
        self._ask_for_late()
        own = self._recorder.trace(self._schedules())
        return own if not self._share.sharded else with_others(own, self.directory)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "recording"
        return f"<Monitor of {facts.class_name(self.optimizer)}: {self._recorder.step} steps, {state}>"

    def _repr_html_(self) -> str | None:
        """Return what there is so far for a notebook; None, for which it shows the line of text, if that fails."""
        try:
            from ..reports.notebook import of_monitor

            return of_monitor(self).html()
        except Exception as fault:  # looking on must not stop a training
            logger.debug("no card of this monitor: %s: %s", type(fault).__name__, fault)
            return None

    def diagnose(self) -> Diagnosis:
        """Judge the run as it stands; see `Trace.diagnose`."""
        return self.trace.diagnose()

    def summary(self) -> Summary:
        """Return a table with a row per tensor; see `Trace.summary`."""
        return self.trace.summary()

    def report(self, path: str | Path) -> Path:
        """Write the report of the run as it stands, and return its path.

        The ending chooses the format: .html, .pdf, .md, .json, or .xml for CI (docs/report_formats.md).

        Raises:
            ValueError: for a directory, or another ending.
        """
        from ..reports.formats import render

        name = self.directory.name if self.directory else facts.class_name(self.optimizer)
        return render([(name, self.trace)], Path(path))

    def close(self) -> None:
        """Write what is left and let go of the optimizer. Closing twice is harmless."""
        if not self._closed and self._recorder.watchers and not (self._found or self._moves or self._notes.skipping):
            logger.warning(UNSEEN, facts.class_name(self.optimizer))
        self._finish("closed by its owner")
        self._recorder.join()  # it may have stood aside, which waits for nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._finish(f"after an error: {type(error).__name__}: {error}", crashed=True)

    def sample(self) -> bool:
        """Take in the optimizer's newest state as a step where no hook saw it, and return whether there was one.

        To be called between replays of a CUDA graph that holds `step()`: Python runs as such a graph is captured and
        not as it is replayed. Steps between two samples are not seen; the stepsizes of two samples are compared if they
        are of successive steps. The gradients must stand as the step met them. A rule that needs to know θ before the
        step, as L2 in Adam does, is not summed, and nothing is proved. Of an optimizer that counts its steps nothing is
        taken twice; one that does not, such as SGD, is taken to have stepped. On a closed monitor it does nothing.
        """
        before = self.step
        if not self._closed and (self._steps_at_all() if self._resting else self._steps_unseen()):
            self._armed, self._proving = True, False
            self._after()
        return self.step > before

    def _steps_unseen(self) -> bool:
        """Return whether the optimizer counts more steps than were seen, or does not count."""
        states = ((w, self.optimizer.state.get(w.param, {})) for w in self._recorder.watchers)
        counts = [(w.counted, state.get("step")) for w, state in states if state or w.param.grad is not None]
        return any(counter is None or float(counter) != counted for counted, counter in counts)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue the sums exactly, to be saved with the user's checkpoint.

        It holds numbers, strings and tensors only, so `torch.load(weights_only=True)` reads it.
        """
        self._ask_for_late()
        if self._resting:  # what goes on from here compares with the newest step
            self._take_up()
        return {"seed": self.seed, "rank": self._place(), "recorder": self._recorder.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`; records of later steps belong to a branch that was abandoned.

        Raises:
            ValueError: if the state was made with other tensors, another seed or other `coordinates`.
        """
        if not {"seed", "recorder"} <= set(state):
            raise ValueError(
                f"`state` must come from `Monitor.state_dict()`, got one with the keys {sorted(state)}; "
                "pass the part of the checkpoint that holds it."
            )
        if state["seed"] != self.seed:
            raise ValueError(
                f"`state` must have been made with seed {self.seed}, got {state['seed']}: another seed watches other "
                f"coordinates; pass `seed={state['seed']}` to Monitor."
            )
        if state.get("rank", "") != self._place():
            raise ValueError(
                f"`state` must have been made by {self._place() or 'a run of one part'}, got that of "
                f"{state.get('rank') or 'a run of one part'}; save and load one on each rank."
            )
        self._ask_for_late()
        self._look_anew()
        self._prepares, self._wakes = True, 0  # the coming step has another number
        self._resting = False
        if self._budget is not None:
            self._budget.restart()
            self._recorder.accumulators.weigh(1)
        self._recorder.restore(state["recorder"])
        self._instruments.travel.forget()
        self._alerts.restart()

    # --- hooks ---------------------------------------------------------------------------------------------

    def _hook_onto(self, member: torch.optim.Optimizer) -> None:
        several = isinstance(self.optimizer, Several)
        before = partial(Monitor._before_member, member=member) if several else Monitor._before_step
        after = partial(Monitor._after_member, member=member) if several else Monitor._after_step
        self._handles.append(member.register_step_pre_hook(self._guarded(before)))
        self._handles.append(member.register_step_post_hook(self._guarded(after)))
        if hasattr(member, "_optimizer_load_state_dict_post_hooks"):  # some that wrap another have none
            self._handles.append(member.register_load_state_dict_post_hook(self._guarded(Monitor._state_loaded)))

    # A step costs a small network little, and these two hooks a good part of it: they do what every step needs, and
    # leave the rest to steps that need it. Most of their time goes by in waiting for memory, so what counts is how much
    # code they touch.

    def _before_step(self) -> None:
        self._armed, self._proving = True, False
        if self._prepares and not self._resting:
            self._prepare()

    def _prepare(self) -> None:
        """Look whether the coming step is to be proved, and note what it will overwrite."""
        self._catch_up()
        self._watch_new_groups()
        self._proving = self._proves_next()
        self._remember(self._recorder.watchers, dict(enumerate(self.optimizer.param_groups)), self.optimizer.state)

    def _proves_next(self) -> bool:
        untried = isinstance(self._reader, Trial) and self._reader.rule is None
        return untried or self._owes_proof or self._recorder.schedule.proves(self.step + 1)

    def _remember(self, watchers: Sequence[Watcher], groups: Groups, states: States) -> None:
        """Note what the coming step will overwrite, where a proof or a reader needs it."""
        reader = self._reader
        if self._proving or (reader and any(reader.looks_ahead(groups[g]) for g in {w.group for w in watchers})):
            surveying = self.step < OPENING and (self._limit is None or self._share.size <= SURVEYED)
            with QUIET():
                for w in watchers:
                    w.view.compiled = self._compiled
                    w.before(groups[w.group], states.get(w.param, {}), self._proving, surveying)

    def _after_step(self) -> None:
        # A subclass that calls super().step() may fire the hooks twice, one pair inside the other. The inner post
        # hook disarms, so that the step counts once; the outer one sees whether more happened since.
        if not self._armed:
            self._recheck(self._recorder.watchers)
            return
        self._armed = False
        if self._later.device is not None and self._put_off():
            return
        if self._budget is not None and self._resting:
            self._pass_over(self._budget)
            return
        optimizer, recorder = self.optimizer, self._recorder
        if getattr(optimizer, "found_inf", None) is not None and refused_by_scaler(optimizer):
            self._skip(refused=True)
            return
        closer, stepped = self._measure()
        noteworthy = recorder.advance() if stepped else 0
        if noteworthy == STALE:
            closer, stepped = self._measure_again(closer)
            noteworthy = recorder.advance() if stepped else 0
            if noteworthy == STALE:
                raise RuntimeError("a step counter that was read one by one is not the one that stands in its memory.")
        if stepped:
            self._take_in(closer, noteworthy)
            if self._budget is not None and not self._closed:  # an alert may have closed it
                self._turn(self._budget)

    # On an accelerator most steps are put off and taken in together, see `later.py`.

    def _put_off(self) -> bool:
        """Leave the newest step for later, if it can be; else take in what waits before it."""
        later, recorder = self._later, self._recorder
        if later.arrived:
            self._catch_up(newest=False)
        coming = recorder.step + later.steps + 1
        usual = not self._proving and self._group_sizes() == self._groups_seen
        if not (usual and later.take(self.optimizer, coming)):
            self._catch_up()
            coming = recorder.step + 1
            if not (usual and later.lay_out(self.optimizer) and later.take(self.optimizer, coming)):
                return False
        if recorder.schedule.keeps(coming):
            self._catch_up()
        elif later.full:
            self._catch_up(newest=False)
            later.send()
        self._prepares = recorder.schedule.proves(recorder.step + later.steps + 1)
        return True

    def _ask_for_late(self) -> None:
        """Take in what was put off, because somebody asks."""
        if self._later.steps:
            self._ask()

    def _catch_up(self, newest: bool = True) -> None:
        """Take in the steps that were put off, in their order; without the `newest` those that were sent for."""
        if self._later.steps:
            self._look_anew()
        for late in self._later.drain(newest):
            if self._is_step(late.outcomes):
                self._take_in(late.told, self._recorder.advance())
            else:
                self._skip(Outcome.SKIPPED in late.outcomes)
            self._rates = late.rates  # those of now may be of the step to come

    def _take_in(self, closer: Sequence[Watcher], noteworthy: int) -> None:
        """Note and record what the newest step brought."""
        recorder = self._recorder
        # Now: a scheduler sets those of the next step before anybody asks.
        self._rates = facts.rates(self.optimizer.param_groups)
        notes = self._notes
        if closer or notes.unusual:
            self._note_troubles(closer)
        if noteworthy & SICK or notes.unusual:
            notes.nonfinite(bool(noteworthy & SICK))
        self._prepares = bool(closer)
        self._owes_proof &= not self._proving
        if recorder.step >= self._wakes:
            self._wake()
        self._alerts.watch(noteworthy & ~SICK)
        notes.skipping = False

    def _wake(self) -> None:
        """Record the newest step if that is due, and prepare for a proof of the next."""
        recorder = self._recorder
        if recorder.due():
            with QUIET():
                if recorder.step in PROVED:
                    self._log_precision()
                self._instruments.ask(recorder)
                recorder.record(self._schedules())
        if recorder.schedule.proves(recorder.step + 1):
            self._prepares = self._owes_proof = True
        self._wakes = recorder.schedule.next(recorder.step)

    # --- with a budget ---------------------------------------------------------------------------------------

    def _budgeted(self, share: float | None) -> Budget | None:
        if share is None:
            return None
        if isinstance(self.optimizer, Several) or self._share.sharded:
            raise ValueError("`budget` needs one optimizer in one process, got several that share a run; leave it out.")
        return Budget(share, self.seed)

    def _turn(self, budget: Budget) -> None:
        """Ask whether the coming steps are looked at."""
        if self.step + 1 < budget.next_turn:
            return
        if budget.turn(self.step + 1):
            self._recorder.accumulators.weigh(budget.cadence)
            self._recorder.add_scalar("monitor/cadence", budget.cadence)
            self._recorder.add_scalar("monitor/share", budget.taken)
            if budget.cadence > budget.told:
                budget.told = budget.cadence
                of = RUN * budget.cadence
                message = f"{RUN} of every {of} steps are looked at, to stay within {budget.share:.2%} of the time"
                self._recorder.note("cadence", message)
        rested, self._resting = self._resting, not budget.looks(self.step + 1)
        if self._resting and not rested:
            self._look_anew()
        if rested and not self._resting:
            self._take_up()

    def _pass_over(self, budget: Budget) -> None:
        """Count a step that is not looked at, and record what is due."""
        if not self._steps_at_all():
            self._skip(refused=any(w.param.grad is not None for w in self._recorder.watchers))
            return
        self._recorder.pass_over()
        self._notes.skipping = False
        self._rates = facts.rates(self.optimizer.param_groups)
        if self.step >= self._wakes:
            self._wake()
        self._turn(budget)

    def _steps_at_all(self) -> bool:
        """Return whether the optimizer took a step that nobody looks at; counters on an accelerator are not asked."""
        states = self.optimizer.state
        for w in self._recorder.watchers:  # in nearly all steps the first one tells
            counter = states.get(w.param, {}).get("step")
            if w.param.grad is None:
                continue
            if counter is None or (isinstance(counter, torch.Tensor) and not counter.is_cpu):
                return True
            then, w.counted = w.counted, float(counter)
            if then != w.counted:
                return True
        return False

    def _take_up(self) -> None:
        """Go on looking after steps that were not looked at."""
        groups, states = self.optimizer.param_groups, self.optimizer.state
        self._watch_new_groups()
        self._recorder.alternatives.forget()
        with QUIET():
            for w in self._recorder.watchers:
                w.take_up(groups[w.group], states.get(w.param, {}), self.step)
        self._prepares = True

    # --- what a step brought ---------------------------------------------------------------------------------

    def _measure(self) -> tuple[Sequence[Watcher], bool]:
        """Hand the newest step to the sums; return the watchers that needed a closer look, and whether it was one."""
        groups, states = self.optimizer.param_groups, self.optimizer.state
        self._watch_new_groups()
        if self._proving:
            self._look_anew()
            closer: Sequence[Watcher] = self._recorder.watchers
        else:
            closer = self._at_a_glance(groups, states)
        if not closer:
            return closer, True
        self._found = self._look_closer(closer, dict(enumerate(groups)), states)
        return closer, self._is_step_of(closer)

    def _measure_again(self, done: Sequence[Watcher]) -> tuple[Sequence[Watcher], bool]:
        """Look one by one, after a counter was not what it should be, at all that were not looked at so before."""
        outcomes, groups, states = self._found if done else set(), self.optimizer.param_groups, self.optimizer.state
        self._look_anew()
        rest = [w for w in self._at_a_glance(groups, states) if w not in done]
        self._found = outcomes | self._look_closer(rest, dict(enumerate(groups)), states)
        closer = [*done, *rest]
        return closer, self._is_step_of(closer)

    def _look_closer(self, watchers: Sequence[Watcher], groups: Groups, states: States) -> set[Outcome]:
        """Measure the newest step of tensors one by one; return what it did to them."""
        step = self.step + 1
        with QUIET():
            return {w.after(groups[w.group], states.get(w.param, {}), step, self._proving) for w in watchers}

    def _is_step_of(self, closer: Sequence[Watcher]) -> bool:
        """Return whether the call of `step` was one, where these were looked at closer; note it if not."""
        if self._is_step(self._found) or len(closer) < len(self._recorder.watchers):
            return True
        self._skip(Outcome.SKIPPED in self._found)
        return False

    def _skip(self, refused: bool) -> None:
        self._notes.skip(refused)
        self._prepares = True

    def _is_step(self, outcomes: set[Outcome]) -> bool:
        """Return whether anything stepped; of several processes another may hold what did."""
        return Outcome.STEPPED in outcomes or (self._share.sharded and Outcome.SKIPPED not in outcomes)

    def _at_a_glance(self, groups: Sequence[Mapping[str, Any]], states: States) -> Sequence[Watcher]:
        """Hand the sums what needs no closer look; return the watchers that do."""
        if self._reader is None:
            return self._recorder.watchers
        left: list[Watcher] = []
        step = self._recorder.step + 1
        for g, glance in self._glances.items():
            left += glance.step(groups[g], states, step, self._recorder.accumulators.gradients)
        return left

    def _look_anew(self) -> None:
        for glance in self._glances.values():
            glance.dissolve()

    def _recheck(self, watchers: Sequence[Watcher]) -> None:
        if self._proving:
            for w in watchers:
                w.recheck()
            self._note_troubles(watchers)

    # Of several optimizers each has two hooks of its own, which look closer at each of its tensors at once: where it
    # steps in the backward pass its gradients are gone before the others have theirs.

    def _before_member(self, member: torch.optim.Optimizer) -> None:
        several = self._several
        if member in several.stepped:
            self._end_round()
        if not several.stepped:
            self._begin_round()
        self._armed = True
        self._remember(*self._moved(member), member.state)

    def _begin_round(self) -> None:
        """Let no tensor step but those that will, and look up whom each optimizer moves."""
        several, recorder = self._several, self._recorder
        self._watch_new_groups()
        self._proving = self._proves_next()
        places = several.places
        self._moves = {member: [] for member in several.members}
        for w in recorder.watchers:
            w.accumulator.idle()
            which, place = places[w.group]
            self._moves[several.members[which]].append((w, place))

    def _after_member(self, member: torch.optim.Optimizer) -> None:
        part, groups = self._moved(member)
        if not self._armed:
            self._recheck(part)
            return
        self._armed = False
        self._several.stepped.add(member)
        if refused_by_scaler(member):
            self._outcomes.add(Outcome.SKIPPED)
        else:
            self._outcomes |= self._look_closer(part, groups, member.state)
        if self._several.round_is_full:
            self._end_round()

    def _moved(self, member: torch.optim.Optimizer) -> tuple[list[Watcher], Groups]:
        """Return whom a member moves, and its groups by their place among all."""
        part = self._moves[member]
        return [w for w, _ in part], {w.group: member.param_groups[place] for w, place in part}

    @property
    def _several(self) -> Several:
        assert isinstance(self.optimizer, Several)
        return self.optimizer

    def _end_round(self) -> None:
        """Take what the optimizers did since the last round as one step."""
        outcomes, self._outcomes = self._outcomes, set()
        self._several.stepped.clear()
        if self._is_step(outcomes):
            self._take_in(self._recorder.watchers, self._recorder.advance())
        else:
            self._skip(Outcome.SKIPPED in outcomes)

    def _state_loaded(self) -> None:
        if self._loaded_at != self.step:  # several optimizers are loaded one after the other
            message = "the optimizer's state was replaced: the next stepsize is not compared with the last"
            self._recorder.note("state loaded", message)
        self._loaded_at = self.step
        self._look_anew()
        states = self.optimizer.state
        for w in self._recorder.watchers:
            if self._resting:
                w.counted = None  # it was not asked
            w.reload(states.get(w.param, {}))
        self._instruments.travel.forget()
        self._alerts.restart()
        self._note_troubles(self._recorder.watchers)

    def _guarded(self, hook: Callable[[Monitor], None]) -> Callable[..., None]:
        """Return the hook such that a fault inside it is reported once and the training goes on unwatched.

        The optimizer holds the hook and the hook the monitor, which so lives as long as the optimizer.
        """

        def guarded(*_: object) -> None:
            if torch.compiler.is_compiling():  # a compiled `step` traces its hooks, and would drop them
                untraced()
                return
            if self._closed or (self._on_gpu and _is_captured()):
                return
            begin = 0.0 if self._budget is None else self._budget.clock()
            try:
                hook(self)
            except BaseException as fault:
                self._later.forget()
                self._look_anew()
                self._recorder.accumulators.clear()
                if self.strict or not isinstance(fault, Exception):
                    raise
                self._stand_aside(fault)
            if self._budget is not None:
                self._budget.book(self._budget.clock() - begin, looked=not self._resting)

        # This loads no compiler: the making of any torch optimizer has.
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def untraced() -> None:
            self._compiled = True
            guarded()

        return guarded

    def _stand_aside(self, fault: Exception) -> None:
        self._stood_aside, text = True, f"{type(fault).__name__}: {fault}"
        logger.error(
            "stepscope stops watching after step %d, and the training goes on: %s. What was recorded stays readable.",
            self.step,
            text,
        )
        with suppress(Exception):  # the fault may be the log's
            self._recorder.note("fault", text)
        self._finish(f"after a fault: {text}", crashed=True)

    # --- the tensors -----------------------------------------------------------------------------------------

    def _new_watchers(self) -> list[Watcher]:
        """Return watchers for the parameters that have none yet."""
        names, share = facts.parameter_names(self._owner, self.model), self._share
        fresh: list[Watcher] = []
        waiting = False  # for the first batch, which gives a lazy parameter its shape
        by_group: dict[int, list[Watcher]] = {g: glance.watchers for g, glance in self._glances.items()}
        for g, group in enumerate(self.optimizer.param_groups):
            for param in group["params"]:
                if torch.nn.parameter.is_lazy(param):
                    waiting = True
                elif id(param) not in self._watched:
                    self._watched.add(id(param))
                    if not share.records(param):
                        continue
                    name = names[id(param)]
                    drawn = self.seed, name, share.piece(param)
                    coordinates = Coordinates(param, self._limit, *drawn)
                    rooted = self._needs_roots(param, coordinates, group)
                    proved = None if rooted else Coordinates(param, LARGE, *drawn)
                    fresh.append(Watcher(param, name, g, coordinates, self._reader, proved))
                    fresh[-1].waits = isinstance(self.optimizer, Several)
                    by_group.setdefault(g, []).append(fresh[-1])
        if self._reader is not None:
            self._glances = {g: Glance(watchers, self._reader) for g, watchers in by_group.items()}
        self._groups_seen = [] if waiting else self._group_sizes()
        self._on_gpu = any(w.param.is_cuda for watchers in by_group.values() for w in watchers)
        return fresh

    def _part_of_run(self) -> dict[str, Any] | None:
        """Return what the metadata say of this process's part of the run; None where it is all of it."""
        if not self._share.sharded:
            return None
        names = facts.parameter_names(self._owner, self.model)
        order = [names[id(param)] for group in self._owner.param_groups for param in group["params"]]
        return {"rank": self._share.rank, "of": self._share.world, "names": order}

    def _place(self) -> str:
        """Return which part of the run this process has, in words; "" for all of it."""
        return f"rank {self._share.rank} of {self._share.world}" if self._share.sharded else ""

    def _needs_roots(self, param: torch.Tensor, coordinates: Coordinates, group: Mapping[str, Any]) -> bool:
        """Return whether sqrt(v) of a tensor has to be kept from step to step; a narrow v is too rounded to go back."""
        reader = self._reader
        if isinstance(self.optimizer, Several) or param.dtype not in NUMPY_DTYPES:
            return True
        return not (coordinates.large and reader and reader.fades(group) and kept_as(reader, group))

    def _group_sizes(self) -> list[tuple[int, int]]:
        # The last parameter's identity as well: a list may be exchanged for another of the same length.
        groups = [group["params"] for group in self.optimizer.param_groups]
        return [(len(params), id(params[-1]) if params else 0) for params in groups]

    def _watch_new_groups(self) -> None:
        sizes = self._group_sizes()
        if sizes == self._groups_seen:
            return
        if len(sizes) < len(self._groups_seen):
            raise RuntimeError(
                f"the optimizer steps on {len(sizes)} of its {len(self._groups_seen)} parameter groups; "
                "of DeepSpeed's ZeRO pass what `deepspeed.initialize` returned, not the optimizer inside."
            )
        fresh = self._new_watchers()
        if not fresh:
            return
        self._recorder.add(fresh)
        self._later.watch(self._recorder.watchers)
        self._recorder.note("group added", f"{len(fresh)} more tensors from here on")

    def _schedules(self) -> dict[str, list[float]]:
        groups = [settled(group) for group in self.optimizer.param_groups]
        rates = [*self._rates, *facts.rates(groups[len(self._rates) :])]
        return facts.schedules(groups, self._reader, rates)

    # --- what is noted -----------------------------------------------------------------------------------------

    def _log_precision(self) -> None:
        for name, share in held_fast(self._recorder.watchers, self.optimizer.state).items():
            self._recorder.add_scalar(f"precision/{name}", share)

    def _note_troubles(self, watchers: Sequence[Watcher]) -> None:
        recorder = self._recorder
        self._notes.jumps(watchers)
        failed = [w for w in watchers if w.trouble is not None]
        if failed:
            self._give_up(failed)
        formula = self._reader and self._reader.formula
        if failed or formula != self._formula:
            self._formula = formula
            recorder.write_layout()
            recorder.log.commit()

    def _give_up(self, failed: Sequence[Watcher]) -> None:
        """Read no stepsize any more of some tensors; of none if no rule was ever proved of any."""
        recorder, alike = self._recorder, dict[str, list[str]]()
        for w in failed:
            recorder.unread(recorder.watchers.index(w))
            alike.setdefault(str(w.trouble), []).append(w.name)
            w.trouble = None
        none_left = all(w.reader is None for w in recorder.watchers)
        if none_left and isinstance(self._reader, Trial) and self._reader.rule is None:
            self._reader = None
            self._notes.unreadable(facts.class_name(self.optimizer), next(iter(alike)))
        else:
            self._notes.given_up(alike)

    # --- the end ---------------------------------------------------------------------------------------------

    def _finish(self, message: str, crashed: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        OPEN.discard(self)
        for handle in self._handles:
            handle.remove()
        try:
            try:
                self._take_leave()
            finally:  # what is there is written, whatever cannot be had any more
                self._later.forget()
                with np.errstate(all="ignore"):
                    self._recorder.finish(message, crashed, wait=not self._stood_aside)
        except Exception as fault:
            if self.strict:
                raise
            if not self._stood_aside:
                _say_unwritten(fault)

    def _take_leave(self) -> None:
        """Take in what waits, and say what was held back."""
        if not self._stood_aside:
            self._catch_up()
            if self._outcomes:
                self._end_round()
        self._recorder.groups = self._schedules()
        self._alerts.close()


def refused_by_scaler(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a loss scaler told a fused optimizer to leave the parameters alone."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, torch.Tensor) and bool(found.item())


def _finish_quietly(recorder: Recorder, message: str, owner: int, later: Later | None = None) -> None:
    """Finish the record of a monitor that nobody closed, in the process that made it.

    In a context of its own: the garbage collector may call this while another `np.errstate` is being entered, and one
    entered here would free what that is reading (CPython 3.11). And outside of torch's modes: it may call in the midst
    of a compilation, where tensors are not what they are.
    """
    if os.getpid() == owner:
        try:
            with _disable_current_modes():
                context = contextvars.copy_context()
                try:
                    if later is not None:
                        context.run(later.settle, recorder)
                finally:
                    context.run(recorder.finish, message, crashed=True)
        except Exception as fault:
            _say_unwritten(fault)


def _say_unwritten(fault: Exception) -> None:
    if not isinstance(fault, StillSilent):  # of which the log was told
        logger.error("stepscope could not write the end of its record: %s: %s", type(fault).__name__, fault)


def _is_captured() -> bool:
    """Return whether what runs here is not run but put into a graph on an accelerator."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def _let_go_in_child() -> None:
    """Watch nothing in a forked process: it has the hooks as well, but the files are its parent's."""
    for monitor in list(OPEN):
        monitor._closed = monitor._stood_aside = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
