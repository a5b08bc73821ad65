"""The 2-cycle and the edge against plain loops of Adam and of the heavy ball."""

import math

import numpy as np
import pytest

from stepscope.synthetic.cycles import adaptive_edge, cycle_multiplier, two_cycle

ALPHA = 0.01


def adam(x, m, v, beta1, beta2, steps, *, h=1.0, eps=0.0, inside=True):
    """Adam without bias correction on h x²/2; all iterates."""
    path = [x]
    for _ in range(steps):
        g = h * x
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        x -= ALPHA * m / (math.sqrt(v + eps) if inside else math.sqrt(v) + eps)
        path.append(x)
    return np.array(path)


def on_cycle(amplitude, beta1, h):
    """State before a step taken at +amplitude: m from the opposite point, v settled."""
    return amplitude, -(1 - beta1) / (1 + beta1) * h * amplitude, (h * amplitude) ** 2


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("beta2", [0.9, 0.999])
@pytest.mark.parametrize(("eps", "inside"), [(0.0, True), (1e-6, True), (1e-3, False)])
def test_adam_stays_on_the_cycle(beta1, beta2, eps, inside):
    h = 7.0
    amplitude = two_cycle(ALPHA, beta1, curvature=h, eps=eps, inside=inside)
    path = adam(*on_cycle(amplitude, beta1, h), beta1, beta2, 10, h=h, eps=eps, inside=inside)
    # 1e-11: ten steps enlarge the rounding by less than 1.4^10 where the cycle is unstable
    assert path == pytest.approx(amplitude * (-1.0) ** np.arange(11), rel=1e-11)


def test_the_amplitude():
    assert two_cycle(ALPHA, 0.9) == pytest.approx(ALPHA / 38)
    assert two_cycle(ALPHA, 0.0) == pytest.approx(5e-3)
    # Chen's figure 1, 100 x² (curvature 200): from x = 1 to ±α/2
    end = adam(1.0, 0.0, 0.0, 0.0, 0.9, 4000, h=200.0)[-2:]
    assert np.abs(end) == pytest.approx([ALPHA / 2, ALPHA / 2], rel=1e-9)
    assert end[0] * end[1] < 0


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_eps_ends_the_cycle_where_it_says(inside, factor):
    """Below the limit Adam (β1 = 0, where the cycle is stable) ends on it; above, at zero."""
    h = 2.0
    limit = h * ALPHA / 2
    eps = (limit**2 if inside else limit) * factor
    amplitude = two_cycle(ALPHA, 0.0, curvature=h, eps=eps, inside=inside)
    end = abs(adam(0.003, 0.0, 0.0, 0.0, 0.9, 20_000, h=h, eps=eps, inside=inside)[-1])
    assert (amplitude is None) == (factor > 1)
    assert end == pytest.approx(amplitude or 0.0, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.0, 0.5), (0.1, 0.9), (0.5, 0.9), (0.9, 0.99), (0.9, 0.999)])
def test_a_deviation_grows_as_the_multiplier_says(betas):
    multiplier, amplitude = cycle_multiplier(*betas), two_cycle(ALPHA, betas[0])
    x, m, v = on_cycle(amplitude, betas[0], 1.0)
    deviation, steps = 1e-9, 60  # small enough to stay linear, large against rounding
    path = adam(x * (1 + deviation), m, v, *betas, steps)
    plain = adam(x, m, v, *betas, steps)
    relative = np.abs(path - plain) / amplitude
    # of a complex pair the size swings: compare the envelopes of the third and the sixth score of steps
    growth = (relative[41:61].max() / relative[21:41].max()) ** (1 / 20)
    assert growth == pytest.approx(multiplier, rel=0.06)


def test_where_the_cycle_is_stable():
    for beta2 in (0.01, 0.1, 0.5, 0.9, 0.99, 0.9999):
        assert cycle_multiplier(0.0, beta2) < 1.0
    for betas in ((0.5, 0.9), (0.9, 0.9), (0.9, 0.99), (0.9, 0.999)):
        assert cycle_multiplier(*betas) > 1.0
        x, m, v = on_cycle(two_cycle(ALPHA, betas[0]), betas[0], 1.0)
        end = np.abs(adam(x * (1 + 1e-6), m, v, *betas, 20_000)[-200:]) / x
        assert end.std() > 0.01  # thrown off, and not back


@pytest.mark.parametrize(("beta1", "constant"), [(0.0, 2.0), (0.5, 6.0), (0.9, 38.0), (0.99, 398.0)])
def test_the_adaptive_edge(beta1, constant):
    eta = 0.03
    edge = adaptive_edge(eta, beta1)
    assert edge * eta == pytest.approx(constant, rel=1e-12)

    def radius(curvature):
        first = (1 - beta1) * curvature
        return np.abs(np.linalg.eigvals([[1 - eta * first, -eta * beta1], [first, beta1]])).max()

    assert radius(edge) == pytest.approx(1.0, abs=1e-12)
    assert radius(edge * 0.999) < 1.0 < radius(edge * 1.001)


def test_the_cycle_sits_at_the_edge():
    assert 1.0 / two_cycle(ALPHA, 0.9) == pytest.approx(adaptive_edge(ALPHA, 0.9))
