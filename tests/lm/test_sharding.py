"""Sharded training: what is refused says why."""

from __future__ import annotations

import pytest

from klsim.lm import train
from klsim.lm.config import parse


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_klsim_train_keeps_whole_models(small, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=f"{name}: klsim train keeps whole models"):
        train.run(parse(small | {"output": str(tmp_path)}))
