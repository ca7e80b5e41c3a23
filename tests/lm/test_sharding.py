"""Sharded training: what is refused says why."""

from __future__ import annotations

import pytest
from datasets import Dataset
from trl import GRPOConfig

from klsim.lm import models, objectives, tasks, train
from klsim.lm.config import parse
from klsim.lm.trainer import ObjectiveTrainer, quiet


def test_fsdp_on_cpus_is_no_sharding(tmp_path, monkeypatch):
    """accelerate ignores the wish where there is no accelerator: every process would hold the whole model."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    task = tasks.make("add", {"kind": "modular", "terms": 2, "chain": False})
    tokenizer = models.character_tokenizer(task.alphabet)
    args = GRPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=4, num_generations=4, report_to=[]
    )
    with quiet(), pytest.raises(ValueError, match="FSDP: accelerate shards on accelerators only"):
        ObjectiveTrainer(
            model=models.tiny_model(tokenizer, hidden=16, layers=1, heads=2),
            objective=objectives.named("rloo"), args=args, reward_funcs=[task.reward],
            train_dataset=Dataset.from_list(task.examples(4)), processing_class=tokenizer,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_klsim_train_keeps_whole_models(small, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=f"{name}: klsim train keeps whole models"):
        train.run(parse(small | {"output": str(tmp_path)}))
