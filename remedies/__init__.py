"""What to do about a diagnosis: torch optimizers, wrappers and schedulers."""

from .adafom import AdaFom
from .clip_updates import ClipUpdates
from .cprop import CProp
from .demon import Demon
from .demon_adam import DemonAdam

__all__ = ("AdaFom", "CProp", "ClipUpdates", "Demon", "DemonAdam")
