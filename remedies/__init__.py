"""What to do about a diagnosis: torch optimizers, wrappers and schedulers."""

from .adafom import AdaFom

__all__ = ("AdaFom",)
