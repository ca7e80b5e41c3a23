"""What can be audited: a Python function, klsim's own objectives, and the loss code of installed trainers.

=========================================  ============================================================
target                                     what runs
=========================================  ============================================================
``package.module:function``                the function, called with an `AuditBatch` of torch tensors
``path/to/file.py:function``               the same
``klsim:grpo``                             an objective of `klsim.objectives.registry`
``trl:…``, ``liger:…``, ``verl:…``, …      a trainer's loss, see the module of its name in this package
=========================================  ============================================================

Options follow ``?`` as in an address: ``trl:grpo?loss_type=dapo&beta=0.1``. The trainers' loss code is their own; only
what surrounds it is stubbed: the model returns the tree's log-probabilities, and advantages are computed as the trainer
documents where it does so while it generates.

Others add trainers through the entry-point group ``klsim.audit_targets``: a name (the scheme) and a function ``(text,
name, options) -> Target``, where ``options`` maps names to texts.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from klsim.audit.target import Target, from_function
from klsim.files import importable

__all__ = ["GROUP", "SCHEMES", "from_function", "load_function", "load_target", "schemes"]

GROUP = "klsim.audit_targets"
"""The entry-point group in which packages register targets."""
SCHEMES = ("klsim", "trl", "liger", "verl", "torchrl", "openrlhf", "swift", "torchtune")
"""The package's own; each is the module of this package with the name and an underscore."""
Loader = Callable[[str, str, Mapping[str, str]], Target]


def schemes() -> tuple[str, ...]:
    """All known schemes, those of installed packages included."""
    others = [e.name for e in entry_points(group=GROUP) if e.name not in SCHEMES]
    return (*SCHEMES, *sorted(others))


def _loader(scheme: str) -> Loader:
    if scheme in SCHEMES:
        loader: Loader = importlib.import_module(f"klsim.audit.targets.{scheme}_").load
        return loader
    (entry,) = [e for e in entry_points(group=GROUP) if e.name == scheme][:1]
    found: Loader = entry.load()
    return found


def load_target(text: str) -> Target:
    """The target that ``text`` names, see the package.

    Raises:
        ValueError: a target or option that does not exist, an option given twice, a value that does not fit.
        ModuleNotFoundError: a trainer that is not installed. And what importing the target raises.
    """
    head, _, query = text.partition("?")
    scheme, _, name = head.partition(":")
    options = _options(text, query)
    if scheme in schemes():
        return _loader(scheme)(text, name, options)
    if not name:
        known = ", ".join(f"{s}:" for s in schemes())
        raise ValueError(f"target {text!r}: write module:function, file.py:function, or one of {known}")
    return from_function(text, _import(scheme, name, text), options)


def _options(text: str, query: str) -> dict[str, str]:
    """The options after ``?``.

    Raises:
        ValueError: one without a value, or given twice.
    """
    out: dict[str, str] = {}
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)  # k3+ is a name, not a blank
    for name, value in pairs:
        if not value:
            raise ValueError(f"target {text!r}: option {name!r} has no value")
        if name in out:
            raise ValueError(f"target {text!r}: option {name!r} is given twice")
        out[name] = value
    return out


def load_function(text: str) -> Callable[..., Any]:
    """A function by ``file.py:name`` or ``module:name``.

    Raises:
        ValueError: there is none. And what importing raises.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ValueError(f"function {text!r}: write file.py:function or module:function")
    return _import(place, name, text)


def _import(place: str, name: str, text: str) -> Callable[..., Any]:
    """A function of a file or module; the current folder and the file's own can be imported from."""
    importable(Path.cwd())
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ValueError(f"target {text!r}: no file {place}")
        importable(path.resolve().parent)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"target {text!r}: {place} has no function {name!r}")
    return found
