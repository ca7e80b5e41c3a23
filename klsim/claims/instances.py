"""Instances as JSON and as runnable Python: how counterexamples are saved, printed and replayed.

An instance is a dict of numbers, strings, arrays, tuples of arrays, problems (frozen dataclasses
of `klsim.problems`) and records of a paper (named tuples and dataclasses, which become dicts). JSON keeps every bit:
floats are written with their shortest exact decimal form and infinities as strings. Decoding builds only these types;
nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["as_python", "decode", "encode", "number_count"]

_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """``value`` as JSON-able data.

    Raises:
        TypeError: a type that instances do not hold.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray):
        flat = [v if isinstance(v, bool | int) or math.isfinite(v) else str(v) for v in value.ravel().tolist()]
        return {"array": value.dtype.name, "shape": list(value.shape), "values": flat}
    if hasattr(value, "_fields"):  # a record of the paper: its field knows how to build it again
        return {"dict": {k: encode(v) for k, v in zip(value._fields, value)}}
    if isinstance(value, tuple | list):
        return {"tuple": [encode(v) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": {str(k): encode(v) for k, v in value.items()}}
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("klsim.problems"):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"problem": type(value).__name__, "fields": fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"dict": {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}}
    raise TypeError(f"an instance cannot hold {type(value).__name__}")


def decode(data: Any) -> Any:
    """The inverse of `encode`.

    Raises:
        ValueError: data that `encode` does not write.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f"not an encoded instance: {type(data).__name__}")
    try:
        match data:
            case {"float": name}:
                return _NON_FINITE[name]
            case {"array": dtype, "shape": shape, "values": values}:
                if dtype not in ("float64", "float32", "int64", "int32", "bool"):
                    raise ValueError(f"dtype {dtype!r} is not allowed")
                flat = [_NON_FINITE[v] if isinstance(v, str) else v for v in values]
                return np.asarray(flat, dtype=dtype).reshape(tuple(shape))
            case {"tuple": items}:
                return tuple(decode(v) for v in items)
            case {"dict": items}:
                return {k: decode(v) for k, v in items.items()}
            case {"problem": name, "fields": fields}:
                from klsim import problems

                if name not in problems.__all__:
                    raise ValueError(f"unknown problem {name!r}")
                return getattr(problems, name)(**{k: decode(v) for k, v in fields.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an encoded instance: {error}") from None
    raise ValueError(f"not an encoded instance: keys {sorted(map(str, data))}")


def number_count(value: Any) -> int:
    """How many numbers an instance holds (to decide whether to keep it in a certificate)."""
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, tuple | list):
        return sum(map(number_count, value))
    if isinstance(value, Mapping):
        return sum(map(number_count, value.values()))
    if dataclasses.is_dataclass(value):
        return sum(number_count(getattr(value, f.name)) for f in dataclasses.fields(value))
    return 1


def as_python(value: Any) -> str:
    """``value`` as a Python expression over ``np`` that rebuilds it bit for bit.

    Log-probabilities are shown as ``np.log([...])`` where that is exact.
    """
    if isinstance(value, np.generic):
        return as_python(value.item())
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if isinstance(value, np.ndarray):
        return _array_as_python(value)
    if hasattr(value, "_fields"):
        return as_python(value._asdict())
    if isinstance(value, tuple | list):
        return "(" + "".join(as_python(v) + ", " for v in value).rstrip() + ")"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {as_python(v)}" for k, v in value.items()) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        if not type(value).__module__.startswith("klsim.problems"):
            return as_python(named)
        fields = ", ".join(f"{name}={as_python(part)}" for name, part in named.items())
        return f"klsim.problems.{type(value).__name__}({fields})"
    return repr(value)


def _array_as_python(array: np.ndarray) -> str:
    if array.dtype.kind != "f":
        return f"np.array({array.tolist()!r})"
    if array.size and np.all(array <= 0) and np.any(array < 0):
        probabilities = _exact_probabilities(array)
        if probabilities is not None:
            return f"np.log({_nested(probabilities)})"
    return f"np.array({_nested(array)})"


def _exact_probabilities(log_array: np.ndarray) -> np.ndarray | None:
    """Probabilities with few digits whose logarithms are ``log_array`` to the bit, if there are any."""
    with np.errstate(divide="ignore"):
        raw = np.exp(log_array)
        for digits in (1, 2, 3, 4, 6, 8, 12, 15, 16, 17):
            rounded = np.asarray([float(f"{p:.{digits}g}") for p in raw.ravel()]).reshape(raw.shape)
            if np.array_equal(np.log(rounded), log_array):
                return rounded
    return None


def _nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        return as_python(float(array)).replace("float('-inf')", "-np.inf").replace("float('inf')", "np.inf")
    return "[" + ", ".join(_nested(row) for row in array) + "]"
