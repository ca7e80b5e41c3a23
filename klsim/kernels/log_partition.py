"""Empirical log-partition functions of many prompts on a grid of inverse temperatures, with their jackknife."""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = [
    "best_of_n_gold_sums",
    "best_of_n_sums",
    "log_partitions",
    "lowest",
    "sort_within",
    "tilted_mean_sums",
    "tilted_moments",
]

LANES = 8
"""Inverse temperatures at once."""


@numba.njit(cache=True)
def _weigh(r, top, base, weights):
    """``weights[j, g] = exp(lam_g (r_j - r_top))``."""
    for j in range(r.size):
        for g in range(LANES):
            weights[j, g] = math.exp(base[g] * (r[j] - r[top]))


@numba.njit(cache=True)
def _square(weights):
    for j in range(weights.shape[0]):
        for g in range(LANES):
            w = weights[j, g]  # what would be subnormal is 0: it does not count, and is slow
            weights[j, g] = w * w if w > 1e-150 else 0.0


@numba.njit(cache=True)
def _add_rows(weights, first, last, total):
    for j in range(first, last):
        for g in range(LANES):
            total[g] += weights[j, g]


@numba.njit(cache=True)
def _multiply_rows(weights, first, last, share, own_share, product, own):
    """``product *= prod_j (1 - share w_j)`` for two shares."""
    for j in range(first, last):
        for g in range(LANES):
            product[g] *= 1.0 - share[g] * weights[j, g]
            own[g] *= 1.0 - own_share[g] * weights[j, g]


@numba.njit(cache=True)
def _log_sum_but(r, top, scale):
    """Log of ``sum exp(scale (r_j - r_top))`` without the largest, where that underflows."""
    second = -np.inf
    for j in range(r.size):
        if j != top:
            second = max(second, r[j])
    rest = 0.0
    for j in range(r.size):
        if j != top:
            rest += math.exp(scale * (r[j] - second))
    return math.log(rest) + scale * (second - r[top])


@numba.njit(cache=True)
def _multiply(factors, logs, rest, product, r, top, base, scale):
    """Multiply ``T = 1 + rest`` and ``prod_j (T - w_j) / T^(n-1)`` in; near the ends of the range they become logs."""
    for g in range(LANES):
        factors[0, g] *= 1.0 + rest[g]
        if rest[g] > 1e-200:
            factors[1, g] *= rest[g] * product[g]
        elif r.size > 1:
            logs[1, g] += _log_sum_but(r, top, base[g] * scale) + math.log(product[g])
    for q in range(2):
        for g in range(LANES):
            if not 1e-100 < factors[q, g] < 1e100:
                logs[q, g] += math.log(factors[q, g])
                factors[q, g] = 1.0


@numba.njit(cache=True)
def _add_prompt(r, base, octaves, weights, factors, logs):
    """A prompt's factors, of all its samples and of its halves; returns its best reward and the halves' mean best.

    All at `LANES` inverse temperatures at once. Each half is weighed against its own best sample: nothing underflows.
    """
    n = r.size
    half = n // 2
    left = np.argmax(r[:half]) if half > 0 else 0
    right = half + np.argmax(r[half:])
    at = 0 if half > 0 and r[left] >= r[right] else 1
    top, gap = (left, r[right] - r[left]) if at == 0 else (right, r[left] - r[right])
    starts, ends, tops = (0, half), (half, n), (left, right)
    rest, share, product = np.zeros((3, LANES)), np.ones((4, LANES)), np.empty((3, LANES))
    scale = np.empty((1, LANES))  # from the weights of the half without the best sample to those among all
    for g in range(LANES):
        scale[0, g] = math.exp(base[g] * gap) if half > 0 else 0.0
    for h in range(2):
        if ends[h] > starts[h]:
            _weigh(r[starts[h] : ends[h]], tops[h] - starts[h], base, weights[starts[h] : ends[h]])
    for o in range(octaves):
        for h in range(2):
            rest[h, :] = 0.0
            if ends[h] > starts[h]:
                _add_rows(weights, starts[h], tops[h], rest[h])
                _add_rows(weights, tops[h] + 1, ends[h], rest[h])
        for g in range(LANES):  # the largest is left out of `rest`, so that nothing cancels
            rest[2, g] = rest[at, g] + scale[0, g] * (1.0 + rest[1 - at, g])
            share[0, g], share[1, g] = 1.0 / (1.0 + rest[0, g]), 1.0 / (1.0 + rest[1, g])
            share[2 + at, g] = 1.0 / (1.0 + rest[2, g])
            share[3 - at, g] = scale[0, g] * share[2 + at, g]
            product[0, g], product[1, g], product[2, g] = 1.0, 1.0, 1.0 - share[3 - at, g]
        for h in range(2):  # shares of all but the largest are below 1/2, so that their product is above 1/4
            if ends[h] > starts[h]:
                _multiply_rows(weights, starts[h], tops[h], share[2 + h], share[h], product[2], product[h])
                _multiply_rows(weights, tops[h] + 1, ends[h], share[2 + h], share[h], product[2], product[h])
        _multiply(factors[o, 0], logs[o, 0], rest[2], product[2], r, top, base, 2.0**o)
        if half > 0:
            for h in range(2):
                part = r[starts[h] : ends[h]]
                _multiply(
                    factors[o, 1 + h], logs[o, 1 + h], rest[h], product[h], part, tops[h] - starts[h], base, 2.0**o
                )
        _square(weights[:n])
        _square(scale)
    return r[top], 0.5 * (r[left] + r[right]) if half > 0 else 0.0


