r"""Prompts as token trees, and all their responses: the problems on which losses are measured.

Every prompt has a token tree, a policy, a reference, a teacher, and the law that draws the responses. The policy is
tabular, one logit for every prefix and token; a gradient is an array ``(prefixes, V)`` over the prefixes that are not
ended, of all prompts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.problems import TokenTree
from klsim.problems.token_tree import check_levels, token_mask, tokens

__all__ = ["PromptTree", "TreeProblem", "as_problem", "random_prompts"]

Levels = Sequence[np.ndarray]


@dataclass(frozen=True)
class PromptTree:
    """One prompt.

    Attributes:
        tree: vocabulary, horizon, reward of every sequence, ``eos``.
        log_policy: the policy, levels ``(V**t, V)``.
        log_ref, log_teacher: None is the uniform policy.
        log_behaviour: the law that draws the responses (the old policy); None is the policy itself.
        log_old: what the trainer takes for the old policy, where it is not the law that draws (the sampler).
        log_external: who writes external responses; None if nobody does.
        prefix: tokens that every response starts with.
    """

    tree: TokenTree
    log_policy: Levels
    log_ref: Levels | None = None
    log_teacher: Levels | None = None
    log_behaviour: Levels | None = None
    log_external: Levels | None = None
    log_old: Levels | None = None
    prefix: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _validate.instance("tree", self.tree, TokenTree)
        _validate.numpy_arrays(tree=self.tree.reward)
        if np.ndim(self.tree.reward) != 1:
            _validate.fail("tree", "needs one reward a sequence, not a batch of trees")
        for name in ("log_policy", "log_ref", "log_teacher", "log_behaviour", "log_external", "log_old"):
            levels = getattr(self, name)
            if levels is None:
                continue
            _, vocab, values = check_levels(name, levels, policy=True)
            _validate.numpy_arrays(**{f"{name}[{t}]": level for t, level in enumerate(values)})
            if vocab != self.tree.vocab or len(values) != self.tree.horizon or values[0].ndim != 2:
                _validate.fail(name, f"must be one tree of vocabulary {self.tree.vocab}, horizon {self.tree.horizon}")
        words = _validate.sequence("prefix", self.prefix)
        prefix = tuple(_validate.integer("prefix", t, low=0, high=self.tree.vocab - 1) for t in words)
        object.__setattr__(self, "prefix", prefix)
        if len(self.prefix) >= self.tree.horizon or self.tree.eos in self.prefix:
            _validate.fail("prefix", f"must be shorter than the horizon and not ended, got {self.prefix}")


class TreeProblem:
    """The responses and prefixes of some prompts, enumerated.

    Attributes:
        prompts: what it was made of. together: ``(prompts,)``, the number, from 0, of the batch that each is in.
        nodes, tokens, mask: of every response, ``(N, T)``; masked positions hold 0.
        reward: ``(N,)``. prompt: ``(N,)``, which prompt it answers. length: ``(N,)`` tokens.
        ended: ``(N,)``, whether it ends with the token of the end (else the horizon cut it).
        tables: ``"policy"``, ``"ref"``, ``"teacher"``, ``"behaviour"``, ``"old"``, ``"external"`` (if given) ->
            ``(prefixes, V)``.
        node_prompt: ``(prefixes,)``.

    Args:
        together: for several independent problems in one: prompts with the same number are answered in one batch.
            None: all in one.

    Raises:
        TypeError: what is no `PromptTree`, numbers that are no integers.
        ValueError: no prompt, trees of different vocabulary or horizon, not one number a prompt.
    """

    def __init__(self, prompts: Sequence[PromptTree], together: Sequence[int] | None = None) -> None:
        prompts = _validate.sequence("prompts", prompts, of=PromptTree)
        if not prompts:
            raise ValueError("prompts: needs at least one PromptTree")
        batches = np.zeros(len(prompts), dtype=int) if together is None else _validate.integers("together", together)
        if batches.shape != (len(prompts),):
            _validate.fail("together", f"needs one number for each of {len(prompts)} prompts, got {batches.shape}")
        self.together = np.unique(batches, return_inverse=True)[1]
        shapes = {(p.tree.vocab, p.tree.horizon) for p in prompts}
        if len(shapes) > 1:
            raise ValueError(f"prompts: must share vocabulary and horizon, got {sorted(shapes)}")
        self.prompts = tuple(prompts)
        self.vocab, self.horizon = shapes.pop()
        parts: list[dict[str, np.ndarray]] = []
        offset = 0
        for i, prompt in enumerate(prompts):
            part = _enumerate(prompt, offset)
            part["prompt"] = np.full(len(part["reward"]), i)
            part["node_prompt"] = np.full(len(part["policy"]), i)
            offset += len(part["policy"])
            parts.append(part)

        def joined(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in parts])

        self.nodes, self.tokens, self.mask = joined("nodes"), joined("tokens"), joined("mask")
        self.reward, self.prompt, self.node_prompt = joined("reward"), joined("prompt"), joined("node_prompt")
        self.length = self.mask.sum(axis=1)
        eos = np.array([-1 if p.tree.eos is None else p.tree.eos for p in prompts])[self.prompt]
        self.ended = self.tokens[np.arange(len(self.prompt)), self.length - 1] == eos
        external = all("external" in part for part in parts)
        names = ("policy", "ref", "teacher", "behaviour", "old") + (("external",) if external else ())
        self.tables = {name: joined(name) for name in names}

    def log_prob(self, law: str) -> np.ndarray:
        """Log-probability of every response under a table, after its prompt's prefix; ``(N,)``."""
        _validate.one_of("law", law, tuple(self.tables))
        steps = np.where(self.free, self.tables[law][self.nodes, self.tokens], 0.0)
        return np.asarray(steps.sum(axis=1))

    @cached_property
    def free(self) -> np.ndarray:
        """``(N, T)``: tokens that are drawn, not given by the prefix."""
        given = np.array([len(p.prefix) for p in self.prompts])[self.prompt]
        return self.mask & (np.arange(self.horizon) >= given[:, None])

    def visits(self, law: str) -> np.ndarray:
        """Probability that a response visits each prefix where a token is drawn, ``(prefixes,)``."""
        out = np.zeros(len(self.node_prompt))
        weight = np.exp(self.log_prob(law))
        for t in range(self.horizon):
            np.add.at(out, self.nodes[self.free[:, t], t], weight[self.free[:, t]])
        return out

    def with_policy(self, table: np.ndarray) -> TreeProblem:
        """The same problem with another policy table; on-policy prompts draw from it."""
        (table,) = _validate.numpy_arrays(table=table)
        if table.shape != self.tables["policy"].shape:
            _validate.fail("table", f"must have shape {self.tables['policy'].shape}, got {table.shape}")
        _validate.log_probs("table", np, table)
        other = copy.copy(self)
        own = np.array([p.log_behaviour is None for p in self.prompts])[self.node_prompt]
        behaviour = np.where(own[:, None], table, self.tables["behaviour"])
        follows = np.array([p.log_old is None for p in self.prompts])[self.node_prompt]
        old = np.where(follows[:, None], behaviour, self.tables["old"])
        other.tables = self.tables | {"policy": table, "behaviour": behaviour, "old": old}
        return other

    def with_rewards(self, reward: np.ndarray) -> TreeProblem:
        """The same problem with other rewards of its responses, ``(N,)``.

        Raises:
            TypeError: not real numbers. ValueError: another shape, a reward that is not finite.
        """
        (given,) = _validate.numpy_arrays(reward=reward)
        if given.shape != self.reward.shape:
            _validate.fail("reward", f"must have shape {self.reward.shape}, got {given.shape}")
        other = copy.copy(self)
        other.reward = np.array(_validate.finite("reward", np, given), dtype=np.float64)
        return other

    @cached_property
    def share(self) -> np.ndarray:
        """``(prompts,)``: one over the number of prompts in its batch."""
        return np.asarray(1.0 / np.bincount(self.together)[self.together])

    def success(self) -> np.ndarray:
        """``E[r]`` of every prompt under the policy, ``(prompts,)``."""
        weights = np.exp(self.log_prob("policy")) * self.reward
        return np.asarray(np.bincount(self.prompt, weights, minlength=len(self.prompts)))


