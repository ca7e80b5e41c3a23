r"""Token log-probabilities and entropies of a Hugging Face causal language model.

.. math:: \log\pi(y_t \mid y_{<t}) = s_{y_t} - \log\sum_a e^{s_a}, \qquad s = (W h_{t'} + b) / \tau

with :math:`h_{t'}` the hidden state at the last real token before t. The backbone gives the hidden states and
`klsim.lm.vocab_losses.linear_log_probs` the rest, in chunks: ``[B * T, V]`` logits are never held. Padding may stand on
the left, on the right or between; it is left out of the products, and positions count real tokens only.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from array_api_compat import array_namespace
from torch import Tensor, nn

from klsim import _validate
from klsim.lm.vocab_losses import linear_log_probs

__all__ = ["TokenLogProbs", "backbone", "has_plain_head", "token_log_probs", "vocab_log_probs"]

_PLAIN_HEADS: WeakSet[nn.Module] = WeakSet()
_PROBE = 100.0  # size of the logits at which a head is looked at: soft caps (30, 50) are far below


@dataclass(frozen=True)
class TokenLogProbs:
    """Of the last ``completion`` tokens, in nats; 0 at padding.

    Attributes:
        log_probs: ``log pi(y_t | y_<t)``, ``[B, completion]``.
        entropy: of ``pi(. | y_<t)``, ``[B, completion]``.
    """

    log_probs: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class _Request:
    """Validated input. ``real [B, C]``: completion tokens that are not padding; ``before [B, C]``: where what predicts
    them stands."""

    ids: Tensor
    mask: Tensor
    real: Tensor
    before: Tensor

    @property
    def completion(self) -> int:
        return self.real.shape[1]

    def inputs(self, module: nn.Module) -> dict[str, Any]:
        """Keyword arguments of the model or its backbone."""
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)
        taken = inspect.signature(module.forward).parameters
        wanted = {"position_ids": positions, "use_cache": False}
        mask = self.mask.to(torch.int64)
        return {"input_ids": self.ids, "attention_mask": mask} | {k: v for k, v in wanted.items() if k in taken}

    def predicting(self, states: Tensor) -> Tensor:
        """``[M, X]``: the rows of ``states [B, T, X]`` that predict a real completion token."""
        row = torch.arange(len(self.ids), device=states.device)[:, None].expand_as(self.before)
        real = self.real.to(states.device)
        return states[row[real], self.before.to(states.device)[real]]

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """``[B, C, …]`` of the ``[M, …]`` values of the real tokens, differentiable."""
        out = values.new_full((*self.real.shape, *values.shape[1:]), fill)
        return out.index_put((self.real.to(values.device),), values)

    def place(self, which: Tensor) -> tuple[int, ...] | None:
        """``(row, position in input_ids)`` of the first True of ``which [M]``."""
        index = _validate.first_true(array_namespace(which), which)
        if index is None:
            return None
        row, column = (int(i) for i in self.real.nonzero()[index[0]])
        return row, column + self.ids.shape[1] - self.completion


def token_log_probs(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    *,
    completion: int,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> TokenLogProbs:
    r"""``log pi(y_t | y_<t)`` and the entropy of the last ``completion`` tokens, with gradients into the model.

    Args:
        model: a causal LM of transformers (or one wrapped by peft) whose logits are a plain linear head on its
            backbone's hidden states. It is run as it is: ``eval()`` it to switch dropout off.
        input_ids: ``[B, T]`` integers. attention_mask: ``[B, T]``, 0 at padding; None: no padding.
        completion: how many of the last positions, ``1 … T - 1``.
        temperature: divides the logits, finite, > 0.
        chunk: rows of logits at a time; by default as many as fit in 128 MiB (1 GiB on an accelerator).

    Raises:
        TypeError: not a causal LM, ids that are not integers.
        ValueError: shapes, ids outside the vocabulary, a row without a token, a completion token with nothing before
            it, hidden states that are not finite (names row and position), or a model that scales or caps its logits:
            `vocab_log_probs` takes any model.
    """
    causal = _causal(model)
    request = _requested(causal, input_ids, attention_mask, completion)
    head = _plain_head(causal)
    hidden = request.predicting(causal.base_model(**request.inputs(causal.base_model)).last_hidden_state)
    place = request.place(~torch.isfinite(hidden.detach()).all(-1))
    if place is not None:
        _validate.fail("model", "the hidden states before this token are not finite", index=place)
    tokens = request.ids[:, -completion:][request.real]
    out = linear_log_probs(
        hidden, head.weight, tokens.to(hidden.device), bias=head.bias, temperature=temperature, chunk=chunk
    )
    return TokenLogProbs(request.spread(out.log_probs, 0.0), request.spread(out.entropy, 0.0))


def vocab_log_probs(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None, *, completion: int, temperature: float = 1.0
) -> Tensor:
    """``log pi(. | y_<t)`` at the last ``completion`` positions, ``[B, completion, V]``; uniform at padding.

    From the logits of the model itself, whatever its head; all of them are held, so for small vocabularies or batches.
    At least float32. Arguments and errors: see `token_log_probs`.
    """
    causal = _causal(model)
    temperature = _temperature(temperature)
    request = _requested(causal, input_ids, attention_mask, completion)
    logits = request.predicting(causal(**request.inputs(causal)).logits)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    seen = logits.detach()
    place = request.place((torch.isnan(seen) | (seen == math.inf)).any(-1) | torch.isinf(seen).all(-1))
    if place is not None:
        _validate.fail("model", "the logits before this token hold NaN or inf", index=place)
    return request.spread(torch.log_softmax(logits / temperature, -1), -math.log(logits.shape[-1]))


def _temperature(temperature: float) -> float:
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    if math.isinf(temperature):
        _validate.fail("temperature", "must be finite", temperature)
    return temperature


def _causal(model: Any) -> Any:
    """The causal LM itself, without peft's wrapper (whose adapters stand inside it)."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise ValueError("model: prompt learning puts tokens of its own before the input; merge it first")
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(model, nn.Module) or not all(
        hasattr(model, name) for name in ("base_model", "get_output_embeddings", "get_input_embeddings")
    ):
        raise TypeError(f"model: must be a causal language model of transformers, got {type(model).__name__}")
    return model


