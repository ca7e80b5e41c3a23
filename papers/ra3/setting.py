"""What the claims and figures of ra3 share: tasks with prunable actions, latent chains by enumeration, the world of skills."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from klsim.distributions import log_normalize
from klsim.learning.chunk_mixtures import ChunkMixture, fit_chunk_mixture, fit_contexts, success_ascent
from klsim.planning.latent_chains import LatentChain, persistent_prior
from klsim.planning.pruning import bad_subsets, pruning_errors
from klsim.problems import DiscountedMDP, TabularMDP


def dirichlet(rng, alpha, *shape):
    """Logs of Dirichlet rows, ``shape``; entries below 1e-300 are raised to it."""
    return log_normalize(np.log(np.maximum(rng.dirichlet(np.full(shape[-1], alpha), shape[:-1]), 1e-300)))


# C1: kept actions ------------------------------------------------------------------------------------
class Kept(NamedTuple):
    """A problem, two kept actions (the same everywhere, or a state), and a policy inside."""

    problem: DiscountedMDP
    keep: np.ndarray
    log_policy: np.ndarray

    @classmethod
    def draw(cls, rng, states=6, actions=5):
        """Dirichlet(.3) transitions, rewards U(0, 1), discount .9, the policy Dirichlet(1) on what is kept."""
        problem = DiscountedMDP(rng.dirichlet(np.full(states, 0.3), (states, actions)), rng.random((states, actions)), 0.9,
                                np.full(states, 1 / states))  # fmt: skip
        rows = states if rng.random() < 0.5 else 1
        keep = np.argsort(rng.random((rows, actions)), axis=1) < 2
        keep = np.broadcast_to(keep, (states, actions)).copy()
        return cls(problem, keep, log_normalize(np.where(keep, dirichlet(rng, 1.0, states, actions), -np.inf)))


def iterated(problem, keep):
    """Optimal values with the kept actions, by value iteration until nothing moves by more than 1e-13."""
    value, moved = np.zeros(len(problem.initial)), math.inf
    while moved > 1e-13:
        q = problem.reward + problem.discount * problem.transition @ value
        new = np.where(keep, q, -np.inf).max(axis=1)
        moved, value = np.abs(new - value).max(), new
    return value


def evaluated(problem, log_policy):
    """A policy's values by one linear system."""
    p = np.exp(log_policy)
    chain = np.einsum("sa,sax->sx", p, problem.transition)
    return np.linalg.solve(np.eye(len(chain)) - problem.discount * chain, np.sum(p * problem.reward, axis=1))


def by_mirror_ascent(log_ref, reward, beta):
    """``max E[r] - beta KL`` by exponentiated gradients from the uniform law; the error shrinks by .7 a step."""
    ref, log_p = log_normalize(log_ref), np.full(len(reward), -math.log(len(reward)))
    for _ in range(150):
        log_p = log_normalize(log_p + 0.3 / beta * (reward - beta * (log_p - ref)))
    return np.exp(log_p) @ (reward - beta * (log_p - ref))


# C2: demonstrated tasks ------------------------------------------------------------------------------
ACTIONS, SIZE, TASKS = 8, 4, 30
EPSILON, SIGMA, DELTA = 0.1, 0.15, 0.1


def subsets(actions, size):
    """All subsets as masks ``(n, K)``."""
    chosen = list(itertools.combinations(range(actions), size))
    return (np.arange(actions) == np.array(chosen)[..., None]).any(axis=1)


def tasks(rng):
    """Values ``(30, 8)``: U(0, 1), one of the first four actions has 1."""
    values = rng.random((TASKS, ACTIONS))
    values[np.arange(TASKS), rng.integers(0, SIZE, TASKS)] = 1.0
    return values


def bad_errors(values):
    """Errors ``(n, T)`` of the bad subsets of four actions."""
    errors = pruning_errors(values, subsets(values.shape[1], SIZE))
    return errors[bad_subsets(errors, np.full(len(values), -math.log(len(values))), EPSILON, SIGMA)]


def errors_by_loops(values, masks):
    """Errors ``(n, T)``, action by action."""
    return np.array([[max(row) - max(x for x, inside in zip(row, mask) if inside) for row in values] for mask in masks])


