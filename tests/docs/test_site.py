"""The site builds, strictly: what `make docs` does."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from docs.builder.accessible import accessible
from tests.report.chromium import CHROMIUM, in_chromium

PAGES = (
    "index", "install", "tutorials/settle-a-claim", "verdicts", "findings", "papers/index", "papers/gopd", "objectives",
    "audit-gallery", "benchmarks", "reference/optima", "glossary", "changelog", "explorer/index",
)  # fmt: skip


@pytest.mark.slow
def test_the_site_builds_and_is_whole(site):
    for page in ("index", "findings", "papers/gopd", "reference/optima", "tutorials/settle-a-claim", "glossary"):
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "<h1" in text
        assert 'data-md-color-scheme="slate"' in text or "data-md-color-scheme=slate" in text
    assert "<math" in (site / "reference" / "optima.html").read_text(encoding="utf-8")
    places = {entry["location"] for entry in json.loads((site / "search" / "search_index.json").read_text())["docs"]}
    assert "reference/optima.html#klsim.optima.kl_regularized" in places


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_axe_finds_nothing_on_the_main_pages(site, tmp_path, scheme):
    package = pytest.importorskip("axe_playwright_python", reason="brings axe.min.js: pip install --no-deps")
    axe = (Path(package.__path__[0]) / "axe.min.js").as_uri()
    found = {page: violations(site / f"{page}.html", axe, scheme, tmp_path) for page in PAGES}
    assert found == {page: [] for page in PAGES}
    # control: axe runs, and sees a picture without a text
    bad = site / "bad.html"
    bad.write_text("<html lang=en><title>t</title><body><main><h1>t</h1><img src=x></main></body></html>")
    assert violations(bad, axe, scheme, tmp_path) == ["image-alt"]


def violations(page: Path, axe: str, scheme: str, profile: Path) -> list[str]:
    """The rules of axe that a page breaks, in a colour scheme."""
    run = (
        "axe.run().then(found => document.body.append(Object.assign(document.createElement('pre'), {id: 'axe-found',"
        " textContent: JSON.stringify(found.violations.map(v => v.id))})))"
    )
    text = page.read_text(encoding="utf-8").replace(
        'data-md-color-scheme="default"', f'data-md-color-scheme="{scheme}"'
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    script = f'<script src="{axe}"></script><script>setTimeout(() => {run}, 1500)</script></body>'
    copy = page.with_name(f"axe-{page.name}")
    copy.write_text(text.replace("</body>", script), encoding="utf-8")
    shown = in_chromium(copy, profile / "profile", 15000).stdout
    copy.unlink()
    return json.loads(html.unescape(re.search(r'<pre id="axe-found">(.*?)</pre>', shown)[1]))


def test_what_the_theme_lacks_is_added():
    page = """<div class="md-search" data-md-component="search" role="dialog"><pre id="c"><span></span><code>x</code></pre>
<table><th></th><th>a</th></table><nav class="md-nav" data-md-level="1" aria-labelledby="l">"""
    assert accessible(page) == (
        """<div class="md-search" data-md-component="search" role="dialog" aria-label="Search"><pre id="c"><span></span><code>"""
        """<span tabindex="0"></span>x</code></pre>
<table><td></td><th>a</th></table><nav class="md-nav" data-md-level="1" aria-label="Pages of this section">"""
    )
