"""The files that people have: every way to write the same samples is read alike."""

import csv
import decimal
import gzip
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klsim.frontier import read_rollouts
from klsim.frontier.formats import sources

ROWS = [{"prompt": p, "reward": float(r)} for p, r in zip("aabb", (1, 0, 0, 1))]


def jsonl(rows):
    return "".join(json.dumps(r) + "\n" for r in rows)


def read(path, **options):
    found = read_rollouts([path], **options)
    return found.prompt.tolist(), found.reward.tolist()


WANTED = ([0, 0, 1, 1], [1.0, 0.0, 0.0, 1.0])


def array(folder):
    (folder / "a.json").write_text(json.dumps(ROWS, indent=1))
    return folder / "a.json"


def zstd(folder):
    with pa.CompressedOutputStream(str(folder / "a.jsonl.zst"), "zstd") as out:
        out.write(jsonl(ROWS).encode())
    return folder / "a.jsonl.zst"


def gzipped_csv(folder):
    with gzip.open(folder / "a.csv.gz", "wt") as out:
        writer = csv.DictWriter(out, ["prompt", "reward"])
        writer.writeheader()
        writer.writerows(ROWS)
    return folder / "a.csv.gz"


def tsv(folder):
    (folder / "a.tsv").write_text("prompt\treward\n" + "".join(f"{r['prompt']}\t{r['reward']}\n" for r in ROWS))
    return folder / "a.tsv"


def byte_order_mark(folder):
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS).encode())
    return folder / "a.jsonl"


def byte_order_mark_csv(folder):
    text = "prompt,reward\n" + "".join(f"{r['prompt']},{r['reward']}\n" for r in ROWS)
    (folder / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    return folder / "a.csv"


def csv_words(folder):
    (folder / "a.csv").write_text("prompt,passed\na,True\na,False\nb,false\nb,TRUE\n")
    return folder / "a.csv"


def json_words(folder):
    words = ["passed", "failed", "incorrect", "correct"]
    (folder / "a.jsonl").write_text(jsonl({"task_id": r["prompt"], "is_correct": w} for r, w in zip(ROWS, words)))
    return folder / "a.jsonl"


def mixed_booleans(folder):
    values = [1, False, 0.0, True]
    (folder / "a.jsonl").write_text(jsonl({"prompt": r["prompt"], "reward": v} for r, v in zip(ROWS, values)))
    return folder / "a.jsonl"


def decimals(folder):
    rows = [{"prompt": r["prompt"], "reward": decimal.Decimal(str(r["reward"]))} for r in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


def lists(folder):
    rows = [{"prompt": "a", "rewards": [1, 0]}, {"prompt": "b", "rewards": [False, True]}]
    (folder / "a.jsonl").write_text(jsonl(rows))
    return folder / "a.jsonl"


def lists_in_parquet(folder):
    rows = [{"question_id": "a", "accs": [1.0, 0.0]}, {"question_id": "b", "accs": [0.0, 1.0]}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


def late_column(folder):
    rows = [{"prompt": "a", "note": "x", "reward": 1}, *ROWS[1:]]
    (folder / "a.jsonl").write_text(jsonl([{"prompt": "a", "reward": 1}, {**rows[1], "extra": 3}, *rows[2:]]))
    return folder / "a.jsonl"


def lone_surrogate(folder):
    (folder / "a.jsonl").write_text(jsonl(ROWS).replace('"a"', '"bad \\\\ud83d"').replace("\\\\", "\\"))
    return folder / "a.jsonl"


def changing_messages(folder):
    asked = {
        "a": [{"role": "user", "content": "a"}],
        "b": [{"role": "user", "content": [{"type": "text", "text": "b"}]}],
    }
    (folder / "a.jsonl").write_text(jsonl({**r, "prompt": asked[r["prompt"]]} for r in ROWS))
    return folder / "a.jsonl"


def beside_other_files(folder):
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "config.json").write_text('{"learning_rate": 1}')
    (folder / "data" / "README.md").write_text("x")
    (folder / "data" / "deep" / "part.jsonl").write_text(jsonl(ROWS))
    return folder / "data"


def pattern(folder):
    (folder / "part-0.jsonl").write_text(jsonl(ROWS[:2]))
    (folder / "part-1.jsonl").write_text(jsonl(ROWS[2:]))
    return folder / "part-*.jsonl"


@pytest.mark.parametrize(
    "made",
    [
        array, zstd, gzipped_csv, tsv, byte_order_mark, byte_order_mark_csv, csv_words, json_words, mixed_booleans, decimals,
        lists, lists_in_parquet, late_column, lone_surrogate, changing_messages, beside_other_files, pattern,
    ],
)  # fmt: skip
def test_the_same_samples(tmp_path, made):
    assert read(made(tmp_path)) == WANTED


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nested_fields(tmp_path, kind):
    rows = [
        {
            "doc": {"question": r["prompt"]},
            "metrics": {"reward": r["reward"]},
            "choices": [{"score": 2.0}, {"score": 3.0}],
        }
        for r in ROWS
    ]
    file = tmp_path / f"a.{kind}"
    file.write_text(jsonl(rows)) if kind == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), file)
    assert read(file, prompt="doc.question", reward=["metrics.reward"]) == WANTED
    prompt, reward = read(file, prompt="doc.question", reward=["choices.score"])
    assert prompt == [0, 0, 0, 0, 1, 1, 1, 1]
    assert reward == [2.0, 3.0] * 4
    assert read(file, prompt="doc.question", reward=["choices.1.score"])[1] == [3.0] * 4
    with pytest.raises(ValueError, match=r"no column 'other\.reward' for the reward"):
        read(file, prompt="doc.question", reward=["other.reward"])


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_token_lists_are_summed(tmp_path, kind):
    rows = [{"prompt": "a", "reward": 1.0, "lp": [-0.5, -1.5]}, {"prompt": "b", "reward": 0.0, "lp": [-3.0]}]
    file = tmp_path / f"a.{kind}"
    file.write_text(jsonl(rows)) if kind == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), file)
    found = read_rollouts([file], logps={"policy_logp": "lp"})
    assert found.logps["policy_logp"].tolist() == [-2.0, -3.0]
    assert found.lengths.tolist() == [2, 1]
    listed = tmp_path / "b.jsonl"
    listed.write_text(jsonl([{"prompt": "a", "rewards": [1, 0], "lp": [[-1, -1], [-2]], "gold": [5, 6]}]))
    found = read_rollouts([listed], logps={"policy_logp": "lp", "gold": "gold"})
    assert found.logps["policy_logp"].tolist() == [-2.0, -2.0]
    assert found.logps["gold"].tolist() == [5.0, 6.0]
    listed.write_text(jsonl([{"prompt": "a", "rewards": [1, 0], "lp": [[-1]]}]))
    with pytest.raises(ValueError, match="row 1, column 'lp': has 1 values for 2 rewards"):
        read_rollouts([listed], logps={"policy_logp": "lp"})


