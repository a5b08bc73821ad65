"""What to do about a diagnosis: torch optimizers, wrappers and schedulers."""

from .adafom import AdaFom
from .autodrop import AutoDrop

__all__ = ("AdaFom", "AutoDrop")
