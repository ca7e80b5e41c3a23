"""Loss code of packages whose ``__init__`` needs a GPU or a cluster: single files, loaded as they stand."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

__all__ = ["load_file"]


def load_file(package: str, file: str, stubs: tuple[str, ...] = ()) -> Any:
    """A module of an installed package, ``models/loss.py``, without the ``__init__`` files above it.

    Args:
        stubs: modules that its neighbours import and its own code does not use; empty ones stand in for those that
            are not installed.

    Raises:
        ModuleNotFoundError: the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the target needs {package}: pip install {package}")
    root = Path(next(iter(spec.submodule_search_locations)))
    if not (root / file).is_file():
        raise ModuleNotFoundError(f"the installed {package} has no {file}")
    for name in stubs:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            stub = types.ModuleType(name)
            stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = stub
    parent = f"_klsim_audit_{package}"
    parts = Path(file).with_suffix("").parts
    for depth in range(len(parts)):
        name = ".".join((parent, *parts[:depth]))
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__path__ = [str(root.joinpath(*parts[:depth]))]
            sys.modules[name] = module
    return importlib.import_module(".".join((parent, *parts)))
