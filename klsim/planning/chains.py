r"""Chains of policies and the linear systems of policy evaluation, dense and sparse.

``(I - gamma P) x = b`` is first iterated: adding what is left, ``x + rho``, leaves ``gamma P rho``, and a constant part
``c`` of it is solved at once by ``c / (1 - gamma)``, so the iteration goes as fast as the chain mixes, whatever the
discount. Where that is slow the system is factorised; where the factors of a sparse chain could fill the memory, GMRES.
The diagonal is set to ``(1 - gamma)`` plus the other entries of its row, so that rounding does not move the rows' sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, sparse

__all__ = ["Chain", "action_chain", "expected_next", "inflow", "policy_chain"]

FILL = 4e7  # entries that the factors of a sparse chain may have


def policy_chain(transition: Any, weights: np.ndarray, discount: float) -> Chain:
    """The chain of a policy with probabilities ``weights (S, A)``, from ``(S, A, S)`` or CSR ``(S A, S)``."""
    from klsim.kernels import sweeps

    states, actions = weights.shape
    if not sparse.issparse(transition):
        return Chain(sweeps.mix_dense(transition, weights), discount)
    data = sweeps.weighted_rows(transition.indptr, transition.data, np.ascontiguousarray(weights).ravel())
    matrix = sparse.csr_array((data, transition.indices, transition.indptr[::actions].copy()), (states, states))
    return Chain(matrix, discount)


def action_chain(
    transition: Any, action: np.ndarray, discount: float, old: Chain | None = None, before: np.ndarray | None = None
) -> Chain:
    """The chain of a deterministic policy ``(S,)``; takes over the matrix of an ``old`` one of actions ``before``."""
    states = len(action)
    if sparse.issparse(transition):
        return _sparse_action_chain(transition, action, discount, old, before)
    if old is None or before is None:
        return Chain(transition[np.arange(states), action], discount)
    new = np.flatnonzero(action != before)
    old.matrix[new] = transition[new, action[new]]
    return Chain(old.matrix, discount)


def _sparse_action_chain(
    transition: Any, action: np.ndarray, discount: float, old: Chain | None, before: np.ndarray | None
) -> Chain:
    """As `action_chain`; where it is little more, rows have room for the longest of their state, to stay in place."""
    from klsim.kernels.sweeps import copy_rows

    states = len(action)
    rows = (transition.indptr, transition.indices, transition.data)
    if old is not None and old.roomy and before is not None:
        copy_rows(*rows, action, before, old.matrix.indptr, old.matrix.indices, old.matrix.data, old.single)
        matrix = sparse.csr_array((old.matrix.data, old.matrix.indices, old.matrix.indptr), old.matrix.shape)
        return Chain(matrix, discount, single=old.single, roomy=True)
    lengths = np.diff(transition.indptr).reshape(states, -1)
    own, most = lengths[np.arange(states), action], lengths.max(axis=1)
    roomy = bool(most.sum() <= 1.25 * own.sum())
    starts = np.zeros(states + 1, transition.indptr.dtype)
    np.cumsum(most if roomy else own, out=starts[1:])
    columns, entries = np.empty(starts[-1], transition.indices.dtype), np.empty(starts[-1])
    single = np.empty(starts[-1], np.float32)
    copy_rows(*rows, action, np.full(states, -1), starts, columns, entries, single)
    return Chain(sparse.csr_array((entries, columns, starts), (states, states)), discount, single=single, roomy=roomy)


def expected_next(transition: Any, value: np.ndarray) -> np.ndarray:
    """``sum_s' P(s'|s, a) value(s')`` of one step, ``(S, A)``."""
    if sparse.issparse(transition):
        return np.asarray(transition @ value).reshape(len(value), -1)
    return np.asarray(transition.reshape(-1, len(value)) @ value).reshape(transition.shape[:2])


def inflow(transition: Any, visits: np.ndarray) -> np.ndarray:
    """``sum_{s, a} visits(s, a) P(.|s, a)`` of one step, ``(S,)``."""
    if sparse.issparse(transition):
        return np.asarray(transition.T @ visits.ravel())
    return np.asarray(visits.ravel() @ transition.reshape(visits.size, -1))


def _spread(x: np.ndarray) -> float:
    return float(x.max() - x.min())


def _slow(spreads: list[float], target: float, limit: int) -> bool:
    """Whether spreads that fall like the last five will not be at ``target`` within ``limit`` products."""
    rate = (spreads[-1] / spreads[-6]) ** 0.2 if spreads[-6] > 0 else 0.0
    return rate >= 1 or len(spreads) + math.log(max(target, 1e-300) / spreads[-1]) / math.log(max(rate, 1e-300)) > limit


class Chain:
    """A transition matrix ``(S, S)``, dense or CSR, and ``I - discount P`` with its factors.

    ``single``: the CSR data in single precision. ``roomy``: whether rows may be replaced in place.
    """

    def __init__(self, matrix: Any, discount: float, *, single: np.ndarray | None = None, roomy: bool = False) -> None:
        self.matrix, self.discount = matrix, discount
        self.single, self.roomy = single, roomy
        self._factors: Any = None
        self.states = matrix.shape[0]
        self.sparse = bool(sparse.issparse(matrix))
        self.terms = int(np.diff(matrix.indptr).max(initial=0)) if self.sparse else self.states

    def product(self, x: np.ndarray) -> np.ndarray:
        """``P x``."""
        if not self.sparse:
            return np.asarray(self.matrix @ x)
        from klsim.kernels.sweeps import sparse_product

        return np.asarray(sparse_product(self.matrix.indptr, self.matrix.indices, self.matrix.data, x))

    def system(self) -> Any:
        """``I - discount P``, its rows summing to ``1 - discount``."""
        rest = 1.0 - self.discount
        if not self.sparse:
            matrix = -self.discount * self.matrix
            np.fill_diagonal(matrix, 0.0)
            np.fill_diagonal(matrix, rest - matrix.sum(axis=1))
            return matrix
        scaled = (self.discount * self.matrix).tocoo()
        away = scaled.row != scaled.col
        sums = np.bincount(scaled.row[away], scaled.data[away], minlength=self.states)
        diagonal = np.arange(self.states)
        entries = np.concatenate([-scaled.data[away], rest + sums])
        rows, columns = (np.concatenate([x[away], diagonal]) for x in (scaled.row, scaled.col))
        return sparse.csc_array(sparse.coo_array((entries, (rows, columns)), shape=self.matrix.shape))

    def evaluate(self, rhs: np.ndarray) -> np.ndarray:
        """``(I - discount P)^{-1} rhs`` to rounding of the system: a solution and two refinements."""
        x = np.zeros(self.states)
        left, size = rhs, np.abs(rhs).max()
        for _ in range(3):
            x = x + self.correction(left, 1e-16 * float(size), exact=True)
            left = rhs - (x - self.discount * self.product(x))
        return x

    def reaching(self, target: np.ndarray) -> np.ndarray:
        """``(S,)`` boolean: from where the chain can get into ``target`` (only from inside if nothing counts)."""
        reached = target
        for _ in range(self.states if self.discount > 0 else 0):
            more = reached | (self.product(reached.astype(float)) > 0)
            if (more == reached).all():
                break
            reached = more
        return reached

    def visits(self, start: np.ndarray) -> np.ndarray:
        """``(1 - discount) (I - discount P^T)^{-1} start``, non-negative, summing to 1."""
        rest = 1.0 - self.discount
        x = self._solve(rest * start, transposed=True) if self._factorise() else self._power(start)
        x = np.maximum(x, 0.0)
        return np.asarray(x / x.sum())

    def _power(self, start: np.ndarray) -> np.ndarray:
        """The Neumann series, after GMRES for most of it."""
        system = self.system().T
        rest = 1.0 - self.discount
        x, _ = sparse.linalg.gmres(system, rest * start, rtol=1e-13, restart=50, maxiter=20)
        left = rest * start - system @ x
        moves = sparse.csr_array(self.matrix.T)
        for _ in range(100_000):
            if np.abs(left).sum() <= 1e-15 * rest:
                break
            x, left = x + left, self.discount * (moves @ left)
        return np.asarray(x)

    def correction(self, rhs: np.ndarray, target: float, *, exact: bool = False) -> np.ndarray:
        """``x`` with ``rhs - (I - discount P) x`` in ``[0, target]`` up to rounding; ``exact`` asks for factors.

        What is left is never negative: a policy's value is approached from below, and policy iteration keeps rising.
        """
        limit = 0 if exact and self._factors is not None else self._patience()
        x, left, doubt = self._iterate(rhs, target, limit)
        if _spread(left) > target:
            x = x + (self._solve(left) if self._factorise() else self._krylov(left, target))
            left, doubt = rhs - (x - self.discount * self.product(x)), 0.0
        return np.asarray(x + (left.min() - doubt) / (1.0 - self.discount))

    def _patience(self) -> int:
        """Iterations worth the factors: those of a dense chain cost about S / 15 products."""
        return 500 if self.sparse else 8 + self.states // 15

    def _iterate(self, rhs: np.ndarray, target: float, limit: int) -> tuple[np.ndarray, np.ndarray, float]:
        """``(x, left, doubt)``: what is left is ``left`` within ``doubt``, above ``target`` where that is slow.

        Sparse products wait for memory: single precision, half the bytes, is used as far as its rounding allows.
        """
        x, left = np.zeros(self.states), rhs
        if self.sparse and target >= 1e-4 * _spread(rhs):
            x, left, doubt = self._series(rhs, target, limit, np.dtype(np.float32))
            if doubt <= 0.1 * target:
                return x, left, doubt
            left = rhs - (x - self.discount * self.product(x))
        more, left, _ = self._series(left, target, limit, np.dtype(np.float64))
        return x + more, left, 0.0

    def _series(
        self, rhs: np.ndarray, target: float, limit: int, kind: np.dtype[Any]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The Neumann series of ``rhs`` in the precision ``kind``.

        With S the sum of the half spreads of its terms, the sum errs by ``u S`` an addition, and what is left by
        ``(K + 4) u`` of the half spread a product of K terms: ``doubt`` is ``2 u S`` (number of terms + K + 4).
        """
        low, high = float(rhs.min()), float(rhs.max())
        if not limit or high - low <= target:
            return np.zeros(self.states), rhs, 0.0
        single = kind == np.float32
        scale = math.ldexp(1.0, math.frexp(high - low)[1] - 1) if single else 1.0
        middle, unit = 0.5 * (low + high), 2.0**-24 if single else 0.0
        left, x = np.asarray((rhs - middle) / scale, kind), np.zeros(self.states, kind)
        out = np.empty_like(left)
        low, high, shift = (low - middle) / scale, (high - middle) / scale, middle / scale
        target, doubt, spreads, step = target / scale, 0.0, [high - low], self._step(kind)
        for i in range(limit):
            if spreads[-1] <= target or doubt > 0.1 * target or (i >= 8 and _slow(spreads, target, limit)):
                break
            middle = 0.5 * (low + high)
            shift += middle
            low, high = step(left, middle, x, out)
            left, out = out, left
            spreads.append(high - low)
            doubt = unit * sum(spreads[:-1]) * (len(spreads) + self.terms + 4)
        total = np.asarray(x, np.float64) * scale + scale * shift / (1.0 - self.discount)
        return total, left * np.float64(scale), scale * doubt

    def _step(self, kind: np.dtype[Any]) -> Callable[..., tuple[float, float]]:
        """``(left, middle, x, out) -> range``: ``x += left - middle``, ``out = discount P (left - middle)``."""
        if not self.sparse:
            return self._dense_step
        from klsim.kernels.sweeps import sparse_step

        data = self.matrix.data
        if kind == np.float32:
            self.single = data = data.astype(kind) if self.single is None else self.single
        own = (self.matrix.indptr, self.matrix.indices, data, kind.type(self.discount))

        def step(left: np.ndarray, middle: float, x: np.ndarray, out: np.ndarray) -> tuple[float, float]:
            low, high = sparse_step(*own, left, kind.type(middle), x, out)
            return float(low), float(high)

        return step

    def _dense_step(self, left: np.ndarray, middle: float, x: np.ndarray, out: np.ndarray) -> tuple[float, float]:
        left -= middle
        x += left
        np.matmul(self.matrix, left, out=out)
        out *= self.discount
        return float(out.min()), float(out.max())

    def _factorise(self) -> bool:
        """Whether there are factors."""
        if self._factors is None:
            if not self.sparse:
                self._factors = linalg.lu_factor(self.system(), overwrite_a=True, check_finite=False)
            else:
                self._factors = self._sparse_factors()
        return bool(self._factors)

    def _sparse_factors(self) -> Any:
        """Of an M-matrix: no pivoting. ``False`` if their size cannot be bounded by `FILL`."""
        options = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        if self.states <= 3000 or self.matrix.nnz <= self.states:
            return sparse.linalg.splu(self.system(), permc_spec="MMD_AT_PLUS_A", **options), None
        order = sparse.csgraph.reverse_cuthill_mckee(sparse.csr_array(self.matrix))
        place = np.empty(self.states, dtype=np.int64)
        place[order] = np.arange(self.states)
        entries = self.matrix.tocoo()
        width = int(np.abs(place[entries.row] - place[entries.col]).max(initial=0))
        if self.states * (2.0 * width + 1) > FILL:
            return False
        system = sparse.csc_array(self.system()[order][:, order])
        return sparse.linalg.splu(system, permc_spec="NATURAL", **options), order

    def _solve(self, rhs: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        if not self.sparse:
            return np.asarray(linalg.lu_solve(self._factors, rhs, trans=int(transposed), check_finite=False))
        factors, order = self._factors
        trans = "T" if transposed else "N"
        if order is None:
            return np.asarray(factors.solve(rhs, trans=trans))
        out = np.empty(self.states)
        out[order] = factors.solve(rhs[order], trans=trans)
        return out

    def _krylov(self, rhs: np.ndarray, target: float) -> np.ndarray:
        """GMRES as far as it gets in 10 restarts; nothing if that is further away than zero."""
        shift = rhs.mean() / (1.0 - self.discount)
        left = rhs - rhs.mean()
        operator = sparse.linalg.LinearOperator(
            self.matrix.shape, matvec=lambda x: x - self.discount * self.product(x), dtype=np.float64
        )
        x, _ = sparse.linalg.gmres(operator, left, rtol=0.0, atol=target / 4, restart=40, maxiter=10)
        better = _spread(left - operator.matvec(x)) < _spread(left)
        return np.asarray(shift + (x if better else 0.0))
