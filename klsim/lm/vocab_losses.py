r"""Vocabulary losses from hidden states and head weights, without ever holding ``[N, V]`` logits.

A head is ``s = (h W^T + b) / temperature``, ``h [N, H]``, ``W [V, H]``; ``pi = softmax(s)`` is the student, ``T`` a
teacher, ``q`` a reference. A loss is a weighted sum over tokens, ``L = sum_n w_n D_n``; T and q are constant.

====================  ============================================  ===============================================
loss                  ``D``                                         ``dD / ds_a``
====================  ============================================  ===============================================
`linear_divergence`   ``D_f(pi‖T)``                                 ``pi_a (f'(u_a) - E_pi f'(u))``, ``u = pi/T``
`linear_gkd`          ``m KL(T‖M) + (1-m) KL(pi‖M)``                ``(1-m) pi_a (log(pi_a/M_a) - KL(pi‖M))``
`linear_g_opd`        ``E_pi[log pi - lam log T - (1-lam) log q]``  ``pi_a (log pi_a - lam log T_a - … - D)``
`linear_log_probs`    ``log pi(y)``; entropy                        ``[a=y] - pi_a``; ``-pi_a (log pi_a + entropy)``
====================  ============================================  ===============================================

Rows go through in chunks whose logits fit in some 100 megabytes. The logits of a chunk become ``G = w dD/ds``, and
``dL/dh = G W`` and ``dL/dW = sum G^T h`` are formed at once, in the forward pass, which is possible because the loss is
a scalar whose weights are known: nothing is recomputed. Products of size ``N x V x H``:

====================  ========================================================================================
a divergence, GKD     4: the logits of both heads, ``G W``, ``G^T h`` (2 without gradients)
`linear_g_opd`        5: a third head (4 at ``lam = 1``)
`linear_log_probs`    4: the logits twice, for its backward cannot know every token's gradient before; 1 forward
====================  ========================================================================================

A head that is tied to the embeddings needs nothing: its gradient arrives at the weight as any other does.

Arithmetic is float64 if any input is, otherwise float32: logits and sums of gradients of half-precision inputs are
kept in float32; row constants (normalisers, means) are float64. Logits are taken relative to their maximum, so their
size does not matter. On CUDA the products take half-precision factors as they are, accumulate in float32, and G is
rounded to the factors' precision for its two; under ``torch.autocast`` float32 factors are cast first, as those of a
linear layer would be. Elementwise work and memory: `klsim.lm.logit_chunks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from array_api_compat import array_namespace
from torch import Tensor
from torch.autograd.function import once_differentiable

from klsim import _validate
from klsim.divergences import GENERATORS, Generator, as_generator
from klsim.lm.logit_chunks import (
    EXCLUDED,
    Gradients,
    LinearHead,
    Plan,
    RowLoss,
    add_gradients,
    logits_by_chunk,
    over_rows,
    product_dtype,
    sweep,
)
from klsim.lm.vocab_rows import (
    BY_HAND,
    autograd_rows,
    g_opd_rows,
    log_prob_gradient_rows,
    log_prob_rows,
    mixture_rows,
)

__all__ = ["LinearHead", "LinearLogProbs", "linear_divergence", "linear_g_opd", "linear_gkd", "linear_log_probs"]

_CHUNK_BYTES = 128 << 20  # of one head's logits: smaller products are slower
_CHUNK_BYTES_ELSEWHERE = 1 << 30  # 1,765 rows of a vocabulary of 152,064: see klsim.lm.logit_chunks for the arithmetic
_CHUNK_ROWS_ELSEWHERE = 128  # chunks are multiples of a tile of its products
_TILE_BYTES = 4 << 20  # in the cache, yet few enough tiles that threads seldom wait for one another
_TILE_BYTES_ELSEWHERE = 64 << 20  # no cache to stay in, and every tile costs the launch of its kernels


class LinearLogProbs(NamedTuple):
    """``log pi(tokens)`` and the entropy of pi in nats, each ``[N]``, both differentiable."""

    log_probs: Tensor
    entropy: Tensor


def linear_log_probs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> LinearLogProbs:
    """``log pi(tokens)`` and ``-sum_a pi(a) log pi(a)``, ``pi = softmax((h W^T + b) / temperature)``.

    Args:
        hidden: ``[N, H]``. weight: ``[V, H]``. bias: ``[V]``; ``-inf`` excludes a token. tokens: ``[N]`` integers.
        temperature: finite, > 0. chunk: rows at a time; by default as many as fit in 128 MiB of logits (1 GiB on an
            accelerator).
        check: look at the numbers too, for which the host waits for the device a few times a call, whatever the number
            of chunks. False: types and shapes only; the results of bad numbers are NaN or torch's own error.

    Returns:
        Two ``[N]`` tensors, differentiable in ``hidden``, ``weight`` and ``bias`` (once).

    Raises:
        TypeError: not tensors, not floating (``tokens``: not integers).
        ValueError: shapes or devices that do not fit, tokens outside the vocabulary, NaN or inf in the inputs.
    """
    head = LinearHead(hidden, weight, bias)
    plan = _planned({"": head}, temperature, chunk, check=check)
    tokens = _token_ids(tokens, head, check=check)
    with torch.autocast(hidden.device.type, enabled=False):
        log_probs, entropy = _LogProbs.apply(hidden, weight, bias, tokens, plan)  # type: ignore[no-untyped-call]
    if check:
        _refuse_non_finite(entropy.detach(), {"": head}, "entropy")
    return LinearLogProbs(log_probs, entropy)


def linear_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    generator: Generator | str = "kl",
    token_weights: Tensor | None = None,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> Tensor:
    r"""``sum_n w_n D_f(pi_n‖T_n)`` exactly over the vocabulary; the teacher is constant.

    The maths of `klsim.objectives.divergence`. ``"kl"`` (reverse KL), ``"forward_kl"`` and ``"js"`` have gradients
    derived by hand; any other generator is differentiated by torch tile by tile, slower, in as little memory.

    Args:
        student_hidden, student_weight: ``[N, H]`` and ``[V, H]``.
        teacher_hidden, teacher_weight: ``[N, H']`` and ``[V, H']``.
        generator: a name in `klsim.divergences.GENERATORS` or a `klsim.divergences.Generator`.
        token_weights: ``[N]``, finite, constant (None: ones); rows of weight 0 are not looked at, whatever they hold.
        student_bias, teacher_bias: ``[V]``; ``-inf`` excludes a token.
        temperature: of both, finite, > 0. chunk, check: see `linear_log_probs`.

    Returns:
        The scalar, differentiable (once) in the student's tensors.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes or devices that do not fit, NaN or inf, a divergence that is infinite (a token that only one
            of the two excludes, where ``f`` does not allow it).
    """
    generator = as_generator(generator)
    heads = {
        "student": LinearHead(student_hidden, student_weight, student_bias),
        "teacher": LinearHead(teacher_hidden, teacher_weight, teacher_bias),
    }
    by_hand = BY_HAND.get(generator.name) if GENERATORS.get(generator.name) is generator else None
    loss = by_hand or partial(autograd_rows, generator=generator)
    plan = _planned(heads, temperature, chunk, check=check, by_autograd=by_hand is None)
    if check and math.isinf(generator.recession):
        _refuse_mass(heads, "student", "teacher")
    if check and math.isinf(generator.at_zero):
        _refuse_mass(heads, "teacher", "student")
    return _summed(heads, loss, token_weights, plan, smallest=0.0, check=check)


def linear_gkd(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    mix: float = 0.5,
    token_weights: Tensor | None = None,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> Tensor:
    r"""``sum_n w_n [mix KL(T‖M) + (1 - mix) KL(pi‖M)]``, ``M = mix T + (1 - mix) pi``: `klsim.objectives.gkd`.

    ``mix`` in [0, 1]; exactly 0 is the forward KL(T‖pi), exactly 1 the reverse KL(pi‖T). The other arguments, the
    result and the errors are those of `linear_divergence`.

    Source: Agarwal et al. (2024).
    """
    mix = _validate.probability("mix", mix)
    if mix in (0.0, 1.0):
        loss: Any = partial(linear_divergence, generator="forward_kl" if mix == 0 else "kl")
        return loss(
            student_hidden, student_weight, teacher_hidden, teacher_weight, token_weights=token_weights,
            student_bias=student_bias, teacher_bias=teacher_bias, temperature=temperature, chunk=chunk, check=check,
        )  # fmt: skip
    heads = {
        "student": LinearHead(student_hidden, student_weight, student_bias),
        "teacher": LinearHead(teacher_hidden, teacher_weight, teacher_bias),
    }
    plan = _planned(heads, temperature, chunk, check=check)
    return _summed(heads, partial(mixture_rows, mix=mix), token_weights, plan, smallest=0.0, check=check)


def linear_g_opd(
    student: LinearHead,
    teacher: LinearHead,
    ref: LinearHead | None = None,
    *,
    lam: float = 1.25,
    token_weights: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> Tensor:
    r"""``sum_n w_n sum_a pi(a) (log pi - lam log T - (1 - lam) log q)``: `klsim.objectives.g_opd_full`.

    Args:
        student, teacher, ref: ``(hidden [N, H], weight [V, H])`` or with a bias; H may differ, V not. ``lam = 1`` needs
            no ``ref``.
        lam: any real number; the optimum is ``q^{1-lam} T^lam / z``.
        token_weights, temperature, chunk, check: see `linear_divergence`.

    Returns:
        The scalar, differentiable (once) in the student's tensors.

    Raises:
        TypeError, ValueError: as `linear_divergence`; no ``ref`` where one is needed, a token that the teacher or the
            reference excludes but the student does not.

    Source: ``gopd`` C3, C4.
    """
    lam = _validate.real("lam", lam, low=-1e6, high=1e6)
    heads = {"student": LinearHead(*student), "teacher": LinearHead(*teacher)}
    if lam != 1:
        if ref is None:
            _validate.fail("ref", "lam other than 1 needs a reference", lam)
        else:
            heads["ref"] = LinearHead(*ref)
    plan = _planned(heads, temperature, chunk, check=check)
    for name in list(heads)[1:] if check else ():
        _refuse_mass(heads, "student", name)
    smallest = 0.0 if lam == 1 else -math.inf
    return _summed(heads, partial(g_opd_rows, lam=lam), token_weights, plan, smallest=smallest, check=check)


class _WeightedSum(torch.autograd.Function):
    """``sum_n w_n D_n``, its gradients formed in the forward pass and handed over by the first backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, others: Sequence[LinearHead], loss: RowLoss,
        weights: Tensor, plan: Plan, wanted: Sequence[bool], smallest: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        heads = (LinearHead(hidden, weight, bias), *others)
        values, ctx.gradients = sweep(heads, loss, weights, wanted, plan)
        if any(wanted):
            ctx.save_for_backward(hidden, weight, bias)
            ctx.again = lambda student: sweep((student, *others), loss, weights, wanted, plan)[1]
        values.clamp_min_(smallest)  # rounding must not make a divergence negative
        ctx.mark_non_differentiable(values)
        return torch.dot(values, weights.double()).to(plan.dtype), values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Handed over, not kept: autograd may then make them the leaves' .grad without a copy. A second backward
        # through the same graph has to form them again.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            with torch.autocast(incoming.device.type, enabled=False):
                gradients = ctx.again(LinearHead(*ctx.saved_tensors))
        if not _is_one(incoming):
            gradients = tuple(g if g is None else g.mul_(incoming) for g in gradients)
        return (*gradients, *(None,) * 6)


