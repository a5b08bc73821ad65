"""The sums over all coordinates that are made on an accelerator: the kernels, plain torch and `fading.py` agree.

Without a GPU the kernels run in Triton's interpreter, on the same numbers.
"""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics import fused, later
from stepscope.diagnostics.accumulators import Coefficients
from stepscope.diagnostics.fading import add_short
from stepscope.diagnostics.ring import Pick, Ring
from stepscope.diagnostics.trace import SUMS

HERE = torch.device("cpu")
COUNTS = [SUMS.index(name) for name in ("active", "nonfinite", "compared", "eps_bound")]
NOW = [SUMS.index(name) for name in ("a", "b", "g2", "rms2", "e2")]
"""What needs no v of before."""
ODD = [0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-30, 3e38]


def kernels():
    """Return the module of the kernels; they are tried where the tests' own requirements put Triton."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        from stepscope.diagnostics import fused_triton

        return fused_triton
    pytest.skip("Triton is for Linux on x86-64")


def coefficients(t, lr):
    beta1, beta2 = 0.9, 0.99
    gain, scale = 1 / (1 - beta1**t), (1 - beta2**t) ** -0.5
    return np.array(Coefficients(lr, gain, scale, 1e-8, beta1, beta2=beta2))


def sums_of(module, pairs, its):
    """Return the sums of each pair, `(pairs, 20)`, as a ring makes them."""
    ring = Ring(HERE, [Pick(1)], [torch.float32], len(pairs), module)
    ring.write([torch.zeros(1)], pairs, its)
    ring.send()
    return ring.receive()[0][0]


@st.composite
def tensors(draw):
    """Return v and g of a tensor whose size lies about the borders of the blocks, with odd numbers strewn in."""
    size = draw(st.sampled_from([1, 2, 255, 1023, 1024, 1025, 3000, 2**14 - 1, 2**14, 2**14 + 1]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    g = torch.randn(size, generator=generator) * 10.0 ** draw(st.integers(-3, 2))
    if draw(st.booleans()):
        g = g.bfloat16()
    # Not too near the ten thousandfold growth beyond which v before is not known: there roundings decide.
    before = torch.randn(size, generator=generator).clamp(min=0.1).square() * g.abs().float().mean() ** 2
    before[draw(st.integers(0, size - 1)) :] *= draw(st.sampled_from([0.0, 1e-9, 1.0]))
    v = 0.99 * before + 0.01 * g.float().square()
    for x in (v, g):
        for odd in draw(st.lists(st.sampled_from(ODD), max_size=3)):
            x[draw(st.integers(0, size - 1))] = odd
    return v, g


@pytest.mark.parametrize("module", [None, pytest.param("triton", marks=pytest.mark.slow)])
@settings(max_examples=25)
@given(pairs=st.lists(tensors(), min_size=1, max_size=2), t=st.sampled_from([1, 2, 30, 5000]), fresh=st.booleans())
def test_the_sums_are_those_of_the_compiled_loop(module, pairs, t, fresh):
    now = np.stack([coefficients(t + 1, 0.01)] * len(pairs))
    then = np.zeros_like(now) if fresh else np.stack([coefficients(t, 0.011)] * len(pairs))
    with np.errstate(all="ignore"):  # the interpreter computes with numpy
        found = sums_of(kernels() if module else None, pairs, fused.scalars(now, then))
    for k, (v, g) in enumerate(pairs):
        expected = np.zeros(len(SUMS))
        add_short(v.numpy(), g.float().numpy(), now[k], then[k], expected)
        np.testing.assert_array_equal(found[k, COUNTS], expected[COUNTS])
        np.testing.assert_allclose(found[k, NOW], expected[NOW], rtol=1e-5)
        # What v was carries up to ten thousand of its roundings.
        np.testing.assert_allclose(found[k], expected, rtol=2e-3, atol=1e-30)


def test_a_row_holds_what_was_picked():
    """From every dtype, at places and in order, across the borders of blocks."""
    generator = torch.Generator().manual_seed(0)
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    for chosen in (dtypes[:3], dtypes):
        own = [torch.randn(2000, generator=generator).to(dtype) for dtype in chosen for _ in range(2)]
        index = np.random.default_rng(0).permutation(2000)[:777]
        picks = [Pick(777, index if i % 2 else None) for i in range(len(own))]
        for module in (None, kernels()):
            ring = Ring(HERE, picks, [x.dtype for x in own], 0, module)
            for shift in (0, 1):
                ring.write([x + shift for x in own], [], np.zeros((0, fused.SCALARS), np.float32))
            ring.send()
            _, numbers = ring.receive()
            for i, (x, where) in enumerate(zip(own, ring.slices, strict=True)):
                for shift in (0, 1):
                    expected = (x + shift)[index if i % 2 else slice(777)]
                    np.testing.assert_array_equal(numbers[shift, where], expected.to(ring.dtype).numpy())


@pytest.mark.parametrize("coordinates", [64, "all"])
def test_a_run_with_the_kernels_is_one_without(coordinates, monkeypatch):
    monkeypatch.setattr(later, "ACCELERATORS", ("cpu",))
    monitors = []
    for module in (None, kernels()):
        monkeypatch.setattr(later, "kernels", lambda kind, module=module: module)
        params = [torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in (5000, 40)]
        optimizer = torch.optim.AdamW(params, lr=0.01, fused=True)
        monitors.append(Monitor(optimizer, coordinates=coordinates, strict=True))
        for t in range(25):
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(31 * t + i))
            optimizer.step()
    plain, fast = (monitor.trace.values for monitor in monitors)
    np.testing.assert_allclose(fast, plain, rtol=2e-5 if coordinates == "all" else 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernels_run_on_this_gpu():
    kernels().try_out(torch.device("cuda"))


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from stepscope.diagnostics import fused_triton as f

whole, double = "*i64", "*fp64"
sums = {"addresses": whole, "scalars": "*fp32", "plan": whole, "partial": double}
for kernel, arguments, constants in (
    (f.pick, {"addresses": whole, "plan": whole, "places": whole, "out": "*fp32"}, {"WIDTH": f.BLOCK}),
    (f.pick, {"addresses": whole, "plan": whole, "places": whole, "out": double}, {"WIDTH": f.BLOCK}),
    (f.add_chunk, sums, {"WIDTH": f.LANES, "PER": f.CHUNK // f.LANES, "LEAST": f.ENOUGH}),
    (f.add_up, {"partial": double, "chunks": whole, "out": double}, {"COUNT": f.COLUMNS}),
):
    source = ASTSource(kernel, arguments | dict.fromkeys(constants, "constexpr"), constants)
    assert "cubin" in compile(source, target=GPUTarget("cuda", 80, 32)).asm
"""


def test_the_kernels_compile_for_a_gpu(tmp_path):
    """Which needs no GPU, but a process that does not interpret them."""
    kernels()
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=environment)


def test_importing_stepscope_imports_no_triton():
    code = "import sys, stepscope; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
