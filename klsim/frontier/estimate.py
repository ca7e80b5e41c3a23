r"""The frontier of the averaged problem, estimated from samples of the reference.

With ``L_i(lam) = log E_ref[exp(lam r)]`` of prompt ``i`` and ``lam = 1/beta``, the best mean reward with a mean
KL of ``b`` nats is the dual

.. math:: V(b) = \min_{\lambda > 0} \frac{b + \frac1P\sum_i L_i(\lambda)}{\lambda}, \qquad
          K(R) = \max_{\lambda \ge 0} \lambda R - \frac1P\sum_i L_i(\lambda),

attained by one shared ``beta = 1/lam``. ``L_i`` is the log of a mean over the n samples of a prompt: its bias of order
1/n is removed by the delete-one jackknife, and what is left is watched: the same estimate from halves of the samples
moves by at least the remaining bias, if that falls like 1/n or faster. A budget b is *trusted* if

* that move and its own standard error add up to at most half the standard error of the estimate,
* at least ``sqrt n`` of the n samples carry the tilt (about ``n e^-b`` do, so b is at most ``log(n)/2``), and
* b is below what n samples can show at all (``log n``, less where the best rewards tie) by two standard errors.

What a trained policy misses, and its efficiency, must pass the first test by their own standard errors. Intervals are
BCa bootstraps over prompts, widened for few prompts (Hesterberg 2015); with more than `MAX_BLOCKS` prompts, over random
blocks of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.estimators import k3

__all__ = ["BestOfN", "Estimate", "Frontier", "FrontierPoint", "PolicyPoint", "as_json", "estimate"]

MAX_BLOCKS = 10_000
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)
PER_OCTAVE = 8
MAX_OCTAVES = 30
ALL_N, POWERS = 32, 2.0 ** np.arange(5, 40, 0.5)
TRUSTED_SHARE = 0.5
"""Of the standard error: a bias of this size would cost a 95 % interval two points of coverage."""


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FrontierPoint:
    """The best mean reward at one KL budget.

    Attributes:
        budget: mean KL over prompts, nats. beta: the shared coefficient that reaches it.
        reward: expected reward there.
        reward_of_prompts, kl_of_prompts: 10 %, 50 % and 90 % quantiles over prompts, from the tilted samples.
        ess: effective sample size of the tilt, the mean over prompts; at most the samples a prompt.
        halves: reward from halves of the samples minus this one: the remaining bias is of this size or smaller.
        trusted, reason: whether the estimate is to be believed, and why not.
    """

    budget: float
    beta: float
    reward: Estimate
    reward_of_prompts: tuple[float, float, float]
    kl_of_prompts: tuple[float, float, float]
    ess: float
    halves: float
    trusted: bool
    reason: str


@dataclass(frozen=True)
class BestOfN:
    """The best of N samples.

    Attributes:
        n: N. reward: unbiased (a U-statistic); pass@N for binary rewards.
        kl: of best-of-N over the law of the samples, ties included, nats; a lower estimate.
        kl_bound: ``log N - (N-1)/N``. win_rate: against one sample, ties counted half.
    """

    n: int
    reward: Estimate
    kl: float
    kl_bound: float
    win_rate: Estimate


@dataclass(frozen=True)
class PolicyPoint:
    """A trained policy on the same prompts.

    Attributes:
        reward: of its samples. k1, k3: two unbiased estimates of its mean KL to the reference, nats.
        needed_kl: what the frontier needs for its reward. efficiency: ``needed_kl / k1``.
        frontier_reward: of the frontier at its KL. missed_reward: that minus its own.
        trusted, reason: of the frontier at its KL.
    """

    samples: int
    reward: Estimate
    k1: Estimate
    k3: Estimate
    needed_kl: Estimate
    efficiency: Estimate
    frontier_reward: Estimate
    missed_reward: Estimate
    trusted: bool
    reason: str


@dataclass(frozen=True)
class Frontier:
    """What `estimate` found.

    Attributes:
        prompts, samples, samples_a_prompt: how many; the fewest and most samples of a prompt.
        binary: all rewards are 0 or 1.
        reference: mean reward of the reference.
        points: at the budgets asked for; curve: at a fine grid, ``(budget, reward, low, high, trusted)`` rows.
        limit: nats; no budget above it can be shown by these samples.
        best_of_n, policy: see their classes. level, resamples, seed: of the intervals. notes: what a reader must know.
    """

    prompts: int
    samples: int
    samples_a_prompt: tuple[int, int]
    binary: bool
    reference: Estimate
    points: tuple[FrontierPoint, ...]
    curve: tuple[tuple[float, float, float, float, bool], ...]
    limit: float
    best_of_n: tuple[BestOfN, ...]
    policy: PolicyPoint | None
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...]

    @property
    def recommendation(self) -> str:
        """One line: the largest trusted budget, and best-of-N beside it."""
        trusted = [p for p in self.points if p.trusted]
        if not trusted:
            return (
                "no budget asked for can be trusted with these samples: draw more samples a prompt, or smaller budgets"
            )
        at = trusted[-1]
        text = f"at {at.budget:g} nats: beta = {at.beta:.3g}, expected reward {_plus_minus(at.reward)}"
        largest = max((b for b in self.best_of_n if b.n > 1), key=lambda b: b.n, default=None)
        if largest is not None:
            text += f"; best-of-{largest.n} gives {_plus_minus(largest.reward)} at {largest.kl:.2g} nats"
        if self.policy is not None:
            p = self.policy
            text += f"; the trained policy has {_plus_minus(p.reward)} at {p.k1.value:.2g} nats"
            if p.trusted:
                text += f", {p.efficiency.value:.0%} efficient"
        return text

    def plot(self, axes: Any = None) -> Any:
        """Draw it; see `klsim.frontier.plot`."""
        from klsim.frontier.plot import plot

        return plot(self, axes)


def _plus_minus(e: Estimate) -> str:
    half = (e.high - e.low) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    return f"{e.value:.{digits}f} ± {half:.{digits}f}"


def as_json(found: Frontier) -> dict[str, Any]:
    """The frontier as JSON values."""
    return {**asdict(found), "recommendation": found.recommendation}


def estimate(
    prompt: Any,
    reward: Any,
    *,
    policy_prompt: Any = None,
    policy_reward: Any = None,
    policy_logp: Any = None,
    ref_logp: Any = None,
    budgets: Sequence[float] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Frontier:
    """The KL–reward frontier from samples of a reference policy.

    Args:
        prompt: what each sample answers (text or numbers), ``(rows,)``; at least two samples of each of two prompts.
        reward: ``(rows,)``, finite.
        policy_prompt, policy_reward, policy_logp, ref_logp: samples of a trained policy, all or none: their prompts,
            rewards, and log-probabilities (nats, of the whole response) under the policy and the reference. If not all
            prompts have both kinds of samples, everything is about those that have.
        budgets: nats; by default a list up to what the samples can show.
        level, resamples, seed: of the intervals.

    Raises:
        ValueError: shapes that differ, values that are not finite (with their row), a prompt with one sample, fewer
            than two prompts, rewards that are all equal.
    """
    level = _validate.real("level", level, low=0.0, high=np.nextafter(1.0, 0.0), open_low=True)
    resamples = _validate.integer("resamples", resamples, low=100)
    rng = np.random.default_rng(_validate.integer("seed", seed, low=0))
    notes: list[str] = []
    reward = _column("reward", reward)
    policy = {"policy_reward": policy_reward, "policy_logp": policy_logp, "ref_logp": ref_logp}
    given = [name for name, v in (("policy_prompt", policy_prompt), *policy.items()) if v is not None]
    if given and len(given) < 4:
        missing = next(n for n in ("policy_prompt", *policy) if n not in given)
        raise ValueError(f"{missing}: is needed with {given[0]}")
    keys = [prompt] if policy_prompt is None else [prompt, policy_prompt]
    codes = _codes(keys, (len(reward), len(_column("policy_reward", policy_reward)) if given else 0))
    trained = None
    if given:
        columns = {name: _column(name, v) for name, v in policy.items()}
        for name, values in columns.items():
            if len(values) != len(codes[1]):
                raise ValueError(f"{name}: has {len(values)} rows, policy_prompt {len(codes[1])}")
        codes, reward, columns = _common(codes, reward, columns, notes)
        trained = columns
    data = _Samples(codes[0], reward, rng)
    per_policy = None if trained is None else _policy_of_prompts(codes[1], trained, len(data.starts) - 1)
    return _estimate(data, per_policy, trained, budgets, level, resamples, seed, rng, notes)


def _column(name: str, values: Any) -> np.ndarray:
    found = np.asarray(_validate.arrays(**{name: values})[1], dtype=np.float64)
    if found.ndim != 1 or not found.size:
        _validate.fail(name, f"needs one value a row, got shape {found.shape}")
    return np.asarray(_validate.finite(name, np, found))


def _codes(keys: Sequence[Any], rows: tuple[int, ...]) -> list[np.ndarray]:
    """Every prompt as an integer, the same in all columns, in order of first appearance."""
    out = []
    known: dict[Any, int] = {}
    for name, values, count in zip(("prompt", "policy_prompt"), keys, rows):
        column = np.asarray(values)
        if column.ndim != 1 or len(column) != count:
            raise ValueError(f"{name}: needs one prompt a row ({count}), got shape {column.shape}")
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise ValueError(f"{name}: is NaN in row {int(np.flatnonzero(np.isnan(column))[0])}")
        distinct, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        numbers = np.empty(len(distinct), np.int64)
        for place in np.argsort(first):
            numbers[place] = known.setdefault(distinct[place].item(), len(known))
        out.append(numbers[inverse])
    return out


def _common(
    codes: list[np.ndarray], reward: np.ndarray, columns: dict[str, np.ndarray], notes: list[str]
) -> tuple[list[np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Only prompts with samples of both policies."""
    every = np.union1d(codes[0], codes[1])
    both = np.intersect1d(codes[0], codes[1])
    if not both.size:
        raise ValueError("policy_prompt: has no prompt in common with prompt")
    if both.size == every.size:
        return codes, reward, columns
    notes.append(f"{both.size} of {every.size} prompts have samples of both policies; everything is about those")
    kept = [np.isin(c, both) for c in codes]
    renumbered = [np.searchsorted(both, c[k]) for c, k in zip(codes, kept)]
    return renumbered, reward[kept[0]], {name: v[kept[1]] for name, v in columns.items()}


