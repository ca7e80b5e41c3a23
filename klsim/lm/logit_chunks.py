"""Chunks of logits: the products with the heads, and what is kept of them. `klsim.lm.vocab_losses` has the losses.

Elementwise work runs over a chunk in one of two ways, of the same functions of rows (`klsim.lm.vocab_rows`):

* *tiles*: in place, over a few rows at a time that stay in a processor's cache;
* *fused* (CUDA): the function goes through ``torch.compile``, which makes one kernel of it. It reads the logits from
  memory three times (maxima, sums, gradient; a Jensen-Shannon divergence up to four) and writes the gradient once, in
  the precision of the products that follow: 26 bytes a logit of a KL divergence, 38 of G-OPD. Operation by operation a
  KL divergence moves about 100, by an H200's data sheet as long as its four products at a hidden size of 2,048.

Products of half-precision factors accumulate in float32 and come out in float32. On CUDA cuBLAS does that itself
(``torch.addmm(…, out_dtype=)``, torch >= 2.8); the sum over chunks of the head's gradient is the ``beta = 1`` of its
product and moves ``8 H / chunk`` bytes a logit, which is why an accelerator needs tall chunks. Elsewhere factors are
cast. Nothing in the loop over chunks waits for the device or depends on the data.

Memory beyond the gradients: ``chunk V`` numbers a head and, fused, G once more in the precision of the factors; sums of
gradients of half-precision tensors are float32, and half precision again at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "EXCLUDED",
    "Gradients",
    "LinearHead",
    "Plan",
    "RowFunction",
    "RowLoss",
    "add_gradients",
    "fill_logits",
    "logits_by_chunk",
    "over_rows",
    "product_dtype",
    "sweep",
]

_VOCABULARY_BLOCK = 8192  # head rows that are cast at a time
EXCLUDED = -1e30
"""A bias of -inf, finite: its probability is exactly 0, and 0 times it is 0."""


class LinearHead(NamedTuple):
    """Hidden states ``[N, H]`` and the weights ``[V, H]`` (and bias ``[V]``, ``-inf`` excludes a token) on them."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


RowFunction = Callable[..., Tensor | None]
"""``(logits, scratch, *columns) -> values``: logits of every head, the student's first, each ``[R, V]``, and two more
of that shape as scratch, all overwritten; what is given a row ``[R, 1]``. Values have the rows as their last axis."""

RowLoss = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | None], Tensor]
"""``(logits, scratch, scale) -> D [R]``, a `RowFunction` that leaves ``scale dD/ds`` in the student's logits; None:
values only."""


@dataclass(frozen=True)
class Plan:
    """How a sweep runs.

    Attributes:
        chunk: rows a product. tile: rows an elementwise pass, where it is not fused.
        dtype: of the arithmetic. temperature: divides the logits.
        factors: what the factors of the products are cast to first (autocast's dtype); None: as they come.
        fused: whether the elementwise work of a chunk is compiled into one kernel.
    """

    chunk: int
    tile: int
    dtype: torch.dtype
    temperature: float
    factors: torch.dtype | None = None
    fused: bool = False

    def lowered(self, head: LinearHead) -> LinearHead:
        """The head as its products take it."""
        if self.factors is None:
            return head
        return LinearHead(head.hidden.to(self.factors), head.weight.to(self.factors), head.bias)


def fill_logits(out: Tensor, head: LinearHead, rows: slice, plan: Plan) -> None:
    """``out = (h W^T + b) / temperature`` of some rows, in the arithmetic of the plan."""
    hidden, weight, bias = head.hidden[rows], head.weight, head.bias
    rate = 1.0 / plan.temperature
    if bias is not None:
        bias = (bias.to(plan.dtype) * rate).clamp_min_(EXCLUDED)
    if _wide_product(hidden, weight, plan.dtype):
        _wide_addmm(out, hidden, weight.T, beta=0, alpha=rate)
        if bias is not None:
            out.add_(bias)
        return
    hidden = hidden.to(plan.dtype)
    for block in _blocks(weight, plan.dtype):
        part, cast = out[:, block], weight[block].to(plan.dtype)
        if bias is None:
            torch.addmm(part, hidden, cast.T, beta=0, alpha=rate, out=part)
        else:
            torch.addmm(bias[block], hidden, cast.T, alpha=rate, out=part)


