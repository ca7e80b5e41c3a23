"""What a loss depends on besides the responses themselves: padding, order, other prompts, lengths, micro-batches."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klsim.audit.batches import AuditBatches
from klsim.audit.identify import EXACT, ZERO
from klsim.audit.worlds import WIDTH, Setting, World, world
from klsim.learning.expected_gradient import LossFunction, check_loss, one_batch

__all__ = [
    "LONGEST",
    "OTHERS",
    "REWARDS",
    "TOKENS",
    "Properties",
    "coupling",
    "in_loss",
    "properties",
    "reason",
    "unwarned",
]

LONGEST = "depends on the longest response of the batch"
"""Said of a loss whose gradient changes with the longest response of the batch."""
TOKENS = "depends on the number of tokens of the batch"
"""Said of a loss whose gradient changes with the number of tokens of the batch."""
CHOSEN = "depends on the number of chosen tokens of the batch"
REWARDS = "mixes prompts: the rewards of one act on another"
"""Said of a loss in which the rewards of one prompt change the gradient of another."""
OTHERS = "mixes prompts: the responses of one act on another"
"""Said of a loss in which the responses to one prompt change the gradient of another."""


@dataclass(frozen=True)
class Properties:
    """What a loss depends on.

    Attributes:
        masked: it reads masked positions. coupling: how one prompt's gradient depends on the other prompts of the
            batch, ``""`` if it does not. micro_batches: relative gap between the gradient of a batch of two prompts and
            the mean of those of its halves (0: gradient accumulation adds up).
        alone: what happens to groups of one. cut: what happens to responses that are masked altogether; ``""``: fine.
        trimmed: batches that are cut to their longest response give another gradient.
    """

    masked: bool = False
    coupling: str = ""
    micro_batches: float = 0.0
    alone: str = ""
    cut: str = ""
    trimmed: bool = False


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Frames outside klsim and the import system, the audited code's own before those of libraries."""
    inside = (str(Path(__file__).parents[1]), "<", str(Path(importlib.__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(inside)]
    own = [f for f in frames if "site-packages" not in f.filename]
    return [f for f in own if not f.filename.startswith(sys.prefix)] or own or frames


def in_loss(error: BaseException) -> bool:
    """Whether the audited code was running when it was raised (imports included)."""
    inside = str(Path(__file__).parents[1])
    seen = False  # below the first of klsim's frames, someone else's
    for frame in traceback.extract_tb(error.__traceback__):
        klsims = frame.filename.startswith(inside)
        seen |= klsims
        if seen and not klsims and not frame.filename.startswith(("<", str(Path(importlib.__file__).parent))):
            return True
    return False


def reason(error: BaseException) -> str:
    """An error in one line, with the place in the loss's own code where there is one."""
    own = _own_frames(error)
    file, line = (own[-1].filename, own[-1].lineno) if own else ("", 0)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    place = f" ({file}:{line})" if (file and in_loss(error)) or isinstance(error, SyntaxError) else ""
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}{place}" if place or not isinstance(error, ValueError) else text


def properties(loss: LossFunction, setting: Setting, *, pairs: bool = False) -> Properties:
    """Measure them; ``pairs``: of a loss that takes preference pairs only.

    Raises:
        ValueError: the loss is random, or depends on the order of responses.
    """
    here = world("two pairs" if pairs else "two prompts", setting)
    if pairs:
        _check_pairs(loss, here)
        return Properties(_reads_masked(loss, here), *coupling(loss, here))
    check_loss(loss, here.batches, setting.group, batches=3)
    check_loss(loss, world("lengths", setting).batches, setting.group, batches=3)
    return Properties(
        _reads_masked(loss, here),
        *coupling(loss, here),
        _alone(loss, setting),
        _cut(loss, setting),
        _trimmed(loss, setting),
    )


def _check_pairs(loss: LossFunction, here: World) -> None:
    """As `check_loss`: some pairs again, in another order, and with the other response first.

    Raises:
        ValueError: the loss is random, or depends on the order.
    """
    import torch

    for rows, _ in here.draws[:: max(len(here.draws) // 3, 1)]:
        first = one_batch(loss, here.batches, torch.tensor(rows))
        size = max(float(np.linalg.norm(first[0])), ZERO * here.unit)
        for rule, order in (("is random", rows), ("depends on the order of the responses", rows[::-1])):
            gap = one_batch(loss, here.batches, torch.tensor(order))[0] - first[0]
            if float(np.linalg.norm(gap)) > EXACT * size:
                raise ValueError(f"loss: {rule}")


def _reads_masked(loss: LossFunction, pair: World) -> bool:
    """Junk gets a gradient, or other junk gives another loss or gradient."""
    import torch

    other = AuditBatches(pair.problem, width=WIDTH, pairs=pair.batches.pairs, seed=1)
    with torch.no_grad():  # the values of real prefixes are the same, only the junk differs
        count = len(pair.problem.node_prompt)
        other.values[:count] = pair.batches.values[:count]
        other.old_values[:count] = pair.batches.old_values[:count]
    rng = np.random.default_rng(5)
    for k in rng.choice(len(pair.draws), min(8, len(pair.draws)), replace=False):
        rows = torch.tensor(pair.draws[k][0])
        (one, first), (two, second) = one_batch(loss, pair.batches, rows), one_batch(loss, other, rows)
        size = max(float(np.linalg.norm(one)), ZERO * pair.unit)
        if float(np.linalg.norm(pair.batches.junk(one))) > EXACT * size:
            return True
        gap = float(np.linalg.norm(pair.batches.logits(one) - other.logits(two)))
        if gap > EXACT * size or abs(first - second) > 1e-5 * abs(first) + 1e-7:
            return True
    return False


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Worlds that a loss need not support, without its warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def coupling(loss: LossFunction, pair: World) -> tuple[str, float]:
    """How the gradient at one prompt's prefixes depends on the other prompt's responses; the gap of micro-batches.

    Args:
        pair: a world of two prompts a batch.
    """
    import torch

    problem, made, size = pair.problem, pair.batches, pair.group_size
    chosen = np.random.default_rng(11).permutation(len(pair.draws))[:100]
    rows = [np.array(pair.draws[k][0]) for k in chosen]
    found = [made.logits(one_batch(loss, made, torch.tensor(r))[0]) for r in rows]
    scale = max(max(float(np.linalg.norm(g)) for g in found), EXACT * pair.unit)
    gap = 0.0
    for r, g in list(zip(rows, found))[:6]:
        halves = [made.logits(one_batch(loss, made, torch.tensor(part))[0]) for part in (r[:size], r[size:])]
        gap = max(gap, float(np.linalg.norm(g - (halves[0] + halves[1]) / 2)) / scale)
    keys: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "": lambda whole, other: 0,
        LONGEST: lambda whole, other: int(problem.length[whole].max()),
        TOKENS: lambda whole, other: int(problem.length[whole].sum()),
        CHOSEN: lambda whole, other: int(problem.length[_chosen(whole, problem.reward)].sum()),
        REWARDS: lambda whole, other: tuple(np.sort(problem.reward[other]).tolist()),
    }
    for name, key in keys.items():
        if name == CHOSEN and not made.pairs:
            continue
        if all(_determined(rows, found, problem.node_prompt == q, size, q, key, scale) for q in (0, 1)):
            return name, gap if gap > EXACT else 0.0
    return OTHERS, gap


def _chosen(rows: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """The row with more reward of every pair."""
    return np.where(reward[rows[::2]] > reward[rows[1::2]], rows[::2], rows[1::2])


def _determined(
    rows: list[np.ndarray],
    found: list[np.ndarray],
    at: np.ndarray,
    size: int,
    prompt: int,
    key: Callable[[np.ndarray, np.ndarray], object],
    scale: float,
) -> bool:
    """Whether the gradient of one prompt is a function of its own responses and of a key of the others."""
    seen: dict[object, np.ndarray] = {}
    for whole, gradient in zip(rows, found):
        halves = (whole[:size], whole[size:])
        own, other = halves[prompt], halves[1 - prompt]
        first = seen.setdefault((tuple(own.tolist()), key(whole, other)), gradient[at])
        if float(np.linalg.norm(gradient[at] - first)) > EXACT * scale:
            return False
    return True


def _alone(loss: LossFunction, setting: Setting) -> str:
    """Groups of one."""
    here = world("groups of one", setting)
    nothing = AuditBatches(here.problem.with_rewards(np.zeros(len(here.problem.reward))), width=WIDTH)
    try:
        with unwarned():
            gap = here.gradient(loss) - World("no reward", nothing, here.draws).gradient(loss)
    except Exception as error:
        text = str(error)
        return "not finite" if "its gradient is" in text or "NaN" in text else f"refused: {reason(error)}"
    if float(np.linalg.norm(gap)) <= ZERO * here.unit:
        return "the reward does not act"
    column = here.column("reward")
    scale = float(gap @ column) / float(column @ column)
    exact = float(np.linalg.norm(gap - scale * column)) < EXACT * float(np.linalg.norm(gap))
    return f"the reward enters without a baseline{f' ({scale:+.3g} reward)' if exact else ''}"


def _cut(loss: LossFunction, setting: Setting) -> str:
    """Responses whose every position is masked."""
    if setting.equal:
        return ""
    here = world("cut responses masked", setting)
    try:
        with unwarned():
            gradient = here.gradient(loss)
    except Exception as error:
        finite = "its gradient is" not in str(error)
        return f"refused: {reason(error)}" if finite else "not finite: a mean over no tokens divides by 0"
    size = max(float(np.linalg.norm(gradient)), ZERO * here.unit)
    return "read although masked" if float(np.linalg.norm(here.batches.junk(gradient))) > EXACT * size else ""


def _trimmed(loss: LossFunction, setting: Setting) -> bool:
    """Whether cutting batches to their longest response changes the gradient."""
    if setting.equal:
        return False
    cut = world("trimmed", setting)
    whole = World("whole", AuditBatches(cut.problem, width=WIDTH), cut.draws)
    try:
        uncut = whole.gradient(loss)
    except Exception:  # reported where the loss is evaluated at all
        return False
    try:
        gap = cut.batches.logits(cut.gradient(loss) - uncut)
    except Exception:  # it asks for the padded width
        return True
    return float(np.linalg.norm(gap)) > EXACT * cut.unit
