"""Prompts of your own: the same rows from every kind of file, and mistakes with their file, row and column."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from klsim.lm import chat
from klsim.lm.config import parse
from klsim.lm.data import read_prompts
from klsim.lm.models import character_tokenizer
from klsim.lm.tasks import Data, DataOptions, make
from klsim.lm.world import world

ROWS = [{"question": f"{a}+1=", "answer": a + 1} for a in range(12)]


def jsonl(file, rows=ROWS):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write(kind, folder):
    file = folder / f"data.{kind}"
    if kind == "jsonl":
        jsonl(file)
    elif kind == "json":
        file.write_text(json.dumps(ROWS))
    elif kind == "jsonl.gz":
        file.write_bytes(gzip.compress(jsonl(folder / "plain.jsonl").read_bytes()))
    elif kind == "csv":
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["question", "answer"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif kind == "saved":
        Dataset.from_list(ROWS).save_to_disk(file)
    elif kind == "saved with splits":
        DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:2])}).save_to_disk(file)
    elif kind == "folder":
        file.mkdir()
        jsonl(file / "train.jsonl")
        jsonl(file / "test.jsonl", ROWS[:2])
    return file


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "jsonl.gz", "csv", "parquet", "saved", "saved with splits", "folder"]
)
def test_every_kind_of_file_holds_the_same_rows(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = write(kind, tmp_path)
    rows = read_prompts(place, prompt="question")
    assert rows == [row | {"prompt": row["question"]} for row in ROWS]
    if kind in ("saved with splits", "folder"):
        assert len(read_prompts(place, prompt="question", split="test")) == 2
        with pytest.raises(ValueError, match=r"split = 'tset': .* has 'train', 'test'; near: test"):
            read_prompts(place, prompt="question", split="tset")


def test_chat_and_nested_columns(tmp_path):
    messages = [{"role": "user", "content": "1+1="}]
    file = jsonl(tmp_path / "a.jsonl", [{"messages": messages, "extra": {"doc": "2+2="}}])
    assert read_prompts(file, prompt="messages")[0]["prompt"] == messages
    assert read_prompts(file, prompt="extra.doc")[0]["prompt"] == "2+2="
    made = read_prompts(file, prompt="extra.doc", system="Add.")[0]["prompt"]
    assert made == [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+2="}]
    assert read_prompts(file, prompt="messages", system="Add.")[0]["prompt"][1:] == messages
    assert read_prompts(file, prompt="extra.doc", chat=True)[0]["prompt"] == [{"role": "user", "content": "2+2="}]


def test_columns_that_some_rows_lack_are_none_and_the_prompts_of_csv_stay_text(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": "b", "answer": 1}])
    assert [row["answer"] for row in read_prompts(file)] == [None, 1]
    (tmp_path / "a.csv").write_text("prompt,answer\n007,1\n12,2\n")
    assert [row["prompt"] for row in read_prompts(tmp_path / "a.csv")] == ["007", "12"]
    assert len(read_prompts(file, limit=1)) == 1


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt": "a"}, {"prompt": ""}], {}, r"a\.jsonl, row 2, column 'prompt': must not be empty"),
        ([{"prompt": 3}], {}, "row 1, column 'prompt': must be text or a list of messages, got int"),
        ([{"prompt": []}], {}, "must have at least one message"),
        ([{"prompt": [{"content": "x"}]}], {}, "message 1 must be an object with role and content"),
        ([{"prompt": [{"role": "user", "content": 1}]}], {}, "message 1 must have text content, got 1"),
        ([{"prompt": [{"role": "assistant", "content": "x"}]}], {}, "ends with the assistant's answer"),
        ([{"prompt": "a"}, {"prompt": [{"role": "user", "content": "x"}]}], {}, "row 2.*text and messages are mixed"),
        (
            [{"prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]}],
            {"system": "y"},
            "has a system message of its own",
        ),
        (ROWS, {}, "row 1: no column 'prompt'; known: answer, question; it has question, answer"),
        (ROWS, {"prompt": "question.a"}, "no column 'question.a'; near: question"),
        ([{"prompt": "a", "prompts": 1}], {}, "column 'prompts': rewards have an argument of this name"),
        (ROWS, {"prompt": "question", "split": "train"}, "split = 'train': .* is a file, and has none"),
        ([{"prompt": "a", "q": "b"}], {"prompt": "q"}, "row 1: has a column 'prompt' beside 'q'; rename it"),
        ([{"prompt": "a\ud800"}], {}, "row 1, column 'prompt': has half a surrogate pair"),
        ([{"prompt": "a", "b": 1}, {"prompt": "a"}], {"columns": ["b"]}, r"a\.jsonl, row 2, column 'b': is missing"),
        (ROWS, {"prompt": "question", "columns": ["anwer"]}, "a.jsonl: no column 'anwer'; near: answer"),
        (ROWS, {"prompt": "question", "limit": 0}, "limit = 0: must be >= 1"),
    ],
)
def test_errors_name_file_row_and_column(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        read_prompts(jsonl(tmp_path / "a.jsonl", rows), **options)


def test_nothing_there_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is cut off or no parquet file"):
        read_prompts(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(ValueError, match=r"a\.jsonl, row 2: is no JSON"):
        read_prompts(tmp_path / "a.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="folder: cannot be read"):
        read_prompts(tmp_path / "folder")


def test_held_out_prompts_are_never_trained_on(tmp_path):
    rows = [{"prompt": f"p{i % 20}", "answer": i} for i in range(50)]  # most prompts several times
    file = str(jsonl(tmp_path / "a.jsonl", rows))
    task = make("mine", {"kind": "data", "path": file, "reward": "exact", "test": 0.3})
    found = task.split(0, 100, seed=1)
    assert len({row["prompt"] for row in found.test}) == len(found.test) == 6
    assert not {row["prompt"] for row in found.test} & {row["prompt"] for row in found.train}
    held = {row["prompt"] for row in found.test}
    assert [row["answer"] for row in found.train] == [row["answer"] for row in rows if row["prompt"] not in held]
    assert len(task.split(0, 4, seed=1).test) == 4
    assert task.split(0, 100, seed=1) == found
    assert task.split(0, 100, seed=2) != found
    # a file to test on: what it has is left out of training, also beyond the prompts that are evaluated
    test = str(jsonl(tmp_path / "t.jsonl", [{"prompt": f"p{i}", "answer": i} for i in range(15, 25)]))
    found = Data(DataOptions(path=file, reward="exact", test=test)).split(0, 3)
    assert len(found.test) == 3
    assert {row["prompt"] for row in found.train} == {f"p{i}" for i in range(15)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": "exact"}, "tasks.mine: no knob 'rewards'; data has path, prompt, reward"),
        ({"path": ""}, "tasks.mine: path = '': must be text"),
        ({"test": 1.5}, "tasks.mine: test = 1.5: must lie in"),
        ({"max_completion": 10**7}, "tasks.mine: max_completion = 10000000: must be <= 1000000"),
        ({"reward": "exat"}, "tasks.mine: reward 'exat': no such verifier .*; near: exact"),
        ({"reward": "none.py:exact"}, "tasks.mine: target 'none.py:exact': no file none.py"),
        ({"reward": {"verifier": "exact", "column": "anser"}}, "no column 'anser'; near: answer"),
        ({"completion": "solution"}, "tasks.mine: .*no column 'solution'"),
        ({"test": 0.01}, r"tasks.mine: test = 0.01: leaves 0 prompts to test on, of 12"),
    ],
)
def test_errors_of_a_configuration_name_the_table(tmp_path, small, options, message):
    data = {"kind": "data", "path": str(jsonl(tmp_path / "a.jsonl")), "prompt": "question", "test": 0.5} | options
    with pytest.raises(ValueError, match=message):
        world(parse(small | {"tasks": {"mine": data}}))


def test_data_beside_generated_tasks_and_the_short_form(tmp_path, small):
    data = {"path": str(jsonl(tmp_path / "a.jsonl")), "prompt": "question", "reward": "exact", "test": 0.5}
    made = world(parse(small | {"data": data}))
    assert list(made.tasks) == ["add", "mul", "data"]
    assert made.tasks["data"].name.startswith("12 prompts of ")
    rows = made.rows()
    assert [row["domain"] for row in rows[:4]] == ["add", "mul", "data", "add"]
    assert len(rows) == 40 + 40 + 6
    # every domain is graded by its own reward, from its own columns
    answers = [str(made.row(row)["answer"]) for row in rows]
    given = {"domain": [row["domain"] for row in rows], "row": [row["row"] for row in rows]}
    prompts = [row["prompt"] for row in rows]
    assert made.reward(prompts, answers, **given) == [1.0] * len(rows)
    assert made.reward(prompts, [a + "0" for a in answers], **given) == [0.0] * len(rows)
    with pytest.raises(ValueError, match=r"data: is short for tasks.data, which is there, too"):
        parse(small | {"tasks": {"data": {"kind": "data"}}, "data": data})
    with pytest.raises(ValueError, match="data = 3: must be a table"):
        parse(small | {"data": 3})
    chatty = made.__class__(made.tokenizer, made.tasks, made.train | {"add": [{"prompt": [{"role": "user"}]}]}, {})
    with pytest.raises(ValueError, match="some have text as prompts and some messages"):
        chatty.rows()


def test_prompts_that_the_tokenizer_cannot_write(tmp_path, small):
    data = {"path": str(jsonl(tmp_path / "a.jsonl", [{"prompt": f"p{i}é"} for i in range(9)])), "test": 0.5}
    with pytest.raises(ValueError, match=r"a new model writes ASCII .*; give model.path"):
        world(parse({k: v for k, v in small.items() if k != "tasks"} | {"data": data}))
    chatty = {"path": str(jsonl(tmp_path / "b.jsonl")), "prompt": "question", "chat": True, "test": 0.5}
    with pytest.raises(
        ValueError, match=r"tasks.data: prompts: they are messages, and the tokenizer has no chat template"
    ):
        world(parse({k: v for k, v in small.items() if k != "tasks"} | {"data": chatty}))


def test_messages_are_rendered_as_trl_does():
    tokenizer = character_tokenizer("abcdefghijklmnopqrstuvwxyz<>|:\n ")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    prompt = [{"role": "user", "content": "hi"}]
    assert chat.rendered(tokenizer, [prompt]) == ["<user>hi\n<a>"]
    ids = tokenizer.apply_chat_template([prompt], add_generation_prompt=True, tokenize=True, return_dict=True)
    assert ids["input_ids"][0] == tokenizer.encode("<user>hi\n<a>", add_special_tokens=False)
    assert chat.rendered(tokenizer, ["hi"]) == ["hi"]
    with pytest.raises(ValueError, match="some are text and some are messages"):
        chat.rendered(tokenizer, ["hi", prompt])
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(ValueError, match=r"prompts\[0\]: the chat template refuses it \(no users here\)"):
        chat.rendered(tokenizer, [prompt])
