"""The checks for extensions: what they accept, and that each part of a contract can fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from klsim.divergences import GENERATORS, Generator
from klsim.planning import Evaluation, Solution, evaluate, solve
from klsim.problems import Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.testing import check_generator, check_objective, check_problem

KL = GENERATORS["kl"]


@pytest.mark.parametrize("name", GENERATORS)
def test_klsims_generators_keep_their_contract(name):
    check_generator(GENERATORS[name])


@dataclass(frozen=True)
class Changed(Generator):
    """KL with one method or attribute changed."""

    name: str = "changed"
    at_zero: float = 1.0
    slope_at_zero: float = -np.inf
    recession: float = np.inf
    curvature: float = 1.0
    change: str = ""

    def derivative(self, t):
        return KL.derivative(t) * (1.1 if self.change == "derivative" else 1.0)

    def inverse_derivative(self, y):
        return KL.inverse_derivative(y) + (0.01 if self.change == "inverse_derivative" else 0.0)

    def conjugate(self, y, lower=0.0):
        return KL.conjugate(y, lower) * (1.001 if self.change == "conjugate" else 1.0)

    def term(self, xp, log_p, log_q):
        return KL.term(xp, log_p, log_q) * (1.001 if self.change == "term" else 1.0)

    def log_ratio_below(self, xp, log_top, drop):
        return KL.log_ratio_below(xp, log_top, drop * (1.1 if self.change == "log_ratio_below" else 1.0))


def test_the_unchanged_one_passes():
    check_generator(Changed())


@pytest.mark.parametrize("change", ["derivative", "inverse_derivative", "conjugate", "term", "log_ratio_below"])
def test_a_wrong_method_is_noticed(change):
    with pytest.raises(AssertionError, match="changed"):
        check_generator(Changed(change=change))


@pytest.mark.parametrize(
    "attribute", [{"at_zero": 0.9}, {"slope_at_zero": -1.0}, {"recession": 1.0}, {"curvature": 2.0}]
)
def test_a_wrong_attribute_is_noticed(attribute):
    with pytest.raises(AssertionError, match=next(iter(attribute))):
        check_generator(Changed(**attribute))


def test_generators_only():
    with pytest.raises(TypeError, match="generator"):
        check_generator("kl")


def random_law(rng, *shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


@pytest.mark.parametrize("legal", [True, False])
def test_klsims_problems_are_consistent(legal):
    rng = np.random.default_rng(0)
    actions = np.array([[True, legal, True]] * 4)
    mdp = random_law(rng, 4, 3, 4), rng.standard_normal((4, 3))
    check_problem(Bandit(np.log(random_law(rng, 5)), rng.standard_normal(5)))
    check_problem(DiscountedMDP(*mdp, 0.9, random_law(rng, 4), actions))
    check_problem(TabularMDP(*mdp, random_law(rng, 4), 3, actions))
    check_problem(TokenTree(2, 3, rng.standard_normal(8)))


@dataclass(frozen=True)
class Wrong:
    """A bandit whose solver returns another policy, or promises another value."""

    bandit: Bandit
    how: str

    @property
    def log_ref(self):
        return self.bandit.log_ref


@solve.register
def _(problem: Wrong, log_ref=None, beta=1.0):
    best = solve(problem.bandit, None, beta * (1.3 if problem.how == "another optimum" else 1.0))
    value = evaluate(problem, best.log_policy, None, beta).value + (0.01 if problem.how == "another value" else 0.0)
    return Solution(best.log_policy, value, None, 1e-12, 0, True, "")


@evaluate.register
def _(problem: Wrong, log_policy, log_ref=None, beta=0.0):
    own = evaluate(problem.bandit, log_policy, None, beta)
    return Evaluation(own.value, own.reward, own.kl + (0.1 * beta if problem.how == "KL that rises" else 0.0))


@pytest.mark.parametrize(
    ("how", "message"),
    [("another optimum", "a policy at distance"), ("another value", "solve promises"), ("KL that rises", "KL rises")],
)
def test_a_wrong_problem_is_noticed(how, message):
    rng = np.random.default_rng(1)
    with pytest.raises(AssertionError, match=message):
        check_problem(Wrong(Bandit(np.log(random_law(rng, 4)), rng.standard_normal(4)), how))


def test_a_problem_without_a_solver_is_refused():
    with pytest.raises(TypeError, match="problem"):
        check_problem(3.0)


def loss(batch):
    return -(batch.mask * batch.log_probs * batch.total_rewards()[:, None]).sum(-1).mean()


def test_losses():
    torch = pytest.importorskip("torch")

    def junk(batch):
        return -(batch.log_probs * batch.total_rewards()[:, None]).sum(-1).mean()

    def writes(batch):
        with torch.no_grad():
            batch.rewards.mul_(1.5)
        return loss(batch)

    def random(batch):
        return loss(batch) * torch.rand(())

    check_objective(loss)
    check_objective(lambda batch: (loss(batch), {"reward": batch.total_rewards().mean()}))
    for wrong, message in (
        (junk, "masked positions"),
        (writes, "writes to the batch"),
        (random, "random"),
        (lambda batch: (loss(batch), {"rate": float("nan")}), "metric 'rate'"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_objective(wrong)
    with pytest.raises(TypeError, match="scalar"):
        check_objective(lambda batch: batch.log_probs)
