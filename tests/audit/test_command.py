"""``klsim audit`` and ``klsim objectives --list``: exit codes, errors in one line, several targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from klsim.cli import app

pytest.importorskip("torch")

GOOD = """
from helper import sums

def loss(batch, kl_coef=0.1):
    return -(batch.total_rewards() * sums(batch)).mean()

def broken(batch):
    return undefined_name(batch)

def returns_nothing(batch):
    return None

def length(problem, table):
    import torch
    nodes, words = torch.as_tensor(problem.nodes), torch.as_tensor(problem.tokens)
    steps = torch.where(torch.as_tensor(problem.free), table[nodes].gather(-1, words[..., None])[..., 0], 0.0)
    return (torch.as_tensor(problem.share[problem.prompt] * problem.length) * steps.sum(1).exp()).sum()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(GOOD)
    (tmp_path / "code" / "helper.py").write_text("def sums(b):\n    return (b.log_probs * b.weights).sum(1)\n")
    return lambda *words: CliRunner().invoke(app, ["audit", *words])


def test_met_and_not(run, tmp_path):
    fine = run("code/mine.py:loss", "--expect", "reward", "--report", "pages")
    assert fine.exit_code == 0, fine.output
    assert "kl_coef has no effect" in " ".join(fine.output.split())
    assert "no effect" in (tmp_path / "pages" / "audit.html").read_text()
    missed = run(
        "code/mine.py:loss", "code/mine.py:loss", "--expect", "reward - kl_coef*reverse_kl", "--json", "--quick"
    )
    assert missed.exit_code == 1
    assert [a["met"] for a in json.loads(missed.stdout)["audits"]] == [False, False]
    assert missed.stderr.count("audited code/mine.py:loss in") == 2  # progress, off a terminal too
    idle = run("code/mine.py:loss", "--expect", "reward", "--must-act", "kl_coef", "--quick")
    assert idle.exit_code == 1


def test_an_error_in_the_audited_code_is_one_line_and_code_3(run):
    found = run("code/mine.py:broken", "--expect", "reward")
    assert found.exit_code == 3
    lines = [line for line in found.stderr.splitlines() if "NameError" in line]
    assert len(lines) == 1
    assert "mine.py:8" in lines[0]


def test_own_terms(run):
    assert (
        run(
            "code/mine.py:loss", "--expect", "reward - 0*size", "--term", "size=code/mine.py:length", "--quick"
        ).exit_code
        == 0
    )
    assert (
        run("code/mine.py:loss", "--expect", "reward - size", "--term", "size=code/mine.py:length", "--quick").exit_code
        == 1
    )


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("code/mine.py:nothing",),
        ("code/mine.py:loss", "--expect", "rewards"),
        ("code/mine.py:loss?kl_coef=o.1",),
        ("code/mine.py:loss?kl_coef=1&kl_coef=2",),
        ("code/mine.py:returns_nothing",),
        ("code/mine.py:loss", "--any-scale", "--any-prompt-weight"),
        ("code/mine.py:loss", "--off-policy", "maybe"),
        ("code/mine.py:loss", "--must-act", "beta"),
        ("code/mine.py:loss", "--expect", "reward", "--term", "size"),
    ],
)
def test_wrong_usage_is_code_2(run, words):
    assert run(*words).exit_code == 2


@pytest.mark.parametrize(
    ("name", "expect", "code"),
    [
        ("reinforce", "reward - beta*forward_kl(frozen)", 0),
        ("forgotten_mask", "reward - beta*forward_kl(frozen)", 1),
        ("token_mean", "token_mean(reward)", 0),
        ("reinforce", "reward - beta*size", 0),
    ],
)
def test_the_example(run, name, expect, code):
    file = Path(__file__).parents[2] / "examples" / "audit" / "losses.py"
    found = run(f"{file}:{name}", "--expect", expect, "--term", f"size={file}:sampled_forward_kl", "--quick")
    assert found.exit_code == code, found.output


def test_the_list_of_objectives_measures_nothing():
    found = CliRunner().invoke(app, ["objectives", "--list"])
    assert found.exit_code == 0
    assert "policy gradient" in found.stdout
    assert "  grpo  (DeepSeekMath)" in found.stdout
