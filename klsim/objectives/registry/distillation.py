"""Claims of distillation."""

from __future__ import annotations

from functools import partial

from klsim.objectives import distillation, support
from klsim.objectives.registry.objective import BETA, LAM, Objective, summed, terms

__all__ = ["DISTILLATION"]

_DISTIL = "distillation"

DISTILLATION: tuple[Objective, ...] = (
    Objective("sft, summed", _DISTIL, "-", summed(distillation.sft), terms({"forward_kl": 1.0}), draws="ref",
              optimum="reference"),
    Objective("opd, summed", _DISTIL, "gopd C4", summed(distillation.opd),
              terms({"reverse_kl(teacher, frozen)": 1.0}), optimum="teacher"),
    Objective("opd", _DISTIL, "gopd C4", distillation.opd,
              lambda s: {"reverse_kl(teacher, frozen)": 1 / s.length}, "equal lengths", "1/length", optimum="teacher"),
    Objective("opd, variable lengths", _DISTIL, "gopd C4", distillation.opd, None,
              bias="a mean over the tokens of a batch is a ratio estimator", optimum="teacher"),
    Objective("opd, discount 1", _DISTIL, "gopd C4", summed(distillation.opd, discount=1.0),
              terms({"reverse_kl(teacher)": 1.0}), optimum="teacher"),
    Objective("g_opd, summed", _DISTIL, "gopd C4", summed(distillation.g_opd, lam=LAM),
              terms({"reverse_kl(teacher, frozen)": LAM, "reverse_kl(frozen)": 1 - LAM}), optimum="token mixture"),
    Objective("g_opd, discount 1", _DISTIL, "gopd C4", summed(distillation.g_opd, lam=LAM, discount=1.0),
              terms({"reverse_kl(teacher)": LAM, "reverse_kl": 1 - LAM}), optimum="sequence mixture"),
    Objective("g_opd, full vocabulary", _DISTIL, "gopd C3", summed(distillation.g_opd_full, lam=LAM),
              terms({"reverse_kl(teacher, frozen)": LAM, "reverse_kl(frozen)": 1 - LAM}), off_policy="same",
              optimum="token mixture"),
    Objective("gkd", _DISTIL, "Agarwal et al. 2024", distillation.gkd,
              lambda s: {"js(teacher, frozen)": 1 / s.length}, "equal lengths", "1/length", off_policy="same",
              optimum="teacher"),
    Objective("gkd, mix 0.5", _DISTIL, "Agarwal et al. 2024", summed(distillation.gkd, mix=0.5),
              terms({"js(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("gkd, mix 0", _DISTIL, "Agarwal et al. 2024", summed(distillation.gkd, mix=0.0),
              terms({"forward_kl(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("gkd, mix 1", _DISTIL, "Agarwal et al. 2024", summed(distillation.gkd, mix=1.0),
              terms({"reverse_kl(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher"),
    Objective("kdrl", _DISTIL, "kdrl", partial(distillation.kdrl, beta=BETA),
              lambda s: {"reward": -s.std_weight / s.length, "reverse_kl(teacher, frozen)": BETA / s.length},
              "binary, equal lengths", "w(p) on the reward only", group_size=3),
    Objective("kdrl, k3", _DISTIL, "kdrl C1", partial(distillation.kdrl, beta=BETA, estimator="k3"),
              lambda s: {"reward": -s.std_weight / s.length, "forward_kl(teacher, frozen)": BETA / s.length},
              "binary, equal lengths", "forward KL", group_size=3),
    Objective("trrd", _DISTIL, "rlad C2", distillation.trrd, None, "binary",
              "weights tokens by (old/T)^(1-alpha): against the teacher", group_size=3),
    Objective("vla_opd", _DISTIL, "vla-opd C1", distillation.vla_opd, terms({"reverse_kl(teacher, frozen)": 1.0}),
              optimum="teacher"),
    Objective("hard cross-entropy", _DISTIL, "vla-opd C2", distillation.hard_cross_entropy, None,
              bias="imitates argmax T: collapses", optimum="teacher's mode"),
    *(
        Objective(f"top_k_opd, {form}, k = V, summed", _DISTIL, "TRL, verl", summed(support.top_k_opd, k=3, form=form),
                  terms({"reverse_kl(teacher, frozen)": 1.0}), off_policy="same", optimum="teacher", deep=(3, 2))
        for form in ("truncated", "renormalized", "tail")
    ),
    Objective("top_k_opd, tail, k = 1, summed", _DISTIL, "TRL, verl", summed(support.top_k_opd), None,
              bias="matches the teacher's first token and the rest as a whole"),
    Objective("top_k_opd, truncated, k = 1, summed", _DISTIL, "TRL, verl", summed(support.top_k_opd, form="truncated"),
              None, bias="smallest at T/e on the top tokens: lets the rest of the mass leave the teacher"),
    Objective("top_k_opd, renormalized, k = 1", _DISTIL, "TRL, verl", partial(support.top_k_opd, form="renormalized"),
              terms({}), bias="no gradient at all", off_policy="same"),
    Objective("top_k_opd, renormalized, k = 2, summed", _DISTIL, "TRL, verl",
              summed(support.top_k_opd, k=2, form="renormalized"), None,
              bias="leaves the mass outside the top tokens free"),
    Objective("skew_kl, summed", _DISTIL, "Ko et al. 2024", summed(support.skew_kl), None,
              bias="a divergence of its own: T against 0.1 T + 0.9 pi, visits held fixed", optimum="teacher"),
    Objective("skew_kl, reverse, summed", _DISTIL, "Ko et al. 2024", summed(support.skew_kl, direction="reverse"), None,
              bias="a divergence of its own: pi against 0.1 pi + 0.9 T, visits held fixed", optimum="teacher"),
    Objective("minillm, not length-normalised", _DISTIL, "Gu et al. 2024",
              partial(support.minillm, length_normalized=False), terms({"reverse_kl(teacher)": 1.0}),
              optimum="teacher"),
    Objective("minillm", _DISTIL, "Gu et al. 2024", support.minillm, None,
              bias="a token's return is the mean over the tokens after it: from three tokens on no divergence",
              optimum="teacher"),
    Objective("iw_opd", _DISTIL, "Xie et al. 2026", support.iw_opd, None,
              bias="a token's weight depends on the tokens after it", optimum="teacher"),
)  # fmt: skip
"""Rows of the table: distillation from teachers."""
