"""Malformed arrays at every public function: a finite correct answer (or ±inf), or a clear error; never NaN."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klsim import (
    best_of_n,
    distributions,
    divergences,
    estimators,
    learning,
    mass_balance,
    memoryless,
    objectives,
    optima,
    planning,
)
from klsim.problems import (
    Bandit,
    DiscountedMDP,
    LinearMDP,
    MaskedDiffusionLM,
    PromptBandit,
    TabularMDP,
    TokenTree,
    token_tree,
)

NASTY = (0.0, 1.0, -1.0, 0.5, np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, 5e-324, 1e8, -1e8, 1e-8)
number = st.one_of(st.sampled_from(NASTY), st.floats(-10, 10))
rows = st.lists(number, min_size=0, max_size=4)
arrays = st.one_of(
    rows.map(np.array),
    rows.filter(len).map(lambda r: np.log(np.abs(np.nan_to_num(r)) + 1e-9)).map(lambda r: r - np.logaddexp.reduce(r)),
    st.sampled_from([np.log([0.5, 0.5]), np.array([0.0, -np.inf]), np.array([-np.inf, -np.inf]), np.zeros((2, 0))]),
    st.lists(rows, min_size=1, max_size=3),
    st.sampled_from(
        ["text", None, object(), [[1.0], [1.0, 2.0]], np.array(["a"]), np.array([1j]), {}, np.zeros((2, 2, 2))]
    ),
    st.sampled_from([np.array([True, False]), np.array([1, 2]), (np.log([[0.5, 0.5]]),), (), 3, 0, -2]),
)
scalars = st.one_of(number, st.integers(-3, 10), arrays)

FUNCTIONS = [
    getattr(module, name)
    for module in (distributions, divergences, optima, best_of_n, mass_balance, estimators, token_tree)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
] + [
    learning.population_gradient, learning.score_function_gradient, learning.counts_surrogate_gradient,
    learning.set_surrogate_gradient, learning.centre, learning.train_tree, learning.exact_tree_ascent,
    learning.chi2_value, learning.quantile_value, learning.expectile_value, learning.gumbel_value,
    learning.policy_returns, learning.open_loop_return,
    planning.solve, planning.evaluate, planning.occupancy, planning.flow_gap, planning.visitation_optimum,
    planning.policy_dual, planning.match_visitation, planning.robust_values, planning.qvi_iterates,
    objectives.temper, objectives.soup, objectives.sampled, objectives.overlong_penalty, objectives.recap_weights,
    objectives.min_p_proxy, objectives.soft_min, objectives.entropy_gate, objectives.bgpo, objectives.elbo_ratio,
    objectives.elbo_two_pass, objectives.std_weight, objectives.TokenBatch, LinearMDP, MaskedDiffusionLM,
    Bandit, DiscountedMDP, PromptBandit, TabularMDP, TokenTree, memoryless.MemorylessSource, memoryless.MarkovSource,
]  # fmt: skip
SKIP = {"size", "rng", "steps", "record", "batch"}  # keep a run small: their validation has tests of its own


def numbers_in(value):
    """Every float array reachable in a result."""
    if hasattr(value, "__dataclass_fields__"):
        value = [getattr(value, name) for name in value.__dataclass_fields__]
    if isinstance(value, tuple | list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, np.ndarray | np.generic | float) and np.asarray(value).dtype.kind == "f":
        yield np.asarray(value)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.__module__.removeprefix('klsim.')}.{f.__name__}")
@settings(max_examples=120)
@given(data=st.data())
def test_a_clear_error_or_a_number(function, data):
    parameters = inspect.signature(function).parameters
    arguments = {}
    for name, parameter in parameters.items():
        if name in SKIP:
            arguments |= {"size": {"size": 3}, "rng": {"rng": 0}, "steps": {"steps": 2}, "batch": {"batch": 3}}.get(
                name, {}
            )
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and (
            parameter.default is parameter.empty or data.draw(st.booleans(), label=f"give {name}")
        ):
            arguments[name] = data.draw(scalars, label=name)
    try:
        first = [arguments.pop("problem")] if "problem" in arguments else []  # singledispatch
        result = function(*first, **arguments)
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert any(name in message for name in [*parameters, "axes", "arguments mix"]), f"names no argument: {message}"
        return
    for array in numbers_in(result):
        assert not np.isnan(array).any(), f"NaN from {function.__name__}({arguments})"


def test_probabilities_whose_sum_overflows():
    from klsim.problems import TabularMDP

    with pytest.raises(ValueError, match=r"transition\[.*\] = inf: probabilities must sum to 1"):
        TabularMDP(np.full((2, 1, 2), 1e308), np.zeros((2, 1)), np.array([1.0, 0.0]), horizon=1)
