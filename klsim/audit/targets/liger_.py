"""Liger's chunked losses: ``liger:grpo?beta=0.1``; ``liger:jsd?beta=0.5``, its soft part; on preference pairs
``liger:dpo?loss_type=…``, ``liger:cpo``, ``liger:simpo``, ``liger:orpo``, ``liger:kto``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, strict_value
from klsim.audit.targets.stubs import grouped, need, preferred_rows
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed Liger kernels.

    Raises:
        ValueError: no such loss or option. ModuleNotFoundError: Liger is not installed.
    """
    need("liger_kernel", "liger-kernel")
    from liger_kernel import chunked_loss

    runs = {"grpo": _grpo, "jsd": _jsd, "dpo": _dpo, "cpo": _pairs, "simpo": _pairs, "orpo": _pairs, "kto": _kto}
    if name not in runs:
        raise ValueError(f"target {text!r}: liger:{name} is not one of {', '.join(f'liger:{k}' for k in runs)}")
    run: Any = runs[name]
    cls = getattr(chunked_loss, f"LigerFusedLinear{'SimPO' if name == 'simpo' else name.upper()}Loss")
    known = inspect.signature(cls.__init__).parameters
    unknown = set(options) - set(known)
    if unknown:
        raise ValueError(f"target {text!r}: {cls.__name__} has no option {sorted(unknown)[0]!r}")
    given = {k: strict_value(text, k, v, known[k].default) for k, v in options.items()}

    def build(**parameters: float) -> LossFunction:
        chosen = {"compiled": False} | given | parameters
        return lambda batch: run(cls, chosen, batch)

    numeric = {"beta": known["beta"].default} | numeric_options(given)
    numeric = {} if name == "jsd" else numeric  # the JSD's beta is no coefficient
    return Target(text, build, numeric, f"liger-kernel {version('liger-kernel')}")


def _grpo(cls: Any, options: Mapping[str, Any], batch: TokenBatch) -> Any:
    """The tree's log-probabilities as hidden states, the identity as the LM head."""
    import torch

    rewards = batch.total_rewards()
    mean, deviation, _ = grouped(rewards, batch.group)
    size = (
        {"max_completion_length": getattr(batch, "max_length", 0) or batch.log_probs.shape[1]}
        if options.get("loss_type") == "dr_grpo"
        else {}
    )
    returned = cls(**{**size, **options})(
        batch.vocab_log_probs,
        torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64),
        batch.tokens,
        batch.mask.to(torch.float64),
        (rewards - mean) / (deviation + 1e-4),
        ref_per_token_logps=batch.ref_log_probs,
        old_per_token_logps=batch.old_log_probs,
        num_items_in_batch=batch.mask.sum(),
    )
    return returned[0] if isinstance(returned, tuple) else returned


def _jsd(cls: Any, options: Mapping[str, Any], batch: TokenBatch) -> Any:
    import torch

    labels = torch.where(batch.mask, batch.tokens, -100).reshape(-1)
    size = batch.vocab_log_probs.shape[-1]
    head = torch.eye(size, dtype=torch.float64)
    student, teacher = (x.reshape(-1, size) for x in (batch.vocab_log_probs, batch.teacher_vocab_log_probs))
    return cls(**{"weight_hard_loss": 0.0, "weight_soft_loss": 1.0, **options})(student, head, teacher, head, labels)


def _chosen_first(batch: Any) -> tuple[Any, Any, Any]:
    """Rows with the chosen responses first, their labels, and the identity as the LM head."""
    import torch

    rows = torch.cat(preferred_rows(batch))
    labels = torch.where(batch.mask, batch.tokens, -100)[rows]
    return rows, labels, torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64)


def _pairs(cls: Any, options: Mapping[str, Any], batch: Any) -> Any:
    rows, labels, head = _chosen_first(batch)
    return cls(**options)(head, batch.vocab_log_probs[rows], labels)[0]


def _dpo(cls: Any, options: Mapping[str, Any], batch: Any) -> Any:
    rows, labels, head = _chosen_first(batch)
    reference = {"ref_input": batch.ref_vocab_log_probs[rows], "ref_weight": head}
    return cls(**options)(head, batch.vocab_log_probs[rows], labels, **reference)[0]


def _kto(cls: Any, options: Mapping[str, Any], batch: Any) -> Any:
    """The KL is that of the batch's own responses, at least 0, as TRL estimates it."""
    rows, labels, head = _chosen_first(batch)
    gap = ((batch.log_probs - batch.ref_log_probs) * batch.weights).sum(1)
    return cls(**options)(
        batch.vocab_log_probs[rows],
        head,
        labels,
        preference_labels=batch.preferred[rows],
        ref_input=batch.ref_vocab_log_probs[rows],
        ref_weight=head,
        kl=gap.mean().detach().clamp(min=0),
    )[0]
