"""Validation at the door: every public function checks its input here, kernels trust theirs.

An error names the argument, the first offending index and value, and the rule it breaks.
All functions are array-API generic: NumPy arrays, torch tensors and whatever else
``array_api_compat`` knows keep their kind (and their autograd graph); Python numbers and
sequences become NumPy ``float64``.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from klsim._half import widened

__all__ = [
    "arrays",
    "boolean_mask",
    "broadcast",
    "budgets",
    "fail",
    "finite",
    "first_true",
    "fits",
    "flag",
    "function",
    "generator",
    "instance",
    "integer",
    "integers",
    "log_probs",
    "normalisation_tolerance",
    "not_nan",
    "number",
    "numpy_arrays",
    "one_of",
    "outcomes",
    "positive",
    "probability",
    "real",
    "representable",
    "same_last_axis",
    "sequence",
    "unit_interval",
    "widened",
]

Array = Any  # any array-API array; the standard has no nominal type to name

LARGEST = 4 * 2**30
"""Bytes that the arrays of one call may take; what needs more is refused at the door."""


def fail(name: str, rule: str, value: Any = None, index: tuple[int, ...] | None = None) -> None:
    """Raise ``ValueError("name[index] = value: rule")``."""
    where = name if not index else f"{name}[{', '.join(map(str, index))}]"
    shown = "" if value is None else f" = {value!r}"
    raise ValueError(f"{where}{shown}: {rule}")


def _as_array(name: str, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: must not be a masked array (its mask would be ignored); fill or drop what is masked")
    if is_array_api_obj(value):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: rows must have equal lengths ({error})") from None
    except (TypeError, RuntimeError):
        # a library's own refusal: a tensor with a graph inside a list, an object whose conversion fails
        raise TypeError(f"{name}: must hold real numbers, got {type(value).__name__}") from None
    return _python_integers(name, value, array) if array.dtype == object else array


def _python_integers(name: str, value: Any, array: np.ndarray) -> np.ndarray:
    """Integers that 64 bits do not hold, as floats."""
    entries = array.ravel().tolist()
    if not entries or not all(isinstance(x, int | float) for x in entries):
        raise TypeError(f"{name}: must hold real numbers, got {type(value).__name__}")
    try:
        return np.array([float(x) for x in entries]).reshape(array.shape)
    except OverflowError:
        raise ValueError(f"{name}: an integer is too large for a float (above 1.8e308)") from None


def arrays(**named: Any) -> tuple[Any, ...]:
    """``(xp, a, b, ...)``: the common namespace and each argument as a floating array of it.

    Integers and booleans become the widest float present (``float64`` in NumPy); NumPy scalars
    and Python numbers follow the kind (and device) of the arrays beside them. Half precision is
    widened by `widened`, around the whole function.

    Raises:
        TypeError: not numeric, complex, masked, or arrays of two libraries mixed.
        ValueError: ragged rows, an integer that no float holds.
    """
    if all(type(v) is float or (type(v) in _PLAIN and v.dtype is _FLOAT64) for v in named.values()):  # the usual case
        return (_NUMPY, *map(np.asarray, named.values()))
    if all(type(v) is np.ndarray and v.dtype is _FLOAT32 and v.ndim for v in named.values()):
        return (_NUMPY, *named.values())
    converted = {name: _as_array(name, value) for name, value in named.items()}
    foreign = [a for a in converted.values() if not isinstance(a, np.ndarray | np.generic)]
    if foreign:
        try:
            xp = array_namespace(*foreign)
        except TypeError:
            kinds = ", ".join(f"{n}: {type(a).__name__}" for n, a in converted.items())
            raise TypeError(f"arguments mix array libraries ({kinds})") from None
        for name, value in converted.items():
            _reject_non_real(name, value)
        floats = [a.dtype for a in foreign if xp.isdtype(a.dtype, "real floating")]
        dtype = xp.result_type(*floats) if floats else xp.float64
        device = foreign[0].device
        out = []
        for value in converted.values():
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


_NUMPY, _PLAIN = array_namespace(np.empty(0)), (np.ndarray, np.float64)
_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


def numpy_arrays(**named: Any) -> tuple[np.ndarray, ...]:
    """Each argument as a floating NumPy array, for functions that have no other kind.

    Raises:
        TypeError: as `arrays`; an array of another library.
    """
    for name, value in named.items():
        if type(value) is not np.ndarray:
            _numpy_only(name, value)
    return arrays(**named)[1:]


def _numpy_only(name: str, value: Any) -> None:
    array = _as_array(name, value)
    if not isinstance(array, np.ndarray | np.generic):
        kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
        raise TypeError(f"{name}: NumPy only, got a {kind}; convert it (x.detach().cpu().numpy())")


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
    if not bool(bad.any() if isinstance(bad, np.ndarray | np.generic) else xp.any(bad)):
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


def not_nan(name: str, xp: Any, x: Array) -> Array:
    """``x`` with no NaN; infinities pass."""
    _refuse(xp, name, x, xp.isnan(x), "must not be NaN")
    return x


def finite(name: str, xp: Any, x: Array) -> Array:
    """``x`` with no NaN and no infinity."""
    _refuse(xp, name, x, ~xp.isfinite(x), "must be finite")
    return x


def positive(name: str, xp: Any, x: Array) -> Array:
    """``x`` finite and > 0."""
    _refuse(xp, name, x, ~(xp.isfinite(x) & (x > 0)), "must be finite and > 0")
    return x


def representable(name: str, xp: Any, *results: Array) -> None:
    """Refuse ``name`` if a result overflowed (is not finite)."""
    for x in results:
        index = first_true(xp, ~xp.isfinite(x))
        if index is not None:
            fail(name, "is too large: a result overflows", index=index)


def budgets(name: str, xp: Any, x: Array) -> Array:
    """``x`` >= 0 and not NaN; ``inf`` (no constraint) is allowed."""
    _refuse(xp, name, x, ~(x >= 0), "must be >= 0")
    return x


def log_probs(name: str, xp: Any, x: Array, *, normalised: bool = True) -> Array:
    """``x`` of shape ``(..., A)``, A >= 1, natural-log probabilities on the last axis.

    ``-inf`` is legal. NaN, ``+inf``, a row without support and, if ``normalised``, a row whose
    exponentials do not sum to 1 within the square root of the machine epsilon are errors (that of the
    narrowest float that holds the row: float32 logs stay legal when they are widened).
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        fail(name, f"needs a non-empty last axis of outcomes, got shape {tuple(x.shape)}")
    if normalised and 0 not in x.shape:  # the usual case, in two passes: NaN and inf fail it
        with np.errstate(all="ignore"):
            near = xp.abs(xp.sum(xp.exp(x), axis=-1) - 1) <= 0.5 * normalisation_tolerance(xp, x.dtype)
        if bool(xp.all(near)):
            return x
    elif not normalised and 0 not in x.shape and bool(xp.all(xp.isfinite(xp.max(x, axis=-1)))):
        return x  # a NaN or inf would be the row's maximum
    _refuse(xp, name, x, xp.isnan(x), "log-probabilities must not be NaN")
    _refuse(xp, name, x, xp.isinf(x) & (x > 0), "log-probabilities must be < inf")
    if 0 in x.shape:
        return x
    top = xp.max(x, axis=-1, keepdims=True)
    _refuse(xp, name, top[..., 0], xp.isinf(top[..., 0]), "needs an outcome with positive probability")
    if normalised:
        with np.errstate(all="ignore"):
            total = top[..., 0] + xp.log(xp.sum(xp.exp(x - top), axis=-1))
        off = xp.abs(total) > normalisation_tolerance(xp, x.dtype)
        index = first_true(xp, off & ~_narrowly(xp, x, xp.abs(total)) if bool(xp.any(off)) else off)
        if index is not None:
            mass = math.exp(min(float(total[index] if index else total), 700.0))
            rule = "probabilities must sum to 1 (log_normalize makes them)"
            raise ValueError(f"{name}{list(index) if index else ''}: probabilities sum to {mass:.12g}; {rule}")
    return x


