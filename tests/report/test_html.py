"""The report: self-contained, escaped, and working in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from klsim.claims import Identity, Paper, verify
from klsim.claims import certificate as certificates
from klsim.report.html import write_report
from klsim.report.prose import to_html, to_markdown
from klsim.spaces import Floats, Space
from tests.report.chromium import CHROMIUM, in_chromium

HOSTILE = "<script>alert('x')</script> & \"quotes\" " + "long " * 200


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    paper = Paper("toy", title=HOSTILE, authors=HOSTILE, year=2026, arxiv="0000.00000")
    claim = paper.claim(
        "C1", f"{HOSTILE}\n\n" + r"$x^2=x\cdot x$ and $$\int_0^1 x\,dx$$ " + f"{HOSTILE}\n\nwhere: {HOSTILE}"
    )

    @claim.check(Identity(), Space(x=Floats(0, 1)))
    def square(x):
        return x**2, x * x

    @square.control(HOSTILE)
    def cube(x):
        return x**3, x * x

    false = paper.claim("C2", "x = 2x", expect="refuted", correction=r"only for $x=0$ \badlatex{", correction_by="C1")

    @false.check(Identity(), Space(x=Floats(0, 1)), true={"x = 1 x": {"factor": 1}})
    def doubled(x, *, factor=2):
        return x, factor * x

    certificates.write(verify(paper), folder / "c.json")
    figures = folder / "figures" / "toy"
    figures.mkdir(parents=True)
    (figures / "f.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (figures / "f.csv").write_text("x\n1\n")
    (figures / "f.json").write_text('{"title": "<b>T</b>", "caption": "C"}')
    write_report(certificates.read(folder / "c.json"), figures=folder / "figures", out=folder / "out")
    return folder / "out"


def test_pages_and_figures(report):
    assert {p.name for p in report.iterdir()} == {"index.html", "toy.html", "findings.html", "figures"}
    assert (report / "figures" / "toy" / "f.svg").is_file()
    assert "C2" in (report / "findings.html").read_text()


def test_pages_of_papers_that_are_gone_are_removed_and_nothing_else(report, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(report, out)
    shutil.copy(out / "toy.html", out / "mine.html")  # says that it is toy's
    (out / "notes.html").write_text("<p>of the user</p>")
    certificate = certificates.read(report.parent / "c.json")
    write_report({**certificate, "papers": []}, figures=report / "figures", out=out)
    assert {p.name for p in out.iterdir()} == {"index.html", "findings.html", "mine.html", "notes.html", "figures"}
    assert (out / "figures" / "toy" / "f.svg").is_file()


def test_user_text_is_escaped(report):
    for page in report.glob("*.html"):
        text = page.read_text()
        assert "<script>alert" not in text
        assert "<b>T</b>" not in text


def test_nothing_is_loaded_from_elsewhere(report):
    for page in report.glob("*.html"):
        text = page.read_text()
        for tag, attribute in re.findall(r"<(\w+)[^>]*?\s(?:src|href)=\"([^\"]*)\"", text):
            assert tag == "a" or not attribute.startswith(("http", "//")), (page.name, tag, attribute)
        assert "@import" not in text
        assert "url(http" not in text


def test_math_is_mathml(report):
    page = (report / "toy.html").read_text()
    assert "<math" in page
    assert "<msup>" in page
    assert "$x^2" not in page


def test_bad_latex_is_shown_as_it_is():
    assert str(to_html(r"a $\frac{1}$ b")).startswith("a ")
    assert "<script" not in str(to_html("$<script>$ <script>"))
    assert str(to_html(r"$\unknowncommand x$")) == r'<code class="latex">\unknowncommand x</code>'
    assert "argmax" in str(to_html(r"$\arg\max r$"))


def test_markdown_cells_keep_the_table():
    assert to_markdown("a | b\n\nc $x|y$") == r"a \| b c $x\mid y$"
    assert to_markdown(r"$KL(p\|q)$") == r"$KL(p\Vert q)$"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
def test_in_a_browser(report, tmp_path):
    """Text is there, a claim opens, the theme switches, and the console stays quiet."""
    code = """addEventListener("load", function () {
      var d = document.getElementById("C1"), before = d.open;
      d.querySelector("summary").click();
      var theme = document.documentElement.dataset.theme;
      document.getElementById("theme").click();
      document.getElementById("filter").value = "2x";
      document.getElementById("filter").dispatchEvent(new Event("input"));
      document.title = [before, d.open, theme !== document.documentElement.dataset.theme, d.hidden].join(" ");
    });"""
    allowed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = (report / "toy.html").read_text().replace("script-src ", f"script-src 'sha256-{allowed}' ")
    page = report / "probe.html"
    page.write_text(text.replace("</body>", f"<script>{code}</script></body>"))
    ran = in_chromium(page, tmp_path)
    page.unlink()
    assert "<title>false true true true</title>" in ran.stdout
    assert "What holds:" in ran.stdout
    assert "CONSOLE" not in ran.stderr


def test_the_template_folder_is_inside_the_package():
    import klsim.report

    assert (Path(klsim.report.__file__).parent / "templates" / "base.html").is_file()
