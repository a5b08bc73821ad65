"""Worlds where the answer is known."""

from .reddi2018 import ONLINE, THEOREM1, OnlineGame

__all__ = ("ONLINE", "THEOREM1", "OnlineGame")
