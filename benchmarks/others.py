"""Which optimizers of other packages are read: the table of docs/others.md.

    python benchmarks/others.py                          # all that is installed, two minutes
    python benchmarks/others.py --write                  # into docs/others.md
    python benchmarks/others.py pytorch_optimizer.Adan   # one

Each trains a small network twice from the same seed, with a monitor and without, and must end with the same bits.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepscope import Monitor

PAGE = Path(__file__).parents[1] / "docs" / "others.md"
BEGIN, END = "<!-- the table begins -->", "<!-- the table ends -->"
STEPS = 60

Make = Callable[[torch.nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Row:
    """What came of one optimizer: `why` says what keeps the other tensors from being read."""

    name: str
    unchanged: bool
    read: int
    tensors: int
    proofs: int
    formula: str
    why: str

    def __str__(self) -> str:
        said = "; ".join(part for part in (self.formula and f"`{self.formula}`", self.why) if part)
        return f"| `{self.name}` | {self.read} of {self.tensors} | {self.proofs} | {said.replace('|', '&#124;')} |"


# --- what there is ------------------------------------------------------------------------------------------------

MUONS = ("adago", "adamuon", "distributedmuon", "muon", "muonclip", "normuon")
SECOND_ORDER = ("AdaHessian", "SophiaH")
"""They differentiate the gradient again, so that it needs a graph."""
CLOSURES = ("AliG", "BSAM", "LBFGS")
SETTINGS: dict[str, dict[str, Any]] = {
    "adafactor": {"momentum_dtype": torch.float32},  # rounded to bfloat16 by default, which no formula can prove
    "adams": {"weight_decay": 0.0},  # by default it decays with a mean over all tensors, which no single one knows
    "alig": {"max_lr": 0.1},
    "bsam": {"num_data": 16, "foreach": False},
    "ranger21": {"num_iterations": 100},
    "sara": {"threshold": 1.0},  # it moves only what is smaller
}


def pytorch_optimizers() -> Iterator[tuple[str, Make]]:
    """Yield every optimizer of pytorch_optimizer."""
    from pytorch_optimizer import get_supported_optimizers, load_optimizer

    for name in get_supported_optimizers():
        kind = load_optimizer(name)

        def make(model: torch.nn.Module, name: str = name, kind: Any = kind) -> torch.optim.Optimizer:
            params = list(model.parameters())
            if "model" in inspect.signature(kind).parameters:
                return kind(model)
            if name == "spectralsphere":  # of matrices only
                params = [p for p in params if p.ndim == 2]
            if name in MUONS:
                halves = [p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]
                params = [{"params": half, "use_muon": i == 0} for i, half in enumerate(halves)]
            return kind(params, **SETTINGS.get(name, {}))

        yield f"pytorch_optimizer.{kind.__name__}", make


OTHERS: dict[str, tuple[str, ...]] = {
    "transformers": ("Adafactor",),
    "bitsandbytes.optim": (
        *("Adam", "AdamW", "Adam8bit", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit", "AdEMAMix8bit", "LAMB8bit"),
        *("Lion8bit", "RMSprop8bit", "Adagrad8bit"),
    ),
    "torchao.optim": ("Adam8bit", "AdamW8bit", "Adam4bit", "AdamW4bit", "AdamFp8", "AdamWFp8"),
    "optimi": ("Adam", "AdamW", "StableAdamW", "Adan", "RAdam", "SGD", "Lion", "Ranger"),
    "schedulefree": ("AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"),
}
GIVEN: dict[str, dict[str, Any]] = {
    "transformers": {},
    "bitsandbytes.optim": {"lr": 1e-3, "min_8bit_size": 256},
    "torchao.optim": {"lr": 1e-3},
    "optimi": {"lr": 1e-3, "triton": False},  # else StableAdamW takes its kernels on a CPU as well where Triton is
    "schedulefree": {},
}


def others() -> Iterator[tuple[str, Make]]:
    """Yield the optimizers of the other packages, as far as they are installed."""
    for package, names in OTHERS.items():
        with suppress(ImportError):
            module = importlib.import_module(package)
            for name in names:
                kind, settings = getattr(module, name), GIVEN[package]
                yield f"{package}.{name}", lambda model, kind=kind, given=settings: kind(model.parameters(), **given)


# --- a run ---------------------------------------------------------------------------------------------------------


def train(name: str, make: Make, watched: bool, steps: int = STEPS) -> tuple[list[torch.Tensor], Monitor | None, int]:
    """Return the parameters at the end, the monitor, and how many proofs of a formula were stood."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    optimizer, kind = make(model), name.rpartition(".")[2]
    if isinstance(getattr(optimizer, "train", None), Callable):
        optimizer.train()  # the schedule-free ones
    monitor = Monitor(optimizer, model=model, coordinates=500, strict=True) if watched else None
    proofs = 0
    for _ in range(steps):
        x, y = torch.randn(16, 6), torch.randn(16, 4)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            with torch.enable_grad():
                optimizer.zero_grad()
                loss = (model(x) - y).square().mean()
                loss.backward(create_graph=kind in SECOND_ORDER)
            return loss

        if kind in ("LOMO", "AdaLOMO"):
            optimizer.fused_backward((model(x) - y).square().mean(), lr=1e-3)
        else:
            closure()
            optimizer.step(*[closure] * (kind in CLOSURES))
        if monitor and monitor._recorder.schedule.proves(monitor.step):
            proofs += sum(w.reader is not None and w.proof == w.proof for w in monitor._recorder.watchers)
    return [p.detach().clone() for p in model.parameters()], monitor, proofs