def test_standard_input(monkeypatch):
    for data in (jsonl(ROWS).encode(), json.dumps(ROWS).encode(), b"prompt,reward\na,1\na,0\nb,0\nb,1\n"):
        sources._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read("-") == WANTED
    sources._standard_input.cache_clear()


def test_addresses_of_fsspec():
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/part-0.jsonl", jsonl(ROWS[:2]).encode())
    files.pipe("/bucket/part-1.jsonl.gz", gzip.compress(jsonl(ROWS[2:]).encode()))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    files.pipe("/other/a.parquet", buffer.getvalue())
    for address in ("memory://bucket/*", "memory://bucket", "memory://other/a.parquet"):
        assert read(address) == WANTED
    with pytest.raises(FileNotFoundError, match="memory://nothing"):
        read("memory://nothing")


def test_samples_of_the_evaluation_harness(tmp_path):
    rows = [
        {"doc_id": p, "doc": {"q": p}, "metrics": ["acc"], "acc": r, "filter": "none"}
        for p, r in zip("aabb", (1, 0, 0, 1))
    ]
    (tmp_path / "samples_task_2026.jsonl").write_text(jsonl(rows))
    assert read(tmp_path / "samples_task_2026.jsonl") == WANTED
    two = [{**r, "filter": f} for r in rows for f in ("strict", "flexible")]
    (tmp_path / "two.jsonl").write_text(jsonl(two))
    with pytest.raises(ValueError, match="--where filter=flexible"):
        read(tmp_path / "two.jsonl")


def test_logs_of_inspect(tmp_path):
    pytest.importorskip("inspect_ai")
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match

    outputs = [ModelOutput.from_content("mockllm", text) for text in "1212"]
    for output in outputs:
        output.usage = ModelUsage(
            input_tokens=1, output_tokens=1, total_tokens=2
        )  # else they are counted by a download
    task = Task(dataset=[Sample(input="q", target="1", id=name) for name in "ab"], scorer=match(), epochs=2)
    evaluate(task, model=get_model("mockllm/model", custom_outputs=outputs), log_dir=str(tmp_path), display="none")
    prompt, reward = read(tmp_path)
    assert sorted(prompt) == [0, 0, 1, 1]
    assert sum(reward) == 2


def test_plugins(tmp_path, monkeypatch):
    class Point:
        name = "toml"

        @staticmethod
        def load():
            return lambda path: iter(ROWS)

    monkeypatch.setattr(sources, "entry_points", lambda group: [Point], raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point])
    (tmp_path / "a.toml").write_text("")
    assert read(tmp_path / "a.toml") == WANTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"prompt": "a", "reward": 1}, 3]', r"a.json, row 2: must be a JSON object, got int"),
        ('[{"prompt": "a", "reward": 1}', "is no JSON"),
        (
            '[{"prompt": "a", "reward": 1}, {"prompt": "a", "reward": "maybe"}]',
            "row 2, column 'reward': needs a number",
        ),
        ('[{"prompt": "a", "rewards": []}]', "row 1, column 'rewards': needs a list of rewards"),
        ("[]", "has no rows"),
    ],
)
def test_bad_arrays(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.json")


def test_rows_are_counted_in_their_own_file(tmp_path):
    (tmp_path / "p-0.jsonl").write_text(jsonl(ROWS))
    (tmp_path / "p-1.jsonl").write_text(jsonl([*ROWS, {"prompt": "a", "reward": None}]))
    with pytest.raises(ValueError, match=r"p-1\.jsonl, row 5, column 'reward': is missing"):
        read(tmp_path)
    (tmp_path / "p-1.jsonl").write_text(jsonl(ROWS))
    found = read_rollouts([tmp_path])
    assert found.row_name(5).endswith("p-1.jsonl, row 2")


def test_the_slow_way_gives_what_the_fast_one_does(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"prompt": f"p{i % 7}", "reward": float(r)} for i, r in enumerate(rng.normal(size=300))]
    (tmp_path / "fast.jsonl").write_text(jsonl(rows))
    (tmp_path / "slow.jsonl").write_text(jsonl([*rows, {"prompt": "p0", "reward": True}]))
    fast, slow = read(tmp_path / "fast.jsonl"), read(tmp_path / "slow.jsonl")
    assert slow[0][:300] == fast[0]
    assert slow[1] == [*fast[1], 1.0]
