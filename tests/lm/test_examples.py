"""The experiments of examples/: their configurations fit, and they measure what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from klsim.lm import config, models, train
from klsim.lm.tasks import make

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / "bridge" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.toml")), ids=lambda f: f.stem)
def test_configurations_fit(file):
    read = config.read(file)
    world = train.world(read)
    for name, task in world.tasks.items():
        assert len(world.train[name]) == read.train_prompts
        prompts = [row["prompt"] for row in (*world.train[name], *world.test[name])]
        assert len(set(prompts)) == len(prompts)
        assert max(map(len, prompts)) <= task.max_prompt_tokens


def test_the_readme_shows_the_example():
    assert "klsim train examples/distil.toml" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_frontier_enumerates_laws_and_rewards():
    frontier = example("frontier")
    task = make("sat", {"kind": "satisfiability", "n": 2, "k": 3, "l": 5})
    rows = task.examples(2, 0)
    tokenizer = models.character_tokenizer(task.alphabet)
    model = models.tiny_model(tokenizer, hidden=16, layers=1, heads=2).double()
    horizon = task.max_completion_tokens
    found, omitted = frontier.laws(model, tokenizer, rows, horizon)
    reward = frontier.rewards(task, rows, horizon)
    assert found.shape == reward.shape == (2, 3**horizon)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-12)
    assert 0.9 < omitted < 1  # an untrained model writes anything
    # by hand: every answer as text, its probability by one pass of the model, restricted to 0, 1 and the end
    alphabet = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["0", "1"])]
    for p, row in enumerate(rows):
        expected = {}
        for text in ("", "0", "1", "011", "101", "1111"):
            ids = tokenizer.encode(row["prompt"], add_special_tokens=False)
            answer = [
                *tokenizer.encode(text, add_special_tokens=False),
                *([alphabet[0]] if len(text) < horizon else []),
            ]
            with torch.no_grad():
                logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1][:, alphabet]
            steps = torch.log_softmax(logits, -1)
            expected[text] = float(sum(steps[t, alphabet.index(a)] for t, a in enumerate(answer)))
            place = int(np.polyval([alphabet.index(a) for a in answer] + [0] * (horizon - len(answer)), 3))
            assert found[p, place] == pytest.approx(expected[text], abs=1e-9)
            assert reward[p, place] == task.score(text, row)
    # the base itself: no KL; its best of 1 is itself; the frontier starts there
    kl, value = frontier.point(found, found, reward)
    assert kl == pytest.approx(0, abs=1e-12)
    assert frontier.frontier_at(found, reward, 1e9)[1] == pytest.approx(value, abs=1e-6)
    assert frontier.needed_kl(found, reward, value) == pytest.approx(0, abs=1e-6)
    best = frontier.frontier_at(found, reward, 0.2)
    assert frontier.needed_kl(found, reward, best[1]) == pytest.approx(best[0], rel=1e-6)


def test_exopd_compares_within_seeds():
    exopd = example("exopd")
    rows = []
    for seed in range(3):
        for stage in ("base", "teacher-sum", "teacher-product", *exopd.STUDENTS):
            for task in ("sum", "product"):
                bonus = 0.1 if stage == "exopd-1.25" else 0.0
                own = 0.05 if stage == f"teacher-{task}" else 0.0
                for measure in exopd.MEASURES:
                    value = 0.2 * seed + bonus + own
                    rows.append({"seed": seed, "stage": stage, "task": task, "measure": measure, "value": value})
    table = exopd.tabulate(exopd.Results(rows))

    def mean(stage, against):
        keys = ("stage", "against", "kind", "measure")
        (row,) = [r for r in table if [r[k] for k in keys] == [stage, against, "mean", "accuracy"]]
        return row["value"], row["low"], row["high"]

    assert mean("exopd-1.25", "opd") == pytest.approx((0.1, 0.1, 0.1))  # seeds differ by far more
    assert mean("teachers", "nothing")[0] == pytest.approx(0.25)
    assert mean("opd", "teachers")[0] == pytest.approx(-0.05)


def smallest(file: str, output: Path):
    """The configuration of an experiment with one step a stage, on a handful of problems."""
    read = config.read(EXAMPLES / "bridge" / file, output=output)
    sizes = {"steps": 1, "save_steps": 1, "log_steps": 1}
    stages = []
    for stage in read.stage:
        update = dict(sizes) if stage.method != "average" else {}
        update |= {"prompts": 2, "group": 2} if stage.method == "objective" else {}
        update |= {"batch": 4} if stage.method == "sft" else {}
        stages.append(stage.model_copy(update=update))
    evaluation = read.evaluation.model_copy(update={"prompts": 4, "batch": 64})
    model = read.model.model_copy(update={"hidden": 16, "layers": 1, "heads": 2})
    return read.model_copy(
        update={"stage": tuple(stages), "evaluation": evaluation, "model": model, "train_prompts": 12}
    )


@pytest.mark.slow
def test_the_smallest_exopd_runs_to_its_table(tmp_path):
    exopd = example("exopd")
    rows = []
    for seed in (0, 1):
        read = smallest("exopd.toml", tmp_path / str(seed)).model_copy(update={"seed": seed})
        rows += [row for r in train.run(read) for row in exopd._rows(seed, r.name, r.evaluations)]
    table = exopd.tabulate(exopd.Results(rows))
    assert {r["stage"] for r in table} == set(exopd.STAGES)
    assert all(np.isfinite([r["value"], r["low"], r["high"]]).all() for r in table)
    moved = {r["stage"]: r["value"] for r in table if (r["measure"], r["kind"]) == ("KL to base", "mean")}
    assert moved["base"] == 0
    assert (
        moved["sft"] != 0
    )  # no reward, no step of GRPO: the untrained teachers are the base; a supervised step is one


@pytest.mark.slow
def test_the_smallest_frontier_is_an_upper_bound(tmp_path):
    frontier = example("frontier")
    read = smallest("frontier.toml", tmp_path)
    train.run(read)
    rows, omitted = frontier.measure(read, lambda text: None)
    assert 0 <= omitted < 1
    names = {r["name"] for r in rows if r["series"] == "model"}
    assert names == {stage.name for stage in read.stage}
    for r in rows:  # no law, trained or best of N, is above the frontier of the base
        assert -1e-6 <= r["efficiency"] <= 1 + 1e-6, r
