"""Planted formulas: their law, their numbers of solutions, verifiers, majorities; text and arrays agree."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from klsim.problems import satisfiability as sat


def clauses_of(n, k):
    pairs = itertools.product(itertools.combinations(range(k), n), itertools.product([False, True], repeat=n))
    return [tuple(zip(variables, signs)) for variables, signs in pairs]


def counts_by_enumeration(n, k, l):  # noqa: E741
    """Solutions of all sets of l clauses that 0…0 satisfies."""
    planted = [c for c in clauses_of(n, k) if sat.satisfies([c], "0" * k)]
    return [sat.count_solutions(chosen, k) for chosen in itertools.combinations(planted, l)]


@pytest.mark.parametrize("level", [(1, 3, 2), (2, 3, 3), (2, 4, 2), (3, 3, 4), (3, 4, 2)])
def test_moments_are_means_over_all_formulas(level):
    counts = counts_by_enumeration(*level)
    assert sat.expected_solutions(*level) == Fraction(sum(counts), len(counts))
    for order in (1, 2, 3):
        assert sat.solution_moment(*level, order) == Fraction(sum(c**order for c in counts), len(counts))
    for attempts in (1, 2, 3):
        exact = Fraction(sum(1 - (1 - Fraction(c, 2 ** level[1])) ** attempts for c in counts), len(counts))
        assert sat.guess_pass_at_k(*level, attempts) == exact


def test_several_guesses_do_worse_than_independent_ones():
    p0 = sat.guess_probability(3, 7, 40)
    assert sat.guess_pass_at_k(3, 7, 40, 1) == p0
    assert float(sat.guess_pass_at_k(3, 7, 40, 3)) == pytest.approx(0.04155292965558051, rel=1e-12)
    assert sat.guess_pass_at_k(3, 7, 40, 3) < 1 - (1 - p0) ** 3


def test_drawn_formulas_have_distinct_clauses_that_the_solution_satisfies():
    for level in [(1, 1, 1), (3, 5, 70), (2, 6, 20), (4, 4, 15), (3, 18, 95)]:
        f = sat.planted_formulas(*level, 30, 3)
        assert len(f) == 30
        assert f.satisfied(f.solutions[:, None]).all()
        for i in range(len(f)):
            clauses = f.clauses(i)
            assert len(set(clauses)) == level[2]
            assert all([v for v, _ in c] == sorted({v for v, _ in c}) for c in clauses)


def test_drawn_formulas_follow_the_law():
    f = sat.planted_formulas(2, 3, 3, 20_000, 0)
    seen = Counter(sat.clauses_text(sorted(f.clauses(i))) for i in range(len(f)))
    formulas = list(itertools.combinations(sorted(clauses_of(2, 3)), 3))
    law = [float(sat.formula_probability(formula, 3)) for formula in formulas]
    counts = np.array([seen[sat.clauses_text(formula)] for formula in formulas])
    assert counts.sum() == 20_000
    assert stats.chisquare(counts, 20_000 * np.array(law)).pvalue > 1e-3
    assert stats.chisquare(counts).pvalue < 1e-40  # not uniform


def test_arrays_agree_with_text():
    f = sat.planted_formulas(3, 5, 12, 10, 1)
    points = np.array(list(itertools.product((0, 1), repeat=5)))
    right = f.satisfied(np.tile(points, (10, 1, 1)))
    for i in range(10):
        clauses, text = f.clauses(i), sat.clauses_text(f.clauses(i))
        assert f.count()[i] == sat.count_solutions(clauses, 5) == right[i].sum()
        for y, found in zip(points, right[i]):
            bits = "".join(map(str, y))
            assert found == sat.satisfies(clauses, bits) == sat.answer_reward(bits, text, 5, boxed=False)


def test_votes_of_literals_by_hand():
    #  A or not B; A or B; not A or not C
    f = sat.Formulas([[[0, 1], [0, 1], [0, 2]]], [[[True, False], [True, True], [False, False]]], 4)
    votes, degrees, needed = f.literal_votes()
    np.testing.assert_array_equal(votes, [[1, 0, -1, 0]])
    np.testing.assert_array_equal(degrees, [[3, 2, 1, 0]])
    one = 1 / (1 + np.exp(-votes[0]))
    weights = [one[1], 1 - one[1], one[2]]  # the other literal is false
    np.testing.assert_allclose(needed, [[(weights[0] + weights[1] - weights[2]) / sum(weights), 0, -1, 0]], atol=1e-15)
    np.testing.assert_array_equal(f.majority(), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(f.majority(ties=1), [[1, 1, 0, 1]])


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 4), (3, 5), (4, 4)])
def test_the_majority_is_certain_from_that_number_of_clauses(n, k):
    least = sat.majority_certain_from(n, k)
    f = sat.planted_formulas(n, k, least, 200, 2)
    np.testing.assert_array_equal(f.majority(), f.solutions)
    if least > 1:  # without the clauses that agree most with variable 0, one fewer gives a tie
        clauses = [sat.planted_clause(i, "1" * k, n) for i in range(sat.clause_count(n, k))]
        kept = sorted(clauses, key=lambda c: dict(c).get(0, False))[: least - 1]
        pairs = np.array(kept).reshape(1, -1, n, 2)
        assert sat.Formulas(pairs[..., 0], pairs[..., 1].astype(bool), k).literal_votes()[0][0, 0] == 0


def test_the_score_is_the_papers():
    assert sat.difficulty(3, 7, 40) == pytest.approx(math.log2(7) + 2 * math.log2(40) - 3 + 7 / 3)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("010", -1), (r"\boxed{010}", 1), (r"\boxed{100} \boxed{010}", 1), (r"\boxed{010} \boxed{100}", 0), (r"\boxed{}", 0), (r"\boxed{0100}", 0)],
)  # fmt: skip
def test_rewards(completion, reward):
    assert sat.answer_reward(completion, "AB & !AC", 3) == reward


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sat.planted_formulas(3, 5, 71, 1, 0), "l = 71: must be <= 70"),
        (lambda: sat.planted_formulas(13, 26, 5, 1, 0), r"n = 13: has more than 10\^6 subsets"),
        (lambda: sat.planted_formulas(3, 5, 5, -1, 0), "size = -1: must be >= 0"),
        (lambda: sat.solution_moment(3, 26, 9, 4), r"order = 4: has more than 10\^6 terms"),
        (lambda: sat.solution_moment(3, 5, 5, 0), "order = 0: must be >= 1"),
        (lambda: sat.guess_pass_at_k(3, 5, 5, 0), "attempts = 0: must be >= 1"),
        (lambda: sat.majority_certain_from(4, 3), "n = 4: must be <= 3"),
        (lambda: sat.Formulas([[0, 1]], [[True, True]], 2), r"variables: must have shape \(N, l, n\)"),
        (lambda: sat.Formulas([[[0, 2]]], [[[True, True]]], 2), "variables"),
        (lambda: sat.Formulas([[[0, 1]]], [[[True]]], 2), "signs"),
        (lambda: sat.Formulas([[[0, 1]]], [[[True, True]]], 2, [[0]]), r"solutions: must have shape \(1, 2\)"),
        (lambda: sat.planted_formulas(1, 2, 1, 1, 0).satisfied([[[0, 1, 1]]]), r"answers: must have shape \(1, G, 2\)"),
        (lambda: sat.planted_formulas(1, 25, 1, 1, 0).count(), "k = 25: must be <= 24"),
        (lambda: sat.planted_formulas(1, 2, 1, 1, 0).majority(ties=2), "ties = 2: must be <= 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_moments_of_a_million_terms_are_computed(monkeypatch):
    """``C(k + 2^r - 1, k)`` terms: 170,544 and 245,157 for the third moment of 15 and 16 variables."""
    counted = []
    monkeypatch.setattr(sat, "_compositions", lambda k, parts: counted.append(math.comb(k + parts - 1, k)) or [])
    for k in (15, 16, 20, 21):
        try:
            sat.solution_moment(1, k, 1, 3)
        except ValueError:
            counted.append(None)
    assert counted == [170544, 245157, 888030, None]
