"""The compiled loop of a simulation. `engine.py` writes it into one file with a problem's kernel and a method's rule.

It is text to be compiled there, where `kernel` and `update` have a meaning; here nothing calls it.
"""
# ruff: noqa: F821, D103, PLR0912, PLR0915
# mypy: ignore-errors

import numpy as np


def advance(
    done,  # steps taken before this call
    row,  # records written before this call
    indices,  # (steps,) component of each step
    noise,  # (steps, dim), or (0, dim) for none
    alphas,  # (steps,) learning rates
    p,  # hyper-parameters of the rule
    lower,  # (dim,) box
    upper,
    best,  # (components,) f_i at the optimum
    record_at,  # steps of the records, ascending
    stretch_length,
    share,  # 1 over the weights that the rule's momentum gives to all gradients together
    outstanding,  # how many steps of the size e·m are to come of a momentum m
    x,  # (dim,) iterate
    s,  # (rows, dim) state of the rule
    e,  # (dim,) stepsizes of the step before
    alpha_before,  # (1,) its learning rate
    totals,  # sums up to here: the columns of `SUMS`, regret, descent made, descent intended
    lost,  # what rounding has cost them
    stretches,  # (stretches, 6, dim) sums of e·m and what is owed, g, e, u², u³ and e·u² with u = g/unit
    owed,  # (dim,) the steps at rate 1 that are to come of gradients already seen
    unit,  # (dim,) abs(g) where it first was not 0
    sums_at,  # outputs, one row a record
    x_at,
    e_at,
    g_at,
    dx_at,
    f_at,
):
    dim = len(x)
    g, dx, mean_g, e_now = np.zeros(dim), np.zeros(dim), np.zeros(dim), np.zeros(dim)
    k, stretch = 0, done // stretch_length
    while k < len(indices):
        # Sums since the last record are small; adding them to the totals at once, compensated, is what keeps 10^8
        # steps from drifting.
        first, end = k, len(indices)
        if row < len(record_at) and record_at[row] - done < end:
            end = record_at[row] - done
        active = rising = nonfinite = a = b = c_plus = g2 = rms2 = compared = 0.0
        c = e2 = delta2 = c_lr = c_v = rise_lr = rise_v = regret = made = intended = 0.0
        while k < end:
            t = done + k + 1
            alpha = alphas[k]
            regret += kernel(indices[k], x, g) - best[indices[k]]
            if len(noise) > 0:
                for j in range(dim):
                    g[j] += noise[k, j]
            kernel(-1, x, mean_g)
            update(t, alpha, g, s, p, e_now, dx)
            scale = alpha / alpha_before[0] if alpha_before[0] > 0.0 else 1.0
            if t > (stretch + 1) * stretch_length:
                stretch += 1
            held = stretches[stretch]
            step_rms2 = step_active = 0.0
            for j in range(dim):
                g_j, e_j, e0 = g[j], e_now[j], e[j]
                if not (abs(g_j) < np.inf and e_j < np.inf and abs(dx[j]) < np.inf):
                    nonfinite += 1.0
                    x[j] += dx[j]
                    continue
                step = -share * dx[j]  # e·m, before the box takes its part
                x[j] = min(max(x[j] + dx[j], lower[j]), upper[j])
                if not e_j > 0.0:
                    continue
                eg = e_j * g_j
                step_active += 1.0
                a += e_j
                b += eg * eg
                e2 += e_j * e_j
                g2 += g_j * g_j
                u = eg / alpha if alpha > 0.0 else 0.0
                step_rms2 += u * u
                made += step * mean_g[j]
                intended += e_j * mean_g[j] * mean_g[j]
                owes = outstanding * step / alpha if alpha > 0.0 else owed[j]
                held[0, j] += step + alpha * (owes - owed[j])
                owed[j] = owes
                held[1, j] += g_j
                held[2, j] += e_j
                if unit[j] == 0.0:
                    unit[j] = abs(g_j)
                u = g_j / unit[j] if unit[j] > 0.0 else 0.0
                held[3, j] += u * u
                held[4, j] += u * u * u
                held[5, j] += e_j * u * u
                if e0 > 0.0:
                    delta = e_j - e0
                    by_lr = scale * e0 - e0
                    by_v = delta - by_lr
                    compared += 1.0
                    c += abs(delta)
                    delta2 += delta * delta
                    c_lr += abs(by_lr)
                    c_v += abs(by_v)
                    rise_lr += max(by_lr, 0.0)
                    rise_v += max(by_v, 0.0)
                    if delta > 0.0:
                        rising += 1.0
                        c_plus += delta
                e[j] = e_j
            active += step_active
            if step_active > 0.0:
                rms2 += step_rms2 / step_active
            alpha_before[0] = alpha
            k += 1
        block = (
            *(active, rising, nonfinite, a, b, c_plus, g2, rms2, compared, 0.0, c, e2, delta2),
            *(c_lr, 0.0, c_v, rise_lr, 0.0, rise_v, float(k - first), regret, made, intended),
        )  # in the order of `SUMS`; eps and the bias correction are not told from v here
        for i in range(len(totals)):
            add(totals, lost, i, block[i])
        if row < len(record_at) and record_at[row] == done + k:
            sums_at[row] = totals + lost
            x_at[row], e_at[row], g_at[row], dx_at[row] = x, e_now, g, dx
            f_at[row] = kernel(-1, x, mean_g)
            row += 1
    return row


def add(totals, lost, i, value):
    """Neumaier's sum: `totals + lost` is right to the last digit."""
    new = totals[i] + value
    if abs(totals[i]) >= abs(value):
        lost[i] += (totals[i] - new) + value
    else:
        lost[i] += (value - new) + totals[i]
    totals[i] = new
