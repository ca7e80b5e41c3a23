r"""What a model does on a task: accuracy, pass@k, lengths, entropy, and KL to other models.

Completions ``y`` of a prompt are drawn token by token from the policy at a temperature, until an end-of-sequence token
(which belongs to ``y``) or ``max_new_tokens``. Per prompt the averages over its samples are taken, and then the mean
over prompts with its interval: intervals speak of new prompts of the same law. With ``x_t = log pi(y_t) - log q(y_t)``

.. math:: KL(\pi\|q) = E\Big[\sum_t x_t\Big]\ (k_1) = E\Big[\sum_t e^{-x_t} - 1 + x_t\Big]\ (k_3)

in nats a sequence, both at the temperature of the sampling. A completion is a *success* if its reward is > 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from klsim import _validate
from klsim.estimators import k3, mean_interval, pass_at_k, support_threshold
from klsim.frontier.estimate import Estimate
from klsim.lm.chat import as_completion, problem_of_prompt, rendered
from klsim.lm.log_probs import token_log_probs
from klsim.lm.models import check_characters

__all__ = ["KL", "Evaluation", "evaluate", "sample"]

Row = dict[str, Any]
Reward = Callable[..., Sequence[float]]
LEVEL = 0.95


@dataclass(frozen=True)
class KL:
    """``KL(policy‖other)``, nats a sequence, by two unbiased estimators; ``k3`` has no negative terms."""

    k1: Estimate
    k3: Estimate


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; every `Estimate` is a mean over prompts with its 95 % interval.

    Attributes:
        prompts: how many. samples: completions of each. temperature, seed: of the sampling.
        greedy: share of prompts whose most likely completion (token by token) is a success.
        accuracy: share of successes among samples. reward: their mean reward.
        pass_at_k: k -> probability that one of k samples is a success, unbiased, for powers of two up to ``samples``.
        length: tokens of a completion, the end-of-sequence token included.
        finished: share of samples that end within ``max_new_tokens``.
        entropy: of the policy's next token at the sampled prefixes, nats a token.
        kl: to the models given, by name.
    """

    prompts: int
    samples: int
    temperature: float
    seed: int
    greedy: Estimate
    accuracy: Estimate
    reward: Estimate
    pass_at_k: dict[int, Estimate]
    length: Estimate
    finished: Estimate
    entropy: Estimate
    kl: dict[str, KL]


