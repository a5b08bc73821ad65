"""The edge of stability: the largest curvature that a run's steps meet, against the largest that they can bear.

Near a point the loss is a quadratic with Hessian H. Take a step x ← x - e∘d with frozen stepsizes e, where d is the
gradient or a momentum of it. The run first swings out where x flips its sign from step to step. There the momentum
makes d = boost·g of the gradient, with boost = (1-β1)/(1+β1) for an average (Adam) and 1/(1+μ) for a sum (SGD).
Hence -2x = -e∘boost∘Hx, and the edge is where

    λ_max(S^½ H S^½) = 1,    S = e·boost/2.

This eigenvalue is the `ratio`. With e = η/P it is λ_max(P⁻¹H) over the threshold 2/(boost·η): (2+2β1)/((1-β1)η) for
Adam (Cohen et al. 2022, arXiv 2207.14484), 2(1+μ)/η for SGD with momentum, 2/η without. Groups may differ in e and
boost; the condition stays exact. It is derived here for one frozen step, and says nothing of how P moves.

H comes from a loss that the user hands over, by Hessian-vector products; the eigenvalue by Lanczos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Coefficients
from .facts import class_name
from .readers import reader_of
from .sampling import Coordinates, as_numpy
from .stepsizes import SGD, Adadelta, Adafactor, Reader, RMSprop, View, stepsize
from .undisturbed import undisturbed

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Array = NDArray[np.float64]
Closure = Callable[[], torch.Tensor]

ACCURACY = 1e-3
"""Relative error of the eigenvalue; batches scatter it far more."""
BASIS = 20
"""Lanczos vectors held at a time, each as long as the parameters; up to so many coordinates H is built whole."""
RESTARTS = 50
NEEDS_GRADIENT = (Adadelta, Adafactor)
"""Readers of rules whose stepsize depends on the newest gradient itself."""


@dataclass(frozen=True)
class Edge:
    """Curvature against the edge of stability: `ratio` = `sharpness`/`threshold`, and 1 is the edge."""

    sharpness: float
    """λ_max(P⁻¹H), P = lr/e. Where groups differ, in the unit of the group whose threshold is lowest."""
    threshold: float
    """What a frozen step can bear: (2+2β1)/((1-β1)·lr) for Adam."""
    ratio: float
    iterations: int
    """Hessian-vector products that it took."""


@dataclass(frozen=True)
class Piece:
    """One parameter with S = e·boost/2 per coordinate, the L2 term that its loss lacks, and its threshold."""

    param: torch.Tensor
    scale: Array
    decay: float
    threshold: float


def edge(optimizer: torch.optim.Optimizer, closure: Closure) -> Edge:
    """Measure how near the optimizer's next step is to the edge of stability, on the loss that `closure` returns.

    The run is left as it was: random numbers of torch, numpy and Python, gradients, buffers of modules (the statistics
    of a batch norm in training mode, say), `requires_grad` and the autograd graph. A generator or an iterator of the
    closure's own does move on.

    Args:
        optimizer: as it stands after a step.
        closure: returns the loss as a tensor, without calling backward; a fixed batch is best, as large as can be. What
            is measured is that batch's curvature.

    Raises:
        ValueError: for an optimizer without a readable stepsize or before its first step, for NaN or infinities in its
            parameters, second moments or learning rate, and for a closure that is no function, or returns no loss that
            can be differentiated twice.
    """
    if not callable(closure):
        raise ValueError(
            f"`closure` must be a function that returns the loss, got {type(closure).__name__}; write "
            "`lambda: loss_function(model(x), y)`, so that the loss can be computed anew."
        )
    pieces = list(_pieces(optimizer))
    threshold = min((piece.threshold for piece in pieces), default=math.inf)
    if not math.isfinite(threshold):
        return Edge(math.nan, math.inf, 0.0, 0)  # every learning rate is 0
    params = [piece.param for piece in pieces]
    with undisturbed([param for group in optimizer.param_groups for param in group["params"]]):
        hessian = Hessian(params, _loss(closure))
        scaled = Scaled(hessian, pieces, -1.0 if optimizer.param_groups[0].get("maximize") else 1.0)
        ratio = largest_eigenvalue(scaled, sum(len(piece.scale) for piece in pieces))
    return Edge(ratio * threshold, threshold, ratio, hessian.products)


# --- the steps ---------------------------------------------------------------------------------------------------


def _pieces(optimizer: torch.optim.Optimizer) -> Iterator[Piece]:
    """Yield every parameter that the optimizer moves."""
    reader = reader_of(optimizer)
    kind = class_name(optimizer)
    if reader is None:
        raise ValueError(f"`optimizer` must have a readable elementwise stepsize, got {kind}; the edge needs one.")
    if not reader.has_edge:
        raise ValueError(f"`optimizer` must be of a kind whose edge is known, got {kind}, of which none is.")
    if reader.keeps_state and not any(optimizer.state.values()):
        raise ValueError(f"`optimizer` must have taken a step, got {kind} with an empty state; measure after a step.")
    for group in optimizer.param_groups:
        for param in group["params"]:
            state = optimizer.state.get(param, {})
            moves = param.requires_grad and param.numel() > 0 and (state or not reader.keeps_state)
            if moves:
                yield _piece(reader, param, group, state)


def _piece(reader: Reader, param: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> Piece:
    if param.is_complex():
        raise ValueError("`optimizer` must have real parameters, got a complex one, for which there is no edge here.")
    view = View(param, Coordinates(param, None, 0, ""))
    view.group, view.state, view.step = group, state, float(state.get("step", 1.0))
    view.gradient = np.zeros(param.numel()) if param.grad is None else view.coordinates.take(param.grad)
    if isinstance(reader, NEEDS_GRADIENT) and param.grad is None:
        raise ValueError(
            f"`optimizer` must hold the gradients of its newest step, as {reader.formula} needs them, got none; "
            "measure before `zero_grad`."
        )
    try:
        reader.remember(view, proving=False)
        now, v = reader.coefficients(view), reader.second_moment(view)
    except LookupError as error:
        raise ValueError(f"`optimizer` must have taken a step, got no {error} in its state; step first.") from error
    _check_finite(param, v, now.lr)
    rate = boost(reader, group, now)
    shrink = now.lr * float(group.get("weight_decay", 0.0)) if reader.decoupled(group) else 0.0
    room = max(2.0 - shrink, 1e-9)  # -x = (1 - lr·decay) x - e∘boost∘Hx; a decay of 2/lr flips signs by itself
    decay = float(group["weight_decay"]) if reader.adds_decay_to_gradient(group) else 0.0
    threshold = room / (rate * now.lr) if now.lr > 0 else math.inf
    return Piece(param, np.asarray(stepsize(now, v) * rate / room, dtype=np.float64), decay, threshold)


def _check_finite(param: torch.Tensor, v: NDArray[Any], lr: float) -> None:
    """Refuse a broken run: coordinates without a number would drop out, and the rest seem far from the edge."""
    broken = {
        "the learning rate": math.isfinite(lr),
        f"a parameter of shape {tuple(param.shape)}": bool(torch.isfinite(param).all()),
        f"the second moment of a parameter of shape {tuple(param.shape)}": bool(np.isfinite(v).all()),
    }
    for what, finite in broken.items():
        if not finite:
            raise ValueError(
                f"`optimizer` must hold finite numbers, got NaN or infinities in {what}: the run broke and has no "
                "edge; go back to a checkpoint from before that."
            )


def boost(reader: Reader, group: dict[str, Any], now: Coefficients) -> float:
    """Return what the momentum makes of a gradient that flips its sign from step to step, relative to that gradient."""
    momentum = float(group.get("momentum") or 0.0)
    if isinstance(reader, SGD) and momentum:
        buffer = (1.0 - float(group["dampening"])) / (1.0 + momentum)
        return 1.0 + momentum * buffer if group["nesterov"] else buffer
    if isinstance(reader, RMSprop):
        return 1.0 / (1.0 + momentum)
    average = (1.0 - now.beta1) / (1.0 + now.beta1)
    return now.nesterov + (1.0 - now.nesterov) * average


# --- the curvature -----------------------------------------------------------------------------------------------


class Hessian:
    """Products with the Hessian of a loss, from one graph that is kept as long as this object."""

    def __init__(self, params: Sequence[torch.Tensor], loss: torch.Tensor) -> None:
        self.params, self.products = params, 0
        with _twice_differentiable():
            grads = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
        self.live = [(g, i) for i, g in enumerate(grads) if g is not None and g.requires_grad]
        """Gradients that depend on a parameter at all, with their places."""

    def __call__(self, vectors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return H times a vector, both cut into pieces of the parameters' shapes."""
        self.products += 1
        if not self.live:
            return [torch.zeros_like(param) for param in self.params]
        with _twice_differentiable():
            return torch.autograd.grad(
                [gradient for gradient, _ in self.live],
                self.params,
                [vectors[i] for _, i in self.live],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )


