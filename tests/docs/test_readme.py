"""What the README shows of the frontier is what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from klsim.cli import app

README = Path(__file__).parents[2] / "README.md"


def test_the_frontier_is_printed_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```\n(\$ klsim frontier --example.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    first, second, ellipsis, *shown = block.splitlines()
    assert ellipsis == "…"
    printed = ""
    for command in (first, second.split(" --figure")[0]):
        result = CliRunner().invoke(app, command.split()[2:])
        assert result.exit_code == 0, result.output
        printed = " ".join(result.output.split())
    assert " ".join(" ".join(shown).split()) in printed
