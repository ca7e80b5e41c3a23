"""kill -9 at twenty random moments each: the same final bytes, nothing left behind, no process that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from klsim.claims import certificate as certificates

KILLS = 20
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

CLAIMS = """
    import numpy as np
    from klsim.claims import Identity, Inequality, Paper
    from klsim.divergences import kl
    from klsim.spaces import Policies, Space

    paper = Paper("good", title="Good")
    for n in range(6):
        claim = paper.claim(f"C{n}", f"KL is non-negative {n}")

        @claim.check(Inequality(scale=1), Space(log_p=Policies(), log_q=Policies()), instances=400, false={"at least 1": {"least": 1.0}})
        def non_negative(log_p, log_q, *, least=0.0):
            return least + 0 * kl(log_p, log_q), kl(log_p, log_q)

    folklore = paper.claim("D", "KL is symmetric\\n\\ninstead: It is not.\\norigin: folklore")

    @folklore.check(Identity(), Space(log_p=Policies(), log_q=Policies()), true={"with itself": {"other": False}})
    def symmetric(log_p, log_q, *, other=True):
        return kl(log_p, log_q if other else log_p), kl(log_q if other else log_p, log_p)
"""
FIGURES = """
    import time
    from klsim.report import Figures
    from klsim.report.drawings import Lines

    figures = Figures()
    for name in ("one", "two", "three"):

        @figures.figure(name, title="T", caption="y = x", draw=Lines("x", "y"), has_full=True)
        def line(run):
            parts = [run.stage(f"{i}", lambda i=i: (time.sleep(0.1), {"v": i})[1])["v"] for i in range(4)]
            return {"x": [float(i) for i in range(4)], "y": [float(p) for p in parts]}
"""
TRAIN = """
    output = "run"
    model = { hidden = 16, layers = 1, heads = 2 }
    train_prompts = 40
    evaluation = { prompts = 8, samples = 4 }
    tasks = { add = { kind = "modular", terms = 2, chain = false } }

    [[stage]]
    name = "base"
    method = "sft"
    steps = 12
    log_steps = 2
    save_steps = 4
    batch = 8
"""


def prepare(folder: Path, command: str) -> None:
    """The files that a command starts from."""
    paper = folder / "papers" / "good"
    paper.mkdir(parents=True)
    (paper / "claims.py").write_text(textwrap.dedent(CLAIMS))
    (paper / "figures.py").write_text(textwrap.dedent(FIGURES))
    (folder / "run.toml").write_text(textwrap.dedent(TRAIN))
    if command == "report":
        klsim(folder, "verify", "--examples", "2").communicate()
    if command == "sample":
        prepare_sample(folder)
    if command == "frontier":
        klsim(folder, "frontier", "--example", "rollouts").communicate()


def prepare_sample(folder: Path) -> None:
    """Two models, prompts, and a reward that takes its time."""
    from klsim.lm import models

    tokenizer = models.character_tokenizer("0123456789+=")
    for name, seed in (("model", 0), ("other", 1)):
        made = models.tiny_model(tokenizer, hidden=16, layers=1, heads=2, seed=seed)
        models.save_checkpoint(made, tokenizer, folder / name)
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(9, 13) for b in range(3)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(textwrap.dedent(REWARDS))


REWARDS = """
    import time

    def exact(prompts, completions, answer, **columns):
        time.sleep(0.2)
        return [float(c.startswith(a)) for c, a in zip(completions, answer)]
"""
COMMANDS = {
    "verify": ("verify", "--jobs", "2", "--examples", "20"),
    "reproduce": ("reproduce", "--full", "--jobs", "2", "--examples", "2"),
    "report": ("report",),
    "frontier": ("frontier", "rollouts/reference.jsonl", "--policy", "rollouts/policy.jsonl", "--report", "report"),
    "train": ("train", "run.toml"),
    "sample": (
        "sample", "model", "--prompts", "prompts.jsonl", "--samples", "8", "--max-tokens", "6", "--batch", "8",
        "--reward", "rewards.py:exact", "--log-probs-under", "ref=other", "--output", "rollouts.parquet",
    ),
}  # fmt: skip


def klsim(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-m", "klsim", *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_twenty_kills(tmp_path, command):
    if command in ("train", "sample"):
        pytest.importorskip("trl")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        prepare(folder, command)
    start = time.monotonic()
    assert klsim(whole, *COMMANDS[command]).wait() == 0
    whole_run = time.monotonic() - start
    rng, kills = np.random.default_rng(len(command)), 0
    while kills < KILLS:
        process = klsim(killed, *COMMANDS[command])
        time.sleep(rng.uniform(0, whole_run))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait() in (0, -signal.SIGKILL)
        while working_in(killed):  # ends, or the test hangs: workers end with their parent
            time.sleep(0.05)
    assert klsim(killed, *COMMANDS[command]).wait() == 0
    assert contents(killed) == contents(whole)


def working_in(folder: Path) -> list[str]:
    """Processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                here = (process / "cwd").resolve()
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if here == folder.resolve() and state not in "ZX":
                found.append(process.name)
    return found


def contents(folder: Path) -> dict[str, object]:
    """All files; their bytes where these do not tell of the time that was taken."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        name = path.relative_to(folder).as_posix()
        if "tensorboard" in name:  # one file a start
            continue
        found[name] = meaning(path)
    return found


def meaning(path: Path) -> object:
    if path.name == "certificate.json":
        return certificates.comparable(json.loads(path.read_text()))
    if path.name == "metrics.jsonl":
        return [(row["step"], row.get("loss")) for row in map(json.loads, path.read_text().splitlines())]
    if path.suffix == ".html" or path.name in ("training_args.bin", "trainer_state.json"):
        return "there"
    return path.read_bytes()
