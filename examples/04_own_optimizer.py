"""Does a new optimizer converge where others fail? The suite of counterexamples turns on one that stands in this file.

    python examples/04_own_optimizer.py

Look at the columns outcome and theory, and at ρ: below 0 the steps climb. The table is also written as Markdown, for an
issue, and as JUnit XML, which a CI shows as test cases; there the exit code of this script is what counts.
"""

import sys
from collections.abc import Iterable

import numpy as np
import torch

from stepscope import Coefficients, Reader, View, register_reader, run_suite


class Peak(torch.optim.Optimizer):
    """Steps of size lr·g/√v, where v is the largest g² so far, and fades by beta: it rises at once and falls slowly."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float = 1e-3, beta: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["peak"] = torch.zeros_like(p)
                torch.maximum(group["beta"] * state["peak"], p.grad.square(), out=state["peak"])
                p.addcdiv_(p.grad, state["peak"].sqrt() + group["eps"], value=-group["lr"])


class PeakReader(Reader):
    """Says what multiplies the gradient; it is proved on each run. Without it only the ends would be told."""

    formula = "e = lr/(sqrt(peak) + eps), on g"

    def coefficients(self, view: View) -> Coefficients:
        return Coefficients(view.number("lr"), gain=1.0, scale=1.0, eps=view.number("eps"))

    def second_moment(self, view: View) -> np.ndarray:
        return view.take("peak")

    def direction(self, view: View) -> np.ndarray:
        return view.gradient


def main() -> None:
    register_reader(Peak, PeakReader())
    table = run_suite(Peak, steps=10_000)
    print(table)
    print(table.report("runs/peak.md"), table.report("runs/peak.xml"), sep="\n")
    sys.exit(table.exit_code)


if __name__ == "__main__":
    main()
