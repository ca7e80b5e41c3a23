"""The four files of a new paper: they verify and draw as they stand."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from klsim.claims.paper import Paper
from klsim.files import write_atomically

__all__ = ["FILES", "write_paper"]

FILES = ("claims.py", "setting.py", "figures.py", "README.md")
"""The four files of a paper."""


def write_paper(slug: str, title: str, papers: Path) -> list[Path]:
    """Write ``papers/<slug>/`` and return its files.

    Raises:
        ValueError: a slug that no paper can have, or a folder that has one of the files already.
    """
    Paper(slug, title)
    folder = papers / slug
    if existing := [name for name in FILES if (folder / name).exists()]:
        raise ValueError(f"{folder / existing[0]} exists already")
    title = " ".join(title.split()).replace("\\", "").replace('"', "'")
    written = []
    for name in FILES:
        text = files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")
        write_atomically(folder / name, text.replace("SLUG", slug).replace("TITLE", title))
        written.append(folder / name)
    return written
