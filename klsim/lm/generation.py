"""Completions of prompts, token by token, and their log-probabilities: what evaluation and rollouts share.

A completion ends with an end-of-sequence token, which belongs to it, or after ``max_new_tokens``. Prompts are padded on
the left; nothing that a checkpoint's ``generation_config`` sets (top-k, top-p, penalties) is used but its ends, so that
samples follow the model's law at the temperature, and their log-probabilities are those of that law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from klsim import _validate
from klsim.estimators import k3
from klsim.lm.chat import as_completion, problem_of_prompt, rendered
from klsim.lm.log_probs import token_log_probs
from klsim.lm.models import check_characters
from klsim.lm.table import evaluating

__all__ = [
    "Drawn",
    "Generated",
    "Sampling",
    "draw",
    "generate",
    "graded",
    "joined",
    "seeded",
    "texts_of",
    "without_dropout",
]

Row = dict[str, Any]
Reward = Callable[..., Sequence[float]]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        samples: completions of each prompt. max_new_tokens: of a completion, at most. temperature: > 0, divides the
            logits. seed: of all random numbers. batch_size: sequences at a time; it orders the random numbers.

    Raises:
        ValueError, TypeError: one that is out of range.
    """

    samples: int
    max_new_tokens: int
    temperature: float
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        for name, low in (("samples", 1), ("max_new_tokens", 1), ("seed", 0), ("batch_size", 1)):
            object.__setattr__(self, name, _validate.integer(name, getattr(self, name), low=low))
        temperature = _validate.real("temperature", self.temperature, low=0.0, high=1e6, open_low=True)
        object.__setattr__(self, "temperature", temperature)


@dataclass(frozen=True)
class Generated:
    """Prompts, padded on the left, and completions, padded on the right.

    Attributes:
        ids, attention: ``(B, P + T)``. mask: ``(B, T)``, the completion up to and with its end-of-sequence token.
        finished: ``(B,)``, whether it has one.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    mask: torch.Tensor
    finished: torch.Tensor

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Completions without the end; other special tokens stay visible, so that no verifier overlooks them."""
        width = self.mask.shape[1]
        out = []
        for ids, length, finished in zip(self.ids[:, -width:], self.mask.sum(dim=1), self.finished):
            kept = ids[: int(length) - int(finished)].tolist()
            out.append(str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)))
        return out


@dataclass(frozen=True)
class Drawn:
    """Sampled completions ``y`` and what they say; every array is ``(completions,)``, float64, sums over their tokens.

    Attributes:
        completions: the texts. tokens: how many, the end of the sequence included. finished: whether it was reached.
        entropy: of the next-token laws. log_policy: ``log pi(y)``. log_ratio, k3: name of another model q ->
            ``sum_t x_t`` and ``sum_t exp(-x_t) - 1 + x_t`` with ``x_t = log pi(y_t) - log q(y_t)``.
    """

    completions: list[str]
    tokens: np.ndarray
    finished: np.ndarray
    entropy: np.ndarray
    log_policy: np.ndarray
    log_ratio: Mapping[str, np.ndarray]
    k3: Mapping[str, np.ndarray]


def texts_of(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], name: str = "rows") -> list[str]:
    """What the model reads for the prompt of every row, see `klsim.lm.chat.rendered`.

    Raises:
        ValueError: no prompt or one that is neither text nor messages, other columns than the first row's, characters
            without a token, or what the chat template refuses; names ``name[i]``.
    """
    for i, row in enumerate(rows):
        if problem := problem_of_prompt(row.get("prompt")):
            raise ValueError(f"{name}[{i}]: its prompt {problem}")
        if row.keys() != rows[0].keys():
            raise ValueError(f"{name}[{i}]: has the columns {', '.join(row)}, row 0 {', '.join(rows[0])}")
    texts = rendered(tokenizer, [row["prompt"] for row in rows])
    check_characters(tokenizer, texts, "prompts")
    return texts


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: Any
) -> Generated:
    """One completion of each text; ``options`` are those of transformers' ``GenerationConfig``."""
    inputs = tokenizer(list(texts), padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
    prompt, attention = inputs["input_ids"].to(model.device), inputs["attention_mask"].to(model.device)
    own = model.generation_config
    chat = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    stops = sorted({int(i) for i in [tokenizer.eos_token_id, *chat] if i is not None})
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        **options, pad_token_id=tokenizer.pad_token_id, eos_token_id=stops, use_cache=True
    )
    # what a checkpoint sets (Qwen: top_k, top_p, a repetition penalty) would fill every gap of ours
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        with torch.no_grad():
            ids = model.generate(prompt, attention_mask=attention, generation_config=config)  # type: ignore[operator]
    finally:
        model.generation_config = own
    ends = torch.isin(ids[:, prompt.shape[1] :], torch.tensor(stops, device=ids.device))
    mask = (ends.cumsum(dim=1) - ends.long()) == 0
    return Generated(ids, torch.cat([attention, mask.to(attention.dtype)], dim=1), mask, ends.any(dim=1))


def draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    others: Mapping[str, PreTrainedModel],
    sampling: Sampling,
) -> Drawn:
    """A batch: one sampled completion of each text, with its log-probabilities under the model and the ``others``.

    The random numbers are those of the global generator (see `seeded`); the modes of the models are left as they are.
    """
    made = generate(
        model, tokenizer, texts, max_new_tokens=sampling.max_new_tokens, do_sample=True,
        temperature=sampling.temperature, top_k=0, top_p=1.0,
    )  # fmt: skip
    keep = made.mask.cpu().numpy()
    log_policy, entropy = _log_probs(model, made, sampling.temperature)
    ratios = {
        name: np.where(keep, log_policy - _log_probs(other, made, sampling.temperature)[0], 0.0)
        for name, other in others.items()
    }
    return Drawn(
        completions=made.texts(tokenizer),
        tokens=np.asarray(keep.sum(axis=1), dtype=np.float64),
        finished=np.asarray(made.finished.cpu(), dtype=np.float64),
        entropy=np.where(keep, entropy, 0.0).sum(axis=1),
        log_policy=np.where(keep, log_policy, 0.0).sum(axis=1),
        log_ratio={name: ratio.sum(axis=1) for name, ratio in ratios.items()},
        k3={name: k3(ratio).sum(axis=1) for name, ratio in ratios.items()},
    )


def joined(parts: Sequence[Drawn]) -> Drawn:
    """Several batches with the same other models as one."""

    def whole(of: Callable[[Drawn], np.ndarray]) -> np.ndarray:
        return np.concatenate([of(part) for part in parts])

    names = list(parts[0].log_ratio)
    return Drawn(
        completions=[text for part in parts for text in part.completions],
        tokens=whole(lambda d: d.tokens),
        finished=whole(lambda d: d.finished),
        entropy=whole(lambda d: d.entropy),
        log_policy=whole(lambda d: d.log_policy),
        log_ratio={name: whole(lambda d, n=name: d.log_ratio[n]) for name in names},  # type: ignore[misc]
        k3={name: whole(lambda d, n=name: d.k3[n]) for name in names},  # type: ignore[misc]
    )


def graded(reward: Reward, rows: Sequence[Row], completions: Sequence[str], repeats: int = 1) -> np.ndarray:
    """Rewards ``(len(rows) * repeats,)`` of ``repeats`` completions of each row, in TRL's convention: the answer to
    messages is a list of one assistant message.

    Raises:
        ValueError: not one finite number a completion.
    """
    columns = {name: [row[name] for row in rows for _ in range(repeats)] for name in rows[0]}
    prompts = columns.pop("prompt")
    given = [as_completion(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
    found = list(reward(prompts=prompts, completions=given, **columns))
    if len(found) != len(completions):
        raise ValueError(f"reward: gave {len(found)} rewards for {len(completions)} completions")
    for i, value in enumerate(found):
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            _validate.fail("rewards", "must be finite numbers", value, (i,))
    return np.asarray(found, dtype=np.float64)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """The generators that ``device`` draws from, seeded, and put back as they were.

    `torch.manual_seed` would seed every device's.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def without_dropout(*models: PreTrainedModel) -> Iterator[None]:
    """All models in evaluation mode; afterwards they are in the mode that they were in."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model))
        yield


def batches(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    """The texts, ``size`` at a time."""
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _log_probs(model: PreTrainedModel, made: Generated, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the completion's tokens and entropies before them, each ``(B, T)``, float64."""
    with torch.no_grad():
        ids, attention = made.ids.to(model.device), made.attention.to(model.device)
        found = token_log_probs(model, ids, attention, completion=made.mask.shape[1], temperature=temperature)
    return found.log_probs.double().cpu().numpy(), found.entropy.double().cpu().numpy()
