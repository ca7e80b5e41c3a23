r"""The losses of `klsim.objectives` by name, with their options: listed, and built from Python values or from text.

``named("g_opd", lam=1.25, aggregate="sequence_sum")`` is ``partial(g_opd, lam=1.25, aggregate=sequence_sum)``; so is
``from_text("g_opd?lam=1.25&aggregate=sequence_sum")``. Options and defaults are read from the functions' signatures:
nothing is written down twice. How a value is written, by the kind of its option:

==============  =========================================  ========================================
kind            Python                                     text
==============  =========================================  ========================================
number          1.25                                       ``1.25``, ``inf``
integer         4                                          ``4``
switch          True                                       ``true``, ``false``
choice          "teacher"                                  ``teacher``
numbers         (0.2, 0.28)                                ``0.2,0.28``
aggregate       "token_mean", or a length 128              ``token_mean``, ``128``
ratio           "sequence_ratio"                           ``sequence_ratio``
==============  =========================================  ========================================

Every loss also takes ``kl``: ``{"place": "reward" | "loss", "beta": …}`` and the options of
`klsim.objectives.kl_in_loss`; in text ``kl.place=loss&kl.beta=0.1``.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from klsim import _validate, objectives
from klsim.divergences import GENERATORS
from klsim.objectives import Loss, TokenBatch
from klsim.objectives import policy_gradient as pg

__all__ = [
    "LOSSES", "LossFunction", "NamedLoss", "Option", "address", "fields_needed", "from_text", "named", "near",
]  # fmt: skip

LossFunction = Callable[[TokenBatch], Loss]
"""A loss of a batch: the scalar to minimise and a dict of metrics."""
Kind = Literal["number", "integer", "switch", "choice", "numbers", "aggregate", "ratio"]

_AGGREGATES = {f.__name__: f for f in (objectives.sequence_sum, objectives.sequence_mean, objectives.token_mean)}
_RATIOS = {f.__name__: f for f in (pg.token_ratio, pg.sequence_ratio, pg.geometric_mean_ratio)}
_FUNCTIONS: dict[str, Mapping[str, Any]] = {"aggregate": _AGGREGATES, "ratio": _RATIOS}
_OTHER_WRITERS = ("sft", "dph_rl")
"""Losses of tokens that the reference drew or a data set holds; on the policy's own tokens they mean nothing."""


def near(name: str, known: Iterable[str]) -> str:
    """``"; near: a, b"``, or all the known names if none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    return f"; near: {', '.join(close)}" if close else f"; known: {', '.join(names)}"


@dataclass(frozen=True)
class Option:
    """One option of a loss.

    Attributes:
        name, kind: see the module. default: as a Python value; `inspect.Parameter.empty` if it must be given.
        choices: of a choice, an aggregate or a ratio. length: of numbers. optional: None is a value, "none" in text.
    """

    name: str
    kind: Kind
    default: Any
    choices: tuple[str, ...] = ()
    length: int = 0
    optional: bool = False

    @property
    def required(self) -> bool:
        """It has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def shown(self) -> str:
        """``name=default`` as in text; ``name=…`` if it must be given."""
        return f"{self.name}={'…' if self.required else _text(self.default)}"

    def check(self, where: str, value: Any) -> Any:
        """A Python value of the right kind, as the function takes it.

        Raises:
            ValueError: of another kind, or none of the choices.
        """
        if value is None and self.optional:
            return None
        if self.kind in _FUNCTIONS:
            return self._function(where, value)
        if isinstance(value, list):
            value = tuple(value)
        right: dict[str, Callable[[Any], bool]] = {
            "number": _is_number,
            "integer": lambda v: _is_number(v) and isinstance(v, int | np.integer),
            "switch": lambda v: isinstance(v, bool | np.bool_),
            "choice": lambda v: isinstance(v, str),
            "numbers": lambda v: isinstance(v, tuple) and all(map(_is_number, v)) and len(v) == self.length,
        }
        if not right[self.kind](value):
            raise ValueError(f"{where}: {self.name} = {value!r}: must be {self._wanted()}")
        if self.kind == "choice" and value not in self.choices:
            raise ValueError(f"{where}: {self.name} = {value!r}{near(value, self.choices)}")
        return value

    def parse(self, where: str, text: str) -> Any:
        """The value that ``text`` writes.

        Raises:
            ValueError: it writes none of this kind.
        """
        if self.optional and text == "none":
            return None
        if self.kind == "choice" or text in self.choices:
            return self.check(where, text)
        try:
            return self.check(where, _READ[self.kind](text))
        except (ValueError, KeyError):
            rule = near(text, self.choices) if self.choices else f": must be {self._wanted()}"
            raise ValueError(f"{where}: {self.name} = {text!r}{rule}") from None

    def _function(self, where: str, value: Any) -> Any:
        if self.kind == "aggregate" and _is_number(value):
            return objectives.fixed_length(value)
        if callable(value):
            return value
        if value not in self.choices:
            raise ValueError(f"{where}: {self.name} = {value!r}{near(str(value), self.choices)}")
        return _FUNCTIONS[self.kind][value]

    def _wanted(self) -> str:
        words = {"number": "a number", "integer": "an integer", "switch": "true or false", "choice": "text"}
        return words.get(self.kind, f"{self.length} numbers") + (" or none" if self.optional else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else value))


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


