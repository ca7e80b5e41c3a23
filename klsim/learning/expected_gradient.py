r"""What a loss is the gradient of: its exact expectation on token trees, next to population gradients.

A problem is a list of `PromptTree`: every prompt has a token tree, a policy, a reference, a teacher, and
the law that draws the responses. The policy is tabular, one logit for every prefix and token; a gradient is
an array ``(prefixes, V)`` over the prefixes that are not ended, of all prompts. `expected_gradient` draws a
group of responses for every prompt in all possible ways (as multisets, with their probabilities), evaluates
the loss on each batch with torch's autograd and adds up. `functional_gradient` is the gradient of a named
functional, from sums over all sequences. `explain` regresses the first on the second.

A parametric policy needs no other check: its gradient is the tabular one times the Jacobian of the logits.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.divergences import GENERATORS
from klsim.objectives.batch import TokenBatch
from klsim.problems import TokenTree
from klsim.problems.token_tree import check_levels, token_mask, tokens

if TYPE_CHECKING:
    import torch

__all__ = [
    "ExpectedGradient",
    "Explanation",
    "PromptTree",
    "TreeProblem",
    "expected_gradient",
    "explain",
    "functional_gradient",
    "functional_value",
    "random_prompts",
]

Levels = Sequence[np.ndarray]
LossFunction = Callable[[TokenBatch], Any]

CHECKED_BATCHES = 6
"""How many random batches are evaluated again and reordered before a loss is taken for a function of a multiset."""


@dataclass(frozen=True)
class PromptTree:
    """One prompt.

    Attributes:
        tree: vocabulary, horizon, reward of every sequence, ``eos``.
        log_policy: the policy, levels ``(V**t, V)``.
        log_ref, log_teacher: None is the uniform policy.
        log_behaviour: the law that draws the responses (the old policy); None is the policy itself.
        log_external: who writes external responses; None if nobody does.
        prefix: tokens that every response starts with.
    """

    tree: TokenTree
    log_policy: Levels
    log_ref: Levels | None = None
    log_teacher: Levels | None = None
    log_behaviour: Levels | None = None
    log_external: Levels | None = None
    prefix: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _validate.instance("tree", self.tree, TokenTree)
        _validate.numpy_arrays(tree=self.tree.reward)
        if np.ndim(self.tree.reward) != 1:
            _validate.fail("tree", "needs one reward a sequence, not a batch of trees")
        for name in ("log_policy", "log_ref", "log_teacher", "log_behaviour", "log_external"):
            levels = getattr(self, name)
            if levels is None:
                continue
            _, vocab, values = check_levels(name, levels, policy=True)
            _validate.numpy_arrays(**{f"{name}[{t}]": level for t, level in enumerate(values)})
            if vocab != self.tree.vocab or len(values) != self.tree.horizon or values[0].ndim != 2:
                _validate.fail(name, f"must be one tree of vocabulary {self.tree.vocab}, horizon {self.tree.horizon}")
        tokens = _validate.sequence("prefix", self.prefix)
        prefix = tuple(_validate.integer("prefix", t, low=0, high=self.tree.vocab - 1) for t in tokens)
        object.__setattr__(self, "prefix", prefix)
        if len(self.prefix) >= self.tree.horizon or self.tree.eos in self.prefix:
            _validate.fail("prefix", f"must be shorter than the horizon and not ended, got {self.prefix}")


class TreeProblem:
    """The responses and prefixes of some prompts, enumerated.

    Attributes:
        prompts: what it was made of.
        nodes, tokens, mask: of every response, ``(N, T)``; masked positions hold 0.
        reward: ``(N,)``. prompt: ``(N,)``, which prompt it answers. length: ``(N,)`` tokens.
        tables: ``"policy"``, ``"ref"``, ``"teacher"``, ``"behaviour"``, ``"external"`` (if given) -> ``(prefixes, V)``.
        node_prompt: ``(prefixes,)``.
    """

    def __init__(self, prompts: Sequence[PromptTree]) -> None:
        prompts = _validate.sequence("prompts", prompts, of=PromptTree)
        if not prompts:
            raise ValueError("prompts: needs at least one PromptTree")
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
        external = all("external" in part for part in parts)
        names = ("policy", "ref", "teacher", "behaviour") + (("external",) if external else ())
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
        other.tables = self.tables | {"policy": table, "behaviour": behaviour}
        return other

    def success(self) -> np.ndarray:
        """``E[r]`` of every prompt under the policy, ``(prompts,)``."""
        weights = np.exp(self.log_prob("policy")) * self.reward
        return np.asarray(np.bincount(self.prompt, weights, minlength=len(self.prompts)))


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

    With ``near``, only the reference's logits are N(0, 1); other policies' are the reference's plus ``near`` N(0, 1).
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
    if binary and (vocab == 1 or (eos is not None and vocab < 2)):
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


@dataclass(frozen=True)
class ExpectedGradient:
    """Expectation of a loss's gradient in the logits.

    Attributes:
        gradient: ``(prefixes, V)``, of the loss (a descent step goes against it).
        value: expected loss.
        stderr: Monte Carlo standard error of every entry; None if the expectation is exact.
        batches: how many were evaluated.
    """

    gradient: np.ndarray
    value: float
    stderr: np.ndarray | None
    batches: int


class _Batches:
    """Batches of responses as torch tensors: ``log_probs`` are read from one table of log-probabilities."""

    def __init__(self, problem: TreeProblem) -> None:
        import torch

        self.problem = problem
        self.table = torch.tensor(problem.tables["policy"], dtype=torch.float64, requires_grad=True)
        self.nodes = torch.as_tensor(problem.nodes)
        self.tokens = torch.as_tensor(problem.tokens)
        self.mask = torch.as_tensor(problem.mask)
        self.reward = torch.as_tensor(problem.reward)
        self.prompt = torch.as_tensor(problem.prompt)
        self.fixed = {name: torch.as_tensor(problem.tables[name]) for name in ("behaviour", "ref", "teacher")}

    def batch(self, rows: Any, external: Any = None) -> TokenBatch:
        nodes, words = self.nodes[rows], self.tokens[rows]
        constant = {name: table[nodes] for name, table in self.fixed.items()}
        sampled = {name: x.gather(-1, words[..., None])[..., 0] for name, x in constant.items()}
        vocab = self.table[nodes]
        return TokenBatch(
            log_probs=vocab.gather(-1, words[..., None])[..., 0],
            mask=self.mask[rows],
            tokens=words,
            rewards=self.reward[rows],
            group=self.prompt[rows],
            external=external,
            old_log_probs=sampled["behaviour"],
            ref_log_probs=sampled["ref"],
            teacher_log_probs=sampled["teacher"],
            vocab_log_probs=vocab,
            old_vocab_log_probs=constant["behaviour"],
            ref_vocab_log_probs=constant["ref"],
            teacher_vocab_log_probs=constant["teacher"],
        )


def _as_problem(problem: Any, name: str = "problem") -> TreeProblem:
    """A `TreeProblem`, made of prompts if that is what was given."""
    if isinstance(problem, TreeProblem):
        return problem
    try:
        return TreeProblem(problem)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: must be a TreeProblem or prompts ({error})") from None


def _scalar(returned: Any) -> torch.Tensor:
    loss: torch.Tensor = returned[0] if isinstance(returned, tuple) else returned
    if getattr(loss, "ndim", None) != 0 or not hasattr(loss, "backward"):
        raise TypeError(f"loss: must return a scalar torch tensor (or one and a dict), got {type(loss).__name__}")
    return loss


def _multisets(rows: np.ndarray, log_prob: np.ndarray, size: int) -> list[tuple[tuple[int, ...], float]]:
    """All multisets of ``size`` responses with their probabilities."""
    alive = np.isfinite(log_prob)
    rows, prob = rows[alive], np.exp(log_prob[alive])
    out = []
    for places in itertools.combinations_with_replacement(range(len(rows)), size):
        counts = np.unique(places, return_counts=True)[1]
        orders = math.factorial(size) / math.prod(map(math.factorial, counts.tolist()))
        out.append((tuple(int(rows[i]) for i in places), orders * math.prod(float(prob[i]) for i in places)))
    return out


def _sources(problem: TreeProblem, group_size: int, external: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """``(rows, log_prob, how many)`` of everything that is drawn for one batch, prompt by prompt."""
    out = []
    own = problem.log_prob("behaviour")
    other = problem.log_prob("external") if external else own
    for i in range(len(problem.prompts)):
        rows = np.flatnonzero(problem.prompt == i)
        if group_size:
            out.append((rows, own[rows], group_size))
        if external:
            out.append((rows, other[rows], external))
    return out


def expected_gradient(
    loss: LossFunction,
    problem: TreeProblem | Sequence[PromptTree],
    *,
    group_size: int = 2,
    external: int = 0,
    max_batches: int = 20_000,
    samples: int = 4_000,
    rng: np.random.Generator | int = 0,
) -> ExpectedGradient:
    r"""``E[grad loss]`` over batches of ``group_size`` responses a prompt (and ``external`` ones), in the logits.

    Exact over multisets if there are at most ``max_batches`` of them, else the mean of ``samples`` draws with standard
    errors. The loss sees a `TokenBatch` of float64 torch tensors with everything in it; ``group`` numbers the prompts.

    Raises:
        ValueError: the loss depends on the order of the responses (multisets would be wrong); a gradient not finite.
        TypeError: it does not return a scalar tensor.
    """
    import torch

    problem = _as_problem(problem)
    if not callable(loss):
        raise TypeError(f"loss: must be a function of a TokenBatch, got {type(loss).__name__}")
    external = _validate.integer("external", external, low=0)
    group_size = _validate.integer("group_size", group_size, low=0 if external else 1)
    max_batches = _validate.integer("max_batches", max_batches, low=0)
    _validate.fits("group_size", group_size, group_size * len(problem.prompts), each=400)
    if external and "external" not in problem.tables:
        _validate.fail("external", "the prompts have no log_external", external)
    sources = _sources(problem, group_size, external)
    flags = torch.tensor(([False] * group_size + [True] * external) * len(problem.prompts)) if external else None
    made = _Batches(problem)
    _check_order(loss, made, sources, flags, _validate.generator(rng))
    count = math.prod(math.comb(int(np.isfinite(p).sum()) + n - 1, n) for _, p, n in sources)
    if count <= max_batches:
        gradient, value = _enumerated(loss, made, sources, flags)
        return ExpectedGradient(_in_logits(gradient, problem, "policy"), value, None, count)
    drawn = _sampled(loss, made, sources, flags, samples, _validate.generator(rng))
    gradients = np.stack([_in_logits(g, problem, "policy") for g, _ in drawn])
    stderr = gradients.std(axis=0, ddof=1) / math.sqrt(samples)
    return ExpectedGradient(gradients.mean(axis=0), float(np.mean([v for _, v in drawn])), stderr, samples)


def _enumerated(loss: LossFunction, made: _Batches, sources: Any, flags: Any) -> tuple[np.ndarray, float]:
    import torch

    total = np.zeros(made.problem.tables["policy"].shape)
    value = 0.0
    lists = [_multisets(*source) for source in sources]
    pending: list[torch.Tensor] = []
    for chosen in itertools.product(*lists):
        rows = torch.tensor([r for part, _ in chosen for r in part])
        pending.append(math.prod(w for _, w in chosen) * _scalar(loss(made.batch(rows, flags))))
        if len(pending) == 64:
            total, value = _add(total, value, pending, made)
    total, value = _add(total, value, pending, made)
    return total, value


def _add(total: np.ndarray, value: float, pending: list[Any], made: _Batches) -> tuple[np.ndarray, float]:
    """Add the gradients of the pending losses, and forget them."""
    import torch

    if not pending:
        return total, value
    summed = torch.stack(pending).sum()
    pending.clear()
    if summed.requires_grad:
        (gradient,) = torch.autograd.grad(summed, made.table, allow_unused=True)
        total = total if gradient is None else total + gradient.numpy()
    return _finite(total), value + float(summed.detach())


def _finite(gradient: np.ndarray) -> np.ndarray:
    index = _validate.first_true(np, ~np.isfinite(gradient))
    if index is not None:
        raise ValueError(f"loss: its gradient is {float(gradient[index])} at prefix {index[0]}, token {index[1]}")
    return gradient


def _one(loss: LossFunction, made: _Batches, rows: Any, flags: Any) -> tuple[np.ndarray, float]:
    """Gradient and value on one batch."""
    return _add(np.zeros(made.problem.tables["policy"].shape), 0.0, [_scalar(loss(made.batch(rows, flags)))], made)


def _sampled(
    loss: LossFunction, made: _Batches, sources: Any, flags: Any, samples: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, float]]:
    batches = itertools.islice(_draws(sources, rng), _validate.integer("samples", samples, low=2))
    return [_one(loss, made, rows, flags) for rows in batches]


def _draws(sources: Any, rng: np.random.Generator) -> Iterator[Any]:
    import torch

    laws = [(rows, np.exp(p - p.max()) / np.exp(p - p.max()).sum(), n) for rows, p, n in sources]
    while True:
        yield torch.tensor(np.concatenate([rng.choice(rows, n, p=p) for rows, p, n in laws]))


def _check_order(loss: LossFunction, made: _Batches, sources: Any, flags: Any, rng: np.random.Generator) -> None:
    """Some random batches again, and in another order: a loss is a function, and a multiset has no order."""
    import torch

    draws = _draws(sources, rng)
    for _ in range(CHECKED_BATCHES):
        rows = next(draws)
        order = torch.tensor(rng.permutation(len(rows)))
        first = _one(loss, made, rows, flags)
        for _ in range(3):
            _differ("is random", first, _one(loss, made, rows, flags))
        other = _one(loss, made, rows[order], None if flags is None else flags[order])
        _differ("depends on the order of the responses", first, other)


def _differ(rule: str, one: tuple[np.ndarray, float], two: tuple[np.ndarray, float]) -> None:
    # 1e-5 leaves room for losses that compute in float32
    if not np.allclose(one[1], two[1], rtol=1e-5, atol=1e-7, equal_nan=True):
        raise ValueError(f"loss: {rule} ({one[1]:.6g} and {two[1]:.6g} for the same responses)")
    gap = float(np.linalg.norm(one[0] - two[0]))
    if gap > 1e-5 * float(np.linalg.norm(one[0])) + 1e-7:
        raise ValueError(f"loss: {rule} (for the same responses, gradients are {gap:.3g} apart)")


def _in_logits(gradient: np.ndarray, problem: TreeProblem, law: str) -> np.ndarray:
    """From a gradient in the log-probabilities to one in the logits: ``g - pi sum_a g``."""
    pi = np.exp(problem.tables[law])
    return np.asarray(gradient - pi * gradient.sum(axis=-1, keepdims=True))


def _functional(name: str, problem: TreeProblem, table: Any) -> Any:
    """The value of a named functional of the policy's table of log-probabilities, a torch scalar."""
    import torch

    if not isinstance(name, str):
        raise TypeError(f"name: must be the name of a functional, got {type(name).__name__}")
    base, only, words = _parse(name)
    nodes, words_drawn, free = (torch.as_tensor(x) for x in (problem.nodes, problem.tokens, problem.free))
    steps = torch.where(free, table[nodes].gather(-1, words_drawn[..., None])[..., 0], 0.0)
    log_p = steps.sum(dim=1)
    p = torch.exp(log_p)
    share = np.full(len(problem.prompts), 1.0 / len(problem.prompts))
    if only:
        share = np.zeros(len(problem.prompts))
        share[_validate.integer("prompt", int(only), low=0, high=len(share) - 1)] = 1.0
    of_response, of_node = torch.as_tensor(share[problem.prompt]), torch.as_tensor(share[problem.node_prompt])
    reward, length = torch.as_tensor(problem.reward), torch.as_tensor(problem.length, dtype=torch.float64)
    if base == "reward":
        return (of_response * p * reward).sum()
    if base == "length":
        return (of_response * p * length).sum()
    if base == "reward_over_length":
        return (of_response * p * reward / length).sum()
    if base == "reward_per_token":
        baseline = torch.as_tensor(problem.success())[torch.as_tensor(problem.prompt)]
        return (of_response * p * (reward - baseline) / length).sum()
    other_name = "teacher" if "teacher" in words else "ref"
    other = torch.as_tensor(problem.tables[other_name])
    if "frozen" in words or "ref visits" in words:
        visits = torch.as_tensor(problem.visits("ref" if "ref visits" in words else "behaviour"))
        return (of_node * visits * _at_nodes(base, name, table, other)).sum()
    if base == "entropy":
        return -(of_response * p * log_p).sum()
    log_q = torch.as_tensor(problem.log_prob(other_name))
    generator = GENERATORS.get({"reverse_kl": "kl"}.get(base, base))
    if generator is None:
        raise ValueError(f"name: functional {name!r}: unknown; try {', '.join(_FUNCTIONALS)}")
    import array_api_compat.torch as xp

    return (of_response * generator.term(xp, log_p, log_q)).sum()


