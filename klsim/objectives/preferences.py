r"""Losses on preferences: DPO, IPO, KTO, ORPO, CPO, SimPO, and online DPO.

A batch holds pairs: groups of two responses to one prompt, ``preferred`` true for one of them (y+, the other is y-).
With ``h(y) = log pi(y)/ref(y)`` and ``m(y) = log pi(y)/|y|``, per pair:

=========  ==========================================================  =========
loss       formula                                                     reference
=========  ==========================================================  =========
`dpo`      ``-log sigma(beta (h(y+) - h(y-)))``                        yes
`ipo`      ``(h(y+) - h(y-) - 1/(2 beta))^2``                          yes
`simpo`    ``-log sigma(beta (m(y+) - m(y-)) - gamma)``                no
`cpo`      ``-log sigma(beta log pi(y+)/pi(y-)) - alpha log pi(y+)``   no
`orpo`     ``-m(y+) - beta log sigma(odds(y+) - odds(y-))``            no
`kto`      per response: ``1 - sigma(±beta (h(y) - z))``               yes
=========  ==========================================================  =========

Populations, pairs drawn independently from ref (any law of full support for DPO), labels from ``P(y ≻ y')``: DPO's
minimum is ``ref e^{r/beta}/Z`` if ``P = sigma(r - r')`` (Bradley-Terry); IPO's is ``ref e^{P(y ≻ ref)/beta}/Z``
whatever P is. Where preferences are certain, DPO has no minimum (h runs off), IPO has. None is the gradient of an
expected reward.
"""

from __future__ import annotations

from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum
from klsim.objectives.batch import Loss, TokenBatch, takes_batch

__all__ = ["cpo", "dpo", "ipo", "kto", "log_sigmoid", "online_dpo", "orpo", "pair_rows", "simpo"]

Array = Any


def log_sigmoid(x: Array) -> Array:
    """``log(1/(1 + e^-x))`` without overflow.

    Raises:
        ValueError: NaN.
    """
    xp, x = _validate.arrays(x=x)
    return _log_sigmoid(xp, _validate.not_nan("x", xp, x))


def _log_sigmoid(xp: Any, x: Array) -> Array:
    return -xp.logaddexp(xp.zeros_like(x), -x)


def _partners(batch: TokenBatch) -> tuple[Array, Array]:
    """Two rows of every group of two, ``(first [P], second [P])``, in the order of the first ones.

    Raises:
        ValueError: a group that is not of two.
    """
    xp, group = batch.xp, batch.groups()
    same = group[:, None] == group[None, :]
    sizes = xp.sum(xp.astype(same, xp.int64), axis=-1)
    index = _validate.first_true(xp, sizes != 2)
    if index is not None:
        _validate.fail("group", f"pairs are groups of two, this one has {int(sizes[index])}", int(group[index]), index)
    rows = xp.arange(group.shape[0], device=batch.log_probs.device)
    other = xp.sum(
        xp.where(same & (rows[:, None] != rows[None, :]), rows[None, :], xp.zeros_like(rows)[None, :]), axis=-1
    )
    first = xp.nonzero(rows < other)[0]
    return first, xp.take(other, first)


@takes_batch
def pair_rows(batch: TokenBatch) -> tuple[Array, Array]:
    """Rows of the preferred and of the other response of every pair, ``([P], [P])``.

    Raises:
        ValueError: no ``preferred``, a group that is not of two, or one without exactly one preferred response.
    """
    (preferred,) = batch.need("preferred")
    xp = batch.xp
    first, second = _partners(batch)
    one, two = xp.take(preferred, first), xp.take(preferred, second)
    index = _validate.first_true(xp, one == two)
    if index is not None:
        rule = f"exactly one response of a pair is preferred, group {int(xp.take(batch.groups(), first)[index])} has "
        _validate.fail("preferred", rule + ("two" if bool(one[index]) else "none"), index=(int(first[index]),))
    return xp.where(one, first, second), xp.where(one, second, first)


def _log_prob(batch: TokenBatch) -> Array:
    return batch.xp.sum(batch.log_probs * batch.weights, axis=-1)


def _lengths(batch: TokenBatch) -> Array:
    return batch.xp.sum(batch.weights, axis=-1)


