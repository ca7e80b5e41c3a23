"""The law of a sum of many i.i.d. letters on a lattice, tails included, in windows.

A tilt puts the mass on a window; there the Fourier inversion of the tilted characteristic function is accurate to
rounding, and tilting back gives ``log P = log pmf_a(k) - a (k - m mu_a) - m KL(p_a‖p)``, whose terms are no larger
than ``log P``. At the ends of the lattice a recurrence with positive terms only takes over.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.elementary import exp_and_excess

__all__ = ["edge_by_recurrence", "patch", "plan_windows", "spectra"]

_SMALL = -45.0  # log of what does not count beside 1


@numba.njit(cache=True)
def edge_by_recurrence(p, deficits, m, reach):
    """``log P(total deficit = k)``, ``k = 0 … reach``, in O(letters · reach); ``p[0]`` has deficit 0, the others more.

    From ``Q' P = m P' Q`` for ``Q = P^m``: ``q_k = sum_s p_s ((m + 1) s - k) q_(k-s) / (k p_0)``. All terms are
    positive for ``reach < (m + 1) min s``, which the caller sees to: the relative error is a few roundings a letter.
    """
    out, q = np.full(reach + 1, -np.inf), np.zeros(reach + 1)
    longest = deficits.max()
    q[0], shift = 1.0, 0.0
    base = m * math.log(p[0])
    out[0] = base
    for k in range(1, reach + 1):
        total = 0.0
        for a in range(1, p.size):
            if deficits[a] <= k:
                total += p[a] * ((m + 1) * deficits[a] - k) * q[k - deficits[a]]
        q[k] = total / (k * p[0])
        if q[k] > 0.0:
            out[k] = base + (shift + math.log(q[k]))
        if q[k] > 1e200:
            for i in range(max(k - longest, 0), k + 1):
                q[i] *= 1e-200
            shift += 200 * math.log(10.0)
    return out


@numba.njit(cache=True)
def _tilt(log_p, steps, alpha, weights):
    """Tilted weights; ``(end, mean - end, variance, KL)`` with the mean measured from the end that the tilt favours."""
    end = steps[-1] if alpha > 0 else steps[0]
    total = 0.0
    for i in range(log_p.size):
        weights[i] = math.exp(log_p[i] + alpha * (steps[i] - end))
        total += weights[i]
    log_total, mean = math.log(total), 0.0
    for i in range(log_p.size):
        weights[i] /= total
        mean += weights[i] * (steps[i] - end)
    variance = divergence = 0.0
    for i in range(log_p.size):
        variance += weights[i] * (steps[i] - end - mean) ** 2
        ratio = alpha * (steps[i] - end) - log_total
        divergence += math.exp(log_p[i]) * exp_and_excess(ratio)[1] if ratio < 600.0 else weights[i] * ratio
    return end, mean, variance, divergence


@numba.njit(cache=True)
def _strength(log_p, steps, target, start, weights):
    """``alpha`` whose tilt has mean ``target`` (near enough: any tilt is exact): Newton in a bracket."""
    low, high, alpha = -np.inf, np.inf, start
    for _ in range(200):
        end, mean, variance, _ = _tilt(log_p, steps, alpha, weights)
        gap = (end - target) + mean
        if abs(gap) <= 1e-3 * math.sqrt(variance) * 0.03:
            break
        if gap > 0:
            high = alpha
        else:
            low = alpha
        new = alpha - gap / variance if variance > 0 else np.nan
        if not low < new < high or abs(new - alpha) > 1.0 + abs(alpha):
            wide = 1.0 + abs(alpha)
            new = 0.5 * (low + high) if high - low < np.inf else (alpha - wide if gap > 0 else alpha + wide)
        if new == alpha:
            break
        alpha = new
    return alpha


@numba.njit(cache=True)
def plan_windows(log_p, steps, m, first, last, width):
    """Windows that cover ``first … last``: integers ``(n, 4)`` start, stop, centre, size, and floats ``(n, 3)``.

    Floats: alpha, mean minus centre, ``m KL``. A window reaches ``width`` standard deviations either way.
    """
    weights = np.empty(log_p.size)
    whole, real = np.empty((64, 4), np.int64), np.empty((64, 3))
    at, alpha, n = first, 0.0, 0
    while at <= last:
        alpha = _strength(log_p, steps, at / m, alpha, weights)
        spread = math.sqrt(m * _tilt(log_p, steps, alpha, weights)[2])
        alpha = _strength(log_p, steps, min(at + 0.95 * width * spread, last) / m, alpha, weights)
        end, mean, variance, divergence = _tilt(log_p, steps, alpha, weights)
        spread = math.sqrt(m * variance)
        centre = m * end + round(m * mean)
        stop = max(min(math.floor(centre + width * spread), last), at)
        size = 64
        while size < 16 * spread + 64:
            size *= 2
        if n == len(whole):
            whole, real = np.concatenate((whole, whole)), np.concatenate((real, real))
        whole[n, 0], whole[n, 1], whole[n, 2], whole[n, 3] = at, stop + 1, centre, size
        real[n, 0], real[n, 1], real[n, 2] = alpha, m * mean - round(m * mean), m * divergence
        at, n = stop + 1, n + 1
    return whole[:n].copy(), real[:n].copy()


@numba.njit(cache=True)
def _sine_less(x):
    """``sin x - x`` for ``|x| < 1``: its series, since what it lacks counts m times."""
    w, total = x * x, 0.0
    for k in range(8, 0, -1):
        total = (1.0 - total) * w / ((2 * k) * (2 * k + 1))
    return -x * total


@numba.njit(cache=True)
def _spectrum(weights, deviation, m, offset, size, out):
    """Characteristic function of the centred sum at ``2 pi j / size``, its mean at ``offset``."""
    for j in range(size // 2 + 1):
        frequency = 2 * math.pi * j / size
        x = y = 0.0  # E e^{i angle} - 1; the linear term is zero by centring
        for a in range(weights.size):
            angle = frequency * deviation[a]
            sine, cosine = math.sin(0.5 * angle), math.cos(0.5 * angle)
            x -= 2.0 * weights[a] * sine * sine
            y += weights[a] * (_sine_less(angle) if abs(angle) < 1.0 else 2.0 * sine * cosine - angle)
        size_of = 2.0 * x + x * x + y * y
        log_size = 0.5 * m * math.log1p(size_of) if size_of > -1.0 else -np.inf
        if log_size < _SMALL:
            out[j] = 0.0
        else:
            phase = -(m * math.atan2(y, 1.0 + x) + frequency * offset)  # conjugate: as inverse transforms take it
            scale = math.exp(log_size)
            out[j] = complex(scale * math.cos(phase), scale * math.sin(phase))


@numba.njit(cache=True)
def spectra(log_p, steps, m, alphas, offsets, size):
    """Spectra ``(n, size/2 + 1)`` of the tilted sums, centred on the integers nearest their means."""
    out = np.empty((alphas.size, size // 2 + 1), np.complex128)
    for i in range(alphas.size):
        weights, deviation = np.empty(log_p.size), np.empty(log_p.size)
        end, mean, _, _ = _tilt(log_p, steps, alphas[i], weights)
        for a in range(log_p.size):
            deviation[a] = (steps[a] - end) - mean
        _spectrum(weights, deviation, m, offsets[i], size, out[i])
    return out


@numba.njit(cache=True)
def patch(pmf, whole, real, out):
    """Write the windows of ``pmf (n, size)`` to ``out``; the least of each beside its largest, at worst."""
    size, worst = pmf.shape[1], 1.0
    for i in range(len(pmf)):
        top, least = pmf[i].max(), np.inf
        for k in range(whole[i, 0], whole[i, 1]):
            value = pmf[i, (k - whole[i, 2]) % size]
            least = min(least, value)
            away = (k - whole[i, 2]) - real[i, 1]
            out[k] = math.log(value) - real[i, 0] * away - real[i, 2] if value > 0.0 else np.nan
        worst = min(worst, least / top)
    return worst
