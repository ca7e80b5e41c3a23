"""Empirical log-partition functions of many prompts on a grid of inverse temperatures, with their jackknife."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["best_of_n_gold_sums", "best_of_n_sums", "log_partitions", "tilted_mean_sums", "tilted_moments"]


@numba.njit(cache=True)
def _sum_but(weights, top):
    """The sum without the unique largest weight, without cancellation."""
    rest = 0.0
    for j in range(top):
        rest += weights[j]
    for j in range(top + 1, weights.size):
        rest += weights[j]
    return rest


@numba.njit(cache=True)
def _log_sum_but(gap, top, scale):
    """Log of that sum where it underflows; ``gap``: exponents of the weights, ``scale``: what multiplied them."""
    second = -np.inf
    for j in range(gap.size):
        if j != top:
            second = max(second, gap[j])
    rest = 0.0
    for j in range(gap.size):
        if j != top:
            rest += math.exp(scale * (gap[j] - second))
    return math.log(rest) + scale * second


@numba.njit(cache=True)
def _jackknifed(weights, top, gap, scale):
    """``n L - (n-1) mean_j L_(-j)`` for ``L = log mean w``; the plain ``L`` for one sample."""
    n = weights.size
    rest = _sum_but(weights, top)
    total = rest + weights[top]
    log_total = math.log(total)
    plain = log_total - math.log(n)
    if n == 1:
        return plain, plain
    # sum_j log(total - w_j), the top's from the rest; the others' w_j <= total/2 do not cancel
    without, share, product = (n - 1) * log_total, 1.0 / total, 1.0
    for j in range(n):
        if j != top:
            product *= 1.0 - weights[j] * share
            if product < 1e-20:
                without += math.log(product)
                product = 1.0
    without += math.log(rest * product) if rest > 1e-280 else _log_sum_but(gap, top, scale) + math.log(product)
    without = without / n - math.log(n - 1.0)
    return plain, n * plain - (n - 1) * without


@numba.njit(cache=True, parallel=True)
def log_partitions(reward, starts, members, block_starts, base, octaves):
    """Sums over the prompts of each block of ``log mean exp(lam r)`` on ``lam = base * 2^o``.

    ``reward`` holds prompts one after the other, prompt ``i`` at ``starts[i]:starts[i+1]``; block ``b`` the prompts
    ``members[block_starts[b]:block_starts[b+1]]``. Three values each: plain, jackknifed, jackknifed on halves.
    Weights of an octave are the squares of those below: few exponentials, at most ``2^octaves`` roundings.
    """
    blocks = block_starts.size - 1
    out = np.zeros((blocks, octaves * base.size, 3))
    for b in numba.prange(blocks):
        for i in range(block_starts[b], block_starts[b + 1]):
            r = reward[starts[members[i]] : starts[members[i] + 1]]
            n = r.size
            half = n // 2
            top = np.argmax(r)
            gap = r - r[top]
            left, right = gap[:half], gap[half:]
            left_top = np.argmax(left) if half > 0 else 0
            right_top = np.argmax(right)
            weights = np.empty(n)
            for g in range(base.size):
                lam = base[g]
                for j in range(n):
                    weights[j] = math.exp(lam * gap[j])
                for o in range(octaves):
                    k = o * base.size + g
                    shift = lam * r[top]
                    plain, full = _jackknifed(weights, top, gap, lam)
                    out[b, k, 0] += shift + plain
                    out[b, k, 1] += shift + full
                    if half > 0:
                        out[b, k, 2] += shift + 0.5 * (
                            _half(weights[:half], left_top, left, lam) + _half(weights[half:], right_top, right, lam)
                        )
                    lam *= 2.0
                    for j in range(n):  # what would be subnormal is 0: it does not count, and is slow
                        weights[j] = weights[j] * weights[j] if weights[j] > 1e-150 else 0.0
    return out


@numba.njit(cache=True)
def _half(weights, top, gap, lam):
    """The jackknifed log-mean of a half, whose weights may all have underflowed."""
    if weights[top] > 1e-280:
        return _jackknifed(weights, top, gap, lam)[1]
    own = gap - gap[top]
    return lam * gap[top] + _jackknifed(np.exp(lam * own), top, own, lam)[1]


@numba.njit(cache=True, parallel=True)
def tilted_moments(reward, starts, lams):
    """Mean reward, KL to the samples and effective sample size of every prompt's tilt, ``(prompts, lams, 3)``."""
    out = np.empty((starts.size - 1, lams.size, 3))
    for i in numba.prange(starts.size - 1):
        r = reward[starts[i] : starts[i + 1]]
        top = r.max()
        for k in range(lams.size):
            total = squares = first = 0.0
            for j in range(r.size):
                w = math.exp(lams[k] * (r[j] - top))
                total += w
                squares += w * w
                first += w * (r[j] - top)
            mean = first / total
            out[i, k, 0] = top + mean
            out[i, k, 1] = max(lams[k] * mean - math.log(total / r.size), 0.0)
            out[i, k, 2] = total * total / squares
    return out