def as_problem(problem: Any, name: str = "problem") -> TreeProblem:
    """A `TreeProblem`, made of prompts if that is what was given."""
    if isinstance(problem, TreeProblem):
        return problem
    try:
        return TreeProblem(problem)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: must be a TreeProblem or prompts ({error})") from None


def _enumerate(prompt: PromptTree, offset: int) -> dict[str, np.ndarray]:
    """The responses of one prompt and the tables of its prefixes, numbered from ``offset``."""
    tree = prompt.tree
    words, mask = tokens(tree.vocab, tree.horizon), token_mask(tree.vocab, tree.horizon, tree.eos)
    kept = _alive(words, mask, tree.eos)
    for t, token in enumerate(prompt.prefix):
        kept = kept & (words[:, t] == token)
    reward = np.asarray(tree.reward, dtype=float)[kept]
    words, mask = words[kept], mask[kept]
    starts = np.cumsum([0, *(tree.vocab**t for t in range(tree.horizon))])
    prefix = np.zeros(len(words), dtype=np.int64)
    nodes = np.empty_like(words)
    for t in range(tree.horizon):
        nodes[:, t] = starts[t] + prefix
        prefix = prefix * tree.vocab + words[:, t]
    live, inverse = np.unique(nodes[mask], return_inverse=True)
    numbered = np.zeros_like(nodes)
    numbered[mask] = inverse + offset
    out = {"nodes": numbered, "tokens": np.where(mask, words, 0), "mask": mask, "reward": reward}
    uniform = np.full((starts[-1], tree.vocab), -math.log(tree.vocab))
    laws = {
        "policy": prompt.log_policy,
        "ref": prompt.log_ref,
        "teacher": prompt.log_teacher,
        "behaviour": prompt.log_policy if prompt.log_behaviour is None else prompt.log_behaviour,
    }
    laws["old"] = laws["behaviour"] if prompt.log_old is None else prompt.log_old
    if prompt.log_external is not None:
        laws["external"] = prompt.log_external
    for name, levels in laws.items():
        table = uniform if levels is None else np.concatenate([np.asarray(level, dtype=float) for level in levels])
        out[name] = table[live]
    return out


