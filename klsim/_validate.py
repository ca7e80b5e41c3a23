"""Validation at the door: every public function checks its input here, kernels trust theirs.

An error names the argument, the first offending index and value, and the rule it breaks.
All functions are array-API generic: NumPy arrays, torch tensors and whatever else
``array_api_compat`` knows keep their kind (and their autograd graph); Python numbers and
sequences become NumPy ``float64``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

__all__ = [
    "arrays",
    "boolean_mask",
    "broadcast",
    "budgets",
    "fail",
    "finite",
    "first_true",
    "flag",
    "generator",
    "instance",
    "integer",
    "integers",
    "log_probs",
    "normalisation_tolerance",
    "one_of",
    "positive",
    "probability",
    "real",
    "same_last_axis",
]

Array = Any  # any array-API array; the standard has no nominal type to name


def fail(name: str, rule: str, value: Any = None, index: tuple[int, ...] | None = None) -> None:
    """Raise ``ValueError("name[index] = value: rule")``."""
    where = name if not index else f"{name}[{', '.join(map(str, index))}]"
    shown = "" if value is None else f" = {value!r}"
    raise ValueError(f"{where}{shown}: {rule}")


def _as_array(name: str, value: Any) -> Array:
    if is_array_api_obj(value):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: rows must have equal lengths ({error})") from None
    if array.dtype == object:
        raise TypeError(f"{name}: must hold real numbers, got {type(value).__name__}")
    return array


def arrays(**named: Any) -> tuple[Any, ...]:
    """``(xp, a, b, ...)``: the common namespace and each argument as a floating array of it.

    Integers and booleans become the widest float present (``float64`` in NumPy); NumPy scalars
    and Python numbers follow the kind (and device) of the arrays beside them.

    Raises:
        TypeError: not numeric, complex, or arrays of two libraries mixed.
    """
    converted = {name: _as_array(name, value) for name, value in named.items()}
    foreign = [a for a in converted.values() if not isinstance(a, np.ndarray | np.generic)]
    if foreign:
        try:
            xp = array_namespace(*foreign)
        except TypeError:
            kinds = ", ".join(f"{n}: {type(a).__name__}" for n, a in converted.items())
            raise TypeError(f"arguments mix array libraries ({kinds})") from None
        floats = [a.dtype for a in foreign if xp.isdtype(a.dtype, "real floating")]
        dtype = xp.result_type(*floats) if floats else xp.float64
        device = foreign[0].device
        out = []
        for name, value in converted.items():
            _reject_non_real(name, value)
            if isinstance(value, np.ndarray | np.generic):
                if value.ndim:
                    kinds = ", ".join(f"{n}: {type(a).__name__}" for n, a in converted.items())
                    raise TypeError(f"arguments mix array libraries ({kinds})")
                value = xp.asarray(float(value), dtype=dtype, device=device)
            out.append(value if value.dtype == dtype else xp.astype(value, dtype))
        return (xp, *out)
    for name, value in converted.items():
        _reject_non_real(name, value)
    xp = array_namespace(np.empty(0))
    given = [a.dtype for a in converted.values() if a.dtype.kind == "f" and a.ndim]
    dtype = np.result_type(*given) if given else np.dtype(np.float64)
    if dtype.itemsize < 4 or dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return (xp, *(np.asarray(a, dtype=dtype) for a in converted.values()))


def _reject_non_real(name: str, value: Array) -> None:
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{name}: must hold real numbers, got dtype {value.dtype}")
        return
    xp = array_namespace(value)
    if not xp.isdtype(value.dtype, ("real floating", "integral", "bool")):
        raise TypeError(f"{name}: must hold real numbers, got dtype {value.dtype}")


def first_true(xp: Any, bad: Array) -> tuple[int, ...] | None:
    """Index of the first True of ``bad``, or None. () for a true scalar."""
    if not bool(xp.any(bad)):
        return None
    flat = xp.reshape(xp.astype(bad, xp.int8), (-1,))
    return tuple(int(i) for i in np.unravel_index(int(xp.argmax(flat)), tuple(bad.shape)))


def _refuse(xp: Any, name: str, x: Array, bad: Array, rule: str) -> None:
    index = first_true(xp, bad)
    if index is not None:
        fail(name, rule, float(x[index]) if index else float(x), index)


def normalisation_tolerance(xp: Any, dtype: Any) -> float:
    """How far a log-sum may be from 0: the square root of the machine epsilon."""
    return float(math.sqrt(xp.finfo(dtype).eps))


def finite(name: str, xp: Any, x: Array) -> Array:
    """``x`` with no NaN and no infinity."""
    _refuse(xp, name, x, ~xp.isfinite(x), "must be finite")
    return x


def positive(name: str, xp: Any, x: Array) -> Array:
    """``x`` finite and > 0."""
    _refuse(xp, name, x, ~(xp.isfinite(x) & (x > 0)), "must be finite and > 0")
    return x


def budgets(name: str, xp: Any, x: Array) -> Array:
    """``x`` >= 0 and not NaN; ``inf`` (no constraint) is allowed."""
    _refuse(xp, name, x, ~(x >= 0), "must be >= 0")
    return x


def log_probs(name: str, xp: Any, x: Array, *, normalised: bool = True) -> Array:
    """``x`` of shape ``(..., A)``, A >= 1, natural-log probabilities on the last axis.

    ``-inf`` is legal. NaN, ``+inf``, a row without support and, if ``normalised``, a row whose
    exponentials do not sum to 1 within the square root of the machine epsilon are errors.
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        fail(name, f"needs a non-empty last axis of outcomes, got shape {tuple(x.shape)}")
    _refuse(xp, name, x, xp.isnan(x), "log-probabilities must not be NaN")
    _refuse(xp, name, x, xp.isinf(x) & (x > 0), "log-probabilities must be < inf")
    if 0 in x.shape:
        return x
    top = xp.max(x, axis=-1, keepdims=True)
    _refuse(xp, name, top[..., 0], xp.isinf(top[..., 0]), "needs an outcome with positive probability")
    if normalised:
        total = top[..., 0] + xp.log(xp.sum(xp.exp(x - top), axis=-1))
        tolerance = normalisation_tolerance(xp, x.dtype)
        index = first_true(xp, xp.abs(total) > tolerance)
        if index is not None:
            mass = math.exp(min(float(total[index] if index else total), 700.0))
            rule = "probabilities must sum to 1 (log_normalize makes them)"
            raise ValueError(f"{name}{list(index) if index else ''}: probabilities sum to {mass:.12g}; {rule}")
    return x


