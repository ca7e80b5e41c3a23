"""Checks are broken when they are false, shrunk when broken, and the same for any process."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.claims import Effect, Identity, Inequality, Paper, Symbolic, verify
from klsim.claims.certificate import comparable
from klsim.claims.instances import as_python, decode, encode
from klsim.claims.outcome import Strength
from klsim.claims.search import run
from klsim.spaces import Floats, Integers, Policies, Space


def kl(log_p, log_q):
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def toy() -> Paper:
    paper = Paper("toy", title="A toy")
    space = Space(log_p=Policies(), log_q=Policies())
    claim = paper.claim("C1", "KL is non-negative")

    @claim.check(Inequality(1e-9, scale=1), space)
    def non_negative(log_p, log_q):
        return 0 * log_p[..., 0], kl(log_p, log_q)

    @non_negative.control("KL is at least 1")
    def too_much(log_p, log_q):
        return 0 * log_p[..., 0] + 1, kl(log_p, log_q)

    return paper


def test_a_true_claim_with_a_refuted_control_is_as_expected():
    certificate = verify(toy())
    (claim,) = certificate["papers"][0]["claims"]
    assert claim["verdict"] == "holds"
    assert claim["as_expected"]
    assert claim["checks"][0]["library"] == []
    assert claim["checks"][0]["controls"][0]["verdict"] == "refuted"
    assert claim["checks"][0]["instances"]["bulk"] == 10_000


def test_a_claim_whose_control_survives_is_vacuous():
    paper = toy()

    @paper.claims["C1"].checks[0].control("KL is at least -1")
    def too_little(log_p, log_q):
        return 0 * log_p[..., 0] - 1, kl(log_p, log_q)

    claim = verify(paper)["papers"][0]["claims"][0]
    assert claim["verdict"] == "holds"
    assert "'KL is at least -1' is not told apart: holds" in claim["vacuous"][0]
    assert not claim["as_expected"]


def test_a_claim_without_a_control_is_vacuous():
    paper = Paper("bare", title="x")

    @paper.claim("C1", "x").check(Identity(), Space(x=Floats(0, 1)))
    def same(x):
        return x, x

    assert verify(paper)["papers"][0]["claims"][0]["vacuous"]


def test_a_false_claim_is_shrunk_to_a_minimal_instance():
    paper = Paper("false", title="x")

    @paper.claim("C1", "integers are below 17").check(Inequality(), Space(n=Integers(0, 1000)))
    def below(n):
        return n, 16 + 0 * np.asarray(n)

    outcome = run(paper.claims["C1"].checks[0], "false/C1/below", 0, Strength())
    assert outcome.verdict == "refuted"
    assert decode(outcome.instance["n"]) == 17


def test_a_statement_that_is_false_as_printed_needs_a_control_that_holds():
    paper = Paper("printed", title="x")
    with pytest.raises(ValueError, match="correction"):
        paper.claim("C0", "x", expect="refuted")
    claim = paper.claim("C1", "x^2 >= x", expect="refuted", correction="for x >= 1")

    @claim.check(Inequality(), Space(x=Floats(0.0, 3.0)))
    def square(x):
        return x, x**2

    @square.control("x^2 >= x for x >= 1", space=Space(x=Floats(1.0, 3.0)))
    def corrected(x):
        return x, x**2

    record = verify(paper)["papers"][0]["claims"][0]
    assert record["verdict"] == "refuted"
    assert record["as_expected"]


def test_an_exception_in_a_check_is_reported_with_its_instance():
    paper = Paper("broken", title="x")

    @paper.claim("C1", "x").check(Identity(), Space(n=Integers(0, 100)))
    def divides(n):
        if np.ndim(n) == 0 and n > 5:
            raise ZeroDivisionError("no")
        return n, n

    record = verify(paper)["papers"][0]["claims"][0]
    assert record["verdict"] == "error"
    assert "ZeroDivisionError" in record["checks"][0]["error"]
    assert not record["as_expected"]


def test_effects_get_one_stream_a_seed_and_controls_of_effects_may_be_not_shown():
    paper = Paper("effects", title="x")

    @paper.claim("C1", "x").check(Effect(seeds=30))
    def grows(rng):
        return 1.0 + rng.standard_normal()

    @grows.control("noise grows")
    def noise(rng):
        return rng.standard_normal()

    first, again = verify(paper), verify(paper)
    assert first["as_expected"]
    assert comparable(first) == comparable(again)
    assert comparable(first) != comparable(verify(paper, seed=1))


def test_symbolic_checks_take_no_arguments():
    import sympy

    paper = Paper("symbols", title="x")
    x = sympy.Symbol("x", positive=True)

    @paper.claim("C1", "x").check(Symbolic())
    def identity():
        return sympy.log(x**2) - 2 * sympy.log(x)

    @identity.control("log x^2 = 3 log x")
    def wrong():
        return sympy.log(x**2) - 3 * sympy.log(x)

    assert verify(paper)["as_expected"]


def test_examples_come_first_and_controls_may_have_their_own():
    paper = Paper("examples", title="x")
    seen = []

    @paper.claim("C1", "x").check(Identity(), Space(n=Integers(0, 3)), examples=[{"n": 99}])
    def same(n):
        seen.append(n)
        return n, n

    @same.control("n = 5", examples=[{"n": 5}, {"n": 6}])
    def five(n):
        return n, 5

    assert verify(paper)["as_expected"]
    assert seen[0] == 99


@pytest.mark.parametrize("bad", [{"seed": -1}, {"examples": 0}])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        verify(toy(), **bad)


@pytest.mark.parametrize(
    "value",
    [3, 2.5, -np.inf, True, "text", np.array([0.1, -np.inf]), np.array([[1, 2], [3, 4]]), np.array([True, False]),
     (np.zeros((1, 2)), np.ones((2, 2)))],
)  # fmt: skip
def test_instances_survive_json_and_python_to_the_bit(value):
    import json

    through_json = decode(json.loads(json.dumps(encode(value))))
    through_python = eval(as_python(value), {"np": np})  # our own output
    for copy in (through_json, through_python):
        assert type(copy) is type(value)
        np.testing.assert_equal(copy, value)


def test_log_probabilities_print_as_probabilities_when_exact():
    assert as_python(np.log([0.25, 0.75])) == "np.log([0.25, 0.75])"


HOSTILE = [
    {"array": "object", "shape": [1], "values": [1]},
    {"array": "float64", "shape": ["x"], "values": [1]},
    {"problem": "os", "fields": {}},
    {"nothing": 1},
    [1],
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_decoding_refuses_everything_else(hostile):
    with pytest.raises(ValueError):
        decode(hostile)


def test_a_check_can_be_run_under_a_profiler_that_is_written_in_c():
    import cProfile

    paper = Paper("profiled", title="p")
    claim = paper.claim("C1", "t\n\ns")

    @claim.check(Identity(1e-12), Space(x=Floats(0.0, 1.0)), instances=10, false={"twice": {"factor": 2}})
    def same(x, *, factor=1):
        return factor * x + 1.0, x + 1.0

    profiler = cProfile.Profile()
    profiler.enable()
    try:
        outcome = run(claim.checks[0], "profiled/C1/same", 0, Strength.of(10))
    finally:
        profiler.disable()
    assert outcome.verdict == "holds"


def test_kernels_run_on_one_thread_inside_a_check_and_as_before_outside():
    numba = pytest.importorskip("numba")
    paper, before, seen = Paper("threads", title="Threads"), numba.get_num_threads(), []
    claim = paper.claim("C1", "One thread")

    @claim.check(Identity(), Space(x=Floats(0.0, 1.0)), batched=False, instances=3, false={"shifted": {"shift": 1.0}})
    def same(x, *, shift=0.0):
        seen.append(numba.get_num_threads())
        return x, x + shift

    verify(paper)
    assert set(seen) == {1}
    assert numba.get_num_threads() == before
