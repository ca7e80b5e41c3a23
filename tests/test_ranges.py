"""Both ends of ranges: the last legal value, and the first that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim import _validate, learning, objectives, planning, problems
from klsim.memoryless import MemorylessSource
from klsim.planning.prefixes import prefix_node, prefix_values
from klsim.problems import Bandit, TabularMDP, TokenTree

HALF = np.log([0.5, 0.5])
TREE = TokenTree(2, 2, np.arange(4.0))
TABLE = TabularMDP(np.full((2, 2, 2), 0.5), np.eye(2), np.array([0.5, 0.5]), horizon=2)
FLAT = np.full((2, 2), np.log(0.5))
DATA = problems.sample_transitions(TABLE, 3, 0)
BATCH = objectives.TokenBatch(
    tokens=np.zeros((2, 1), int), log_probs=np.full((2, 1), HALF[0]), vocab_log_probs=np.tile(HALF, (2, 1, 1)),
    mask=np.ones((2, 1), bool), rewards=np.array([0.0, 1.0]), group=np.zeros(2, int),
)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "name", "legal", "outside"),
    [
        (lambda x: planning.evaluate(TREE, TREE.uniform(), TREE.uniform(), x), "beta", 0.0, -1e-9),
        (lambda x: planning.evaluate(TABLE, FLAT, FLAT, x), "beta", 0.0, -1e-9),
        (lambda x: planning.evaluate(Bandit(HALF, [0.0, 1.0]), HALF, None, x), "beta", 0.0, -1e-9),
        (lambda x: objectives.lp_reg(BATCH, cap=x), "cap", 1.0, 0.999),
        (lambda x: DATA.counts(x, 2), "states", 2, 0),
        (lambda x: DATA.counts(2, x), "actions", 2, 0),
        (lambda x: learning.SimulatorConfig(tokens=x, correct=1), "tokens", 2, 1),
        (lambda x: learning.SimulatorConfig(tokens=3, correct=1, anchor_logit=x), "anchor_logit", -1e12, -1.001e12),
        (lambda x: learning.SimulatorConfig(tokens=3, correct=1, anchor_logit=x), "anchor_logit", 1e12, 1.001e12),
        (lambda x: learning.Adam(0.1, beta1=x), "beta1", 0.0, -1e-9),
        (lambda x: learning.Adam(0.1, beta2=x), "beta2", 0.999, 1.0),
        (lambda x: prefix_node((0, 1), x), "vocab", 2, 0),
        (lambda x: MemorylessSource(HALF, [0.0, 1.0]).renyi_cross_entropy(x), "order", 2.0, math.inf),
    ],
)
def test_an_end_of_a_range_is_legal_and_what_is_outside_is_not(call, name, legal, outside):
    call(legal)
    with pytest.raises(ValueError, match=name):
        call(outside)


def test_a_prefix_is_of_tokens_and_a_reward_of_sequences():
    levels = TREE.uniform()
    learning.PromptTree(TREE, levels, levels, levels, prefix=(1,))
    with pytest.raises(ValueError, match="prefix"):
        learning.PromptTree(TREE, levels, levels, levels, prefix=(2,))
    with pytest.raises(ValueError, match="reward"):
        prefix_values(levels, 1.0)


def test_the_memory_of_types_is_counted(monkeypatch):
    source = MemorylessSource(np.log([0.2, 0.3, 0.5]), [0.0, 1.0, 3.0])
    needed = math.comb(7 + 2, 2) * 8 * (3 + 3)  # bytes of all types of 7 letters
    monkeypatch.setattr(_validate, "LARGEST", needed)
    assert np.exp(source.type_law(7).log_prob).sum() == pytest.approx(1.0)
    monkeypatch.setattr(_validate, "LARGEST", needed - 1)
    with pytest.raises(ValueError, match="m = 7: would need"):
        source.type_law(7)


def test_a_prefix_is_a_number_in_base_vocab():
    assert [prefix_node(p, 3) for p in ((), (2,), (1, 0), (2, 1, 2))] == [0, 2, 3, 23]
