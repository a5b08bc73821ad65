"""Computing with a user's model such that nothing of the run is different afterwards, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def undisturbed(params: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let the loss be computed, with a graph, such that nothing of the run is different afterwards."""
    with ExitStack() as stack:
        stack.enter_context(_same_random_numbers(params))
        stack.enter_context(_same_gradients(params))
        stack.enter_context(_same_buffers())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # The fused kernels of attention have no second derivative.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@contextmanager
def _same_random_numbers(params: Sequence[torch.Tensor]) -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's may be the legacy one
    places = {param.device for param in params if param.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(place.index for place in places)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _same_gradients(params: Sequence[torch.Tensor]) -> Iterator[None]:
    """Keep the gradients out of reach of a closure that zeroes or fills them."""
    held = [param.grad for param in params]
    for param in params:
        param.grad = None
    try:
        yield
    finally:
        for param, gradient in zip(params, held, strict=True):
            param.grad = gradient


@contextmanager
def _same_buffers() -> Iterator[None]:
    """Give every module that is called copies of its buffers to write to, and its own back afterwards."""
    held: list[tuple[torch.nn.Module, str, torch.Tensor]] = []
    seen: set[int] = set()

    def lend(called: torch.nn.Module, _: object) -> None:
        if id(called) in seen:
            return
        for module in called.modules():
            if id(module) in seen:
                continue
            seen.add(id(module))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    held.append((module, name, buffer))
                    module._buffers[name] = buffer.clone()

    handle = register_module_forward_pre_hook(lend)
    try:
        yield
    finally:
        handle.remove()
        for module, name, buffer in held:
            module._buffers[name] = buffer