@numba.njit(cache=True)
def _log_choose(log_factorial, n, k):
    return log_factorial[n] - log_factorial[k] - log_factorial[n - k] if 0 <= k <= n else -np.inf


@numba.njit(cache=True)
def _antiderivative(u, size):
    """Of ``N u^(N-1) log(N u^(N-1))``; from 0 to 1 it gives ``log N - (N-1)/N``."""
    return u**size * (math.log(size) + (size - 1) * (math.log(u) - 1.0 / size)) if u > 0.0 else 0.0


@numba.njit(cache=True)
def _cell(low, high, total, size, atom):
    """What a class with ``low`` of ``total`` samples below it and ``high`` up to it adds to the KL of best-of-N.

    ``q log(q/p)`` of an atom; of one sample of a continuous law, the integral over its cell.
    """
    if high <= low:
        return 0.0
    if not atom:
        return _antiderivative(high / total, size) - _antiderivative(low / total, size)
    law = (high / total) ** size - (low / total) ** size
    return law * math.log(law * total / (high - low)) if law > 0.0 else 0.0


@numba.njit(cache=True)
def _best_of_n_kl(r, atom, size):
    """Jackknifed KL of the best of ``size`` draws from the sorted samples ``r`` to their law.

    Without a sample of one class, those below it keep their ranks and those above lose one: sums from both sides.
    ``atom``: whether other samples may share its value.
    """
    n = r.size
    plain = below = above = 0.0
    first = 0
    while first < n:
        last = first + 1
        while last < n and r[last] == r[first]:
            last += 1
        plain += _cell(first, last, n, size, atom[first])
        if n > 1 and first > 0:
            above += _cell(first - 1, last - 1, n - 1, size, atom[first])
        first = last
    if n == 1:
        return plain
    without = 0.0
    first = 0
    while first < n:
        last = first + 1
        while last < n and r[last] == r[first]:
            last += 1
        if first > 0:
            above -= _cell(first - 1, last - 1, n - 1, size, atom[first])
        own = _cell(first, last - 1, n - 1, size, atom[first])
        without += (last - first) / n * (below + own + above)
        below += _cell(first, last, n - 1, size, atom[first])
        first = last
    return n * plain - (n - 1) * without


@numba.njit(cache=True, parallel=True)
def best_of_n_sums(reward, split, atom, split_atom, starts, members, block_starts, counts, log_factorial, ties):
    """Sums over each block of every prompt's best-of-N reward, KL, KL from halves, and win rate, ``(blocks, Ns, 4)``.

    ``reward`` is sorted within a prompt, ``split`` within each half of a prompt; ``atom, split_atom``: whether other
    samples may share the value. Reward and win rate are U-statistics
    (unbiased); the win rate needs ``N < n`` and is 0 without. The KL is that to the law of the samples, jackknifed,
    nats; 0 without ``ties`` (it is then known). Layout as in `log_partitions`.
    """
    blocks = block_starts.size - 1
    out = np.zeros((blocks, counts.size, 4))
    for b in numba.prange(blocks):
        for i in range(block_starts[b], block_starts[b + 1]):
            start, end = starts[members[i]], starts[members[i] + 1]
            r = reward[start:end]
            n = r.size
            half = n // 2
            for k in range(counts.size):
                size = counts[k]
                best = shared = 0.0
                first = 0
                while first < n:
                    last = first + 1
                    while last < n and r[last] == r[first]:
                        last += 1
                    best += _best_mass(log_factorial, n, first, last, size) * r[first]
                    if size < n:  # (N+1)-subsets: one draw against the best of the others
                        every = _log_choose(log_factorial, n, size + 1)
                        shared += 0.5 * (last - first) * math.exp(_log_choose(log_factorial, last - 1, size) - every)
                        shared += 0.5 * (last - first) * math.exp(_log_choose(log_factorial, first, size) - every)
                    first = last
                out[b, k, 0] += best
                out[b, k, 3] += 1.0 - shared / (size + 1) if size < n else 0.0
                if ties:
                    out[b, k, 1] += _best_of_n_kl(r, atom[start:end], size)
                    middle = start + half
                    if half > 0:
                        out[b, k, 2] += 0.5 * _best_of_n_kl(split[start:middle], split_atom[start:middle], size)
                    out[b, k, 2] += 0.5 * _best_of_n_kl(split[middle:end], split_atom[middle:end], size)
    return out


