"""Proofs on boxes: what holds is proven, what fails is refuted at a point, an equality inside is not shown."""

from __future__ import annotations

import numpy as np
import pytest

flint = pytest.importorskip("flint")

from klsim.claims import DefinitionError, Inequality, Paper, Proven, verify  # noqa: E402
from klsim.spaces import Floats, Space  # noqa: E402


def verdict(box, check, **options):
    paper = Paper("p", title="P")
    claim = paper.claim("C1", "a bound")
    claim.check(Proven(box, **options), uncontrolled="a test of the kind")(check)
    (found,) = verify(paper, examples=1)["papers"][0]["claims"][0]["checks"]
    return found


def test_a_bound_that_holds_everywhere_is_proven():
    found = verdict({"x": (0.1, 4.0), "y": (0.0, 1.0)}, lambda x, y: (x.log() + y * y / 2, x))
    assert found["verdict"] == "holds"
    assert found["summary"].startswith("proven on the box, ")
    assert found["instances"] == {"boxes": found["measured"]["boxes"]}


def test_one_point_where_it_fails_is_found_however_small_the_place():
    found = verdict({"x": (0.0, 1.0)}, lambda x: (-((x - 0.7071) ** 2), 1e-6 * x - 1e-6))
    assert found["verdict"] == "refuted"
    assert abs(found["measured"]["point"]["x"] - 0.7071) < 1e-3


def test_equality_inside_the_box_is_not_decided():
    found = verdict({"x": (-1.0, 2.0)}, lambda x: (0, x * x), boxes=500)
    assert found["verdict"] == "not_shown"
    assert "undecided after 500" in found["summary"]


def test_every_part_is_proven():
    found = verdict({"x": (1.0, 2.0)}, lambda x: {"fine": (x, 3), "not": (x, 1.5)})
    assert found["verdict"] == "refuted"
    assert found["part"] == "not"


def test_slopes_close_boxes_that_balls_leave_open():
    """Balls forget that both sides move together: they need boxes as small as the margin, slopes their square root."""

    def near(x, *, size=lambda b: b):
        return size(x.exp() * (1 - x) + x), size(x + x.exp() * (1 - x) + 1e-2)

    def slopeless(x):
        return near(x, size=lambda b: b + abs(x) * 0)  # a power series has no absolute value

    quick, slow = verdict({"x": (0.0, 2.0)}, near), verdict({"x": (0.0, 2.0)}, slopeless)
    assert quick["verdict"] == slow["verdict"] == "holds"
    assert quick["measured"]["boxes"] * 10 < slow["measured"]["boxes"]


def test_slopes_prove_nothing_that_is_false():
    """A maximum in the middle of the box, just above the bound."""
    found = verdict({"x": (0.0, 1.0)}, lambda x: (x * (1 - x), 0.25 - 1e-9))
    assert found["verdict"] == "refuted"
    assert verdict({"x": (0.0, 1.0)}, lambda x: (x * (1 - x), 0.25 + 1e-9))["verdict"] == "holds"


def test_it_is_called_proven_where_results_are_shown(tmp_path):
    from klsim.report.html import write_report
    from klsim.report.verdicts import word_of

    paper = Paper("p", title="P")
    proof = paper.claim("C1", "a bound")
    proof.check(Proven({"x": (0.25, 4.0)}), uncontrolled="a test of the page")(lambda x: (x.log(), x))
    mixed = paper.claim("C2", "a bound and an instance")
    mixed.check(Proven({"x": (0.25, 4.0)}), uncontrolled="a test of the page")(lambda x: (x.log(), x))

    @mixed.check(Inequality(), Space(x=Floats(0.25, 4.0)), uncontrolled="a test of the page")
    def of_floats(x):
        return np.log(x), x

    certificate = verify(paper, examples=20)
    first, second = certificate["papers"][0]["claims"]
    assert (first["verdict"], word_of(first), word_of(first["checks"][0])) == ("holds", "proven", "proven")
    assert (word_of(second), [word_of(c) for c in second["checks"]]) == ("holds", ["proven", "holds"])
    assert first["checks"][0]["summary"].startswith("proven on the box")
    write_report(certificate, figures=tmp_path, out=tmp_path / "out")
    page = (tmp_path / "out" / "p.html").read_text(encoding="utf-8")
    assert "✓ proven" in page
    assert "0.25 &lt;= x &lt;= 4" in page


@pytest.mark.parametrize("box", [{}, {"x": (1.0, 1.0)}, {"x": (2.0, 1.0)}, {"x": (0.0, float("nan"))}])
def test_bad_boxes(box):
    with pytest.raises(ValueError, match="box"):
        Proven(box)


def test_arguments_are_the_sides_of_the_box():
    with pytest.raises(DefinitionError, match="nothing gives the argument 'z'"):
        verdict({"x": (0.0, 1.0)}, lambda z: (z, 1))
    found = verdict({"x": (0.0, 1.0)}, lambda x: x)
    assert found["verdict"] == "error"
    assert "a proof returns (lhs, rhs)" in found["error"]
