"""A small model in the place of SmolLM2: a folder of its name, which comes first wherever a model is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from klsim.lm import models, train
from klsim.lm.config import parse

NAME = "smollm2-135m"


def put(folder: Path, data: dict[str, Any], steps: int) -> None:
    """Write ``folder/smollm2-135m``: a transformer of a few thousand weights after some supervised steps on `data`."""
    stage = {"name": "base", "method": "sft", "steps": steps, "batch": 20, "learning_rate": 1e-2}
    made = {"output": str(folder / "small"), "model": {"hidden": 16, "layers": 1, "heads": 2}, "stage": [stage],
            "data": data, "evaluation": {"prompts": 2, "samples": 2}}  # fmt: skip
    (done,) = train.run(parse(made))
    trained = models.load_model(done.folder / "model")
    models.save_checkpoint(trained, models.load_tokenizer(done.folder / "model"), folder / NAME)
