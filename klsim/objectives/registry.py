r"""Every objective with what it claims to be the gradient of; the claims are measured, not believed.

An `Objective` names the combination of population gradients (`klsim.learning.functional_gradient`) that its
expected on-policy gradient equals, or the bias it has instead. Tests, ``klsim objectives`` and the
documentation iterate over `OBJECTIVES`; no number is written down twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from klsim.objectives import distillation, kl, off_policy, stabilizers
from klsim.objectives import policy_gradient as pg
from klsim.objectives.advantages import (
    advantages,
    batch_mean,
    batch_std,
    group_mean,
    group_std,
    prompt_weights,
)
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch

__all__ = ["OBJECTIVES", "Objective", "Setting"]

Coefficients = Mapping[str, float]
Where = Literal["any", "binary", "binary, equal lengths", "one token"]
BETA = 0.3
LAM = 1.25


@dataclass(frozen=True)
class Setting:
    """What a claim may depend on.

    Attributes:
        group_size: responses a prompt. success: ``E[r]`` of every prompt. length: the horizon T.
        value: the value of a named functional of the policy.
    """

    group_size: int
    success: np.ndarray
    length: int
    value: Callable[[str], float]

    @property
    def correction(self) -> float:
        """``(G-1)/G``: what the group mean leaves of the gradient."""
        return (self.group_size - 1) / self.group_size

    def weight(self, estimator: Callable[[Any, Any], Any]) -> np.ndarray:
        """`prompt_weights` of an estimator here."""
        return prompt_weights(estimator, self.success, self.group_size)

    @property
    def std_weight(self) -> float:
        """That of group normalisation, one prompt."""
        return float(self.weight(partial(advantages, baseline=group_mean, scale=group_std))[0])


@dataclass(frozen=True)
class Objective:
    """One objective of the literature in the form that its claim is about.

    Attributes:
        name, family, source: for people. loss: of a batch, to be minimised.
        population: coefficients of the population gradients that the expected gradient equals; None if there is no
            such combination, then ``bias`` says what happens instead.
        where: the problems on which the claim holds. bias: in words.
        off_policy: the claim for responses of another policy (``"same"``: as on-policy); None: it has a bias there.
        draws: who writes the responses: the policy, or the reference (rehearsal, SFT).
        prompts, group_size, external: of a batch. prefix: tokens that responses are conditioned on.
        seen_as: the prompt with the reference that the objective makes for itself; the claim is about that one.
        optimum: name of the closed form that ascent ends at, see `klsim.report.objectives`.
    """

    name: str
    family: str
    source: str
    loss: Callable[[TokenBatch], Loss]
    population: Callable[[Setting], Coefficients] | None
    where: Where = "any"
    bias: str = ""
    off_policy: Callable[[Setting], Coefficients] | Literal["same"] | None = None
    draws: Literal["policy", "ref"] = "policy"
    prompts: int = 1
    group_size: int = 2
    external: int = 0
    prefix: tuple[int, ...] = ()
    seen_as: Callable[[Any], Any] | None = None
    optimum: str = ""


def _terms(coefficients: Coefficients) -> Callable[[Setting], Coefficients]:
    return lambda setting: coefficients


def _summed(loss: Callable[..., Loss], **options: Any) -> Callable[[TokenBatch], Loss]:
    """The loss with its tokens summed, so that it is an expectation over responses."""
    return partial(loss, aggregate=sequence_sum, **options)


def _by_prompt(estimator: Callable[[Any, Any], Any]) -> Callable[[Setting], Coefficients]:
    """Token mean, equal lengths: ``-w_q/T grad p_q`` for every prompt."""
    return lambda s: {f"reward@{q}": -w / s.length for q, w in enumerate(s.weight(estimator))}


def _band(rewards: Any, group: Any) -> Any:
    """Advantages of difficulty filtering, one group."""
    kept = off_policy.keep_by_success(rewards, group)
    return np.where(kept, advantages(rewards, group, baseline=group_mean, scale=group_std), 0.0)


def _sngs(rewards: Any, group: Any) -> Any:
    advantage = advantages(rewards, group, baseline=group_mean, scale=group_std)
    return stabilizers.sngs(advantage, rewards, group)


def _sngs_loss(batch: TokenBatch) -> Loss:
    return pg.surrogate(batch, _sngs(batch.total_rewards(), batch.groups()), aggregate=sequence_sum)


def _salsa(batch: TokenBatch) -> Loss:
    refs = batch.need("ref_vocab_log_probs", "teacher_vocab_log_probs")
    soup = kl.sampled(kl.soup(list(refs), [0.5, 0.5]), *batch.need("tokens"))
    return _reg(batch.replace(ref_log_probs=soup))


def _souped(prompt: Any) -> Any:
    levels = zip(prompt.log_ref, prompt.log_teacher)
    return replace(prompt, log_ref=tuple(kl.soup(list(pair), [0.5, 0.5]) for pair in levels))


def _reinforce_pp(rewards: Any, group: Any) -> Any:
    return advantages(rewards, group, baseline=batch_mean, scale=batch_std)


def _pro_rl(rewards: Any, group: Any) -> Any:
    return _reinforce_pp(advantages(rewards, group, baseline=group_mean), group)


def _after_one(batch: TokenBatch) -> Loss:
    return off_policy.prefix_rl(batch, batch.xp.ones(batch.log_probs.shape[0], dtype=batch.xp.int64))


def _wrong(batch: TokenBatch) -> Loss:
    return off_policy.self_objective(batch, batch.xp.ones(batch.log_probs.shape[0], dtype=batch.xp.bool), beta=BETA)


def _safe(s: Setting) -> Coefficients:
    return {"reverse_kl(frozen)": 2 * 0.1 * max(s.value("reverse_kl(frozen)") - 0.05, 0.0)}


def _kl(estimator: Literal["k1", "k2", "k3"], importance: bool = False) -> Callable[[TokenBatch], Loss]:
    return partial(kl.kl_in_loss, estimator=estimator, importance=importance, aggregate=sequence_sum)


def _reg(batch: TokenBatch) -> Loss:
    return pg.rloo(kl.kl_in_reward(batch, beta=BETA))


def _with_loss(penalty: Callable[[TokenBatch], Loss]) -> Callable[[TokenBatch], Loss]:
    """`rloo` plus ``BETA`` times a KL term in the loss."""

    def loss(batch: TokenBatch) -> Loss:
        main, metrics = pg.rloo(batch)
        extra, more = penalty(batch)
        return main + BETA * extra, metrics | more

    return loss


_PG, _KL, _DISTIL, _DATA, _STABLE = "policy gradient", "KL term", "distillation", "off-policy and data", "stabiliser"
_RATIO = "the std of a group (and a mean over the tokens of a batch) is a ratio estimator"

_ALL = (
    Objective("reinforce", _PG, "Williams 1992", pg.reinforce, _terms({"reward": -1.0}), off_policy="same",
              optimum="best response"),
    Objective("rloo", _PG, "Ahmadian et al. 2024", pg.rloo, _terms({"reward": -1.0}), off_policy="same",
              optimum="best response"),
    Objective("grpo", _PG, "DeepSeekMath", pg.grpo, lambda s: {"reward_per_token": -s.std_weight}, "binary",
              "1/length per response, w(p) per prompt", group_size=3, optimum="best response"),
    Objective("grpo, graded rewards", _PG, "DeepSeekMath", pg.grpo, None, "any", _RATIO, group_size=3),
    Objective("dr_grpo", _PG, "Liu et al. 2025", pg.dr_grpo, lambda s: {"reward": -s.correction / s.length},
              bias="none beyond the factor (G-1)/(G T)", group_size=3, optimum="best response"),
    Objective("dapo", _PG, "DAPO 2025", pg.dapo, lambda s: {"reward": -s.std_weight / s.length},
              "binary, equal lengths", "w(p) per prompt", group_size=3, optimum="best response"),
    Objective("dapo, variable lengths", _PG, "DAPO 2025", pg.dapo, None, "binary", _RATIO, group_size=3),
    Objective("gspo", _PG, "Qwen 2025", pg.gspo, lambda s: {"reward_per_token": -s.std_weight}, "binary",
              "as GRPO on-policy", group_size=3, optimum="best response"),
    Objective("reinforce_pp", _PG, "Hu 2025", pg.reinforce_pp, _by_prompt(_reinforce_pp), "binary, equal lengths",
              "prompts keep their weight up to O(1/batch)", prompts=2, optimum="best response"),
    Objective("reinforce_pp, group baseline", _PG, "ProRL v2", partial(pg.reinforce_pp, group_baseline=True),
              _by_prompt(_pro_rl), "binary, equal lengths", "as above", prompts=2, optimum="best response"),
    Objective("lite_ppo", _PG, "tricks-or-traps", pg.lite_ppo,
              _by_prompt(partial(advantages, baseline=group_mean, scale=batch_std)), "binary, equal lengths",
              "the batch's std is one factor for all prompts", prompts=2, optimum="best response"),
    Objective("cispo", _PG, "MiniMax-M1", pg.cispo, lambda s: {"reward": -s.std_weight / s.length},
              "binary, equal lengths", "w(p) per prompt", group_size=3, optimum="best response"),
    Objective("k1 in the loss", _KL, "gopd C13", _kl("k1"), _terms({}), bias="no gradient at all"),
    Objective("k2 in the loss", _KL, "gopd C13", _kl("k2"), _terms({"reverse_kl(frozen)": 1.0}), optimum="reference"),
    Objective("k3 in the loss", _KL, "kdrl C1", _kl("k3"), _terms({"forward_kl(frozen)": 1.0}),
              bias="the forward KL, not the reverse KL it estimates", optimum="reference"),
    Objective("rho k1 in the loss", _KL, "kdrl C1", _kl("k1", True), _terms({"reverse_kl(frozen)": 1.0}),
              off_policy="same", optimum="reference"),
    Objective("rho k2 in the loss", _KL, "kdrl C1", _kl("k2", True), None, bias="k2 is no unbiased value"),
    Objective("rho k3 in the loss", _KL, "kdrl C1", _kl("k3", True), _terms({"reverse_kl(frozen)": 1.0}),
              off_policy="same", optimum="reference"),
    Objective("rloo + k1 in the reward", _KL, "klbayes", _reg, _terms({"reward": -1.0, "reverse_kl": BETA}),
              off_policy="same", optimum="sequence tilt"),
    Objective("salsa", _KL, "salsa C3", _salsa, _terms({"reward": -1.0, "reverse_kl": BETA}), seen_as=_souped,
              bias="KL to the soup; the second SFT model stands in the teacher's place", off_policy="same"),
    Objective("rloo + k2 in the loss", _KL, "kdrl C2", _with_loss(_kl("k2")),
              _terms({"reward": -1.0, "reverse_kl(frozen)": BETA}), bias="the KL's credit stops at its own token",
              optimum="token tilt"),
    Objective("rloo + k3 in the loss", _KL, "klbayes C8", _with_loss(_kl("k3")),
              _terms({"reward": -1.0, "forward_kl(frozen)": BETA}), bias="forward KL"),
    *(
        Objective(f"divergence {name}", _KL, "dph-rl, rapo", _summed(kl.divergence, generator=name),
                  _terms({f"{name}(frozen)": 1.0}), off_policy="same", optimum="reference")
        for name in ("kl", "forward_kl", "js", "chi2", "hellinger", "alpha(0.5)")
    ),
    Objective("dph_rl forward_kl", _KL, "dph-rl C2", kl.dph_rl, _terms({"forward_kl": 1.0}), draws="ref",
              optimum="reference"),
    Objective("dph_rl js", _KL, "dph-rl C8", partial(kl.dph_rl, generator="js"), _terms({"js(ref visits)": 1.0}),
              draws="ref", bias="per token, not the divergence of sequences", optimum="reference"),
    Objective("rapo, score", _KL, "rapo C4", partial(kl.rapo, cap=math.inf), _terms({"forward_kl(frozen)": 1.0}),
              optimum="reference"),
    Objective("rapo, back-propagated", _KL, "rapo C4", partial(kl.rapo, form="backprop"), None,
              bias="-E_ref[log(ref/pi) grad log pi]: not the gradient of the KL it estimates"),
    Objective("sft", _DISTIL, "-", _summed(distillation.sft), _terms({"forward_kl": 1.0}), draws="ref",
              optimum="reference"),
    Objective("opd", _DISTIL, "gopd C4", _summed(distillation.opd),
              _terms({"reverse_kl(teacher, frozen)": 1.0}), optimum="teacher"),
    Objective("opd, discount 1", _DISTIL, "gopd C4", _summed(distillation.opd, discount=1.0),
              _terms({"reverse_kl(teacher)": 1.0}), optimum="teacher"),
    Objective("g_opd", _DISTIL, "gopd C4", _summed(distillation.g_opd, lam=LAM),
              _terms({"reverse_kl(teacher, frozen)": LAM, "reverse_kl(frozen)": 1 - LAM}), optimum="token mixture"),
    Objective("g_opd, discount 1", _DISTIL, "gopd C4", _summed(distillation.g_opd, lam=LAM, discount=1.0),
              _terms({"reverse_kl(teacher)": LAM, "reverse_kl": 1 - LAM}), optimum="sequence mixture"),
    Objective("g_opd, full vocabulary", _DISTIL, "gopd C3", _summed(distillation.g_opd_full, lam=LAM),
              _terms({"reverse_kl(teacher, frozen)": LAM, "reverse_kl(frozen)": 1 - LAM}), off_policy="same",
              optimum="token mixture"),
    Objective("gkd, mix 0.5", _DISTIL, "Agarwal et al. 2024", _summed(distillation.gkd, mix=0.5),
              _terms({"js(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("gkd, mix 0", _DISTIL, "Agarwal et al. 2024", _summed(distillation.gkd, mix=0.0),
              _terms({"forward_kl(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("gkd, mix 1", _DISTIL, "Agarwal et al. 2024", _summed(distillation.gkd, mix=1.0),
              _terms({"reverse_kl(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("kdrl", _DISTIL, "kdrl", partial(distillation.kdrl, beta=BETA),
              lambda s: {"reward": -s.std_weight / s.length, "reverse_kl(teacher, frozen)": BETA / s.length},
              "binary, equal lengths", "w(p) on the reward only", group_size=3),
    Objective("kdrl, k3", _DISTIL, "kdrl C1", partial(distillation.kdrl, beta=BETA, estimator="k3"),
              lambda s: {"reward": -s.std_weight / s.length, "forward_kl(teacher, frozen)": BETA / s.length},
              "binary, equal lengths", "forward KL", group_size=3),
    Objective("trrd", _DISTIL, "rlad C2", distillation.trrd, None, "binary",
              "weights tokens by (old/T)^(1-alpha): against the teacher", group_size=3),
    Objective("vla_opd", _DISTIL, "vla-opd C1", distillation.vla_opd, _terms({"reverse_kl(teacher, frozen)": 1.0}),
              optimum="teacher"),
    Objective("hard cross-entropy", _DISTIL, "vla-opd C2", distillation.hard_cross_entropy, None,
              bias="imitates argmax T: collapses", optimum="teacher's mode"),
    Objective("rl_plus", _DATA, "rl-plus C1", partial(off_policy.rl_plus, vocab_size=3), None, "binary",
              "external samples alone do not make the ratio unbiased", group_size=2, external=1),
    Objective("prefix_rl", _DATA, "prefixrl C8", _after_one, lambda s: {"reward": -s.correction}, prefix=(1,),
              optimum="best response"),
    Objective("difficulty filtering", _DATA, "difficulty-filtering", off_policy.difficulty_filtering,
              lambda s: {"reward_per_token": -float(s.weight(_band)[0])}, "binary",
              "prompts weighted by the chance to fall into the band", group_size=3, optimum="best response"),
    Objective("self", _DATA, "reasoning-boundary", _wrong,
              lambda s: {"reward": -s.std_weight / s.length, "forward_kl(frozen)": BETA / s.length},
              "binary, equal lengths", "1/length weights; only where the greedy answer is wrong", group_size=3),
    Objective("rover", _DATA, "rover C6", _summed(off_policy.rover), lambda s: {"reward": -2 * s.correction},
              bias="at pi = old: the reward gradient, not the value it regresses", optimum="best response"),
    Objective("lp_reg", _STABLE, "lp-reg", partial(stabilizers.lp_reg, rho=0.5, kappa=0.1), None,
              "binary, equal lengths", "the gate depends on the whole batch", group_size=3),
    Objective("lp_reg, gate shut", _STABLE, "lp-reg", partial(stabilizers.lp_reg, rho=0.0),
              lambda s: {"reward": -s.std_weight / s.length}, "binary, equal lengths", "w(p) per prompt", group_size=3,
              optimum="best response"),
    Objective("apo", _STABLE, "apo C2", partial(stabilizers.apo, beta=BETA), None, "binary",
              "a reward-dependent weight on k3 pushes the forward KL and pays low-weight responses", group_size=3),
    Objective("hinge_kl", _STABLE, "safe C5", partial(stabilizers.hinge_kl, threshold=0.05), _safe, "one token",
              "not linear in the batch: exact for one prefix only", off_policy="same"),
    Objective("hinge_kl, detached", _STABLE, "safe C5",
              partial(stabilizers.hinge_kl, threshold=0.0, penalty="detached"), _terms({}),
              bias="no gradient at all", off_policy="same"),
    Objective("sngs", _STABLE, "gui-libra C5", _sngs_loss, lambda s: {"reward": -float(s.weight(_sngs)[0])}, "binary",
              "a factor in [1-p, 1] per prompt, nothing else", group_size=3, optimum="best response"),
)  # fmt: skip

OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL}
