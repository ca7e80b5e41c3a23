"""klsim train: stages, resuming after a kill with the same bits, several processes, and errors."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from klsim.lm import models, train
from klsim.lm.config import parse

GRPO = {
    "name": "rl", "method": "objective", "start": "base", "objective": {"name": "grpo"}, "tasks": ["add"], "steps": 4,
    "save_steps": 2, "log_steps": 1, "prompts": 2, "group": 4,
}  # fmt: skip


def stages(small, *more):
    data = copy.deepcopy(small)
    data["stage"] += copy.deepcopy(list(more))
    return data


def data_sft(small):
    return copy.deepcopy(small["stage"][0])


def toml(data) -> str:
    def value(x):
        if isinstance(x, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in x.items()) + " }"
        return json.dumps(x)

    lines = [f"{k} = {value(v)}" for k, v in data.items() if k != "stage"]
    for stage in data["stage"]:
        lines += ["[[stage]]", *(f"{k} = {value(v)}" for k, v in stage.items())]
    return "\n".join(lines) + "\n"


def command(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "klsim", "train", str(config), *options]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_all_kinds_of_stages(tmp_path, small):
    opd = GRPO | {
        "name": "student", "objective": {"name": "g_opd", "lam": 1.25}, "teachers": {"add": "rl", "mul": "base"},
        "tasks": ["add", "mul"],
    }  # fmt: skip
    imitate = data_sft(small) | {"name": "imitation", "teachers": "rl", "start": "base"}
    data = stages(small, GRPO, opd, {"name": "soup", "method": "average", "of": ["base", "rl"]}, imitate)
    data |= {"output": str(tmp_path / "run")}
    data["evaluation"]["ref"] = "base"
    seen = []
    results = train.run(parse(data), lambda stage, step, text: seen.append((stage, step, text)))
    assert [r.name for r in results] == ["base", "rl", "student", "soup", "imitation"]
    assert ("rl", 4, "done") in seen
    folder = tmp_path / "run"
    lines = [json.loads(line) for line in (folder / "student" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "kl_to_ref", "kl_to_teacher", "entropy", "reward"} <= set(lines[0])
    assert [line["step"] for line in lines[:4]] == [1, 2, 3, 4]
    assert list((folder / "rl" / "tensorboard").iterdir())
    assert not list(folder.glob("*/checkpoint-*"))
    base, rl, soup = (weights(folder / name) for name in ("base", "rl", "soup"))
    for key, value in soup.items():
        torch.testing.assert_close(value, (base[key] + rl[key]) / 2)
    assert results[0].evaluations["add"]["kl"] == {}  # the reference itself
    assert set(results[1].evaluations["add"]["kl"]) == {"ref"}
    assert set(results[2].evaluations["mul"]["kl"]) == {"ref", "teacher"}
    # again: nothing is done twice
    before = (folder / "rl" / "model" / "model.safetensors").stat().st_mtime_ns
    train.run(parse(data))
    assert (folder / "rl" / "model" / "model.safetensors").stat().st_mtime_ns == before
    # another configuration is not mixed in
    data["stage"][1]["learning_rate"] = 0.5
    with pytest.raises(ValueError, match=r"rl: made with another configuration \(stage\)"):
        train.run(parse(data))


@pytest.mark.slow
def test_resume_after_a_kill_gives_the_same_bits(tmp_path, small):
    steps = {"steps": 60, "save_steps": 10}
    data = stages(small, GRPO | steps)
    config = tmp_path / "c.toml"
    config.write_text(toml(data))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(config, "--output", str(whole)), env=environment(), check=True, capture_output=True)
    process = subprocess.Popen(
        command(config, "--output", str(cut)), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not list((cut / "rl").glob("checkpoint-*")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (cut / "rl" / "model").exists()  # it was killed in the middle
    subprocess.run(command(config, "--output", str(cut)), env=environment(), check=True, capture_output=True)
    assert same(weights(whole / "rl"), weights(cut / "rl"))
    logged = [
        [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()] for out in (whole, cut)
    ]
    steps_and_losses = [[(line["step"], line.get("loss")) for line in lines] for lines in logged]
    assert steps_and_losses[0] == steps_and_losses[1]
    # control: the comparison can fail
    assert not same(weights(whole / "rl"), weights(whole / "base"))


def test_a_stage_whose_first_file_was_half_written_is_begun(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".stage.json.{ended.pid}.x.part").write_text('{"seed"')
    train._claim(tmp_path, {"seed": 0})
    assert [p.name for p in tmp_path.iterdir()] == ["stage.json"]
    train._claim(tmp_path, {"seed": 0})
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="another configuration"):
        train._claim(tmp_path, {"seed": 1})


def test_resume_between_the_last_step_and_the_end(tmp_path, small, run_cut_at_rl):
    constant = {"trainer": {"lr_scheduler_type": "constant"}}  # a step too many would show
    data = stages(small, GRPO | constant)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.run(parse(data | {"output": str(whole)}))
    run_cut_at_rl(parse(data | {"output": str(cut)}))
    train.run(parse(data | {"output": str(cut)}))
    assert same(weights(whole / "rl"), weights(cut / "rl"))
    files = [(out / "rl" / "metrics.jsonl").read_text().splitlines() for out in (whole, cut)]
    assert [json.loads(line)["step"] for line in files[0]] == [json.loads(line)["step"] for line in files[1]]


STUDENT = {
    "name": "student", "method": "objective", "objective": {"name": "g_opd"}, "teachers": "base", "steps": 6,
    "log_steps": 1, "save_steps": 1, "prompts": 2, "group": 2, "learning_rate": 0.01,
}  # fmt: skip
SHOWN = {
    "name": "shown", "method": "sft", "steps": 6, "log_steps": 1, "save_steps": 1, "batch": 2, "learning_rate": 0.01,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "options", "prompts", "dies"),  # prompts of an epoch; dies: in this micro-batch
    [
        (STUDENT, {}, 6, 6),
        (STUDENT, {}, 6, 4),  # the checkpoint is that of an epoch's end
        pytest.param(STUDENT, {"by_length": True}, 6, 6, marks=pytest.mark.slow),
        pytest.param(STUDENT, {"trainer": {"gradient_accumulation_steps": 2}}, 12, 11, marks=pytest.mark.slow),
        pytest.param(
            STUDENT, {"steps": 8, "save_steps": 2, "trainer": {"num_iterations": 2}}, 4, 8, marks=pytest.mark.slow
        ),
        (STUDENT, {"steps": 8, "save_steps": 2, "trainer": {"steps_per_generation": 2}}, 8, 8),
        pytest.param(SHOWN, {}, 8, 6, marks=pytest.mark.slow),
        (SHOWN, {"by_length": True}, 8, 6),
        pytest.param(SHOWN, {"trainer": {"gradient_accumulation_steps": 2}}, 10, 9, marks=pytest.mark.slow),
    ],
)
def test_resume_in_the_second_epoch_gives_the_same_bits(tmp_path, small, monkeypatch, stage, options, prompts, dies):
    data = stages(small, stage | options)
    data |= {"train_prompts": prompts, "tasks": {"add": small["tasks"]["add"]}}
    data["stage"][0] |= {"steps": 4, "save_steps": 4, "learning_rate": 0.01}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.run(parse(data | {"output": str(whole)}))
    kind = train.SupervisedTrainer if stage is SHOWN else train.ObjectiveTrainer
    original, left = kind.training_step, dies + (4 if stage is SHOWN else 0)  # the stage before has four

    def killed(self, *args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(parse(data | {"output": str(cut)}))
    assert list((cut / stage["name"]).glob("checkpoint-*"))
    train.run(parse(data | {"output": str(cut)}))
    assert same(weights(whole / stage["name"]), weights(cut / stage["name"]))
    assert not same(weights(whole / "base"), weights(cut / stage["name"]))  # the comparison can fail


@pytest.mark.slow
def test_two_processes(tmp_path, small):
    opd = GRPO | {
        "name": "student", "objective": {"name": "g_opd_full"}, "teachers": {"add": "rl", "mul": "base"},
        "tasks": ["add", "mul"], "steps": 2,
    }  # fmt: skip
    data = stages(small, GRPO, opd) | {"output": str(tmp_path / "run")}
    config = tmp_path / "c.toml"
    config.write_text(toml(data))
    # accelerate launch starts a single process on CPUs; torchrun starts two
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environ = environment() | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, "-m", "klsim", "train", str(config)], env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("summary.png") == 1  # the first process reports
    lines = [json.loads(line) for line in (tmp_path / "run" / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    prompts, group, prompt_tokens = 2, 4, 7  # every process takes its own prompts: "a+b%10=" and at least an end
    assert lines[0]["num_tokens"] >= 2 * prompts * group * (prompt_tokens + 1)
    assert models.load_model(tmp_path / "run" / "rl" / "model")


def test_the_command_line(tmp_path, small):
    config = tmp_path / "c.toml"
    config.write_text(toml(small | {"output": str(tmp_path / "run")}))
    checked = subprocess.run(command(config, "--check"), env=environment(), capture_output=True, text=True, check=True)
    assert "add: modular(+ mod 10, 2 terms to 9, no chain), 40 to train on, 8 to test on" in checked.stdout
    assert not (tmp_path / "run").exists()
    done = subprocess.run(command(config), env=environment(), capture_output=True, text=True, check=True)
    assert "evaluation" in done.stdout
    for name in ("summary.svg", "summary.png", "curves.csv", "outcomes.csv"):
        assert (tmp_path / "run" / name).is_file()
    config.write_text(config.read_text().replace('method = "sft"', 'method = "stf"'))
    wrong = subprocess.run(command(config), env=environment(), capture_output=True, text=True)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "stf" in wrong.stderr


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": "no/such/folder"}, OSError, "no/such/folder: is neither a folder nor"),
        (
            {"trainer": {"learning": 1}},
            ValueError,
            "stage 'rl': trainer has no option 'learning' of GRPOConfig; near: ",
        ),
        ({"trainer": {"beta": 0.1}}, ValueError, "args.beta = 0.1: acts in TRL's own loss only"),
        ({"trainer": {"max_steps": 1}}, ValueError, "stage 'rl': trainer.max_steps: set the stage's steps"),
        (
            {"trainer": {"fsdp": "full_shard"}},
            ValueError,
            "trainer.fsdp: is of the whole run: say it to accelerate launch",
        ),
        ({"group": 3, "trainer": {"per_device_train_batch_size": 4}}, ValueError, "GRPOConfig: "),
    ],
)
def test_errors(tmp_path, small, change, error, message):
    data = stages(small, GRPO | change) | {"output": str(tmp_path / "run")}
    with pytest.raises(error, match=message):
        train.run(parse(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": float("inf")}, r"stage\[1\]\.learning_rate = inf"),
        ({"steps": 10**9}, r"stage\[1\]\.steps = 1000000000"),
        ({"temperature": float("nan")}, r"stage\[1\]\.temperature = nan"),
        ({"group": 10**7}, r"stage\[1\]\.group = 10000000"),
    ],
)
def test_what_no_machine_can_do_is_refused(small, change, message):
    with pytest.raises(ValueError, match=message):
        parse(stages(small, GRPO | change))


def test_a_task_that_no_machine_can_write_down_is_refused(small):
    with pytest.raises(ValueError, match="terms = 100000000: must be <= 1000"):
        train.world(parse(small | {"tasks": {"add": {"kind": "modular", "terms": 10**8}}}))


def test_another_vocabulary_and_a_corrupt_teacher(tmp_path, small):
    other = models.character_tokenizer("abc")
    models.save_checkpoint(models.tiny_model(other, hidden=16, layers=1, heads=2), other, tmp_path / "other")
    opd = GRPO | {"objective": {"name": "opd"}, "teachers": str(tmp_path / "other")}
    data = stages(small, opd) | {"output": str(tmp_path / "run")}
    with pytest.raises(ValueError, match="vocabularies differ: token 3 is "):
        train.run(parse(data))
    file = tmp_path / "run" / "base" / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    data["stage"][1] = GRPO
    with pytest.raises(ValueError, match=r"model\.safetensors: is cut off or no safetensors file"):
        train.run(parse(data | {"output": str(tmp_path / "run")}))


def test_a_folder_of_something_else(tmp_path, small):
    (tmp_path / "run" / "base").mkdir(parents=True)
    (tmp_path / "run" / "base" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds files that are no stage"):
        train.run(parse(small | {"output": str(tmp_path / "run")}))
    assert (tmp_path / "run" / "base" / "thesis.tex").read_text() == "x"