class _Samples:
    """Rewards grouped by prompt in random order, and prompts in random blocks."""

    def __init__(self, codes: np.ndarray, reward: np.ndarray, rng: np.random.Generator) -> None:
        counts = np.bincount(codes)
        if len(counts) < 2:
            raise ValueError("prompt: needs at least two prompts (intervals are over prompts), got 1")
        if counts.max() == 1:
            raise ValueError("prompt: every prompt has one sample; the frontier needs several samples of each prompt")
        single = np.flatnonzero(counts == 1)
        if single.size:
            row = int(np.flatnonzero(codes == single[0])[0])
            raise ValueError(
                f"prompt: {single.size} of {len(counts)} prompts have only one sample, the first in row {row}; "
                "leave them out or draw more"
            )
        low, high = float(reward.min()), float(reward.max())
        if low == high:
            raise ValueError(f"reward: all {len(reward)} rewards are {low:g}: no KL buys any reward")
        order = rng.permutation(len(reward))  # halves must not depend on the order of the file
        order = order[np.argsort(codes[order], kind="stable")]
        self.lowest = low  # only differences matter: keep them exact
        self.reward = reward[order] - low
        self.scale = high - low
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.counts = counts
        prompts = len(counts)
        blocks = min(prompts, MAX_BLOCKS)
        self.members = rng.permutation(prompts) if blocks < prompts else np.arange(prompts)
        self.block_starts = np.linspace(0, prompts, blocks + 1).astype(np.int64)
        self.block_sizes = np.diff(self.block_starts).astype(np.float64)

    def block_sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the blocks of one value (or row) a prompt."""
        return np.asarray(np.add.reduceat(values[self.members], self.block_starts[:-1], axis=0))


def _policy_of_prompts(codes: np.ndarray, columns: dict[str, np.ndarray], prompts: int) -> np.ndarray:
    """Mean reward, k1 and k3 of the trained policy's samples of every prompt, ``(prompts, 3)``."""
    ratio = columns["policy_logp"] - columns["ref_logp"]
    counts = np.bincount(codes, minlength=prompts)
    values = (columns["policy_reward"], ratio, np.asarray(k3(ratio)))
    return np.stack([np.bincount(codes, v, minlength=prompts) / counts for v in values], axis=1)