def _parse(name: str) -> tuple[str, str, set[str]]:
    """``"js@1(teacher, frozen)"`` -> ``("js", "1", {"teacher", "frozen"})``."""
    match = re.fullmatch(r"(.+?)(?:@(\d+))?\s*(?:\(([a-z ,]*)\))?", name)
    words = {w.strip() for w in (match[3] or "").split(",") if w.strip()} if match else set()
    unknown = words - {"teacher", "frozen", "ref visits"}
    if not match or unknown:
        raise ValueError(
            f"name: functional {name!r}: unknown option {', '.join(sorted(unknown))} (teacher, frozen, ref visits)"
        )
    return match[1], match[2] or "", words


_FUNCTIONALS = ("reward", "reward_per_token", "reward_over_length", "length", "entropy", "reverse_kl", *GENERATORS)


def _at_nodes(base: str, name: str, table: Any, other: Any) -> Any:
    """Entropy or a divergence from ``other`` at every prefix."""
    import array_api_compat.torch as xp
    import torch

    if base == "entropy":
        return -(torch.exp(table) * table).sum(dim=-1)
    generator = GENERATORS.get({"reverse_kl": "kl"}.get(base, base))
    if generator is None:
        raise ValueError(f"name: functional {name!r}: unknown; try {', '.join(_FUNCTIONALS)}")
    return generator.term(xp, table, other).sum(dim=-1)


