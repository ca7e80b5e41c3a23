"""What the adapters of TRL share: configs, trainers without their constructors, and options that act in the loss."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import option_value
from klsim.audit.targets.stubs import OneProcess, quiet

__all__ = ["acts_in", "configured", "provided", "release", "stub", "typed"]


def release() -> str:
    """Name and version of the installed TRL, as in ``trl 1.16.0``."""
    return f"trl {version('trl')}"


def acts_in(
    text: str, trainer: Any, options: Mapping[str, Any], handled: tuple[str, ...] = (), methods: tuple[str, ...] = ()
) -> None:
    """Options that the loss code does not read and the adapter does not apply would be ignored: refuse them.

    Raises:
        ValueError: there is one.
    """
    source = "".join(inspect.getsource(getattr(trainer, name)) for name in methods or ("_compute_loss",))
    for name in options:
        if name not in handled and not re.search(rf"\b(self|self\.args|args)\.{re.escape(name)}\b", source):
            raise ValueError(
                f"target {text!r}: {trainer.__name__}'s loss does not read {name!r} (acts elsewhere or does not exist)"
            )


def typed(text: str, cls: Any, options: Mapping[str, str]) -> dict[str, Any]:
    """Options as the fields of a config annotate them.

    Raises:
        ValueError: no number where one is due.
    """
    fields = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    out: dict[str, Any] = {}
    for name, given in options.items():
        value, kind = option_value(given), fields.get(name, "")
        if isinstance(value, str) and "str" not in kind and ("float" in kind or "int" in kind):
            raise ValueError(f"target {text!r}: {name}={given} is no number")
        if "float" in kind and "str" not in kind and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        out[name] = value
    return out


def configured(cls: Any, **options: Any) -> Any:
    """A trainer's config: it knows and checks its own options."""
    with quiet():
        try:
            return cls(output_dir=tempfile.gettempdir(), use_cpu=True, bf16=False, report_to=[], **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cls.__name__}: {error}") from None


def stub(cls: Any, args: Any, **attributes: Any) -> Any:
    """A trainer without its constructor: the options of its config, and stand-ins for what surrounds the loss."""
    trainer = cls.__new__(cls)
    given = {
        "args": args,
        "accelerator": OneProcess(),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "aux_loss_enabled": False,
        "use_liger_kernel": False,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "model_accepts_loss_kwargs": False,
        "vllm_importance_sampling_correction": False,
        "_name": "audit",
        "name": "audit",
        "precompute_ref_logps": False,
        "_total_train_tokens": 0,
        "_tp_size": 1,
        **attributes,
    }
    for name, value in given.items():
        with contextlib.suppress(AttributeError):
            object.__setattr__(trainer, name, value)
    return trainer


def provided(run: Callable[[], Any]) -> Any:
    """What a trainer's loss returns.

    Raises:
        ValueError: it reads something that its adapter does not provide.
    """
    try:
        with quiet():
            return run()
    except AttributeError as error:
        raise ValueError(f"{release()}: its loss reads what this adapter does not provide ({error})") from None
