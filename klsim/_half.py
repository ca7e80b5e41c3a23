"""Half precision: computed in float32, returned in half."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from array_api_compat import array_namespace

__all__ = ["widened"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_FLOAT64 = np.dtype(np.float64)


def _is_half(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and dtype is not _FLOAT64 and str(dtype).rpartition(".")[2] in ("float16", "bfloat16")


def widened(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``function`` with half precision computed in float32 and returned in half.

    Array arguments (also inside a list or tuple) of 16 bits are widened; the floating arrays of the result,
    also inside tuples, dictionaries and dataclasses, are narrowed if no wider float came beside them.
    """

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given: tuple[Any, ...] = (*args, *kwargs.values())
        leaves = [x for value in given for x in (value if type(value) in (list, tuple) else (value,))]
        halves = [x for x in leaves if _is_half(x)]
        if not halves:
            return function(*args, **kwargs)
        result = function(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})
        other = [x for x in leaves if not _is_half(x) and "float" in str(getattr(x, "dtype", "")) and np.ndim(x)]
        return result if other else _narrow(result, halves[0].dtype)

    return wrapper


def _widen(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(_widen, value))
    if not _is_half(value):
        return value
    xp = array_namespace(value)
    return xp.astype(value, xp.float32)


def _narrow(value: Any, dtype: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _narrow(getattr(value, f.name), dtype) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **changes)
    if type(value) in (list, tuple):
        return type(value)(_narrow(x, dtype) for x in value)
    if isinstance(value, dict):
        return {key: _narrow(x, dtype) for key, x in value.items()}
    if not str(getattr(value, "dtype", "")).rpartition(".")[2].startswith("float"):
        return value
    xp = array_namespace(value)
    with np.errstate(over="ignore", under="ignore"):
        return xp.astype(xp.asarray(value), dtype)