_SWITCH = {"true": True, "false": False}
_TRIALS = (2, 64)
"""Responses of the batches on which `fields_needed` tries a loss: a pair, then a group large enough for any k."""


def fields_needed(loss: LossFunction, convert: Callable[[np.ndarray], Any] = lambda x: x) -> frozenset[str]:
    """Which optional fields of a batch a loss asks for: it is tried on one that has all.

    A field that it reads without `TokenBatch.need` counts if the loss fails without it.

    Args:
        convert: from NumPy to the arrays that the loss takes.

    Raises:
        ValueError, TypeError: what the loss raises, for instance about its parameters.
    """
    asked: set[str] = set()
    read: set[str] = set()

    class Asked(TokenBatch):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

        def need(self, *names: str) -> tuple[Any, ...]:
            asked.update(names)
            return super().need(*names)

    for size in _TRIALS:
        fields = {name: convert(value) for name, value in _trial(size).items()}
        try:
            loss(Asked(**fields))
        except ValueError as error:
            if size == _TRIALS[-1] or "group" not in str(error):
                raise
            continue
        break
    optional = {f.name for f in dataclasses.fields(TokenBatch) if f.default is None}
    for name in (read & optional & set(fields)) - asked:
        try:
            loss(TokenBatch(**fields | {name: None}))
        except (ValueError, TypeError, AttributeError):
            asked.add(name)
    return frozenset(asked)


def _trial(size: int) -> dict[str, np.ndarray]:
    pair, vocab = np.full((size, 2), -np.log(2.0)), np.full((size, 2, 2), -np.log(2.0))
    odd = np.arange(size) % 2
    laws = {f"{law}_log_probs": pair for law in ("rollout", "ref", "teacher")}
    vocabs = {f"{law}vocab_log_probs": vocab for law in ("", "old_", "ref_", "teacher_")}
    return laws | vocabs | {
        "log_probs": pair, "rewards": odd.astype(float), "tokens": np.tile([0, 1], (size, 1)), "values": 0 * pair,
        "preferred": odd == 1, "external": odd == 1, "greedy_rewards": np.zeros(size),
        "group": np.zeros(size, dtype=int),
    }  # fmt: skip


_READ: dict[str, Callable[[str], Any]] = {
    "number": _number,
    "integer": int,
    "switch": lambda text: _SWITCH[text],
    "numbers": lambda text: tuple(map(_number, text.split(","))),
    "aggregate": _number,
}


@dataclass(frozen=True)
class NamedLoss:
    """A loss of `klsim.objectives`.

    Attributes:
        name: of the function. function: it. options: in the order of its signature. summary: first line of its
            documentation.
        own_tokens: it is a loss of tokens that the policy drew (not of data, or of the reference's tokens).
    """

    name: str
    function: Callable[..., Loss]
    options: tuple[Option, ...]
    summary: str
    own_tokens: bool

    @cached_property
    def needs(self) -> frozenset[str]:
        """Optional fields of a batch that the loss asks for with its defaults, such as ``"ref_log_probs"``."""
        return fields_needed(partial(self.function, **{option.name: 2 for option in self.options if option.required}))

    @property
    def signature(self) -> str:
        """``grpo?clip=0.2,0.2&aggregate=sequence_mean&…``: the address that spells out all defaults."""
        return self.name + ("?" + "&".join(option.shown for option in self.options) if self.options else "")

    def bind(self, where: str, values: Mapping[str, Any], *, text: bool = False) -> LossFunction:
        """The loss with these options, given as Python values or as ``text``.

        Raises:
            ValueError: an option that does not exist or is missing, a value of another kind.
        """
        return _bound(where, self.function, self.options, values, text=text)


def _bound(
    where: str, function: Callable[..., Any], options: tuple[Option, ...], values: Mapping[str, Any], *, text: bool
) -> Callable[..., Any]:
    by_name = {option.name: option for option in options}
    for key in values:
        if key not in by_name:
            raise ValueError(f"{where}: no parameter {key!r}{near(key, by_name) if by_name else ''}")
    for option in options:
        if option.required and option.name not in values:
            raise ValueError(f"{where}: parameter {option.name!r} is missing")
    read = Option.parse if text else Option.check
    return partial(function, **{key: read(by_name[key], where, value) for key, value in values.items()})


def _options(function: Callable[..., Any]) -> tuple[Option, ...] | None:
    """The options of a loss; None if one of them cannot be written (an array)."""
    hints = typing.get_type_hints(function)
    out = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        option = _option(parameter.name, hints[parameter.name], parameter.default)
        if option is None:
            return None
        out.append(option)
    return tuple(out)


