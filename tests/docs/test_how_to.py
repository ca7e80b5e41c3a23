"""Recipes: their tables are what the schema says. What they run: `tests/docs/test_language_models.py`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from docs.builder import tutorials

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "train-own-data.md"


def test_its_tables_fit_the_schema():
    pytest.importorskip("trl", reason="needs klsim[lm]")
    jsonschema = pytest.importorskip("jsonschema")
    from klsim.lm.schema import schema

    fragments = [body for language, title, body in tutorials._BLOCK.findall(PAGE.read_text(encoding="utf-8"))
                 if language == "toml" and not title]  # fmt: skip
    assert len(fragments) == 2
    rest = {"output": "x", "stage": [{"name": "a", "method": "sft", "steps": 1}]}
    for text in fragments:
        given = rest | tomllib.loads(text)
        jsonschema.validate(given if "task" in given else given | {"task": {"kind": "modular"}}, schema())
