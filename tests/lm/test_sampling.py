"""Rollouts in a file: the model's law, the same bytes however often a run stops, nobody's file overwritten."""

from __future__ import annotations

import functools
import itertools
import json
import linecache
import math
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from filelock import FileLock  # noqa: E402
from pyarrow import parquet  # noqa: E402
from scipy import stats  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402

from klsim.audit.targets import load_function  # noqa: E402
from klsim.frontier import PolicySamples, estimate, read_rollouts  # noqa: E402
from klsim.lm import models  # noqa: E402
from klsim.lm.chat import rendered  # noqa: E402
from klsim.lm.sampling import write_rollouts  # noqa: E402
from tests.lm.small_models import TOKENIZER, model_of  # noqa: E402

EOS = TOKENIZER.eos_token_id
ROWS = [{"prompt": p, "answer": a} for p, a in [("0110=", "0"), ("1=", "1"), ("01=", "1"), ("0=", "0"), ("111=", "1")]]
CHAT = models.character_tokenizer("01=")
CHAT.chat_template = "{% for m in messages %}{{ m['content'][:2] }}{% endfor %}="


MODEL, OTHER = model_of(0), model_of(1, architecture="llama")


def starts_right(prompts, completions, answer, **columns):
    return [float(c.startswith(a)) for c, a in zip(completions, answer)]


def run(file, rows=ROWS, reward=starts_right, model=MODEL, tokenizer=TOKENIZER, **changes):
    options = {"samples": 4, "max_new_tokens": 3, "seed": 3, "batch_size": 6} | changes
    return write_rollouts(file, model, tokenizer, rows, reward, **options)


def lines(file):
    return [json.loads(line) for line in file.read_text().split("\n") if line]


def next_log_probs(model, ids, temperature=1.0):
    """One sequence, no padding, no cache."""
    with torch.no_grad():
        return (model(torch.tensor([ids])).logits[0, -1].double() / temperature).log_softmax(-1).numpy()


class Stop(KeyboardInterrupt):
    pass


def stop_after(batches):
    def on_batch(done, total):
        if done >= batches:
            raise Stop

    return on_batch


# --- what the file says


def test_rows_stand_in_the_order_of_the_prompts(tmp_path):
    written = run(tmp_path / "r.jsonl")
    rows = lines(written.file)
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in ROWS for _ in range(4)]
    assert list(rows[0]) == ["prompt", "completion", "reward", "tokens", "finished", "policy_logp"]
    assert (written.prompts, written.rows, written.kept) == (5, 20, 0)
    assert written.about == tmp_path / ".r.jsonl.sample" / "about.json"
    assert names(tmp_path) == [".r.jsonl.sample", ".r.jsonl.sample/about.json", ".r.jsonl.sample/lock", "r.jsonl"]
    assert written.reward == np.mean([row["reward"] for row in rows])
    assert written.tokens == np.mean([row["tokens"] for row in rows])
    assert written.finished == np.mean([row["finished"] for row in rows])


def test_rewards_are_those_of_the_rows(tmp_path):
    for row, of in zip(lines(run(tmp_path / "r.jsonl").file), (row for row in ROWS for _ in range(4))):
        assert row["reward"] == float(row["completion"].startswith(of["answer"]))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_completions(tmp_path, temperature):
    """Against one sequence at a time, without padding."""
    file = run(tmp_path / "r.jsonl", log_probs_under={"ref": OTHER}, temperature=temperature).file
    for row in lines(file):
        prompt = TOKENIZER.encode(row["prompt"])
        made = TOKENIZER.encode(row["completion"]) + [EOS] * row["finished"]
        assert len(made) == row["tokens"]
        for name, model in (("policy_logp", MODEL), ("ref_logp", OTHER)):
            steps = [next_log_probs(model, prompt + made[:t], temperature)[a] for t, a in enumerate(made)]
            assert row[name] == pytest.approx(math.fsum(steps), rel=1e-4, abs=1e-4)  # float32


