"""What is logged means the same after a resume: the series of a run that was stopped is that of one that was not."""

from __future__ import annotations

import copy
import json
import struct
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from klsim.lm import train
from klsim.lm.config import parse

TIMES = {"step_time"}
RL = {
    "name": "rl", "method": "objective", "start": "base", "tasks": ["add"], "steps": 9, "save_steps": 4, "log_steps": 2,
    "prompts": 2, "group": 4, "objective": {"name": "grpo"},
}  # fmt: skip


class Recorder(TrainerCallback):
    """A reporter's server: it keeps what it is sent, by run."""

    sent: ClassVar[list] = []

    def on_log(self, args, state, control, logs=None, **_):
        Recorder.sent.append((args.project, args.run_name, state.global_step, logs))


def configuration(small, output, **more):
    data = copy.deepcopy(small) | {"output": str(output), "project": "p"} | more
    data["stage"][0] |= {"steps": 9, "save_steps": 4, "log_steps": 2}
    data["stage"].append(RL)
    return parse(data)


def run(config, stop=()):
    """Run it; at each of ``stop`` (stage, step) it is interrupted and run again."""
    for place in stop:

        def on_step(stage, step, text, place=place):
            if (stage, step) == place and text != "done":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train.run(config, on_step)
    train.run(config)


def timeless(logs):
    return {k: v for k, v in logs.items() if k not in TIMES}


def series(folder):
    return [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder):
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {
        tag: [(e.step, e.value) for e in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if tag.removeprefix("train/") not in TIMES
    }


STOPS = (("base", 7), ("rl", 3), ("rl", 7))  # between checkpoints, before the first one, and in a window


def test_a_resumed_run_logs_the_same_series(small, tmp_path, monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Recorder)
    monkeypatch.setattr("klsim.lm.logs.check_reporters", lambda names: None)
    monkeypatch.setattr("klsim.lm.train.check_reporters", lambda names: None)
    reports = []
    for name, stops in (("whole", ()), ("cut", STOPS)):
        Recorder.sent = []
        run(configuration(small, tmp_path / name, report_to=["trackio"]), stops)
        reports.append([(project, run_name, step, timeless(logs)) for project, run_name, step, logs in Recorder.sent])
    for stage in ("base", "rl"):
        whole, cut = tmp_path / "whole" / stage, tmp_path / "cut" / stage
        assert series(whole) == series(cut)
        assert [line["step"] for line in series(whole)] == [2, 4, 6, 8, 9]
        assert scalars(whole) == scalars(cut)
        tokens = [line["num_tokens"] for line in series(whole)[:4]]
        assert tokens == sorted(set(tokens))  # it grows, also where the run was resumed
    assert reports[0] == reports[1]
    assert {(project, run_name) for project, run_name, *_ in reports[0]} == {("p", "base"), ("p", "rl")}
    assert [step for _, run_name, step, _ in reports[0] if run_name == "rl"] == [2, 4, 6, 8, 9]


def test_a_reporter_that_is_not_installed(small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="report_to = 'wandb': pip install wandb"):
        train.run(configuration(small, tmp_path, report_to=["wandb"]))


def test_reporters_are_no_option_of_a_stage(small, tmp_path):
    data = copy.deepcopy(small) | {"output": str(tmp_path)}
    data["stage"][0]["trainer"] = {"report_to": "wandb"}
    with pytest.raises(ValueError, match=r"trainer\.report_to: set the run's report_to"):
        train.run(parse(data))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackio_offline_holds_one_series_a_stage(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed: it brings a web server")
    import sqlite3

    from trackio.sqlite_storage import SQLiteStorage

    projects = {name: f"klsim-{tmp_path.parent.name}-{name}" for name in ("whole", "cut")}
    whole, cut = (
        configuration(small, tmp_path / name, report_to=["trackio"], project=project)
        for name, project in projects.items()
    )
    run(whole)
    run(cut, STOPS)
    found = {}
    for name in ("whole", "cut"):
        file = SQLiteStorage.get_project_db_path(projects[name])
        rows = sqlite3.connect(file).execute("select run_name, metrics from metrics order by run_name, id").fetchall()
        times = {f"train/{t}" for t in TIMES}
        found[name] = [(r, {k: v for k, v in json.loads(text).items() if k not in times}) for r, text in rows]
    assert len(found["whole"]) == 10
    assert found["whole"] == found["cut"]


def wandb_history(folder):
    """What W&B keeps of every run, by project and name: logs in blocks of 32 KiB, whose records are of protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    found, ids = {}, {}
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        data, at, text, name, logged = file.read_bytes(), 7, b"", None, []
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            text, at = text + data[at + 7 : at + 7 + size], at + 7 + size
            if kind in (1, 4):  # whole, or the last part
                record, text = Record.FromString(text), b""
                if record.run.run_id:
                    name = (record.run.project, record.run.display_name)
                    assert ids.setdefault(name, record.run.run_id) == record.run.run_id
                items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                logged += [items] if items else []
        found.setdefault(name, []).extend(logged)
    assert len(set(ids.values())) == len(ids)  # a stage is one run, and a run one stage
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_holds_one_series_a_stage(small, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is optional")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name, stops in (("whole", ()), ("cut", STOPS)):
        run(configuration(small, tmp_path / name, report_to=["wandb"], project=name), stops)
    times = {f"train/{t}" for t in TIMES} | {"_timestamp", "_runtime", "_step"}
    found = {
        name: [{k: v for k, v in logs.items() if k not in times} for logs in history]
        for name, history in wandb_history(tmp_path).items()
    }
    assert found.keys() == {("whole", "base"), ("whole", "rl"), ("cut", "base"), ("cut", "rl")}
    for stage in ("base", "rl"):
        whole, cut = found["whole", stage], found["cut", stage]
        assert [logs["train/global_step"] for logs in whole] == [2, 4, 6, 8, 9]
        assert whole == cut