class Lottery(NamedTuple):
    """Errors in [0, largest] under a law of tasks; many of them at the edges where bounds are tight."""

    errors: np.ndarray
    law: np.ndarray
    epsilon: float
    sigma: float
    largest: float

    @classmethod
    def draw(cls, rng):
        count, epsilon, largest = int(rng.integers(2, 6)), float(rng.uniform(0.02, 0.3)), float(rng.uniform(0.5, 2))
        levels = np.array([epsilon, epsilon / 2, largest, largest * rng.random()])
        return cls(
            levels[rng.integers(0, 4, count)],
            rng.dirichlet(np.ones(count)),
            epsilon,
            float(rng.uniform(0.05, 0.5)),
            largest,
        )

    @property
    def tail(self):
        return np.sum(self.law[self.errors > self.epsilon])

    @property
    def mean(self):
        return self.law @ self.errors


def extreme_laws(epsilon, sigma, largest, level):
    """Over laws on [0, largest]: the largest mean with ``P[Delta > eps] <= sigma``, and the smallest
    ``P[Delta > level eps]`` with a mean of eps."""
    x = np.concatenate([np.linspace(0, largest, 41), [epsilon, level * epsilon]])
    law = {"A_eq": np.ones((1, x.size)), "b_eq": [1.0], "bounds": (0, 1)}
    mean = -linprog(-x, A_ub=[(x > epsilon).astype(float)], b_ub=[sigma], **law).fun
    tail = linprog((x > level * epsilon).astype(float), A_ub=[-x], b_ub=[-epsilon], **law).fun
    return mean, tail


# C3: options -----------------------------------------------------------------------------------------
def maze(rng, states=8, actions=3, discount=0.95, random=False):
    """Uniform successors, one an action (or Dirichlet(.3) laws), rewards U(0, 1)."""
    if random:
        moves = rng.dirichlet(np.full(states, 0.3), (states, actions))
    else:
        moves = np.eye(states)[rng.integers(0, states, (states, actions))]
    return DiscountedMDP(moves, rng.random((states, actions)), discount, np.full(states, 1 / states))


def sweeps_by_loops(p, tolerance, best):
    """Sweeps of plain value iteration from 0, counted."""
    value, count = np.zeros(len(p.initial)), 0
    while np.abs(value - best).max() > tolerance:
        value, count = (p.reward + p.discount * p.transition @ value).max(axis=1), count + 1
    return count


def random_maze(rng):
    return maze(rng, random=True)


def sequences(p, tau, gamma, order):
    """Rewards ``(S, A^tau)`` and laws ``(S, A^tau, S)`` of all sequences, carried out in order or (-1) from the end."""
    states, rewards, laws = len(p.initial), [], []
    for sequence in itertools.product(range(p.shape[1]), repeat=tau):
        law, total = np.eye(states), np.zeros(states)
        for step, a in enumerate(sequence[::order]):
            total, law = total + gamma**step * law @ p.reward[:, a], law @ p.transition[:, a]
        rewards.append(total)
        laws.append(law)
    return np.array(rewards).T, np.moveaxis(laws, 0, 1)


# C4-C6: latent chains --------------------------------------------------------------------------------
class Latent(NamedTuple):
    """A chain and a policy over its latents."""

    chain: LatentChain
    log_q: np.ndarray

    @classmethod
    def draw(cls, rng, latents=3, steps=6, tokens=4, rate=0.25, moving=False):
        """Sticky prior, emissions Dirichlet(.5), uniform tokens, q Dirichlet(1); ``moving``: a new prior every step."""
        emission = dirichlet(rng, 0.5, latents, tokens)[:, rng.integers(0, tokens, steps)].T
        prior = persistent_prior(np.full(latents, -math.log(latents)), rate)
        prior[-1] = -math.log(latents)
        if moving:
            prior = dirichlet(rng, 1.0, steps, latents + 1, latents)
        return cls(LatentChain(prior, emission), dirichlet(rng, 1.0, steps, latents + 1, latents))

    @classmethod
    def either(cls, rng):
        return cls.draw(rng, moving=rng.random() < 0.5)

    @classmethod
    def forgetful(cls, rng):
        """Equal rows: the prior does not look at the last latent."""
        chain, log_q = cls.draw(rng)
        return cls(LatentChain(np.tile(dirichlet(rng, 1.0, 1, 3), (4, 1)), chain.log_emission), log_q)