def _narrowly(xp: Any, x: Array, off: Array) -> Array:
    """Rows that a narrower float holds exactly, and that are normalised by its standard: widened arrays."""
    out = off < 0
    for dtype in (xp.float32, xp.float16):
        with np.errstate(over="ignore", under="ignore"):
            held = xp.all(xp.astype(xp.astype(x, dtype), x.dtype) == x, axis=-1)
        out = out | (held & (off <= normalisation_tolerance(xp, dtype)))
    return out


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


def number(name: str, value: Any) -> float:
    """A Python float from a number or an array of no dimensions; NaN passes.

    Raises:
        TypeError: text, complex numbers, arrays with dimensions, anything else.
        ValueError: an integer that no float holds.
    """
    if hasattr(value, "detach"):
        value = value.detach()
    scalar = isinstance(value, int | float | np.generic) or (
        hasattr(value, "__float__") and not isinstance(value, str | bytes | bytearray)
    )
    if not scalar or isinstance(value, np.ma.MaskedArray) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} = {_short(value)}: must be a real number")
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "fiub":
        raise TypeError(f"{name} = {_short(value)}: must be a real number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: is too large for a float (above 1.8e308)") from None
    except Exception:  # a library's own refusal
        raise TypeError(f"{name} = {_short(value)}: must be a real number") from None


