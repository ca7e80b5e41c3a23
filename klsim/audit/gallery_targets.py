"""What the gallery audits, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["GALLERY", "LEFT_OUT"]

_TRL = (
    *(f"trl:grpo?loss_type={kind}" for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")),
    "trl:grpo?loss_type=cispo&epsilon_high=5",
    "trl:grpo?loss_type=grpo&importance_sampling_level=sequence",
    "trl:grpo?loss_type=dapo&scale_rewards=none",
    "trl:grpo?loss_type=dapo&scale_rewards=batch",
    *(f"trl:grpo?loss_type={kind}&beta=0.1" for kind in ("dapo", "dr_grpo", "cispo")),
    *(f"trl:grpo?loss_type={kind}&beta=0.1&use_bias_correction_kl=false" for kind in ("dapo", "grpo")),
    "trl:grpo?loss_type=dr_grpo&entropy_coef=0.1",
    "trl:grpo?loss_type=dr_grpo&delta=1.5",
    "trl:grpo?loss_type=dr_grpo&off_policy_mask_threshold=0.1",
    *(
        f"trl:grpo?loss_type=dr_grpo&vllm_importance_sampling_correction=true&vllm_importance_sampling_mode={mode}"
        for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
    ),
    "trl:gmpo",
    "trl:gmpo?beta=0.1",
    "trl:rloo?beta=0",
    "trl:rloo?beta=0.1",
    "trl:rloo?beta=0&normalize_advantages=true",
    *(f"trl:{kind}?beta={beta}" for kind in ("distillation", "gkd", "gold") for beta in (0, 0.5, 1)),
    *(f"trl:iw_opd?iw_opd_gamma={gamma}" for gamma in (0, 1)),
    *(
        f"trl:{kind}?distillation_mode={mode}"
        for kind in ("sdft", "sdpo")
        for mode in ("full_logits", "sampled_token&distillation_alpha=1", "topk_logits&distillation_topk=2")
    ),
)
_LIGER = (
    *(f"liger:grpo?loss_type={kind}&beta=0.1" for kind in ("grpo", "dapo", "dr_grpo")),
    "liger:grpo?loss_type=dapo&beta=0.1&use_bias_correction_kl=true",
    *(f"liger:jsd?beta={beta}" for beta in (0, 0.5, 1)),
)
_VERL = (
    *(f"verl:{kind}" for kind in ("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "geo_mean", "cispo")),
    *(f"verl:{kind}" for kind in ("clip_cov", "kl_cov", "dro?policy_loss.dro_beta=1")),
    *(f"verl:vanilla?kl_loss_coef=0.1&kl_loss_type={k}" for k in ("kl", "abs", "mse", "low_var_kl", "k3+")),
    *(f"verl:vanilla?loss_agg_mode=seq-mean-token-{kind}" for kind in ("mean", "sum", "sum-norm")),
    *(
        f"verl:vanilla?loss_agg_mode=seq-mean-token-sum&adv_estimator={kind}"
        for kind in ("rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "gpg", "opo", "grpo_passk", "remax",
                     "optimal_token_baseline", "gae")
    ),
    "verl:vanilla?norm_adv_by_std_in_grpo=false",
    *(f"verl:vanilla?loss_agg_mode=seq-mean-token-sum&rollout_is={kind}" for kind in ("token", "sequence")),
)  # fmt: skip
_OTHERS = (
    *(
        f"torchrl:{kind}"
        for kind in ("grpo", "dapo", "cispo", "grpo?aggregation=prompt_mean", "grpo?kl_to_ref_coeff=0.1")
    ),
    *(f"torchrl:distillation?kl_direction={kind}" for kind in ("reverse", "forward")),
    "torchrl:distillation?normalize_by_seq_length=false",
    *(f"openrlhf:policy?estimator={kind}" for kind in ("group_norm", "rloo", "dr_grpo", "reinforce_baseline")),
    "openrlhf:policy?policy_loss_type=gspo",
    "openrlhf:policy?estimator=dr_grpo&token_level_loss=false",
    *(f"openrlhf:policy?estimator=dr_grpo&is_correction_level={level}" for level in ("token", "seq")),
    *(f"swift:jsd?beta={beta}" for beta in (0, 0.5, 1)),
    "torchtune:grpo",
)
_PAIRS = (
    *(
        f"trl:dpo?loss_type={kind}"
        for kind in ("sigmoid", "hinge", "ipo", "sigmoid_norm", "exo_pair&label_smoothing=0.001", "nca_pair",
                     "robust&label_smoothing=0.1", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
                     "apo_down", "discopop", "sft")
    ),
    *(f"trl:dpo?{option}" for option in ("label_smoothing=0.1", "ld_alpha=0.5", "use_weighting=true")),
    *(f"trl:dpo?f_divergence_type={kind}" for kind in ("forward_kl", "js_divergence")),
    *(f"trl:kto?loss_type={kind}" for kind in ("kto", "apo_zero_unpaired")),
    *(f"trl:cpo?loss_type={kind}" for kind in ("sigmoid", "hinge", "ipo", "simpo")),
    *(f"trl:cpo?loss_type={kind}&cpo_alpha=0" for kind in ("sigmoid", "ipo", "simpo")),
    "trl:cpo?loss_type=sigmoid&cpo_alpha=0&alpha=0.1",
    "trl:orpo",
    "trl:tpo",
    *(f"trl:tpo?tpo_alpha=0&loss_type={kind}" for kind in ("sigmoid", "hinge", "ipo", "tpo-l")),
    *(f"trl:online_dpo?loss_type={kind}" for kind in ("sigmoid", "ipo")),
    "liger:dpo",
    *(f"liger:{kind}" for kind in ("cpo", "simpo", "simpo?compute_nll_loss=false", "orpo", "kto")),
    "liger:kto?use_ref_model=true",
    *(f"openrlhf:dpo?{option}" for option in ("beta=0.1", "beta=0.1&ipo=true", "beta=0.1&label_smoothing=0.1")),
)  # fmt: skip
GALLERY = (*_TRL, *_LIGER, *_VERL, *_OTHERS, *_PAIRS)
"""The losses of the gallery, as addresses, by trainer."""

LEFT_OUT: Mapping[str, str] = {
    "TRL `SFTTrainer`, `RewardTrainer`": "no policy gradient, preference or distillation loss",
    "TRL `DPOTrainer`, `f_divergence_type=alpha_divergence`": "its code knows float16, bfloat16 and float32 only, the"
    " audit computes in float64",
    "TRL `AsyncGRPOTrainer`": "its loss takes packed sequences with the keys of its own rollout workers; the surrogate"
    " in it is that of `trl:grpo?loss_type=bnpo`",
    "TRL `A2POTrainer`": "regresses on an optimal value of every prompt that it estimates by generating beforehand",
    "TRL `ServerDistillationTrainer`, `AsyncDistillationTrainer`": "the teacher's log-probabilities arrive from a vLLM"
    " server",
    "TRL `GOLDTrainer`, the part across tokenizers (ULD)": "needs two tokenizers",
    "TRL `SDPOTrainer`, the policy loss": "that of `trl:grpo` with another set of advantages",
    "ms-swift's trainers": "subclasses of TRL's that are built with a model; their own divergence"
    " (`swift:jsd`) is audited",
    "OpenRLHF `ValueLoss`, `PairWiseLoss`, `LogExpLoss`, `SFTLoss`": "losses of value heads, reward models and data",
    "torchrl `SFTLoss`": "a supervised loss on summed log-probabilities of data",
}
"""Losses of the audited packages that the gallery does not run, and why."""