class Paths(NamedTuple):
    """All paths ``(n, T)`` of a chain, with the logs of their prior and of their tokens."""

    paths: np.ndarray
    prior: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, chain):
        steps, latents = chain.log_emission.shape
        paths = np.array(list(itertools.product(range(latents), repeat=steps)))
        return cls(paths, along(chain.log_prior, paths), chain.log_emission[np.arange(steps), paths].sum(axis=1))

    @property
    def log_likelihood(self):
        return np.logaddexp.reduce(self.prior + self.tokens)

    def pairs(self, chain):
        """Posterior of (latent before, latent) at every step, ``(T, K + 1, K)``."""
        steps, latents = chain.log_emission.shape
        found, post = np.zeros((steps, latents + 1, latents)), np.exp(self.prior + self.tokens - self.log_likelihood)
        before = np.column_stack([np.full(len(post), latents), self.paths[:, :-1]])
        np.add.at(found, (np.arange(steps), before, self.paths), post[:, None])
        return found


def along(rows, paths):
    """``sum_t rows_t(z_t | z_{t-1})`` of every path; rows ``(K + 1, K)`` or ``(T, K + 1, K)``."""
    count, steps = paths.shape
    before = np.column_stack([np.full(count, rows.shape[-1]), paths[:, :-1]])
    rows = np.broadcast_to(rows, (steps, *rows.shape[-2:]))
    return rows[np.arange(steps), before, paths].sum(axis=1)


class Written(NamedTuple):
    """Tokens under a null latent 0 and others, ``(T, K)`` log-likelihoods, and the law of a new latent."""

    log_emission: np.ndarray
    log_fresh: np.ndarray

    @classmethod
    def draw(cls, rng, latents=4, steps=12, tokens=5):
        emission = dirichlet(rng, 0.5, latents, tokens)[:, rng.integers(0, tokens, steps)].T
        return cls(emission, np.full(latents, -math.log(latents)))

    @classmethod
    def uneven(cls, rng):
        """With an uneven law of new latents."""
        return cls.draw(rng)._replace(log_fresh=dirichlet(rng, 2.0, 4))

    @classmethod
    def short(cls, rng):
        return cls.draw(rng, 3, 5, 4)._replace(log_fresh=dirichlet(rng, 2.0, 3))

    def by_enumeration(self, cost, start, redraw):
        """``F`` and E[new] over all sequences of acts: a new latent, or (the last act) a keep."""
        (steps, latents), total, count = self.log_emission.shape, [], []
        for acts in itertools.product(range(latents + 1), repeat=steps):
            z, weight, new = start, 0.0, 0
            for step, act in enumerate(acts):
                fresh, before = act < latents, z
                z = act if fresh else z
                weight += self.log_emission[step, z] + (self.log_fresh[z] - cost if fresh else 0.0)
                new += fresh if redraw else z != before
            total.append(weight)
            count.append(new)
        f = np.logaddexp.reduce(total)
        return f, np.exp(np.array(total) - f) @ count

    def acts(self, cost):
        """Keeping (the last action) or a new latent as decisions: the problem, its reference, and what that leaves out."""
        steps, latents = self.log_emission.shape
        transition = np.broadcast_to(np.eye(latents), (latents, latents, latents))
        transition = np.concatenate([transition, np.eye(latents)[:, None]], axis=1)
        reward = np.broadcast_to(self.log_emission[:, None], (steps, latents, latents))
        reward = np.concatenate([reward, self.log_emission[..., None]], axis=2)
        logits = np.append(self.log_fresh - cost, 0.0)
        reference = log_normalize(np.tile(logits, (latents, 1)))
        left_out = steps * np.logaddexp.reduce(logits)
        return TabularMDP(transition, reward, np.eye(latents)[0], steps), reference, left_out


# C7, C8: skills --------------------------------------------------------------------------------------
SKILLS, PHASES, VOCAB, CHUNKS, LATENTS, TRAIN, HELD = 4, 4, 3, 4, 6, 400, 200
LIMIT = 4000  # of steps; the figure goes on to 20000
STRINGS = np.array(list(itertools.product(range(VOCAB), repeat=PHASES)))
CODE = VOCAB ** np.arange(PHASES)[::-1]


class World(NamedTuple):
    """Skills ``(4, 4)``, and demonstrations ``(600, 16)``, of which the first 400 are for training."""

    skills: np.ndarray
    demos: np.ndarray

    @classmethod
    def draw(cls, rng, structured=True):
        """Four random strings, pairwise at a distance of 2 or more; iid uniform tokens unless structured."""
        while True:
            skills = rng.integers(0, VOCAB, (SKILLS, PHASES))
            if all(np.sum(a != b) >= 2 for a, b in itertools.combinations(skills, 2)):
                break
        demos = skills[rng.integers(0, SKILLS, (TRAIN + HELD, CHUNKS))].reshape(TRAIN + HELD, -1)
        return cls(skills, demos if structured else rng.integers(0, VOCAB, demos.shape))

    @property
    def train(self):
        return self.demos[:TRAIN]

    @property
    def held(self):
        return self.demos[TRAIN:]


