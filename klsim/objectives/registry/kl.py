"""Claims of the KL terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from klsim.objectives import kl
from klsim.objectives import policy_gradient as pg
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import BETA, Objective, summed, terms

__all__ = ["KL_TERMS"]

_KL = "KL term"


def _salsa(batch: TokenBatch) -> Loss:
    refs = batch.need("ref_vocab_log_probs", "teacher_vocab_log_probs")
    soup = kl.sampled(kl.soup(list(refs), [0.5, 0.5]), *batch.need("tokens"))
    return _reg(batch.replace(ref_log_probs=soup))


def _souped(prompt: Any) -> Any:
    levels = zip(prompt.log_ref, prompt.log_teacher)
    return replace(prompt, log_ref=tuple(kl.soup(list(pair), [0.5, 0.5]) for pair in levels))


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


KL_TERMS: tuple[Objective, ...] = (
    Objective("k1 in the loss", _KL, "gopd C13", _kl("k1"), terms({}), bias="no gradient at all"),
    Objective("k2 in the loss", _KL, "gopd C13", _kl("k2"), terms({"reverse_kl(frozen)": 1.0}), optimum="reference"),
    Objective("k3 in the loss", _KL, "kdrl C1", _kl("k3"), terms({"forward_kl(frozen)": 1.0}),
              bias="the forward KL, not the reverse KL it estimates", optimum="reference"),
    Objective("kl_in_loss", _KL, "DeepSeekMath", kl.kl_in_loss,
              lambda s: {"forward_kl(frozen)": 1 / s.length}, "equal lengths", "k3: the forward KL; 1/length"),
    Objective("kl_in_loss, variable lengths", _KL, "DeepSeekMath", kl.kl_in_loss, None,
              bias="k3 weighted by 1/length of the whole response"),
    Objective("k1 in the loss, default mean, variable lengths", _KL, "gopd C13",
              partial(kl.kl_in_loss, estimator="k1"), None,
              bias="the gradient of E[1/|y|]: descending it lengthens responses"),
    Objective("rho k1 in the loss", _KL, "kdrl C1", _kl("k1", True), terms({"reverse_kl(frozen)": 1.0}),
              off_policy="same", optimum="reference"),
    Objective("rho k2 in the loss", _KL, "kdrl C1", _kl("k2", True), None, bias="k2 is no unbiased value"),
    Objective("rho k3 in the loss", _KL, "kdrl C1", _kl("k3", True), terms({"reverse_kl(frozen)": 1.0}),
              off_policy="same", optimum="reference"),
    Objective("rloo + k1 in the reward", _KL, "klbayes", _reg, terms({"reward": -1.0, "reverse_kl": BETA}),
              off_policy="same", optimum="sequence tilt"),
    Objective("salsa", _KL, "salsa C3", _salsa, terms({"reward": -1.0, "reverse_kl": BETA}), seen_as=_souped,
              bias="KL to the soup; the second SFT model stands in the teacher's place", off_policy="same"),
    Objective("rloo + k2 in the loss", _KL, "kdrl C2", _with_loss(_kl("k2")),
              terms({"reward": -1.0, "reverse_kl(frozen)": BETA}), bias="the KL's credit stops at its own token",
              optimum="token tilt"),
    Objective("rloo + k3 in the loss", _KL, "klbayes C8", _with_loss(_kl("k3")),
              terms({"reward": -1.0, "forward_kl(frozen)": BETA}), bias="forward KL"),
    *(
        Objective(f"divergence {name}", _KL, "dph-rl, rapo", summed(kl.divergence, generator=name),
                  terms({f"{name}(frozen)": 1.0}), off_policy="same", optimum="reference")
        for name in ("kl", "forward_kl", "js", "chi2", "hellinger", "alpha(0.5)")
    ),
    Objective("dph_rl forward_kl", _KL, "dph-rl C2", kl.dph_rl, terms({"forward_kl": 1.0}), draws="ref",
              optimum="reference"),
    Objective("dph_rl js", _KL, "dph-rl C8", partial(kl.dph_rl, generator="js"), terms({"js(ref visits)": 1.0}),
              draws="ref", bias="per token, not the divergence of sequences", optimum="reference"),
    Objective("rapo, score", _KL, "rapo C4", partial(kl.rapo, cap=math.inf), terms({"forward_kl(frozen)": 1.0}),
              optimum="reference"),
    Objective("rapo, back-propagated", _KL, "rapo C4", partial(kl.rapo, form="backprop"), None,
              bias="-E_ref[log(ref/pi) grad log pi]: not the gradient of the KL it estimates"),
)  # fmt: skip
"""Rows of the table: KL terms in the loss and in the reward."""