class Scaled:
    """Products with S^½ (H + decay) S^½ for flat vectors of numpy; `rayleigh` is the largest quotient met."""

    def __init__(self, hessian: Hessian, pieces: Sequence[Piece], sign: float) -> None:
        self.hessian, self.pieces, self.sign = hessian, pieces, sign
        self.root: Array = np.sqrt(np.concatenate([piece.scale for piece in pieces]))
        self.decay: Array = np.concatenate([np.full(len(piece.scale), piece.decay) for piece in pieces])
        self.rayleigh = -math.inf

    def __call__(self, x: Array) -> Array:
        """Return the product with x, `(n,)`."""
        scaled = self.root * x.ravel()
        parts = np.split(scaled, np.cumsum([len(piece.scale) for piece in self.pieces])[:-1])
        vectors = [
            torch.from_numpy(part).to(piece.param).reshape(piece.param.shape)
            for part, piece in zip(parts, self.pieces, strict=True)
        ]
        product = np.concatenate([as_numpy(h.detach().reshape(-1)) for h in self.hessian(vectors)])
        y: Array = self.root * (self.sign * product + self.decay * scaled)
        self.rayleigh = max(self.rayleigh, float(x.ravel() @ y) / float(x.ravel() @ x.ravel()))
        return y


def largest_eigenvalue(product: Scaled, n: int) -> float:
    """Return the largest eigenvalue of a symmetric operator of n coordinates; NaN where it is not finite."""
    if n <= BASIS:
        matrix = np.stack([product(column) for column in np.eye(n)])
        return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]) if np.isfinite(matrix).all() else math.nan
    start = np.random.default_rng(0).standard_normal(n)
    first = product(start)
    if not np.isfinite(first).all():
        return math.nan
    if not first.any():
        return 0.0
    return _lanczos(product, start, n)


def _lanczos(product: Scaled, start: Array, n: int) -> float:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator: LinearOperator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    settings = dict(k=1, which="LA", v0=start, tol=ACCURACY, ncv=BASIS, maxiter=RESTARTS, return_eigenvectors=False)
    try:
        return float(eigsh(operator, **settings)[-1])
    except ArpackNoConvergence:
        return product.rayleigh  # a bound from below, and a close one after so many products


def _loss(closure: Closure) -> torch.Tensor:
    """Return the closure's loss with its graph."""
    loss = closure()
    if not isinstance(loss, torch.Tensor):
        got = type(loss).__name__
    elif loss.numel() != 1 or not loss.requires_grad:
        got = f"shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a graph")
    else:
        return loss.reshape(())
    raise ValueError(f"`closure` must return the loss as a tensor with one element and its graph, got {got}.")


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"`closure` must return a loss that can be differentiated twice, got: {error} Return it without calling "
            "backward, from the model itself and not a compiled or distributed wrapper of it."
        ) from error