def functional_value(name: str, problem: TreeProblem | Sequence[PromptTree]) -> float:
    """The value of a named functional, see `functional_gradient`."""
    import torch

    problem = _as_problem(problem)
    return float(_functional(name, problem, torch.as_tensor(problem.tables["policy"])))


def functional_gradient(name: str, problem: TreeProblem | Sequence[PromptTree]) -> np.ndarray:
    r"""Gradient of a named functional of the policy in the tabular logits, ``(prefixes, V)``; mean over prompts.

    =====================  ==========================================================================
    ``reward``             ``E_pi[r]``
    ``reward_per_token``   ``E_pi[(r - b)/|y|]``, ``b = E_pi[r]`` held fixed
    ``reward_over_length`` ``E_pi[r/|y|]``
    ``length``             ``E_pi|y|``
    ``entropy``            of sequences
    ``reverse_kl``         ``KL(pi‖ref)`` of sequences
    ``forward_kl``         ``KL(ref‖pi)`` of sequences
    ``js``, ``chi2``, …    any of `klsim.divergences.GENERATORS`, ``D_f(pi‖ref)`` of sequences
    =====================  ==========================================================================

    Options in parentheses: ``teacher`` in place of the reference; ``frozen``: summed over prefixes with the
    visits of the behaviour law held fixed; ``ref visits``: with those of the reference. ``reward@2`` is that of
    prompt 2 alone. Example: ``"reverse_kl(teacher, frozen)"``.

    Raises:
        ValueError: an unknown name or option.
    """
    import torch

    problem = _as_problem(problem)
    table = torch.tensor(problem.tables["policy"], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(_functional(name, problem, table), table)
    return _in_logits(gradient.numpy(), problem, "policy")


@dataclass(frozen=True)
class Explanation:
    """Gradients as a combination of population gradients.

    Attributes:
        coefficients: of every term. residual: ``|g - sum c_k g_k| / |g|``; 0 for a gradient that is 0 up to
            rounding (1e-12 of the largest term).
        identifiable: the terms are linearly independent here, so the coefficients are unique.
    """

    coefficients: Mapping[str, float]
    residual: float
    identifiable: bool


def explain(
    gradients: Sequence[np.ndarray], problems: Sequence[TreeProblem | Sequence[PromptTree]], terms: Sequence[str]
) -> Explanation:
    """The one combination of population gradients ``terms`` that fits the gradients on all problems best.

    Use enough problems: a small tree has only ``prefixes (V - 1)`` directions, which a few terms span.

    Raises:
        ValueError: no problem or term, numbers that do not match, an unknown term.
    """
    problems, gradients = _validate.sequence("problems", problems), _validate.sequence("gradients", gradients)
    terms = _validate.sequence("terms", terms, of=str)
    if not problems or len(gradients) != len(problems) or not terms:
        raise ValueError(f"gradients: needs one for each problem, got {len(gradients)} for {len(problems)}; and a term")
    made = [_as_problem(p, "problems") for p in problems]
    gradients = [_validate.numpy_arrays(gradients=g)[0] for g in gradients]
    for g, p in zip(gradients, made):
        if g.size != p.tables["policy"].size:
            _validate.fail("gradients", f"needs shape {p.tables['policy'].shape}, got {g.shape}")
        if np.abs(_validate.finite("gradients", np, g)).max() > 1e100:
            _validate.fail("gradients", "must be at most 1e100 in size")
    columns = np.stack([np.concatenate([functional_gradient(t, p).ravel() for p in made]) for t in terms], axis=1)
    target = np.concatenate([np.asarray(g, dtype=float).ravel() for g in gradients])
    scale = np.linalg.norm(columns, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found, _, rank, _ = np.linalg.lstsq(columns / scale, target, rcond=1e-10)
    left = float(np.linalg.norm(target - columns / scale @ found))
    size = float(np.linalg.norm(target))
    nothing = size <= 1e-12 * float(scale.max())
    names = {term: 0.0 if nothing else float(c) for term, c in zip(terms, found / scale)}
    return Explanation(names, 0.0 if nothing else left / size, bool(rank == len(terms)))
