"""docs/how-to/questions.md: what it names is there, and its recipes run."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "questions.md").read_text()


def test_every_function_that_answers_a_question_is_there():
    for name in re.findall(r"`(klsim\.[\w.]+)`", PAGE):
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                found: Any = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part)
            break


def test_the_recipes_run_one_after_the_other(capsys):
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(block, "questions.md", "exec"), names)
        assert capsys.readouterr().out.strip()