@dataclass(frozen=True)
class _Sampled:
    """Completions in the order of the rows, those of one row next to each other; every array is ``(completions,)``.

    Attributes:
        tokens: of a completion. entropy: summed over them. log_policy: of the completion. log_ratio, k3: name of the
            other model -> ``sum_t x_t`` and ``sum_t exp(-x_t) - 1 + x_t``.
    """

    completions: list[str]
    tokens: np.ndarray
    finished: np.ndarray
    entropy: np.ndarray
    log_policy: np.ndarray
    log_ratio: dict[str, np.ndarray]
    k3: dict[str, np.ndarray]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task_rows: Sequence[Row],
    reward: Reward,
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    ref: PreTrainedModel | None = None,
    teachers: Mapping[str, PreTrainedModel] | None = None,
) -> Evaluation:
    """Greedy and sampled completions of every row, graded.

    Args:
        task_rows: at least two; each has a text ``prompt`` and the columns that ``reward`` reads.
        reward: in TRL's convention, e.g. ``task.reward``.
        samples: completions of each prompt at ``temperature`` > 0. batch_size: sequences at a time; as it orders the
            random numbers, the same seed gives the same samples only with the same batch size.
        ref, teachers: models over the same vocabulary, to which KL is measured; ``ref`` is named ``"ref"``.

    Raises:
        ValueError: fewer than two rows, rows without text prompts or with other columns than the first, characters
            without a token, rewards that are not one finite number a completion, arguments out of range.
    """
    if len(task_rows) < 2:
        raise ValueError(f"task_rows: needs at least two prompts for an interval, got {len(task_rows)}")
    others = dict(teachers or {}) | ({} if ref is None else {"ref": ref})
    options = _options(samples, max_new_tokens, temperature, seed, batch_size)
    prompts = _prompts(task_rows, tokenizer)
    greedy = _graded(reward, task_rows, _greedy(model, tokenizer, prompts, options), 1)
    drawn = _draw(model, tokenizer, prompts, others, options)
    rewards = _graded(reward, task_rows, drawn.completions, samples)
    success = rewards.reshape(-1, samples) > 0

    def mean(values: np.ndarray) -> Estimate:
        return _estimate(values.reshape(-1, samples).mean(axis=1), seed)

    def share(values: np.ndarray) -> Estimate:
        return _share(values.reshape(len(task_rows), -1).mean(axis=1), seed)

    powers = [2**i for i in range(samples.bit_length())]
    counts = success.sum(axis=1)
    tokens = drawn.tokens.reshape(-1, samples).sum(axis=1)
    return Evaluation(
        prompts=len(task_rows),
        samples=samples,
        temperature=options.temperature,
        seed=seed,
        greedy=share(greedy > 0),
        accuracy=share(success),
        reward=mean(rewards),
        pass_at_k={k: share(pass_at_k(samples, counts, k)) for k in powers},
        length=mean(drawn.tokens),
        finished=share(drawn.finished),
        entropy=_estimate(drawn.entropy.reshape(-1, samples).sum(axis=1) / tokens, seed),
        kl={name: KL(mean(drawn.log_ratio[name]), mean(drawn.k3[name])) for name in others},
    )


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task_rows: Sequence[Row],
    reward: Reward,
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    ref: PreTrainedModel | None = None,
) -> list[Row]:
    """Rollouts as `klsim.frontier.read_rollouts` reads them: one dictionary a completion.

    Its keys: ``prompt``, ``completion``, ``reward``, ``tokens``, ``finished``, ``policy_logp`` and, with a ``ref``,
    ``ref_logp``: log-probabilities of the whole completion at the temperature of the sampling, nats. Samples of the
    reference itself make the frontier, those of a trained policy (with ``ref``) a point below it.

    Raises:
        ValueError: as `evaluate`; one row is enough.
    """
    if not task_rows:
        raise ValueError("task_rows: needs at least one prompt")
    options = _options(samples, max_new_tokens, temperature, seed, batch_size)
    prompts = _prompts(task_rows, tokenizer)
    drawn = _draw(model, tokenizer, prompts, {} if ref is None else {"ref": ref}, options)
    rewards = _graded(reward, task_rows, drawn.completions, samples)
    rows = []
    for i, completion in enumerate(drawn.completions):
        row = {
            "prompt": prompts[i // samples],
            "completion": completion,
            "reward": float(rewards[i]),
            "tokens": int(drawn.tokens[i]),
            "finished": bool(drawn.finished[i]),
            "policy_logp": float(drawn.log_policy[i]),
        }
        if ref is not None:
            row["ref_logp"] = float(drawn.log_policy[i] - drawn.log_ratio["ref"][i])
        rows.append(row)
    return rows


@dataclass(frozen=True)
class _Options:
    samples: int
    max_new_tokens: int
    temperature: float
    seed: int
    batch_size: int


def _options(samples: int, max_new_tokens: int, temperature: float, seed: int, batch_size: int) -> _Options:
    return _Options(
        samples=_validate.integer("samples", samples, low=1),
        max_new_tokens=_validate.integer("max_new_tokens", max_new_tokens, low=1),
        temperature=_validate.real("temperature", temperature, low=0.0, high=1e6, open_low=True),
        seed=_validate.integer("seed", seed, low=0),
        batch_size=_validate.integer("batch_size", batch_size, low=1),
    )


def _prompts(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts that the model reads."""
    for i, row in enumerate(rows):
        if problem := problem_of_prompt(row.get("prompt")):
            raise ValueError(f"task_rows[{i}]: its prompt {problem}")
        if row.keys() != rows[0].keys():
            raise ValueError(f"task_rows[{i}]: has the columns {', '.join(row)}, row 0 {', '.join(rows[0])}")
    prompts = rendered(tokenizer, [row["prompt"] for row in rows])
    check_characters(tokenizer, prompts, "prompts")
    return prompts


def _graded(reward: Reward, rows: Sequence[Row], completions: Sequence[str], repeats: int) -> np.ndarray:
    """Rewards ``(len(rows) * repeats,)``."""
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


def _greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], options: _Options
) -> list[str]:
    out = []
    with _evaluating(model):
        for texts in _batches(prompts, options.batch_size):
            made = _generate(model, tokenizer, texts, max_new_tokens=options.max_new_tokens, do_sample=False)
            out += made.texts(tokenizer)
    return out


def _draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    others: Mapping[str, PreTrainedModel],
    options: _Options,
) -> _Sampled:
    texts: list[str] = []
    sums: dict[str, list[np.ndarray]] = {}

    def add(name: str, values: torch.Tensor | np.ndarray) -> None:
        sums.setdefault(name, []).append(np.asarray(values, dtype=np.float64))

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _evaluating(model, *others.values()):
        _seed(model.device, options.seed)
        for batch in _batches([p for p in prompts for _ in range(options.samples)], options.batch_size):
            made = _generate(
                model, tokenizer, batch, max_new_tokens=options.max_new_tokens, do_sample=True,
                temperature=options.temperature, top_k=0, top_p=1.0,
            )  # fmt: skip
            texts += made.texts(tokenizer)
            keep = made.mask.cpu().numpy()
            log_policy, entropy = _log_probs(model, made, options.temperature)
            add("tokens", keep.sum(axis=1))
            add("finished", made.finished.cpu())
            add("entropy", np.where(keep, entropy, 0.0).sum(axis=1))
            add("log_policy", np.where(keep, log_policy, 0.0).sum(axis=1))
            for name, other in others.items():
                ratio = np.where(keep, log_policy - _log_probs(other, made, options.temperature)[0], 0.0)
                add(f"log_ratio {name}", ratio.sum(axis=1))
                add(f"k3 {name}", k3(ratio).sum(axis=1))
    whole = {name: np.concatenate(parts) for name, parts in sums.items()}
    return _Sampled(
        completions=texts,
        tokens=whole["tokens"],
        finished=whole["finished"],
        entropy=whole["entropy"],
        log_policy=whole["log_policy"],
        log_ratio={name: whole[f"log_ratio {name}"] for name in others},
        k3={name: whole[f"k3 {name}"] for name in others},
    )


@dataclass(frozen=True)
class _Generated:
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


def _generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any
) -> _Generated:
    """One completion of each text; ``options`` are those of transformers' ``GenerationConfig``."""
    inputs = tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
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
    return _Generated(ids, torch.cat([attention, mask.to(attention.dtype)], dim=1), mask, ends.any(dim=1))


def _log_probs(model: PreTrainedModel, made: _Generated, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the completion's tokens and entropies before them, each ``(B, T)``, float64."""
    with torch.no_grad():
        ids, attention = made.ids.to(model.device), made.attention.to(model.device)
        found = token_log_probs(model, ids, attention, completion=made.mask.shape[1], temperature=temperature)
    return found.log_probs.double().cpu().numpy(), found.entropy.double().cpu().numpy()


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generators that ``device`` draws from; `torch.manual_seed` would seed every device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def _evaluating(*models: PreTrainedModel) -> Iterator[None]:
    """Without dropout; afterwards the models are in the mode that they were in."""
    training = [model.training for model in models]
    for model in models:
        model.train(False)
    try:
        yield
    finally:
        for model, before in zip(models, training):
            model.train(before)


def _batches(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _estimate(values: np.ndarray, seed: int) -> Estimate:
    return Estimate(float(values.mean()), *mean_interval(values, LEVEL, seed))


def _share(values: np.ndarray, seed: int) -> Estimate:
    """As `_estimate`, of values in [0, 1].

    If all are 0 (or all 1), every resample is, too, and the bootstrap would be certain. Then ``E[X] <= P(X > 0)``, and
    the end of the interval is the exact one for an event that was never seen.
    """
    found = _estimate(values, seed)
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    unseen = float(support_threshold(values.size, 0.5 + LEVEL / 2))
    if not values.any():
        high = unseen
    if (values == 1).all():
        low = 1 - unseen
    return Estimate(found.value, low, high)
