"""Every public callable of klsim, found by inspection, called with legal, nearly legal and absurd arguments.

The contract: a right answer (no NaN), a documented infinity, or a ValueError or TypeError that names an argument; the
caller's arrays are left alone. A call is a function of its number: a failure prints the target and the number, and
`replay` makes it again.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import resource
import signal
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

import klsim
from klsim import _validate, learning, objectives
from klsim.best_of_n import RewardLaw
from klsim.divergences import GENERATORS, Alpha
from klsim.memoryless import MarkovSource, MemorylessSource
from klsim.objectives.registry import OBJECTIVES
from klsim.problems import (
    Bandit,
    DiscountedMDP,
    LinearMDP,
    PromptBandit,
    TabularMDP,
    TokenTree,
    sample_transitions,
)
from klsim.problems.masked_diffusion import from_joint

PACKAGES_LEFT_OUT = {
    "claims": "takes functions and spaces of claims, not numbers; its own tests",
    "spaces": "strategies over problems; its own tests",
    "audit": "takes loss implementations; its own tests",
    "frontier": "reads files; its own tests",
    "lm": "takes language models; its own tests",
    "report": "writes pages",
    "cli": "the command line",
    "commands": "the command line",
    "files": "writes files",
    "parallel": "takes tasks, not numbers; its own tests",
    "testing": "assertions for other test suites; its own tests",
    "kernels": "trust their input by design: no door",
}
LEFT_OUT = {
    **dict.fromkeys(
        (
            "learning.expected_gradient.Batches",
            "learning.expected_gradient.check_loss",
            "learning.expected_gradient.enumerate_batches",
            "learning.expected_gradient.one_batch",
            "learning.expected_gradient.sum_batches",
            "learning.functionals.in_logits",
            "learning.identification.distinct_columns",
            "learning.identification.smallest_combination",
            "learning.prompt_trees.as_problem",
            "learning.tree_batches.TreeBatches",
            "learning.tree_batches.scalar_loss",
            "learning.tree_batches.with_metrics",
            "planning.average.closed_classes",
            "planning.average.gain_and_bias",
            "planning.average.solve_average",
            "planning.chains.Chain",
            "planning.chains.action_chain",
            "planning.chains.expected_next",
            "planning.chains.inflow",
            "planning.chains.policy_chain",
            "planning.discounted.SoftBellman",
            "planning.discounted.solve_discounted",
            "planning.solution.reference",
            "planning.solution.require_finite_values",
            "planning.solution.soft_backup",
            "problems.transition_rows.numpy_only",
            "problems.transition_rows.probabilities",
            "problems.transition_rows.sparse_rows",
            "problems.transition_rows.successor_rows",
        ),
        "inner parts of planning and of the gradient checker: called with checked input",
    ),
    **dict.fromkeys(
        (
            "objectives.registry.names.fields_needed",
            "objectives.registry.names.from_text",
            "objectives.registry.names.named",
            "objectives.registry.names.near",
            "objectives.registry.objective.summed",
            "objectives.registry.resolve",
            "objectives.selection.choose",
        ),
        "takes names and texts; its own tests",
    ),
}
"""Shrinks: a name leaves this table when its door is done."""
SECONDS = 60  # of CPU: no call of this size may take as long
MEMORY = 4 * 2**30  # bytes that no call may map


def public_modules() -> Iterator[types.ModuleType]:
    """The modules with a door, in order of their names."""
    for found in pkgutil.walk_packages(klsim.__path__, "klsim."):
        parts = found.name.split(".")[1:]
        if parts[0] not in PACKAGES_LEFT_OUT and not any(part.startswith("_") for part in parts):
            yield importlib.import_module(found.name)


def is_record(kind: type) -> bool:
    """A dataclass or named tuple that checks nothing because the library makes it: what a function returned."""
    if issubclass(kind, tuple):
        return True
    return dataclasses.is_dataclass(kind) and not hasattr(kind, "__post_init__") and kind is not Alpha


def targets(*, left_out: bool = False) -> dict[str, Callable[..., Any]]:
    """Name -> callable: public functions, constructors that check, and public methods of the instances below."""
    out: dict[str, Callable[..., Any]] = {}
    for module in public_modules():
        short = module.__name__.removeprefix("klsim.")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if getattr(thing, "__module__", None) != module.__name__:
                continue  # defined, and found, elsewhere
            if inspect.isfunction(thing) or (
                inspect.isclass(thing) and not inspect.isabstract(thing) and not is_record(thing)
            ):
                out[f"{short}.{name}"] = thing
    for instance in INSTANCES:
        kind = type(instance)
        for name, member in inspect.getmembers(kind):
            interior = inspect.isfunction(member) and "xp" in inspect.signature(member).parameters  # of validated input
            if not name.startswith("_") and inspect.isfunction(member) and not interior:
                out[f"{kind.__module__.removeprefix('klsim.')}.{kind.__name__}.{name}"] = getattr(instance, name)
    return {name: call for name, call in sorted(out.items()) if left_out or name not in LEFT_OUT}


def _log(*weights: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(weights) / np.sum(weights))


def _levels(seed: int, vocab: int = 2, horizon: int = 2) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    logits = [rng.standard_normal((vocab**t, vocab)) for t in range(horizon)]
    return tuple(x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in logits)


def _vocab(seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((2, 3, 4))
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def _batch(seed: int = 0, torch_too: bool = False) -> objectives.TokenBatch:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 4, (2, 3))
    tables = {name: _vocab(seed + i) for i, name in enumerate(("", "old_", "ref_", "teacher_"))}
    fields: dict[str, Any] = {f"{name}vocab_log_probs": table for name, table in tables.items()}
    for name, table in tables.items():
        fields[f"{name}log_probs"] = np.take_along_axis(table, words[..., None], axis=-1)[..., 0]
    fields |= {"tokens": words, "rewards": np.array([1.0, 0.0]), "group": np.array([0, 0])}
    fields |= {"mask": np.array([[True, True, True], [True, True, False]]), "external": np.array([True, False])}
    if torch_too:
        fields = {name: torch.as_tensor(x) for name, x in fields.items()}
    return objectives.TokenBatch(**fields)


BANDIT = Bandit(_log(1, 2, 3), np.array([0.0, 1.0, 2.0]))
TREE = TokenTree(2, 2, np.array([0.0, 1.0, 0.0, 1.0]))
ENDED = TokenTree(2, 2, np.array([0.0, 1.0, 0.0, 1.0]), eos=0)
MDP = TabularMDP(np.full((2, 2, 2), 0.5), np.array([[0.0, 1.0], [1.0, -1.0]]), np.array([0.5, 0.5]), horizon=2)
DISCOUNTED = DiscountedMDP(np.full((2, 2, 2), 0.5), np.array([[0.0, 1.0], [1.0, -1.0]]), 0.9, np.array([0.5, 0.5]))
SPARSE = DiscountedMDP(
    scipy.sparse.csr_array(np.eye(4)[:, ::2] + np.eye(4)[:, 1::2]),
    np.array([[0.0, 1e-320], [1e300, -1e8]]),
    1 - 1e-9,
    np.array([1.0, 0.0]),
)
LINEAR = LinearMDP(np.full((2, 2, 2), 0.5), np.full((2, 2, 2), 0.5), np.ones((2, 2)), np.array([0.5, 0.5]))
MODEL = from_joint(_log(1, 2, 3, 4), 2, 2)
PROMPTS = PromptBandit(np.zeros((2, 3)), np.eye(2, 3), np.eye(2))
SOURCE = MemorylessSource(_log(1, 2, 3), np.array([0.0, 1.0, 3.0]))
CHAIN = MarkovSource([[0.8, 0.2], [0.5, 0.5]], [[0.0, 2.0], [1.0, 3.0]], [0.7, 0.3])
PROMPT = learning.PromptTree(ENDED, _levels(0), _levels(1), _levels(2))
PROBLEM = learning.TreeProblem([PROMPT])
LAW = RewardLaw(np.array([0.0, 1.0, 2.0]), _log(1, 2, 1))
CONFIG = learning.SimulatorConfig(tokens=20, correct=5)
DATA = sample_transitions(MDP, 4, 0)
INSTANCES = (
    BANDIT, TREE, ENDED, MDP, DISCOUNTED, LINEAR, MODEL, PROMPTS, SOURCE, CHAIN, PROMPT, PROBLEM, LAW, CONFIG, DATA,
    _batch(), GENERATORS["kl"], GENERATORS["chi2"], GENERATORS["js"], GENERATORS["tv"], Alpha(1.5), learning.SGD(0.1),
    learning.Adam(0.1), learning.NaturalGradient(0.1), objectives.AdaptiveThreshold(),
)  # fmt: skip

LOG = _log(1, 2, 3)
LEGAL: dict[str, tuple[Any, ...]] = {
    "log": (LOG, _log(3, 0, 1), _log(1e-300, 1, 1), np.stack([LOG, LOG[::-1]]), _log(1.0), _log(1, 1)),
    "numbers": (np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, -1.0]), np.ones(3), np.array([1e300, 0.0, -1e300]),
                np.array([1e-320, 0, 1.0]), np.array([0.0, 1.0])),
    "scalar": (1.0, 0.5, 0.1, 1e-9, 1e9, 2, 1e300, 1e-300, np.float64(0.3), np.float32(2.0), np.array([0.5, 2.0])),
    "share": (0.5, 0.9, 0.1, 1e-12, 1 - 1e-12, 0.0, 1.0),
    "count": (1, 2, 3, 5, np.int64(4)),
    "levels": (_levels(0), _levels(1), list(_levels(2)), tuple(x[None] for x in _levels(3))),
    "mask": (np.array([True, False, True]), np.array([True, True]), np.array([False, True, False])),
    "batch": (_batch(0), _batch(1), _batch(2, torch_too=True)),
    "vocab": (_vocab(0), torch.as_tensor(_vocab(1))),
    "pair": ((0.2, 0.2), (0.2, 0.28), (0.0, np.inf)),
    "rng": (0, 7, np.random.default_rng(3)),
    "flag": (True, False),
    "group": (np.array([0, 0, 0]), np.array([0, 0, 1, 1]), np.array([0, 0])),
    "token_values": (np.ones((2, 3)), np.zeros((2, 3)), -np.ones((2, 3))),
}  # fmt: skip
KINDS = {
    "log_p": "log", "log_q": "log", "log_ref": "log", "log_policy": "log", "logits": "log", "log_prob": "log",
    "x": "numbers", "reward": "numbers", "rewards": "numbers", "value": "numbers", "values": "numbers", "t": "numbers",
    "y": "numbers", "advantage": "numbers", "log_ratio": "numbers", "weights": "numbers", "correct": "mask",
    "event": "mask", "sampled": "mask", "levels": "levels", "other": "levels", "batch": "batch", "clip": "pair",
    "vocab_log_probs": "vocab", "rng": "rng", "seed": "count", "group": "group", "lam": "share", "discount": "share",
    "level": "share", "mix": "share", "confidence": "share", "success": "share", "floor": "share", "kappa": "share",
    "n": "count", "k": "count", "c": "count", "m": "count", "size": "count", "count": "count", "horizon": "count",
    "vocab": "count", "length": "count", "steps": "count", "rollouts": "count", "runs": "count", "group_size": "count",
}  # fmt: skip
BY_NAME: dict[str, tuple[Any, ...]] = {
    "generator": (*GENERATORS, *GENERATORS.values(), Alpha(3.0)), "problem": (DISCOUNTED, SPARSE, MDP, BANDIT, TREE, PROBLEM),
    "law": (LAW,), "model": (MODEL,), "tree": (TREE, ENDED), "prompts": ([PROMPT], [PROMPT, PROMPT]),
    "problems": ([PROBLEM], [PROBLEM, PROBLEM]), "config": (CONFIG,), "data": (DATA, np.full((2, 2), 0.25)),
    "log_policies": ([LOG, _log(3, 2, 1)], (LOG,)), "eos": (0, 1, None), "baseline": ("mean", "none", "leave_one_out", 0.5),
    "scale": ("none", "std", objectives.group_std), "credit": ("token", "to_go", "sequence", "target"),
    "optimiser": ("adamw", "sgd", learning.SGD(0.1), learning.Adam(0.1)), "counts": (np.array([1, 0, 2]), np.array([2, 2, 2])),
    "name": ("reward", "entropy", "reverse_kl", "js@0(teacher, frozen)", "length"), "terms": (("reward",), ["entropy", "reward"]),
    "objective": (min(OBJECTIVES.values(), key=lambda o: (not o.optimum, o.where != "one token", o.group_size, o.prompts)),),
    "loss": (objectives.grpo, objectives.reinforce), "answer": ((0, 1), [1, 1]), "rule": ("random", "entropy", (1, 0)),
    "prefix": ((), (0,), (1,)), "aggregate": (objectives.token_mean, objectives.sequence_mean),
    "optimizer": (learning.SGD(0.1),), "gradients": ([np.zeros((2, 2))],), "policy": (np.zeros((2, 2), int),),
    "estimator": (objectives.advantages, "k2", "k3"), "log_joint": (_log(1, 2, 3, 4),), "log_sequence": (_log(1, 2, 3, 4),),
    "log_prob": (_log(1, 2), -1.0, -50.0), "seeds": ([0], [0, 1]), "record": ((), (1,)), "masks": (np.ones((3, 2), bool),),
    "transition": (np.full((2, 2), 0.5), np.full((2, 2, 2), 0.5)), "initial": (np.array([0.5, 0.5]),),
    "token_reward": (_levels(4), None), "log_teacher": (_levels(5), None), "log_behaviour": (None, LOG, _levels(6)),
    "log_n": (0.0, 1.0, 300.0, 1e-16), "state": (None, learning.SimulatorState.start(CONFIG)), "table": (PROBLEM.tables["ref"],),
    "features": (np.full((2, 2, 2), 0.5), np.eye(2)), "factors": (np.full((2, 2, 2), 0.5),), "theta": (np.ones((2, 2)),),
    "base_logits": (np.zeros((2, 3)),), "end": (PROBLEM,), "form": ("score", "backprop"), "by": ("advantage", "correct"),
    "teachers": ([LOG, LOG],), "tokens": (np.array([[0, 1, 2], [3, 0, 1]]), 20), "lengths": (np.array([1.0, 2.0, 3.0]),),
    "sequence": (np.array([0, 1]),), "policies": (np.zeros((2, 2), int),), "elbo": (np.zeros((2, 3)),),
    "old_elbo": (np.zeros((2, 3)),), "gradient": (np.zeros(3),), "log_other": (_log(1, 1, 1),),
    "q_value": (np.zeros((2, 2, 2)), np.array([1e300, -1e300])), "allowed": (np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)),
    "inverse": (np.eye(2), np.eye(3)), "next_value": (np.array([0.0, 1.0]), np.array([1e300, -1e300])),
    "divergence": ("none", "tv", "kl", "chi2"), "log_base": (None, np.full((2, 2), -np.log(2))), "states": (2, 3), "actions": (2, 1),
    "method": ("policy_iteration", "value_iteration"), "regularizer": ("kl", "entropy"), "visitation": (np.full((2, 2), 0.25),),
}  # fmt: skip
SMALL = {
    "steps",
    "record",
    "batch_size",
    "runs",
    "samples",
    "max_batches",
    "seeds",
    "rollouts",
    "external",
    "group_size",
}


def _refuses(*_: Any) -> None:
    """A caller's function: what it raises is the caller's."""
    raise TypeError("aggregate: the caller's own error")


def _absurd() -> tuple[Any, ...]:
    masked = np.ma.masked_array([0.1, 0.9], mask=[True, False])
    grad = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    return (
        np.nan, np.inf, -np.inf, 0.0, -0.0, -1, 0, 1e308, -1e308, 1e-320, 5e-324, 10**9, 2**70, 10**400, -(10**400), True,
        None, "2", b"0.9", "", 1j, object(), {}, [], (), set(), [[1.0], [1.0, 2.0]], np.array([]), np.zeros((2, 0)),
        np.zeros((2, 2, 2)), np.array([np.nan, 0.0, 1.0]), np.array([-np.inf, -np.inf]), np.array([np.inf, 0.0]),
        np.array([1e308, -1e308, 1e308]), np.array(["a", "b"]), np.array([1j, 2.0]), np.array([object()]),
        np.array(["2020-01-01"], dtype="datetime64[D]"), masked, np.ma.masked_array(LOG, mask=[0, 1, 0]), pd.Series(LOG),
        pd.Series(["a"]), pd.Series([1, None, 2]), pd.DataFrame({"a": [0.0, 1.0]}), LOG.astype(np.float16),
        LOG.astype(np.float32), LOG.astype(np.longdouble), np.array([1, 2, 3]), np.array([1, 2, 3], dtype=np.uint8),
        np.array(3), np.array(0.5), [10**400, 1], [2**70, 1, 0], torch.as_tensor(LOG), torch.as_tensor(LOG).half(),
        torch.as_tensor(LOG).bfloat16(), torch.tensor([1, 2, 3]), torch.tensor([True, False, True]), grad, torch.tensor(0.5),
        torch.tensor([1j]), torch.tensor(2), [torch.tensor(0.5), 0.5], scipy.sparse.eye(2, format="csr"), int, _refuses,
        np.random.default_rng(0), BANDIT, TREE, LOG.tolist(), [LOG, LOG], range(3), iter([1, 2]), np.float16(0.5), slice(None),
    )  # fmt: skip


def value_for(name: str, parameter: inspect.Parameter, rng: np.random.Generator) -> Any:
    """A value for one argument: half of them legal by its name, the rest anything."""
    draw = rng.random()
    legal: tuple[Any, ...] = BY_NAME.get(name, ()) or LEGAL[KINDS.get(name, "scalar")]
    if draw < 0.5 or name in SMALL:
        return legal[rng.integers(len(legal))]
    if draw < 0.7:
        pool = LEGAL[list(LEGAL)[rng.integers(len(LEGAL))]]
        return pool[rng.integers(len(pool))]
    if draw < 0.75 and parameter.default is not parameter.empty:
        return parameter.default
    absurd = _absurd()
    return absurd[rng.integers(len(absurd))]


def arguments_for(call: Callable[..., Any], rng: np.random.Generator) -> dict[str, Any]:
    """Arguments for one call, by name; options are given half of the time."""
    out = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty or name in SMALL or rng.random() < 0.4:
            out[name] = value_for(name, parameter, rng)
    return out


def _numbers(value: Any, depth: int = 0) -> Iterator[np.ndarray]:
    """Every floating array in a result."""
    if isinstance(value, torch.Tensor):
        yield value.detach().double().numpy() if value.dtype.is_floating_point else np.zeros(0)
    elif isinstance(value, np.ndarray | np.generic | float | complex):
        array = np.asarray(value)
        yield array.astype(complex) if array.dtype.kind in "fc" else np.zeros(0)
    elif depth < 4 and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _numbers(getattr(value, field.name), depth + 1)
    elif depth < 4 and isinstance(value, dict):
        yield from itertools.chain.from_iterable(_numbers(x, depth + 1) for x in value.values())
    elif depth < 4 and isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(_numbers(x, depth + 1) for x in value)


def _bytes(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.asarray(value).tobytes()
    if isinstance(value, torch.Tensor):
        return repr(value.detach().tolist())
    if isinstance(value, list | tuple):
        return [_bytes(x) for x in value]
    return None


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s of CPU")


def violation(name: str, call: Callable[..., Any], seed: int) -> str | None:
    """What is wrong with call number ``seed`` of a target; None if the contract holds."""
    rng = np.random.default_rng([seed, *name.encode()])
    arguments = arguments_for(call, rng)
    before = {key: _bytes(value) for key, value in arguments.items()}
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    found = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(
                **{key: copy.copy(v) if isinstance(v, np.random.Generator) else v for key, v in arguments.items()}
            )
            if isinstance(result, Iterator):
                result = list(itertools.islice(result, 100))
    except (ValueError, TypeError) as error:
        if not names_an_argument(str(error), [*inspect.signature(call).parameters, *_fields(call, arguments)]):
            found = f"names no argument: {type(error).__name__}: {str(error)[:200]}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found = f"{type(error).__name__}: {str(error)[:200]}"
    else:
        if any(np.isnan(array).any() for array in _numbers(result)):
            found = "NaN"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    changed = [key for key, value in arguments.items() if _bytes(value) != before[key]]
    found = f"changed {changed}" if changed and found is None else found
    return None if found is None else f"{name} #{seed}: {found}\n    with {_shown(arguments)}"


def names_an_argument(message: str, names: Sequence[str]) -> bool:
    """Whether a name stands in the message as a word that something is said of: ``n: …``, ``n (log_n): …``, ``n = 3``, ``n[0]``."""
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?=:| = | \(|\[)", message) for name in names)


def _fields(call: Callable[..., Any], arguments: dict[str, Any]) -> list[str]:
    """Of the record that a method belongs to, and of those among the arguments."""
    records = [getattr(call, "__self__", None), *arguments.values()]
    return [field.name for x in records if dataclasses.is_dataclass(x) for field in dataclasses.fields(x)]


def _shown(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={repr(value)[:120]}" for key, value in arguments.items())


def shown_call(name: str, call: Callable[..., Any], seed: int) -> str:
    """The arguments of one call."""
    return _shown(arguments_for(call, np.random.default_rng([seed, *name.encode()])))


def replay(name: str, seed: int) -> str | None:
    """One call again."""
    return violation(name, targets()[name], seed)


def fuzz(calls: int, size: int = 2**24) -> tuple[int, list[str]]:
    """``(calls made, violations)``: every target in turn until there were ``calls``.

    Sizes that a call may take are lowered to ``size`` bytes, so that what is let in is quick.
    """
    found, made = [], 0
    limit, _validate.LARGEST = _validate.LARGEST, size
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, memory[1]))  # more is a MemoryError: a violation
    try:
        every = targets()
        for seed in itertools.count():
            for name, call in every.items():
                if made >= calls:
                    return made, found
                made += 1
                problem = violation(name, call, seed)
                if problem is not None:
                    found.append(problem)
    finally:
        _validate.LARGEST = limit
        resource.setrlimit(resource.RLIMIT_AS, memory)
    return made, found


def _address_space() -> int:
    """Bytes that this process has mapped."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 2**40