def _plain_head(model: Any) -> nn.Linear:
    """The head, once it is certain that the logits are nothing but it applied to the backbone's output.

    Certain by a look: one token goes through the model with the backbone's output replaced by a vector whose logits
    are about ±100, where any scale or cap of the logits shows.
    """
    head = model.get_output_embeddings()
    if model.base_model is model or type(head) is not nn.Linear:
        raise ValueError(
            f"model: needs a backbone and an nn.Linear on it, {type(model).__name__} has "
            f"{type(head).__name__}; use vocab_log_probs"
        )
    if model not in _PLAIN_HEADS:
        expected, seen = _looked_at(model, head)
        if seen.shape != expected.shape or not bool((seen - expected).abs().max() <= 0.02 * _PROBE):
            raise ValueError(
                f"model: the logits of {type(model).__name__} are not its head applied to its backbone (a logit scale "
                "or soft cap?); use vocab_log_probs"
            )
        _PLAIN_HEADS.add(model)
    return head


def backbone(model: Any) -> Any:
    """What gives the hidden states of a causal LM, inside peft's wrapper as well."""
    return _causal(model).base_model


def has_plain_head(model: Any) -> bool:
    """Whether a model's logits are an ``nn.Linear`` on its backbone's states: what `token_log_probs` needs."""
    try:
        _plain_head(_causal(model))
    except (TypeError, ValueError):
        return False
    return True


@torch.no_grad()
def _looked_at(model: Any, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Logits ``[V]`` of the head, and of the model, for the same hidden vector."""
    weight = head.weight
    vector = weight[int(weight.float().norm(dim=-1).argmax())].float()
    logits = nn.functional.linear(vector, weight.float())
    vector = vector * (_PROBE / logits.abs().max())

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = vector.to(output.last_hidden_state.dtype).expand_as(output.last_hidden_state)
        return output

    on = weight.device
    hook = model.base_model.register_forward_hook(replace)
    try:
        with torch.random.fork_rng(
            [] if on.type == "cpu" else [on], device_type="cuda" if on.type == "cpu" else on.type
        ):
            seen = model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=on)).logits[0, -1]
    finally:
        hook.remove()
    return nn.functional.linear(vector, weight.float(), None if head.bias is None else head.bias.float()), seen.float()


def _requested(model: Any, input_ids: Any, attention_mask: Any, completion: int) -> _Request:
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        found = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise TypeError(f"input_ids: must be a tensor of integers, got {found}")
    if input_ids.ndim != 2 or input_ids.shape[0] == 0 or input_ids.shape[1] < 2:
        _validate.fail("input_ids", f"needs shape [B, T] with B >= 1, T >= 2, got {list(input_ids.shape)}")
    length = input_ids.shape[1]
    completion = _validate.integer("completion", completion, low=1, high=length - 1)
    mask = _checked_mask(attention_mask, input_ids)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    index = _validate.first_true(array_namespace(mask), mask & ((input_ids < 0) | (input_ids >= vocabulary)))
    if index is not None:
        _validate.fail("input_ids", f"must be 0 … {vocabulary - 1}", int(input_ids[index]), index)
    ids = input_ids.to(torch.int64).masked_fill(~mask, 0)
    places = torch.arange(length, device=mask.device).expand_as(mask)
    last = torch.where(mask, places, -1).cummax(-1).values
    before, real = last[:, -completion - 1 : -1], mask[:, -completion:]
    index = _validate.first_true(array_namespace(mask), real & (before < 0))
    if index is not None:
        _validate.fail(
            "attention_mask", "this token has nothing before it", index=(index[0], index[1] + length - completion)
        )
    return _Request(ids, mask, real, before)


def _checked_mask(attention_mask: Any, input_ids: Tensor) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if not isinstance(attention_mask, Tensor) or attention_mask.is_complex():
        raise TypeError(f"attention_mask: must be a tensor, got {type(attention_mask).__name__}")
    if attention_mask.shape != input_ids.shape:
        _validate.fail("attention_mask", f"must have shape {list(input_ids.shape)}, got {list(attention_mask.shape)}")
    xp = array_namespace(input_ids)
    index = _validate.first_true(xp, (attention_mask != 0) & (attention_mask != 1))
    if index is not None:
        _validate.fail("attention_mask", "must be 0 or 1", float(attention_mask[index]), index)
    mask = (attention_mask != 0).to(input_ids.device)
    index = _validate.first_true(xp, ~mask.any(-1))
    if index is not None:
        _validate.fail("attention_mask", "this row has no token", index=index)
    return mask
