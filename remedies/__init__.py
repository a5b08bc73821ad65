"""What to do about a diagnosis: torch optimizers, wrappers and schedulers."""

from .adafom import AdaFom
from .adai import Adai, AdaiV2
from .adashift import AdaShift
from .adopt import ADOPT
from .amsgrad import AMSGrad
from .autodrop import AutoDrop
from .clip_updates import ClipUpdates
from .cprop import CProp
from .demon import Demon
from .demon_adam import DemonAdam

__all__ = (
    "ADOPT",
    "AMSGrad",
    "AdaFom",
    "AdaShift",
    "Adai",
    "AdaiV2",
    "AutoDrop",
    "CProp",
    "ClipUpdates",
    "Demon",
    "DemonAdam",
)
