"""The compiled loop of a phase diagram: the runs of many cells, and of each only where it stands and what it descends.

`sweep.py` writes it into one file with a problem's kernel and a method's rule, as `engine.py` does with `loop.py`; it
is text to be compiled there, where `kernel`, `update` and `DIM` have a meaning. Here nothing calls it.
"""
# ruff: noqa: F821, D103
# mypy: ignore-errors

import numpy as np


def walk(
    done,  # steps taken before this call
    counted,  # whether to sum the descent
    indices,  # (steps, seeds) component of each step, the same for all cells
    noise,  # (steps, seeds, DIM), or (0, seeds, DIM) for none
    alphas,  # (steps,) learning rates
    factors,  # (cells,) what multiplies them
    shares,  # (cells,) 1 over the weights that the rule's momentum gives to all gradients together
    p,  # (cells, hyper-parameters of the rule)
    rows,  # (cells,) rows of state
    lower,  # (DIM,) box
    upper,
    x,  # (cells, seeds, DIM) iterates
    s,  # (cells, seeds, most rows, DIM) state of the rule
    sums,  # (cells, 2) descent made, descent intended
):
    # DIM is written into the text, not read from an array: with loops of known length the rule costs half as much.
    g, dx, e, mean_g = np.zeros(DIM), np.zeros(DIM), np.zeros(DIM), np.zeros(DIM)
    cells, seeds = x.shape[:2]
    for cell in range(cells):
        made = intended = 0.0
        for k in range(len(indices)):
            alpha = factors[cell] * alphas[k]
            for seed in range(seeds):
                at = x[cell, seed]
                kernel(indices[k, seed], at, g)
                if len(noise) > 0:
                    for j in range(DIM):
                        g[j] += noise[k, seed, j]
                if counted:
                    kernel(-1, at, mean_g)
                update(done + k + 1, alpha, g, s[cell, seed, : rows[cell]], p[cell], e, dx)
                for j in range(DIM):
                    if not (abs(g[j]) < np.inf and e[j] < np.inf and abs(dx[j]) < np.inf):
                        at[j] += dx[j]
                        continue
                    at[j] = min(max(at[j] + dx[j], lower[j]), upper[j])
                    if counted and e[j] > 0.0:
                        made -= shares[cell] * dx[j] * mean_g[j]
                        intended += e[j] * mean_g[j] * mean_g[j]
        sums[cell, 0] += made
        sums[cell, 1] += intended