def _grid(data: _Samples, smallest: float) -> tuple[np.ndarray, int]:
    """``(base, octaves)``: inverse temperatures from a fraction of the smallest budget to where nothing moves."""
    from klsim.kernels.log_partition import tilted_moments

    prompts = len(data.counts)
    some = np.unique(np.linspace(0, prompts - 1, min(prompts, 400)).astype(np.int64))
    rewards = [data.reward[data.starts[i] : data.starts[i + 1]] for i in some]
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rewards])])
    joined = np.concatenate(rewards)
    variance = float(np.mean([r.var() for r in rewards]))
    if variance == 0:
        variance = float(np.mean((data.reward - np.repeat(_prompt_means(data), data.counts)) ** 2))
    if variance == 0:
        raise ValueError("reward: is constant within every prompt: no KL buys any reward")
    low = math.sqrt(smallest / 4 / variance)
    lams = low * 2.0 ** np.arange(MAX_OCTAVES)
    kl = tilted_moments(joined, starts, lams)[:, :, 1].mean(axis=0)
    most = float(np.mean([-math.log(np.mean(r == r.max())) for r in rewards]))
    octaves = int(np.searchsorted(kl, 0.99 * most)) + 2
    return low * 2.0 ** (np.arange(PER_OCTAVE) / PER_OCTAVE), min(octaves, MAX_OCTAVES)