def _is_one(incoming: Tensor) -> bool:
    """Seen on the CPU only: elsewhere the host would wait for every kernel before it."""
    return incoming.device.type == "cpu" and not torch.compiler.is_compiling() and bool(incoming == 1)


def _summed(
    heads: dict[str, LinearHead], loss: RowLoss, token_weights: Tensor | None, plan: Plan, *, smallest: float,
    check: bool,
) -> Tensor:  # fmt: skip
    """The weighted sum over the rows that count."""
    weights = _token_weights(token_weights, heads["student"], check=check)
    counted = None if token_weights is None else weights != 0
    if counted is not None and not check:  # the same rows go through, whatever the weights
        heads = {n: head._replace(hidden=torch.where(counted[:, None], head.hidden, 0)) for n, head in heads.items()}
    elif counted is not None and not bool(counted.all()):
        weights = weights[counted]
        heads = {n: head._replace(hidden=head.hidden[counted]) for n, head in heads.items()}
    student = heads["student"]
    if weights.shape[0] == 0:
        return sum((x[:0].sum() for x in student if x is not None), weights.sum()).to(plan.dtype)
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in student]
    others = [LinearHead(*(None if x is None else x.detach() for x in head)) for head in list(heads.values())[1:]]  # type: ignore[arg-type]
    with torch.autocast(student.hidden.device.type, enabled=False):
        total, values = _WeightedSum.apply(*student, others, loss, weights, plan, wanted, smallest)  # type: ignore[no-untyped-call]
    if check:
        _refuse_non_finite(values, heads, "divergence", counted)
    return total


