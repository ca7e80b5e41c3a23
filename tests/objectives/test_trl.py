"""klsim's losses against the installed TRL's own loss code, on random batches; where their conventions differ."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.objectives import TokenBatch

pytest.importorskip("trl")

B, T, V, G = 6, 5, 4, 3


def made(seed, *, near=0.4):
    """A batch off-policy by ``near`` log-units, another sampler, ragged lengths; values in float64."""
    rng = np.random.default_rng(seed)
    laws = {name: np.log(rng.dirichlet(np.ones(V), (B, T))) for name in ("ref", "teacher")}
    vocab = np.log(rng.dirichlet(np.ones(V), (B, T)))
    tokens = rng.integers(0, V, (B, T))
    mask = np.arange(T) < rng.integers(1, T + 1, B)[:, None]

    def at(law):
        return np.take_along_axis(law, tokens[..., None], -1)[..., 0]

    old = at(vocab) + near * rng.standard_normal((B, T))
    fields = {
        "log_probs": at(vocab), "old_log_probs": old, "rollout_log_probs": old + 0.3 * rng.standard_normal((B, T)),
        "ref_log_probs": at(laws["ref"]), "teacher_log_probs": at(laws["teacher"]), "vocab_log_probs": vocab,
        "teacher_vocab_log_probs": laws["teacher"], "tokens": tokens, "mask": mask,
        "rewards": rng.standard_normal(B), "group": np.repeat(np.arange(B // G), G),
    }  # fmt: skip
    return TokenBatch(**{name: torch.tensor(x) for name, x in fields.items()})


def sample_advantages(batch):
    """What TRL's generation step computes: group mean and sample std, no epsilon."""
    return o.advantages(batch.rewards, batch.group, scale=o.group_sample_std)