def random_prompts(
    count: int,
    rng: np.random.Generator | int,
    *,
    vocab: int = 3,
    horizon: int = 2,
    eos: int | None = 0,
    binary: bool = True,
    off_policy: bool = False,
    external: bool = False,
    near: float | None = None,
) -> list[PromptTree]:
    """Prompts with N(0, 1) logits everywhere; rewards 0/1 (both occur) or N(0, 1).

    With ``near`` (at most 1e100 in size), only the reference's logits are N(0, 1); other policies' are the reference's
    plus ``near`` N(0, 1).
    """
    rng, count = _validate.generator(rng), _validate.integer("count", count, low=1)
    vocab, horizon = _validate.integer("vocab", vocab, low=1), _validate.integer("horizon", horizon, low=1)
    leaves = _validate.outcomes("vocab", vocab, "horizon", horizon)
    _validate.fits("count", count, count * leaves, each=80)
    if eos is not None:
        eos = _validate.integer("eos", eos, low=0, high=vocab - 1)
    if near is not None:
        near = _validate.real("near", near, low=-1e100, high=1e100)
    for name, flag in (("binary", binary), ("off_policy", off_policy), ("external", external)):
        _validate.flag(name, flag)
    if binary and vocab == 1:
        _validate.fail("binary", "rewards that differ need two responses: a vocabulary of at least 2")
    shapes = [(vocab**t, vocab) for t in range(horizon)]

    def policy(around: tuple[np.ndarray, ...] | None = None) -> tuple[np.ndarray, ...]:
        noise = [rng.standard_normal(shape) for shape in shapes]
        if around is None or near is None:
            return tuple(log_normalize(x) for x in noise)
        return tuple(log_normalize(log_p + near * x) for log_p, x in zip(around, noise))

    out = []
    for _ in range(count):
        reward = rng.standard_normal(vocab**horizon)
        if binary:
            reward = (reward > 0).astype(float)
            alive = np.flatnonzero(_alive(tokens(vocab, horizon), token_mask(vocab, horizon, eos), eos))
            first, second = rng.choice(alive, 2, replace=False)
            reward[first], reward[second] = 1.0, 0.0
        tree = TokenTree(vocab, horizon, reward, eos)
        ref = None if near is None else policy()
        behaviour = policy(ref) if off_policy else None
        pi, ref, teacher = policy(ref), policy() if ref is None else ref, policy(ref)
        out.append(PromptTree(tree, pi, ref, teacher, behaviour, policy(ref) if external else None))
    return out


def _alive(words: np.ndarray, mask: np.ndarray, eos: int | None) -> np.ndarray:
    """Words in which nothing but ``eos`` follows the first ``eos``."""
    return np.asarray((mask | (words == (-1 if eos is None else eos))).all(axis=1))
