"""Evaluation: samples follow the model's law, estimates agree with enumeration, nothing outside is disturbed."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from scipy import stats  # noqa: E402
from transformers import GenerationConfig  # noqa: E402

from klsim.frontier import read_rollouts  # noqa: E402
from klsim.lm import models  # noqa: E402
from klsim.lm.evaluate import evaluate, sample  # noqa: E402
from klsim.lm.tasks import ModularArithmetic  # noqa: E402
from tests.lm.small_models import TOKENIZER, model_of  # noqa: E402

EOS = TOKENIZER.eos_token_id
WIDTH = 3
ROWS = [{"prompt": p, "answer": a} for p, a in [("0=", "0"), ("1=", "1"), ("01=", "1"), ("110=", "0")]]


MODEL, OTHER = model_of(0), model_of(1, architecture="llama")


def starts_right(prompts, completions, answer, **columns):
    return [float(c.startswith(a)) for c, a in zip(completions, answer)]


def run(model=MODEL, rows=ROWS, reward=starts_right, **changes):
    options = {"samples": 8, "max_new_tokens": WIDTH, "seed": 3, "batch_size": 16} | changes
    return evaluate(model, TOKENIZER, rows, reward, **options)


def next_log_probs(model, ids, temperature=1.0):
    """One sequence, no padding, no cache."""
    with torch.no_grad():
        return (model(torch.tensor([ids])).logits[0, -1].double() / temperature).log_softmax(-1).numpy()


def completions_of(width=WIDTH):
    """Every completion as token ids: up to the end of the sequence or ``width`` tokens."""
    vocabulary = range(len(TOKENIZER))
    for length in range(1, width + 1):
        for ids in itertools.product(vocabulary, repeat=length):
            if EOS not in ids[:-1] and (ids[-1] == EOS or length == width):
                yield ids


def exact(prompt, model=MODEL, other=OTHER, temperature=1.0):
    """``[log pi(y), log q(y), sum of the entropies, length]`` of every completion, one row each."""
    start = TOKENIZER.encode(prompt)
    laws = {}

    def law(which, prefix):
        if (which, prefix) not in laws:
            laws[which, prefix] = next_log_probs((model, other)[which], start + list(prefix), temperature)
        return laws[which, prefix]

    out = []
    for ids in completions_of():
        pi, q = (sum(law(which, ids[:t])[token] for t, token in enumerate(ids)) for which in (0, 1))
        entropy = sum(-(np.exp(law(0, ids[:t])) * law(0, ids[:t])).sum() for t in range(len(ids)))
        out.append((pi, q, entropy, len(ids)))
    return np.array(out)


def test_samples_follow_the_law_whatever_the_checkpoint_says():
    model = model_of(0)
    model.generation_config = GenerationConfig(
        top_k=1, top_p=0.1, temperature=0.1, repetition_penalty=3.0, do_sample=True
    )
    settings = model.generation_config.to_dict()
    temperature, draws = 1.5, 3000
    rows = sample(
        model,
        TOKENIZER,
        ROWS[3:],
        starts_right,
        samples=draws,
        max_new_tokens=1,
        temperature=temperature,
        batch_size=1000,
    )
    assert model.generation_config.to_dict() == settings
    law = np.exp(next_log_probs(model, TOKENIZER.encode("110="), temperature))
    texts = ["" if i == EOS else TOKENIZER.decode([i]) for i in range(len(law))]
    counts = np.array([sum(row["completion"] == text for row in rows) for text in texts])
    assert stats.chisquare(counts, law * draws).pvalue > 1e-3
    cold = np.exp(next_log_probs(model, TOKENIZER.encode("110="), 1.0))
    assert stats.chisquare(counts, cold * draws).pvalue < 1e-6  # the control: another temperature


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_are_those_of_the_unpadded_sequence(temperature):
    rows = sample(
        MODEL, TOKENIZER, ROWS, starts_right, samples=5, max_new_tokens=WIDTH, temperature=temperature, ref=OTHER
    )
    assert [row["prompt"] for row in rows] == [p["prompt"] for p in ROWS for _ in range(5)]
    assert {row["finished"] for row in rows} == {True, False}
    for row in rows:
        ids = TOKENIZER.encode(row["completion"]) + [EOS] * row["finished"]
        assert len(ids) == row["tokens"] <= WIDTH
        start = TOKENIZER.encode(row["prompt"])
        for model, name in ((MODEL, "policy_logp"), (OTHER, "ref_logp")):
            steps = [next_log_probs(model, start + ids[:t], temperature)[token] for t, token in enumerate(ids)]
            assert row[name] == pytest.approx(sum(steps), abs=1e-4)


def test_estimates_agree_with_enumeration():
    found = run(samples=400, ref=OTHER, batch_size=400)
    laws = [exact(row["prompt"]) for row in ROWS]
    weights = [np.exp(law[:, 0]) for law in laws]
    assert all(w.sum() == pytest.approx(1, abs=1e-6) for w in weights)
    kl = np.mean([(w * (law[:, 0] - law[:, 1])).sum() for w, law in zip(weights, laws)])
    length = np.mean([(w * law[:, 3]).sum() for w, law in zip(weights, laws)])
    entropy = np.mean([(w * law[:, 2]).sum() / (w * law[:, 3]).sum() for w, law in zip(weights, laws)])
    right = [
        np.exp(next_log_probs(MODEL, TOKENIZER.encode(r["prompt"])))[TOKENIZER.encode(r["answer"])[0]] for r in ROWS
    ]
    assert found.kl["ref"].k1.value == pytest.approx(kl, rel=0.1)
    assert found.kl["ref"].k3.value == pytest.approx(kl, rel=0.2)
    assert found.length.value == pytest.approx(length, rel=0.03)
    assert found.entropy.value == pytest.approx(entropy, rel=0.05)
    assert found.accuracy.value == pytest.approx(np.mean(right), abs=4 * 0.5 / math.sqrt(1600))
    for k, estimate in found.pass_at_k.items():
        assert estimate.value == pytest.approx(np.mean([1 - (1 - p) ** k for p in right]), abs=0.05)


def test_what_is_counted():
    found = run(reward=lambda prompts, completions, **_: [1.0] * len(completions), samples=6)
    assert (found.prompts, found.samples, found.temperature, found.seed) == (4, 6, 1.0, 3)
    assert list(found.pass_at_k) == [1, 2, 4]
    for estimate in (found.greedy, found.accuracy, *found.pass_at_k.values()):
        assert (estimate.value, estimate.high) == (1.0, 1.0)
        assert estimate.low == pytest.approx(0.025 ** (1 / 4))  # four prompts cannot show certainty
    assert found.reward.value == 1.0
    assert found.kl == {}
    json.dumps(asdict(found), allow_nan=False)


def test_successes_are_positive_rewards():
    rewards = itertools.cycle([-1.0, 0.0, 1.0, 0.5])
    found = run(reward=lambda prompts, completions, **_: [next(rewards) for _ in completions], samples=4)
    assert found.accuracy.value == 0.5
    assert found.reward.value == pytest.approx(0.125)
    assert found.pass_at_k[4].value == 1.0


def test_greedy_takes_the_likeliest_tokens():
    graded = []

    def remember(prompts, completions, **columns):
        graded.append(list(zip(prompts, completions)))
        return [0.0] * len(completions)

    run(reward=remember)
    for prompt, completion in graded[0]:
        ids = []
        while len(ids) < WIDTH and (not ids or ids[-1] != EOS):
            ids.append(int(np.argmax(next_log_probs(MODEL, TOKENIZER.encode(prompt) + ids))))
        assert completion == TOKENIZER.decode([i for i in ids if i != EOS])


def test_a_policy_has_no_kl_to_itself():
    found = run(ref=MODEL, teachers={"other": OTHER})
    assert asdict(found.kl["ref"].k1) == asdict(found.kl["ref"].k3) == {
        "value": 0.0, "low": 0.0, "high": 0.0, "reason": "",
    }  # fmt: skip
    assert found.kl["other"].k3.value > 0.1


def test_the_same_seed_gives_the_same_and_nothing_outside_changes():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    MODEL.train()
    try:
        one = run(ref=OTHER)
        assert MODEL.training
        assert not OTHER.training
    finally:
        MODEL.eval()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert run(ref=OTHER) == one
    assert run(ref=OTHER, seed=4) != one


def test_special_tokens_inside_a_completion_stay_visible_and_nothing_follows_the_end():
    rows = sample(MODEL, TOKENIZER, ROWS, starts_right, samples=100, max_new_tokens=WIDTH, temperature=3.0)
    texts = "".join(row["completion"] for row in rows)
    assert "<pad>" in texts
    assert "<bos>" in texts
    assert TOKENIZER.eos_token not in texts
    assert all(row["finished"] for row in rows if row["tokens"] < WIDTH)


def test_rollouts_are_what_the_frontier_reads(tmp_path):
    task = ModularArithmetic(modulus=2, terms=2)
    tokenizer = models.character_tokenizer(task.alphabet)
    policy, ref = (models.tiny_model(tokenizer, hidden=16, layers=1, heads=2, seed=seed) for seed in (0, 1))
    rows = sample(
        policy,
        tokenizer,
        task.split(0, 4).test,
        task.reward,
        samples=6,
        max_new_tokens=task.max_completion_tokens,
        ref=ref,
    )
    file = tmp_path / "rollouts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_rollouts([file], logps={"policy_logp": "policy_logp", "ref_logp": "ref_logp"})
    assert found.prompt.tolist() == np.repeat([0, 1, 2, 3], 6).tolist()
    assert found.reward.tolist() == [row["reward"] for row in rows]
    assert found.logps["policy_logp"].tolist() == [row["policy_logp"] for row in rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ROWS[:1]}, "task_rows: needs at least two prompts for an interval, got 1"),
        ({"rows": [ROWS[0], {"prompt": 3}]}, "task_rows[1]: its prompt must be text or a list of messages, got int"),
        ({"rows": [ROWS[0], {"prompt": ""}]}, "task_rows[1]: its prompt must not be empty"),
        ({"rows": [ROWS[0], {"prompt": "1="}]}, "task_rows[1]: has the columns prompt, row 0 prompt, answer"),
        ({"rows": [ROWS[0], {"prompt": "2=", "answer": "0"}]},
         "prompts[1] = '2=': has characters that the tokenizer has no token for"),
        ({"samples": 0}, "samples = 0: must be >= 1"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0: must be >= 1"),
        ({"temperature": 0.0}, "temperature = 0.0: must lie in (0, 1e+06]"),
        ({"seed": -1}, "seed = -1: must be >= 0"),
        ({"batch_size": 0}, "batch_size = 0: must be >= 1"),
        ({"reward": lambda **_: [1.0]}, "reward: gave 1 rewards for 4 completions"),
        ({"reward": lambda completions, **_: [None] * len(completions)}, "rewards[0]: must be finite numbers"),
        ({"reward": lambda completions, **_: [1.0, math.nan, 1.0, 1.0]}, "rewards[1] = nan: must be finite numbers"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError) as error:
        run(**changes)
    assert str(error.value) == message
