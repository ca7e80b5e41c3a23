"""TRL's losses on preference pairs.

====================================  =============================================================================
``trl:dpo?loss_type=ipo&beta=0.1``    ``DPOTrainer._compute_loss``, options of `DPOConfig`
``trl:kto``                           ``KTOTrainer._compute_loss``; its KL completions are the pair's responses, cycled
``trl:cpo?loss_type=simpo``           ``CPOTrainer.get_batch_loss_metrics``
``trl:orpo?beta=0.1``                 ``ORPOTrainer.get_batch_loss_metrics``
``trl:tpo?loss_type=tpo-l``           ``TPOTrainer._compute_loss``; the gold response is the chosen one
``trl:online_dpo?loss_type=sigmoid``  ``OnlineDPOTrainer.training_step`` without its generation: the pair's responses;
                                      rewards differ (of equal ones it calls the first response chosen)
====================================  =============================================================================

Sequences have one prompt token in front, which numbers the row: from it the stub LM knows whose law it returns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options
from klsim.audit.targets.stubs import OneProcess, preferred_rows, quiet
from klsim.audit.targets.trl_stub import acts_in, configured, provided, release, stub, typed

__all__ = ["PREFERENCES"]


class _PairLM:
    """A causal LM that returns a law of the batch for the rows that the prompt token numbers."""

    training = True
    is_gradient_checkpointing = False
    _modules: Mapping[str, Any] = {}  # where peft is installed, adapters are looked for

    def __init__(self, vocab_log_probs: Any) -> None:
        self.table = vocab_log_probs

    def train(self) -> None:
        """As a torch module."""

    def __call__(self, input_ids: Any, *, labels: Any = None, fused_lm_head: bool = False, **_: Any) -> Any:
        import torch

        table = self.table[input_ids[:, 0]]
        if not fused_lm_head:  # the last position predicts beyond the sequence
            return SimpleNamespace(logits=torch.cat([table, table[:, -1:]], dim=1))
        mask = labels[:, 1:] != -100

        def field(values: Any) -> Any:  # "zero where the label is -100"
            return torch.where(mask, values, 0.0)

        chosen = labels[:, 1:].clamp(min=0)[..., None]
        return SimpleNamespace(
            log_probs=field(table.gather(-1, chosen)[..., 0]),
            entropy=field(-(table.exp() * table).sum(-1)),
            log_sum_sq_probs=field(torch.logsumexp(2 * table, -1)).detach(),
            mean_logits=field(table.mean(-1)).detach(),
            is_top1=(table.argmax(-1) == chosen[..., 0]) & mask,
        )


def _sequences(batch: Any, rows: Any) -> dict[str, Any]:
    """Token ids with the prompt token, and the masks of completions and of attention."""
    import torch

    mask = batch.mask[rows].to(torch.int64)
    return {
        "input_ids": torch.cat([rows[:, None], batch.tokens[rows]], dim=1),
        "completion_mask": torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1),
        "attention_mask": torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1),
    }


Run = Callable[[Any, Any, Any], Any]
"""Of a trainer, its config and a batch: the loss."""


def _target(
    text: str,
    given: Mapping[str, str],
    classes: tuple[Any, Any],
    run: Run,
    *,
    handled: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    attributes: Mapping[str, Callable[[Any], Any]],
) -> Target:
    """A trainer's loss; ``attributes``: what its constructor takes from its config."""
    trainer_class, config_class = classes
    options = typed(text, config_class, given)
    acts_in(text, trainer_class, options, ("beta", *handled), methods)

    def build(**parameters: float) -> LossFunction:
        config = configured(config_class, **(options | parameters))
        found = {name: read(config) for name, read in attributes.items()}
        trainer = stub(trainer_class, config, **found)

        def loss(batch: Any) -> Any:
            trainer.model = _PairLM(batch.vocab_log_probs)
            trainer.ref_model = _PairLM(batch.ref_vocab_log_probs)
            return provided(lambda: run(trainer, config, batch))

        return loss

    default = configured(config_class, **options)
    beta = default.beta[0] if isinstance(default.beta, list) else default.beta
    return Target(text, build, {"beta": beta, **numeric_options(options)}, release())


def _read(*names: str) -> dict[str, Callable[[Any], Any]]:
    """Attributes that a constructor copies from its config."""
    return {name: lambda config, name=name: getattr(config, name) for name in names}  # type: ignore[misc]


def _chosen_then_rejected(trainer: Any, config: Any, batch: Any) -> Any:
    import torch

    inputs = _sequences(batch, torch.cat(preferred_rows(batch)))
    return trainer._compute_loss(trainer.model, inputs, False)