@numba.njit(cache=True)
def _jackknifed(logs, n, times):
    """``n L - (n-1) mean_j L_(-j)`` of ``L = log mean w``, summed over ``times`` prompts; ``logs`` as `_multiply`'s."""
    if n == 1:
        return logs[0]
    without = ((n - 1) * logs[0] + logs[1]) / n - times * math.log(n - 1.0)
    return n * (logs[0] - times * math.log(n)) - (n - 1) * without


@numba.njit(cache=True)
def _collect(out, factors, logs, n, times):
    """Add ``times`` prompts of ``n`` samples to ``out`` (octaves, lanes, 3), and start again."""
    half = n // 2
    for o in range(out.shape[0]):
        for g in range(out.shape[1]):
            for h in range(3):
                for q in range(2):
                    logs[o, h, q, g] += math.log(factors[o, h, q, g])
            out[o, g, 0] += logs[o, 0, 0, g] - times * math.log(n)
            out[o, g, 1] += _jackknifed(logs[o, 0, :, g], n, times)
            if half > 0:
                left, right = _jackknifed(logs[o, 1, :, g], half, times), _jackknifed(logs[o, 2, :, g], n - half, times)
                out[o, g, 2] += 0.5 * (left + right)
    factors[:] = 1.0
    logs[:] = 0.0


@numba.njit(cache=True)
def _add_block(reward, starts, members, base, octaves, out):
    """Sums over some prompts at ``base[g] * 2^o``, at most `LANES` of ``base``; ``out``: (octaves, lanes, 3)."""
    lanes = np.full(LANES, base[0])
    lanes[: base.size] = base
    longest = 0
    for i in members:
        longest = max(longest, starts[i + 1] - starts[i])
    weights = np.empty((longest, LANES))
    factors, logs = np.ones((octaves, 3, 2, LANES)), np.zeros((octaves, 3, 2, LANES))
    best = best_of_halves = 0.0
    size, alike = 1, 0
    for i in members:
        r = reward[starts[i] : starts[i + 1]]
        if alike > 0 and r.size != size:
            _collect(out, factors, logs, size, alike)
            alike = 0
        size, alike = r.size, alike + 1
        found = _add_prompt(r, lanes, octaves, weights, factors, logs)
        best += found[0]
        best_of_halves += found[1]
    _collect(out, factors, logs, size, alike)
    for o in range(octaves):
        for g in range(base.size):
            lam = base[g] * 2.0**o
            out[o, g, 0] += lam * best
            out[o, g, 1] += lam * best
            out[o, g, 2] += lam * best_of_halves


@threaded
def log_partitions(reward, starts, members, block_starts, base, octaves):
    """Sums over the prompts of each block of ``log mean exp(lam r)`` on ``lam = base * 2^o``.

    ``reward`` holds prompts one after the other, prompt ``i`` at ``starts[i]:starts[i+1]``; block ``b`` the prompts
    ``members[block_starts[b]:block_starts[b+1]]``. Three values each: plain, jackknifed, jackknifed on halves.
    Weights of an octave are the squares of those below: few exponentials, at most ``2^octaves`` roundings. Logs are
    taken of products over the block's prompts of equally many samples.
    """
    blocks, grid = block_starts.size - 1, base.size
    out = np.zeros((blocks, octaves, grid, 3))
    for b in numba.prange(blocks):
        chosen = members[block_starts[b] : block_starts[b + 1]]
        for g in range(0, grid, LANES):
            _add_block(reward, starts, chosen, base[g : g + LANES], octaves, out[b, :, g : g + LANES])
    return out.reshape(blocks, octaves * grid, 3)


