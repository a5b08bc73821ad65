"""Runs that get each of the verdicts, and that meet or violate each of the conditions: x²/2 with noise, and a game."""

from __future__ import annotations

from runs import Run, Runs

from stepscope import Verdict, simulate

BETAS = (0.9, 0.99)


def certified() -> Runs:
    """AMSGrad on x²/2 with Gaussian noise, at a rate that falls like 1/√t."""
    return {"AMSGrad": simulate("noisy", "amsgrad", steps=100_000, lr="0.1/sqrt(t)", betas=BETAS)}


def uncertified() -> Runs:
    """Adam on the same problem at the same rate: it arrives as well, and its stepsizes rise for ever."""
    return {"Adam": simulate("noisy", "adam", steps=100_000, lr="0.1/sqrt(t)", betas=BETAS)}


def biased() -> Runs:
    """Adam on the game 3, −1, −1, 3, −1, −1, …: it walks to the worst point of the interval."""
    return {"Adam": simulate("theorem1", "adam", steps=100_000, lr="0.5/sqrt(t)", betas=(0.0, 0.1))}


def neighbourhood() -> Runs:
    """Adam on x²/2 with Gaussian noise, at a rate that does not fall."""
    return {"Adam": simulate("noisy", "adam", steps=100_000, lr=0.01, betas=BETAS)}


def unstable() -> Runs:
    """Plain SGD on x²/2 with a rate above 2/L = 2: each step overshoots by more than the last."""
    return {"SGD": simulate("noisy", "sgd", steps=950, lr=2.5)}


def stalled() -> Runs:
    """Adam with a rate that falls like 1/t²: all steps together are shorter than the way."""
    return {"Adam": simulate("noisy", "adam", steps=100_000, lr="0.1/t**2", betas=BETAS)}


def inconclusive() -> Runs:
    """Adam with β2 = 0.999, whose memory takes 56 569 steps to judge, over 5000 steps."""
    return {"Adam": simulate("noisy", "adam", steps=5_000, lr="0.1/sqrt(t)", betas=(0.9, 0.999))}


VERDICTS: dict[Verdict, Run] = {
    Verdict.CERTIFIED: certified,
    Verdict.UNCERTIFIED: uncertified,
    Verdict.BIASED: biased,
    Verdict.NEIGHBOURHOOD: neighbourhood,
    Verdict.UNSTABLE: unstable,
    Verdict.STALLED: stalled,
    Verdict.INCONCLUSIVE: inconclusive,
}


def growth() -> Runs:
    """SGD at a rate of 1/√t, whose sum grows without end, and at 1/t², whose sum is finite."""
    return {
        "0.1/√t: a keeps growing": simulate("noisy", "sgd", steps=100_000, lr="0.1/sqrt(t)"),
        "0.1/t²: a converges": simulate("noisy", "sgd", steps=100_000, lr="0.1/t**2"),
    }


def variance() -> Runs:
    """SGD on x²/2 with noise, at a rate that falls and at one that does not."""
    return {
        "0.1/√t: holds": simulate("noisy", "sgd", steps=100_000, lr="0.1/sqrt(t)"),
        "0.1: violated": simulate("noisy", "sgd", steps=100_000, lr=0.1),
    }


def bias() -> Runs:
    """AdaFom, whose stepsizes settle, and Adam, whose do not, on x²/2 with noise."""
    return {
        "AdaFom: holds": simulate("noisy", "adafom", steps=100_000, lr=0.01),
        "Adam: violated": simulate("noisy", "adam", steps=100_000, lr="0.1/sqrt(t)", betas=BETAS),
    }


def harm() -> Runs:
    """AMSGrad and Adam on the game 3, −1, −1, 3, −1, −1, …, with a memory of hardly more than one gradient."""
    return {
        "AMSGrad: harmless": simulate("theorem1", "amsgrad", steps=100_000, lr="0.5/sqrt(t)", betas=(0.0, 0.1)),
        "Adam: harmful": simulate("theorem1", "adam", steps=100_000, lr="0.5/sqrt(t)", betas=(0.0, 0.1)),
    }


CONDITIONS: dict[str, Run] = {"growth": growth, "variance": variance, "bias": bias, "harm": harm}
"""By the attribute of a diagnosis."""
