"""Certificates from strangers: refused in one line, or shown; nothing of them runs, nothing leaves the folder."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from klsim.claims import Identity, Paper, verify
from klsim.claims import certificate as certificates
from klsim.report.html import write_report
from klsim.spaces import Floats, Space
from tests.report.chromium import CHROMIUM, in_chromium

RUN = "console.log('RAN')"
MARKUP = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<mark autofocus tabindex=0 onfocus={RUN}>",
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    f"</title><script>{RUN}</script>",
    f'" autofocus onfocus="{RUN}" x="',
    f"' onmouseover='{RUN}",
    f"<!--><script>{RUN}</script>",
    f"{{{{ ''.__class__ }}}}{{% raw %}}<script>{RUN}</script>",
    f"<a href='javascript:{RUN}'>x</a>",
    f"<math><maction actiontype=statusline xlink:href='javascript:{RUN}'>x</maction></math>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<base href='https://example.com/'>",
    f"\x00<script\x0b>{RUN}</script>",
)
LATEX = (
    *(rf"$\text{{{m}}}$" for m in MARKUP),
    *(f"$${m}$$" for m in MARKUP[:6]),
    rf"$\href{{javascript:{RUN}}}{{x}}$",
    rf"$\style{{background:url(javascript:{RUN})}}{{x}}$",
    rf'$\class{{x" autofocus onfocus="{RUN}}}{{x}}$',
    rf'$\id{{x" autofocus onfocus="{RUN}}}{{x}}$',
    rf'$\color{{red" onclick="{RUN}}}{{x}}$',
    rf"$\text{{</mtext></math><script>{RUN}</script>}}$",
    rf"$\text{{<annotation-xml encoding='text/html'><script>{RUN}</script></annotation-xml>}}$",
    rf"`<script>{RUN}</script>` *<script>{RUN}</script>*",
    f"[x](javascript:{RUN}) ![x](javascript:{RUN}) <javascript:{RUN}>",
)
NAMES = (
    "../evil",
    "..",
    "/tmp/evil",
    "a/../../evil",
    "evil\n",
    "EVIL",
    "index",
    "findings",
    "audit",
    "a\\b",
    "",
    "C:evil",
    "con%00",
)
VALUES = (None, [], {}, "text", -1, 1.5, True, 10**400, 1e308, "\ud800", ["x"] * 3, {"x": None})


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, Any]:
    paper = Paper("toy", title="Toy", authors="A. Author", year=2026, arxiv="0000.00000")
    claim = paper.claim("C1", "squares\n\n$x^2 = x x$\n\nwhere: Eq. 1\nassumes: x real")

    @claim.check(Identity(), Space(x=Floats(0, 1)), false={"cubes": {"power": 3}})
    def square(x, *, power=2):
        return x**power, x * x

    false = paper.claim("C2", "doubled\n\n$x = 2x$", expect="refuted", correction="only $x = 0$", correction_by="C1")

    @false.check(Identity(), Space(x=Floats(0, 1)), true={"x = 1 x": {"factor": 1}})
    def doubled(x, *, factor=2):
        return x, factor * x

    file = tmp_path_factory.mktemp("honest") / "c.json"
    certificates.write(verify(paper, examples=5), file)
    return json.loads(file.read_text())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place of a JSON value: its path and what is there."""
    if path:
        yield path, value
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in below:
        yield from leaves(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value (or none: the function ``del``) at a path."""
    made = copy.deepcopy(value)
    at = made
    for key in path[:-1]:
        at = at[key]
    if new is dict.pop:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return made


def corpus(honest: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Hostile texts in every text, every field deleted, and values of other types everywhere."""
    texts, others = itertools.cycle(LATEX + MARKUP), itertools.cycle(VALUES)
    for path, value in leaves(honest):
        name = "/".join(map(str, path))
        if isinstance(value, str):
            yield f"{name}: text", changed(honest, path, next(texts))
        yield f"{name}: deleted", changed(honest, path, dict.pop)
        yield f"{name}: type", changed(honest, path, next(others))
    for text in LATEX + MARKUP:
        for field in ("statement", "correction", "title"):
            yield f"claim {field}", changed(honest, ("papers", 0, "claims", 1, field), text)
    for name in NAMES:
        yield f"slug {name!r}", changed(honest, ("papers", 0, "slug"), name)
        yield f"claim id {name!r}", changed(honest, ("papers", 0, "claims", 0, "id"), name)
        yield f"folder {name!r}", changed(honest, ("papers", 0, "folder"), name)
    yield "a paper twice", changed(honest, ("papers",), honest["papers"] * 2)


def written(certificate: Any, folder: Path) -> Path | None:
    """The folder of the report; None where the certificate is refused, in one line that names it."""
    file = folder / "c.json"
    file.write_text(json.dumps(certificate))
    (folder / "beside").mkdir()
    try:
        read = certificates.read(file)
    except ValueError as refused:
        message = str(refused)
        assert message.startswith(f"{file}: ")
        assert len(message.splitlines()) == 1
        return None
    write_report(read, figures=folder / "beside", out=folder / "out" / "report")
    assert {p.name for p in folder.iterdir()} == {"c.json", "beside", "out"}
    assert [p.name for p in (folder / "out").iterdir()] == ["report"]
    return folder / "out" / "report"


@pytest.fixture(scope="module")
def reports(honest, tmp_path_factory) -> tuple[list[Path], int]:
    """Reports of the corpus, and how many certificates were refused."""
    folders = []
    for number, (_, certificate) in enumerate(corpus(honest)):
        folder = tmp_path_factory.mktemp(f"hostile{number}")
        folders.append(written(certificate, folder))
    return [f for f in folders if f is not None], folders.count(None)


class Page(HTMLParser):
    """What of a page could run or load: attributes of every element, and the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)


def test_the_corpus_is_large_and_both_refused_and_shown(reports):
    shown, refused = reports
    assert len(shown) + refused >= 200
    assert len(shown) >= 100
    assert refused >= 100


def test_an_honest_certificate_is_read(honest, tmp_path):
    assert written(honest, tmp_path) is not None


def test_no_page_has_anything_that_runs_loads_or_leaves(reports):
    shown, _ = reports
    templates = Path(certificates.__file__).parents[1] / "report" / "templates"
    own = {file.read_text() for file in templates.glob("*.js")}
    allowed = {
        "html", "head", "meta", "link", "title", "style", "script", "body", "header", "div", "strong",
        "nav", "a", "button", "main", "h1", "h2", "h3", "h4", "p", "b", "em", "code", "pre", "span",
        "section", "dl", "dt", "dd", "ul", "li", "details", "summary", "table", "thead", "tbody", "tr",
        "th", "td", "br", "figure", "figcaption", "img", "input", "footer", "math", "mrow", "mi", "mo",
        "mn", "mtext", "mspace", "msub", "msup", "mfrac", "mstyle",
    }  # fmt: skip
    for page in itertools.chain.from_iterable(folder.glob("*.html") for folder in shown):
        read = Page(page.read_text(encoding="utf-8"))
        assert {tag for tag, _ in read.elements} <= allowed, page
        assert set(read.scripts) <= own, page
        for tag, attributes in read.elements:
            assert not any(name.startswith("on") for name in attributes), (page, tag, attributes)
            assert tag != "meta" or attributes.get("http-equiv", "") in ("", "Content-Security-Policy")
            for name in ("href", "src", "action", "srcdoc", "xlink:href"):
                address = attributes.get(name, "")
                assert re.match(r"(https://arxiv\.org/abs/|data:,$|[\w.#/%-]*$)", address), (page, tag, address)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
@pytest.mark.parametrize("policy", [True, False])
def test_nothing_runs_in_a_browser(reports, tmp_path, policy):
    """With the content security policy, and without it: escaping alone is enough. The detector is seen to work."""
    shown, _ = reports
    pages = sorted({page for folder in shown for page in folder.glob("*.html")})
    if not policy:
        for page in pages:
            text = page.read_text(encoding="utf-8")
            page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), encoding="utf-8")
    bait = tmp_path / "bait.html"
    bait.write_text("<img src=x onerror=\"console.log('BAIT')\">")
    for number, chunk in enumerate(pages[i : i + 40] for i in range(0, len(pages), 40)):
        frames = "".join(f'<iframe src="{page.as_uri()}"></iframe>' for page in (*chunk, bait))
        harness = tmp_path / f"harness{number}.html"
        harness.write_text(f"<!doctype html><body>{frames}</body>")
        console = in_chromium(harness, tmp_path / "profile", 10_000).stderr
        assert "BAIT" in console
        assert "RAN" not in re.sub(r"Refused to [^\n]*", "", console)
