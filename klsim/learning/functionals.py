r"""The library of population functionals: what an expected gradient is compared with.

A name is a base, options in parentheses, and perhaps a normalisation around it. Values are means over the prompts of
a batch; E is over responses, ``d(s)`` the visits of prefix s by whoever draws the responses, held fixed.

=============================  ====================================================================================
``reward``                     ``E_pi[r]``
``reward_per_token``           ``E_pi[(r - b)/|y|]``, ``b = E_pi[r]`` held fixed
``reward_over_length``         ``E_pi[r/|y|]``
``length``, ``inverse_length`` ``E_pi|y|``, ``E_pi[1/|y|]``
``max_at_k(k=4)``              ``E`` of the largest reward of k responses; of binary rewards pass@k; ``min_at_k``: least
``log_ref``                    ``E_pi[log ref]``: the reward of sharpening, whose optimum is a power of the reference
``win_rate``                   ``E_pi[P(r > r') + P(r = r')/2]`` against a response of the law that draws, held fixed
``entropy``                    of sequences; ``entropy(frozen)``: ``sum_s d(s) H(pi(.|s))``
``reverse_kl``, ``forward_kl`` ``KL(pi‖ref)``, ``KL(ref‖pi)`` of sequences
``js``, ``chi2``, …            any of `klsim.divergences.GENERATORS`, ``D_f(pi‖ref)`` of sequences
``jsd(weight=0.9)``            generalised JSD, ``w KL(ref‖m) + (1-w) KL(pi‖m)``, ``m = w ref + (1-w) pi``
``skew_forward_kl(alpha=.1)``  ``KL(ref‖a ref + (1-a) pi)``; ``skew_reverse_kl``: ``KL(pi‖a pi + (1-a) ref)``
``k2``                         ``E_pi[log^2(pi/ref)]/2``; ``k2_ref``: the same under the reference
``dpo(beta=0.1)``              ``E[-log sigmoid(beta (h_c - h_r))]``, ``h = log pi/ref``, over pairs of responses of
                               the behaviour law, chosen the one with more reward, 0 for ties
``ipo(beta=0.1)``              ``E[(h_c - h_r - 1/(2 beta))^2]`` over the same pairs; ``averaged``: ``h/|y|``
=============================  ====================================================================================

Options: ``teacher``, ``old``: in place of the reference. ``frozen``: ``sum_s d(s) D(pi(.|s), ref(.|s))``;
``ref visits``: with those of the reference. ``sampled``: the token's own estimate, ``E_old sum_t``: of ``reverse_kl``
``k2 = log^2(pi/ref)/2``, of ``forward_kl`` ``k3 = ref/pi - 1 - log(ref/pi)``, of ``log_prob`` ``log pi``; the law that
draws is held fixed. ``ended``: only responses that end before the horizon cuts them (``reward(ended)`` is centred).
``reward@2``: that of prompt 2 alone. ``temperature=2``: the other law to the power 1/2, normalised. ``mode``: its most
probable token. ``top=2``: over the two most probable tokens of the reference or teacher (``of=policy``: of the
policy), a sum over those tokens; with ``tail`` the rest is one more token, with ``renormalised`` both laws are
conditioned on them.

Normalisations, of anything that is a sum over tokens: ``sequence_mean(F)``: every response's sum is divided by its
length, ``E_old[1/|y| sum_t …]``; ``token_mean(F)``: ``F / E_old|y|``, the ratio of expectations that a mean over all
tokens of a batch tends to. In both ``old`` is held fixed, and rewards are centred.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim import _validate
from klsim.divergences import GENERATORS
from klsim.learning.prompt_trees import PromptTree, TreeProblem, as_problem

if TYPE_CHECKING:
    import torch

__all__ = [
    "Explanation",
    "Functional",
    "Term",
    "explain",
    "functional_gradient",
    "functional_value",
    "in_logits",
    "parse_term",
]

Functional = Callable[[TreeProblem, Any], Any]
"""An own functional: of a problem and the policy's table of log-probabilities (torch), a torch scalar."""