def try_out(name: str, make: Make, steps: int = STEPS) -> Row:
    """Return what came of an optimizer; one that fails without a monitor is said to."""
    try:
        plain, _, _ = train(name, make, watched=False, steps=steps)
    except Exception as fault:
        return Row(name, True, 0, 0, 0, "", f"fails without a monitor: {type(fault).__name__}: {fault}")
    after, monitor, proofs = train(name, make, watched=True, steps=steps)
    assert monitor is not None
    monitor.close()
    watchers = monitor._recorder.watchers
    read = [w for w in watchers if w.reader is not None]
    formula = read[0].reader.formula if proofs and read[0].reader else ""
    reasons = dict.fromkeys(e.message for e in monitor.trace.events if e.kind == "unreadable")
    why = "; ".join(reason.partition("; update size")[0] for reason in reasons)
    if read and not proofs:
        why = "no step was larger than the rounding of θ"
    unchanged = all(torch.equal(p, q) for p, q in zip(plain, after, strict=True))
    return Row(name, unchanged, len(read) if proofs else 0, len(watchers), proofs, formula, short(why))


def short(why: str) -> str:
    """Return the reason without the words that all of them share."""
    _, known, reason = why.partition("no elementwise stepsize is known for ")
    return reason.partition(" (")[2].removesuffix(")") if known else why.partition(": something beside")[0]


def prepare() -> None:
    """Let the machine repeat itself, and give those that ask for one a process group of one."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    torch.compile = lambda function, **_: function  # torchao compiles its step; the arithmetic is the same
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown, and the count below it."""
    head = [
        "| optimizer | tensors read | proofs | the stepsize, and what keeps it from being read |",
        "|---|---|---|---|",
    ]
    whole = sum(0 < row.read == row.tensors for row in rows)
    partly = sum(0 < row.read < row.tensors for row in rows)
    failed = sum(row.tensors == 0 for row in rows)
    changed = [row.name for row in rows if not row.unchanged]
    rest = len(rows) - whole - partly - failed
    count = (
        f"{len(rows)} optimizers: {whole} read, {partly} in part, {rest} recorded by update size and alignment, "
        f"{failed} that fail by themselves. Runs changed by the monitor: {len(changed)}."
    )
    return "\n".join([*head, *map(str, rows), "", count])


def main() -> None:
    """Print the table, or write it into its page."""
    parser = argparse.ArgumentParser(description="Which optimizers of other packages are read.")
    parser.add_argument("names", nargs="*", help="package.Class; all if none is given")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    chosen = parser.parse_args()
    prepare()
    made = [(name, make) for name, make in (*pytorch_optimizers(), *others()) if name in (chosen.names or [name])]
    text = table([try_out(name, make) for name, make in made])
    if chosen.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
    else:
        print(text)


if __name__ == "__main__":
    main()
