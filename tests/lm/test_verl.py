"""klsim's losses through verl's registries: the real package where it is installed, else its published signatures."""

from __future__ import annotations

import importlib.util
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from klsim.lm import verl as bridge
from klsim.objectives import TokenBatch

REAL = importlib.util.find_spec("verl") is not None


def _published() -> types.ModuleType:
    """The registries and `agg_loss` of verl 0.9.1's `core_algos`, as far as `register` uses them."""
    core = types.ModuleType("verl.trainer.ppo.core_algos")
    core.POLICY_LOSS_REGISTRY, core.ADV_ESTIMATOR_REGISTRY = {}, {}

    def entry(registry):
        def register(name):
            def decorate(function):
                registry[name] = function
                return function

            return decorate

        return register

    core.register_policy_loss = entry(core.POLICY_LOSS_REGISTRY)
    core.register_adv_est = entry(core.ADV_ESTIMATOR_REGISTRY)
    core.get_policy_loss_fn = core.POLICY_LOSS_REGISTRY.__getitem__
    core.get_adv_estimator_fn = core.ADV_ESTIMATOR_REGISTRY.__getitem__

    def agg_loss(loss_mat, loss_mask, loss_agg_mode, dp_size=1, batch_num_tokens=None, global_batch_size=None):
        lengths = loss_mask.sum(1)
        if loss_agg_mode == "token-mean":
            return (loss_mat * loss_mask).sum() / (batch_num_tokens or loss_mask.sum()) * dp_size
        assert loss_agg_mode == "seq-mean-token-mean"
        return ((loss_mat * loss_mask).sum(1) / lengths).sum() / (global_batch_size or len(lengths)) * dp_size

    core.agg_loss = agg_loss
    return core


@pytest.fixture
def core(monkeypatch):
    if REAL:
        from verl.trainer.ppo import core_algos

        return core_algos
    made = _published()
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["verl.trainer.ppo"].core_algos = made
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", made)
    return made


def _batch(seed: int = 0):
    rng = np.random.default_rng(seed)
    old = torch.tensor(-rng.exponential(1.0, (8, 5)))
    new = (old + 0.1 * torch.tensor(rng.normal(size=(8, 5)))).requires_grad_()
    mask = torch.tensor(np.arange(5) < rng.integers(1, 6, (8, 1))).long()
    return old, new, torch.tensor(rng.normal(size=(8, 1))).expand(8, 5), mask


@pytest.mark.parametrize("name", list(bridge.LOSSES))
def test_a_registered_loss_is_klsims(core, name):
    assert f"klsim_{name}" in bridge.register()
    old, new, advantages, mask = _batch()
    value, metrics = core.get_policy_loss_fn(f"klsim_{name}")(
        old_log_prob=old, log_prob=new, advantages=advantages, response_mask=mask, config=None
    )
    batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=advantages, mask=mask.bool())
    wanted, _ = bridge.LOSSES[name][0](batch)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-7)
    (got,) = torch.autograd.grad(value, new, retain_graph=True)
    (own,) = torch.autograd.grad(wanted, new)
    torch.testing.assert_close(got, own, rtol=1e-7, atol=1e-12)
    assert all(isinstance(v, float) for v in metrics.values())


@pytest.mark.parametrize("name", list(bridge.LOSSES))
def test_micro_batches_add_up_to_the_batch(core, name):
    bridge.register()
    old, new, advantages, mask = _batch(1)
    if name == "dr_grpo":
        mask = torch.ones_like(mask)
    info = {"batch_num_tokens": int(mask.sum()), "global_batch_size": len(mask), "dp_size": 1}
    config = SimpleNamespace(global_batch_info=info)
    loss = core.get_policy_loss_fn(f"klsim_{name}")
    parts = [slice(0, 3), slice(3, 8)]  # of unequal size
    total = sum(loss(old[p], new[p], advantages[p], mask[p], config=config)[0] for p in parts)
    whole, _ = loss(old, new, advantages, mask, config=config)
    assert total.item() == pytest.approx(whole.item(), rel=1e-7)
    # control: without the share the parts do not add up
    alone = sum(loss(old[p], new[p], advantages[p], mask[p])[0] for p in parts)
    assert abs(alone.item() - whole.item()) > 1e-3 * abs(whole.item())


def test_empty_responses_are_left_out(core):
    bridge.register()
    old, new, advantages, mask = _batch(2)
    mask[2] = 0
    kept = torch.arange(8) != 2
    loss = core.get_policy_loss_fn("klsim_grpo")
    assert loss(old, new, advantages, mask)[0].item() == pytest.approx(
        loss(old[kept], new[kept], advantages[kept], mask[kept])[0].item(), rel=1e-7
    )


@pytest.mark.parametrize("name", list(bridge.ADVANTAGES))
def test_advantages(core, name):
    bridge.register()
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    index = np.array(["b", "a", "b", "a", "b", "a"], dtype=object)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 1, 1]])
    scores = torch.zeros(6, 3)
    scores[:, 0] = rewards
    advantages, returns = core.get_adv_estimator_fn(f"klsim_{name}")(
        token_level_rewards=scores, response_mask=mask, index=index, config=None
    )
    wanted = bridge.ADVANTAGES[name](rewards, torch.tensor([1, 0, 1, 0, 1, 0]))
    torch.testing.assert_close(advantages, wanted[:, None] * mask)
    torch.testing.assert_close(returns, advantages)


def test_a_rollout_correction_is_refused(core):
    bridge.register()
    old, new, advantages, mask = _batch(3)
    with pytest.raises(ValueError, match="rollout_is_weights"):
        core.get_policy_loss_fn("klsim_grpo")(old, new, advantages, mask, rollout_is_weights=torch.ones_like(old))


@pytest.mark.skipif(REAL, reason="verl is installed")
def test_without_verl():
    with pytest.raises(ModuleNotFoundError, match="pip install verl"):
        bridge.register()