RESPONSES = (
    "reward", "reward_per_token", "reward_over_length", "length", "inverse_length", "max_at_k", "pass_at_k", "min_at_k",
    "win_rate", "log_ref",
)  # fmt: skip
PAIRS = ("dpo", "ipo")
DIVERGENCES = ("reverse_kl", *GENERATORS, "jsd", "skew_forward_kl", "skew_reverse_kl", "k2", "k2_ref")
BASES = (*RESPONSES, *PAIRS, "entropy", "log_prob", *DIVERGENCES)
FLAGS = ("teacher", "old", "frozen", "ref visits", "sampled", "ended", "tail", "renormalised", "mode", "averaged")
NUMBERS = ("k", "beta", "weight", "alpha", "temperature", "top")
NEEDED = {
    "max_at_k": "k", "pass_at_k": "k", "min_at_k": "k", "dpo": "beta", "ipo": "beta", "jsd": "weight",
    "skew_forward_kl": "alpha", "skew_reverse_kl": "alpha",
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """A parsed name, see the module. ``mean``: the normalisation around it, or ``""``."""

    name: str
    base: str
    prompt: int | None = None
    flags: frozenset[str] = frozenset()
    numbers: Mapping[str, float] = field(default_factory=dict)
    of: str = ""
    mean: str = ""

    @property
    def other(self) -> str:
        """The table that the policy is compared with."""
        return next((name for name in ("teacher", "old") if name in self.flags), "ref")

    @property
    def about_pairs(self) -> bool:
        """A functional of preference pairs."""
        return self.base in PAIRS


def parse_term(name: str) -> Term:
    """A functional's name.

    Raises:
        ValueError: an unknown base or option, a value that is no number or out of range, a needed one that is missing.
        TypeError: not a name.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: must be the name of a functional, got {type(name).__name__}")
    outer = re.fullmatch(r"(token_mean|sequence_mean)\((.*)\)", name.strip())
    mean, inner = (outer[1], outer[2]) if outer else ("", name.strip())
    match = re.fullmatch(r"(alpha\(-?[\d.]+\)|[a-z_0-9]+)(?:@(\d+))?\s*(?:\(([^()]*)\))?", inner)
    if not match or match[1] not in BASES:
        raise ValueError(f"name: functional {name!r}: unknown; try {', '.join(BASES)}")
    flags, numbers, of = _options(name, match[3] or "")
    term = Term(name, match[1], int(match[2]) if match[2] else None, frozenset(flags), numbers, of, mean)
    needed = NEEDED.get(term.base)
    if needed and needed not in numbers:
        raise ValueError(f"name: functional {name!r}: needs {needed}, as {term.base}({needed}=…)")
    _check(term)
    return term


def _options(name: str, text: str) -> tuple[set[str], dict[str, float], str]:
    flags: set[str] = set()
    numbers: dict[str, float] = {}
    of = ""
    for word in (w.strip().replace("ref_visits", "ref visits") for w in text.split(",") if w.strip()):
        key, equals, value = (part.strip() for part in word.partition("="))
        if equals and key == "of" and value in ("policy", "teacher"):
            of = value
        elif equals and key in NUMBERS:
            try:
                numbers[key] = float(value)
            except ValueError:
                raise ValueError(f"name: functional {name!r}: {key}={value} is no number") from None
        elif not equals and word in FLAGS:
            flags.add(word)
        else:
            known = ", ".join((*FLAGS, *(f"{n}=" for n in NUMBERS), "of=policy"))
            raise ValueError(f"name: functional {name!r}: unknown option {word} ({known})")
    return flags, numbers, of


def _check(term: Term) -> None:
    """Options that would not act, or values out of range."""
    name, flags = term.name, term.flags

    def fail(rule: str) -> None:
        raise ValueError(f"name: functional {name!r}: {rule}")

    for key, value in term.numbers.items():
        if key in ("k", "top") and not (value >= 1 and value.is_integer()):
            fail(f"{key} must be a whole number >= 1, got {value:g}")
        if key in ("beta", "temperature") and not (value > 0 and math.isfinite(value)):
            fail(f"{key} must be > 0, got {value:g}")
        if key in ("weight", "alpha") and not 0 <= value <= 1:
            fail(f"{key} must lie in [0, 1], got {value:g}")
    if term.numbers.get("weight") in (0, 1):
        fail("weight must lie strictly between 0 and 1 (one of the two laws would be the mixture)")
    if "sampled" in flags and term.base not in ("reverse_kl", "forward_kl", "log_prob"):
        fail("sampled is for reverse_kl, forward_kl and log_prob")
    if term.base == "log_prob" and "sampled" not in flags:
        fail("needs the option sampled")
    local = bool({"frozen", "ref visits"} & flags)
    if not local and ("top" in term.numbers or "mode" in flags or "temperature" in term.numbers):
        fail("top, mode and temperature act on every prefix: they need frozen (or ref visits)")
    if ({"tail", "renormalised"} & flags or term.of) and "top" not in term.numbers:
        fail("tail, renormalised and of= need top=")
    if term.base not in DIVERGENCES and term.base != "entropy" and local:
        fail("frozen is for entropies and divergences")
    if term.mean == "sequence_mean" and not (local or "sampled" in flags or term.base in ("reward", "win_rate")):
        fail("sequence_mean is for reward, win_rate, frozen and sampled terms")
    if term.mean and term.about_pairs:
        fail("pairs have no mean over tokens")


def _baseline(problem: TreeProblem) -> np.ndarray:
    """``E[r]`` under the law that draws, for every response; held fixed."""
    weights = np.exp(problem.log_prob("behaviour")) * problem.reward
    return np.asarray(np.bincount(problem.prompt, weights, minlength=len(problem.prompts))[problem.prompt])


def _value(term: Term, problem: TreeProblem, table: torch.Tensor) -> torch.Tensor:
    """The value of a functional of the policy's table of log-probabilities."""
    import torch

    share = np.array(problem.share)
    if term.prompt is not None:
        if term.prompt >= len(share):
            raise ValueError(f"name: functional {term.name!r}: there is no prompt {term.prompt}, only {len(share)}")
        share = (np.arange(len(share)) == term.prompt).astype(float)
    kept = problem.ended.astype(float) if "ended" in term.flags else np.ones(len(problem.reward))
    weights = share[problem.prompt] * kept
    if term.mean == "sequence_mean":
        weights = weights / problem.length
    if term.mean == "token_mean":
        drawn = problem.share[problem.prompt] * kept * np.exp(problem.log_prob("behaviour")) * problem.length
        batch = problem.together[problem.prompt]
        tokens = np.bincount(batch, drawn)[batch]
        if not tokens.all():
            raise ValueError(f"name: functional {term.name!r}: no response that counts is ever drawn")
        weights = weights / tokens
    if term.about_pairs:
        return _pairs(term, problem, table, share)
    if {"frozen", "ref visits"} & term.flags:
        visits = torch.as_tensor(_visits(problem, "ref" if "ref visits" in term.flags else "behaviour", weights))
        return (visits * _at_prefixes(term, problem, table)).sum()
    if "sampled" in term.flags:
        return _sampled(term, problem, table, weights)
    return _of_responses(term, problem, table, weights)


def _steps(problem: TreeProblem, table: torch.Tensor) -> torch.Tensor:
    """Log-probability of every token, 0 where none is drawn, ``(N, T)``."""
    import torch

    nodes, words, free = (torch.as_tensor(x) for x in (problem.nodes, problem.tokens, problem.free))
    return torch.where(free, table[nodes].gather(-1, words[..., None])[..., 0], 0.0)


def _visits(problem: TreeProblem, law: str, weights: np.ndarray) -> np.ndarray:
    """Expected number of visits of every prefix, each response with a weight."""
    mass = np.exp(problem.log_prob(law)) * weights
    at = problem.free
    return np.bincount(
        problem.nodes[at], np.broadcast_to(mass[:, None], at.shape)[at], minlength=len(problem.node_prompt)
    )


def _sampled(term: Term, problem: TreeProblem, table: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    import torch

    own = _steps(problem, table)
    gap = _steps(problem, torch.as_tensor(problem.tables[term.other])) - own
    each = {"log_prob": own, "reverse_kl": gap**2 / 2, "forward_kl": torch.exp(gap) - 1 - gap}[term.base]
    mass = np.exp(problem.log_prob("behaviour")) * weights
    return (torch.as_tensor(mass)[:, None] * torch.where(torch.as_tensor(problem.free), each, 0.0)).sum()


def _of_responses(term: Term, problem: TreeProblem, table: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Functionals of the law of whole responses."""
    import array_api_compat.torch as xp
    import torch

    log_p = _steps(problem, table).sum(dim=1)
    reward, length = problem.reward, problem.length
    if term.base in ("max_at_k", "pass_at_k"):
        return _max_at_k(problem, torch.exp(log_p), int(term.numbers["k"]), weights, 1.0)
    if term.base == "min_at_k":
        return -_max_at_k(problem, torch.exp(log_p), int(term.numbers["k"]), weights, -1.0)
    simple: dict[str, Callable[[], Any]] = {
        "reward": lambda: reward - _baseline(problem) if term.mean or "ended" in term.flags else reward,
        "reward_per_token": lambda: (reward - problem.success()[problem.prompt]) / length,
        "reward_over_length": lambda: reward / length,
        "win_rate": lambda: _wins(problem),
        "log_ref": lambda: np.maximum(problem.log_prob("ref"), -1e300),
        "length": lambda: length,
        "inverse_length": lambda: 1.0 / length,
    }
    if term.base in simple:
        return (torch.as_tensor(weights * simple[term.base]()) * torch.exp(log_p)).sum()
    each = torch.as_tensor(weights)
    if term.base == "entropy":
        return -(each * torch.exp(log_p) * log_p).sum()
    log_q = torch.as_tensor(problem.log_prob(term.other))
    return (each * _divergence(xp, term, log_p, log_q)).sum()


def _wins(problem: TreeProblem) -> np.ndarray:
    """The chance to beat a response of the law that draws, less 1/2 (a tie counts half)."""
    p, r = np.exp(problem.log_prob("behaviour")), problem.reward
    same = problem.prompt[:, None] == problem.prompt[None]
    return np.asarray((same * np.sign(r[:, None] - r[None])) @ p / 2)


def _max_at_k(problem: TreeProblem, p: torch.Tensor, k: int, weights: np.ndarray, sign: float) -> torch.Tensor:
    """``sum_v v (F(v)^k - F(v-)^k)`` for every prompt, F the distribution function of ``sign`` times its reward."""
    import torch

    total = torch.zeros((), dtype=p.dtype)
    for i in range(len(problem.prompts)):
        rows = np.flatnonzero(problem.prompt == i)
        below = torch.zeros((), dtype=p.dtype)
        cumulated = torch.zeros((), dtype=p.dtype)
        reward = sign * problem.reward[rows]
        for value in np.unique(reward):
            cumulated = cumulated + p[rows[reward == value]].sum()
            total = total + float(weights[rows[0]] * value) * (cumulated**k - below)
            below = cumulated**k
    return total


def _pairs(term: Term, problem: TreeProblem, table: torch.Tensor, share: np.ndarray) -> torch.Tensor:
    """Over pairs of responses of one prompt, drawn by the behaviour law, the one with more reward chosen."""
    import torch

    h = _steps(problem, table).sum(dim=1) - torch.as_tensor(problem.log_prob("ref"))
    if "averaged" in term.flags:
        h = h / torch.as_tensor(problem.length)
    p, r = np.exp(problem.log_prob("behaviour")), problem.reward
    same = problem.prompt[:, None] == problem.prompt[None]
    # two draws, either of which may be the chosen one
    weight = 2 * p[:, None] * p[None] * (same & (r[:, None] > r[None])) * share[problem.prompt][:, None]
    chosen, rejected = np.nonzero(weight)
    gap = h[chosen] - h[rejected]
    beta = term.numbers["beta"]
    each = -torch.nn.functional.logsigmoid(beta * gap) if term.base == "dpo" else (gap - 1 / (2 * beta)) ** 2
    return (torch.as_tensor(weight[chosen, rejected]) * each).sum()


def _at_prefixes(term: Term, problem: TreeProblem, table: torch.Tensor) -> torch.Tensor:
    """Entropy or a divergence from the other law at every prefix, ``(prefixes,)``."""
    import array_api_compat.torch as xp
    import torch

    if term.base == "entropy":
        return -(torch.exp(table) * table).sum(dim=-1)
    other = torch.as_tensor(problem.tables[term.other])
    if "temperature" in term.numbers:
        other = torch.log_softmax(other / term.numbers["temperature"], dim=-1)
    if "mode" in term.flags:
        return -table.gather(-1, other.argmax(dim=-1, keepdim=True))[..., 0]
    if "top" in term.numbers:
        table, other = _top(term, table, other)
    if "top" in term.numbers and not {"tail", "renormalised"} & term.flags:
        return _plain_kl(term, table, other).sum(dim=-1)
    return _divergence(xp, term, table, other).sum(dim=-1)


def _top(term: Term, table: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both laws on the k most probable tokens, with the rest as one token, or conditioned on them."""
    import torch

    k = int(term.numbers["top"])
    if k > table.shape[-1]:
        raise ValueError(f"name: functional {term.name!r}: top={k} of a vocabulary of {table.shape[-1]}")
    ranked = table.detach() if term.of == "policy" else other
    chosen = ranked.topk(k, dim=-1).indices
    rest = torch.ones(table.shape, dtype=torch.bool).scatter(-1, chosen, False)
    out = []
    for x in (table, other):
        kept = x.gather(-1, chosen)
        if "tail" in term.flags:
            tail = torch.logsumexp(torch.where(rest, x, -torch.inf), dim=-1, keepdim=True)
            kept = kept if k == table.shape[-1] else torch.cat([kept, tail], dim=-1)
        elif "renormalised" in term.flags:
            kept = torch.log_softmax(kept, dim=-1)
        out.append(kept)
    return out[0], out[1]


def _plain_kl(term: Term, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """The terms ``p log(p/q)`` alone: laws that do not sum to 1 are not corrected for it."""
    import torch

    if term.base in ("reverse_kl", "kl"):
        return torch.exp(log_p) * (log_p - log_q)
    if term.base == "forward_kl":
        return torch.exp(log_q) * (log_q - log_p)
    raise ValueError(
        f"name: functional {term.name!r}: truncated to top= only KLs are defined; add tail or renormalised"
    )


def _divergence(xp: Any, term: Term, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """The summands of a divergence of the policy (``log_p``) from another law."""
    import torch

    if term.base in ("k2", "k2_ref"):
        return torch.exp(log_p if term.base == "k2" else log_q) * (log_p - log_q) ** 2 / 2
    kl = GENERATORS["kl"]
    if term.base == "jsd":
        w = term.numbers["weight"]
        mixed = torch.logaddexp(math.log(w) + log_q, math.log1p(-w) + log_p)
        return w * kl.term(xp, log_q, mixed) + (1 - w) * kl.term(xp, log_p, mixed)
    if term.base.startswith("skew_"):
        a = term.numbers["alpha"]
        first, second = (log_q, log_p) if term.base == "skew_forward_kl" else (log_p, log_q)
        mixed = second if a == 0 else first if a == 1 else torch.logaddexp(
            math.log(a) + first, math.log1p(-a) + second)  # fmt: skip
        return kl.term(xp, first, mixed)
    return GENERATORS[{"reverse_kl": "kl"}.get(term.base, term.base)].term(xp, log_p, log_q)


def functional_value(name: str | Functional, problem: TreeProblem | Sequence[PromptTree]) -> float:
    """The value of a named functional, see the module, or of an own one."""
    import torch

    problem = as_problem(problem)
    return float(_evaluate(name, problem, torch.as_tensor(problem.tables["policy"])))


def functional_gradient(name: str | Functional, problem: TreeProblem | Sequence[PromptTree]) -> np.ndarray:
    """Gradient of a functional in the tabular logits, ``(prefixes, V)``; mean over the prompts of a batch.

    Args:
        name: as in the module, e.g. ``"reverse_kl(teacher, frozen)"``; or a function of the problem and the policy's
            table of log-probabilities (torch).

    Raises:
        ValueError: an unknown name or option.
    """
    import torch

    problem = as_problem(problem)
    table = torch.tensor(problem.tables["policy"], dtype=torch.float64, requires_grad=True)
    value = _evaluate(name, problem, table)
    if not value.requires_grad:
        return np.zeros(table.shape)
    (gradient,) = torch.autograd.grad(value, table)
    return in_logits(gradient.numpy(), problem)


def _evaluate(name: str | Functional, problem: TreeProblem, table: torch.Tensor) -> torch.Tensor:
    import torch

    if isinstance(name, str):
        return _value(parse_term(name), problem, table)
    if not callable(name):
        raise TypeError(f"name: must be the name of a functional or a function, got {type(name).__name__}")
    value = _validate.function("name", name)(problem, table)
    if not isinstance(value, torch.Tensor) or value.ndim != 0:
        raise TypeError(f"name: functional {getattr(name, '__name__', name)!r}: must return a torch scalar")
    return value


def in_logits(gradient: np.ndarray, problem: TreeProblem, law: str = "policy") -> np.ndarray:
    """From a gradient in the log-probabilities to one in the logits: ``g - pi sum_a g``."""
    pi = np.exp(problem.tables[law])
    with np.errstate(invalid="ignore"):  # infinite gradients become NaN, which callers refuse
        return np.asarray(gradient - pi * gradient.sum(axis=-1, keepdims=True))


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

    Use enough problems: a small tree has only ``prefixes (V - 1)`` directions, which a few terms span. Entries of the
    gradients are at most 1e100 in size, so that their squares do not overflow.

    Raises:
        ValueError: no problem or term, numbers that do not match, an unknown term.
    """
    problems, gradients = _validate.sequence("problems", problems), _validate.sequence("gradients", gradients)
    terms = _validate.sequence("terms", terms)
    for i, term in enumerate(terms):
        if not isinstance(term, str) and not callable(term):
            raise TypeError(f"terms[{i}]: must be the name of a functional or a function, got {type(term).__name__}")
    if not problems or len(gradients) != len(problems) or not terms:
        raise ValueError(f"gradients: needs one for each problem, got {len(gradients)} for {len(problems)}; and a term")
    made = [as_problem(p, "problems") for p in problems]
    gradients = [_validate.numpy_arrays(gradients=g)[0] for g in gradients]
    for g, p in zip(gradients, made):
        if g.size != p.tables["policy"].size:
            _validate.fail("gradients", f"needs shape {p.tables['policy'].shape}, got {g.shape}")
        if np.abs(_validate.finite("gradients", np, g)).max() > 1e100:
            _validate.fail("gradients", "must be at most 1e100 in size")
    columns = np.stack([_column(f"terms[{i}]", term, made) for i, term in enumerate(terms)], axis=1)
    target = np.concatenate([np.asarray(g, dtype=float).ravel() for g in gradients])
    scale = np.linalg.norm(columns, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found, _, rank, _ = np.linalg.lstsq(columns / scale, target, rcond=1e-10)
    left = float(np.linalg.norm(target - columns / scale @ found))
    size = float(np.linalg.norm(target))
    nothing = size <= 1e-12 * float(scale.max())
    names = {term: 0.0 if nothing else float(c) for term, c in zip(terms, found / scale)}
    return Explanation(names, 0.0 if nothing else left / size, bool(rank == len(terms)))


def _column(argument: str, term: str | Functional, problems: Sequence[TreeProblem]) -> np.ndarray:
    """The gradients of a term on all problems, one after another."""
    try:
        return np.concatenate([functional_gradient(term, p).ravel() for p in problems])
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {str(error).removeprefix('name: ')}") from None
