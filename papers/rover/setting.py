"""What claims and figures share: irregular and regular trees, policies from values, training on tabular logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.problems import TokenTree
from klsim.problems.token_tree import reverse_sums, sequence_log_probs

TIED = 1e-12  # relative difference of values that are one value


class Tree(NamedTuple):
    """An irregular tree; nodes in an order in which children come after their parents, node 0 the root.

    Attributes:
        parent: index of the parent, ``(nodes,)``; -1 for the root.
        weight: probability of the node under the evaluation policy at its parent, ``(nodes,)``.
        reward: of the leaves, 0 elsewhere, ``(nodes,)``.
    """

    parent: np.ndarray
    weight: np.ndarray
    reward: np.ndarray

    def children(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.parent == i) for i in range(self.parent.size)]

    def upwards(self, combine) -> np.ndarray:
        """Values of all nodes: the reward at a leaf, ``combine(node, its children, their values)`` elsewhere."""
        value, children = self.reward.copy(), self.children()
        for node in reversed(range(value.size)):
            if children[node].size:
                value[node] = combine(node, children[node], value[children[node]])
        return value

    def values(self) -> np.ndarray:
        """Of the evaluation policy."""
        return self.upwards(lambda _, kids, v: self.weight[kids] @ v)

    def best(self) -> float:
        """The largest reward that can be reached."""
        return float(self.upwards(lambda _, kids, v: v.max())[0])

    def greedy(self) -> float:
        """Reward of acting greedily on the evaluation policy's values, ties broken in the worst way."""
        q = self.values()
        return float(self.upwards(lambda _, kids, v: v[q[kids] >= q[kids].max() * (1 - TIED)].min())[0])


def tree_of(*, rewards=(0.0, 1.0), chances=(0.85, 0.15), zeros=0.0, solvable=True):
    """A sampler of trees of depth 2 to 5: below the root a node ends with probability .15, else it has 1 to 4 children.

    The evaluation policy is uniform or Dirichlet(1), each half of the time; ``zeros`` is the chance that it never takes
    the first of several children. ``solvable``: draws until a positive reward can be reached.
    """

    def grow(rng, depth, spread):
        parent, weight, level = [-1], [1.0], [0]
        node = 0
        while node < len(parent):
            if level[node] < depth and (node == 0 or rng.random() >= 0.15):
                count = int(rng.integers(1, 5))
                p = rng.dirichlet(np.ones(count)) if spread else np.full(count, 1 / count)
                if count > 1 and rng.random() < zeros:
                    p = np.concatenate([[0.0], p[1:] / p[1:].sum()])
                parent += [node] * count
                weight += p.tolist()
                level += [level[node] + 1] * count
            node += 1
        leaf = ~np.isin(np.arange(node), parent)
        return Tree(np.array(parent), np.array(weight), np.where(leaf, rng.choice(rewards, node, p=chances), 0.0))

    def make(rng):
        while True:
            tree = grow(rng, int(rng.integers(2, 6)), bool(rng.integers(2)))
            if not solvable or tree.best() > 0:
                return tree

    return make


# regular trees ---------------------------------------------------------------------------------------
def solutions(rng, branching, horizon, count):
    """Rewards of the leaves: ``count`` of them are right."""
    reward = np.zeros(branching**horizon)
    reward[rng.choice(reward.size, count, replace=False)] = 1.0
    return reward


def tree_values(reward, branching, horizon):
    """``Q_u`` of a regular tree, level by level."""
    leaf = [np.zeros((branching**t, branching)) for t in range(horizon - 1)] + [reward.reshape(-1, branching)]
    return reverse_sums(tuple(leaf), TokenTree(branching, horizon, reward).uniform())


def softmax_policy(q, rho):
    return tuple(log_normalize(level / rho) for level in q)


def proportional_policy(q):
    """``pi ∝ Q_u``; uniform at dead nodes, which it never visits."""
    with np.errstate(divide="ignore"):
        return tuple(log_normalize(np.where(x.any(axis=1, keepdims=True), np.log(x), 0.0)) for x in q)


def greedy_policy(q, *, first=False):
    """Uniform over the best actions, or the first of them."""
    best = [x >= x.max(axis=1, keepdims=True) * (1 - TIED) for x in q]
    best = [b & (np.cumsum(b, axis=1) == 1) for b in best] if first else best
    with np.errstate(divide="ignore"):
        return tuple(log_normalize(np.log(b.astype(float))) for b in best)


