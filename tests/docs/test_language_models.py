"""What README and pages show of a language model runs: fast on a small model, slow on SmolLM2 if it is in the cache."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from docs.builder import tutorials

if importlib.util.find_spec("trl") is None:
    pytest.skip("needs klsim[lm]", allow_module_level=True)

import torch

from klsim.lm import pretrained
from tests.docs import small_smollm

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "train-and-place.md"
HOW_TO = ROOT / "docs" / "how-to" / "train-own-data.md"
README = ROOT / "README.md"
BLOCK = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)


def files(page: Path) -> dict[str, str]:
    """The files that a page shows, by title."""
    return dict(BLOCK.findall(page.read_text(encoding="utf-8")))


def section(folder: Path) -> Path:
    """README's part on language models, and its script run, as a page of its own."""
    text = README.read_text(encoding="utf-8")
    (found,) = re.findall(r"^## From your data.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    page = folder / "README.md"
    page.write_text(found + "\n```console\n$ python script.py\n…\n```\n", encoding="utf-8")
    return page


def replayed(page: Path, folder: Path) -> None:
    threads = torch.get_num_threads()
    try:
        tutorials.replay(page, folder)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder; pages are written elsewhere."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def prompts(page: Path, script: str) -> None:
    """The file of prompts that a page's script writes."""
    Path(script).write_text(files(page)[script], encoding="utf-8")
    runpy.run_path(script, run_name="__main__")


def small(folder: Path, path: str, **data: str) -> None:
    """A small model that is right now and then: it saw the solutions of some prompts."""
    small_smollm.put(folder, {"path": path, "completion": "solution", "max_completion": 4, **data}, steps=60)


@pytest.fixture
def real(here):
    if not (pretrained.cache_folder() / "models" / small_smollm.NAME / "klsim.json").is_file():
        pytest.skip(f"{small_smollm.NAME} is not in {pretrained.cache_folder()}: make smollm")
    return here


def outcome(folder: Path) -> None:
    """The policy moved and has its point: log-probabilities under both laws."""
    import pyarrow.parquet as pq

    base, rl = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("base", "rl"))
    assert len(base) == len(rl) == 36 * 16
    assert 0 < sum(row["reward"] for row in base) < len(base)
    assert sum(row["policy_logp"] - row["ref_logp"] for row in rl) != 0


def test_the_ten_and_the_fifteen_lines(here, tmp_path):
    """On answers that are 0 or 1, which a small model guesses."""
    prompts(TUTORIAL, "sums.py")
    rows = [json.loads(line) for line in (here / "sums.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [row | dict.fromkeys(("answer", "solution"), str(int(row["answer"]) % 2)) for row in rows]
    (here / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in last), encoding="utf-8")
    small(here, "sums.jsonl")
    replayed(section(tmp_path), here)
    outcome(here)
    assert (here / "runs" / "script" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_ten_and_the_fifteen_lines_on_smollm2(real, tmp_path):
    prompts(TUTORIAL, "sums.py")
    replayed(section(tmp_path), real)
    outcome(real)


def test_the_tutorial(here):
    prompts(TUTORIAL, "sums.py")
    rows = [json.loads(line) for line in (here / "sums.jsonl").read_text(encoding="utf-8").splitlines()]
    (here / "seen.jsonl").write_text("".join(json.dumps(r | {"solution": r["answer"]}) + "\n" for r in rows))
    small(here, "seen.jsonl")
    replayed(TUTORIAL, here)
    outcome(here)


@pytest.mark.slow
def test_the_tutorial_on_smollm2(real):
    replayed(TUTORIAL, real)
    outcome(real)


def test_own_data(here):
    prompts(HOW_TO, "prompts.py")
    small(here, "prompts.jsonl", prompt="question")
    replayed(HOW_TO, here)
    assert (here / "runs" / "own" / "rl" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_own_data_on_smollm2(real):
    replayed(HOW_TO, real)


def test_it_is_short():
    """Ten lines of a file and of commands, fifteen of Python, imports and the file's options aside."""
    text = section_text()
    commands = re.findall(r"^\$ klsim", text, re.MULTILINE)
    assert len(commands) == 5
    given = files(README)
    assert sum(bool(line.strip()) for line in given["script.py"].splitlines()) <= 18
    assert sum(bool(line.strip()) for line in given["sums.toml"].splitlines()) <= 14


def section_text() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index("## From your data") : text.index("## Solve for an optimum")]


def test_readme_and_tutorial_show_one_run():
    """The same file; what README shows of the commands stands in the tutorial, too; beta is what the frontier named."""
    toml = files(README)["sums.toml"]
    assert files(TUTORIAL)["sums.toml"] == toml
    tutorial = TUTORIAL.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n(.*?)^```$", section_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        if line != "…" and not line.startswith("$ klsim frontier"):
            assert line in tutorial
    beta = tomllib.loads(toml)["stage"][0]["objective"]["kl"]["beta"]
    named = float(re.search(r"at 0\.2 nats: beta = ([\d.]+)", block)[1])
    assert round(named, 2) == beta
