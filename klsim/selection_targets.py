r"""What training towards the best of n aims at: vBoN, BoNBoN, projections on tilts; and rules side by side.

Best and worst of n draws. With ``W(b, w)`` the chance that b is the best and w the worst of n (ties broken uniformly
among draws), ``P(max <= j, min >= i) = (F_j - F_i^-)^n`` gives W by differences (`best_and_worst`).

*vBoN* trains towards the best of n by the backward ``KL(pi‖bon)``. As ``(F^n - F_-^n)/(F - F_-) <= n F^{n-1}`` and
``>= F^{n-1}``,

.. math:: KL(\pi‖bon) \le KL(\pi‖ref) - (n-1) E_\pi[\log F] \le KL(\pi‖bon) + \log n,

the right form of which is a KL-regularised reward (`variational_bound`), with the optimum ``ref F^{n-1}/Z``
(`variational_best_of_n`). Without ties and for small masses that is the best of n.

*BoNBoN* adds to the forward KL a square loss on pairs (best, worst), ``(log-ratio of best - of worst - 1/(2 beta))^2``
with ``1/(2 beta) = (n-1) H_{n-1}``, the mean of the difference under the best of n for rewards with a density
(`pair_margin`). The minimiser of the square loss is `ipo_best_of_n`.

Sources: Amini, Vieira, Ash and Cotterell (2024), arXiv:2407.06057 (vBoN); Gui, Gârbacea and Veitch (2024),
arXiv:2406.00832 (BoNBoN; its win rate against KL is in `klsim.best_of_n.optimal_win_rate`). Joint law and projections
are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma

from klsim import _validate, best_of_n
from klsim._shown import Shown
from klsim.distributions import expectation, log_normalize
from klsim.divergences import kl
from klsim.pessimism import pessimistic_best_of_n
from klsim.preferences import ipo_fit
from klsim.selection_rules import rejection, soft_best_of_n

__all__ = [
    "Projection",
    "Selected",
    "best_and_worst",
    "ipo_best_of_n",
    "pair_margin",
    "rules_side_by_side",
    "selected",
    "tilt_projection",
    "variational_best_of_n",
    "variational_bound",
    "worst_of_n",
]


@dataclass(frozen=True, repr=False)
class Selected(Shown):
    """A law of choices and what it gives.

    Attributes:
        log_policy: ``(A,)``. reward: its mean. kl: to the law of the draws, nats.
        win_rate: against one draw, ties counted 1/2.
    """

    log_policy: np.ndarray
    reward: float
    kl: float
    win_rate: float


@dataclass(frozen=True, repr=False)
class Projection(Shown):
    """The tilt ``ref e^{strength reward}/Z`` nearest to a target.

    Attributes:
        strength: 1/beta, per reward unit. log_policy: ``(A,)``. divergence: the KL that was minimised, nats.
    """

    strength: float
    log_policy: np.ndarray
    divergence: float


def _one(log_p: Any, reward: Any, name: str = "log_p") -> tuple[np.ndarray, np.ndarray]:
    log_p, reward = _validate.numpy_arrays(**{name: log_p, "reward": reward})
    _validate.log_probs(name, np, log_p)
    _validate.finite("reward", np, reward)
    if log_p.ndim != 1 or reward.shape != log_p.shape:
        _validate.fail("reward", f"must be a vector of the length of {name}, got {reward.shape} and {log_p.shape}")
    return log_p.astype(np.float64), reward.astype(np.float64)


def _policy(name: str, log_policy: Any, like: np.ndarray) -> np.ndarray:
    (law,) = _validate.numpy_arrays(**{name: log_policy})
    _validate.log_probs(name, np, law)
    if law.shape != like.shape:
        _validate.fail(name, f"must have shape {like.shape}, got {law.shape}")
    return np.asarray(law, dtype=np.float64)


def _log_cdf(log_p: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(log F of every level, log F^- of every level, level of every outcome)``, from the nearer tail."""
    _, level = np.unique(reward, return_inverse=True)
    mass = np.full(level.max() + 1, -np.inf)
    np.logaddexp.at(mass, level, log_p)
    lower = np.minimum(np.logaddexp.accumulate(mass), 0.0)
    upper = np.append(np.minimum(np.logaddexp.accumulate(mass[::-1])[::-1], 0.0)[1:], -np.inf)  # strictly above
    with np.errstate(divide="ignore"):
        upto = np.where(upper < -0.7, np.log1p(-np.exp(np.minimum(upper, -0.7))), lower)
    return upto, np.append(-np.inf, upto[:-1]), level