def chunk_counts(demos):
    """How often each of the 81 strings is a chunk."""
    return np.bincount(demos.reshape(-1, PHASES) @ CODE, minlength=len(STRINGS)).astype(float)


def mid_trained(worlds, rngs, latents=LATENTS, restarts=8, iterations=60):
    """The best of the restarts a world, ``(S, K)`` and ``(S, K, 4, 3)``, and the values of all, ``(61, S, restarts)``."""
    counts = np.array([chunk_counts(w.train) for w in worlds])[:, None]
    chosen = np.array([r.integers(0, TRAIN * CHUNKS, (restarts, latents)) for r in rngs])
    chunks = np.array([w.train.reshape(-1, PHASES)[c] for w, c in zip(worlds, chosen)])
    emission = np.log(0.9 * (chunks[..., None] == np.arange(VOCAB)) + 0.1 / VOCAB)
    start = ChunkMixture(np.full(chosen.shape, -math.log(latents)), log_normalize(emission))
    fitted, values = fit_chunk_mixture(STRINGS, counts, start, smoothing=0.01, iterations=iterations)
    best = (np.arange(len(worlds)), np.argmax(values[-1], axis=1))
    return ChunkMixture(fitted.log_weight[best], fitted.log_emission[best]), values


def mixture_and_counts(rng):
    """A mixture of 3 latents over strings of 3 of 3 tokens, counts of 10 of the 27, and a smoothing."""
    strings = np.array(list(itertools.product(range(3), repeat=3)))[rng.choice(27, 10, replace=False)]
    counts = rng.integers(1, 40, 10).astype(float)
    return dirichlet(rng, 1.0, 3), dirichlet(rng, 1.0, 3, 3, 3), strings, counts, float(rng.uniform(0.01, 3.0))


def iteration_by_loops(x, smoothing, weighted):
    """The penalised value before an iteration of EM, and the weights and emissions after it."""
    weight, emission, strings, counts, a = x
    uses, tokens, value = np.full(3, smoothing), np.full((3, 3, 3), smoothing), a * (weight.sum() + emission.sum())
    for string, n in zip(strings, counts):
        like = np.array([math.prod(math.exp(emission[z, t, b]) for t, b in enumerate(string)) for z in range(3)])
        post = np.exp(weighted * weight) * like
        value += n * math.log(np.exp(weight) @ like)
        for z in range(3):
            share = n * post[z] / post.sum()
            uses[z] += share
            for t, b in enumerate(string):
                tokens[z, t, b] += share
    return value, uses / uses.sum(), tokens / tokens.sum(axis=-1, keepdims=True)


def counts_by_loops(demos, previous):
    """Counts + .01 of tokens given phase and previous token (``previous`` 0: given the phase)."""
    counts = np.full((PHASES * (VOCAB + 1), VOCAB), 0.01)
    for row in demos:
        for t, token in enumerate(row):
            before = row[t - 1] if previous and t else VOCAB
            counts[t % PHASES * (VOCAB + 1) + before, token] += 1
    return counts


def merged(distance, share):
    """``(nats lost a chunk, success of the rarer skill)``: one latent of marginals against one a skill."""
    strings = np.array([[0, 0, 0, 0], [int(t < distance) for t in range(4)]])
    counts = 1e9 * np.array([share, 1 - share])
    start = ChunkMixture(np.zeros(1), np.full((1, 4, 3), -math.log(3)))
    one, _ = fit_chunk_mixture(strings, counts, start, smoothing=1e-6, iterations=1)
    with np.errstate(divide="ignore"):
        two = ChunkMixture(np.log([share, 1 - share]), np.log((strings[..., None] == np.arange(3)).astype(float)))
    lost = (two.log_prob(strings) - one.log_prob(strings)) @ counts / counts.sum()
    return lost, np.exp(one.likelihoods(strings)).min()


def problem_of_success(rng):
    """First logits and likelihoods of 3 chunks and 4 latents."""
    return dirichlet(rng, 1.0, 3, 4), rng.random((3, 4))


def chance(logits, likelihood):
    """J, chunk by chunk."""
    return math.prod(float(np.exp(log_normalize(row)) @ own) for row, own in zip(logits, likelihood))