def _dpo(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl import DPOConfig, DPOTrainer

    own = {
        "loss_types": lambda config: [config.loss_type] if isinstance(config.loss_type, str) else config.loss_type,
        "loss_weights": lambda config: config.loss_weights or [1.0],
    }
    names = ("beta", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing", "use_weighting")
    return _target(
        text, given, (DPOTrainer, DPOConfig), _chosen_then_rejected, handled=("loss_type",),
        attributes=own | _read(*names),
    )  # fmt: skip


def _tpo(text: str, given: Mapping[str, str]) -> Target:
    import torch

    with quiet():
        from trl.experimental.tpo import TPOConfig, TPOTrainer

    def run(trainer: Any, config: Any, batch: Any) -> Any:
        chosen, rejected = preferred_rows(batch)
        gold = [chosen] if config.tpo_alpha else []
        return trainer._compute_loss(trainer.model, _sequences(batch, torch.cat([chosen, rejected, *gold])), False)

    names = ("beta", "loss_type", "label_smoothing", "tpo_alpha", "tpo_l_gamma")
    return _target(text, given, (TPOTrainer, TPOConfig), run, attributes=_read(*names))


def _kto(text: str, given: Mapping[str, str]) -> Target:
    import torch

    with quiet():
        from trl import KTOConfig, KTOTrainer

    def run(trainer: Any, config: Any, batch: Any) -> Any:
        chosen, rejected = preferred_rows(batch)
        main = _sequences(batch, torch.cat([chosen, rejected]))
        cycled = {f"KL_{name}": x for name, x in _sequences(batch, torch.cat([rejected, chosen])).items()}
        label = torch.arange(2 * len(chosen)) < len(chosen)
        return trainer._compute_loss(trainer.model, {**main, **cycled, "label": label}, False)

    names = ("beta", "loss_type", "desirable_weight", "undesirable_weight")
    return _target(
        text, given, (KTOTrainer, KTOConfig), run,
        attributes=_read(*names) | {"calculate_KL": lambda config: config.loss_type == "kto"},
    )  # fmt: skip


def _with_labels(trainer: Any, config: Any, batch: Any) -> Any:
    """CPO's and ORPO's batches: chosen and rejected apart, with labels."""
    inputs: dict[str, Any] = {}
    for name, rows in zip(("chosen", "rejected"), preferred_rows(batch)):
        made = _sequences(batch, rows)
        labels = made["input_ids"].masked_fill(made["completion_mask"] == 0, -100)
        inputs |= {
            f"{name}_input_ids": made["input_ids"],
            f"{name}_attention_mask": made["attention_mask"],
            f"{name}_labels": labels,
        }
    return trainer.get_batch_loss_metrics(trainer.model, inputs)[0]


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda config: value


def _cpo(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.cpo import CPOConfig, CPOTrainer

    names = ("beta", "loss_type", "label_smoothing", "cpo_alpha", "simpo_gamma", "alpha")
    return _target(
        text, given, (CPOTrainer, CPOConfig), _with_labels,
        methods=("cpo_loss", "get_batch_loss_metrics", "concatenated_forward"),
        attributes=_read(*names) | {"pad_token_id": _constant(0), "is_encoder_decoder": _constant(False)},
    )  # fmt: skip


def _orpo(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return _target(
        text, given, (ORPOTrainer, ORPOConfig), _with_labels,
        methods=("odds_ratio_loss", "get_batch_loss_metrics", "concatenated_forward"),
        attributes=_read("beta") | {"padding_value": _constant(0), "is_encoder_decoder": _constant(False)},
    )  # fmt: skip


class _Captured(OneProcess):
    """Keeps the loss that a trainer would differentiate."""

    loss: Any = None

    def backward(self, loss: Any, **_: Any) -> None:
        """As an accelerator."""
        self.loss = loss


def _online_dpo(text: str, given: Mapping[str, str]) -> Target:
    import torch

    with quiet():
        from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    def run(trainer: Any, config: Any, batch: Any) -> Any:
        preferred_rows(batch)
        order = batch.group.argsort(stable=True)
        rows = torch.cat([order[::2], order[1::2]])  # the first responses of all prompts, then the second ones
        made = _sequences(batch, rows)
        cells = (made["input_ids"][:, :1], made["attention_mask"][:, :1], batch.tokens[rows], batch.mask[rows])
        trainer.accelerator = _Captured()
        trainer._generate = lambda *_: (*cells, None)
        trainer._calculate_rewards_from_functions = lambda **_: batch.total_rewards()[rows]
        trainer.training_step(trainer.model, {"prompt": ["prompt"] * (len(rows) // 2)})
        return trainer.accelerator.loss

    attributes: dict[str, Callable[[Any], Any]] = {
        "_beta": lambda config: config.beta,
        "stats": lambda config: defaultdict(list),
        "reward_funcs": _constant([None]),
        "eos_token_ids": _constant([0]),
        "max_length": lambda config: config.max_length,
        "processing_class": _constant(SimpleNamespace(batch_decode=lambda ids, **_: ["" for _ in ids])),
        "state": _constant(SimpleNamespace(epoch=0, global_step=1)),
    }
    classes = (OnlineDPOTrainer, OnlineDPOConfig)
    return _target(text, given, classes, run, methods=("training_step",), attributes=attributes)


PREFERENCES: Mapping[str, Callable[[str, Mapping[str, str]], Target]] = {
    "dpo": _dpo, "kto": _kto, "cpo": _cpo, "orpo": _orpo, "tpo": _tpo, "online_dpo": _online_dpo,
}  # fmt: skip
"""TRL's preference trainers by name: target text and options to the target."""
