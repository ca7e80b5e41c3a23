r"""What a model does on a task: accuracy, pass@k, lengths, entropy, and KL to other models.

Completions ``y`` of a prompt are drawn token by token from the policy at a temperature, until an end-of-sequence token
(which belongs to ``y``) or ``max_new_tokens``. Per prompt the averages over its samples are taken, and then the mean
over prompts with its interval: intervals speak of new prompts of the same law. With ``x_t = log pi(y_t) - log q(y_t)``

.. math:: KL(\pi\|q) = E\Big[\sum_t x_t\Big]\ (k_1) = E\Big[\sum_t e^{-x_t} - 1 + x_t\Big]\ (k_3)

in nats a sequence, both at the temperature of the sampling. A completion is a *success* if its reward is > 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from klsim.estimators import mean_interval, pass_at_k, support_threshold
from klsim.frontier.estimate import Estimate
from klsim.lm.generation import (
    Drawn,
    Reward,
    Row,
    Sampling,
    batches,
    draw,
    generate,
    graded,
    joined,
    seeded,
    texts_of,
    without_dropout,
)

__all__ = ["KL", "Evaluation", "evaluate", "sample"]

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
        task_rows: at least two; each has a ``prompt``, text or messages, and the columns that ``reward`` reads.
        reward: in TRL's convention, e.g. ``task.reward``.
        samples: completions of each prompt at ``temperature`` > 0. batch_size: sequences at a time; as it orders the
            random numbers, the same seed gives the same samples only with the same batch size.
        ref, teachers: models over the same vocabulary, to which KL is measured; ``ref`` is named ``"ref"``.

    Raises:
        ValueError: fewer than two rows, rows without prompts or with other columns than the first, characters
            without a token, rewards that are not one finite number a completion, arguments out of range.
    """
    if len(task_rows) < 2:
        raise ValueError(f"task_rows: needs at least two prompts for an interval, got {len(task_rows)}")
    others = dict(teachers or {}) | ({} if ref is None else {"ref": ref})
    sampling = Sampling(samples, max_new_tokens, temperature, seed, batch_size)
    prompts = texts_of(tokenizer, task_rows, "task_rows")
    greedy = graded(reward, task_rows, _greedy(model, tokenizer, prompts, sampling), 1)
    drawn = _draw(model, tokenizer, prompts, others, sampling)
    rewards = graded(reward, task_rows, drawn.completions, samples)
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
        temperature=sampling.temperature,
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
    sampling = Sampling(samples, max_new_tokens, temperature, seed, batch_size)
    prompts = texts_of(tokenizer, task_rows, "task_rows")
    drawn = _draw(model, tokenizer, prompts, {} if ref is None else {"ref": ref}, sampling)
    rewards = graded(reward, task_rows, drawn.completions, samples)
    rows = []
    for i, completion in enumerate(drawn.completions):
        row = {
            "prompt": task_rows[i // samples]["prompt"],
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


def _greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], sampling: Sampling
) -> list[str]:
    out = []
    with without_dropout(model):
        for texts in batches(prompts, sampling.batch_size):
            made = generate(model, tokenizer, texts, max_new_tokens=sampling.max_new_tokens, do_sample=False)
            out += made.texts(tokenizer)
    return out


def _draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    others: Mapping[str, PreTrainedModel],
    sampling: Sampling,
) -> Drawn:
    """Completions of all prompts, those of one prompt next to each other."""
    repeated = [p for p in prompts for _ in range(sampling.samples)]
    with seeded(model.device, sampling.seed), without_dropout(model, *others.values()):
        drawn = [draw(model, tokenizer, texts, others, sampling) for texts in batches(repeated, sampling.batch_size)]
    return joined(drawn)


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