def _log_ratio(batch: TokenBatch, *, per_token: bool = False) -> Array:
    """``h(y)``, or ``h(y)/|y|``; ``[B]``."""
    (ref,) = batch.need("ref_log_probs")
    h = batch.xp.sum((batch.log_probs - detach(ref)) * batch.weights, axis=-1)
    return h / _lengths(batch) if per_token else h


def _margin(batch: TokenBatch, score: Array) -> Array:
    better, worse = pair_rows(batch)
    return batch.xp.take(score, better) - batch.xp.take(score, worse)


def _logistic(xp: Any, x: Array, smoothing: float) -> Array:
    return -(1 - smoothing) * _log_sigmoid(xp, x) - smoothing * _log_sigmoid(xp, -x)


def _half(name: str, value: float) -> float:
    return _validate.real(name, value, low=0.0, high=0.5)


def _metrics(xp: Any, margin: Array) -> dict[str, Array]:
    margin = detach(margin)
    return {"margin": xp.mean(margin), "accuracy": xp.mean(xp.astype(margin > 0, margin.dtype))}


@takes_batch
def dpo(batch: TokenBatch, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Loss:
    r"""``-(1-e) log sigma(beta Delta) - e log sigma(-beta Delta)``, ``Delta = h(y+) - h(y-)``; mean over pairs.

    Its gradient is ``-beta sigma(-beta Delta) grad(log pi(y+) - log pi(y-))`` (e = 0). ``label_smoothing`` e: the
    chance that a label is wrong (cDPO).

    Source: Rafailov et al. (2023), eq. 7.
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    margin = _margin(batch, _log_ratio(batch))
    loss = batch.xp.mean(_logistic(batch.xp, beta * margin, _half("label_smoothing", label_smoothing)))
    return loss, _metrics(batch.xp, margin)


@takes_batch
def ipo(batch: TokenBatch, *, beta: float = 0.1, length_normalized: bool = False) -> Loss:
    r"""``(Delta - 1/(2 beta))^2``; mean over pairs. ``beta`` is the paper's tau.

    ``length_normalized``: ``h/|y|`` in place of h, as TRL's ``loss_type="ipo"``. The two agree for responses of one
    token only; the minimum above is that of the plain form.

    Source: Azar et al. (2024), eq. 17.
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    score = _log_ratio(batch, per_token=_validate.flag("length_normalized", length_normalized))
    margin = _margin(batch, score)
    return batch.xp.mean((margin - 1 / (2 * beta)) ** 2), _metrics(batch.xp, margin)


@takes_batch
def kto(
    batch: TokenBatch,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    reference_point: float | None = None,
) -> Loss:
    r"""``mean_i w_i (1 - sigma(s_i beta (h(y_i) - z)))``, ``s = 1`` for ``preferred`` responses and -1 for the others.

    No pairs: every response has a label of its own. z, a constant, estimates ``KL(pi‖ref) >= 0``: given as
    ``reference_point`` (the paper and TRL measure it on mismatched prompts and responses of the batch), else
    ``max(0, mean h)`` of this batch.

    Source: Ethayarajh et al. (2024).
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    good = _validate.real("desirable_weight", desirable_weight, low=0.0)
    bad = _validate.real("undesirable_weight", undesirable_weight, low=0.0)
    (preferred,) = batch.need("preferred")
    xp = batch.xp
    h = _log_ratio(batch)
    if reference_point is None:
        point = xp.mean(detach(h))
        point = xp.maximum(point, xp.zeros_like(point))
    else:
        point = xp.zeros_like(h[0]) + _validate.real("reference_point", reference_point, low=0.0)
    gain = beta * (h - point)
    loss = xp.where(preferred, good * xp.exp(_log_sigmoid(xp, -gain)), bad * xp.exp(_log_sigmoid(xp, gain)))
    return xp.mean(loss), {"reference_point": detach(point), "kl": detach(xp.mean(h))}


def _preferred_nll(batch: TokenBatch, aggregate: Aggregate) -> Array:
    better, _ = pair_rows(batch)
    xp = batch.xp
    return -aggregate(xp.take(batch.log_probs, better, axis=0), xp.take(batch.mask, better, axis=0))


@takes_batch
def orpo(batch: TokenBatch, *, beta: float = 0.1, aggregate: Aggregate = sequence_mean) -> Loss:
    r"""``nll(y+) - beta log sigma(odds(y+) - odds(y-))``, mean over pairs; ``odds = log P/(1-P)``, ``P = e^{m(y)}``.

    ``aggregate``: of the negative log-likelihood; the paper means each response's tokens, TRL all tokens of the batch
    (`klsim.objectives.token_mean`). ``beta`` is the paper's lambda. P is kept below 1 by one rounding error.

    Source: Hong et al. (2024).
    """
    beta = _validate.real("beta", beta, low=0.0)
    xp = batch.xp
    mean = _log_prob(batch) / _lengths(batch)
    mean = xp.minimum(mean, xp.full_like(mean, -float(xp.finfo(mean.dtype).eps)))
    margin = _margin(batch, mean - xp.log(-xp.expm1(mean)))
    nll = _preferred_nll(batch, aggregate)
    return nll - beta * xp.mean(_log_sigmoid(xp, margin)), _metrics(xp, margin) | {"nll": detach(nll)}


@takes_batch
def cpo(
    batch: TokenBatch,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""`dpo` with a uniform reference, plus ``alpha`` times the negative log-likelihood of y+.

    ``aggregate``: of the likelihood; the paper sums a response's tokens, TRL means all tokens of the batch
    (`klsim.objectives.token_mean`).

    Source: Xu et al. (2024).
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    alpha = _validate.real("alpha", alpha, low=0.0)
    xp = batch.xp
    margin = _margin(batch, _log_prob(batch))
    nll = _preferred_nll(batch, aggregate)
    loss = xp.mean(_logistic(xp, beta * margin, _half("label_smoothing", label_smoothing)))
    return loss + alpha * nll, _metrics(xp, margin) | {"nll": detach(nll)}


@takes_batch
def simpo(batch: TokenBatch, *, beta: float = 2.0, gamma: float = 0.5, label_smoothing: float = 0.0) -> Loss:
    r"""``-log sigma(beta (m(y+) - m(y-)) - gamma)``, m the mean log-probability of a token; mean over pairs.

    TRL: ``CPOTrainer`` with ``loss_type="simpo"``, whose defaults are beta 0.1 and ``simpo_gamma`` 0.5.

    Source: Meng et al. (2024).
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    gamma = _validate.real("gamma", gamma)
    margin = _margin(batch, _log_prob(batch) / _lengths(batch))
    loss = batch.xp.mean(_logistic(batch.xp, beta * margin - gamma, _half("label_smoothing", label_smoothing)))
    return loss, _metrics(batch.xp, margin)


@takes_batch
def online_dpo(
    batch: TokenBatch,
    *,
    beta: float = 0.1,
    labels: Literal["best", "bradley_terry"] = "best",
    loss: Literal["dpo", "ipo"] = "dpo",
) -> Loss:
    r"""`dpo` or `ipo` on pairs that the policy drew, labelled by their rewards; mean over pairs.

    ``"best"``: the larger reward is preferred, equal rewards count half either way (TRL takes the first of two equal
    ones, so that the order of the batch matters there). ``"bradley_terry"``: the expectation over labels with
    ``P(y ≻ y') = sigma(r - r')``. On the reference's own pairs the latter is DPO's population loss, with the minimum
    ``ref e^{r/beta}/Z``.

    Source: Guo et al. (2024), arXiv:2402.04792.
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    _validate.one_of("labels", labels, ("best", "bradley_terry"))
    _validate.one_of("loss", loss, ("dpo", "ipo"))
    xp = batch.xp
    first, second = _partners(batch)
    h, reward = _log_ratio(batch), batch.total_rewards()
    margin = xp.take(h, first) - xp.take(h, second)
    gap = xp.take(reward, first) - xp.take(reward, second)
    chance = xp.exp(_log_sigmoid(xp, gap)) if labels == "bradley_terry" else (xp.sign(gap) + 1) / 2
    if loss == "dpo":
        value = -chance * _log_sigmoid(xp, beta * margin) - (1 - chance) * _log_sigmoid(xp, -beta * margin)
    else:
        value = chance * (margin - 1 / (2 * beta)) ** 2 + (1 - chance) * (margin + 1 / (2 * beta)) ** 2
    return xp.mean(value), {"margin": detach(xp.mean(xp.sign(gap) * margin))}
