"""Optimizers that are known to have no elementwise stepsize, or none that is read here, and why.

They are not tried: what is said of them is said at once, and their steps are recorded by size and alignment.
"""

from __future__ import annotations

_MATRICES = "its steps are made by matrices"
_SIGNS = "only signs count: a step has the size of the learning rate, whatever the gradient is"
_LINE = "it searches along a line"
_BACK = "every few steps it draws the parameters back to where they were"

_THEIRS = {
    _MATRICES: "SOAP Shampoo ScalableShampoo Kron SPlus DASH SCION SCIONLight SpectralSphere LoRARite Alice",
    _SIGNS: "Lion SignSGD Tiger FOCUS DAdaptLion EmoLynx EmoFact DeMo",
    "one scale serves a row, a column or a block of coordinates": "SM3 AdamMini NovoGrad Nero Amos Adalite RACS ROSE "
    "Fromage CAME LARS",
    "its momentum is no average of the gradients": "TAM AdaTAM AggMo PNM AdaPNM AdamG Gravity",
    "its iterates are averages of iterates": "A2Grad AccSGD SRMM",
    "its iterates are a function of all gradients since the start, not of the iterate before": "MADGRAD FTRL "
    "DAdaptAdaGrad DAdaptSGD",
    _BACK: "Ranger Ranger21",
    "it projects its steps away from the weights": "AdamP SGDP",
    "it clips single coordinates of its step": "SophiaH",
    "it updates while the gradients flow back, and no `step()` is called": "LOMO AdaLOMO",
    _LINE: "AliG",
}
"""Of pytorch_optimizer, by reason."""

WITHOUT = {f"pytorch_optimizer.{name}": reason for reason, names in _THEIRS.items() for name in names.split()} | {
    "torch.Muon": _MATRICES,
    "torch.Rprop": "only signs count: its steps grow and shrink by how often the gradient turns",
    "torch.LBFGS": _LINE,
    "optimi.Lion": _SIGNS,
    "optimi.Ranger": _BACK,
}
"""The reason by package and name of the class."""