def trl_grpo(batch, advantages, **options):
    """``GRPOTrainer._compute_loss`` with only what surrounds it replaced."""
    from trl import GRPOTrainer

    args = SimpleNamespace(
        delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0,
        vespo_k_neg=3.0, vespo_lambda_neg=2.0, steps_per_generation=1, use_bias_correction_kl=False,
    )  # fmt: skip
    entropy = -(batch.vocab_log_probs.exp() * batch.vocab_log_probs).sum(-1)
    settings = {
        "args": args, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "beta": 0.0, "loss_type": "grpo",
        "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "use_vllm": False,
        "vllm_importance_sampling_correction": False, "current_gradient_accumulation_steps": 1,
        "max_completion_length": T, "aux_loss_enabled": False, "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False, "model": SimpleNamespace(training=True), "_metrics": defaultdict(
            lambda: defaultdict(list)
        ),
        "accelerator": SimpleNamespace(
            num_processes=1, sync_gradients=True, gather=lambda x: x, gather_for_metrics=lambda x: x,
            reduce=lambda x, reduction: x,
        ),
        "_get_per_token_logps_and_entropies": lambda *a, **k: (batch.log_probs, entropy, None),
        "get_off_policy_mask": GRPOTrainer.get_off_policy_mask, "get_gamma_weights": GRPOTrainer.get_gamma_weights,
    }  # fmt: skip
    mask = batch.mask.to(torch.int64)
    inputs = {
        "prompt_ids": batch.tokens[:, :1], "prompt_mask": torch.ones_like(mask[:, :1]), "completion_ids": batch.tokens,
        "completion_mask": mask, "old_per_token_logps": batch.old_log_probs, "advantages": advantages,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    extra = options.pop("inputs", {})
    changed = SimpleNamespace(**settings | {"args": SimpleNamespace(**vars(args) | options.pop("args", {}))} | options)
    return float(GRPOTrainer._compute_loss(changed, None, inputs | extra))


GEOMETRIC = {"importance_sampling_level": "sequence"}
CASES = {
    "grpo": (lambda b: o.grpo(b, std="sample"), {}),
    "bnpo": (o.bnpo, {"loss_type": "bnpo"}),
    "dapo": (lambda b: o.dapo(b, clip=(0.2, 0.2), dynamic_sampling=False), {"loss_type": "dapo"}),
    "dr_grpo": (o.dr_grpo, {"loss_type": "dr_grpo"}),
    "clip-higher": (lambda b: o.grpo(b, clip=(0.2, 0.4)), {"epsilon_high": 0.4}),
    "gspo": (lambda b: o.gspo(b, clip=(0.1, 0.2)), {"epsilon_low": 0.1, **GEOMETRIC}),
    "sapo": (o.sapo, {"loss_type": "sapo"}),
    "sapo, temperatures": (
        lambda b: o.sapo(b, positive=2.0, negative=3.0),
        {"loss_type": "sapo", "args": {"sapo_temperature_pos": 2.0, "sapo_temperature_neg": 3.0}},
    ),
    "luspo": (lambda b: o.luspo(b, clip=(0.1, 0.2)), {"loss_type": "luspo", "epsilon_low": 0.1, **GEOMETRIC}),
    "vespo": (lambda b: o.vespo(b.replace(rollout_log_probs=None)), {"loss_type": "vespo"}),
    "cispo, the bound itself": (lambda b: o.cispo(b, clip=(math.inf, 0.5)), {"loss_type": "cispo", "epsilon_high": 1.5}),
    "off-policy mask": (
        lambda b: o.off_policy_masked(b.replace(rollout_log_probs=None), threshold=0.1),
        {"off_policy_mask_threshold": 0.1},
    ),
    "dual clip": (
        lambda b: o.dual_clip(b, ceiling=1.3, aggregate=o.sequence_mean),
        {"args": {"delta": 1.3}},
    ),
    "entropy bonus": (
        lambda b: (o.grpo(b)[0] + o.entropy_bonus(b, coefficient=0.1)[0], {}),
        {"_entropy_bonus_enabled": True, "entropy_coef": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_losses_of_grpo_trainer(case, seed):
    loss, options = CASES[case]
    batch = made(seed)
    advantages = sample_advantages(batch)
    wanted = trl_grpo(batch, advantages, **options)
    rounding = 1e-7 if case == "sapo" else 1e-12  # TRL holds the temperature 1.05 in float32
    assert math.isclose(float(loss(batch.replace(advantages=advantages))[0]), wanted, rel_tol=1e-9, abs_tol=rounding)


def test_the_sample_std_is_what_trl_divides_by():
    batch = made(0)
    assert math.isclose(float(o.grpo(batch, std="sample")[0]), trl_grpo(batch, sample_advantages(batch)), rel_tol=1e-9)
    assert not math.isclose(float(o.grpo(batch)[0]), trl_grpo(batch, sample_advantages(batch)), rel_tol=1e-3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_importance_corrections(mode, seed):
    """TRL computes the weight while it generates (``exp`` of the masked difference, clipped or zeroed) and multiplies."""
    batch = made(seed)
    level, beyond = mode.split("_")
    gap = (batch.old_log_probs - batch.rollout_log_probs) * batch.mask
    gap = gap if level == "token" else gap.sum(1, keepdim=True)
    ratio = gap.exp()
    ratio = ratio.clamp(max=1.2) if beyond == "truncate" else ratio.masked_fill(ratio > 1.2, 0.0)
    advantages = sample_advantages(batch)
    wanted = trl_grpo(
        batch, advantages, use_vllm=True, vllm_importance_sampling_correction=True, loss_type="bnpo",
        inputs={"importance_sampling_ratio": ratio},
    )  # fmt: skip
    loss = o.tis if beyond == "truncate" else o.mis
    found = loss(batch.replace(advantages=advantages), level=level, high=1.2)[0]
    assert math.isclose(float(found), wanted, rel_tol=1e-9)


def test_vespo_with_another_sampler_and_its_gamma_weights():
    from trl import GRPOTrainer

    batch = made(1)
    advantages = sample_advantages(batch)
    ratio = ((batch.old_log_probs - batch.rollout_log_probs) * batch.mask).exp()
    wanted = trl_grpo(batch, advantages, loss_type="vespo", inputs={"importance_sampling_ratio": ratio})
    assert math.isclose(float(o.vespo(batch.replace(advantages=advantages))[0]), wanted, rel_tol=1e-9)
    log_w = torch.linspace(-15, 5, 9, dtype=torch.float64)[:, None]
    weights = GRPOTrainer.get_gamma_weights(torch.ones(9, 1), log_w, torch.ones(9, 1), None)
    from klsim.objectives.trust_region import gamma_weight

    assert torch.allclose(weights, gamma_weight(log_w, 2 + 0 * log_w, 3 + 0 * log_w), rtol=1e-6, atol=1e-30)


def test_gmpo():
    from trl.experimental.gmpo import GMPOTrainer

    batch = made(2)
    advantages = sample_advantages(batch)
    entropy = torch.zeros(B, T, dtype=torch.float64)
    mask = batch.mask.to(torch.int64)
    stub = SimpleNamespace(
        top_entropy_quantile=1.0, beta=0.0, epsilon_low=0.4, epsilon_high=0.3, model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, _metrics=defaultdict(lambda: defaultdict(list)),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x),
        _get_per_token_logps_and_entropies=lambda *a, **k: (batch.log_probs, entropy, None), aux_loss_enabled=False,
    )  # fmt: skip
    inputs = {
        "prompt_ids": batch.tokens[:, :1], "prompt_mask": torch.ones_like(mask[:, :1]), "completion_ids": batch.tokens,
        "completion_mask": mask, "old_per_token_logps": batch.old_log_probs, "advantages": advantages,
    }  # fmt: skip
    wanted = float(GMPOTrainer._compute_loss(stub, None, inputs))
    found = o.gmpo(batch.replace(advantages=advantages), clip=(0.4, 0.3))[0]
    assert math.isclose(float(found), wanted, rel_tol=1e-9)


def pairs(seed):
    batch = made(seed)
    return batch.replace(group=torch.arange(B) // 2, preferred=torch.arange(B) % 2 == 0)


def totals(batch):
    total = (batch.log_probs * batch.mask).sum(1)
    return total, batch.mask.sum(1)


@pytest.mark.parametrize("loss_type", ["sigmoid", "simpo"])
def test_cpo_and_simpo(loss_type):
    from trl.experimental.cpo import CPOTrainer

    batch = pairs(3)
    total, length = totals(batch)
    score = total / length if loss_type == "simpo" else total
    stub = SimpleNamespace(
        alpha=0.0, beta=0.7, loss_type=loss_type, simpo_gamma=0.4, label_smoothing=0.1,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    wanted = CPOTrainer.cpo_loss(stub, score[::2], score[1::2])[0].mean()
    if loss_type == "simpo":
        found = o.simpo(batch, beta=0.7, gamma=0.4, label_smoothing=0.1)[0]
    else:
        found = o.cpo(batch, beta=0.7, alpha=0.0, label_smoothing=0.1)[0]
    assert torch.isclose(found, wanted, rtol=1e-9)


def test_orpo():
    from trl.experimental.orpo import ORPOTrainer

    batch = pairs(4)
    total, length = totals(batch)
    stub = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    losses = ORPOTrainer.odds_ratio_loss(stub, (total / length)[::2], (total / length)[1::2])[0]
    token_mean = -(total[::2].sum() / length[::2].sum())
    # TRL computes the odds in float32
    assert torch.isclose(o.orpo(batch, beta=0.3, aggregate=o.token_mean)[0], token_mean - losses.mean(), rtol=1e-5)


def test_iw_opd():
    from trl.experimental.iw_opd import IWOPDTrainer

    batch = made(5)
    logits = batch.vocab_log_probs
    stub = SimpleNamespace(
        temperature=1.0, iw_opd_gamma=0.5, iw_opd_epsilon=1e-8, model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    labels = torch.where(batch.mask, batch.tokens, -100)
    wanted = IWOPDTrainer._compute_iw_opd_loss(
        stub, logits, batch.tokens, labels, batch.teacher_log_probs, batch.rollout_log_probs
    )
    assert torch.isclose(o.iw_opd(batch)[0], wanted, rtol=1e-9)


@pytest.mark.parametrize("tail", [True, False])
def test_the_divergence_on_one_token(tail):
    """TRL's top-1 losses, forward KL: with a tail bucket, or renormalised (then 0, whatever the student is)."""
    from trl.experimental.iw_opd.iw_opd_trainer import _add_tail_bucket, _jsd_divergence

    batch = made(6)
    best = batch.teacher_vocab_log_probs.argmax(-1, keepdim=True)
    student, teacher = (law.gather(-1, best) for law in (batch.vocab_log_probs, batch.teacher_vocab_log_probs))
    mask = torch.ones_like(best, dtype=torch.bool)
    if tail:
        (student, support), (teacher, _) = _add_tail_bucket(student, mask), _add_tail_bucket(teacher, mask)
    else:
        student, teacher, support = student - student, teacher - teacher, mask
    for beta, direction in ((0, "forward"), (1, "reverse")):
        wanted = (_jsd_divergence(student, teacher, beta, support).sum(-1) * batch.mask).sum() / batch.mask.sum()
        found = o.top_k_opd(batch, k=1, form="tail" if tail else "renormalized", direction=direction)[0]
        assert torch.isclose(found, wanted, rtol=1e-9, atol=1e-14)


def same(x):
    return x


ACCELERATOR = SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)


def outputs(log_probs, mask):
    """What TRL's patched head returns, the prompt's only position in front."""
    zeros = torch.zeros_like(log_probs)
    return SimpleNamespace(log_probs=log_probs * mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def with_prompt(mask):
    return torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_dpo_trainer(loss_type, seed):
    from trl import DPOTrainer

    batch = pairs(seed)
    order = torch.tensor([0, 2, 4, 1, 3, 5])  # TRL: all chosen, then all rejected
    mask, log_probs = batch.mask[order].to(torch.int64), batch.log_probs[order]
    ref = (batch.ref_log_probs * batch.mask).sum(1)[order]
    stub = SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=ACCELERATOR, aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0], beta=0.3,
        use_weighting=False, _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, label_smoothing=0.0,
    )  # fmt: skip
    inputs = {
        "input_ids": with_prompt(batch.tokens[order]), "completion_mask": with_prompt(mask),
        "attention_mask": with_prompt(mask), "ref_chosen_logps": ref[:3], "ref_rejected_logps": ref[3:],
    }  # fmt: skip
    wanted = DPOTrainer._compute_loss(stub, lambda **_: outputs(log_probs, mask), inputs, False)
    found = o.dpo(batch, beta=0.3) if loss_type == "sigmoid" else o.ipo(batch, beta=0.3, length_normalized=True)
    assert torch.isclose(found[0], wanted, rtol=1e-9)
    if loss_type == "ipo":
        assert not torch.isclose(o.ipo(batch, beta=0.3)[0], wanted, rtol=1e-2)


@pytest.mark.parametrize("shift", [0.5, -5.0])
def test_kto_trainer(shift):
    from trl import KTOTrainer

    batch = pairs(7)
    mask = batch.mask.to(torch.int64)
    ref = (batch.ref_log_probs * batch.mask).sum(1)
    stub = SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=ACCELERATOR, aux_loss_enabled=False, calculate_KL=True,
        precompute_ref_logps=True, loss_type="kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.5,
        _compute_kl_logps=lambda model, inputs: ref + shift, _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )  # fmt: skip
    inputs = {
        "label": batch.preferred, "input_ids": with_prompt(batch.tokens), "completion_mask": with_prompt(mask),
        "attention_mask": with_prompt(mask), "ref_logps": ref, "ref_KL_logps": ref,
    }  # fmt: skip
    wanted = KTOTrainer._compute_loss(stub, lambda **_: outputs(batch.log_probs, mask), inputs, False)
    found = o.kto(batch, beta=0.3, desirable_weight=1.5, undesirable_weight=0.5, reference_point=max(shift, 0.0))
    assert torch.isclose(found[0], wanted, rtol=1e-9)
