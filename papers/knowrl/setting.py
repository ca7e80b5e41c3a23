r"""What the claims and figures of knowrl share: accuracy functions of hints, prefixes with a key step, and learning from hints.

``K`` the knowledge points (KPs) of a problem, ``A(S)`` the accuracy with the hint S, an array ``(..., 2^n)``
(`klsim.set_functions`); ``Ahat`` estimates it from N rollouts of each subset.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from klsim import set_functions as sf

ROLLOUTS, GRID = 32, 1 / 32  # rollouts a subset, and the tolerance of the selections


# C1, C3, C4: coverage ------------------------------------------------------------------------------
class Coverage(NamedTuple):
    """``A(S) = kappa^|S| prod over facts (1 if a KP of S covers it, else unaided)``; leading axes are instances.

    ``cover`` ``(..., n, facts)``, ``unaided`` ``(..., facts)``: chance to know a fact without its KP, ``kappa`` ``(...)``.
    """

    cover: np.ndarray
    unaided: np.ndarray
    kappa: np.ndarray

    @classmethod
    def draw(cls, rng, *batch, n=6, facts=4, high=0.6):
        cover = rng.random((*batch, n, facts)) < 0.2
        kappa = rng.uniform(0.9, 1.0, batch) if batch else float(rng.uniform(0.9, 1.0))
        return cls(cover, rng.uniform(0.05, high, (*batch, facts)), kappa)

    def table(self):
        n = self.cover.shape[-2]
        found = sf.members(n).astype(float) @ self.cover > 0  # (..., 2^n, facts)
        known = np.where(found, 1.0, self.unaided[..., None, :])
        return np.asarray(self.kappa)[..., None] ** sf.sizes(n) * np.prod(known, axis=-1)

    def smallest_cover(self):
        """Fewest KPs that cover what all cover, by trying."""
        target = self.cover.any(axis=0)
        for count in range(len(self.cover) + 1):
            for rows in itertools.combinations(range(len(self.cover)), count):
                if np.array_equal(self.cover[list(rows)].any(axis=0), target):
                    return count
        raise AssertionError("all KPs cover it")


def estimated(rng, accuracy, rollouts=ROLLOUTS):
    """``Ahat``: independent rollouts of every subset."""
    return rng.binomial(rollouts, accuracy) / rollouts


def additive(rng, *batch, n=6, scale=0.02):
    """``A(S) = .6 + sum of effects N(0, .02²)``: nothing interacts."""
    effects = scale * rng.standard_normal((*batch, n))
    return 0.6 + effects @ sf.members(n).T.astype(float)


class ByHand(NamedTuple):
    """What a search gives, with sets instead of places."""

    best: float
    size: int
    evaluations: int
    near: int
    minimal: list
    worst: float

    @classmethod
    def of(cls, a, delta, more=False):
        """``more``: ties go to more KPs. ``minimal``: the subsets as good as K without a part that is; ``worst``: of joint removals."""
        n = a.size.bit_length() - 1
        value = {frozenset(k for k in range(n) if s >> k & 1): x for s, x in enumerate(a)}
        full = frozenset(range(n))
        single = {k: value[full - {k}] for k in full}

        def without(elements):
            return [full - set(m) for r in range(len(elements) + 1) for m in itertools.combinations(elements, r)]

        kept = without([k for k in full if single[k] >= max(single.values()) - delta - 1e-12])
        best = max(value[s] for s in kept)
        size = [len(s) for s in kept if value[s] >= best - 1e-12]
        looked = {full, *(full - {k} for k in full), *kept}
        enough = {s for s, x in value.items() if x >= value[full] - 1e-12}
        minimal = [s in enough and not any(part < s for part in enough) for s in value]
        joint = [
            value[s] - value[full]
            for s in without([k for k in full if single[k] >= value[full] - 1e-12])
            if len(s) < n - 1
        ]
        return cls(
            best,
            max(size) if more else min(size),
            len(looked),
            int(np.log2(len(kept))),
            minimal,
            min(joint, default=9.0),
        )


STRATEGIES = {
    "none": lambda a: np.zeros(a.shape[:-1], dtype=int),
    "All": lambda a: np.full(a.shape[:-1], a.shape[-1] - 1),
    "S-LOO": sf.leave_one_out,
    "T-LOO": lambda a: sf.leave_one_out(a, GRID),
    "pruned first": lambda a: sf.search_survivors(a, GRID),
    "CSS": lambda a: sf.constrained_search(a, GRID),
    "exhaustive": sf.best_between,
}


def outcome(accuracy, chosen):
    """``(accuracy, size)`` of chosen subsets."""
    size = sf.sizes(accuracy.shape[-1].bit_length() - 1)
    return np.take_along_axis(accuracy, np.asarray(chosen)[..., None], axis=-1)[..., 0], size[chosen]


# C2: interactions of one sign ----------------------------------------------------------------------
def of_interactions(singles, pairs=None, triples=None):
    """The set function ``(..., 2^n)`` with these dividends of singles ``(..., n)``, pairs and triples (by place)."""
    n = singles.shape[-1]
    size, out = sf.sizes(n), np.zeros((*singles.shape[:-1], 2**n))
    for order, given in ((1, singles), (2, pairs), (3, triples)):
        if given is not None:
            out[..., size == order] = given
    return sf.from_dividends(out)


def random_interactions(rng, sign, *batch, mean=0.0, n=5):
    """Singles ``mean + .3 N(0,1)``, pairs ``sign Exp(.2)`` with probability .6, triples Exp(.05) if ``sign`` is 1."""
    singles = mean + 0.3 * rng.standard_normal((*batch, n))
    pairs = sign * rng.exponential(0.2, (*batch, 10)) * (rng.random((*batch, 10)) < 0.6)
    return of_interactions(singles, pairs, rng.exponential(0.05, (*batch, 10)) if sign > 0 else None)


# C3: joint removal of all that may go alone --------------------------------------------------------
class Paradox(NamedTuple):
    """Of some problems: how many KPs may go alone, and what removing all of these together changes."""

    count: np.ndarray
    change: np.ndarray

    @classmethod
    def of(cls, accuracy):
        return cls(*sf.joint_removal(accuracy))

    def share(self, m=None):
        """``p_m``: share of the problems with m of them (None: at least 2) that lose."""
        chosen = self.count >= 2 if m is None else self.count == m
        return np.mean(self.change[chosen] < -1e-12)

    def drop(self, m=None):
        """``Delta_m``: mean loss of those that lose."""
        chosen = self.count >= 2 if m is None else self.count == m
        return -np.mean(self.change[chosen & (self.change < -1e-12)])


# C4: choosing by estimates ---------------------------------------------------------------------------
def by_enumeration(p, n, last=False):
    """``(law, E score)`` of the first (last) of the largest estimates, over all counts."""
    law, score = np.zeros(len(p)), 0.0
    for counts in itertools.product(range(n + 1), repeat=len(p)):
        chance = np.prod(binom.pmf(counts, n, p))
        best = len(p) - 1 - int(np.argmax(counts[::-1])) if last else int(np.argmax(counts))
        law[best] += chance
        score += chance * max(counts) / n
    return law, score


# C5: one key step ----------------------------------------------------------------------------------
STEPS, KEY = 12, 0.02


class Chain(NamedTuple):
    """Chances of the steps ``(H,)`` of a solution, and which one is the key step (from 0)."""

    chance: np.ndarray
    key: int

    @classmethod
    def draw(cls, rng):
        chance, key = rng.uniform(0.93, 0.99, STEPS), int(rng.integers(2, 9))
        chance[key] = KEY
        return cls(chance, key)

    @classmethod
    def even(cls, rng):
        """The same difficulty in equal parts."""
        return cls(np.full(STEPS, 0.97 * KEY ** (1 / STEPS)), int(rng.integers(2, 9)))

    def success(self):
        """``V(h)``, the success after the first h steps are revealed, ``(H + 1,)``."""
        return np.append(np.cumprod(self.chance[::-1])[::-1], 1.0)

    def jumps(self):
        """Share of each step in the total gain, ``(H,)``."""
        value = self.success()
        return np.diff(value) / (value[-1] - value[0])


# C6: problems that share facts ---------------------------------------------------------------------
PROBLEMS, FACTS, NEEDED, GROUP, VERIFIER = 40, 10, 3, 8, 0.95
HINTS = {"none": NEEDED, "minimal": 1, "all": 0}  # facts that the policy has to supply itself


def group_step(known, uniforms, verified, free):
    """Steps of the logits ``(runs, needed)``, and correct rollouts ``(runs,)``, of one group a run.

    ``known`` ``(runs, needed)``: chance of each fact; ``uniforms`` ``(runs, rollouts, needed)``, ``verified`` ``(runs,
    rollouts)``; ``free`` ``(runs, needed)``: facts that are not in the hint. GRPO: group mean and population deviation.
    """
    right = uniforms < known[:, None]
    reward = (np.all(right | ~free[:, None], axis=-1) & verified).astype(float)
    rate = reward.mean(axis=-1, keepdims=True)
    spread = np.sqrt(rate * (1 - rate))
    advantage = (reward - rate) / np.where(spread > 0, spread, 1.0)
    step = np.mean(advantage[..., None] * (right - known[:, None]), axis=1) * free
    return step, reward.sum(axis=-1).astype(int)


class Learned(NamedTuple):
    """What training left: no-hint accuracy ``(runs,)``, correct counts of every group ``(runs, updates)``, the weights, the needs."""

    accuracy: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    needs: np.ndarray


def unhinted(weights, needs):
    """Mean over problems of ``.95 prod sigmoid(w_f)``, ``(runs,)``."""
    runs = np.arange(len(weights))[:, None, None]
    return VERIFIER * np.mean(np.prod(expit(weights)[runs, needs], axis=-1), axis=-1)


def learn(rngs, hint, updates=2500, lr=1.0, start=-3.0):
    """GRPO on one random problem an update; ``hint`` of `HINTS`; one run a generator; ``start``: of the logits."""
    runs, rows = len(rngs), np.arange(len(rngs))
    weights, draws = np.broadcast_to(np.asarray(start, dtype=float), (runs, FACTS)).copy(), []
    needs = np.array([[r.permutation(FACTS)[:NEEDED] for _ in range(PROBLEMS)] for r in rngs])
    counts = np.empty((runs, updates), dtype=int)
    for r in rngs:
        draws.append((r.integers(0, PROBLEMS, updates), r.integers(0, NEEDED, updates),
                      r.random((updates, GROUP, NEEDED), dtype=np.float32), r.random((updates, GROUP)) < VERIFIER))  # fmt: skip
    problem, alone, uniforms, verified = (np.stack(x) for x in zip(*draws))
    for t in range(updates):
        facts = needs[rows, problem[:, t]]
        free = np.ones((runs, NEEDED), dtype=bool)
        if HINTS[hint] < NEEDED:
            free = (np.arange(NEEDED) == alone[:, t, None]) & (HINTS[hint] > 0)
        known = expit(weights[rows[:, None], facts])
        step, counts[:, t] = group_step(known, uniforms[:, t], verified[:, t], free)
        weights[rows[:, None], facts] += lr * step
    return Learned(unhinted(weights, needs), counts, weights, needs)