def add_gradients(gradient: Tensor, head: LinearHead, rows: slice, plan: Plan, sums: Gradients) -> None:
    """``dL/dh = G W``, ``dL/dW += G^T h``, ``dL/db += sum G`` of a chunk; the first one overwrites what is there."""
    hidden, weight = head.hidden[rows], head.weight
    if sums.bias is not None:
        sums.bias.add_(gradient.sum(0, dtype=plan.dtype))
    if _wide_product(hidden, weight, plan.dtype):
        gradient = gradient.to(weight.dtype)
        if sums.hidden is not None:
            # float32 first: cuBLAS may add up the parts of a half-precision result in half precision
            torch.mm(gradient, weight, out_dtype=plan.dtype, out=sums.hidden[rows])
        if sums.weight is not None:
            _wide_addmm(sums.weight, gradient.T, hidden, beta=int(rows.start > 0), alpha=1)
        return
    gradient = gradient.to(plan.dtype)
    if sums.hidden is not None:
        target = sums.hidden[rows]
        for block in _blocks(weight, plan.dtype):
            torch.addmm(
                target, gradient[:, block], weight[block].to(plan.dtype), beta=float(block.start > 0), out=target
            )
    if sums.weight is not None:
        torch.addmm(sums.weight, gradient.T, hidden.to(plan.dtype), beta=float(rows.start > 0), out=sums.weight)


def product_dtype(head: LinearHead, plan: Plan) -> torch.dtype:
    """In which precision the products of the gradients take G."""
    return head.weight.dtype if _wide_product(head.hidden, head.weight, plan.dtype) else plan.dtype