def success_and_modes(policy, reward):
    """Success, and the effective number of correct leaves: exp of the entropy given success."""
    p = np.exp(sequence_log_probs(policy))
    success = float(p @ reward)
    kept = p[reward > 0] / success if success > 0 else np.array([1.0])
    kept = kept[kept > 0]
    return success, math.exp(-float(kept @ np.log(kept)))


DIDACTIC = np.zeros((4, 4, 4))
for _word in ("ACD", "BDC", "CAB", "DBA"):
    DIDACTIC[tuple("ABCD".index(c) for c in _word)] = 1.0
DIDACTIC = DIDACTIC.ravel()


def didactic(rho):
    """``(success, modes)`` of ``softmax(Q_u / rho)`` on the didactic tree."""
    return success_and_modes(softmax_policy(tree_values(DIDACTIC, 4, 3), rho), DIDACTIC)


# training --------------------------------------------------------------------------------------------
A, H, MODES = 4, 4, 12
ITERATIONS, GROUP, INNER, LR, CLIP = 300, 16, 4, 2.0, 0.2


def token_weights(method, ratio, ahead, reward):
    """``-B T dL / d log pi`` of every sampled token, ``(B, T)``, for ROVER's loss (rho = 1) or clipped GRPO.

    ``ratio = log pi/old``; ``ahead``: the next-value term of ROVER (0 without).
    """
    centred = (reward - reward.mean())[:, None]
    if method == "rover":
        return 2 * (centred + ahead - ratio)
    advantage = np.broadcast_to(centred / (reward.std() or 1.0), ratio.shape)
    clipped = np.where(advantage > 0, ratio > math.log(1 + CLIP), ratio < math.log(1 - CLIP))
    return np.where(clipped, 0.0, advantage * np.exp(ratio))


def train(rng, method, *, iterations=ITERATIONS, next_value=True, record=()):
    """Tabular tree logits under ROVER's loss or clipped GRPO; ``(reward, policies at record and at the end)``."""
    reward, kept = solutions(rng, A, H, MODES), []
    offsets = np.cumsum([0] + [A**t for t in range(H)])
    logits = np.zeros((offsets[-1], A))
    for k in range(iterations + 1):
        log_old = log_normalize(logits)
        if k in record or k == iterations:
            kept.append(tuple(log_old[offsets[t] : offsets[t + 1]] for t in range(H)))
        if k == iterations:
            break
        nodes, actions, leaves = rollout(rng, np.exp(log_old), offsets)
        for _ in range(INNER):
            log_pi = log_normalize(logits)
            gap = log_pi - log_old
            ahead = np.zeros((GROUP, H))
            if next_value:
                ahead[:, :-1] = gap.mean(axis=1)[nodes[:, 1:]]
            weight = token_weights(method, gap[nodes, actions], ahead, reward[leaves])
            step = np.zeros_like(logits)
            np.add.at(step, (nodes, actions), weight)
            np.add.at(step, nodes, -weight[..., None] * np.exp(log_pi)[nodes])
            logits = logits + LR * step / (GROUP * H)
    return reward, kept


def rollout(rng, pi, offsets):
    """``(nodes, actions)`` of every step, ``(GROUP, H)``, and the leaves reached."""
    nodes, actions = np.empty((GROUP, H), dtype=int), np.empty((GROUP, H), dtype=int)
    node = np.zeros(GROUP, dtype=int)
    for t in range(H):
        rows = np.cumsum(pi[offsets[t] + node], axis=1)
        nodes[:, t] = offsets[t] + node
        actions[:, t] = np.minimum((rng.random((GROUP, 1)) > rows).sum(axis=1), A - 1)
        node = node * A + actions[:, t]
    return nodes, actions, node


def mirror_steps(rng, iterations=ITERATIONS, rho=1.0, record=()):
    """Exact steps ``pi <- pi exp(Q^pi / rho)/Z`` at every node, from uniform; policies at ``record`` and at the end."""
    reward, kept = solutions(rng, A, H, MODES), []
    policy = TokenTree(A, H, reward).uniform()
    leaf = [np.zeros((A**t, A)) for t in range(H - 1)] + [reward.reshape(-1, A)]
    for k in range(iterations):
        if k in record:
            kept.append(policy)
        q = reverse_sums(tuple(leaf), policy)
        policy = tuple(log_normalize(p + x / rho) for p, x in zip(policy, q))
    return reward, [*kept, policy]