class _LogProbs(torch.autograd.Function):
    """``log pi(y)`` and the entropy; the backward forms the logits again, now that it knows every token's gradient."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        head = LinearHead(hidden, weight, bias)
        values = torch.empty((2, hidden.shape[0]), dtype=torch.float64, device=hidden.device)
        for rows, logits in logits_by_chunk([plan.lowered(head)], plan):
            over_rows(log_prob_rows, rows, logits, (tokens[:, None],), plan, values)
        log_probs, entropy = values
        log_probs = torch.where(log_probs < 0.1 * EXCLUDED, -math.inf, log_probs)
        log_probs, entropy = log_probs.to(plan.dtype), entropy.clamp_min(0.0).to(plan.dtype)
        ctx.save_for_backward(hidden, weight, bias, tokens, entropy)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_probs: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """``G_a = g ([a=y] - pi_a) - k pi_a (log pi_a + entropy)``, g and k the incoming gradients."""
        *student, tokens, entropy = ctx.saved_tensors
        head, plan = LinearHead(*student), ctx.plan
        sums = Gradients.empty(head, ctx.needs_input_grad[:3], plan.dtype)
        incoming = (of_log_probs, of_entropy)
        if all(g is None for g in incoming):
            return (None,) * 5
        g, k = (None if x is None else x[:, None] / plan.temperature for x in incoming)
        columns = (tokens[:, None], torch.zeros_like(entropy)[:, None] if g is None else g, k, entropy[:, None])
        with torch.autocast(entropy.device.type, enabled=False):
            factors = plan.lowered(head)
            for rows, logits in logits_by_chunk([factors], plan):
                gradient = over_rows(
                    log_prob_gradient_rows, rows, logits, columns, plan, left=product_dtype(factors, plan)
                )
                add_gradients(gradient, factors, rows, plan, sums)
        return (*sums.of(head), None, None)


# At the door.


def _planned(
    heads: dict[str, LinearHead], temperature: float, chunk: int | None, *, check: bool, by_autograd: bool = False
) -> Plan:
    """How to run over these heads, after a look at them."""
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    if math.isinf(temperature):
        _validate.fail("temperature", "must be finite", temperature)
    if not isinstance(check, bool):
        raise TypeError(f"check: must be True or False, got {check!r}")
    for name, head in heads.items():
        _check_head(name, head, check=check)
    names, (first, *others) = list(heads), heads.values()
    for name, other in zip(names[1:], others):
        for part, axis in (("hidden", "rows"), ("weight", "tokens of the vocabulary")):
            ours, theirs = getattr(first, part), getattr(other, part)
            if ours.shape[0] != theirs.shape[0]:
                _validate.fail(
                    f"{name}_{part}",
                    f"must have the {ours.shape[0]} {axis} of {names[0]}_{part}, got {theirs.shape[0]}",
                )
            if ours.device != theirs.device:
                _validate.fail(f"{name}_{part}", f"must be on {ours.device} as {names[0]}_{part}, got {theirs.device}")
    dtypes = [x.dtype for head in heads.values() for x in head if x is not None]
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    count, on = first.hidden.shape[0], first.hidden.device.type
    row = first.weight.shape[0] * dtype.itemsize
    if chunk is None:
        chunk = max(1, _CHUNK_BYTES // row) if on == "cpu" else _even_chunk(count, _CHUNK_BYTES_ELSEWHERE // row)
    chunk = min(_validate.integer("chunk", chunk, low=1), count)
    tile = max(1, (_TILE_BYTES if on == "cpu" else _TILE_BYTES_ELSEWHERE) // row)
    factors = None if on == "cpu" or dtype == torch.float64 else _autocast_dtype(on)
    return Plan(chunk, min(tile, chunk), dtype, temperature, factors, fused=on == "cuda" and not by_autograd)


def _even_chunk(count: int, most: int) -> int:
    """Rows of chunks of one size, at most so many, in whole tiles of a product."""
    unit = _CHUNK_ROWS_ELSEWHERE if most >= _CHUNK_ROWS_ELSEWHERE else 1
    most = max(1, most // unit * unit)
    each = -(-count // -(-count // most))
    return min(most, -(-each // unit) * unit)


def _autocast_dtype(device: str) -> torch.dtype | None:
    """In whose precision a linear layer would take its factors there."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _check_head(name: str, head: LinearHead, *, check: bool) -> None:
    prefix = f"{name}_" if name else ""
    for part, shape, x in zip(LinearHead._fields, ("[N, H]", "[V, H]", "[V]"), head):
        if part == "bias" and x is None:
            continue
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{prefix}{part}: must be a floating tensor, got {getattr(x, 'dtype', type(x).__name__)}")
        if x.ndim != shape.count(",") + 1 or 0 in x.shape:
            _validate.fail(f"{prefix}{part}", f"needs shape {shape}, none of them 0, got {list(x.shape)}")
        if x.device != head.hidden.device:
            _validate.fail(f"{prefix}{part}", f"must be on {head.hidden.device} as {prefix}hidden, got {x.device}")
    hidden, weight, bias = head
    if hidden.shape[1] != weight.shape[1]:
        _validate.fail(f"{prefix}weight", f"must have shape [V, {hidden.shape[1]}], got {list(weight.shape)}")
    if bias is None:
        return
    if bias.shape[0] != weight.shape[0]:
        _validate.fail(f"{prefix}bias", f"must have shape [{weight.shape[0]}], got {list(bias.shape)}")
    if not check:
        return
    index = _validate.first_true(array_namespace(bias), torch.isnan(bias) | (bias == math.inf))
    if index is not None:
        _validate.fail(f"{prefix}bias", "must be finite or -inf", float(bias.detach()[index]), index)
    if bool(torch.isinf(bias).all()):
        _validate.fail(f"{prefix}bias", "excludes every token")


