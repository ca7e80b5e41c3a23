"""Rollouts from files: every format gives the same columns, and bad files say where they are bad."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klsim.frontier import read_rollouts

ROWS = [
    {"prompt": "a", "completion": "x, y", "reward": 1, "extra": None},
    {"prompt": "b", "completion": 'with "quotes"\nand a line', "reward": 0.5, "extra": 2},
    {"prompt": "a", "completion": "ü", "reward": -2.0, "extra": None},
    {"prompt": "b", "completion": "", "reward": 1e-3, "extra": 1},
]


def write(path, rows=ROWS):
    names = list(rows[0])
    match path.name.split(".", 1)[1]:
        case "jsonl":
            path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        case "jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
        case "csv":
            import csv

            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(rows)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "arrow":
            table = pa.Table.from_pylist(rows)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
    return path


FORMATS = ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.arrow"]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name):
    found = read_rollouts([write(tmp_path / name)])
    assert found.prompt.tolist() == [0, 1, 0, 1]
    assert found.reward.tolist() == [1, 0.5, -2, 1e-3]
    assert found.notes == ()


def test_columns_by_name_sums_and_filters(tmp_path):
    rows = [
        {"q": i // 2, "right": i % 2 == 0, "style": i / 10, "split": "ab"[i % 2], "lp": -float(i)} for i in range(6)
    ]
    for name in FORMATS:
        file = write(tmp_path / name, rows)
        if name == "a.csv":  # booleans in text are no numbers
            file = write(tmp_path / name, [r | {"right": int(r["right"])} for r in rows])
        found = read_rollouts([file], prompt="q", reward=["right", "0.5*style"], logps={"policy_logp": "lp"})
        assert found.prompt.tolist() == [0, 0, 1, 1, 2, 2]
        assert found.reward == pytest.approx([1.0, 0.05, 1.1, 0.15, 1.2, 0.25])
        assert found.logps["policy_logp"].tolist() == [0, -1, -2, -3, -4, -5]
        some = read_rollouts([file], prompt="q", reward=["style"], where=["split=b"])
        assert some.reward == pytest.approx([0.1, 0.3, 0.5])
        other = read_rollouts([file], prompt="q", reward=["style"], where=["q=1"])
        assert other.reward == pytest.approx([0.2, 0.3])


def test_conversations_are_prompts(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": c}], "reward": 1.0} for c in "aba"]
    for name in ("a.jsonl", "a.parquet"):
        assert read_rollouts([write(tmp_path / name, rows)]).prompt.tolist() == [0, 1, 0]


def test_prompts_are_numbered_alike_in_all_files(tmp_path):
    known = {}
    one = read_rollouts([write(tmp_path / "a.jsonl")], known=known)
    other = read_rollouts([write(tmp_path / "a.csv", ROWS[::-1])], known=known)
    assert other.prompt.tolist() == one.prompt[::-1].tolist()
    numbers = [{"prompt": i, "reward": 0.0} for i in (3, 1)]
    known = {}
    assert read_rollouts([write(tmp_path / "n.csv", numbers)], known=known).prompt.tolist() == [0, 1]
    assert read_rollouts([write(tmp_path / "n.jsonl", numbers[::-1])], known=known).prompt.tolist() == [1, 0]


def test_folders(tmp_path):
    for i in range(3):
        write(tmp_path / f"part_{i}.parquet")
    (tmp_path / "README.md").write_text("not data")
    assert len(read_rollouts([tmp_path]).reward) == 12
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "saved"))
    assert read_rollouts([tmp_path / "saved"]).reward.tolist() == [1, 0.5, -2, 1e-3]
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(ValueError, match="holds the splits train"):
        read_rollouts([tmp_path / "splits"])
    assert len(read_rollouts([tmp_path / "splits" / "train"]).reward) == 4


def trl_log(path, step, rewards=("accuracy_reward",)):
    rows = [
        {"step": step, "prompt": p, "completion": "c", **dict.fromkeys(rewards, 1.0 * i), "advantage": 0.0}
        for i, p in enumerate("aabb")
    ]
    return write(path / f"completions_{step:05d}.parquet", rows)


def test_logs_of_trl(tmp_path):
    trl_log(tmp_path, 1)
    found = read_rollouts([tmp_path])
    assert found.reward.tolist() == [0, 1, 2, 3]
    assert found.notes == ("rewards are those of column 'accuracy_reward'",)
    trl_log(tmp_path, 2)
    with pytest.raises(ValueError, match=r"\(2 files\): column 'step' goes from 1 to 2: samples of different policies"):
        read_rollouts([tmp_path])
    assert len(read_rollouts([tmp_path], where=["step=1"]).reward) == 4
    assert len(read_rollouts([tmp_path], where=["step=*"]).reward) == 8
    trl_log(tmp_path, 1, ("accuracy_reward", "format_reward"))
    with pytest.raises(ValueError, match=r"\(accuracy_reward, format_reward\); name one with --reward"):
        read_rollouts([tmp_path], where=["step=1"])
    trl_log(tmp_path, 2, ("accuracy_reward", "format_reward"))
    both = read_rollouts([tmp_path], where=["step=1"], reward=["accuracy_reward", "2*format_reward"])
    assert both.reward.tolist() == [0, 3, 6, 9]


def test_many_rows_in_several_blocks(tmp_path):
    rows = 200_000
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"prompt": "p{i % 7}", "text": "{"x" * 100}", "reward": {i}}}\n' for i in range(rows)))
    seen = []
    found = read_rollouts([file], on_rows=seen.append)
    assert found.reward.tolist() == list(range(rows))
    assert found.prompt[:14].tolist() == list(range(7)) * 2
    assert len(seen) > 1
    assert seen[-1] == rows
    lines = file.read_text().splitlines(keepends=True)
    lines[150_000] = '{"prompt": "p1", "reward": "0.5"}\n'
    file.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"a.jsonl, row 150001, column 'reward': needs a number, got \"0.5\""):
        read_rollouts([file])


def text(name, content):
    return lambda folder: (folder / name).write_text(content) and folder / name


def cut_off(folder):
    file = write(folder / "a.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    return file


def cut_off_gzip(folder):
    file = write(folder / "a.jsonl.gz", ROWS * 500)
    file.write_bytes(file.read_bytes()[:-50])
    return file


def binary(folder):
    (folder / "a.csv").write_bytes(b"\xff\xfe\x00")
    return folder / "a.csv"


def mixed(folder):
    return write(folder / "a.parquet", [{"prompt": "a", "reward": "0.5"}])


def missing(folder):
    return write(folder / "a.parquet", [{"prompt": "a", "reward": 0.5}, {"prompt": "a", "reward": None}])


def nan(folder):
    return write(folder / "a.parquet", [{"prompt": "a", "reward": 0.5}, {"prompt": "a", "reward": float("nan")}])


OBJECT = '{"prompt": "a", "reward": 1}\n'


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (text("a.jsonl", OBJECT + '{"prompt": "a"}\n'), "a.jsonl, row 2, column 'reward': is missing"),
        (text("a.jsonl", OBJECT + '{"prompt": "a", "reward": "1"}\n'), "row 2, column 'reward': needs a number"),
        (text("a.jsonl", OBJECT + '{"prompt": 3, "reward": 1}\n'), "row 2, column 'prompt': changes from str to int"),
        (text("a.jsonl", OBJECT + '{"prompt": null, "reward": 1}\n'), "row 2, column 'prompt': is missing"),
        (text("a.jsonl", OBJECT + '{"prompt": "a", "rew'), "a.jsonl, row 2: is no JSON"),
        (text("a.jsonl", OBJECT + "[1, 2]\n"), "row 2: must be a JSON object, got list"),
        (text("a.jsonl", OBJECT + '{"prompt": "a", "reward": NaN}\n'), "a.jsonl.*row 2.*reward"),
        (text("a.jsonl", "[\n" + OBJECT), "a.jsonl: is no JSON"),
        (text("a.jsonl", " \n"), "is empty"),
        (text("a.jsonl", '{"text": "a", "reward": 1}\n'), "no column prompt or .*there are text, reward"),
        (text("a.jsonl", '{"prompt": "a", "value": 1}\n'), "no column reward or rewards or score"),
        (text("a.csv", "prompt,reward\na,1\na,x\n"), "a.csv, row 2, column 'reward': needs a number, got 'x'"),
        (text("a.csv", "prompt,reward\na,1\na,\n"), "a.csv, row 2, column 'reward': is missing"),
        (text("a.csv", "prompt,reward\na,1\na,nan\n"), "a.csv, row 2, column 'reward'"),
        (text("a.csv", "prompt,reward\na,1\na,inf\n"), "row 2, column 'reward': must be finite, got inf"),
        (text("a.csv", "prompt,reward\na,1\na,1,2\n"), "row 2: has 3 cells, the header 2"),
        (text("a.csv", "prompt,reward\n"), "has no rows"),
        (text("a.txt", "x"), "is not one of .jsonl"),
        (text("a.parquet", "x"), "is cut off or no parquet file"),
        (cut_off, "is cut off or no parquet file"),
        (cut_off_gzip, "is cut off"),
        (binary, "UTF-8"),
        (mixed, "row 1, column 'reward': needs a number, got"),
        (missing, "a.parquet, row 2, column 'reward': is missing"),
        (nan, "a.parquet, row 2, column 'reward': must be finite, got nan"),
    ],
)
def test_bad_files(tmp_path, made, message):
    with pytest.raises(ValueError, match=message):
        read_rollouts([made(tmp_path)])


def test_bad_arguments(tmp_path):
    file = write(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_rollouts([tmp_path / "none.jsonl"])
    with pytest.raises(ValueError, match="at least one file"):
        read_rollouts([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no"):
        read_rollouts([tmp_path / "empty"])
    with pytest.raises(ValueError, match="write column=value"):
        read_rollouts([file], where=["prompt"])
    with pytest.raises(ValueError, match="no column 'stage'"):
        read_rollouts([file], where=["stage=1"])
    with pytest.raises(ValueError, match="no row has prompt=z"):
        read_rollouts([file], where=["prompt=z"])
    with pytest.raises(ValueError, match="holds numbers"):
        read_rollouts([file], where=["reward=high"])
    with pytest.raises(ValueError, match="no column 'q' for the prompt"):
        read_rollouts([file], prompt="q")
    with pytest.raises(ValueError, match="no column 'r' for the reward"):
        read_rollouts([file], reward=["2*r"])
    with pytest.raises(ValueError, match="the weight must be finite"):
        read_rollouts([file], reward=["1e999*reward"])
    with pytest.raises(ValueError, match="no column 'lp'"):
        read_rollouts([file], logps={"ref_logp": "lp"})


def test_large_counts_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [{"prompt": f"p{i % 5}", "reward": float(i)} for i in range(50)]
    known = {}
    one = read_rollouts([write(tmp_path / "a.parquet", rows)], known=known)
    other = read_rollouts([write(tmp_path / "b.parquet", rows[::-1])], known=known)
    totals = [np.bincount(r.prompt, r.reward) for r in (one, other)]
    assert totals[0] == pytest.approx(totals[1])
