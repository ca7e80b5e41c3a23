"""The search world: its exact problem, training, the expert and its clone, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.search_world import MetaRewards, SearchWorld
from klsim.planning import evaluate, solve

WORLD = SearchWorld()


class TestProblem:
    def test_the_best_policy_stops_one_step_early(self):
        for horizon, best in ((1, 0.0), (4, 0.3), (10, 0.9), (11, 1.0)):
            problem = SearchWorld(horizon=horizon).mdp(success=1.0)
            assert evaluate(problem, solve(problem, beta=0.0).log_policy).reward == pytest.approx(best)

    def test_the_untrained_policy(self):
        """One box: open it (weight 1) or submit (weight e^-1), twice."""
        world = SearchWorld(boxes=1, horizon=2, tasks=1)
        p = 1 / (1 + np.exp(-1))
        assert evaluate(world.mdp(success=1.0), world.lumped(world.start())).reward == pytest.approx(p * (1 - p))
        assert evaluate(world.mdp(old=1.0), world.lumped(world.start())).reward == pytest.approx(p * p)

    def test_episodes_average_to_it(self):
        x = WORLD.start() + np.random.default_rng(0).standard_normal(51)
        found = WORLD.measure(x, episodes=40_000, rng=1)
        success, old, steps = (
            evaluate(WORLD.mdp(**r), WORLD.lumped(x)).reward for r in ({"success": 1}, {"old": 1}, {"step": 1})
        )
        assert found.success == pytest.approx(success, abs=0.0125)
        assert found.repetition == pytest.approx(old / steps, abs=0.01)
        assert found.steps == pytest.approx(steps, abs=0.1)


class TestEpisodes:
    def test_extreme_policies(self):
        x = WORLD.start()
        x[-3:] = -300.0, -300.0, 600.0 - 300.0
        run = WORLD.sample(x, np.zeros(200, int), np.full(200, 3), rng=0)
        assert np.all(run.success[run.length < 14] == 1)
        live = run.tags >= 0
        assert np.all(run.tags[:, 0] == 0)
        assert np.all(run.tags[:, 1:][live[:, 1:]] > 0)

    def test_the_pay_of_each_tag(self):
        run = WORLD.sample(WORLD.start(), np.zeros(300, int), np.zeros(300, int), first_only=False, rng=0)
        for pay in (MetaRewards(), MetaRewards(until_found=True), MetaRewards(planning=False)):
            paid = WORLD.rewards(run, pay)
            new = (run.actions < 10) & ((run.opened >> run.actions) & 1 == 0) & (run.tags >= 0)
            new &= ~(pay.until_found & (run.found == 1))
            np.testing.assert_array_equal(paid[run.tags == 1], new[run.tags == 1])
            np.testing.assert_array_equal(paid[run.tags == 2], (new & (run.fail == 1))[run.tags == 2])
            assert np.all(paid[(run.tags == 3) | (run.tags < 0)] == 0)
            wanted = run.success[:, None] * np.ones(14) * pay.planning
            np.testing.assert_array_equal(paid[run.tags == 0], wanted[run.tags == 0])


class TestTraining:
    def test_records_are_of_one_run(self):
        whole = WORLD.train(MetaRewards(), record=(0, 3, 7), rng=5)
        np.testing.assert_array_equal(whole[0], WORLD.start())
        np.testing.assert_array_equal(whole[1], WORLD.train(MetaRewards(), record=(3,), rng=5)[0])

    def test_one_environment_of_two_episodes_is_the_least(self):
        assert WORLD.train(MetaRewards(), record=(1,), environments=1, group=2).shape == (1, 51)
        for sizes in ({"environments": 0}, {"group": 1}):
            with pytest.raises(ValueError, match=f"{next(iter(sizes))} = "):
                WORLD.train(MetaRewards(), **sizes)

    def test_a_clone_of_the_expert(self):
        found = [WORLD.measure(WORLD.clone(rng=0), where, rng=1) for where in ("seen", "unseen")]
        assert found[0].success > 0.95
        assert 0.6 < found[1].success < 0.9
        assert found[0].repetition < 0.03

    def test_the_expert_finds_and_submits(self):
        run = WORLD.expert(50, np.random.default_rng(0))
        last = run.length - 1
        rows = np.arange(50)
        assert np.all(run.actions[rows, last] == 10)
        assert np.all(run.found[rows, last] == 1)
        np.testing.assert_array_equal(run.actions[rows, last - 1], run.target)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SearchWorld(boxes=0), "boxes"),
        (lambda: SearchWorld(tasks=11), "tasks"),
        (lambda: SearchWorld(usual=2.0), "usual"),
        (lambda: MetaRewards(alpha=-0.1), "alpha"),
        (lambda: WORLD.sample(np.zeros(3), [0], [0]), "policy: must have shape"),
        (lambda: WORLD.sample(np.full(51, 400.0), [0], [0]), "policy"),
        (lambda: WORLD.sample(WORLD.start(), [4], [0]), "task"),
        (lambda: WORLD.sample(WORLD.start(), [0, 1], [0]), "target"),
        (lambda: WORLD.train(MetaRewards(), record=(3, 3)), "record"),
        (lambda: WORLD.train(MetaRewards(), lr=11.0), "lr"),
        (lambda: WORLD.measure(WORLD.start(), "elsewhere"), "where"),
        (lambda: WORLD.clone(0), "trajectories"),
        (lambda: WORLD.advantages(WORLD.sample(WORLD.start(), [0] * 3, [0] * 3), MetaRewards(), 2), "group"),
        (lambda: WORLD.gradient(WORLD.start(), WORLD.sample(WORLD.start(), [0], [0]), [[1.0]]), "advantages"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_pay_is_a_record():
    with pytest.raises(TypeError, match="pay"):
        WORLD.train("MR")
