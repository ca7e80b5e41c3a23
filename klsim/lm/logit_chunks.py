"""Chunks of logits: the products with the heads, and what is kept of them. `klsim.lm.vocab_losses` has the losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "EXCLUDED",
    "Gradients",
    "LinearHead",
    "Plan",
    "RowLoss",
    "add_gradients",
    "fill_logits",
    "logits_by_chunk",
    "sweep",
    "tiles",
]

_VOCABULARY_BLOCK = 8192  # head rows that are cast at a time
EXCLUDED = -1e30
"""A bias of -inf, finite: its probability is exactly 0, and 0 times it is 0."""


class LinearHead(NamedTuple):
    """Hidden states ``[N, H]`` and the weights ``[V, H]`` (and bias ``[V]``, ``-inf`` excludes a token) on them."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


RowLoss = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | None], Tensor]
"""``(logits, scratch, scale) -> D [R]``: logits of the student first, each ``[R, V]``, scratch too, all overwritten.
Leaves ``scale dD/ds`` (``scale [R, 1]``) in the student's logits; None: values only."""


@dataclass(frozen=True)
class Plan:
    """How a sweep runs: rows a product, rows a tile, the arithmetic and the temperature."""

    chunk: int
    tile: int
    dtype: torch.dtype
    temperature: float

    def scratch(self, count: int, head: LinearHead) -> Tensor:
        """Room for some tiles."""
        shape = (count, self.tile, head.weight.shape[0])
        return torch.empty(shape, dtype=self.dtype, device=head.hidden.device)


def fill_logits(out: Tensor, head: LinearHead, rows: slice, plan: Plan) -> None:
    """``out = (h W^T + b) / temperature`` of some rows, in the arithmetic of the plan."""
    hidden, weight, bias = head.hidden[rows], head.weight, head.bias
    rate = 1.0 / plan.temperature
    if bias is not None:
        bias = (bias.to(plan.dtype) * rate).clamp_min_(EXCLUDED)
    if _wide_product(hidden, weight, plan.dtype):
        torch.mm(hidden, weight.T, out_dtype=plan.dtype, out=out)
        if rate != 1:
            out.mul_(rate)
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
        sums.bias.add_(gradient.sum(0))
    if _wide_product(hidden, weight, plan.dtype):
        gradient = gradient.to(weight.dtype)
        if sums.hidden is not None:
            torch.mm(gradient, weight, out_dtype=plan.dtype, out=sums.hidden[rows])
        if sums.weight is not None:
            for block in _blocks(weight, plan.dtype):
                part = gradient[:, block].T
                product = torch.mm(part, hidden, out_dtype=plan.dtype)
                sums.weight[block] = product if rows.start == 0 else product.add_(sums.weight[block])
        return
    if sums.hidden is not None:
        target = sums.hidden[rows]
        for block in _blocks(weight, plan.dtype):
            torch.addmm(
                target, gradient[:, block], weight[block].to(plan.dtype), beta=float(block.start > 0), out=target
            )
    if sums.weight is not None:
        sums.weight.addmm_(gradient.T, hidden.to(plan.dtype), beta=float(rows.start > 0))


def _wide_product(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch multiplies these half-precision factors into float32 itself."""
    same = hidden.dtype == weight.dtype
    return same and hidden.is_cuda and dtype == torch.float32 != weight.dtype and _HAS_WIDE_PRODUCT


_HAS_WIDE_PRODUCT = "dtype" in torch.ops.aten.mm.overloads()  # type: ignore[no-untyped-call]


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


def tiles(rows: slice, logits: Sequence[Tensor], plan: Plan) -> Iterator[tuple[slice, list[Tensor]]]:
    """Some rows of a chunk, few enough for the cache."""
    for start in range(rows.start, rows.stop, plan.tile):
        here = slice(start, min(start + plan.tile, rows.stop))
        yield here, [x[here.start - rows.start : here.stop - rows.start] for x in logits]


def sweep(
    heads: Sequence[LinearHead], loss: RowLoss, weights: Tensor, wanted: Sequence[bool], plan: Plan
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """``D [N]`` (float64) and the gradients of ``sum w D`` in the first head's tensors."""
    student = heads[0]
    values = torch.empty(student.hidden.shape[0], dtype=torch.float64, device=student.hidden.device)
    sums = Gradients.empty(student, wanted, plan.dtype)
    scales = (weights.to(plan.dtype) / plan.temperature)[:, None] if any(wanted) else None
    scratch = plan.scratch(2, student)
    for rows, logits in logits_by_chunk(heads, plan):
        for here, parts in tiles(rows, logits, plan):
            spare = [x[: here.stop - here.start] for x in scratch]
            values[here] = loss(parts, spare, None if scales is None else scales[here])
        if scales is not None:
            add_gradients(logits[0], student, rows, plan, sums)
    return values, sums.of(student)
