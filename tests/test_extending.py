"""docs/extending.md, followed to the letter: its files are written into an empty folder, its commands run there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|toml|console)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def recipes() -> dict[str, list[tuple[str, str, str]]]:
    """The blocks of every section: ``(language, file, text)``."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {s.split("\n", 1)[0]: BLOCK.findall(s) for s in sections}


def run(command: str, folder: Path) -> None:
    words = shlex.split(command)
    where = str(folder / "installed")
    if words[0] == "pip":  # into a folder of its own, without a network
        words = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--upgrade",
            "--target",
            where,
            ".",
        ]
    elif words[0] == "klsim":
        words = [sys.executable, "-m", "klsim", *words[1:]]
    else:
        words[0] = sys.executable
    path = os.pathsep.join((where, str(ROOT), os.environ.get("PYTHONPATH", "")))
    ran = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


def test_there_are_seven():
    assert len(recipes()) == 7
    assert all(any(language == "console" for language, _, _ in blocks) for blocks in recipes().values())


SHARED = ("pyproject.toml", "my_trainer_audit.py", "my_rollouts.py")  # one package registers both


@pytest.mark.parametrize("recipe", [*recipes()])
def test_a_recipe(recipe, tmp_path):
    for blocks in recipes().values():
        for _, file, text in blocks:
            if file in SHARED:
                (tmp_path / file).write_text(text, encoding="utf-8")
    for language, file, text in recipes()[recipe]:
        if language == "console":
            for line in text.strip().splitlines():
                run(line.removeprefix("$ "), tmp_path)
        else:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text, encoding="utf-8")
