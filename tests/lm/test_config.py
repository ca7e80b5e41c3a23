"""Configurations: every mistake is named with its place, and the near keys."""

from __future__ import annotations

import copy

import pytest

from klsim.lm.config import parse, read

STUDENT = {"name": "student", "method": "objective", "objective": {"name": "g_opd"}, "steps": 1}


def _set(*path, value):
    def change(data):
        node = data
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value

    return change


def _add(**stage):
    return lambda data: data["stage"].append(STUDENT | stage)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("sead", value=1), "sead: no such key; near: seed"),
        (_set("seed", value=-1), "seed = -1: Input should be greater than or equal to 0"),
        (_set("stage", value=[]), "stage: needs at least one"),
        (_set("tasks", value={}), "tasks: "),
        (_set("stage", 0, "stepz", value=1), r"stage\[0\].stepz: no such key; near: steps"),
        (_set("stage", 0, "steps", value="many"), r"stage\[0\].steps = 'many': Input should be a valid integer"),
        (_set("stage", 0, "steps", value=0), r"stage\[0\].steps = 0"),
        (_set("stage", 0, "name", value="../x"), r"stage\[0\].name = '../x'"),
        (_set("stage", 0, "method", value="rl"), r"stage\[0\]: .*'rl'"),
        (_set("stage", 0, "tasks", value=["ad"]), "stage 'base': no task 'ad'; near: add"),
        (_set("model", "path", value="x"), "model: heads and path exclude each other"),
        (_add(objective={"name": "gopd"}), r"stage\[1\].objective: objective 'gopd': no such objective; near: g_opd"),
        (_add(objective={"lam": 1}), r"stage\[1\].objective: name is missing"),
        (_add(objective={"name": "g_opd", "lam": "a"}), "lam = 'a': must be a number"),
        (_add(teachers={"add": "base"}), "stage 'student': teachers has none for task 'mul'"),
        (_add(teachers="student"), "stage 'student': teachers = 'student' is no earlier stage"),
        (_add(name="base"), "stage 'base': there are two"),
        (_add(), "stage 'student': its objective needs a teacher; give teachers"),
        (_add(start="bsae", teachers="base"), "start = 'bsae' is neither a stage nor a folder .*; near: base"),
        (_add(teachers="bsae"), "teachers = 'bsae' is neither a stage nor a folder .*; near: base"),
        (_add(teachers={"add": "base", "mul": "base", "sub": "base"}), "teachers: 'sub' is none of its tasks"),
        (_set("evaluation", "ref", value="bsae"), "evaluation: ref = 'bsae' is neither"),
        (_set("model", value={"path": "none.gguf"}), "model: path = 'none.gguf': there is no such file"),
        (_set("model", value={"path": "smollm2_135m"}), "path = 'smollm2_135m': is neither .*; near: smollm2-135m"),
        (_add(start="none.gguf", teachers="base"), "student': start = 'none.gguf': there is no such file"),
        (_add(teachers="some/none.gguf"), "teachers = 'some/none.gguf': there is no such file"),
        (_add(teachers="smollm2-134m"), "teachers = 'smollm2-134m' is neither a stage .*; near: smollm2-135m"),
        (_add(name="smollm2-135m", teachers="base"), "'smollm2-135m': is the name of a pretrained model; take another"),
        (
            lambda d: d["stage"].append({"name": "soup", "method": "average", "of": ["base", "base"], "start": "base"}),
            r"stage\[1\].start: no such key",
        ),
        (_set("model", "lora", value={"rank": 1}), "model.lora.rank: no such key; (near|known): .*r"),
        (_set("model", "lora", value={"r": 10**5}), "model.lora.r = 100000: "),
        (_set("model", "dtype", value="float16"), "model.dtype = 'float16'"),
        (_set("report_to", value=["excel"]), r"report_to\[0\] = 'excel'"),
        (_set("stage", 0, "save_steps", value=3), r"stage\[0\]: save_steps = 3: must be a multiple of log_steps = 2"),
        (_add(group=1), r"stage\[1\].group = 1"),
    ],
)
def test_errors(small, change, message):
    data = copy.deepcopy(small)
    change(data)
    with pytest.raises(ValueError, match=message):
        parse(data)


def test_pretrained_models_where_a_model_is_named(small, tmp_path):
    """Names, GGUF files and hub names as path, start, ref and teachers."""
    file = tmp_path / "some.gguf"
    file.touch()
    for place in ("smollm2-135m", str(file), "owner/name", str(tmp_path)):
        data = copy.deepcopy(small) | {"model": {"path": place}}
        _add(start=place, ref=place, teachers={"add": place, "mul": "base"})(data)
        read = parse(data)
        assert (read.model.path, read.stage[1].start, read.stage[1].ref) == (place, place, place)


def test_files(tmp_path, small):
    file = tmp_path / "c.toml"
    file.write_text("output = [")
    with pytest.raises(ValueError, match=r"c\.toml: not TOML"):
        read(file)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.toml")
    file.write_text('output = "a"\n[tasks.t]\nkind = "modular"\n[[stage]]\nname = "s"\nmethod = "sft"\nsteps = 1\n')
    assert read(file, output="b", seed=None).output.name == "b"
