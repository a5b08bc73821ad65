"""Narrow number formats: the bound against torch's own rounding, and runs that they hold fast."""

import pytest
import torch
from torch import nn

from stepscope import Monitor
from stepscope.diagnostics.precision import cannot_decay, narrow

BETAS = [1 - 2.0**-k for k in range(2, 16)] + [1 - 0.99 * 2.0**-k for k in range(2, 16)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_bound_is_that_of_torch_rounding(dtype):
    """Every number between two powers of two, multiplied by β2 as Adam does it."""
    numbers = torch.arange(1.0, 2.0, torch.finfo(dtype).eps).to(dtype)
    for beta2 in BETAS:
        stays = numbers.clone().mul_(beta2) == numbers
        assert bool(stays.all()) == (cannot_decay(beta2, dtype) or 1 - beta2 == torch.finfo(dtype).eps / 4), beta2


def test_which_formats_are_narrow():
    assert narrow(torch.bfloat16)
    assert narrow(torch.float16)
    assert not narrow(torch.float32)
    assert not narrow(torch.int8)
    assert not cannot_decay(0.99, torch.bfloat16)
    assert not cannot_decay(1.0, torch.bfloat16)  # a sum, not an average
    assert not cannot_decay(float("nan"), torch.bfloat16)


def shares(dtype, steps=20, gradient=1.0, size=1.0, kind=torch.optim.Adam, **settings):
    """Run a constant gradient; return what the monitor logged last."""
    wide = nn.Parameter(torch.full((30,), size))
    tight = nn.Parameter(torch.full((10,), size, dtype=dtype))
    optimizer = kind([wide, tight], **settings)
    with Monitor(optimizer, strict=True) as monitor:
        for _ in range(steps):
            for p in (wide, tight):
                p.grad = torch.full_like(p, gradient)
            optimizer.step()
    return {name: scalar.last[-1] for name, scalar in monitor.trace.logged.items()}, tight


def test_shares_are_of_all_coordinates():
    """A quarter of them is in bfloat16; θ = 1 with steps of 1e-3 lies below half its spacing of 2⁻⁸ below one."""
    found, tight = shares(torch.bfloat16, lr=1e-3)
    assert found == {"precision/frozen": 0.25, "precision/underflow": 0.0, "precision/swallowed": 0.25}
    assert torch.equal(tight, torch.ones_like(tight))


@pytest.mark.parametrize("settings", [dict(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1), dict(lr=0.1)])
def test_adamw_and_steps_that_are_large_enough(settings):
    found, tight = shares(torch.bfloat16, kind=torch.optim.AdamW, **settings)
    assert found["precision/frozen"] == (0.25 if "betas" not in settings else 0.0)
    assert found["precision/swallowed"] == (0.0 if settings["lr"] == 0.1 else 0.25)
    assert (found["precision/swallowed"] == 0) == bool((tight != 1).all())


def test_squares_that_vanish_in_float16():
    """1e-5² · (1-β2) = 1e-13 lies below 6e-8, the smallest number there is."""
    found, _ = shares(torch.float16, gradient=1e-5, eps=1e-4)
    assert found["precision/underflow"] == 0.25


def test_wide_formats_leave_no_trace():
    found, _ = shares(torch.float32)
    assert found == {}


def test_sgd_in_bfloat16_swallows_steps_too():
    """Up to 1e-3/(1 - 0.4) = 1.7e-3, while half the spacing below θ = 1 is 2.0e-3."""
    found, _ = shares(torch.bfloat16, kind=torch.optim.SGD, lr=1e-3, momentum=0.4)
    assert found == {"precision/swallowed": 0.25}
