"""The project's own papers: complete folders, LaTeX that converts, controls on every claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from klsim.claims import select
from klsim.report.figures import figure_set
from klsim.report.prose import to_html

ROOT = Path(__file__).parents[2]
SELECTIONS = select([str(ROOT / "papers")])
CLAIMS = [c for s in SELECTIONS for c in s.claims]


@pytest.mark.parametrize("chosen", SELECTIONS, ids=lambda s: s.paper.slug)
def test_a_paper_is_three_files_with_its_figures_kept(chosen):
    figures = figure_set(chosen.folder)
    readme = (chosen.folder / "README.md").read_text()
    for name, figure in figures.by_name.items():
        for full in (False, True) if figure.has_full else (False,):
            kept = ROOT / "figures" / chosen.paper.slug / ("full" if full else "")
            assert (kept / f"{name}.svg").is_file()
            assert (kept / f"{name}.csv").is_file()
            assert f"figures/{chosen.paper.slug}/{'full/' if full else ''}{name}.svg" in readme


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.full_id)
def test_every_claim_is_stated_placed_and_controlled(claim):
    said = claim.statement
    assert said.text
    assert said.where or said.origin == "derived"
    assert all(check.controls or check.uncontrolled for check in claim.checks)
    for text in (said.text, said.instead, said.assumes):
        assert 'class="latex"' not in to_html(text), text


def test_at_most_five_checks_have_no_control():
    assert sum(bool(check.uncontrolled) for claim in CLAIMS for check in claim.checks) <= 5


def test_no_check_builds_its_instance_from_a_seed_alone():
    from klsim.spaces import Seeds

    for claim in CLAIMS:
        for check in claim.checks:
            fields = check.space.fields.values() if check.space is not None else ()
            drawn = [field for field in fields if not isinstance(field, Seeds)]  # a run of an algorithm has a seed too
            assert drawn or not fields, f"{claim.full_id}/{check.name}"