def _token_ids(tokens: Any, head: LinearHead, *, check: bool) -> Tensor:
    count, vocabulary = head.hidden.shape[0], head.weight.shape[0]
    if (
        not isinstance(tokens, Tensor)
        or tokens.is_floating_point()
        or tokens.is_complex()
        or tokens.dtype == torch.bool
    ):
        raise TypeError(f"tokens: must be a tensor of integers, got {getattr(tokens, 'dtype', type(tokens).__name__)}")
    if tuple(tokens.shape) != (count,):
        _validate.fail("tokens", f"must have shape [{count}], got {list(tokens.shape)}")
    outside = (tokens < 0) | (tokens >= vocabulary)
    index = _validate.first_true(array_namespace(tokens), outside) if check else None
    if index is not None:
        _validate.fail("tokens", f"must be 0 … {vocabulary - 1}", int(tokens[index]), index)
    return tokens.to(head.hidden.device, torch.int64)


def _token_weights(weights: Any, head: LinearHead, *, check: bool) -> Tensor:
    count, device = head.hidden.shape[0], head.hidden.device
    if weights is None:
        return torch.ones(count, device=device)
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise TypeError(
            f"token_weights: must be a real tensor, got {getattr(weights, 'dtype', type(weights).__name__)}"
        )
    if tuple(weights.shape) != (count,):
        _validate.fail("token_weights", f"must have shape [{count}], got {list(weights.shape)}")
    weights = weights.detach().to(device)
    weights = weights if weights.is_floating_point() else weights.float()
    return _validate.finite("token_weights", array_namespace(weights), weights) if check else weights


