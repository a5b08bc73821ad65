"""From a finding to a remedy: which method is made for what was seen, why, and the two lines that put it in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .effective_rate import SUMS


@dataclass(frozen=True)
class Remedy:
    """A method of `stepscope.remedies` that is made for a finding."""

    name: str
    finding: str
    """What is seen, in words."""
    reason: str
    """Why it helps against that."""
    reference: str
    lines: tuple[str, str]
    """How it is put in place, right after the line that makes `optimizer`."""
    takes: Literal["any", "adam", "torch's adam", "momentum"] = "any"
    """Which optimizers it can follow: only of Adam's kind the rate means the same to the other of that kind.

    "momentum" is one that adds gradients up: where it averages them, a step is as long whatever the momentum is.
    """

    def fits(self, optimizer: str, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether it can follow a class, by its dotted name, with groups of such settings."""
        if optimizer.startswith("stepscope."):  # whoever put a remedy in place knows the others
            return False
        if self.takes == "momentum":
            return optimizer in SUMS and all(group.get("momentum") for group in groups)
        adam = self.takes == "any" or all({"betas", "eps"} <= group.keys() for group in groups)
        return adam and (self.takes != "torch's adam" or optimizer.startswith("torch.optim."))


REDDI = "Reddi, Kale and Kumar, ICLR 2018"
UPHILL = "the steps go against the mean gradient"
SKEWED = "rare large gradients ask for a larger beta2"
RISING = "the stepsizes keep rising, so there is no certificate"
NOISE = "the noise of the steps does not die out"
SURGED = "updates surged, out of all proportion to what came before"


def imported(name: str, line: str) -> tuple[str, str]:
    """Return a line that uses a remedy, behind the one that imports it."""
    return f"from stepscope.remedies import {name}", line


def exchanged(name: str, settings: str = "") -> tuple[str, str]:
    """Return the lines that exchange an optimizer for another of the same groups and settings."""
    return imported(name, f"optimizer = {name}.after(optimizer{settings and ', '}{settings})")


def weighed_in_full(finding: str) -> tuple[Remedy, ...]:
    """Return what gives rare large gradients their full weight."""
    return (
        Remedy(
            "AMSGrad",
            finding,
            "its stepsizes never rise, so a gradient that was rare and large is remembered for good; with a rate that "
            "falls as 1/sqrt(t) theory lets it converge",
            REDDI,
            exchanged("AMSGrad"),
            "adam",
        ),
        Remedy(
            "ADOPT",
            finding,
            "divides a gradient by what was known before it came, so that none makes itself small",
            "Taniguchi et al., arXiv 2411.02853",
            exchanged("ADOPT", "clip=None"),
            "adam",
        ),
        Remedy(
            "AdaShift",
            finding,
            "divides by gradients of some steps ago, which know nothing of the present one",
            "Zhou et al., ICLR 2019, arXiv 1810.00143",
            exchanged("AdaShift", 'spatial="none"'),
            "adam",
        ),
    )


REMEDIES: dict[str, tuple[Remedy, ...]] = {
    "harm": weighed_in_full(UPHILL),
    "skewed": weighed_in_full(SKEWED),
    "rises": (
        weighed_in_full(RISING)[0],
        Remedy(
            "AdaFom",
            RISING,
            "weighs all squared gradients alike, so its stepsizes change by O(1/t) and c/a vanishes",
            "Chen, Liu, Sun and Hong, ICLR 2019, arXiv 1808.02941",
            exchanged("AdaFom"),
            "adam",
        ),
    ),
    "noise_ball": (
        Remedy(
            "AutoDrop",
            NOISE,
            "lowers the rate when the path has stopped going anywhere; call scheduler.step() once an epoch",
            "Teng, Wang and Choromanska, arXiv 2111.15317",
            imported("AutoDrop", "scheduler = AutoDrop(optimizer)"),
        ),
        Remedy(
            "Demon",
            NOISE,
            "lets the total weight of a gradient fall linearly to the end of the run, as a falling rate does; put the "
            "planned number of steps in",
            "Chen, Wolfe, Li and Kyrillidis, arXiv 1910.04952",
            imported("Demon", "optimizer = Demon(optimizer, steps=total_steps)"),
            "momentum",
        ),
    ),
    "update surge": (
        Remedy(
            "ClipUpdates",
            SURGED,
            "divides the step of a tensor by its RMS_t where that is above 1, so that gradients which outgrow their "
            "second moment make no longer steps",
            "Wortsman et al., arXiv 2304.13013",
            imported("ClipUpdates", "optimizer = ClipUpdates(optimizer)"),
            "torch's adam",
        ),
    ),
}
"""By the function of `findings.py` that sees it, or the rule of the alert; the first is to be tried first."""