def test_samples_follow_the_model_across_batches(tmp_path):
    """2000 completions of one prompt in 8 batches against the exact law of two tokens: chi-square, P > 1e-4."""
    rows = lines(run(tmp_path / "r.jsonl", ROWS[1:2], samples=2000, max_new_tokens=2, batch_size=250).file)
    prompt, laws = TOKENIZER.encode("1="), {}
    first = next_log_probs(MODEL, prompt)
    for a, b in itertools.product(range(len(TOKENIZER)), repeat=2):
        key = (a,) if a == EOS else (a, b)
        laws[key] = first[a] + (0.0 if a == EOS else next_log_probs(MODEL, [*prompt, a])[b])
    seen = dict.fromkeys(laws, 0)
    for row in rows:
        ids = TOKENIZER.encode(row["completion"]) + [EOS] * row["finished"]
        seen[tuple(ids)] += 1
    expected = np.exp(np.array(list(laws.values()))) * len(rows)
    counts = np.array(list(seen.values()))
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    awaited = np.append(expected[large], expected[~large].sum())
    assert awaited.sum() == pytest.approx(len(rows), rel=1e-5)
    assert stats.chisquare(observed, awaited / awaited.sum() * len(rows)).pvalue > 1e-4


def test_the_frontier_reads_it(tmp_path):
    for name in ("r.jsonl", "r.parquet"):
        file = run(tmp_path / name, samples=16, log_probs_under={"ref": OTHER}).file
        read = read_rollouts([file], logps={"policy_logp": "policy_logp", "ref_logp": "ref_logp"})
        policy = PolicySamples(read.prompt, read.reward, **read.logps, unchecked=True)
        found = estimate(read.prompt, read.reward, policy=policy)
        assert found.policy is not None


def test_both_formats_say_the_same(tmp_path):
    text, table = run(tmp_path / "r.jsonl"), run(tmp_path / "r.parquet")
    assert lines(text.file) == parquet.read_table(table.file).to_pylist()
    assert (text.reward, text.tokens, text.finished) == (table.reward, table.tokens, table.finished)


def test_without_a_reward_function(tmp_path):
    written = run(tmp_path / "r.jsonl", reward=None)
    assert written.reward is None
    assert "reward" not in lines(written.file)[0]


def test_several_other_models(tmp_path):
    rows = lines(run(tmp_path / "r.jsonl", log_probs_under={"same": MODEL, "teacher": OTHER}).file)
    for row in rows:
        assert row["same_logp"] == pytest.approx(row["policy_logp"], abs=1e-5)
        assert row["teacher_logp"] != row["policy_logp"]


