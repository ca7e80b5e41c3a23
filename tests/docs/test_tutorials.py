"""Every tutorial is run as it stands, and prints what it shows."""

from __future__ import annotations

import importlib.util

import pytest

from docs.builder import tutorials

NEEDS = {"audit-a-loss": ("torch",)}
TRAINS = "train-and-place"
"""It trains SmolLM2: see `tests/docs/test_language_models.py`."""
PAGES = sorted(page for page in tutorials.PAGES.glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in PAGES if p.stem != TRAINS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_tutorial(page, tmp_path):
    for module in NEEDS.get(page.stem, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    tutorials.replay(page, tmp_path)


def test_there_are_five():
    assert len(PAGES) == 5


def page(tmp_path, text):
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    (tmp_path / "run").mkdir()
    return tutorials.replay(tmp_path / "page.md", tmp_path / "run")


@pytest.mark.parametrize(
    "shown", ["a 1.2349\nb 2\n", "a 1.235\nb 2\n", "…\nb 2\n", "a 1.2349\n…\n", "?\n"], ids=["all", "rounded", "end", "start", "ask"]
)  # fmt: skip
def test_what_is_printed_may_be_shown(shown, tmp_path):
    page(tmp_path, f"```python\nprint('a 1.2349')\nprint('b 2')\n```\n\n```text\n{shown}```\n")


@pytest.mark.parametrize("shown", ["a 1.2360\nb 2\n", "a 1.2349\nb 3\n", "a 1.2349\n", "a 1.2349\nc 2\n"])
def test_anything_else_is_refused(shown, tmp_path):
    with pytest.raises(tutorials.Mismatch):
        page(tmp_path, f"```python\nprint('a 1.2349')\nprint('b 2')\n```\n\n```text\n{shown}```\n")


@pytest.mark.parametrize(("shown", "fits"), [("title\n│ 2 │\nx = 3\n", True), ("other\n│ 1 │\nx = 1\n", False)])
def test_where_numbers_depend_on_the_machine_the_rest_is_held(shown, fits, tmp_path):
    (tmp_path / "show.py").write_text("print('title')\nprint('│ 1 │')\nprint('x = 1')\n", encoding="utf-8")
    text = f"{tutorials.FRAME_ONLY}```console\n$ python ../show.py\n{shown}```\n"
    if fits:
        page(tmp_path, text)
    else:
        with pytest.raises(tutorials.Mismatch):
            page(tmp_path, text)


def test_a_command_that_fails_is_refused(tmp_path):
    with pytest.raises(tutorials.Mismatch, match="exit code 2"):
        page(tmp_path, "```console\n$ klsim replay nothing.json\n```\n")
