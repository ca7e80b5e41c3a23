"""TokenBatch: what it accepts, and what it says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.objectives import TokenBatch
from klsim.objectives.batch import takes_batch

LOGP = np.log([[0.5, 0.4], [0.3, 0.2]])


def test_defaults_are_on_policy_one_group_all_tokens():
    batch = TokenBatch(LOGP)
    assert np.array_equal(batch.old, LOGP)
    assert batch.mask.all()
    assert batch.groups().tolist() == [0, 0]


def test_masked_positions_do_not_matter_whatever_they_hold():
    mask = [[True, False], [True, True]]
    junk = LOGP.copy()
    junk[0, 1] = -np.inf
    clean = TokenBatch(LOGP, mask=mask, rewards=[1.0, 0.0])
    dirty = TokenBatch(junk, mask=mask, rewards=[1.0, 0.0])
    assert o.grpo(clean)[0] == o.grpo(dirty)[0]
    parameter = torch.tensor(junk, requires_grad=True)
    o.grpo(TokenBatch(parameter, mask=torch.tensor(mask), rewards=torch.tensor([1.0, 0.0])))[0].backward()
    assert torch.isfinite(parameter.grad).all()
    assert parameter.grad[0, 1] == 0


def test_lists_of_integers_and_masks_follow_the_arrays():
    batch = TokenBatch(torch.tensor(LOGP), mask=[[1, 1], [1, 0]], group=[3, 3], rewards=torch.tensor([1.0, 0.0]))
    assert isinstance(batch.mask, torch.Tensor)
    assert isinstance(batch.group, torch.Tensor)


def test_float32_stays_float32():
    batch = TokenBatch(torch.tensor(LOGP, dtype=torch.float32), rewards=torch.tensor([1.0, 0.0]))
    assert o.rloo(batch)[0].dtype == torch.float32


def test_per_token_rewards_are_summed_over_the_mask():
    batch = TokenBatch(LOGP, mask=[[True, False], [True, True]], rewards=[[1.0, 5.0], [0.5, 0.25]])
    assert batch.total_rewards().tolist() == [1.0, 0.75]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"log_probs": np.zeros((0, 2))}, r"log_probs.*B, T >= 1"),
        ({"log_probs": np.zeros((2, 0))}, r"log_probs.*B, T >= 1"),
        ({"log_probs": np.zeros(3)}, r"log_probs.*\[B, T\]"),
        ({"mask": [[True, True], [False, False]]}, r"mask\[1\]: this response has no token"),
        ({"mask": [[True], [True]]}, r"mask.*shape \[2, 2\]"),
        ({"mask": [[2, 1], [1, 1]]}, r"mask\[0, 0\] = 2"),
        ({"log_probs": np.log([[0.5, 0.4], [0.3, 1e-320]]) * [[1, 1], [1, np.inf]]}, r"log_probs\[1, 1\]"),
        ({"log_probs": np.array([[0.0, np.nan], [0, 0]])}, r"log_probs\[0, 1\].*NaN"),
        ({"ref_log_probs": np.array([[0.0, -np.inf], [0, 0]])}, r"ref_log_probs\[0, 1\].*probability 0"),
        ({"old_log_probs": np.zeros((2, 3))}, r"old_log_probs.*\[2, 2\]"),
        ({"rewards": [1.0, np.inf]}, r"rewards\[1\] = inf: must be finite"),
        ({"rewards": [1.0]}, r"rewards.*\[2\] or \[2, 2\]"),
        ({"advantages": [np.nan, 0.0]}, r"advantages\[0\] = nan"),
        ({"group": [0]}, r"group.*\[2\]"),
        ({"external": [0, 3]}, r"external\[1\] = 3"),
        ({"rollout_log_probs": np.array([[0.0, -np.inf], [0, 0]])}, r"rollout_log_probs\[0, 1\].*probability 0"),
        ({"values": [1.0, 2.0]}, r"values.*\[2, 2\]"),
        ({"values": np.array([[0.0, np.nan], [0, 0]])}, r"values\[0, 1\] = nan"),
        ({"old_values": np.zeros((2, 3))}, r"old_values.*\[2, 2\]"),
        ({"preferred": [0, 2]}, r"preferred\[1\] = 2"),
        ({"preferred": [True]}, r"preferred.*\[2\]"),
        ({"greedy_rewards": np.zeros((2, 2))}, r"greedy_rewards.*\[2\]"),
        ({"vocab_log_probs": np.zeros((2, 2))}, r"vocab_log_probs.*\[2, 2, V\]"),
        ({"vocab_log_probs": np.full((2, 2, 3), np.nan)}, r"vocab_log_probs\[0, 0, 0\]"),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        TokenBatch(**({"log_probs": LOGP} | fields))


def test_who_drew_the_tokens():
    assert np.array_equal(TokenBatch(LOGP).rollout, LOGP)
    assert np.array_equal(TokenBatch(LOGP, old_log_probs=LOGP - 1).rollout, LOGP - 1)
    assert np.array_equal(TokenBatch(LOGP, rollout_log_probs=LOGP - 2).rollout, LOGP - 2)


def test_types():
    with pytest.raises(TypeError, match="group: must hold integers"):
        TokenBatch(LOGP, group=[0.5, 1.0])
    with pytest.raises(TypeError, match="log_probs: must hold real numbers"):
        TokenBatch(None)
    with pytest.raises(TypeError, match="mix array libraries"):
        TokenBatch(torch.tensor(LOGP), rewards=np.zeros(2))
    with pytest.raises(TypeError, match="real numbers"):
        TokenBatch(np.array([["a", "b"]]))


def test_a_loss_names_the_field_it_misses():
    with pytest.raises(ValueError, match="rewards: this loss needs it"):
        o.grpo(TokenBatch(LOGP))
    with pytest.raises(ValueError, match="teacher_log_probs: this loss needs it"):
        o.opd(TokenBatch(LOGP))


@pytest.mark.parametrize("loss", [np.float64("nan"), torch.tensor(float("nan"))])
def test_a_loss_that_is_not_a_number_is_refused(loss):
    @takes_batch
    def broken(batch):
        return loss, {}

    with pytest.raises(ValueError, match="batch: the loss is not a number"):
        broken(TokenBatch(LOGP))


def test_groups_of_one_and_equal_rewards():
    alone = TokenBatch(LOGP, rewards=[1.0, 0.0], group=[0, 1])
    for loss in (o.rloo, o.grpo, o.dr_grpo, o.dapo, o.rover):
        with pytest.raises(ValueError, match=r"group\[0\] = 0: this response is alone"):
            loss(alone) if loss is not o.rover else o.rover(alone, next_value=False)
    with pytest.raises(ValueError, match="batch baseline needs two"):
        o.reinforce_pp(TokenBatch(LOGP[:1], rewards=[1.0]))
    for value in (0.1, 1e8, 1e-8, 0.0):
        same = TokenBatch(LOGP, rewards=[value, value])
        for loss in (o.grpo, o.dapo, o.gspo, o.cispo, o.reinforce_pp, o.lite_ppo, o.rloo):
            assert loss(same)[0] == 0.0