def selected(log_policy: Any, log_p: Any, reward: Any) -> Selected:
    """Reward, KL and win rate of a law of choices among draws from ``log_p``, each ``(A,)``.

    Raises:
        ValueError: no log-probabilities, a reward that is not finite, shapes that differ.
    """
    log_p, reward = _one(log_p, reward)
    law = _policy("log_policy", log_policy, log_p)
    wins = best_of_n.mid_quantile(log_p, reward)
    return Selected(law, float(expectation(law, reward)), float(kl(law, log_p)), float(expectation(law, wins)))


def rules_side_by_side(
    log_p: Any, reward: Any, n: int, *, temperature: float, threshold: float, beta: float
) -> dict[str, Selected]:
    """Every rule that chooses one of n draws by its reward, by name.

    ``"best"``, ``"worst"``, ``"soft"`` (at a temperature), ``"rejection"`` (of rewards below a threshold),
    ``"pessimistic"`` (`klsim.pessimism.pessimistic_best_of_n`), and ``"one"``, the first draw.

    Raises:
        ValueError: as the rules.
    """
    log_p, reward = _one(log_p, reward)
    laws = {
        "one": log_p,
        "best": best_of_n.log_policy(log_p, reward, _validate.integer("n", n, low=1)),
        "worst": worst_of_n(log_p, reward, n),
        "soft": soft_best_of_n(log_p, reward, n, temperature),
        "rejection": rejection(log_p, reward, n, threshold),
        "pessimistic": pessimistic_best_of_n(log_p, reward, n, beta),
    }
    return {name: selected(log_normalize(law), log_p, reward) for name, law in laws.items()}


def worst_of_n(log_p: Any, reward: Any, n: float) -> np.ndarray:
    """Log-law of the draw with the lowest reward of n, ties broken uniformly, ``(A,)``; any real ``n > 0``.

    Raises:
        ValueError: no log-probabilities, a reward that is not finite, shapes that differ, ``n <= 0``.
    """
    log_p, reward = _one(log_p, reward)
    n = _validate.real("n", n, low=0.0, open_low=True, open_high=True)
    return np.asarray(best_of_n.log_policy(log_p, -reward, n))


def best_and_worst(log_p: Any, reward: Any, n: int) -> np.ndarray:
    """Probability that outcome b is the best and w the worst of n draws, ``(A, A)``, from rows (best) to columns.

    Where all n draws tie, best and worst are two of them, drawn at random.

    Raises:
        ValueError: no log-probabilities, a reward that is not finite, shapes that differ, ``n < 2``.
    """
    log_p, reward = _one(log_p, reward)
    n = _validate.integer("n", n, low=2)
    inside = np.isfinite(log_p)
    p = np.exp(log_normalize(log_p[inside]))
    _, level = np.unique(reward[inside], return_inverse=True)
    mass = np.bincount(level, weights=p)
    edge = np.append(0.0, np.cumsum(mass))
    share = p / mass[level]
    best, worst = np.arange(len(mass))[:, None], np.arange(len(mass))[None]
    joint = np.where(best > worst, _both_ends(edge, mass, best, worst, n), np.where(best == worst, mass**n, 0.0))
    out = np.zeros((len(log_p), len(log_p)))
    out[np.ix_(inside, inside)] = joint[level[:, None], level[None]] * share[:, None] * share[None]
    return out


