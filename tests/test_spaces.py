"""Spaces: both samplers stay inside the space, and shrink or batch as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klsim.spaces import (
    Betas,
    Choice,
    Floats,
    Integers,
    Masks,
    Normals,
    Policies,
    Rewards,
    Seeds,
    Sizes,
    Space,
    TreePolicies,
)

SPACE = Space(
    log_ref=Policies(zero_support=True), log_pi=Policies(zero_support=True, like="log_ref"), reward=Rewards(), beta=Betas(1e-3, 1e3),
    n=Integers(1, 9, log=True), mask=Masks(), levels=TreePolicies("V", "H"), noise=Normals("A", 2), kind=Choice("a", "b"),
    x=Floats(-1, 1), seed=Seeds(), A=Sizes(1, 6), V=Sizes(2, 3), H=Sizes(1, 3),
)  # fmt: skip


def check_instance(i):
    a = i["A"]
    assert 1 <= a <= 6
    assert i["log_ref"].shape == i["log_pi"].shape == i["reward"].shape == i["mask"].shape == (a,)
    assert np.exp(i["log_ref"]).sum() == pytest.approx(1)
    assert np.exp(i["log_pi"]).sum() == pytest.approx(1)
    assert not np.any(np.isfinite(i["log_pi"]) & ~np.isfinite(i["log_ref"]))
    assert 1e-3 <= i["beta"] <= 1e3
    assert 1 <= i["n"] <= 9
    if a > 1:
        assert i["mask"].any()
        assert not i["mask"].all()
    assert [level.shape for level in i["levels"]] == [(i["V"] ** t, i["V"]) for t in range(i["H"])]
    assert i["noise"].shape == (a, 2)
    assert i["kind"] in ("a", "b")
    assert -1 <= i["x"] <= 1


@given(SPACE.strategy())
def test_adversarial_instances_lie_in_the_space(instance):
    check_instance(instance)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_bulk_instances_lie_in_the_space(seed):
    batch = SPACE.sample(7, seed)
    assert SPACE.length(batch) == 7
    for i in range(7):
        check_instance(SPACE.take(batch, i))


def test_the_same_seed_gives_the_same_bytes():
    a, b = SPACE.sample(5, 3), SPACE.sample(5, 3)
    np.testing.assert_array_equal(a["log_ref"], b["log_ref"])
    np.testing.assert_array_equal(a["levels"][0], b["levels"][0])


def test_batches_cover_sizes_and_respect_predicates():
    space = Space(reward=Rewards(), A=Sizes(1, 6), where=lambda reward: reward[..., 0] > 0)
    batches = list(space.batches(500, 0, batch_size=50))
    assert sum(space.length(b) for b in batches) == 500
    assert {b["A"] for b in batches} == set(range(1, 7))
    assert all((b["reward"][:, 0] > 0).all() for b in batches)


def test_a_predicate_that_rejects_everything_is_an_error():
    space = Space(x=Floats(0, 1), where=lambda x: np.asarray(x) > 2)
    with pytest.raises(ValueError, match="rejects"):
        list(space.batches(10, 0, batch_size=10))


def test_rewards_have_ties_and_supports_have_zeros():
    batch = Space(log_ref=Policies("A", zero_support=True), reward=Rewards("A"), A=Sizes(6, 6)).sample(500, 0)
    assert np.isinf(batch["log_ref"]).any(axis=1).mean() > 0.2
    ties = [len(set(r)) < 6 for r in batch["reward"]]
    assert 0.2 < np.mean(ties) < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space(), "at least one"),
        (lambda: Space(x=3), "Field"),
        (lambda: Space(p=Policies(like="q")), "like"),
        (lambda: Sizes(0, 3), "low"),
        (lambda: Sizes(3, 2), "high"),
        (lambda: Betas(0.0, 1.0), "low"),
        (lambda: Choice(), "at least one"),
        (lambda: Integers(3, 1), "high"),
    ],
)
def test_bad_spaces(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