def _refuse_mass(heads: dict[str, LinearHead], of: str, where: str) -> None:
    """``of`` must have no mass on what ``where`` excludes."""
    excluded = heads[where].bias
    if excluded is None:
        return
    bad = torch.isinf(excluded)
    own = heads[of].bias
    if own is not None:
        bad = bad & ~torch.isinf(own)
    index = _validate.first_true(array_namespace(bad), bad)
    if index is not None:
        _validate.fail(f"{where}_bias", f"the {of} has mass on this token: the loss is infinite", -math.inf, index)


def _refuse_non_finite(values: Tensor, heads: dict[str, LinearHead], what: str, counted: Tensor | None = None) -> None:
    """Every value is finite; if not, say whose fault it is."""
    index = _validate.first_true(array_namespace(values), ~torch.isfinite(values))
    if index is None:
        return
    row = index[0] if counted is None else int(counted.nonzero()[index[0], 0])
    for name, head in heads.items():
        prefix = f"{name}_" if name else ""
        if not bool(torch.isfinite(head.hidden[index]).all()):
            _validate.fail(f"{prefix}hidden", "must be finite", index=(row,))
        bad = _validate.first_true(array_namespace(values), ~torch.isfinite(head.weight))
        if bad is not None:
            _validate.fail(f"{prefix}weight", "must be finite", float(head.weight.detach()[bad]), bad)
    _validate.fail(what, "too large for its arithmetic", float(values[index]), (row,))