def same_last_axis(**named: Array) -> None:
    """All arrays have the same number of outcomes and leading axes that broadcast."""
    shapes = {name: tuple(a.shape) for name, a in named.items()}
    listed = ", ".join(f"{n}: {s}" for n, s in shapes.items())
    if any(not s for s in shapes.values()) or len({s[-1] for s in shapes.values()}) > 1:
        raise ValueError(f"last axes (outcomes) must agree, got {listed}")
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(f"leading (batch) axes must broadcast, got {listed}") from None


def broadcast(**named: Array) -> tuple[int, ...]:
    """The shape that the arrays broadcast to.

    Raises:
        ValueError: they do not; names them and their shapes.
    """
    shapes = {name: tuple(a.shape) for name, a in named.items()}
    try:
        return tuple(np.broadcast_shapes(*shapes.values()))
    except ValueError:
        listed = ", ".join(f"{n}: {s}" for n, s in shapes.items())
        raise ValueError(f"shapes must broadcast, got {listed}") from None


def real(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> float:
    """A Python float in ``[low, high]`` (``(low, high]`` if ``open_low``), not NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r}: must be a real number") from None
    if math.isnan(number) or number < low or number > high or (open_low and number == low):
        opening = "(" if open_low else "["
        fail(name, f"must lie in {opening}{low:g}, {high:g}]", number)
    return number


def probability(name: str, value: Any) -> float:
    """A Python float in [0, 1]."""
    return real(name, value, low=0.0, high=1.0)


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """A Python int in ``[low, high]``; floats, even whole ones, and booleans are TypeErrors."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} = {value!r}: must be an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r}: must be an integer") from None
    if low is not None and number < low:
        fail(name, f"must be >= {low}", number)
    if high is not None and number > high:
        fail(name, f"must be <= {high}", number)
    return number


def integers(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> np.ndarray:
    """A NumPy int64 array with entries in ``[low, high]``."""
    array = _as_array(name, value)
    if not isinstance(array, np.ndarray | np.generic) or array.dtype.kind not in "iu":
        raise TypeError(f"{name}: must be a NumPy array or sequence of integers")
    array = np.asarray(array, dtype=np.int64)
    for bad, rule in ((low is not None and array < low, f"must be >= {low}"),
                      (high is not None and array > high, f"must be <= {high}")):  # fmt: skip
        if bad is not False and np.any(bad):
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            fail(name, rule, int(array[index]), index)
    return array


def boolean_mask(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A NumPy boolean array, of ``shape`` if that is given."""
    array = _as_array(name, value)
    if not isinstance(array, np.ndarray | np.generic) or array.dtype != np.bool_:
        raise TypeError(f"{name}: must be a boolean NumPy mask, got dtype {array.dtype}")
    array = np.asarray(array)
    if shape is not None and array.shape != shape:
        fail(name, f"must have shape {shape}, got {array.shape}")
    return array


def instance(name: str, value: Any, *kinds: type) -> None:
    """``value`` is an object of one of the ``kinds``."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: must be a {wanted}, got {type(value).__name__}")


def flag(name: str, value: Any) -> bool:
    """A boolean, nothing that merely has a truth value."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} = {value!r}: must be True or False")
    return bool(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the named ``choices``."""
    if not isinstance(value, str) or value not in choices:
        fail(name, f"must be one of {', '.join(map(repr, choices))}", value)
    return str(value)


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """``rng`` itself, or a generator made from an integer seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(f"rng = {rng!r}: must be a numpy.random.Generator or an integer seed")
    if rng < 0:
        fail("rng", "a seed must be >= 0", int(rng))
    return np.random.default_rng(int(rng))
