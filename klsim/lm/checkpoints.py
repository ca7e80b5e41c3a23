"""Checkpoints of causal language models: loaded with errors of one line, saved whole or not at all.

Weights are read and written as safetensors only, code from checkpoints is never run, and a checkpoint folder either
exists completely or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from klsim.files import part_prefix, remove_left_over

__all__ = ["check_same_vocabulary", "load_model", "load_tokenizer", "save_checkpoint"]

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_model(source: Path | str, *, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    """A causal language model from a folder or from the Hub, in evaluation mode on the CPU.

    Args:
        source: a checkpoint folder, or a name such as ``Qwen/Qwen2.5-0.5B`` (the local cache is asked first).
        dtype: of the weights; that of the checkpoint by default.

    Raises:
        OSError: neither a folder nor a model that the Hub knows.
        ValueError: a weight file that is cut off or no safetensors file; weights that config.json asks for and that are
            not there or have another shape. Weights that it does not ask for are a warning.
    """
    folder = _folder(source)
    if folder is not None:
        _check_weights(folder)
    # shapes that do not fit are let through, because the error of transformers does not say which they are
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    model, info = loaded(AutoModelForCausalLM, source, folder, **options)
    mismatched = [str(key[0]) for key in info["mismatched_keys"]]
    # random numbers would stand in their places
    for keys, problem in ((info["missing_keys"], "lack"), (mismatched, "have another shape for")):
        if keys:
            raise ValueError(f"{source}: its weight files {problem} {_listed(keys)}, unlike its config.json")
    if info["unexpected_keys"]:
        unused = _listed(info["unexpected_keys"])
        warnings.warn(f"{source}: weights that its config.json does not ask for are ignored: {unused}", stacklevel=2)
    found: PreTrainedModel = model.eval()
    return found


def load_tokenizer(source: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder or Hub name, padding on the left; a missing pad token becomes the eos token.

    Raises:
        OSError: neither a folder nor a model that the Hub knows. ValueError: no tokenizer, or none with an eos token.
    """
    tokenizer: PreTrainedTokenizerBase = loaded(AutoTokenizer, source, _folder(source))
    tokenizer.padding_side = "left"
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{source}: its tokenizer has no eos token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_same_vocabulary(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Both tokenizers give every token the same id, so that log-probabilities of one are those of the other.

    Raises:
        ValueError: names the first id at which they differ.
    """
    ours, theirs = ({i: token for token, i in t.get_vocab().items()} for t in (student, teacher))
    for i in sorted(ours.keys() | theirs.keys()):
        if ours.get(i) != theirs.get(i):
            left, right = (repr(v[i]) if i in v else "nothing" for v in (ours, theirs))
            raise ValueError(f"vocabularies differ: token {i} is {left} in the student's and {right} in the teacher's")


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Write weights (safetensors), configuration and tokenizer; ``folder`` appears complete or not at all.

    A checkpoint that stands there is replaced, an empty folder filled.

    Raises:
        OSError: ``folder`` is a file, or holds something that is not a checkpoint; it is left alone.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and (_is_checkpoint(folder) or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder}: exists and is no checkpoint; it is not overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():  # a process that was killed between its two renamings: the former checkpoint is there
        for former in sorted(folder.parent.glob(f".{folder.name}.*.part/old")):
            former.rename(folder)
            break
    remove_left_over(folder)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=part_prefix(folder), suffix=".part"))
    try:
        written = beside / "new"
        with quietly():
            model.save_pretrained(written)
            tokenizer.save_pretrained(written)
        for file in [*written.rglob("*"), written]:
            _sync(file)
        old = beside / "old"
        if folder.exists():
            folder.rename(old)
        try:
            written.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        _sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _listed(keys: Iterable[str]) -> str:
    first, *others = sorted(keys)
    return f"{first} and {len(others)} more" if others else first


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _folder(source: Path | str) -> Path | None:
    """The folder that ``source`` names, or None if it is a name for the Hub."""
    if isinstance(source, str | Path) and str(source) and Path(source).is_dir():
        return Path(source)
    if not isinstance(source, str) or HUB_NAME.fullmatch(source) is None:
        raise FileNotFoundError(f"{source}: is neither a folder nor the name of a model on the Hub")
    return None


def _check_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: is no checkpoint, it has no config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: is no checkpoint, it has no *.safetensors file")
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: is cut off or no safetensors file ({_short(error)})") from None


def loaded(kind: Any, source: Path | str, folder: Path | None, *, shown: Path | str = "", **options: Any) -> Any:
    """``kind.from_pretrained`` with errors of one line that name ``shown`` (or ``source``); a Hub name is looked up in
    the local cache first."""
    options["trust_remote_code"] = False
    shown = shown or source
    with quietly():
        try:
            if folder is None:
                with suppress(OSError, ValueError):
                    return kind.from_pretrained(source, local_files_only=True, **options)
            return kind.from_pretrained(source, **options)
        except SafetensorError as error:
            raise ValueError(f"{shown}: a weight file is cut off or corrupt ({_short(error)})") from None
        except OSError as error:
            if folder is None:
                raise OSError(
                    f"{shown}: is neither a folder nor a model that can be had from the Hub ({_short(error)})"
                ) from None
            raise OSError(f"{shown}: cannot be loaded ({_short(error)})") from None
        except Exception as error:  # broken JSON, an unknown model type, a vocabulary that does not fit: many types
            raise ValueError(f"{shown}: cannot be loaded ({_short(error)})") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def quietly() -> Iterator[None]:
    """Without progress bars, and without transformers' table of the weights that do not fit: they are errors here."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
