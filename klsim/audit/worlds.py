r"""The worlds of the audit: small token trees on which expected gradients are exact, chosen so that defects show.

Every world is enumerated: all multisets of responses within a group, all products over the prompts of a batch, with
their probabilities. Responses vary in length (horizon 3, an end of sequence), what pads them is finite junk that
depends on parameters of its own, and policies differ from the reference by logits of size 1/2.

====================  ==============================================================================================
world                 what it adds
====================  ==============================================================================================
lengths               one prompt a batch, groups of 2, binary rewards: 14 trees, enough to identify a gradient
equal lengths         horizon 3, no end of sequence: nothing is padded
two prompts           two prompts a batch, of different success
groups of 4           one prompt a batch
groups of one         nothing to compare a reward with (reported only)
far                   logits 2 apart: clamps and clips of the KL act
left padding, holes   junk before, or within, the responses (prompts of several lengths; tool output)
trimmed               batches cut to their longest response (reported only)
graded rewards        N(0, 1)
nearly equal rewards  1 + 0.05 N(0, 1)
constant rewards      1
rewards at tokens     one for every token, their sum is the return
cut responses masked  responses without an end are masked altogether (reported; junk and NaN are failures)
vocabulary            5 tokens to choose from, one drawn (two in equal lengths)
large batch           the limit of many groups of 2 of two prompts, exact: probabilities are multiples of 1/6, and every
                      group stands in one batch as often as its probability says
large batch, …        the same far from the reference, with graded rewards, with holes
off-policy            responses of another policy, logits 1/2 apart
slightly off-policy   logits 0.03 apart: no ratio leaves [0.8, 1.2], so that clips are open
sampler               the policy, the old policy that the trainer computes, and the sampler all differ
…, equal lengths      off-policy, slightly off-policy, sampler and far with 3 tokens each
teacher's responses   supervised: the teacher writes
pairs, …              two responses of the reference with different rewards, one of them preferred, at prompts near and
                      far from it; also far from it only, with left padding and holes
two pairs             a pair of each of two prompts in one batch
====================  ==============================================================================================

Rewards are of responses unless the world says otherwise; in ``left padding`` and ``holes`` they may stand at the last
token if the loss needs that to find it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from klsim import _validate
from klsim.audit.batches import AuditBatches, Layout
from klsim.distributions import log_normalize
from klsim.learning import PromptTree, TreeProblem, functional_gradient, random_prompts
from klsim.learning.expected_gradient import LossFunction, enumerate_batches, sum_batches
from klsim.learning.functionals import Functional

__all__ = ["PREFERENCE", "TOKEN_MEAN", "Setting", "World", "required_worlds", "world"]

NEAR, FAR, SLIGHT = 0.5, 2.0, 0.03
WIDTH = 3
"""Columns of every batch."""


@dataclass(frozen=True)
class Setting:
    """What all worlds of an audit share.

    Attributes:
        equal: responses have 2 tokens, none ends early. vocab: 2, or more for losses that need it (then the horizon
            is 2 and groups have one response). writer: who writes, ``"own"`` or ``"teacher"``. binary: rewards are 0
            or 1 in all worlds.
    """

    equal: bool = False
    vocab: int = 2
    writer: str = "own"
    binary: bool = False

    def __post_init__(self) -> None:
        _validate.integer("vocab", self.vocab, low=2, high=8)
        _validate.one_of("responses", self.writer, ("own", "teacher"))

    @property
    def group(self) -> int:
        """Responses a prompt."""
        return 2 if self.vocab == 2 else 1


@dataclass(frozen=True)
class World:
    """One world.

    Attributes:
        name: as in the module. batches: how its responses are presented. draws: rows of the problem and their weight,
            one batch each. group_size: responses in a group. group: numbers of the groups in every batch (None: by
            prompt).
    """

    name: str
    batches: AuditBatches
    draws: tuple[tuple[tuple[int, ...], float], ...]
    group_size: int = 2
    group: tuple[int, ...] | None = None

    @property
    def problem(self) -> TreeProblem:
        """The responses."""
        return self.batches.problem

    def gradient(self, loss: LossFunction) -> np.ndarray:
        """Expected gradient of a loss in all parameters, flat.

        Raises:
            ValueError, TypeError: as `klsim.learning.expected_gradient`; and what the loss raises.
        """
        import torch

        before = torch.get_rng_state()
        made = self.batches if self.group is None else _Grouped(self.batches, torch.tensor(self.group))
        found = sum_batches(loss, made, self.draws)[0]
        if not torch.equal(before, torch.get_rng_state()):
            raise ValueError("loss: is random (it draws random numbers)")
        return found

    def column(self, term: str | Functional) -> np.ndarray:
        """Gradient of a functional, as flat; cached by name."""
        if callable(term):
            return self.batches.flat(functional_gradient(term, self.problem))
        if term not in self._columns:
            self._columns[term] = self._column(term)
        return self._columns[term]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {}

    def _column(self, term: str) -> np.ndarray:
        if term != "value_loss":
            return self.batches.flat(functional_gradient(term, self.problem))
        problem = self.problem
        mass = np.exp(problem.log_prob("behaviour")) * problem.share[problem.prompt]
        gap = self.batches.values.detach().numpy()[problem.nodes] - problem.reward[:, None]
        values = np.bincount(
            problem.nodes[problem.mask], (mass[:, None] * gap)[problem.mask], minlength=len(problem.node_prompt)
        )
        return self.batches.flat(np.zeros(problem.tables["policy"].shape), values)

    @property
    def unit(self) -> float:
        """The size of a gradient that is not small here."""
        return float(np.linalg.norm(self.column("forward_kl(teacher, frozen)")))


@dataclass(frozen=True)
class _Grouped:
    """Batches whose rows carry given group numbers."""

    made: AuditBatches
    numbers: Any

    @property
    def problem(self) -> TreeProblem:
        return self.made.problem

    def batch(self, rows: Any, external: Any = None) -> Any:
        return self.made.batch(rows, external, self.numbers)

    def gradient(self, value: Any) -> np.ndarray:
        return self.made.gradient(value)


def _prompts(setting: Setting, seed: int, *, near: float | None = NEAR, off_policy: bool = False) -> PromptTree:
    """One random prompt of a setting."""
    horizon = 2 if setting.equal or setting.vocab > 2 else 3
    eos = None if setting.equal else 0
    (prompt,) = random_prompts(
        1, 710 + seed, vocab=setting.vocab, horizon=horizon, eos=eos, near=near, off_policy=off_policy
    )
    return replace(prompt, log_behaviour=prompt.log_teacher) if setting.writer == "teacher" else prompt


def _enumerated(
    name: str,
    prompts: Sequence[PromptTree],
    group: int,
    *,
    together: Sequence[int] | None = None,
    reward: Callable[[TreeProblem], np.ndarray] | None = None,
    layout: Layout = "right",
    tokens: Callable[[TreeProblem], np.ndarray] | None = None,
    drop_cut: bool = False,
) -> World:
    problem = TreeProblem(prompts, range(len(prompts)) if together is None else together)
    if reward is not None:
        problem = problem.with_rewards(reward(problem))
    at_tokens = None if tokens is None else tokens(problem)
    if at_tokens is not None:
        problem = problem.with_rewards(at_tokens.sum(axis=1))
    made = AuditBatches(problem, layout=layout, width=WIDTH, token_rewards=at_tokens, drop_cut=drop_cut)
    return World(name, made, tuple(enumerate_batches(problem, group)), group)


def _graded(problem: TreeProblem) -> np.ndarray:
    return np.random.default_rng(31).standard_normal(len(problem.reward))


def _token_rewards(problem: TreeProblem) -> np.ndarray:
    """A reward for every prefix and token."""
    table = np.random.default_rng(37).standard_normal(problem.tables["policy"].shape)
    return np.where(problem.mask, table[problem.nodes, problem.tokens], 0.0)


def _at_last_token(problem: TreeProblem) -> np.ndarray:
    out = np.zeros(problem.mask.shape)
    out[np.arange(len(out)), problem.length - 1] = problem.reward
    return out


REWARDS: dict[str, dict[str, Any]] = {
    "graded rewards": {"reward": _graded},
    "nearly equal rewards": {"reward": lambda p: 1 + 0.05 * _graded(p)},
    "constant rewards": {"reward": lambda p: np.ones(len(p.reward))},
    "rewards at tokens": {"tokens": _token_rewards},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "left padding": {"layout": "left"},
    "holes": {"layout": "holes"},
    "trimmed": {"layout": "trimmed"},
    "cut responses masked": {"drop_cut": True},
    "left padding, rewards at the last token": {"layout": "left", "tokens": _at_last_token},
    "holes, rewards at the last token": {"layout": "holes", "tokens": _at_last_token},
}
OFF_POLICY = ("off-policy", "slightly off-policy", "sampler")
EQUAL = ", equal lengths"
TOKEN_MEAN = ("large batch", "large batch, far", "large batch, graded rewards", "large batch, holes")
"""Worlds in which a mean over all tokens of a batch is a ratio of expectations."""
PAIRS: dict[str, dict[str, Any]] = {
    "pairs": {"near": (NEAR, FAR)},
    "pairs, far": {"near": FAR},
    "pairs, left padding": {"layout": "left"},
    "pairs, holes": {"layout": "holes"},
    "two pairs": {"count": 2, "together": [0, 0]},
}
PREFERENCE = tuple(name for name in PAIRS if name != "two pairs")
"""The worlds of pairs that an expectation on pairs has to hold in."""
LARGE: dict[str, dict[str, Any]] = {
    "large batch": {},
    "large batch, far": {"near": FAR},
    "large batch, graded rewards": {"reward": _graded},
    "large batch, holes": {"layout": "holes"},
}


@cache
def world(name: str, setting: Setting = Setting()) -> World:
    """A world by its name, see the module.

    Raises:
        ValueError: there is no such world.
    """
    trees = 14 if setting.vocab == 2 else 2
    if name == "lengths":
        return _enumerated(name, [_prompts(setting, k) for k in range(trees)], setting.group)
    if name == "teacher's responses":
        writes = replace(setting, writer="teacher")
        return _enumerated(name, [_prompts(writes, k) for k in range(trees)], setting.group)
    if name == "equal lengths":
        prompts = [random_prompts(1, 740 + k, vocab=2, horizon=3, eos=None, near=NEAR)[0] for k in range(4)]
        return _enumerated(name, prompts, 2)
    if name == "two prompts":
        return _enumerated(name, [_prompts(setting, 20 + k) for k in range(2)], setting.group, together=[0, 0])
    if name in ("groups of 4", "groups of one"):
        size = 4 if name == "groups of 4" else 1
        return _enumerated(name, [_prompts(setting, 30 + k) for k in range(2)], size)
    if name == "far":
        return _enumerated(
            name, [_prompts(setting, 40 + k, near=FAR) for k in range(max(trees // 3, 1))], setting.group
        )
    if name in REWARDS or name in LAYOUTS:
        how = (REWARDS | LAYOUTS)[name]
        return _enumerated(name, [_prompts(setting, 50 + k) for k in range(max(trees // 4, 1))], setting.group, **how)
    if name == "vocabulary":
        horizon, count = (2, 1) if setting.equal else (1, 4)  # as long as in the other worlds of equal lengths
        prompts = [random_prompts(1, 770 + k, vocab=5, horizon=horizon, eos=None, near=NEAR)[0] for k in range(count)]
        return _enumerated(name, prompts, 2)
    if name in OFF_POLICY:
        count = trees if name == "off-policy" else max(trees // 3, 1)
        drawn = [_prompts(replace(setting, writer="own"), 60 + k, off_policy=True) for k in range(count)]
        return _enumerated(name, [_off_policy(name, p, 60 + k) for k, p in enumerate(drawn)], setting.group)
    if name.endswith(EQUAL):
        kind = name.removesuffix(EQUAL)
        near = FAR if kind == "far" else NEAR
        drawn = list(random_prompts(2, 745, vocab=2, horizon=3, eos=None, near=near, off_policy=kind in OFF_POLICY))
        return _enumerated(name, [_off_policy(kind, p, 65 + k) for k, p in enumerate(drawn)], 2)
    if name in LARGE:
        return _large(name, setting, **LARGE[name])
    if name in PAIRS:
        return _pairs(name, setting, **PAIRS[name])
    raise ValueError(f"world {name!r}: there is none")


def _off_policy(name: str, prompt: PromptTree, seed: int) -> PromptTree:
    rng = np.random.default_rng(seed)

    def around(size: float) -> tuple[np.ndarray, ...]:
        return tuple(log_normalize(level + size * rng.standard_normal(level.shape)) for level in prompt.log_policy)

    if name == "slightly off-policy":
        return replace(prompt, log_behaviour=around(SLIGHT))
    return replace(prompt, log_old=around(NEAR)) if name == "sampler" else prompt


RATIONAL = (((1, 2), (1, 1), (1, 1)), ((1, 1), (1, 2), (1, 1)), ((1, 5), (2, 3), (1, 2)), ((1, 2), (1, 3), (2, 1)))
"""Odds of the end at each of three steps for which responses have probabilities k/6; the first two also without it."""


def _large(
    name: str,
    setting: Setting,
    *,
    near: float | None = NEAR,
    reward: Callable[[TreeProblem], np.ndarray] | None = None,
    layout: Layout = "right",
) -> World:
    """All ordered groups of two prompts, each as often as its probability says, in one batch: its population."""
    plain = replace(setting, vocab=2, writer="own")
    kinds = RATIONAL[:2] if setting.equal else RATIONAL
    prompts = [_rational(_prompts(plain, 80 + k, near=near), kinds[k % len(kinds)]) for k in range(14)]
    if setting.writer == "teacher":
        prompts = [replace(p, log_behaviour=p.log_policy, log_teacher=p.log_policy, log_policy=p.log_teacher)  # type: ignore[arg-type]
                   for p in prompts]  # fmt: skip
    problem = TreeProblem(prompts, [k // 2 for k in range(14)])
    if reward is not None and not setting.binary:
        problem = problem.with_rewards(reward(problem))
    copies = np.rint(6 * np.exp(problem.log_prob("behaviour"))).astype(int)
    draws: list[tuple[tuple[int, ...], float]] = []
    rows: list[int] = []
    for batch in range(7):
        rows = []
        for prompt in np.flatnonzero(problem.together == batch):
            here = np.flatnonzero(problem.prompt == prompt)
            drawn = np.repeat(here, copies[here])
            rows += [int(r) for pair in itertools.product(drawn, repeat=2) for r in pair]
        draws.append((tuple(rows), 1.0))
    made = AuditBatches(problem, layout=layout, width=WIDTH)
    return World(name, made, tuple(draws), 2, tuple(np.repeat(np.arange(len(rows) // 2), 2).tolist()))


def _rational(prompt: PromptTree, odds: Sequence[tuple[int, int]]) -> PromptTree:
    """The same prompt with a policy whose responses have probabilities that are multiples of 1/6."""
    levels = [np.tile(np.log(np.array(o) / sum(o)), (len(level), 1)) for o, level in zip(odds, prompt.log_policy)]
    return replace(prompt, log_policy=tuple(levels))


def _pairs(
    name: str,
    setting: Setting,
    *,
    near: float | tuple[float, ...] = NEAR,
    layout: Layout = "right",
    count: int = 6,
    together: Sequence[int] | None = None,
) -> World:
    """Two responses of the reference a prompt, with different rewards."""
    count = count if setting.vocab == 2 else min(count, 2) if together else 1
    distances = near if isinstance(near, tuple) else (near,)
    own = replace(setting, writer="own")
    prompts = [_prompts(own, 90 + k, near=distances[k % len(distances)]) for k in range(count)]
    prompts = [replace(p, log_behaviour=p.log_ref) for p in prompts]
    problem = TreeProblem(prompts, range(count) if together is None else together)
    problem = problem.with_rewards(_graded(problem))
    made = AuditBatches(problem, layout=layout, width=WIDTH, pairs=True)
    draws = [
        (rows, weight)
        for rows, weight in enumerate_batches(problem, 2)
        if all(problem.reward[a] != problem.reward[b] for a, b in zip(rows[::2], rows[1::2]))
    ]
    return World(name, made, tuple(draws))


def required_worlds(setting: Setting) -> tuple[str, ...]:
    """The worlds in which an expectation has to hold (preference pairs and token means have their own)."""
    shapes: tuple[str, ...] = ("lengths", "two prompts", "far", "left padding", "holes")
    if setting.equal:
        shapes = ("lengths", "two prompts", "far")
    if setting.writer == "teacher" or setting.vocab > 2:
        return (*shapes, *(() if setting.binary else ("graded rewards",)))
    more = ("groups of 4", *(() if setting.binary else tuple(REWARDS)), "vocabulary")
    return (*shapes, *more) if setting.equal else (*shapes, "equal lengths", *more)


def clipped_share(name: str, low: float = 0.8, high: float = 1.2) -> float:
    """The share of tokens of a world whose ratio ``pi/old`` lies outside ``[low, high]``."""
    problem = world(name).problem
    steps = problem.tables["policy"] - problem.tables["old"]
    mass = problem.visits("behaviour")[:, None] * np.exp(problem.tables["behaviour"])
    outside = (steps < math.log(low)) | (steps > math.log(high))
    return float(np.sum(mass * outside) / np.sum(mass))
