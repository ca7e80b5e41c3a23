"""TRL's losses of distillation, on the batch's own responses or the teacher's.

=================================  ================================================================================
``trl:distillation?beta=0.5``      the chunked divergence loss of ``DistillationTrainer`` (generalised JSD)
``trl:gkd?beta=0.5``, ``gold``     ``generalized_jsd_loss`` of ``GKDTrainer`` and of ``GOLDTrainer``
``trl:iw_opd?iw_opd_gamma=1``      ``_compute_iw_opd_loss`` of ``IWOPDTrainer``, rollouts by the old policy
``trl:sdft?distillation_mode=…``   ``_compute_self_distillation_loss`` of ``SDFTTrainer`` with the teacher's logits;
                                   that of ``SDPOTrainer`` (``trl:sdpo``)
=================================  ================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value
from klsim.audit.targets.stubs import BatchLM, quiet
from klsim.audit.targets.trl_stub import acts_in, configured, provided, release, stub, typed
from klsim.objectives.batch import TokenBatch

__all__ = ["DISTILLATION"]


def _jsd(text: str, given: Mapping[str, str], run: Callable[..., Any]) -> Target:
    unknown = set(given) - {"beta", "temperature"}
    if unknown:
        raise ValueError(f"target {text!r}: unknown option {sorted(unknown)[0]!r} (beta, temperature)")
    chosen: dict[str, Any] = {"beta": 0.5}
    for name, value in given.items():
        chosen[name] = option_value(value)
        if not isinstance(chosen[name], int | float) or isinstance(chosen[name], bool):
            raise ValueError(f"target {text!r}: {name}={value} is no number")

    def build() -> LossFunction:
        return lambda batch: run(batch, **chosen)

    return Target(text, build, {}, release())  # beta interpolates: it is no coefficient to vary


def _distillation(text: str, options: Mapping[str, str]) -> Target:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def run(batch: TokenBatch, **parameters: float) -> Any:
        head = torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64)
        mask = batch.mask.to(torch.int64)
        return _chunked_divergence_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, head, head, mask, **parameters
        )[0]

    return _jsd(text, options, run)


def _gkd(text: str, options: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.gkd import GKDTrainer

    return _generalized_jsd(text, options, GKDTrainer)


def _gold(text: str, options: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.gold import GOLDTrainer

    return _generalized_jsd(text, options, GOLDTrainer)


def _generalized_jsd(text: str, options: Mapping[str, str], trainer: Any) -> Target:
    import torch

    def run(batch: TokenBatch, **parameters: float) -> Any:
        labels = torch.where(batch.mask, batch.tokens, -100)
        return trainer.generalized_jsd_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, labels=labels, **parameters
        )

    return _jsd(text, options, run)


def _iw_opd(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.iw_opd import IWOPDConfig, IWOPDTrainer
    import torch

    options = typed(text, IWOPDConfig, given)
    acts_in(text, IWOPDTrainer, options, methods=("_compute_iw_opd_loss",))

    def build(**parameters: float) -> LossFunction:
        config = configured(IWOPDConfig, **(options | parameters))
        trainer = stub(
            IWOPDTrainer,
            config,
            temperature=1.0,
            iw_opd_gamma=config.iw_opd_gamma,
            iw_opd_epsilon=config.iw_opd_epsilon,
        )

        def loss(batch: TokenBatch) -> Any:
            trainer.model = BatchLM(batch)
            labels = torch.where(batch.mask, batch.tokens, -100)
            laws = (batch.teacher_log_probs, batch.old_log_probs)
            return provided(lambda: trainer._compute_iw_opd_loss(batch.vocab_log_probs, batch.tokens, labels, *laws))

        return loss

    default = configured(IWOPDConfig)
    return Target(text, build, {"iw_opd_gamma": float(default.iw_opd_gamma), **numeric_options(options)}, release())


def _self_distillation(text: str, given: Mapping[str, str], trainer_class: Any, config_class: Any) -> Target:
    options = typed(text, config_class, given)
    acts_in(text, trainer_class, options, methods=("_compute_self_distillation_loss",))

    def build(**parameters: float) -> LossFunction:
        trainer = stub(trainer_class, configured(config_class, **(options | parameters)))

        def loss(batch: TokenBatch) -> Any:
            trainer.model = model = BatchLM(batch)
            logits = SimpleNamespace(
                loss_mask=batch.mask.to(batch.vocab_log_probs.dtype),
                student_logits=batch.vocab_log_probs,
                teacher_logits=batch.teacher_vocab_log_probs,
                completion_ids=batch.tokens,
            )
            inputs = {"old_per_token_logps": batch.old_log_probs}
            return provided(lambda: trainer._compute_self_distillation_loss(model, inputs, logits))

        return loss

    return Target(text, build, {}, release())  # alpha interpolates: it is no coefficient to vary


def _sdft(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    return _self_distillation(text, given, SDFTTrainer, SDFTConfig)


def _sdpo(text: str, given: Mapping[str, str]) -> Target:
    with quiet():
        from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    return _self_distillation(text, given, SDPOTrainer, SDPOConfig)


DISTILLATION: Mapping[str, Callable[[str, Mapping[str, str]], Target]] = {
    "distillation": _distillation, "gkd": _gkd, "gold": _gold, "iw_opd": _iw_opd, "sdft": _sdft, "sdpo": _sdpo,
}  # fmt: skip
"""TRL's distillation trainers by name: target text and options to the target."""
