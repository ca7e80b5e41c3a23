"""The lock and the rule: first completions, a step by hand, what is shared and what is not, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.prefix_worlds import RuleWorld, lock_samples


def mean_samples(horizon, runs=40, **options):
    return np.mean([lock_samples(horizon, rng=np.random.default_rng([horizon, s]), **options) for s in range(runs)])


class TestLock:
    def test_groups_of_completions(self):
        assert lock_samples(3, group=6) % 6 == 0

    def test_prefixes_pay_for_long_locks_only(self):
        assert mean_samples(14) < 0.3 * mean_samples(14, resets=False)
        assert mean_samples(4) > mean_samples(4, resets=False)

    def test_prefixes_of_random_strings_do_not(self):
        assert mean_samples(10, accuracy=0.5) > 3 * mean_samples(10)

    def test_the_first_success_takes_two_to_the_H(self):
        """With lr so large that one mixed group opens the lock: groups until the first success are geometric."""
        p = 1 - (1 - 2.0**-6) ** 8
        took = [lock_samples(6, resets=False, lr=1000.0, rng=s) / 8 for s in range(2000)]
        assert np.mean(took) == pytest.approx(1 / p, abs=5 / p / np.sqrt(2000))

    def test_a_limit(self):
        with pytest.raises(ValueError, match="limit: 80 completions are not enough"):
            lock_samples(30, resets=False, limit=80)


WORLD = RuleWorld(np.array([[0, 1, 0]]), np.array([1, 0]), 2)


class TestRule:
    def test_success_by_hand(self):
        logits = np.log([[0.25, 0.75], [0.4, 0.6]])
        assert WORLD.success(logits) == pytest.approx([0.75 * 0.4 * 0.75])
        assert WORLD.success(logits, start=2) == pytest.approx([0.75])
        assert WORLD.success(logits, start=3) == pytest.approx([1.0])

    def test_one_mixed_group_by_hand(self):
        """The last step only: k right of n give lr sqrt(q (1 - q)), q = k/n, along e_right - e_wrong."""
        moved, _ = WORLD.train(WORLD.zeros(), [[2]], steps=1, group=8, lr=0.5, rng=3)
        q = np.arange(9) / 8
        assert np.min(np.abs(moved[0, 1] - 0.5 * np.sqrt(q * (1 - q)))) < 1e-15
        assert moved[0, 0] == pytest.approx(-moved[0, 1])
        np.testing.assert_array_equal(moved[1], 0.0)

    def test_nothing_moves_before_the_cut(self):
        world = RuleWorld.draw(np.random.default_rng(0), 5, 4, 3, 3).tabular()
        moved, _ = world.train(world.zeros(), np.full((5, 1), 2), steps=200, rng=1)
        np.testing.assert_array_equal(moved[world.symbols[:, :2]], 0.0)
        assert np.abs(moved[world.symbols[:, 2:]]).max() > 0.5

    def test_sharing_carries_it_to_the_early_steps(self):
        world = RuleWorld.draw(np.random.default_rng(2), 24, 8, 12, 4)
        found = {}
        for name, w in (("shared", world), ("tabular", world.tabular())):
            logits, _ = w.train(w.zeros(), np.tile([4, 5, 6], (24, 1)), steps=600, rng=0)
            found[name] = w.success(logits).mean()
        assert found["shared"] > 0.7
        assert found["tabular"] <= 4.0**-4

    def test_a_target_stops_the_run(self):
        logits, groups = WORLD.train(WORLD.zeros(), [[0, 1, 2]], steps=10_000, target=0.9, rng=0)
        assert groups < 10_000
        assert WORLD.success(logits).mean() >= 0.9
        assert WORLD.train(WORLD.zeros(), [[0, 1, 2]], steps=groups - 1, target=0.9, rng=0)[1] == groups - 1

    def test_the_start_is_not_changed(self):
        start = WORLD.zeros()
        WORLD.train(start, [[0]], steps=50)
        np.testing.assert_array_equal(start, 0.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lock_samples(0), "horizon"),
        (lambda: lock_samples(3, accuracy=1.5), "accuracy"),
        (lambda: lock_samples(3, target=1.0), "target"),
        (lambda: lock_samples(3, group=1), "group"),
        (lambda: lock_samples(3, lr=0.0), "lr"),
        (lambda: RuleWorld([[0, 2]], [0, 1], 2), "symbols"),
        (lambda: RuleWorld([[0, 1]], [0, 2], 2), "correct"),
        (lambda: RuleWorld([[0, 1]], [0, -1], 2), "correct"),
        (lambda: RuleWorld([0, 1], [0, 1], 2), "symbols"),
        (lambda: RuleWorld([[0]], [0], 1), "answers"),
        (lambda: WORLD.success(np.zeros((2, 3))), "logits"),
        (lambda: WORLD.train(WORLD.zeros(), [[4]], steps=1), "cuts"),
        (lambda: WORLD.train(WORLD.zeros(), [[0], [1]], steps=1), "cuts"),
        (lambda: WORLD.train(WORLD.zeros(), [[0]], steps=-1), "steps"),
        (lambda: WORLD.train(np.full((2, 2), np.inf), [[0]], steps=1), "logits"),
        (lambda: WORLD.train(WORLD.zeros(), [[0]], steps=1, lr=-1000.5), "lr = -1000.5"),
        (lambda: WORLD.train(WORLD.zeros(), [[0]], steps=1, lr=1000.5), "lr = 1000.5"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