def _short(value: Any) -> str:
    """The value, or its type where that is shorter than a line."""
    shown = repr(value) if isinstance(value, int | float | complex | str | bytes | np.generic | None) else ""
    return shown if 0 < len(shown) <= 60 else type(value).__name__


def real(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A Python float in ``[low, high]`` (ends excluded if ``open_low``, ``open_high``), not NaN."""
    found = number(name, value)
    outside = found < low or found > high or (open_low and found == low) or (open_high and found == high)
    if math.isnan(found) or outside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        fail(name, f"must lie in {interval}", found)
    return found


def probability(name: str, value: Any) -> float:
    """A Python float in [0, 1]."""
    return real(name, value, low=0.0, high=1.0)


def unit_interval(name: str, xp: Any, x: Array, *, open_ends: bool = False) -> Array:
    """``x`` with entries in [0, 1], or (0, 1)."""
    good = (x > 0) & (x < 1) if open_ends else (x >= 0) & (x <= 1)
    _refuse(xp, name, x, ~good, "must lie in (0, 1)" if open_ends else "must lie in [0, 1]")
    return x


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """A Python int of 64 bits in ``[low, high]``; floats, even whole ones, and booleans are TypeErrors."""
    boolean = isinstance(value, bool | np.bool_) or "bool" in str(getattr(value, "dtype", ""))
    if boolean or isinstance(value, np.ma.MaskedArray) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} = {_short(value)}: must be an integer")
    try:
        found = operator.index(value)
    except Exception:  # TypeError, or a library's own refusal
        raise TypeError(f"{name} = {_short(value)}: must be an integer") from None
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{name}: an integer of {found.bit_length()} bits: must fit in 64")
    if low is not None and found < low:
        fail(name, f"must be >= {low}", found)
    if high is not None and found > high:
        fail(name, f"must be <= {high}", found)
    return found


def fits(name: str, value: int, entries: int | float, *, each: int = 8) -> None:
    """Refuse ``name = value`` if ``entries`` of ``each`` bytes take more than `LARGEST`."""
    if entries * each > LARGEST:
        size = f"{entries * each / 2**30:.3g}" if entries < 1e300 else "more than 1e300"
        fail(name, f"would need {size} GiB, more than the {LARGEST / 2**30:g} GiB that one call may take", value)


def outcomes(base_name: str, base: int, name: str, exponent: int, *, each: int = 8) -> int:
    """``base ** exponent``, refused before it is formed where an array with as many entries would not fit."""
    if exponent > 10**4:
        fail(name, "must be <= 10000", exponent)
    size = exponent * math.log(base)
    fits(name, exponent, math.exp(min(size, 700.0)), each=each)
    return int(base**exponent)


def integers(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> np.ndarray:
    """A NumPy int64 array with entries in ``[low, high]``."""
    _numpy_only(name, value)
    given = np.asarray(_as_array(name, value))
    if given.dtype.kind not in "iu":
        if given.dtype.kind == "f" and given.size and _whole(value):
            raise ValueError(f"{name}: its integers must fit in 64 bits")
        raise TypeError(f"{name}: must be a NumPy array or sequence of integers")
    if given.dtype == np.uint64 and bool(np.any(given > np.uint64(2**63 - 1))):
        raise ValueError(f"{name}: its integers must fit in 64 bits")
    array = given.astype(np.int64)
    for bad, rule in ((low is not None and array < low, f"must be >= {low}"),
                      (high is not None and array > high, f"must be <= {high}")):  # fmt: skip
        if bad is not False and np.any(bad):
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            fail(name, rule, int(array[index]), index)
    return array


def _whole(value: Any) -> bool:
    """Python integers only: then they were too wide for 64 bits."""
    return all(isinstance(x, int) and not isinstance(x, bool) for x in np.asarray(value, dtype=object).ravel())


def boolean_mask(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A NumPy boolean array, of ``shape`` if that is given."""
    _numpy_only(name, value)
    array = _as_array(name, value)
    if array.dtype != np.bool_:
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


def sequence(name: str, value: Any, *, of: type | tuple[type, ...] = object) -> list[Any]:
    """The entries of a list, tuple or one-dimensional array, all of the kind ``of``."""
    if not isinstance(value, list | tuple | range | np.ndarray) and not (
        is_array_api_obj(value) or hasattr(value, "to_numpy")
    ):
        raise TypeError(f"{name}: must be a sequence, got {type(value).__name__}")
    if getattr(value, "ndim", 1) < 1:
        raise TypeError(f"{name}: must be a sequence, got an array without dimensions")
    entries = list(value)
    for i, entry in enumerate(entries):
        if not isinstance(entry, of):
            kinds = of if isinstance(of, tuple) else (of,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name}[{i}]: must be a {wanted}, got {type(entry).__name__}")
    return entries


def function(name: str, value: Any) -> Callable[..., Any]:
    """An option that is a function: a caller's own refuses with an error that names the option.

    What the library's functions raise names what it is about, and is left as it is.
    """
    if not callable(value):
        raise TypeError(f"{name}: must be a function, got {type(value).__name__}")
    own = value.func if isinstance(value, functools.partial) else value
    if (getattr(own, "__module__", None) or "").partition(".")[0] == "klsim":  # `_named` is: not wrapped twice
        return value
    return functools.partial(_named, name, value)


def _named(name: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        shown = getattr(function, "__name__", type(function).__name__)
        raise kind(f"{name}: {shown} refuses what it is called with ({error})") from error


def flag(name: str, value: Any) -> bool:
    """A boolean, nothing that merely has a truth value."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} = {_short(value)}: must be True or False")
    return bool(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the named ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} = {_short(value)}: must be one of {', '.join(map(repr, choices))}")
    return str(value)


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """``rng`` itself, or a generator made from an integer seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(f"rng = {_short(rng)}: must be a numpy.random.Generator or an integer seed")
    if rng < 0:
        fail("rng", "a seed must be >= 0", int(rng))
    return np.random.default_rng(int(rng))
