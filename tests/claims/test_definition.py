"""Mistakes of an author of claims are told where they are made."""

from __future__ import annotations

import textwrap

import pytest

from klsim.claims import DefinitionError, Effect, Identity, Inequality, Limit, LoadError, Paper, Variant, select, verify
from klsim.claims.statement import parse
from klsim.spaces import Floats, Policies, Space

X = Space(x=Floats(0, 1))


def claim(text="A claim", **options):
    return Paper("p", title="x").claim("C1", text, **options)


def test_a_statement_is_one_text():
    said = parse(r"""
        A title
          over one line

        Some $x^2$ and
        $$y$$

        where: Eq. 3
        assumes: full
            support
        instead: The other
        by: C2, C3/check
        origin: as commonly read
        """)
    assert said.title == "A title"
    assert said.text == "over one line Some $x^2$ and $$y$$"
    assert (said.where, said.assumes, said.instead) == ("Eq. 3", "full support", "The other")
    assert said.by == ("C2", "C3/check")
    assert said.origin == "as commonly read"


def test_only_what_has_a_place_in_the_paper_is_printed():
    assert parse("t\n\nwhere: Theorem 1").origin == "printed"
    assert parse("t").origin == parse("t\n\nwhere: derived; not in the paper").origin == "derived"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "title line"),
        ("t\n\norigin: rumour", "printed, as commonly read"),
        ("t\n\nwhere: a\nwhere: b", "twice"),
        ("t\n\nassume: a", "did you mean 'assumes:'"),
    ],
)
def test_a_malformed_statement_says_what_is_wrong(text, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        claim(text)
    assert "test_definition.py:" in str(caught.value)


def test_what_holds_instead_makes_a_claim_expected_to_be_refuted():
    assert claim("t\n\ninstead: other").expect == "refuted"
    assert claim("t").expect == "holds"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: claim(expect="refutd"), "did you mean 'refuted'"),
        (lambda: claim(expect="refuted"), "what holds instead"),
        (lambda: claim().check(lambda x: x), "write @….check"),
        (lambda: claim().check(Identity, X), "Identity needs parentheses"),
        (lambda: claim().check(X, Identity()), "swapped"),
        (lambda: claim().check(Identity(), {"x": Floats(0, 1)}), r"put the fields into Space"),
        (lambda: claim().check(Effect(), X), "draws from rng"),
        (lambda: claim().check(Limit(rate=1), X), "draws from rng"),
        (lambda: claim().check(Identity(), X)(lambda y: (y, y)), "no field 'y'"),
        (lambda: claim().check(Identity(), Space(x=Floats(0, 1), log_p=Policies()))(lambda x: (x, x)), "uses the field 'log_p'"),
        (lambda: claim().check(Identity(), Space(reward=Floats(0, 1)))(lambda rewrad: (1, 1)), "did you mean 'reward'"),
        (lambda: claim().check(Identity(), X, true={"a": {"b": 1}}), r"give false"),
        (lambda: claim("t\n\ninstead: u").check(Identity(), X, false={"a": {"b": 1}}), r"give true"),
        (lambda: claim().check(Identity(), X, false={"a": {}})(lambda x: (x, x)), "needs parameters"),
        (lambda: claim().check(Identity(), X, false={"a": {"sgn": 1}})(lambda x, *, sign=1: (x, x)), "did you mean 'sign'"),
        (lambda: claim().check(Identity(), X, false={"a": {"x": 1}})(lambda x: (x, x)), "keyword-only"),
        (lambda: claim().check(Effect())(lambda seed: 1.0), "takes rng"),
        (lambda: Paper("Not A Slug", title="x"), "slug"),
    ],
)  # fmt: skip
def test_mistakes_name_the_line_and_the_remedy(make, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        make()
    assert "test_definition.py:" in str(caught.value)


def test_fields_that_a_predicate_or_a_like_names_are_used():
    space = Space(x=Floats(0, 1), y=Floats(0, 1), where=lambda x, y: x < y)
    claim().check(Identity(), space)(lambda x: (x, x))
    like = Space(log_ref=Policies(zero_support=True), log_p=Policies(like="log_ref"))
    claim().check(Identity(), like)(lambda log_p: (log_p, log_p))


def test_a_variant_may_change_the_space():
    paper = Paper("p", title="x")
    wide = Variant({"power": 2}, space=Space(x=Floats(0, 3)))

    @paper.claim("C1", "x").check(Inequality(), X, false={"beyond one": wide})
    def square(x, *, power=2):
        return x**power, x

    record = verify(paper)["papers"][0]["claims"][0]
    assert record["as_expected"]
    (control,) = record["checks"][0]["controls"]
    assert control["variant"] == {"power": "2"}
    assert "Floats(low=0, high=3" in control["space"]


def test_effects_take_one_generator_or_all():
    paper = Paper("p", title="x")
    up = paper.claim("C1", "x")

    @up.check(Effect(seeds=30), false={"down": {"sign": -1}})
    def one(rng, *, sign=1):
        return sign + rng.standard_normal() / 10

    @up.check(Effect(seeds=30), false={"down": {"sign": -1}})
    def every(rngs, *, sign=1):
        return [sign + rng.standard_normal() / 10 for rng in rngs]

    assert verify(paper)["as_expected"]


CLAIMS = """
    from klsim.claims import Identity, Paper
    from klsim.spaces import Floats, Space
    paper = Paper("p", title="x")
    C1 = paper.claim("C1", '''x{by}''')

    @C1.check(Identity(), Space(x=Floats(0, 1)){control})
    def same(x, *, more=0):
        return x, x + more
"""


def load(tmp_path, **parts):
    (tmp_path / "claims.py").write_text(textwrap.dedent(CLAIMS).format(**{"by": "", "control": "", **parts}))
    return select([str(tmp_path / "claims.py")])


def test_a_check_without_a_control_is_refused_at_load(tmp_path):
    with pytest.raises(LoadError, match=r"claims\.py:5: p/C1 check 'same' has no control"):
        load(tmp_path)


def test_unless_it_says_why(tmp_path):
    (chosen,) = load(tmp_path, control=", uncontrolled='an equality of definitions'")
    record = verify(chosen.paper)
    assert record["as_expected"]
    assert record["totals"]["uncontrolled"] == 1


def test_what_shows_a_correction_must_exist(tmp_path):
    with pytest.raises(LoadError, match="'C9', which the paper does not define"):
        load(tmp_path, by="\n\ninstead: y\nby: C9", control=", true={'z': {'more': 0}}")


def test_an_exception_shows_the_authors_frames_only(tmp_path):
    text = textwrap.dedent(CLAIMS).format(by="", control=", false={'a': {'more': 1}}")
    text = text.replace("return x, x + more", "return helper(x), x\n\ndef helper(x):\n    raise ValueError('inside')")
    (tmp_path / "claims.py").write_text(text)
    (record,) = verify(str(tmp_path / "claims.py"))["papers"][0]["claims"]
    trace = record["checks"][0]["error"]
    assert trace.count("File ") == trace.count("claims.py") == 2
    assert "in helper" in trace
