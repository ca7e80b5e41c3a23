"""Sharded training: DeepSpeed's ZeRO 1 and 2 train as whole models do; what is refused says why."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import time

import psutil
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from klsim.lm import models, processes, train
from klsim.lm.config import parse
from klsim.lm.trainer import SupervisedTrainer, quiet
from tests.lm.small_models import TOKENIZER, model_of
from tests.lm.test_train import GRPO, environment, stages, toml

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is optional")


def test_klsim_train_keeps_whole_models(small, tmp_path, monkeypatch):
    config = parse(small | {"output": str(tmp_path)})
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_USE_FSDP", "true")
        with pytest.raises(ValueError, match="ACCELERATE_USE_FSDP: klsim train keeps whole models"):
            train.run(config)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    for stage in ("0", "3"):
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", stage)
        with pytest.raises(ValueError, match=f"ZeRO stage {stage}, must be 1 or 2: klsim train keeps whole models"):
            train.run(config)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install deepspeed"):
        train.run(config)


def supervised(folder):
    rows = Dataset.from_list([{"prompt": "0=", "completion": "1"}])
    with quiet():
        return SupervisedTrainer(
            model=model_of(0),
            args=SFTConfig(str(folder), use_cpu=True, bf16=False, report_to=[]),
            train_dataset=rows,
            processing_class=TOKENIZER,
        )


def test_fsdp_that_accelerate_would_ignore_is_refused(tmp_path, monkeypatch):
    assert supervised(tmp_path)  # control
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP: accelerate shards on accelerators only; NO would hold whole models"):
        supervised(tmp_path)


def test_deepspeed_that_accelerate_would_ignore_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_asked", lambda variable: variable == "ACCELERATE_USE_DEEPSPEED")
    with pytest.raises(ValueError, match="DeepSpeed: accelerate ignores it with use_cpu; NO would not shard"):
        supervised(tmp_path)


def test_a_checkpoint_is_resumed_as_it_was_written(tmp_path, monkeypatch):
    processes.check_checkpoint(tmp_path)
    (tmp_path / "latest").write_text("global_step4")
    with pytest.raises(ValueError, match="its optimiser was written with DeepSpeed; resume it with DeepSpeed"):
        processes.check_checkpoint(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    processes.check_checkpoint(tmp_path)
    (tmp_path / "latest").unlink()
    with pytest.raises(ValueError, match="its optimiser was written without DeepSpeed"):
        processes.check_checkpoint(tmp_path)


def written(data, folder):
    """The command that trains it in two processes, into ``folder / "run"``."""
    config = folder / "c.toml"
    config.write_text(toml(data | {"output": str(folder / "run")}))
    return [*TWO, "-m", "klsim", "train", str(config)]


def two_processes(data, folder, check=True, **variables):
    """Losses and norms of gradients of every step of every stage, by ``klsim train`` in two processes."""
    done = subprocess.run(
        written(data, folder), env=environment() | variables, capture_output=True, text=True, timeout=600
    )
    if not check:
        return done
    assert done.returncode == 0, done.stderr[-3000:]
    return [x for stage in data["stage"] for _, *found in losses(folder / "run" / stage["name"]) for x in found]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def deepspeed(stage):
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}


@pytest.mark.slow
def test_accelerate_ignores_fsdp_between_cpus(tmp_path):
    """The reason of the refusal: the plugin is asked for, and the processes are those of whole models."""
    script = tmp_path / "fsdp.py"
    script.write_text(
        "from accelerate import Accelerator\n"
        "a = Accelerator(cpu=True)\n"
        "print(a.num_processes, a.distributed_type.value, hasattr(a.state, 'fsdp_plugin'))\n"
    )
    environ = environment() | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    done = subprocess.run([*TWO, str(script)], env=environ, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["2", "MULTI_CPU", "False"] * 2, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
@needs_deepspeed
def test_zero_trains_as_whole_models_do(small, tmp_path):
    """Losses and gradients of eight steps by SFT, four by GRPO and two towards teachers; single precision."""
    opd = GRPO | {
        "name": "student", "objective": {"name": "g_opd_full"}, "teachers": {"add": "rl", "mul": "base"},
        "tasks": ["add", "mul"], "steps": 2,
    }  # fmt: skip
    data = stages(small, GRPO, opd)
    found = {}
    for name, variables in (("ddp", {}), ("zero1", deepspeed(1)), ("zero2", deepspeed(2))):
        (tmp_path / name).mkdir()
        found[name] = two_processes(data, tmp_path / name, **variables)
    assert len(found["ddp"]) == 2 * (8 // 2 + 4 + 2)
    assert not list((tmp_path / "zero2" / "run").glob("*/checkpoint-*"))
    assert all(math.isfinite(x) for x in found["ddp"])
    # float32, 6e-8 a sum, through 14 steps; measured 2e-6
    assert found["zero1"] == pytest.approx(found["ddp"], rel=1e-5, abs=1e-6)
    assert found["zero2"] == pytest.approx(found["ddp"], rel=1e-5, abs=1e-6)
    # control: the comparison sees a learning rate that is off by a thousandth
    data["stage"][0]["learning_rate"] = 1.001 * parse(small).stage[0].learning_rate
    (tmp_path / "other").mkdir()
    assert two_processes(data, tmp_path / "other") != pytest.approx(found["ddp"], rel=1e-5, abs=1e-6)


@pytest.mark.slow
@needs_deepspeed
def test_a_gradient_that_is_not_finite_ends_a_run_of_zero(small, tmp_path):
    tokenizer = models.character_tokenizer("0123456789+-*%=;")
    broken = models.tiny_model(tokenizer, hidden=16, layers=1, heads=2)
    with torch.no_grad():
        broken.lm_head.weight.fill_(1e38)
    models.save_checkpoint(broken, tokenizer, tmp_path / "broken")
    small["model"] = {"path": str(tmp_path / "broken")}
    done = two_processes(small, tmp_path, check=False, **deepspeed(2))
    assert done.returncode != 0
    assert "the gradient is not finite; DeepSpeed took the step" in done.stderr, done.stderr[-3000:]
    assert not list((tmp_path / "run").glob("*/model"))


@pytest.mark.slow
@needs_deepspeed
def test_zero_resumes_after_a_kill(small, tmp_path):
    """The shards of the optimiser go on: the losses and gradients of a run that was not killed, to the last bit."""
    small["stage"][0] |= {"steps": 60, "save_steps": 10, "log_steps": 1}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    two_processes(small, whole, **deepspeed(2))
    process = subprocess.Popen(
        written(small, cut), env=environment() | deepspeed(2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((cut / "run" / "base").glob("checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)  # they outlive their launcher
    for one in (process, *workers):
        one.kill()
    process.wait()
    psutil.wait_procs(workers)
    assert not (cut / "run" / "base" / "model").exists()
    with pytest.raises(AssertionError, match="its optimiser was written with DeepSpeed; resume it with DeepSpeed"):
        two_processes(small, cut)
    two_processes(small, cut, **deepspeed(2))
    assert losses(cut / "run" / "base") == losses(whole / "run" / "base")
    assert len(losses(whole / "run" / "base")) == 60
