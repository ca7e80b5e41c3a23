"""The token simulator of BroRL (arXiv 2510.01180, Sec. 4.1): a large softmax trained by sampled steps.

Every step draws ``rollouts`` tokens, rewards correct ones +1 and the rest -1, centres by the batch mean
and follows the gradient of ``(1/N) sum_j r_j pi_{i_j}``, with AdamW or SGD. The state is plain arrays, so a
long run can be cut anywhere and continued: the random numbers of a step depend on seed and step only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from klsim import _validate

__all__ = ["SimulatorConfig", "SimulatorRun", "SimulatorState", "simulate_tokens"]

_BLOCK = 50  # steps that share one random stream


@dataclass(frozen=True)
class SimulatorConfig:
    """Settings of a run.

    Attributes:
        tokens, correct: vocabulary size, and how many of it (the first ones) are correct.
        rollouts: draws a step, N.
        optimiser: ``"adamw"`` or ``"sgd"``.
        lr, epsilon, weight_decay, beta1, beta2: of the optimiser.
        seed_logit: initial logit of the correct tokens (the others have 0).
        anchor_logit: initial logit of the first (correct) token; None for no anchor.
        seed: of the random numbers.
    """

    tokens: int = 12_800
    correct: int = 1_000
    rollouts: int = 16
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 5e-3
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    seed_logit: float = 3.0
    anchor_logit: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.integer("tokens", self.tokens, low=2)
        _validate.integer("correct", self.correct, low=1, high=self.tokens - 1)
        _validate.integer("rollouts", self.rollouts, low=1)
        _validate.integer("seed", self.seed, low=0)
        _validate.one_of("optimiser", self.optimiser, ("adamw", "sgd"))
        _validate.real("lr", self.lr, low=0.0, high=1e12, open_low=True)
        for name in ("epsilon", "weight_decay"):
            _validate.real(name, getattr(self, name), low=0.0, high=1e12)
        for name in ("beta1", "beta2"):
            _validate.real(name, getattr(self, name), low=0.0, high=1.0, open_high=True)
        _validate.real("seed_logit", self.seed_logit, low=-1e12, high=1e12)
        if self.anchor_logit is not None:
            _validate.real("anchor_logit", self.anchor_logit, low=-1e12, high=1e12)
        _validate.fits("tokens", self.tokens, self.tokens, each=64)
        _validate.fits("rollouts", self.rollouts, self.rollouts, each=16)

    def initial_logits(self) -> np.ndarray:
        """Logits at step 0, correct tokens first."""
        logits = np.zeros(self.tokens)
        logits[: self.correct] = self.seed_logit
        if self.anchor_logit is not None:
            logits[0] = self.anchor_logit
        return logits


@dataclass(frozen=True)
class SimulatorState:
    """Logits and optimiser moments after ``done`` steps."""

    logits: np.ndarray
    first: np.ndarray
    second: np.ndarray
    done: int

    @classmethod
    def start(cls, config: SimulatorConfig) -> SimulatorState:
        """The state before the first step."""
        logits = config.initial_logits()
        return cls(logits, np.zeros_like(logits), np.zeros_like(logits), 0)


@dataclass(frozen=True)
class SimulatorRun:
    """Curves after each of the steps taken, and the final state.

    Attributes:
        correct_mass: ``Q+``. improved: share of correct tokens above their initial probability.
        worst_drop: smallest ``pi_t - pi_0`` of a correct token, at most 0.
    """

    correct_mass: np.ndarray
    improved: np.ndarray
    worst_drop: np.ndarray
    state: SimulatorState


def simulate_tokens(config: SimulatorConfig, steps: int, state: SimulatorState | None = None) -> SimulatorRun:
    """Take ``steps`` steps from ``state`` (default: the start).

    Cutting a run into pieces of whole blocks of 50 steps gives the same numbers as one run.

    Raises:
        ValueError: ``steps < 0``, or a state that is not at a block boundary or of another size.
    """
    from klsim.kernels.simulator import simulate

    _validate.instance("config", config, SimulatorConfig)
    steps = _validate.integer("steps", steps, low=0)
    _validate.fits("steps", steps, steps, each=24)
    if state is not None:
        _validate.instance("state", state, SimulatorState)
    state = SimulatorState.start(config) if state is None else state
    if state.done % _BLOCK or state.logits.shape != (config.tokens,):
        _validate.fail("state", f"must hold {config.tokens} logits after a multiple of {_BLOCK} steps")
    logits, first, second = (a.copy() for a in (state.logits, state.first, state.second))
    initial = config.initial_logits()
    start = np.exp(initial - initial.max())
    start /= start.sum()
    correct = np.arange(config.tokens) < config.correct
    record = np.empty((steps, 3))
    for begin in range(0, steps, _BLOCK):
        block = min(_BLOCK, steps - begin)
        done = state.done + begin
        rng = np.random.default_rng([config.seed, config.rollouts, done // _BLOCK])
        simulate(
            logits, first, second, done, block, config.rollouts, correct, start, config.optimiser == "adamw",
            config.lr, config.beta1, config.beta2, config.epsilon, config.weight_decay, rng,
            record[begin : begin + block],
        )  # fmt: skip
    after = SimulatorState(logits, first, second, state.done + steps)
    return SimulatorRun(record[:, 0], record[:, 1], record[:, 2], after)
