r"""A search with tagged steps: what meta-rewards teach an agent, and when it pays to stop.

An object lies in one of n boxes. Every step names a tag (planning, explore, reflection, monitor) and takes an action:
open box b, or submit, which succeeds iff the object was found. After ``horizon`` steps without a submission the episode
fails. The policy is a softmax with logits ``bias[task, b] + visited [b opened]`` for the boxes and ``submit + found
[object found]``; a second head chooses the tag by whether the last action was a repetition. On training tasks the
object is usually in the task's own box (a shortcut); unseen tasks have no bias and a uniform object.

Rules pay 1 for: planning in an episode that succeeds, explore on a new box, reflection on a new box after a repetition.
The advantage is that of `klsim.objectives.tag_advantages.grpo_mr_advantages`.

Without biases, boxes are exchangeable: the number of opened boxes and the found flag are a state. `SearchWorld.mdp` is
that problem (for `klsim.planning`), with which every policy is evaluated exactly. No policy succeeds more often than
``min(1, (H - 1)/n)``; one that prefers a new box to a success succeeds iff ``H > n``.

Source: ``rlvmr`` C4-C6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = ["Episodes", "Measured", "MetaRewards", "SearchWorld"]

NEW, OLD, SUBMIT = 0, 1, 2
_LARGEST_LOGIT = 300.0


class Episodes(NamedTuple):
    """Sampled episodes: tasks and targets ``(E,)``, what held before every step ``(E, H)``, lengths and successes.

    ``opened`` is a bit mask of boxes; ``fail``: the last action was a repetition; tags are -1 after the end.
    """

    task: np.ndarray
    target: np.ndarray
    tags: np.ndarray
    actions: np.ndarray
    opened: np.ndarray
    fail: np.ndarray
    found: np.ndarray
    length: np.ndarray
    success: np.ndarray


class Measured(NamedTuple):
    """Success rate, repeated box actions per step, steps per episode, share of explore among the tags."""

    success: float
    repetition: float
    steps: float
    explore: float


@dataclass(frozen=True)
class MetaRewards:
    """How steps are paid and normalised.

    Attributes:
        alpha: weight of the outcome; 1 is GRPO. pooled: one normaliser for all steps instead of one a tag.
        first_only: planning at the first step, and only there; otherwise all tags at every step.
        planning: planning is paid. until_found: explore and reflection are paid only before the object is found.
    """

    alpha: float = 0.5
    pooled: bool = False
    first_only: bool = True
    planning: bool = True
    until_found: bool = False

    def __post_init__(self) -> None:
        _validate.probability("alpha", self.alpha)
        for name in ("pooled", "first_only", "planning", "until_found"):
            _validate.flag(name, getattr(self, name))


@dataclass(frozen=True)
class SearchWorld:
    """``boxes`` boxes, ``horizon`` steps, ``tasks`` training tasks, whose object is in box ``task`` w.p. ``usual``.

    Raises:
        ValueError: more than 60 boxes, more tasks than boxes, numbers out of range.
    """

    boxes: int = 10
    horizon: int = 14
    tasks: int = 4
    usual: float = 0.95

    def __post_init__(self) -> None:
        _validate.integer("boxes", self.boxes, low=1, high=60)
        _validate.integer("horizon", self.horizon, low=1, high=10**4)
        _validate.integer("tasks", self.tasks, low=1, high=self.boxes)
        _validate.probability("usual", self.usual)

    def start(self) -> np.ndarray:
        """The untrained policy: all parameters 0, submit -1. Order: tags (2, 4), bias (tasks, boxes), visited, submit,
        found."""
        x = np.zeros(8 + self.tasks * self.boxes + 3)
        x[-2] = -1.0
        return x

    def _checked(self, policy: Any) -> np.ndarray:
        (policy,) = _validate.numpy_arrays(policy=policy)
        if policy.shape != self.start().shape:
            _validate.fail("policy", f"must have shape {self.start().shape}, got {policy.shape}")
        index = _validate.first_true(np, ~(np.abs(policy) <= _LARGEST_LOGIT))
        if index is not None:
            _validate.fail("policy", f"must be at most {_LARGEST_LOGIT:g} in size", float(policy[index]), index)
        return np.ascontiguousarray(policy, dtype=np.float64)

    def sample(
        self,
        policy: Any,
        task: Any,
        target: Any,
        *,
        first_only: bool = True,
        rng: np.random.Generator | int = 0,
    ) -> Episodes:
        """One episode for every task and target, ``(E,)``.

        Raises:
            ValueError: shapes, tasks or targets out of range, parameters above 300 in size.
        """
        from klsim.kernels import search_world as kernels

        x, first_only = self._checked(policy), _validate.flag("first_only", first_only)
        task = _validate.integers("task", task, low=0, high=self.tasks - 1)
        target = _validate.integers("target", target, low=0, high=self.boxes - 1)
        if task.ndim != 1 or not task.size or task.shape != target.shape:
            _validate.fail("target", f"must have the shape (E,) of task, got {target.shape} for {task.shape}")
        task, target = (np.ascontiguousarray(a, dtype=np.int64) for a in (task, target))
        rng = _validate.generator(rng)
        return Episodes(task, target, *kernels.episodes(x, task, target, self.boxes, self.horizon, first_only, rng))

    def rewards(self, episodes: Episodes, pay: MetaRewards) -> np.ndarray:
        """0 or 1 for every step, ``(E, H)``; 0 after the end."""
        from klsim.kernels import search_world as kernels

        return np.asarray(kernels.meta_rewards(*episodes[2:], self.boxes, pay.planning, pay.until_found))

    def advantages(self, episodes: Episodes, pay: MetaRewards, group: int) -> np.ndarray:
        """GRPO-MR advantages of every step, ``(E, H)``; ``group`` neighbouring episodes share an environment.

        Raises:
            ValueError: the number of episodes is not a multiple of ``group``.
        """
        from klsim.kernels import search_world as kernels

        group = _validate.integer("group", group, low=2)
        if len(episodes.task) % group:
            _validate.fail("group", f"must divide the number of episodes, {len(episodes.task)}", group)
        paid = self.rewards(episodes, pay)
        return np.asarray(
            kernels.mixed_advantages(
                episodes.success, paid, episodes.tags, episodes.length, group, pay.alpha, pay.pooled
            )
        )

    def gradient(
        self, policy: Any, episodes: Episodes, advantages: Any, *, first_only: bool = True, tagged: bool = True
    ) -> np.ndarray:
        """``sum A grad log pi`` over the live steps of tags (if ``tagged``) and actions, in the parameters.

        Raises:
            ValueError: parameters, or advantages that are not one finite number a step.
        """
        from klsim.kernels import search_world as kernels

        (weight,) = _validate.numpy_arrays(advantages=advantages)
        if weight.shape != episodes.tags.shape:
            _validate.fail("advantages", f"must have shape {episodes.tags.shape}, got {weight.shape}")
        _validate.finite("advantages", np, weight)
        _, _, tags, actions, opened, fail, found, length, _ = episodes
        return np.asarray(
            kernels.ascend(
                self._checked(policy), episodes.task, tags, actions, opened, fail, found, length,
                np.ascontiguousarray(weight, dtype=np.float64), self.boxes, first_only, tagged,
            )
        )  # fmt: skip

    def train(
        self,
        pay: MetaRewards,
        *,
        record: Sequence[int] = (150,),
        environments: int = 8,
        group: int = 8,
        lr: float = 0.3,
        rng: np.random.Generator | int = 0,
    ) -> np.ndarray:
        """Policies after ``record`` updates (rising numbers), ``(R, parameters)``, from `start`.

        An update adds ``lr 4/(live steps)`` times `gradient` of ``environments`` groups, each with one task and target.

        Raises:
            ValueError: numbers out of range; a learning rate with which parameters exceed 300.
        """
        from klsim.kernels import search_world as kernels

        _validate.instance("pay", pay, MetaRewards)
        marks = np.ascontiguousarray(_validate.integers("record", record, low=0), dtype=np.int64)
        if marks.ndim != 1 or not marks.size or np.any(np.diff(marks) <= 0):
            _validate.fail("record", "must be rising numbers of updates", list(record))
        sizes = (
            _validate.integer("environments", environments, low=1),
            _validate.integer("group", group, low=2),
        )
        lr = _validate.real("lr", lr, low=0.0, high=10.0)
        out = kernels.train(
            self.start(), self.tasks, self.boxes, self.horizon, self.usual, sizes, lr, pay.alpha, pay.pooled,
            pay.first_only, pay.planning, pay.until_found, marks, _validate.generator(rng),
        )  # fmt: skip
        if not np.all(np.abs(out) <= _LARGEST_LOGIT):
            _validate.fail("lr", f"is too large: parameters exceed {_LARGEST_LOGIT:g}", lr)
        return np.asarray(out)

    def clone(
        self, trajectories: int = 200, *, steps: int = 300, lr: float = 1.0, rng: np.random.Generator | int = 0
    ) -> np.ndarray:
        """Maximum likelihood on an expert's actions: the usual box, others uniformly until found, then submit.

        ``steps`` full-batch steps on the mean log-likelihood of actions, from `start`.

        Raises:
            ValueError: numbers out of range.
        """
        trajectories = _validate.integer("trajectories", trajectories, low=1)
        steps, lr = _validate.integer("steps", steps, low=0), _validate.real("lr", lr, low=0.0, high=10.0)
        data = self.expert(trajectories, _validate.generator(rng))
        ones, x = np.ones(data.tags.shape), self.start()
        for _ in range(steps):
            x = x + lr / data.length.sum() * self.gradient(x, data, ones, tagged=False)
        return x

    def expert(self, trajectories: int, rng: np.random.Generator) -> Episodes:
        """Episodes of the expert on training tasks, long enough to end; monitor tags."""
        task, target = self.draw_tasks("seen", trajectories, rng)
        longest = self.boxes + 1
        opened, actions = np.zeros((2, trajectories, longest), np.int64)
        found, length = np.zeros((trajectories, longest), np.int64), np.zeros(trajectories, np.int64)
        for e, (own, place) in enumerate(zip(task, target)):
            rest = rng.permutation(np.delete(np.arange(self.boxes), own))
            order = np.concatenate([[own], rest])
            count = int(np.flatnonzero(order == place)[0]) + 1
            actions[e, :count], actions[e, count] = order[:count], self.boxes
            opened[e, 1 : count + 1] = np.cumsum(1 << order[:count])
            found[e, count], length[e] = 1, count + 1
        tags, fail = np.full(actions.shape, 3), np.zeros_like(actions)
        return Episodes(task, target, tags, actions, opened, fail, found, length, np.ones(trajectories))

    def draw_tasks(self, where: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Tasks and targets ``(count,)``: ``"seen"`` as in training, else uniform targets."""
        _validate.one_of("where", where, ("seen", "moved", "unseen"))
        task, target = rng.integers(0, self.tasks, count), rng.integers(0, self.boxes, count)
        return task, np.where((where == "seen") & (rng.random(count) < self.usual), task, target)

    def without_bias(self, policy: Any) -> np.ndarray:
        """The policy on tasks that it has never seen."""
        x = self._checked(policy).copy()
        x[8:-3] = 0.0
        return x

    def measure(
        self,
        policy: Any,
        where: str = "unseen",
        *,
        episodes: int = 4000,
        first_only: bool = True,
        rng: np.random.Generator | int = 0,
    ) -> Measured:
        """Sampled: ``"seen"`` tasks (L0), ``"moved"`` (L1: the object anywhere), ``"unseen"`` (L2: no bias, either).

        Raises:
            ValueError: a bad policy, an unknown ``where``.
        """
        rng, count = _validate.generator(rng), _validate.integer("episodes", episodes, low=1)
        task, target = self.draw_tasks(where, count, rng)
        policy = self.without_bias(policy) if where == "unseen" else policy
        run = self.sample(policy, task, target, first_only=first_only, rng=rng)
        live = run.tags >= 0
        repeated = live & (run.actions < self.boxes) & ((run.opened >> run.actions) & 1 == 1)
        return Measured(
            float(run.success.mean()), float(repeated.sum() / live.sum()), float(run.length.mean()),
            float(np.sum(run.tags == 1) / live.sum()),
        )  # fmt: skip

    def mdp(self, *, new: float = 0.0, old: float = 0.0, success: float = 0.0, step: float = 0.0) -> TabularMDP:
        """Unseen tasks as a `TabularMDP`: state ``2 v + found`` after v boxes, the last one is the end.

        Actions: 0 opens a new box, 1 an opened one, 2 submits. Rewards: of either box, of a success, of every step.
        """
        n, end = self.boxes, 2 * self.boxes + 2
        transition, reward = np.zeros((end + 1, 3, end + 1)), np.zeros((end + 1, 3))
        legal = np.ones((end + 1, 3), dtype=bool)
        for v in range(n + 1):
            for found in (0, 1):
                s = 2 * v + found
                hit = 1.0 if found or v == n else 1.0 / (n - v)
                after = min(2 * v + 2, 2 * n)
                transition[s, NEW, after + 1] += hit
                transition[s, NEW, after] += 1 - hit
                transition[s, OLD, s] = transition[s, SUBMIT, end] = 1.0
                reward[s] = new + step, old + step, success * found + step
                legal[s, NEW], legal[s, OLD] = v < n, v > 0
        transition[end, :, end] = 1.0
        return TabularMDP(transition, reward, np.eye(end + 1)[0], self.horizon, legal)

    def lumped(self, policy: Any) -> np.ndarray:
        """``log pi(action|state)`` in `mdp` on unseen tasks, ``(S, 3)``; submit at the end state."""
        x, n = self._checked(policy), self.boxes
        out = np.full((2 * n + 3, 3), -np.inf)
        with np.errstate(divide="ignore"):
            for v in range(n + 1):
                for found in (0, 1):
                    logits = np.array([np.log(n - v), np.log(v) + x[-3], x[-2] + x[-1] * found])
                    out[2 * v + found] = logits - np.logaddexp.reduce(logits)
        out[-1] = -np.log(3)
        return out
