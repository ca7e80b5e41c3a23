"""Small worlds for the tests of the bridge."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
torch.set_num_threads(1)


@pytest.fixture
def small() -> dict:
    """A configuration that trains in a second or two."""
    domain = {"kind": "modular", "terms": 2, "chain": False}
    return {
        "output": "run",
        "model": {"hidden": 16, "layers": 1, "heads": 2},
        "train_prompts": 40,
        "evaluation": {"prompts": 8, "samples": 4},
        "tasks": {"add": domain, "mul": domain | {"operations": "*"}},
        "stage": [{"name": "base", "method": "sft", "steps": 8, "log_steps": 2, "save_steps": 4, "batch": 8}],
    }