def test_models_and_random_numbers_are_left_as_they_were(tmp_path):
    model = model_of(0)
    model.train()
    before, config = torch.random.get_rng_state(), model.generation_config
    run(tmp_path / "r.jsonl", model=model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert model.generation_config is config


# --- messages


def test_messages_go_through_the_chat_template(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": c}], "answer": "1"} for c in ("01", "1", "0\u2028\x85")]
    asked = []

    def reward(prompts, completions, answer, **columns):
        asked.extend(zip(prompts, completions))
        return [float(c[0]["content"].startswith(a)) for c, a in zip(completions, answer)]

    chat = models.character_tokenizer("01=")
    chat.chat_template = "{% for m in messages %}{{ m['content'][:1] }}{% endfor %}="
    assert rendered(chat, [row["prompt"] for row in rows]) == ["0=", "1=", "0="]
    for name in ("r.jsonl", "r.parquet"):
        file = run(tmp_path / name, rows, reward, tokenizer=chat).file
        read = read_rollouts([file])
        assert read.prompt.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all(len(c) == 1 and c[0]["role"] == "assistant" for _, c in asked)
    assert {p[0]["content"] for p, _ in asked} == {"01", "1", "0\u2028\x85"}


def test_messages_and_text_of_the_same_tokens_give_the_same_completions(tmp_path):
    texts = [{"prompt": p} for p in ("01=", "1=")]
    messages = [{"prompt": [{"role": "user", "content": c}]} for c in ("01", "1")]
    one = lines(run(tmp_path / "a.jsonl", texts, None, tokenizer=CHAT).file)
    two = lines(run(tmp_path / "b.jsonl", messages, None, tokenizer=CHAT).file)
    assert [{**row, "prompt": 0} for row in one] == [{**row, "prompt": 0} for row in two]


def test_a_tokenizer_that_opens_every_text_opens_prompts(tmp_path):
    """Llama's puts ``<bos>`` before every text, and its models have never read one without; rows stay as they were."""
    opening = models.character_tokenizer("01=")
    opening.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", opening.bos_token_id)]
    )
    row = lines(run(tmp_path / "r.jsonl", [{"prompt": "01="}], None, tokenizer=opening, samples=1).file)[0]
    assert row["prompt"] == "01="
    prompt, made = [opening.bos_token_id, *TOKENIZER.encode("01=")], TOKENIZER.encode(row["completion"])
    made += [EOS] * row["finished"]
    steps = [next_log_probs(MODEL, prompt + made[:t])[a] for t, a in enumerate(made)]
    assert row["policy_logp"] == pytest.approx(math.fsum(steps), rel=1e-4, abs=1e-4)  # float32


# --- stopped and started again


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
@pytest.mark.parametrize("batches", [0, 1, 3, 4])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path, name, batches):
    whole = run(tmp_path / "whole" / name).file
    with pytest.raises(Stop):
        run(tmp_path / "stopped" / name, on_batch=stop_after(batches))
    assert not (tmp_path / "stopped" / name).exists()
    drawn = []
    again = run(tmp_path / "stopped" / name, on_batch=lambda done, total: drawn.append(done))
    assert again.kept == batches
    assert drawn == list(range(batches, 5))
    assert again.file.read_bytes() == whole.read_bytes()
    assert names(tmp_path / "stopped") == names(tmp_path / "whole")


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_file_that_is_finished_is_left_alone(tmp_path):
    first = run(tmp_path / "r.jsonl")
    stamp = first.file.stat().st_mtime_ns
    again = run(tmp_path / "r.jsonl", on_batch=lambda done, total: pytest.fail("drew again"))
    assert again == first
    assert again.file.stat().st_mtime_ns == stamp


def test_a_file_that_was_deleted_is_drawn_again(tmp_path):
    file = run(tmp_path / "r.jsonl").file
    before = file.read_bytes()
    file.unlink()
    assert run(file).file.read_bytes() == before


def test_stopped_between_writing_the_file_and_saying_so(tmp_path, monkeypatch):
    from klsim.lm import sampling

    write, file = sampling.write_atomically, tmp_path / "r.jsonl"

    def interrupted(path, content):
        write(path, content)
        if path == file:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "write_atomically", interrupted)
        with pytest.raises(Stop):
            run(file)
    before = file.read_bytes()
    assert run(file).file.read_bytes() == before
    assert not list(tmp_path.glob(".r.jsonl.sample/batch-*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"samples": 5, "seed": 4}, "samples, seed"),
        ({"rows": ROWS[:4]}, "prompts, tokenizer"),
        ({"model": OTHER}, "model"),
        ({"log_probs_under": {"ref": OTHER}}, "log_probs_under"),
        ({"reward": None}, "reward"),
        ({"tokenizer": models.character_tokenizer("0=1")}, "tokenizer"),
    ],
)
def test_other_arguments_do_not_go_on(tmp_path, changes, said):
    with pytest.raises(Stop):
        run(tmp_path / "r.jsonl", on_batch=stop_after(1))
    with pytest.raises(ValueError, match=rf"r\.jsonl: was begun with another {said}; take another file, or delete"):
        run(tmp_path / "r.jsonl", **changes)