def _wide_product(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch multiplies these half-precision factors into float32 itself."""
    same = hidden.dtype == weight.dtype
    return same and hidden.is_cuda and dtype == torch.float32 != weight.dtype and _HAS_WIDE_PRODUCT


def _wide_addmm(out: Tensor, a: Tensor, b: Tensor, *, beta: int, alpha: float) -> None:
    """``out = beta out + alpha a b``, beta 0 or 1."""
    if not torch.compiler.is_compiling():
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=beta, alpha=alpha, out=out)
        return
    # torch.compile knows torch.mm with an out_dtype, not torch.addmm (pytorch/pytorch#163880)
    product = torch.mm(a, b, out_dtype=out.dtype) * alpha
    out.copy_(product if beta == 0 else out + product)


_HAS_WIDE_PRODUCT = "dtype_out" in torch.ops.aten.addmm.overloads()  # type: ignore[no-untyped-call]


def _blocks(weight: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """All rows of the head at once; in blocks if they have to be cast, so that the copy stays small."""
    vocabulary = weight.shape[0]
    step = vocabulary if weight.dtype == dtype else _VOCABULARY_BLOCK
    return (slice(i, min(i + step, vocabulary)) for i in range(0, vocabulary, step))


@dataclass
class Gradients:
    """Sums of a sweep in its arithmetic; None where nobody asked."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def empty(cls, head: LinearHead, wanted: Sequence[bool], dtype: torch.dtype) -> Gradients:
        """To be written by the first chunk; the bias at 0."""
        room = [x.new_empty(x.shape, dtype=dtype) if want and x is not None else None for x, want in zip(head, wanted)]
        return cls(room[0], room[1], None if room[2] is None else room[2].zero_())

    def of(self, head: LinearHead) -> tuple[Tensor | None, ...]:
        """In the dtypes of the head."""
        sums = (self.hidden, self.weight, self.bias)
        return tuple(g if g is None or x is None else g.to(x.dtype) for g, x in zip(sums, head))


def logits_by_chunk(heads: Sequence[LinearHead], plan: Plan) -> Iterator[tuple[slice, list[Tensor]]]:
    """The rows of a chunk and every head's logits of them, which the caller may overwrite."""
    count, vocabulary = heads[0].hidden.shape[0], heads[0].weight.shape[0]
    shape, device = (min(plan.chunk, count), vocabulary), heads[0].hidden.device
    buffers = [torch.empty(shape, dtype=plan.dtype, device=device) for _ in heads]
    for start in range(0, count, plan.chunk):
        rows = slice(start, min(start + plan.chunk, count))
        logits = [buffer[: rows.stop - start] for buffer in buffers]
        for out, head in zip(logits, heads):
            fill_logits(out, head, rows, plan)
        yield rows, logits


def over_rows(
    function: RowFunction, rows: slice, logits: Sequence[Tensor], columns: Sequence[Tensor | None], plan: Plan,
    values: Tensor | None = None, left: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Put the rows of a chunk through a function; its values into ``values[..., rows]``.

    Returns what it leaves in the student's logits, for a product in the precision ``left``; None: nothing is.
    """
    if plan.fused and not _refused:
        here = [None if c is None else c[rows] for c in columns]
        out = _fused(function, logits, here, left)
        if out is not None:
            found, gradient = out
            if values is not None and found is not None:
                values[..., rows] = found
            return logits[0] if gradient is None else gradient
    scratch = torch.empty((2, plan.tile, logits[0].shape[1]), dtype=plan.dtype, device=logits[0].device)
    for start in range(rows.start, rows.stop, plan.tile):
        tile = slice(start, min(start + plan.tile, rows.stop))
        parts = [x[tile.start - rows.start : tile.stop - rows.start] for x in logits]
        spare = [x[: tile.stop - tile.start] for x in scratch]
        found = function(parts, spare, *(None if c is None else c[tile] for c in columns))
        if values is not None and found is not None:
            values[..., tile] = found
    return logits[0]


_Outcome = tuple[Tensor | None, Tensor | None]  # values, what is left in the student's logits
_COMPILED_AT_MOST = 64  # losses, precisions and parameters in one process; beyond, they run uncompiled
_refused: list[str] = []  # why nothing is compiled in this process


def _fused(
    function: RowFunction, logits: Sequence[Tensor], columns: Sequence[Tensor | None], left: torch.dtype | None
) -> _Outcome | None:
    """The function compiled, the logits kept; None, after a warning, where nothing can be compiled."""
    if torch.compiler.is_compiling():
        return _on_copies(function, logits, columns, left)
    logits = [x.detach() for x in logits]
    columns = [None if c is None else c.detach() for c in columns]
    for x in (*logits, *columns):
        if x is not None:
            torch._dynamo.maybe_mark_dynamic(x, 0)  # the last chunk is shorter
    try:
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=_COMPILED_AT_MOST):
            out: _Outcome = _compiled()(function, logits, columns, left)
    except torch._dynamo.exc.TorchDynamoException as error:
        _refused.append(str(error))
        why = " ".join(str(error).split())[:200]
        warnings.warn(f"torch.compile failed, chunked losses run slower: {why}", RuntimeWarning, stacklevel=2)
        return None
    return out


# The compiler would rather write what is used twice to memory, a number a logit, than compute it again.
_RECOMPUTE: dict[str, str | int | bool | Callable[..., Any]] = {
    "realize_opcount_threshold": 1000,
    "realize_reads_threshold": 1000,
}


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(_on_copies, options=_RECOMPUTE)


def _on_copies(
    function: RowFunction, logits: Sequence[Tensor], columns: Sequence[Tensor | None], left: torch.dtype | None
) -> _Outcome:
    """Copies and scratch are names to a compiler, not memory: it sees a pure function of the logits."""
    own = [x.clone() for x in logits]
    values = function(own, [torch.empty_like(own[0]) for _ in range(2)], *columns)
    return values, None if left is None else own[0].to(left)


def sweep(
    heads: Sequence[LinearHead], loss: RowLoss, weights: Tensor, wanted: Sequence[bool], plan: Plan
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """``D [N]`` (float64) and the gradients of ``sum w D`` in the first head's tensors."""
    student = heads[0]
    factors = [plan.lowered(head) for head in heads]
    values = torch.empty(student.hidden.shape[0], dtype=torch.float64, device=student.hidden.device)
    sums = Gradients.empty(student, wanted, plan.dtype)
    scales = (weights.to(plan.dtype) / plan.temperature)[:, None] if any(wanted) else None
    left = None if scales is None else product_dtype(factors[0], plan)
    for rows, logits in logits_by_chunk(factors, plan):
        gradient = over_rows(loss, rows, logits, (scales,), plan, values, left)
        if scales is not None:
            add_gradients(gradient, factors[0], rows, plan, sums)
    return values, sums.of(student)