@numba.njit(cache=True)
def _best_mass(log_factorial, n, first, last, size):
    """Share of the N-subsets of n samples whose best is one of those ranked ``first .. last - 1``."""
    every = _log_choose(log_factorial, n, size)
    mass = math.exp(_log_choose(log_factorial, last, size) - every)
    return mass - (math.exp(_log_choose(log_factorial, first, size) - every) if first >= size else 0.0)


@numba.njit(cache=True, parallel=True)
def best_of_n_gold_sums(reward, gold, starts, members, block_starts, counts, log_factorial):
    """Sums over each block of every prompt's mean ``gold`` of the sample that is best by ``reward``, ``(blocks, Ns)``.

    ``reward`` is sorted within a prompt and ``gold`` follows it; ties are broken at random. A U-statistic.
    """
    blocks = block_starts.size - 1
    out = np.zeros((blocks, counts.size))
    for b in numba.prange(blocks):
        for i in range(block_starts[b], block_starts[b + 1]):
            r = reward[starts[members[i]] : starts[members[i] + 1]]
            g = gold[starts[members[i]] : starts[members[i] + 1]]
            n = r.size
            for k in range(counts.size):
                first = 0
                while first < n:
                    last = first + 1
                    total = g[first]
                    while last < n and r[last] == r[first]:
                        total += g[last]
                        last += 1
                    out[b, k] += _best_mass(log_factorial, n, first, last, counts[k]) * total / (last - first)
                    first = last
    return out


@numba.njit(cache=True)
def _tilted_mean(weights, values, top):
    """Jackknifed ``sum w v / sum w``; ``top`` is the largest weight."""
    n = weights.size
    total = first = rest = rest_first = 0.0
    for j in range(n):
        total += weights[j]
        first += weights[j] * values[j]
        if j != top:
            rest += weights[j]
            rest_first += weights[j] * values[j]
    plain = first / total
    if n == 1:
        return plain
    without = 0.0
    for j in range(n):
        if j != top:  # w_j <= total/2: no cancellation
            without += (first - weights[j] * values[j]) / (total - weights[j])
        elif rest > 0.0:
            without += rest_first / rest
        else:  # the others have underflowed
            without += plain
    return n * plain - (n - 1) * without / n


@numba.njit(cache=True, parallel=True)
def tilted_mean_sums(reward, gold, starts, members, block_starts, lams):
    """Sums over each block of every prompt's mean ``gold`` under its tilt by ``lam * reward``, ``(blocks, lams, 2)``.

    Jackknifed, and the same from halves of the samples. Layout as in `log_partitions`.
    """
    blocks = block_starts.size - 1
    out = np.zeros((blocks, lams.size, 2))
    for b in numba.prange(blocks):
        for i in range(block_starts[b], block_starts[b + 1]):
            r = reward[starts[members[i]] : starts[members[i] + 1]]
            g = gold[starts[members[i]] : starts[members[i] + 1]]
            half = r.size // 2
            for k in range(lams.size):
                out[b, k, 0] += _tilted(r, g, lams[k])
                if half > 0:
                    out[b, k, 1] += 0.5 * (_tilted(r[:half], g[:half], lams[k]) + _tilted(r[half:], g[half:], lams[k]))
    return out


@numba.njit(cache=True)
def _tilted(r, g, lam):
    top = np.argmax(r)
    return _tilted_mean(np.exp(lam * (r - r[top])), g, top)