def _option(name: str, hint: Any, default: Any) -> Option | None:
    if name in _FUNCTIONS:
        return Option(name, typing.cast(Kind, name), default, tuple(_FUNCTIONS[name]))
    if name == "generator":
        return Option(name, "choice", default, tuple(GENERATORS))
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    optional = type(None) in members
    kinds = [m for m in members if m not in (type(None), np.random.Generator)]
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if typing.get_origin(kind) is Literal:
        return Option(name, "choice", default, typing.get_args(kind), optional=optional)
    if typing.get_origin(kind) is tuple:
        return Option(name, "numbers", default, length=len(typing.get_args(kind)), optional=optional)
    simple: dict[Any, Kind] = {float: "number", int: "integer", bool: "switch"}
    return Option(name, simple[kind], default, optional=optional) if kind in simple else None


def _losses() -> dict[str, NamedLoss]:
    """Every function of `klsim.objectives` of a batch and options that can be written, to a `Loss`."""
    found = {}
    for name in objectives.__all__:
        function = getattr(objectives, name)
        if not inspect.isfunction(function) or inspect.signature(function).return_annotation != "Loss":
            continue
        if next(iter(inspect.signature(function).parameters)) != "batch":
            continue
        options = _options(function)
        if options is not None:
            summary = inspect.getdoc(function) or ""
            found[name] = NamedLoss(name, function, options, summary.split("\n", 1)[0], name not in _OTHER_WRITERS)
    return found


LOSSES: Mapping[str, NamedLoss] = types.MappingProxyType(_losses())
"""Every loss that has a name, by it."""


def address(name: str, options: Mapping[str, Any]) -> str:
    """The text that `from_text` reads as this loss with these options; ``""`` if one of them cannot be written.

    Raises:
        TypeError: no name, or no mapping of options.
    """
    _validate.instance("name", name, str)
    _validate.instance("options", options, Mapping)
    if name not in LOSSES:
        return ""
    known = {option.name: option for option in LOSSES[name].options}
    parts = []
    for key, value in options.items():
        text = _text(value)
        try:
            if key not in known or known[key].parse(name, text) != value:
                return ""
        except ValueError:
            return ""
        parts.append(f"{key}={text}")
    return name + ("?" + "&".join(parts) if parts else "")


def _known(name: str) -> NamedLoss:
    if name not in LOSSES:
        raise ValueError(f"objective {name!r}: no such objective{near(name, LOSSES)}")
    return LOSSES[name]


def named(name: str, **options: Any) -> LossFunction:
    """The loss of this name with these options (Python values), a function of a `klsim.objectives.TokenBatch`.

    Raises:
        ValueError: an unknown name or option (with the near ones), one that is missing, a value of another kind.
    """
    kl = options.pop("kl", None)
    loss = _known(name).bind(f"objective {name!r}", options)
    return loss if kl is None else _with_kl(name, loss, kl, text=False)


def from_text(text: str) -> LossFunction:
    """The loss that an address such as ``grpo?clip=0.2,0.28&kl.place=loss&kl.beta=0.1`` names.

    Raises:
        ValueError: as `named`; an option without ``=``, one that is given twice, text that is no value of its kind.
    """
    name, options = _split(text)
    kl = {key.removeprefix("kl."): options.pop(key) for key in list(options) if key.startswith("kl.")}
    loss = _known(name).bind(f"objective {name!r}", options, text=True)
    return _with_kl(name, loss, kl, text=True) if kl else loss


def _split(text: str) -> tuple[str, dict[str, str]]:
    name, mark, query = text.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(f"objective {text!r}: {part!r} is no option, write option=value")
        if key in options:
            raise ValueError(f"objective {text!r}: option {key!r} is given twice")
        options[key] = value
    return name, options


def _with_kl(name: str, loss: LossFunction, kl: Any, *, text: bool) -> LossFunction:
    where = f"objective {name!r}: kl"
    if not isinstance(kl, Mapping):
        raise ValueError(f"{where}: must be a table, got {kl!r}")
    options = dict(kl)
    place = options.pop("place", None)
    if place not in ("reward", "loss"):
        raise ValueError(f"{where}: place must be 'reward' or 'loss', got {place!r}")
    if place == "reward":
        regularized = _bound(
            where, objectives.kl_in_reward, _options(objectives.kl_in_reward) or (), options, text=text
        )
        return lambda batch: loss(regularized(batch))
    if "beta" not in options:
        raise ValueError(f"{where}: parameter 'beta' is missing")
    number = Option("beta", "number", None)
    beta = (number.parse if text else number.check)(where, options.pop("beta"))
    beta = _validate.real(f"{where}: beta", beta, low=0.0)
    penalty = LOSSES["kl_in_loss"].bind(where, options, text=text)

    def total(batch: TokenBatch) -> Loss:
        main, metrics = loss(batch)
        extra, more = penalty(batch)
        return main + beta * extra, metrics | more

    return total
