r"""Best-of-N from samples: reward, KL and win rate, on the same footing as the frontier.

With ``F`` and ``F^-`` the probabilities of at most a reward and of less, and ``p = F - F^-`` of a tie class,

.. math:: \mathrm{KL} = \sum_c q_c \log\frac{q_c}{p_c}, \qquad q_c = F_c^N - (F_c^-)^N,

which is ``log N - (N-1)/N`` where nothing ties (Mroueh 2024; Beirami et al. 2024) and less elsewhere. A reward that
no two samples of a prompt share is taken to be one of a continuous law. The bias of order N/n that the others leave
is removed by the delete-one jackknife; what is left is watched by halves as for the frontier. Best-of-N cannot lie
above the frontier; where estimates do, they are not trusted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klsim.frontier.bootstrap import Bootstrap
from klsim.frontier.dual import TRUSTED_SHARE, UNSTABLE, Dual, value_at
from klsim.frontier.result import BestOfN, Estimate
from klsim.frontier.samples import Samples

__all__ = ["best_of_n", "gold_of_best_of_n", "numbers", "sorted_within"]

ALL_N, POWERS = 32, 2.0 ** np.arange(5, 40, 0.5)
FREE = 1000
ROUNDING = 1e-9
"""Of the range of the rewards."""
NEAR = "N is too near the samples a prompt: halves of them have fewer than N"
NEGLIGIBLE = 0.01
"""Of a KL: a bias of this size is added to the interval, where that is narrower still."""
ABOVE = "its estimates lie above the frontier, which best-of-N never does: more samples are needed"


def numbers(fewest: int) -> np.ndarray:
    """Which N are shown: all to `ALL_N`, then two an octave, to the fewest samples of a prompt."""
    counts = np.arange(1, min(fewest, ALL_N) + 1)
    if fewest <= ALL_N:
        return counts
    more = POWERS[(POWERS > ALL_N) & (fewest > POWERS)].astype(np.int64)
    return np.concatenate([counts, more, [fewest]])


def sorted_within(data: Samples) -> np.ndarray:
    """The order that sorts the rewards within each prompt."""
    return np.asarray(np.lexsort((data.reward, np.repeat(np.arange(data.prompts), data.counts))))


def _sorted_halves(data: Samples) -> np.ndarray:
    """The rewards, sorted within each half of a prompt."""
    from klsim.kernels.log_partition import sort_within

    starts = np.repeat(data.starts[:-1], 2)
    starts[1::2] += data.counts // 2
    return np.asarray(sort_within(data.reward, np.append(starts, data.starts[-1])))


def best_of_n(data: Samples, dual: Dual, boot: Bootstrap, reference: Estimate) -> tuple[BestOfN, ...]:
    """Best-of-N for `numbers` of the fewest samples of a prompt; best-of-1 is the reference."""
    from scipy.special import gammaln

    from klsim.best_of_n import kl_upper_bound
    from klsim.kernels.log_partition import sort_within

    counts = numbers(int(data.counts.min()))
    ordered = sort_within(data.reward, data.starts)
    shared = _atoms(data, ordered)
    ties = shared is not None
    split = ordered if shared is None else _sorted_halves(data)
    atoms = [np.zeros(len(x), dtype=bool) if shared is None else _among(x, shared) for x in (ordered, split)]
    log_factorial = gammaln(np.arange(int(data.counts.max()) + 1) + 1.0)
    sums = data.kernel_sums("best_of_n_sums", [ordered, split, *atoms], counts, log_factorial, ties)
    means, resampled = boot.mean(sums), boot.means(sums)
    rewards, wins = (boot.around_means(sums[:, :, c], resampled[:, :, c]) for c in (0, 3))
    none = np.zeros(boot.resamples)
    out = []
    for k, n in enumerate(counts.tolist()):
        bound = float(kl_upper_bound(float(n)))
        if n == 1:
            zero = Estimate(0.0, 0.0, 0.0)
            out.append(BestOfN(1, reference, zero, 0.0, Estimate(0.5, 0.5, 0.5), zero))
            continue
        reward = rewards[k]
        if ties:
            kl, draws = _kl(sums[:, k], means[k], resampled[:, k], bound, dual)
            if 2 * n > data.counts.min():
                kl = replace(kl, reason=kl.reason or NEAR)
        else:
            kl, draws = Estimate(bound, bound, bound), none + bound
        missed = _missed(sums[:, k], reward, resampled[:, k, 0], kl, draws, dual, exact=not ties)
        win = wins[k] if n < data.counts.min() else None
        value, low, high = (data.scale * x for x in (missed.value, missed.low, missed.high))
        in_units = Estimate(value, low, high, missed.reason)
        above = ABOVE if missed.value < -ROUNDING else ""
        out.append(BestOfN(n, dual.in_units(reward), kl, bound, win, in_units, above))
    return tuple(out)


def _atoms(data: Samples, ordered: np.ndarray) -> np.ndarray | None:
    """Rewards that two samples of one prompt share, ascending; None if none do.

    Without a tie in `FREE` pairs, samples of a prompt tie with probability below ``3/FREE``; with fewer pairs any
    reward may be shared.
    """
    same = np.diff(ordered) == 0
    same[data.starts[1:-1] - 1] = False
    if same.any():
        return np.unique(ordered[:-1][same])
    if float((data.counts * (data.counts - 1.0) / 2).sum()) < FREE:
        return np.unique(ordered)
    return None


def _among(values: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(atoms, values), len(atoms) - 1)
    return np.asarray(atoms[place] == values)


def _kl(
    sums: np.ndarray, means: np.ndarray, resampled: np.ndarray, bound: float, dual: Dual
) -> tuple[Estimate, np.ndarray]:
    """Bias-corrected KL with its interval, and its resamples; columns as in `best_of_n_sums`."""
    boot = dual.boot
    draws = np.minimum(resampled[:, 1], bound)
    value = min(float(means[1]), bound)
    found = boot.around(value, draws, boot.influence(sums[:, 1]))
    _, moved = dual.move(sums[:, 2] - sums[:, 1])
    if moved > TRUSTED_SHARE * boot.stderr(found):
        if moved > NEGLIGIBLE * value:
            return replace(found, reason=UNSTABLE), draws
        found = replace(found, low=found.low - moved, high=min(found.high + moved, bound))
    if found.high - found.low <= NEGLIGIBLE * value:
        found = replace(found, reason="")  # however few prompts carry the little that is open
    return found, draws


def _missed(
    sums: np.ndarray,
    reward: Estimate,
    rewards: np.ndarray,
    kl: Estimate,
    kls: np.ndarray,
    dual: Dual,
    *,
    exact: bool,
) -> Estimate:
    """The frontier at its KL minus its reward, in [0, 1]."""
    boot = dual.boot
    spent = max(kl.value, 1e-12)
    value, log_lam, edge = value_at(spent, dual.mean, dual.lam)
    best = value_at(np.maximum(kls, 1e-12), dual.resampled, dual.lam)[0]
    lam = float(np.exp(log_lam))
    at = dual.near(lam)
    influence = dual.influence(lam) - boot.influence(sums[:, 0])
    if not exact:
        influence = influence + boot.influence(sums[:, 1]) / dual.lam[at]
    gap = float(value) - reward.value
    found = boot.around(gap, best - rewards, influence)
    reason = dual.beyond(spent, bool(edge))
    _, moved = dual.bias(lam)
    if not reason and moved > TRUSTED_SHARE * boot.stderr(reward):
        reason = UNSTABLE
    return replace(found, reason=reason or found.reason)


def gold_of_best_of_n(data: Samples, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Block sums of the gold reward of the sample that is best by the proxy, ``(blocks, Ns)``."""
    from scipy.special import gammaln

    order = sorted_within(data)
    log_factorial = gammaln(np.arange(int(data.counts.max()) + 1) + 1.0)
    return data.kernel_sums("best_of_n_gold_sums", [data.reward[order], gold[order]], counts, log_factorial)