def test_a_reward_whose_file_changes_is_another(tmp_path):
    """A function, one that is bound to settings, and one inside a sum of rewards."""
    file = tmp_path / "rewards.py"

    def loaded(text):
        file.write_text(text)
        linecache.clearcache()
        return load_function(f"{file}:reward")

    def sum_of(reward):
        return Sum((reward,), 0.5)

    wraps = (lambda f: f, sum_of, lambda f: sum_of(f).__call__, lambda f: functools.partial(f, answer=None))
    for number, wrap in enumerate(wraps):
        place, rows = tmp_path / f"{number}.jsonl", [{"prompt": "1="}, {"prompt": "01="}]
        text = "def reward(prompts, completions, answer=None, **columns):\n    return [1.0] * len(prompts)\n"
        with pytest.raises(Stop):
            run(place, rows, wrap(loaded(text)), on_batch=stop_after(1))
        with pytest.raises(ValueError, match="was begun with another reward"):
            run(place, rows, wrap(loaded(text.replace("1.0", "0.0"))))
        assert run(place, rows, wrap(loaded(text))).kept == 1


@dataclass(frozen=True)
class Sum:
    parts: tuple
    weight: float

    def __call__(self, prompts, completions, **columns):
        return [self.weight * sum(r) for r in zip(*(part(prompts, completions, **columns) for part in self.parts))]


def test_a_run_that_drew_nothing_binds_nobody(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path / "r.jsonl", on_batch=stop_after(0))
    assert run(tmp_path / "r.jsonl", temperature=0.5).rows == 20


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "r.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and was not written by klsim sample"):
        run(tmp_path / "r.jsonl")
    assert names(tmp_path) == ["r.jsonl"]
    file = run(tmp_path / "changed.jsonl").file
    file.write_text(file.read_text() + "\n")
    with pytest.raises(FileExistsError, match="was changed after it was written"):
        run(file)


def test_two_at_once(tmp_path):
    (tmp_path / ".r.jsonl.sample").mkdir()
    with (
        FileLock(tmp_path / ".r.jsonl.sample" / "lock"),
        pytest.raises(ValueError, match=r"r\.jsonl: another process is writing it"),
    ):
        run(tmp_path / "r.jsonl")


# --- bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": []}, "rows: needs at least one prompt"),
        ({"rows": [{"question": "1"}]}, "rows[0]: its prompt must be text or a list of messages, got NoneType"),
        ({"rows": [{"prompt": ""}]}, "rows[0]: its prompt must not be empty"),
        ({"rows": [ROWS[0], {"prompt": "1="}]}, "rows[1]: has the columns prompt, row 0 prompt, answer"),
        ({"rows": [{"prompt": "2="}]}, "prompts[0] = '2=': has characters that the tokenizer has no token for"),
        ({"rows": [{"prompt": "1\ud800"}]}, "rows[0]: its prompt has half a surrogate pair, which no file can hold"),
        (
            {"rows": [{"prompt": [{"role": "user", "content": "1"}]}]},
            "prompts: they are messages, and the tokenizer has no chat template; use plain prompts",
        ),
        ({"max_new_tokens": 1020}, "rows[0]: its prompt has 5 tokens, and with max_new_tokens = 1020 more it does not "
         "fit in the model's context of 1024"),
        ({"file": "r.csv"}, "file = 'r.csv': must end with .jsonl or .parquet"),
        ({"log_probs_under": {"policy": OTHER}}, "log_probs_under = 'policy': names are letters, digits and _, and not "
         "policy"),
        ({"samples": 0}, "samples = 0: must be >= 1"),
        ({"temperature": 0.0}, "temperature = 0.0: must lie in (0, 1e+06]"),
        ({"reward": lambda prompts, completions, **columns: [1.0]}, "reward: gave 1 rewards for 6 completions"),
        (
            {"reward": lambda prompts, completions, **columns: [math.nan] * len(prompts)},
            "rewards[0] = nan: must be finite numbers",
        ),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, changes, said):
    with pytest.raises(ValueError) as error:
        run(**({"file": tmp_path / "r.jsonl"} | changes))
    assert str(error.value).startswith(said)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "r.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        run(tmp_path / "r.jsonl")
