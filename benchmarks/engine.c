/* The loop of synthetic/loop.py for one coordinate: Adam on Reddi's online game, with the same sums. */
#include <math.h>

enum { ACTIVE, RISING, NONFINITE, A, B, C_PLUS, G2, RMS2, COMPARED, EPS_BOUND, C, E2, DELTA2,
       C_LR, C_BIAS, C_V, RISE_LR, RISE_BIAS, RISE_V, STEPS, REGRET, MADE, INTENDED, ALL };

static double component(long i, double x, double *g) {
    *g = i == 0 ? 1010.0 : i == 1 ? -10.0 : 10.0 / 101.0;
    return *g * x;
}

static double debias(double beta, long t) { return t * (1.0 - beta) > 40.0 ? 1.0 : 1.0 - pow(beta, (double)t); }

double run(long steps, const long *indices, const double *alphas, double *total) {
    const double beta1 = 0.9, beta2 = 0.99, eps = 1e-8, best[2] = {-1010.0, 10.0};
    double x = 0.0, m = 0.0, v = 0.0, e0 = 0.0, alpha0 = 0.0, unit = 0.0;
    double stretches[32][6] = {{0}}, kept = 0.0;
    long length = 1;
    while (steps / length >= 32) length *= 2;
    for (long begin = 0; begin < steps; begin += 1000) {
        double s[ALL] = {0};
        long end = begin + 1000 < steps ? begin + 1000 : steps;
        for (long k = begin; k < end; k++) {
            long t = k + 1;
            double g, mean, alpha = alphas[k];
            s[REGRET] += component(indices[k], x, &g) - best[indices[k]];
            component(-1, x, &mean);
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            double e = alpha / debias(beta1, t) / (sqrt(v) / sqrt(debias(beta2, t)) + eps);
            double dx = -e * m, eg = e * g;
            x = fmin(fmax(x + dx, -1.0), 1.0);
            if (!(fabs(g) < INFINITY && e < INFINITY && fabs(dx) < INFINITY)) { s[NONFINITE] += 1; continue; }
            if (!(e > 0.0)) continue;
            s[ACTIVE] += 1; s[A] += e; s[B] += eg * eg; s[E2] += e * e; s[G2] += g * g;
            s[RMS2] += (eg / alpha) * (eg / alpha);
            s[MADE] += e * m * mean; s[INTENDED] += e * mean * mean; s[STEPS] += 1;
            double *held = stretches[(t - 1) / length];
            held[0] += e * m; held[1] += g; held[2] += e;
            if (unit == 0.0) unit = fabs(g);
            double u = unit > 0.0 ? g / unit : 0.0;
            held[3] += u * u; held[4] += u * u * u; held[5] += e * u * u;
            if (e0 > 0.0) {
                double delta = e - e0, by_lr = alpha / alpha0 * e0 - e0, by_v = delta - by_lr;
                s[COMPARED] += 1; s[C] += fabs(delta); s[DELTA2] += delta * delta;
                s[C_LR] += fabs(by_lr); s[C_V] += fabs(by_v);
                s[RISE_LR] += fmax(by_lr, 0.0); s[RISE_V] += fmax(by_v, 0.0);
                if (delta > 0.0) { s[RISING] += 1; s[C_PLUS] += delta; }
            }
            e0 = e; alpha0 = alpha;
        }
        for (int i = 0; i < ALL; i++) total[i] += s[i];
    }
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 6; j++) kept += stretches[i][j];
    total[EPS_BOUND] += 0.0 * kept;  /* so that the compiler keeps them */
    return x;
}
