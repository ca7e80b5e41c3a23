"""Pages are made from what is committed; their links lead somewhere; Markdown of all three kinds comes out right."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import markdown
import pytest

from docs.builder import check, dialect, links, pages, papers
from klsim.report.findings import findings_markdown

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site():
    return pages.make(ROOT)


def test_every_internal_link_resolves(site):
    assets = {f"{links.ASSETS}/{name}" for name in site.assets}
    html = {path.removesuffix(".md") + ".html" for path in site.pages}  # what raw HTML links to
    assert links.broken(site.pages, assets | html) == []


def test_broken_links_are_found():
    found = links.broken(
        {"a.md": "# A\n[x](b.md) [y](b.md#here) [z](b.md#there) [w](c.md)\n", "b.md": "## Here\n"}, set()
    )
    assert found == ["a.md: b.md#there (no such heading)", "a.md: c.md"]


def test_a_link_out_of_the_repository_fails(tmp_path):
    with pytest.raises(ValueError, match=r"x\.md: links to nowhere\.md, which is not there"):
        links.moved("[a](nowhere.md)", PurePosixPath("x.md"), PurePosixPath("x.md"), tmp_path, {})


def test_every_paper_has_a_page_with_its_claims_and_its_findings(site):
    for folder in sorted((ROOT / "papers").iterdir()):
        if (folder / "claims.py").is_file():
            text = site.pages[f"papers/{folder.name}.md"]
            readme = (folder / "README.md").read_text(encoding="utf-8")
            claims = papers.claims_of(papers.source_of(folder))
            assert text.count('class="claim"') == len(claims) > 0
            assert text.count('class="finding"') == len(papers.findings_of(readme))


def test_the_findings_page_has_every_finding(site):
    readmes = [f.read_text(encoding="utf-8") for f in (ROOT / "papers").glob("*/README.md")]
    total = sum(len(papers.findings_of(text)) for text in readmes)
    assert site.pages["findings.md"].count('class="finding"') == total
    assert f"{total} statements that klsim refutes" in site.pages["findings.md"]


def test_a_table_of_findings_is_read_as_it_was_written():
    check_ = {"verdict": "refuted", "summary": "1 = 2 fails | by 1"}
    claim = {"id": "C1", "title": "x | y", "origin": "folklore", "correction": "$a|b$", "correction_by": ["C2"],
             "verdict": "refuted", "expect": "refuted", "as_expected": True, "checks": [check_]}  # fmt: skip
    table = findings_markdown({"papers": [{"slug": "p", "folder": "p", "title": "P", "claims": [claim]}]}, "p")
    (found,) = papers.findings_of(f"<!-- findings:start -->\n{table}\n<!-- findings:end -->")
    assert (found.claim, found.statement, found.counterexample) == ("`p/C1`", "x | y", "1 = 2 fails | by 1")
    assert found.holds == r"$a\mid b$ (C2)"


def test_nothing_is_fetched_and_nothing_is_lost(tmp_path):
    (tmp_path / "a.html").write_text('<a id="x" href="b.html#y">b</a><script src="https://cdn.example/x.js"></script>')
    (tmp_path / "b.html").write_text('<p id="z"><a href="c.html">c</a><a href="https://arxiv.org">fine</a></p>')
    (tmp_path / "s.css").write_text("@font-face { src: url('https://fonts.example/f.woff2') }")
    assert check.problems(tmp_path) == [
        "a.html: links to b.html#y, but there is no such anchor",
        "a.html: fetches https://cdn.example/x.js",
        "b.html: links to c.html, which is not there",
        "s.css: fetches https://fonts.example/f.woff2",
    ]


def test_formulas_are_mathml_and_code_is_code():
    html = markdown.markdown("$x_1*y*z$, `$ klsim`, costs $5 or $6; $$a\\|b$$", extensions=["docs.builder.mathml"])
    assert html.count("<math") == 2
    assert "<code>$ klsim</code>" in html
    assert "$5 or $6" in html
    assert "<em>" not in html


def test_latex_that_cannot_be_shown_fails():
    with pytest.raises(ValueError, match="not LaTeX that can be shown"):
        markdown.markdown(r"$\undefined{$", extensions=["docs.builder.mathml"])


@pytest.mark.parametrize(
    ("docstring", "made"),
    [
        ("A\n\n.. math:: a \\\n    + b\n\nB", "$$a \\ + b$$"),
        ("Use::\n\n    f(x)\n", "Use:\n\n    f(x)"),
        ("::\n\n    f(x)\n", "\n\n    f(x)"),
        ("see `kl_regularized`", "see [`kl_regularized`][klsim.optima.kl_regularized]"),
        ("``kl_regularized`` and a <b>", "``kl_regularized`` and a &lt;b>"),
        ("text\n- one\n- two", "text\n\n- one\n- two"),
        ("====  ====\na     b\n====  ====\n1     2\n      3\n====  ====", "| a | b |\n| --- | --- |\n| 1 | 2 3 |"),
    ],
)
def test_docstrings_become_markdown(docstring, made):
    assert made in dialect.from_docstring(docstring, "klsim.optima")


def test_arguments_that_share_a_line_get_one_each():
    text = "Args:\n    a: x. b, c: y. d: z.\n    e: v.\n\nSee a. b: w."
    made = dialect.one_a_line(text, {"a", "b", "c", "e"})
    assert made == "Args:\n    a: x.\n    b, c: y. d: z.\n    e: v.\n\nSee a. b: w."


def test_prose_links_full_names_only():
    assert dialect.qualified("`klsim.optima`, `win_rate`") == "[`klsim.optima`][klsim.optima], `win_rate`"
    assert dialect.qualified("`rloo`", "klsim.objectives") == "[`rloo`][klsim.objectives.policy_gradient.rloo]"


def test_no_formula_of_a_docstring_is_lost():
    """Every ``.. math::`` of the library is LaTeX that the converter knows."""
    from docs.builder import names

    for module in names.public_modules().values():
        for text in (module.text, *module.defined.values()):
            for formula in dialect.formulas(dialect.from_docstring(text, module.name)):
                assert "<math" in str(dialect.to_html(formula)), (module.name, formula)
