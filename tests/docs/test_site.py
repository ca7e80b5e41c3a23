"""The site builds, strictly: what `make docs` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_and_is_whole(tmp_path):
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    asked = [sys.executable, "-m", "docs.builder", str(site)]
    ran = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for page in ("index", "findings", "papers/gopd", "reference/optima", "tutorials/settle-a-claim", "glossary"):
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "<h1" in text
        assert 'data-md-color-scheme="slate"' in text or "data-md-color-scheme=slate" in text
    assert "<math" in (site / "reference" / "optima.html").read_text(encoding="utf-8")
    places = {entry["location"] for entry in json.loads((site / "search" / "search_index.json").read_text())["docs"]}
    assert "reference/optima.html#klsim.optima.kl_regularized" in places
