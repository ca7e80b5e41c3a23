"""The rows of the vocabulary losses: values and gradients of one tile of logits, in place.

A function of the heads' logits ``[R, V]``, scratch of their size, and the weight of each row (None: values only); it
returns one value a row and leaves ``w dD/ds`` in the student's logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from array_api_compat import array_namespace
from torch import Tensor

from klsim.divergences import Generator, divergence_of
from klsim.lm.logit_chunks import EXCLUDED, RowLoss

__all__ = [
    "BY_HAND",
    "autograd_rows",
    "exp_shifted",
    "forward_kl_rows",
    "from_maximum",
    "g_opd_rows",
    "log_prob_gradient_rows",
    "log_prob_rows",
    "mean_under",
    "mixture_rows",
]

_FAR = 80.0  # |log pi/T| beyond which the Jensen-Shannon terms are at their limit, exp(-80) < 1e-34


def exp_shifted(x: Tensor, out: Tensor) -> Tensor:
    """``out = exp(x)`` of logits whose maximum is 0; returns ``sum exp(x) [R, 1]``, in ``[1, V]``."""
    torch.exp(x, out=out)
    return out.sum(-1, keepdim=True)


def from_maximum(x: Tensor) -> Tensor:
    """Subtract every row's maximum, in place."""
    return x.sub_(x.amax(-1, keepdim=True))


def mean_under(values: Tensor, weights: Tensor, total: Tensor, out: Tensor) -> Tensor:
    """``out = values * weights``; returns ``sum out / total [R, 1]``."""
    torch.mul(values, weights, out=out)
    return out.sum(-1, keepdim=True).div_(total)


def centred(product: Tensor, mean: Tensor, weights: Tensor, scale: Tensor, out: Tensor) -> None:
    """``out = scale (product - mean weights)``; ``out`` may be ``weights``."""
    torch.addcmul(product, weights, mean, value=-1, out=out)
    out.mul_(scale)


def g_opd_rows(logits: Sequence[Tensor], scratch: Sequence[Tensor], scale: Tensor | None, *, lam: float) -> Tensor:
    """``E_pi[log pi - lam log T - (1-lam) log q]``; at ``lam = 1`` KL(pi‖T)."""
    s, t, *rest = map(from_maximum, logits)
    x = scratch[0]
    constant = lam * exp_shifted(t, x).double().log()
    if rest:
        constant += (1 - lam) * exp_shifted(rest[0], x).double().log()
        t.mul_(lam).add_(rest[0], alpha=1 - lam)
    inside = torch.sub(s, t, out=t)
    total = exp_shifted(s, s)
    mean = mean_under(inside, s, total, x)
    if scale is not None:
        centred(x, mean, s, scale / total, s)
    return (mean.double() + constant - total.double().log())[:, 0]


def forward_kl_rows(logits: Sequence[Tensor], scratch: Sequence[Tensor], scale: Tensor | None) -> Tensor:
    """``KL(T‖pi)``, gradient ``pi - T``."""
    s, t = map(from_maximum, logits)
    gap = torch.sub(t, s, out=scratch[0])
    total_t, total_s = exp_shifted(t, t), exp_shifted(s, s)
    mean = mean_under(gap, t, total_t, gap)
    if scale is not None:
        s.mul_(scale / total_s).addcmul_(t, scale / total_t, value=-1)
    return (mean.double() - total_t.double().log() + total_s.double().log())[:, 0]


def mixture_rows(logits: Sequence[Tensor], scratch: Sequence[Tensor], scale: Tensor | None, *, mix: float) -> Tensor:
    """``mix KL(T‖M) + (1-mix) KL(pi‖M)`` from ``e = log T/pi`` and ``log(M/pi) = log1p(mix expm1(e))``.

    An error of a row's normalisers shifts e by a constant, to which the value is stationary.
    """
    s, t = map(from_maximum, logits)
    e, log_m = torch.sub(t, s, out=scratch[0]), scratch[1]
    total_t, total_s = exp_shifted(t, t), exp_shifted(s, s)
    e.add_((total_s.double().log() - total_t.double().log()).to(e.dtype)).clamp_(-_FAR, _FAR)
    torch.expm1(e, out=log_m).mul_(mix).log1p_()
    to_teacher = mean_under(e.sub_(log_m), t, total_t, e)
    to_student = mean_under(log_m, s, total_s, e)
    if scale is not None:
        centred(e, to_student, s, scale * (mix - 1) / total_s, s)
    return (mix * to_teacher.double() - (1 - mix) * to_student.double())[:, 0]


def log_prob_rows(logits: Sequence[Tensor], scratch: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """``log pi(y)`` and the entropy, ``[2, R]``, of the tokens ``[R, 1]``."""
    s, x = from_maximum(logits[0]), scratch[0]
    total = exp_shifted(s, x)
    log_total = total.double().log()
    return torch.stack((s.gather(1, tokens) - log_total, log_total - mean_under(s, x, total, x)))[..., 0]


def log_prob_gradient_rows(
    logits: Sequence[Tensor], scratch: Sequence[Tensor], tokens: Tensor, g: Tensor, k: Tensor | None, entropy: Tensor
) -> None:
    """Leaves ``g ([a=y] - pi_a) - k pi_a (log pi_a + entropy)``."""
    s, x = from_maximum(logits[0]), scratch[0]
    total = exp_shifted(s, x)
    if k is None:
        torch.mul(x, -g / total, out=s)
    else:
        s.add_(entropy - total.log()).mul_(x)
        s.mul_(-k / total).addcmul_(x, -g / total)
    if torch.compiler.is_compiling():  # a scatter would be a kernel of its own
        s.add_(torch.where(torch.arange(s.shape[1], device=s.device) == tokens, g, 0))
    else:
        s.scatter_add_(1, tokens, g)


def autograd_rows(
    logits: Sequence[Tensor], scratch: Sequence[Tensor], scale: Tensor | None, *, generator: Generator
) -> Tensor:
    """``D_f(pi‖T)`` of any generator, differentiated by torch."""
    with torch.enable_grad():
        s = logits[0].detach().requires_grad_(scale is not None)
        log_p, log_q = torch.log_softmax(s, -1), torch.log_softmax(logits[1], -1)
        log_p, log_q = (torch.where(x < 0.1 * EXCLUDED, -math.inf, x) for x in (log_p, log_q))
        value = divergence_of(array_namespace(s), log_p, log_q, generator)
        if scale is not None:
            (gradient,) = torch.autograd.grad(value, s, scale[:, 0])
            logits[0].copy_(gradient)
    return value.detach().double()


BY_HAND: dict[str, RowLoss] = {
    "kl": partial(g_opd_rows, lam=1.0),
    "forward_kl": forward_kl_rows,
    "js": partial(mixture_rows, mix=0.5),
}
"""Divergences whose values and gradients are written by hand, by name."""
