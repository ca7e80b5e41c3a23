"""LoRA, types of weights, checkpointing, prompts by length: what is trained, what is kept, and what the reference is."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from klsim.lm import models, train
from klsim.lm.adapters import adapter_off, merged, with_adapter
from klsim.lm.config import Lora, parse
from klsim.lm.lengths import LengthSampler

RL = {
    "name": "rl", "method": "objective", "start": "base", "tasks": ["add"], "steps": 4, "save_steps": 2, "log_steps": 1,
    "prompts": 2, "group": 4, "objective": {"name": "rloo", "kl": {"place": "reward", "beta": 0.1}},
}  # fmt: skip
TOKENIZER = models.character_tokenizer("0123456789+=")


def with_lora(small, tmp_path, *stages, **model):
    data = copy.deepcopy(small) | {"output": str(tmp_path)}
    data["model"] |= {"lora": {"r": 2, "alpha": 4}} | model
    data["stage"] += copy.deepcopy(list(stages))
    return parse(data)


def weights(folder, name="model/model.safetensors"):
    return load_file(folder / name)


def test_a_stage_trains_its_adapters_and_ends_with_them_merged(small, tmp_path):
    train.run(with_lora(small, tmp_path, RL | {"learning_rate": 0.02}))
    base, rl, adapter = (
        weights(tmp_path / "base"),
        weights(tmp_path / "rl"),
        weights(tmp_path / "rl", "adapter/adapter_model.safetensors"),
    )
    changed = {name for name in base if not torch.equal(base[name], rl[name])}
    assert changed
    assert all("proj" in name for name in changed)  # embeddings, norms and the head are those of the base
    for name in changed:
        place = "base_model.model." + name.removesuffix(".weight")
        update = 4 / 2 * adapter[f"{place}.lora_B.weight"] @ adapter[f"{place}.lora_A.weight"]
        torch.testing.assert_close(rl[name], base[name] + update)
    assert not list((tmp_path / "rl").glob("checkpoint-*"))
    # at its first step the policy is its reference: no KL; later there is some
    kl = [json.loads(line).get("kl_to_ref") for line in (tmp_path / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert abs(kl[3]) > 1e-6


TEACHER = {"name": "teacher", "method": "sft", "start": "base", "steps": 4, "learning_rate": 0.05, "save_steps": 10}
OPD = RL | {"objective": {"name": "g_opd_full", "lam": 1.5}, "teachers": "teacher"}


@pytest.mark.parametrize("stages", [[RL], [TEACHER, OPD]], ids=["tokens", "whole vocabulary in chunks"])
def test_without_adapters_the_model_is_the_former_stage(small, tmp_path, stages):
    """The same run with the former stage loaded as a second model: ``ref`` is given as a folder."""
    train.run(with_lora(small, tmp_path, *stages))
    again = stages[-1] | {"name": "again", "ref": str(tmp_path / "base" / "model")}
    train.run(with_lora(small, tmp_path, *stages, again))
    one, two = weights(tmp_path / "rl"), weights(tmp_path / "again")
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-4, atol=1e-6)
    assert not all(torch.equal(one[name], value) for name, value in weights(tmp_path / "base").items())


def test_a_stopped_stage_resumes_with_its_adapters(small, tmp_path, run_cut_at_rl):
    whole = with_lora(small, tmp_path / "whole", RL)
    train.run(whole)
    cut = with_lora(small, tmp_path / "cut", RL)
    run_cut_at_rl(cut)
    train.run(cut)
    one, two = weights(tmp_path / "whole" / "rl"), weights(tmp_path / "cut" / "rl")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_types_and_gradient_checkpointing(small, tmp_path):
    config = with_lora(small, tmp_path, RL | {"by_length": True}, dtype="bfloat16", gradient_checkpointing=True)
    train.run(config)
    assert {value.dtype for value in weights(tmp_path / "rl").values()} == {torch.bfloat16}
    adapter = weights(tmp_path / "rl", "adapter/adapter_model.safetensors")
    assert {value.dtype for value in adapter.values()} == {torch.float32}


def test_new_adapters_change_nothing_and_follow_the_seed():
    def made(seed):
        return with_adapter(models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2), Lora(r=2), seed)

    state = torch.get_rng_state()
    one, two, other = made(0), made(0), made(1)
    assert torch.equal(torch.get_rng_state(), state)
    named = [dict(model.named_parameters()) for model in (one, two, other)]
    assert all(torch.equal(value, named[1][name]) for name, value in named[0].items())
    assert not all(torch.equal(value, named[2][name]) for name, value in named[0].items())
    ids = torch.tensor([[3, 4, 5]])
    plain = models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2)(ids).logits
    assert torch.equal(one(ids).logits, plain)
    with torch.no_grad():
        for name, value in one.named_parameters():
            if "lora_B" in name:
                value.fill_(0.1)
    assert not torch.allclose(one(ids).logits, plain)
    one.train()
    with adapter_off(one):
        assert torch.equal(one(ids).logits, plain)
    assert one.training
    with_lora = one.eval()(ids).logits
    torch.testing.assert_close(merged(one)(ids).logits, with_lora)


def test_a_target_that_is_not_there():
    with pytest.raises(ValueError, match=r"model.lora: target = \('q',\): "):
        with_adapter(models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2), Lora(target=("q",)), 0)


def test_batches_by_length():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 1000, (205,), generator=generator).tolist()
    sampler = LengthSampler(lengths, mini_repeat_count=2, batch_size=4, repeat_count=3, seed=0)
    epochs = [list(sampler), list(sampler)]
    assert len(epochs[0]) == len(sampler) == 204 * 2 * 3
    assert epochs[0] != epochs[1]
    assert epochs[0] == list(LengthSampler(lengths, mini_repeat_count=2, batch_size=4, repeat_count=3, seed=0))
    blocks = [epochs[0][i : i + 8] for i in range(0, len(epochs[0]), 8)]
    assert blocks[0] == blocks[1] == blocks[2]  # repeat_count
    assert all(block[::2] == block[1::2] for block in blocks)  # mini_repeat_count
    batches = [block[::2] for block in blocks[::3]]
    assert len({i for batch in batches for i in batch}) == 204  # every prompt once
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    # 4 of 205 neighbours in order differ by about 3/205 of the range; 4 random ones by 3/5 of it
    assert sorted(spread)[len(spread) // 2] < 100
    means = [sum(lengths[i] for i in batch) for batch in batches]
    assert means != sorted(means)
