"""What the claims and figures of saturn share: levels, the published results, formulas by enumeration, and a small policy
that is trained by GRPO on ladders of levels."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from klsim.claims import shared
from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k
from klsim.learning.networks import Linear, Network, Tanh
from klsim.objectives import TokenBatch, grpo
from klsim.objectives.advantages import advantages, group_mean, group_std
from klsim.problems import satisfiability as sat


class Level(NamedTuple):
    """n literals a clause, k variables, l clauses."""

    n: int
    k: int
    l: int  # noqa: E741

    @classmethod
    def small(cls, rng):
        """n = 1 … 3, k = n … 4, and l with at most 2000 sets of clauses of one solution."""
        while True:
            n = int(rng.integers(1, 4))
            k = int(rng.integers(max(n, 2), 5))
            l = int(rng.integers(1, sat.clause_count(n, k) + 1))  # noqa: E741
            if math.comb(sat.clause_count(n, k), l) <= 2000:
                return cls(n, k, l)


# published -------------------------------------------------------------------------------------------
#: level: pass@3 of DS-1.5B, DS-7B, Saturn-1.5B, Saturn-7B; pass@1 of DS-1.5B, DS-7B, Saturn-7B (Figure 3, released results)
PUBLISHED = {
    Level(3, 7, 40): (0.010, 0.065, 0.008, 0.229, 0.0033, 0.0225, 0.0858),
    Level(3, 5, 25): (0.038, 0.312, 0.158, 0.782, 0.0133, 0.1225, 0.4467),
    Level(3, 5, 20): (0.094, 0.456, 0.195, 0.941, 0.0333, 0.1925, 0.6642),
    Level(3, 6, 20): (0.091, 0.528, 0.185, 0.935, 0.0333, 0.2333, 0.6450),
    Level(3, 7, 20): (0.093, 0.499, 0.216, 0.933, 0.0333, 0.2150, 0.6458),
    Level(4, 7, 40): (0.033, 0.104, 0.095, 0.243, 0.0108, 0.0383, 0.0917),
    Level(4, 8, 40): (0.047, 0.118, 0.113, 0.265, 0.0158, 0.0450, 0.1025),
    Level(4, 7, 20): (0.193, 0.656, 0.503, 0.910, 0.0717, 0.3017, 0.5733),
    Level(6, 7, 40): (0.289, 0.562, 0.625, 0.724, 0.1058, 0.2442, 0.3642),
    Level(5, 8, 40): (0.125, 0.313, 0.317, 0.457, 0.0442, 0.1225, 0.1917),
}
MODELS = ("DS-1.5B", "DS-7B", "Saturn-1.5B", "Saturn-7B")
HARD = tuple(PUBLISHED)
PASS_3 = dict(zip(MODELS, np.array(list(PUBLISHED.values())).T))
PASS_1 = dict(zip(("DS-1.5B", "DS-7B", "Saturn-7B"), np.array(list(PUBLISHED.values())).T[4:]))
#: Table 2, pass@1 of the base model and after one and two iterations
TABLE_2 = {
    Level(3, 5, 5): (0.367, 0.597, 0.703),
    Level(3, 5, 8): (0.203, 0.410, 0.470),
    Level(3, 5, 13): (0.539, 0.730, 0.895),
    Level(3, 5, 15): (0.393, 0.657, 0.854),
}


def predictor(name):
    """Of difficulty, over the ten levels: ``D``, ``l/k``, or ``-log2 p0``."""
    found = {"D": lambda v: sat.difficulty(*v), "l/k": lambda v: v.l / v.k,
             "-log2 p0": lambda v: -math.log2(sat.guess_probability(*v))}[name]  # fmt: skip
    return np.array([found(v) for v in HARD])


def fit(name, model):
    return float(np.corrcoef(predictor(name), PASS_3[model])[0, 1])


@shared(maxsize=512)
def guessed(level, attempts):
    """Exact success of uniform guesses within that many attempts."""
    return float(sat.guess_pass_at_k(*level, attempts))


def floor(attempts):
    """Success of uniform guesses within 1 or 3 attempts at the ten levels."""
    return np.array([guessed(v, attempts) for v in HARD])


# formulas by enumeration -------------------------------------------------------------------------------
def all_clauses(n, k):
    """The ``C(k, n) 2^n`` clauses over k variables."""
    return [
        tuple(zip(variables, signs))
        for variables in itertools.combinations(range(k), n)
        for signs in itertools.product((False, True), repeat=n)
    ]


def truth(clauses, k):
    """Truth table of every clause as the bits of an integer, point y (a tuple of 0 and 1) at its binary number."""
    points = list(itertools.product((0, 1), repeat=k))
    return [sum(1 << i for i, y in enumerate(points) if any(y[v] == s for v, s in c)) for c in clauses]


@shared(maxsize=256)
def solutions_of_all(level, planted=True):
    """Numbers of solutions of all sets of l clauses, of those that the point 0…0 satisfies, or of all clauses."""
    tables = truth(all_clauses(level.n, level.k), level.k)
    chosen = [t for t in tables if not planted or t & 1]
    full = (1 << 2**level.k) - 1
    counts = []
    for tables in itertools.combinations(chosen, level.l):
        common = full
        for t in tables:
            common &= t
        counts.append(common.bit_count())
    return counts


@shared(maxsize=64)
def law(level):
    """``{formula: probability}`` of the construction, by going through all solutions and all sets of clauses."""
    m = sat.clause_count(level.n, level.k)
    each, out = Fraction(1, 2**level.k * math.comb(m, level.l)), {}
    for bits in itertools.product("01", repeat=level.k):
        clauses = [sat.planted_clause(i, "".join(bits), level.n) for i in range(m)]
        for chosen in itertools.combinations(clauses, level.l):
            formula = tuple(sorted(chosen))
            out[formula] = out.get(formula, 0) + each
    return out


def chi_square(rng, uniform=False):
    """chi² by degrees of freedom of 2000 draws at (2,3,3), against the law or the uniform one."""
    known = {f: 1 / 220 if uniform else float(x) for f, x in law(Level(2, 3, 3)).items()}
    bits = {c: 1 << i for i, c in enumerate(all_clauses(2, 3))}
    key, expected = np.array([sum(bits[c] for c in f) for f in known]), 2000 * np.array(list(known.values()))
    f = sat.planted_formulas(2, 3, 3, 2000, rng)
    clause = 4 * (f.variables.sum(axis=-1) - 1) + f.signs @ [2, 1]
    seen = ((1 << clause).sum(axis=-1) == key[:, None]).sum(axis=-1)
    return np.sum((seen - expected) ** 2 / expected) / (len(known) - 1)


def other_count(level, count):
    """Of independent clauses, of l distinct ones out of all, or with the number of violated clauses at d - 1."""
    n, k, l = level  # noqa: E741
    every, m = math.comb(k, n) << n, sat.clause_count(n, k)
    if count == "independent":
        return 2**k * (1 - 2.0**-n) ** l
    if count == "distinct":
        return 2**k * math.comb(m, l) / math.comb(every, l)
    kept = [m - math.comb(k, n) + math.comb(k - max(d - 1, 0), n) for d in range(k + 1)]
    return sum(math.comb(k, d) * math.comb(x, l) for d, x in enumerate(kept)) / math.comb(m, l)


class Answered(NamedTuple):
    """A planted formula as text, its number of variables, and answers: bits and what surrounds them."""

    clauses: str
    k: int
    answers: tuple[str, ...]

    @classmethod
    def draw(cls, rng):
        """(3, 5, 5) to (4, 6, 20), 32 different assignments."""
        level = Level(*((3, 5, 5), (3, 5, 20), (2, 6, 12), (4, 6, 20))[rng.integers(4)])
        formulas = sat.planted_formulas(*level, 1, rng)
        chosen = rng.choice(2**level.k, 32, replace=False)
        return cls(sat.clauses_text(sorted(formulas.clauses(0))), level.k, tuple(f"{y:0{level.k}b}" for y in chosen))


def python_truth(text, bits):
    """The formula as a Python expression, evaluated."""
    names = {letter: bit == "1" for letter, bit in zip(sat.VARIABLES, bits)}
    clauses = [" or ".join(re.findall("(?:not )?[A-Z]", clause.replace("!", "not "))) for clause in text.split(" & ")]
    return bool(eval(" and ".join(f"({clause})" for clause in clauses), {"__builtins__": {}}, names))


def released_reward(completion, clauses, k):
    """The released verifier: missing characters are read as 0."""
    box = sat.last_box(completion)
    return -1.0 if box is None else sat.answer_reward(rf"\boxed{{{box[:k].ljust(k, '0')}}}", clauses, k)


# C4b: majorities -----------------------------------------------------------------------------------------
def majority_success(rngs, level, size=500, ties=0, planted=False):
    """Share of ``size`` formulas a seed whose majority assignment is a solution (``planted``: is the planted one)."""
    out = []
    for rng in rngs:
        f = sat.planted_formulas(*level, size, rng)
        y = f.majority(ties=ties)
        right = np.all(y == f.solutions, axis=-1) if planted else f.satisfied(y[:, None])[:, 0]
        out.append(right.mean())
    return np.array(out)


class Lacking(NamedTuple):
    """A planted formula with all clauses of its solution but a few, which were chosen against the majority of one
    variable: most agree with the solution there. ``missing`` is the share of the margin ``C(k-1,n-1)`` that is taken."""

    n: int
    solution: np.ndarray
    chosen: np.ndarray

    @classmethod
    def draw(cls, rng):
        n = int(rng.integers(2, 4))
        k = int(rng.integers(n, 6))
        solution = rng.integers(0, 2, k)
        order = rng.random(sat.clause_count(n, k))
        against = int(rng.integers(k))
        bits = "".join(map(str, solution))
        for i in range(len(order)):
            literals = dict(sat.planted_clause(i, bits, n))
            order[i] += literals.get(against) == bool(solution[against])
        return cls(n, solution, np.argsort(-order))

    def formulas(self, fewer=0):
        """With as few clauses as the majority is certain for, less ``fewer``; the first to go are the worst to lose."""
        k, bits = len(self.solution), "".join(map(str, self.solution))
        least = sat.majority_certain_from(self.n, k) - fewer
        kept = [sat.planted_clause(int(i), bits, self.n) for i in self.chosen[len(self.chosen) - least :]]
        pairs = np.array(kept, dtype=np.int64)
        return sat.Formulas(pairs[None, ..., 0], pairs[None, ..., 1].astype(bool), k, self.solution[None])


# C6, C8: groups and counts --------------------------------------------------------------------------
def binomial(n, p):
    """``P(c)``, c = 0 … n, by products."""
    return np.array([math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])


def all_groups(z, size, rewards, scale=group_std):
    """The expected update in the logits, and the policy, over all 3^G groups; advantages of klsim, 27 groups at a time."""
    pi, update = np.exp(log_normalize(z)), np.zeros(3)
    every = np.array(list(itertools.product(range(3), repeat=size)))
    for arms in np.array_split(every, -(-len(every) // 27)):
        group = np.repeat(np.arange(len(arms)), size)
        a = advantages(rewards[arms].ravel(), group, baseline=group_mean, scale=scale).reshape(arms.shape)
        update += np.einsum("g,gi,gia->a", pi[arms].prod(axis=1), a, np.eye(3)[arms] - pi) / size
    return update, pi


def mean_estimate(p, N, K, estimate="unbiased", drawn=None):
    """Over c ~ Bin(N, p)."""
    c = np.arange(N + 1)
    found = pass_at_k(N, c, K) if estimate == "unbiased" else 1 - (1 - c / N) ** K
    return float(binomial(N, p) @ found)


# C7: a policy on ladders of levels -------------------------------------------------------------------
LADDER = (Level(3, 5, 5), Level(3, 5, 13), Level(3, 10, 45), Level(3, 18, 95))
EASY, HARDEST = LADDER[:1], LADDER[-1:]
NETWORK = Network((Linear(4, 12, bias=False), Tanh(), Linear(12, 1, bias=False)))
GROUP, PROMPTS, STEPS, BLOCK, RATE = 8, 16, 240, 20, 0.3
W_SCALE, V_SCALE = 0.5, 0.1


def features(formulas):
    """``(N, k, 4)``: three times the mean sign, the degree by l, three times the needed sign, 1."""
    votes, degrees, needed = formulas.literal_votes()
    share = degrees / formulas.variables.shape[1]
    return np.stack([3 * votes / np.maximum(degrees, 1), share, 3 * needed, np.ones_like(votes)], axis=-1)


def probabilities(parameters, x):
    """``P(y = 1)`` of every variable ``(N, k)`` from `features`, and the tape; a copy takes N/copies formulas, in order."""
    copies = len(parameters[0])
    logits, tape = NETWORK.forward(parameters, x.reshape(copies, -1, 4))
    return 1 / (1 + np.exp(-logits.reshape(x.shape[:2]))), tape


def normalised(rewards):
    """GRPO advantages of groups ``(..., G)``: population std, 0 where all agree."""
    centred = rewards - rewards.mean(axis=-1, keepdims=True)
    deviation = rewards.std(axis=-1, keepdims=True)
    return centred / np.where(deviation > 0, deviation, 1.0)


def ascent(parameters, formulas, u):
    """Gradient of the mean of ``A log pi(y)``, and the success of every copy; ``u (N, G, k)`` are uniforms."""
    copies = len(parameters[0])
    p, tape = probabilities(parameters, features(formulas))
    y = u < p[:, None]
    right = formulas.satisfied(y)
    a = normalised(right.astype(float))
    slope = (np.matmul(a[:, None], y)[:, 0] - a.sum(axis=1, keepdims=True) * p) / (a.size // copies)
    gradient, _ = NETWORK.backward(parameters, tape, slope.reshape(copies, -1, 1))
    return gradient, right.reshape(copies, -1).mean(axis=-1)


def rates(parameters, formulas, x, u):
    """Share of right answers of every copy; ``u (N, G, k)`` are uniforms."""
    y = u < probabilities(parameters, x)[0][:, None]
    return formulas.satisfied(y).reshape(len(parameters[0]), -1).mean(axis=-1)


def success(parameters, level, problems, rng):
    """Sampled pass@1 of every copy on fresh formulas, 8 answers each."""
    formulas = sat.planted_formulas(*level, len(parameters[0]) * problems, rng)
    return rates(parameters, formulas, features(formulas), rng.random((len(formulas), GROUP, level.k)))


class Trained(NamedTuple):
    """``hard (arms, seeds)``: pass@1 at the target; ``reached (arms, seeds)``: the last rung that was trained on;
    ``path (arms, seeds, steps)`` if recorded."""

    hard: np.ndarray
    reached: np.ndarray
    path: np.ndarray


def train(rngs, ladders, target=LADDER[-1], threshold=0.5, record=(), scale=V_SCALE):
    """240 GRPO steps on each ladder from the same parameters, ladders and seeds at once.

    Every copy is on a rung of its ladder; after each block of 20 steps it goes one up if its pass@1 there is above the
    threshold. The copies draw from the stream of the first seed in turn, and are independent of each other.
    """
    rng, seeds, many = rngs[0], len(rngs), len(ladders)
    start = W_SCALE * rng.standard_normal((seeds, 12, 4)), scale * rng.standard_normal((seeds, 1, 12))
    parameters = [np.tile(x, (many, 1, 1)) for x in start]
    rung, reached = np.zeros(many * seeds, dtype=int), np.zeros(many * seeds, dtype=int)
    top = np.repeat([len(ladder) - 1 for ladder in ladders], seeds)
    path = []

    def groups(rows):
        level = [ladders[i // seeds][rung[i]] for i in range(many * seeds)]
        for one in sorted(set(level)):
            found = np.array([i for i in rows if level[i] == one], dtype=int)
            if found.size:
                yield one, found, [x[found] for x in parameters]

    def score(problems):  # the ladders answer the same formulas, with the same uniforms
        formulas = sat.planted_formulas(*target, seeds * problems, rng)
        u, x = rng.random((len(formulas), GROUP, target.k)), features(formulas)
        own = ([w[i * seeds : (i + 1) * seeds] for w in parameters] for i in range(many))
        return np.array([rates(one, formulas, x, u) for one in own])

    for step in range(STEPS):
        if step in record:
            path.append(score(100))
        for level, rows, own in groups(range(many * seeds)):
            formulas = sat.planted_formulas(*level, len(rows) * PROMPTS, rng)
            gradient, _ = ascent(own, formulas, rng.random((len(formulas), GROUP, level.k)))
            for x, g in zip(parameters, gradient):
                x[rows] += RATE * g
        np.maximum(reached, rung, out=reached)
        if step % BLOCK == BLOCK - 1:
            passed = np.zeros(many * seeds, dtype=bool)
            for level, rows, own in groups(np.flatnonzero(rung < top)):
                passed[rows] = success(own, level, 200, rng) > threshold
            rung += passed
    path.append(hard := score(500))
    return Trained(hard, reached.reshape(many, seeds), np.moveaxis(np.array(path), 0, -1) if record else hard)


class Batch(NamedTuple):
    """Parameters of one policy, two formulas of one level, and the uniforms of a group of 6 each."""

    first: np.ndarray
    second: np.ndarray
    formulas: sat.Formulas
    u: np.ndarray

    @classmethod
    def draw(cls, rng):
        level = LADDER[rng.integers(2)]
        return cls(0.5 * rng.standard_normal((12, 4)), 0.5 * rng.standard_normal((1, 12)),
                   sat.planted_formulas(*level, 2, rng), rng.random((2, 6, level.k)))  # fmt: skip

    def features(self):
        """As `features`, clause by clause in plain Python."""
        k, out = self.formulas.k, []
        for i in range(2):
            clauses = self.formulas.clauses(i)
            votes = [sum((1 if s else -1) for c in clauses for v, s in c if v == j) for j in range(k)]
            for j in range(k):
                own = [(1 if s else -1, c) for c in clauses for v, s in c if v == j]
                # the others of the clause are all false
                u = [
                    math.prod(1 / (1 + math.exp(votes[v] if s else -votes[v])) for v, s in c if v != j) for _, c in own
                ]
                needed = sum(x * sign for x, (sign, _) in zip(u, own)) / sum(u) if own else 0.0
                out.append((3 * votes[j] / max(len(own), 1), len(own) / len(clauses), 3 * needed, 1.0))
        return np.array(out).reshape(2, k, 4)

    def step_of_the_loss(self, std="population"):
        """Minus the gradient of `grpo` times k (its mean over tokens is a sum here), by finite differences."""
        x, seen = np.r_[self.first.ravel(), self.second.ravel()], self.features()

        def p(at):
            own = at[None, :48].reshape(1, 12, 4), at[None, 48:].reshape(1, 1, 12)
            return probabilities(own, seen)[0][:, None]

        y = self.u < p(x)
        fields = {"rewards": self.formulas.satisfied(y).ravel().astype(float), "group": np.repeat([0, 1], 6)}  # fmt: skip
        k = y.shape[-1]

        def log_probs(at):
            return np.log(np.where(y, p(at), 1 - p(at))).reshape(-1, k)

        old = log_probs(x)
        ends = [k * float(grpo(TokenBatch(log_probs(x + e), old_log_probs=old, **fields), std=std)[0])
                for e in 1e-6 * np.r_[np.eye(60), -np.eye(60)]]  # fmt: skip
        return (np.array(ends[60:]) - np.array(ends[:60])) / 2e-6