def _both_ends(edge: np.ndarray, mass: np.ndarray, best: np.ndarray, worst: np.ndarray, n: int) -> np.ndarray:
    """``P(level of the best, level of the worst)``: a second difference of ``(F_best - F_worst^-)^n``, in ratios.

    With x the mass strictly between and a, b that of the levels: ``(x+a+b)^n - (x+a)^n - (x+b)^n + x^n``.
    """
    high, low = np.maximum(best, worst), np.minimum(best, worst)
    x = np.maximum(edge[high] - edge[np.minimum(low + 1, len(mass))], 0.0)
    a, b = mass[best], mass[worst]
    whole = x + a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [n * np.log1p(-part / whole) for part in (a, b, a + b)]
        one, other, both = (np.expm1(np.where(np.isnan(r), -np.inf, r)) for r in ratios)
    return np.asarray(np.maximum(whole**n * (both - one - other), 0.0))


def pair_margin(n: Any) -> float:
    """``(n-1) H_{n-1}``: how much larger ``log(bon/ref)`` is on average at the best than at the worst of n.

    For rewards with a density; ``1/(2 beta)`` of BoNBoN.

    Raises:
        ValueError: ``n < 2``.
    """
    n = _validate.integer("n", n, low=2)
    return float((n - 1) * (digamma(n) + np.euler_gamma))


def ipo_best_of_n(log_p: Any, reward: Any, n: int, margin: float | None = None) -> np.ndarray:
    """Log-policy ``(A,)`` with the least ``E[(log-ratio of best - of worst - margin)^2]`` over pairs of n draws.

    Args:
        margin: `pair_margin` by default.

    Raises:
        ValueError: as `best_and_worst`; a margin that is not positive; pairs that do not connect all outcomes (all
            rewards equal is fine; masses so small, or n so large, that a pair has probability 0 in float64 is not).
    """
    pairs = best_and_worst(log_p, reward, n)
    log_p, reward = _one(log_p, reward)
    margin = (
        pair_margin(n) if margin is None else _validate.real("margin", margin, low=0.0, open_low=True, open_high=True)
    )
    inside = np.isfinite(log_p)
    w = pairs[np.ix_(inside, inside)]
    both = w + w.T
    with np.errstate(invalid="ignore", divide="ignore"):
        preference = np.where(both > 0, w / both, 0.5)
    off = np.where(np.eye(len(w), dtype=bool), 0.0, both)
    scale = float(off.max(initial=0.0))
    out = np.full(log_p.shape, -np.inf)
    if len(w) == 1:
        out[inside] = 0.0
        return out
    try:
        h = ipo_fit(preference, 1 / (2 * margin), off / max(scale, 1e-300))
    except ValueError:
        _validate.fail("n", "leaves outcomes that no pair of best and worst compares, in float64", n)
    out[inside] = log_normalize(log_p[inside] + h)
    return out


def variational_best_of_n(log_p: Any, reward: Any, n: float) -> np.ndarray:
    """``ref F^{n-1}/Z``, log ``(A,)``: where `variational_bound` is least. ``F`` counts ties; any real ``n >= 1``.

    Raises:
        ValueError: no log-probabilities, a reward that is not finite, shapes that differ, ``n < 1``.
    """
    log_p, reward = _one(log_p, reward)
    n = _validate.real("n", n, low=1.0, open_high=True)
    inside = np.isfinite(log_p)
    upto, _, level = _log_cdf(log_p[inside], reward[inside])
    out = np.full(log_p.shape, -np.inf)
    out[inside] = log_normalize(log_p[inside] + (n - 1) * upto[level])
    return out


def variational_bound(log_policy: Any, log_p: Any, reward: Any, n: float) -> float:
    """``KL(pi‖ref) - (n-1) E_pi[log F]``, nats: between ``KL(pi‖bon)`` and that plus ``log n``.

    Raises:
        ValueError: as `variational_best_of_n`; a policy of another shape.
    """
    log_p, reward = _one(log_p, reward)
    n = _validate.real("n", n, low=1.0, open_high=True)
    policy = _policy("log_policy", log_policy, log_p)
    inside = np.isfinite(log_p)
    upto, _, level = _log_cdf(log_p[inside], reward[inside])
    if np.any(np.isfinite(policy[~inside])):
        return float(np.inf)
    return float(kl(policy, log_p) - (n - 1) * (np.exp(policy[inside]) @ upto[level]))