def slope_of_chance(logits, likelihood):
    """Its gradient by central differences."""
    slope = np.zeros(logits.shape)
    for i in np.ndindex(logits.shape):
        ends = [logits.copy(), logits.copy()]
        for end, h in zip(ends, (1e-6, -1e-6)):
            end[i] += h
        slope[i] = (chance(ends[0], likelihood) - chance(ends[1], likelihood)) / 2e-6
    return slope


def order_one(demos):
    """Context = phase and previous token (3 at the start)."""
    previous = np.column_stack([np.full(len(demos), VOCAB), demos[:, :-1]])
    return np.arange(demos.shape[1]) % PHASES * (VOCAB + 1) + previous, PHASES * (VOCAB + 1)


def whole_prefix(demos):
    """Context = the prefix of the chunk."""
    chunks = demos.reshape(len(demos), -1, PHASES)
    contexts, size = np.zeros_like(chunks), 0
    for phase in range(PHASES):
        prefix = chunks[..., :phase] @ (VOCAB ** np.arange(phase)[::-1]) if phase else 0
        contexts[..., phase] = size + prefix
        size += VOCAB**phase
    return contexts.reshape(demos.shape), size


def next_token(world, context):
    """Log-probabilities of the rows that the held-out tokens meet, ``(200, 16, 3)``."""
    contexts, size = context(world.train)
    table = fit_contexts(contexts, world.train, (size, VOCAB), smoothing=0.01)
    return table[context(world.held)[0]]


def held_out(worlds, fitted):
    """Log-likelihood a token of the held-out demonstrations, ``(S,)``: of the mixtures, and of order-1 prediction."""
    counts = np.array([chunk_counts(w.held) for w in worlds])
    mixture = np.sum(counts * fitted.log_prob(STRINGS), axis=1) / (HELD * CHUNKS * PHASES)
    rows = [np.take_along_axis(next_token(w, order_one), w.held[..., None], axis=-1).mean() for w in worlds]
    return mixture, np.array(rows)


def target_likelihoods(worlds, mixture):
    """``prod_phase pi`` of the chunks of the first held-out demonstration under each latent, ``(S, 4, K)``."""
    found = []
    for number, world in enumerate(worlds):
        own = ChunkMixture(mixture.log_weight[number], mixture.log_emission[number])
        found.append(np.exp(own.likelihoods(world.held[0].reshape(CHUNKS, PHASES))))
    return np.array(found)


def latent_ascent(worlds, mixture, limit=LIMIT):
    """RL on the latents with a frozen decoder."""
    weights = np.repeat(mixture.log_weight[:, None], CHUNKS, axis=1)
    return success_ascent(weights, target_likelihoods(worlds, mixture), limit=limit)


def latent_steps(worlds, mixture, limit=LIMIT):
    """Steps of `latent_ascent`, ``limit`` without a step where the decoder caps J below .9."""
    weights = np.repeat(mixture.log_weight[:, None], CHUNKS, axis=1)
    likelihoods = target_likelihoods(worlds, mixture)
    reachable = likelihoods.max(axis=-1).prod(axis=-1) > 0.9
    steps = np.full(len(worlds), limit)
    if reachable.any():
        steps[reachable] = success_ascent(weights[reachable], likelihoods[reachable], limit=limit).steps
    return steps


def token_ascent(worlds, context, limit=LIMIT):
    """RL on the tokens of the target, from the rows of next-token prediction."""
    rows = np.array([next_token(w, context)[0] for w in worlds])
    target = np.array([w.held[0] for w in worlds])[..., None] == np.arange(VOCAB)
    return success_ascent(rows, target.astype(float), limit=limit)


def skill_mixture(worlds, smoothing=0.01):
    """One latent a skill, as many counts of tokens a skill as the training data have."""
    count = TRAIN * CHUNKS / SKILLS
    marks = np.array([w.skills for w in worlds])[..., None] == np.arange(VOCAB)
    emission = log_normalize(np.log(count * marks + smoothing))
    return ChunkMixture(np.full((len(worlds), SKILLS), -math.log(SKILLS)), emission)


CONTEXTS = {"order one": order_one, "prefix": whole_prefix}


def log_ratio(rngs, context):
    """Log of steps to J = .9 on tokens over those on mid-trained latents, a world a generator."""
    worlds = [World.draw(rng) for rng in rngs]
    fitted, _ = mid_trained(worlds, rngs)
    return np.log(token_ascent(worlds, CONTEXTS[context]).steps / latent_steps(worlds, fitted))
