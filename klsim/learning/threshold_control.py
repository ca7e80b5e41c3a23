r"""A KL threshold that follows the reward: a PID loop on its velocity times a phase of training, for many runs at once.

.. math:: m_t = m_{t-1} + s(r_t - m_{t-1}),\quad e_t = m_t - m_{t-1} - v,\quad
    I_t = clip(I_{t-1} + e_t, \pm w),\quad \tau_t = clip((\tau_0 + k_p e_t + k_i I_t + k_d(e_t - e_{t-1}))\,\phi_t)

with ``e_0 = I_0 = 0``. The loop never sees the KL: it is open in what it controls. For rewards in [0, 1]
`control_bound` bounds it, and the integral is a walk ``Z_t = m_t - m_0 - v t`` reflected at ``-w``
(`reflected_integral`): with ``v > 0`` it winds up, whatever the reward does.

`klsim.objectives.AdaptiveThreshold` is one such loop at the published gains, update by update.

Source: ``safe`` C4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "PHASES",
    "Gains",
    "ThresholdLoop",
    "ThresholdTrace",
    "control_bound",
    "reflected_integral",
    "threshold_trace",
]

PHASES = {"warmup": 1.5, "climbing": 1.2, "plateau": 0.8, "converged": 1.0}
"""The phases by name, in the order of their codes, and what each multiplies the threshold with."""


@dataclass(frozen=True)
class Gains:
    """Of the loop: proportional, integral, derivative; target velocity; rate of the average; bound of the integral.

    ``base`` and ``low``, ``high`` are of the threshold (nats). The defaults are SAFE's.
    """

    proportional: float = 0.3
    integral: float = 0.01
    derivative: float = 0.05
    velocity: float = 0.001
    rate: float = 0.05
    windup: float = 1.0
    base: float = 0.3
    low: float = 0.1
    high: float = 0.6

    def __post_init__(self) -> None:
        for name in ("proportional", "integral", "derivative", "velocity"):
            _validate.real(name, getattr(self, name), low=-1e100, high=1e100)
        _validate.probability("rate", self.rate)
        _validate.real("windup", self.windup, low=0.0, high=1e100)
        for name in ("base", "low"):
            _validate.real(name, getattr(self, name), low=0.0, high=1e100)
        _validate.real("high", self.high, low=self.low)

    def scaled(self, factor: float) -> Gains:
        """The same loop with its three gains times ``factor``."""
        factor = _validate.real("factor", factor, low=-1e50, high=1e50)
        parts = (factor * self.proportional, factor * self.integral, factor * self.derivative)
        rest = (self.velocity, self.rate, self.windup, self.base, self.low, self.high)
        return Gains(*parts, *rest)

    @property
    def of_loop(self) -> np.ndarray:
        """What the kernel takes."""
        return np.array([self.proportional, self.integral, self.derivative, self.velocity, self.rate, self.windup])


@dataclass(frozen=True)
class ThresholdTrace:
    """Along every run, ``(..., T)``: average m, error e, integral I, PID output, code of the phase, its factor, tau."""

    smoothed: np.ndarray
    error: np.ndarray
    integral: np.ndarray
    control: np.ndarray
    phase: np.ndarray
    factor: np.ndarray
    threshold: np.ndarray


def _curves(name: str, curves: Any) -> np.ndarray:
    (curves,) = _validate.numpy_arrays(**{name: curves})
    curves = np.asarray(curves, dtype=np.float64)
    if curves.ndim == 0 or curves.shape[-1] == 0:
        _validate.fail(name, f"needs a non-empty last axis, got shape {curves.shape}")
    index = _validate.first_true(np, ~(np.abs(curves) <= 1e100))
    if index is not None:
        _validate.fail(name, "must be finite (and at most 1e100 in size)", float(curves[index]), index)
    return curves


class ThresholdLoop:
    """The loop of ``runs`` runs for at most ``steps`` updates: ``update(reward) -> tau``, both ``(runs,)``."""

    def __init__(self, runs: int, steps: int, gains: Gains | None = None) -> None:
        runs, steps = _validate.integer("runs", runs, low=1), _validate.integer("steps", steps, low=1)
        _validate.fits("steps", steps, runs, each=48)
        self.gains = Gains() if gains is None else gains
        _validate.instance("gains", self.gains, Gains)
        self.taken = 0
        self._rewards = np.zeros((runs, steps))
        self._state = np.zeros((runs, 3))
        self._out = [np.zeros((runs, steps)) for _ in range(4)] + [np.zeros((runs, steps), dtype=np.int64)]

    def update(self, reward: Any) -> np.ndarray:
        """The thresholds after one more batch with these mean rewards."""
        reward = _curves("reward", reward)
        runs, steps = self._rewards.shape
        if reward.shape != (runs,):
            _validate.fail("reward", f"must have shape {(runs,)}, got {reward.shape}")
        if self.taken == steps:
            _validate.fail("reward", f"comes after the {steps} steps that were announced")
        self._rewards[:, self.taken] = reward
        self._follow(self.taken + 1)
        return self._trace(slice(self.taken - 1, self.taken)).threshold[:, 0]

    def _follow(self, stop: int) -> None:
        from klsim.kernels.threshold import follow_threshold

        follow_threshold(self._rewards, self.taken, stop, self.gains.of_loop, self._state, *self._out)
        self.taken = stop

    def _trace(self, steps: slice) -> ThresholdTrace:
        smoothed, error, integral, control, phase = (x[:, steps] for x in self._out)
        factor = np.array(list(PHASES.values()))[phase]
        raw = (self.gains.base + control) * factor
        return ThresholdTrace(
            smoothed, error, integral, control, phase, factor, np.clip(raw, self.gains.low, self.gains.high)
        )

    @classmethod
    def along(cls, rewards: np.ndarray, gains: Gains | None) -> ThresholdTrace:
        """The trace of whole curves ``(n, T)``."""
        loop = cls(rewards.shape[0], rewards.shape[1], gains)
        loop._rewards[:] = rewards
        loop._follow(rewards.shape[1])
        return loop._trace(slice(None))


def threshold_trace(rewards: Any, gains: Gains | None = None) -> ThresholdTrace:
    """What the loop does along reward curves ``(..., T)``, one update a reward.

    Raises:
        ValueError: an empty curve; a reward that is not finite, or beyond 1e100.
    """
    rewards = _curves("rewards", rewards)
    found = ThresholdLoop.along(rewards.reshape(-1, rewards.shape[-1]), gains)
    return ThresholdTrace(*(x.reshape(rewards.shape) for x in vars(found).values()))


def control_bound(gains: Gains | None = None, *, derivative: str = "exact") -> float:
    """The PID output never exceeds this in size, for rewards in [0, 1] and gains >= 0.

    ``k_p (s + v) + k_i w + k_d b``: an average in [0, 1] moves by at most the rate s. For the change of the error
    ``b = s (1 + s)`` holds (and ``s + v``, of the first one), since it is
    ``s (r_t - r_{t-1} - s (r_{t-1} - m_{t-2}))``; ``derivative="crude"`` takes twice the rate.
    """
    gains = Gains() if gains is None else gains
    _validate.instance("gains", gains, Gains)
    _validate.one_of("derivative", derivative, ("exact", "crude"))
    s, v = gains.rate, abs(gains.velocity)
    change = 2 * s if derivative == "crude" else s * (1 + s)
    sizes = abs(gains.proportional), abs(gains.integral), abs(gains.derivative)
    return sizes[0] * (s + v) + sizes[1] * gains.windup + sizes[2] * max(change, s + v)


def reflected_integral(smoothed: Any, gains: Gains | None = None) -> np.ndarray:
    """The integral in closed form, ``(..., T)``: ``Z_t - min(-w, min_{s<=t} Z_s) - w``, ``Z = m_t - m_0 - v t``.

    Holds where the upper bound w is never met: for rewards in [0, 1], ``v >= 0`` and ``w >= 1``.

    Args:
        smoothed: the averages m, ``(..., T)``.
    """
    smoothed = _curves("smoothed", smoothed)
    gains = Gains() if gains is None else gains
    _validate.instance("gains", gains, Gains)
    walk = smoothed - smoothed[..., :1] - gains.velocity * np.arange(smoothed.shape[-1])
    lowest = np.minimum(-gains.windup, np.minimum.accumulate(walk, axis=-1))
    return np.asarray(walk - lowest - gains.windup)
