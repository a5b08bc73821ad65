"""Worlds where the answer is known: problems, the order in which they arrive, and what is played on them."""

from .arrivals import Cyclic, Random, Shuffled
from .games import ONLINE, THEOREM1, OnlineGame
from .noise import Gaussian, HeavyTailed, TwoPoint
from .problem import Problem

__all__ = (
    "ONLINE",
    "THEOREM1",
    "Cyclic",
    "Gaussian",
    "HeavyTailed",
    "OnlineGame",
    "Problem",
    "Random",
    "Shuffled",
    "TwoPoint",
)