@numba.njit(cache=True)
def lowest(table, added, slope, lam, divisor):
    """The minimum over k of ``(table[i, k] + added[i]) / divisor[k] - slope[i] lam[k]``, for every row i.

    Returns value, position (from a parabola through the smallest value and its neighbours), and whether the last is it.
    """
    rows, size = table.shape
    value, position, edge = np.empty(rows), np.empty(rows), np.zeros(rows, np.bool_)
    row = np.empty(size)
    for i in range(rows):
        for k in range(size):
            row[k] = (table[i, k] + added[i]) / divisor[k] - slope[i] * lam[k]
        at = np.argmin(row)
        value[i], position[i], edge[i] = row[at], at, at == size - 1
        if 0 < at < size - 1:
            bend = row[at - 1] - 2.0 * row[at] + row[at + 1]
            step = 0.5 * (row[at - 1] - row[at + 1]) / bend if bend > 0.0 else 0.0
            if abs(step) <= 1.0:
                value[i] -= 0.25 * (row[at - 1] - row[at + 1]) * step
                position[i] += step
    return value, position, edge


@threaded
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


@numba.njit(cache=True)
def _fill_shares(log_factorial, n, size, out):
    """``out[0, m] = C(m, N) / C(n, N)`` and ``out[1, m] = C(m, N) / C(n, N + 1)`` for m up to n and ``N = size``."""
    every, more = _log_choose(log_factorial, n, size), _log_choose(log_factorial, n, size + 1)
    for m in range(n + 1):
        some = _log_choose(log_factorial, m, size)
        out[0, m] = math.exp(some - every)
        out[1, m] = math.exp(some - more) if size < n else 0.0


@numba.njit(cache=True)
def _best_and_win_rate(r, size, shares):
    """Mean best of the N-subsets of sorted samples, and how often it wins against one of the others (0 if none)."""
    n = r.size
    best = shared = 0.0
    first = 0
    while first < n:
        last = first + 1
        while last < n and r[last] == r[first]:
            last += 1
        best += (shares[0, last] - shares[0, first]) * r[first]
        # (N+1)-subsets: one draw against the best of the others
        shared += 0.5 * (last - first) * (shares[1, last - 1] + shares[1, first])
        first = last
    return best, 1.0 - shared / (size + 1) if size < n else 0.0


@threaded
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
        shares = np.empty((2, log_factorial.size))
        for k in range(counts.size):
            size, filled = counts[k], 0
            for i in members[block_starts[b] : block_starts[b + 1]]:
                start, end = starts[i], starts[i + 1]
                if end - start != filled:
                    filled = end - start
                    _fill_shares(log_factorial, filled, size, shares)
                best, win = _best_and_win_rate(reward[start:end], size, shares)
                out[b, k, 0] += best
                out[b, k, 3] += win
                if ties:
                    out[b, k, 1] += _best_of_n_kl(reward[start:end], atom[start:end], size)
                    middle = start + filled // 2
                    if middle > start:
                        out[b, k, 2] += 0.5 * _best_of_n_kl(split[start:middle], split_atom[start:middle], size)
                    out[b, k, 2] += 0.5 * _best_of_n_kl(split[middle:end], split_atom[middle:end], size)
    return out


@threaded
def best_of_n_gold_sums(reward, gold, starts, members, block_starts, counts, log_factorial):
    """Sums over each block of every prompt's mean ``gold`` of the sample that is best by ``reward``, ``(blocks, Ns)``.

    ``reward`` is sorted within a prompt and ``gold`` follows it; ties are broken at random. A U-statistic.
    """
    blocks = block_starts.size - 1
    out = np.zeros((blocks, counts.size))
    for b in numba.prange(blocks):
        shares = np.empty((2, log_factorial.size))
        for k in range(counts.size):
            filled = 0
            for i in members[block_starts[b] : block_starts[b + 1]]:
                r, g = reward[starts[i] : starts[i + 1]], gold[starts[i] : starts[i + 1]]
                if r.size != filled:
                    filled = r.size
                    _fill_shares(log_factorial, filled, counts[k], shares)
                first = 0
                while first < filled:
                    last = first + 1
                    total = g[first]
                    while last < filled and r[last] == r[first]:
                        total += g[last]
                        last += 1
                    out[b, k] += (shares[0, last] - shares[0, first]) * total / (last - first)
                    first = last
    return out


@threaded
def sort_within(values, starts):
    """``values`` sorted within every prompt (``starts``)."""
    out = values.copy()
    for i in numba.prange(starts.size - 1):
        out[starts[i] : starts[i + 1]].sort()
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


@threaded
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
