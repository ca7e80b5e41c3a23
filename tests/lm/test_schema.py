"""The published schema of configurations is that of the models, and says the same as they."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from klsim.cli import app
from klsim.lm.config import parse
from klsim.lm.schema import schema

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.toml"))
TASK = {"kind": "reasoning_gym", "generator": "chain_sum"}
DATA = {"path": "a.jsonl", "reward": ["a.py:b", {"verifier": "exact", "weight": 0.5}]}


def test_the_published_file_is_up_to_date():
    published = json.loads((ROOT / "docs" / "train.schema.json").read_text(encoding="utf-8"))
    assert published == schema(), "klsim train --schema > docs/train.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)
    printed = CliRunner().invoke(app, ["train", "--schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == published


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.stem)
def test_the_examples_fit_and_name_it(file):
    first, _, text = file.read_text(encoding="utf-8").partition("\n")
    assert (file.parent / first.removeprefix("#:schema ")).resolve() == ROOT / "docs" / "train.schema.json"
    jsonschema.validate(tomllib.loads(text), schema())


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"data": DATA}, True),
        ({"task": TASK}, True),
        ({"data": DATA | {"kind": "data"}}, True),
        ({"model": {"path": "examples", "lora": {"r": 4, "target": ["q_proj"]}, "dtype": "bfloat16"}}, True),
        ({"report_to": ["trackio"]}, True),
        ({"report_to": ["excel"]}, False),
        ({"tasks": {}}, False),
        ({"seed": -1}, False),
        ({"sead": 1}, False),
        ({"model": {"lora": {"r": 0}}}, False),
        ({"model": {"dtype": "float16"}}, False),
        ({"stage": [{"name": "a", "method": "sft"}]}, False),
        ({"stage": [{"name": "a", "method": "objective", "steps": 1, "objective": {"lam": 1}}]}, False),
        ({"stage": [{"name": "a", "method": "objective", "steps": 1, "objective": {"name": "gopd"}}]}, False),
    ],
)
def test_schema_and_models_agree(small, change, fits):
    data = copy.deepcopy(small) | change
    found = not list(jsonschema.Draft202012Validator(schema()).iter_errors(data))
    assert found == fits
    if fits:
        parse(data)
    else:
        with pytest.raises(ValueError):
            parse(data)


@pytest.mark.parametrize(
    "task", [{"kind": "modular", "term": 1}, {"kind": "mod"}, {"generator": "x"}, {"kind": "data"}]
)
def test_knobs_are_known(small, task):
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(small | {"tasks": {"t": task}}))
