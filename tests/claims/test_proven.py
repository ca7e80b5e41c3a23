"""Proofs on boxes: what holds is proven, what fails is refuted at a point, an equality inside is not shown."""

from __future__ import annotations

import pytest

flint = pytest.importorskip("flint")

from klsim.claims import DefinitionError, Paper, Proven, verify  # noqa: E402


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