def _prompt_means(data: _Samples) -> np.ndarray:
    return np.asarray(np.add.reduceat(data.reward, data.starts[:-1]) / data.counts)


def _dual(budget: Any, mean_log: np.ndarray, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``min (b + L)/lam`` on the last axis: value, log lam, and whether the grid's upper end is the minimum."""
    values = (np.asarray(budget)[..., None] + mean_log) / lam
    return _refined(values, lam)


def _dual_kl(reward: Any, mean_log: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """``max (lam R - L)``, at least 0 (attained at lam = 0)."""
    values, _, _ = _refined(mean_log - np.asarray(reward)[..., None] * lam, lam)
    return np.maximum(-values, 0.0)


def _refined(values: np.ndarray, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The minimum of a parabola in log lam through the smallest value and its neighbours."""
    at = np.argmin(values, axis=-1)
    edge = at == len(lam) - 1
    middle = np.clip(at, 1, len(lam) - 2)
    left, centre, right = (np.take_along_axis(values, (middle + d)[..., None], -1)[..., 0] for d in (-1, 0, 1))
    bend = left - 2 * centre + right
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    inside = (at == middle) & (np.abs(step) <= 1)
    step = np.where(inside, step, 0.0)
    value = np.where(inside, centre - 0.25 * (left - right) * step, np.min(values, axis=-1))
    position = np.where(inside, middle + step, at)
    return value, np.log(lam[0]) + position * (np.log(lam[1]) - np.log(lam[0])), edge


class _Bootstrap:
    """Expanded percentile intervals over blocks of prompts."""

    def __init__(self, sizes: np.ndarray, level: float, resamples: int, rng: np.random.Generator) -> None:
        from scipy import stats

        blocks = len(sizes)
        self.sizes, self.resamples = sizes, resamples
        self.seed = int(rng.integers(2**63))
        self.width = float(stats.t.ppf(0.5 + level / 2, blocks - 1)) * math.sqrt(blocks / (blocks - 1))
        self.tail = float(stats.norm.cdf(-self.width))
        self.weights: list[np.ndarray] = []

    def means(self, sums: np.ndarray) -> np.ndarray:
        """Resampled means, ``(resamples, columns)``, of block sums ``(blocks, columns)``; the same draws every time."""
        blocks = len(self.sizes)
        columns = np.concatenate([self.sizes[:, None], sums.reshape(blocks, -1)], axis=1)
        out = np.empty((self.resamples, columns.shape[1]))
        start = 0
        for weights in self._weights():
            out[start : start + len(weights)] = weights.astype(np.float64) @ columns
            start += len(weights)
        return (out[:, 1:] / out[:, :1]).reshape(self.resamples, *sums.shape[1:])

    def _weights(self) -> list[np.ndarray]:
        """How often every resample draws every block, in chunks of resamples; drawn once."""
        rng = np.random.default_rng(self.seed)
        blocks = len(self.sizes)
        chunk = max(1, 2_000_000 // blocks)
        for start in range(0, 0 if self.weights else self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            drawn = rng.integers(0, blocks, (rows, blocks)) + blocks * np.arange(rows)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=rows * blocks).reshape(rows, blocks)
            self.weights.append(counts.astype(np.uint16))  # at most MAX_BLOCKS each
        return self.weights

    def around(self, value: float, resampled: np.ndarray) -> Estimate:
        """BCa; the acceleration is a sixth of the resamples' skewness (of a mean: the data's over ``6 sqrt n``)."""
        from scipy.special import ndtr, ndtri

        tails = np.array([self.tail, 1 - self.tail])
        spread = float(np.std(resampled))
        if spread > 0:
            below = np.clip(np.mean(resampled < value) + np.mean(resampled == value) / 2, 1e-3, 1 - 1e-3)
            shift = float(ndtri(below))
            bend = float(np.mean((resampled - np.mean(resampled)) ** 3)) / spread**3 / 6
            z = shift + np.array([-self.width, self.width])
            tails = ndtr(shift + z / np.maximum(1 - bend * z, 0.1))
        low, high = np.quantile(resampled, tails)
        return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def _estimate(
    data: _Samples,
    per_policy: np.ndarray | None,
    trained: dict[str, np.ndarray] | None,
    budgets: Sequence[float] | None,
    level: float,
    resamples: int,
    seed: int,
    rng: np.random.Generator,
    notes: list[str],
) -> Frontier:
    from klsim.kernels.log_partition import log_partitions

    prompts, total = len(data.counts), float(data.block_sizes.sum())
    # rewards in units of their range: any scale of reward behaves the same
    data.reward = data.reward / data.scale
    shown = np.log(data.counts) - _log_ties(data)
    limit, limit_error = float(np.mean(shown)), float(np.std(shown)) / math.sqrt(prompts)
    carried = float(np.mean(np.log(data.counts))) / 2
    if budgets is None:
        asked = np.array([b for b in BUDGETS if b <= limit] or [limit / 2])
    else:
        asked = np.sort(_column("budgets", budgets))
        _validate.positive("budgets", np, asked)
    base, octaves = _grid(data, float(asked[0]))
    lam = np.concatenate([base * 2.0**o for o in range(octaves)])
    logs = log_partitions(data.reward, data.starts, data.members, data.block_starts, base, octaves)
    boot = _Bootstrap(data.block_sizes, level, resamples, rng)
    resampled = boot.means(logs[:, :, 1])
    dual = _Dual(data, lam, logs, resampled, boot, (carried, limit, limit_error), total)
    means = data.block_sums(_prompt_means(data))
    reference = dual.in_units(boot.around(float(means.sum() / total), boot.means(means[:, None])[:, 0]))
    points = tuple(_point(data, dual, float(b)) for b in asked)
    fine = np.geomspace(min(float(asked[0]), 0.01), max(float(asked[-1]), limit), 60)
    curve = tuple(
        (float(b), e.value, e.low, e.high, not reason)
        for b, (e, _, _, reason) in zip(fine, map(dual.reward_at, fine.tolist()))
    )
    best, worst = (f.reduceat(data.reward, data.starts[:-1]) for f in (np.maximum, np.minimum))
    constant = int(np.sum(best == worst))
    if constant:
        notes.append(f"{constant} of {prompts} prompts have equal rewards in all samples: no KL and no gain there")
    if prompts < 20:
        notes.append(f"intervals over {prompts} prompts are rough")
    if prompts > MAX_BLOCKS:
        notes.append(f"prompts are resampled in {MAX_BLOCKS} random blocks")
    binary = data.lowest == 0 and data.scale == 1 and bool(np.all((data.reward == 0) | (data.reward == 1)))
    policy = None
    if per_policy is not None and trained is not None:
        policy = _policy(data, dual, per_policy, len(trained["policy_reward"]))
    return Frontier(
        prompts,
        len(data.reward),
        (int(data.counts.min()), int(data.counts.max())),
        binary,
        reference,
        points,
        curve,
        limit,
        _best_of_n(data, dual, boot),
        policy,
        level,
        resamples,
        seed,
        tuple(notes),
    )


def _log_ties(data: _Samples) -> np.ndarray:
    """Log of how many samples attain the best reward of each prompt."""
    best = np.maximum.reduceat(data.reward, data.starts[:-1])
    ties = np.add.reduceat((data.reward == np.repeat(best, data.counts)).astype(np.float64), data.starts[:-1])
    return np.asarray(np.log(ties))


class _Dual:
    """The dual function of the averaged problem, its resamples, and the check by halves."""

    def __init__(
        self,
        data: _Samples,
        lam: np.ndarray,
        logs: np.ndarray,
        resampled: np.ndarray,
        boot: _Bootstrap,
        limits: tuple[float, float, float],
        total: float,
    ) -> None:
        self.lam, self.resampled, self.boot, self.total = lam, resampled, boot, total
        self.carried, self.limit, self.limit_error = limits
        self.mean = logs[:, :, 1].sum(axis=0) / total
        # halves minus all, block by block
        self.moved = logs[:, :, 2] - logs[:, :, 1]
        self.sizes, self.scale, self.offset = data.block_sizes, data.scale, data.lowest

    def in_units(self, e: Estimate) -> Estimate:
        """From [0, 1] to the user's units of reward."""
        return Estimate(*(self.offset + self.scale * x for x in (e.value, e.low, e.high)))

    def reward_at(self, budget: float) -> tuple[Estimate, float, float, str]:
        """``(reward, lam, move by halves, why it is not to be trusted or "")`` at a budget."""
        value, log_lam, edge = _dual(budget, self.mean, self.lam)
        found = self.boot.around(float(value), _dual(budget, self.resampled, self.lam)[0])
        lam = math.exp(float(log_lam))
        halves, reason = self._check(budget, lam, bool(edge), found)
        return self.in_units(found), lam, halves * self.scale, reason

    def _check(self, budget: float, lam: float, edge: bool, found: Estimate) -> tuple[float, str]:
        halves, reach = self.bias(lam)
        if budget >= self.limit - 2 * self.limit_error or edge:
            return halves, f"these samples show at most {self.limit:.3g} nats"
        if budget > self.carried:
            return halves, f"fewer than sqrt(n) of n samples carry a tilt of more than {self.carried:.3g} nats"
        if reach > TRUSTED_SHARE * self.stderr(found):
            return halves, "too few samples a prompt: the estimate still moves with their number"
        return halves, ""

    def bias(self, lam: float) -> tuple[float, float]:
        """How far halves of the samples move the reward at the tilt ``lam``, and that size plus its standard error."""
        near = int(np.argmin(np.abs(np.log(self.lam) - math.log(lam))))
        moved = self.moved[:, near] / self.lam[near]
        halves = float(moved.sum() / self.total)
        noise = float(np.std(moved - halves * self.sizes, ddof=1)) * math.sqrt(len(moved)) / self.total
        return halves, abs(halves) + noise

    def stderr(self, found: Estimate) -> float:
        return (found.high - found.low) / (2 * self.boot.width)


def _point(data: _Samples, dual: _Dual, budget: float) -> FrontierPoint:
    from klsim.kernels.log_partition import tilted_moments

    reward, lam, halves, reason = dual.reward_at(budget)
    moments = tilted_moments(data.reward, data.starts, np.array([lam]))[:, 0]
    spread = np.quantile(moments[:, :2], [0.1, 0.5, 0.9], axis=0)
    r10, r50, r90 = (float(data.lowest + data.scale * x) for x in spread[:, 0])
    k10, k50, k90 = (float(x) for x in spread[:, 1])
    return FrontierPoint(
        budget,
        data.scale / lam,
        reward,
        (r10, r50, r90),
        (k10, k50, k90),
        float(moments[:, 2].mean()),
        halves,
        not reason,
        reason,
    )


def _best_of_n(data: _Samples, dual: _Dual, boot: _Bootstrap) -> tuple[BestOfN, ...]:
    from scipy.special import gammaln

    from klsim.best_of_n import kl_upper_bound
    from klsim.kernels.log_partition import best_of_n_sums

    fewest = int(data.counts.min())
    counts = np.arange(1, min(fewest, ALL_N) + 1)
    if fewest > ALL_N:
        more = POWERS[(POWERS > ALL_N) & (fewest > POWERS)].astype(np.int64)
        counts = np.concatenate([counts, more, [fewest]])
    # sorted within prompts: one stable sort by reward, then by prompt
    owner = np.repeat(np.arange(len(data.counts)), data.counts)
    ordered = data.reward[np.lexsort((data.reward, owner))]
    log_factorial = gammaln(np.arange(int(data.counts.max()) + 1) + 1.0)
    sums = best_of_n_sums(ordered, data.starts, data.members, data.block_starts, counts, log_factorial)
    means = sums.sum(axis=0) / dual.total
    resampled = boot.means(sums)
    out = []
    for k, n in enumerate(counts.tolist()):
        reward = dual.in_units(boot.around(means[k, 0], resampled[:, k, 0]))
        win = boot.around(means[k, 2], resampled[:, k, 2])
        out.append(BestOfN(n, reward, float(means[k, 1]), float(kl_upper_bound(float(n))), win))
    return tuple(out)


def _policy(data: _Samples, dual: _Dual, per_prompt: np.ndarray, samples: int) -> PolicyPoint:
    sums = data.block_sums(per_prompt)
    reward, k1, k3_ = (sums.sum(axis=0) / dual.total).tolist()
    resampled = dual.boot.means(sums)
    own = (reward - data.lowest) / data.scale
    own_resampled = (resampled[:, 0] - data.lowest) / data.scale
    around = dual.boot.around
    needed = around(float(_dual_kl(own, dual.mean, dual.lam)), _dual_kl(own_resampled, dual.resampled, dual.lam))
    spent = max(k1, 0.0)
    at = _dual(max(spent, 1e-12), dual.mean, dual.lam)[0]
    best = _dual(np.maximum(resampled[:, 1], 1e-12), dual.resampled, dual.lam)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(resampled[:, 1] > 0, _dual_kl(own_resampled, dual.resampled, dual.lam) / resampled[:, 1], 0.0)
    efficiency = around(needed.value / spent if spent > 0 else 0.0, np.where(np.isfinite(ratio), ratio, 0.0))
    _, _, _, reason = dual.reward_at(max(spent, 1e-12))
    if spent <= 0:
        reason = "its estimated KL is not positive: more samples of the policy are needed"
    missed = around(float(at) - own, best - own_resampled)
    if not reason:
        reason = _bias_of_policy(dual, own, spent, missed, efficiency)
    return PolicyPoint(
        samples,
        around(reward, resampled[:, 0]),
        around(k1, resampled[:, 1]),
        around(k3_, resampled[:, 2]),
        needed,
        efficiency,
        dual.in_units(around(float(at), best)),
        Estimate(*(data.scale * x for x in (missed.value, missed.low, missed.high))),
        not reason,
        reason,
    )


def _bias_of_policy(dual: _Dual, own: float, spent: float, missed: Estimate, efficiency: Estimate) -> str:
    """Why the missed reward or the efficiency is not to be trusted, or ""; rewards in [0, 1]."""
    _, log_lam, _ = _dual(spent, dual.mean, dual.lam)
    _, reach = dual.bias(math.exp(float(log_lam)))
    at = int(np.argmax(own * dual.lam - dual.mean))  # where the KL that its reward needs is attained
    needed = dual.bias(float(dual.lam[at]))[1] * float(dual.lam[at])
    shares = (
        (reach, dual.stderr(missed), "missed reward"),
        (needed / spent, dual.stderr(efficiency), "efficiency"),
    )
    for moved, stderr, what in shares:
        if moved > TRUSTED_SHARE * stderr:
            return f"too few samples a prompt: its {what} still moves with their number"
    return ""