def tilt_projection(log_ref: Any, reward: Any, log_target: Any, *, direction: str = "forward") -> Projection:
    r"""The tilt ``pi_s = ref e^{s r}/Z``, any real s, with the least KL to a target.

    ``"forward"``: ``KL(target‖pi_s)``, convex in s, least where ``E_s[r] = E_target[r]``. ``"backward"``:
    ``KL(pi_s‖target)``, stationary where ``s Var_s(r) = Cov_s(r, log(target/ref))``; it may have several local minima,
    the least of those that a scan of 2,001 strengths tells apart is taken.

    Raises:
        ValueError: no log-probabilities; a reward that is not finite, or the same for all outcomes; a target of another
            shape, or with mass outside ``ref``; forward: a target with all of its mass on the highest or the lowest
            reward (the strength is infinite); backward: a target that lacks an outcome of ``ref`` (the KL is infinite).
    """
    log_ref, reward = _one(log_ref, reward, "log_ref")
    target = _policy("log_target", log_target, log_ref)
    _validate.one_of("direction", direction, ("forward", "backward"))
    inside = np.isfinite(log_ref)
    if np.any(np.isfinite(target[~inside])):
        _validate.fail("log_target", "has mass outside log_ref")
    p, r, q = log_ref[inside], reward[inside], target[inside]
    unit = float(np.ptp(r)) if np.isfinite(np.ptp(r)) else 0.0
    if not unit > 0:
        _validate.fail("reward", "must differ between outcomes, by a finite amount")
    x = (r - r.max()) / unit  # in [-1, 0]

    def law(s: float) -> np.ndarray:
        return np.asarray(log_normalize(p + s * x))

    find = _matched_mean if direction == "forward" else _least_backward
    s = find(law, x, q, p)
    out = np.full(log_ref.shape, -np.inf)
    out[inside] = law(s)
    value = kl(target, out) if direction == "forward" else kl(out, target)
    return Projection(s / unit, out, float(value))


def _matched_mean(law: Any, x: np.ndarray, q: np.ndarray, p: np.ndarray) -> float:
    """s with ``E_s[x] = E_target[x]``, both measured from the nearer end of [-1, 0]."""
    wanted = float(np.exp(q) @ x)
    from_below = float(np.exp(q) @ (1 + x))
    if not (wanted < 0 and from_below > 0):
        _validate.fail("log_target", "has all of its mass on one end of the rewards: the strength is infinite")

    def excess(s: float) -> float:
        now = np.exp(law(s))
        if wanted > -0.5:
            return float(np.log(wanted / min(now @ x, -1e-320)))
        return float(np.log(max(now @ (1 + x), 1e-320) / from_below))

    reach = 1.0
    while not excess(-reach) < 0 < excess(reach):
        reach *= 2.0
        if reach > 1e12:
            _validate.fail("log_target", "is too near to one end of the rewards")
    return float(brentq(excess, -reach, reach, xtol=1e-14, rtol=1e-14))


def _least_backward(law: Any, x: np.ndarray, q: np.ndarray, p: np.ndarray) -> float:
    """The least of ``KL(pi_s‖target)``: a scan, then the root of its slope."""
    if np.any(np.isneginf(q)):
        _validate.fail("log_target", "lacks an outcome of log_ref: the backward KL is infinite")

    def slope(s: float) -> float:
        now = np.exp(law(s))
        centred = x - now @ x
        return float(now @ (centred * (s * centred - (q - p))))

    scan = np.sinh(np.linspace(-12.0, 12.0, 2001))
    rows = max(1, 1_000_000 // len(x))
    parts = [scan[start : start + rows, None] for start in range(0, len(scan), rows)]
    found = np.concatenate([kl(log_normalize(p + part * x), q) for part in parts])
    k = int(np.argmin(found))
    low, high = scan[max(k - 1, 0)], scan[min(k + 1, len(scan) - 1)]
    if not slope(low) < 0 < slope(high):
        return float(scan[k])
    return float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))
