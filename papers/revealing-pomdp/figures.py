"""Figures of revealing-pomdp: samples against symbols, regret against episodes, the lock, two constants of Walsh emissions."""

from __future__ import annotations

import numpy as np

from klsim.planning.revealing import revealing_constant, separation
from klsim.problems.revealing_lock import revealing_lock
from klsim.report.drawings import Lines
from klsim.report.figures import Figures
from klsim.uniformity import samples_for_mixture

from .setting import collisions_needed, costly_regret, free_regret, known_needed, solve_lock, walsh

figures = Figures()
GUIDE = {"marker": "", "linestyle": ":", "color": "0.4"}


@figures.figure(
    "samples",
    title="Samples to tell an uneven law from the uniform one",
    caption="sigma = .5, exact. Lower bound: chi² of the mixture over unknown theta reaches 1 (no test has an error much below 1/4 before)."
    " Collision test: error 1/3, where doubling and bisection find it. With theta known the number of symbols does not matter (C4, C5).",
    size=(6.0, 4.0),
    draw=Lines("symbols", "samples", by="series", xscale="log", yscale="log", xlabel="symbols O", ylabel="samples n", styles={
        "slope 1/2": GUIDE}),
)  # fmt: skip
def samples(run):
    symbols = np.array([16, 32, 64, 128, 256, 512, 1024])
    yield {
        "series": "collision test, error 1/3",
        "symbols": symbols,
        "samples": [collisions_needed(int(o), 0.5) for o in symbols],
    }
    yield {
        "series": "theta unknown, chi² = 1",
        "symbols": symbols,
        "samples": [samples_for_mixture(int(o), 0.5) for o in symbols],
    }
    yield {"series": "theta known, chi² = 1", "symbols": symbols, "samples": np.full(symbols.size, known_needed(0.5))}
    yield {"series": "slope 1/2", "symbols": symbols, "samples": 2.2 * np.sqrt(symbols)}


@figures.figure(
    "price-of-information",
    title="Regret with costly and with free observations",
    caption="Two candidates, sigma = .3, worst gap. Costly: N reveals a candidate at 1/2 each, best N, then commit. Free: both seen every"
    " episode, the leader followed (C6).",
    size=(6.0, 4.0),
    draw=Lines("episodes", "regret", by="series", xscale="log", yscale="log", xlabel="episodes T", ylabel="regret (reward)", styles={
        "slope 2/3": GUIDE, "slope 1/2": {**GUIDE, "linestyle": "--"}}),
)  # fmt: skip
def price_of_information(run):
    episodes = np.logspace(4, 8, 9)
    costly = np.array([costly_regret(t, 0.3)[1] for t in episodes])
    free = np.array([free_regret(t, 0.3) for t in episodes])
    yield {"series": "costly", "episodes": episodes, "regret": costly}
    yield {"series": "free", "episodes": episodes, "regret": free}
    yield {"series": "slope 2/3", "episodes": episodes, "regret": 1.6 * costly[0] * (episodes / 1e4) ** (2 / 3)}
    yield {"series": "slope 1/2", "episodes": episodes, "regret": 0.6 * free[0] * (episodes / 1e4) ** 0.5}


@figures.figure(
    "lock",
    title="Episodes until the combination lock is open",
    caption="A = 3, O = 8, sigma = .8, 60 reveals a prefix; 30 of 30 keys found at every H. Guessing: exact mean A^H and the mean of 30 runs (C7).",
    size=(6.0, 4.0),
    draw=Lines("steps", "episodes", by="series", yscale="log", xlabel="length of the key H", ylabel="episodes", styles={
        "guessing, 30 runs": {"linestyle": "none"}, "guessing, A^H": GUIDE}),
)  # fmt: skip
def lock(run):
    steps = np.array([3, 5, 7, 9])
    yield {"series": "with reveals", "steps": steps, "episodes": [_opened(int(h), run) for h in steps]}
    guesses = [run.rng("guess", int(h)).geometric(3.0**-h, 30).mean() for h in steps]
    yield {"series": "guessing, 30 runs", "steps": steps, "episodes": guesses}
    yield {"series": "guessing, A^H", "steps": steps, "episodes": 3.0**steps}


def _opened(steps, run):
    """Mean episodes of 30 runs, all of which must find the key."""
    used = []
    for seed in range(30):
        rng = run.rng("lock", steps, seed)
        key = rng.integers(0, 3, steps)
        found, episodes = solve_lock(revealing_lock(key, 3, rng.choice((-1, 1), 4), 0.8), 60, rng)
        if not np.array_equal(found, key):
            raise ValueError(f"a lock of {steps} steps was not opened (seed {seed})")
        used.append(episodes)
    return float(np.mean(used))


@figures.figure(
    "two-constants",
    title="Two readings of alpha on Walsh emissions",
    caption="eps = .2, O = 2^S symbols. The constant of the left inverse falls as 1/S, the smallest ratio of l1 norms as 1/sqrt(S); they agree"
    " up to four states. Dotted: the bounds 2 eps/S and eps/sqrt(2S) (C2).",
    size=(6.0, 4.0),
)  # fmt: skip
def two_constants(run):
    states = np.arange(2, 8)
    matrices = [walsh(int(s), 0.2) for s in states]
    yield {"series": "smallest ratio ‖Mv‖/‖v‖", "states": states, "constant": [separation(m) for m in matrices]}
    yield {"series": "left inverse, 1/‖G‖", "states": states, "constant": [revealing_constant(m) for m in matrices]}
    yield {"series": "upper bound of alpha, 2 eps/S", "states": states, "constant": 0.4 / states}
    yield {"series": "lower bound of the ratio, eps/sqrt(2S)", "states": states, "constant": 0.2 / np.sqrt(2 * states)}


@two_constants.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("states", "constant", by="series", xscale="log", yscale="log", styles={
        "upper bound of alpha, 2 eps/S": {**GUIDE, "linestyle": "--"}, "lower bound of the ratio, eps/sqrt(2S)": GUIDE,
    }).on(axes, table)  # fmt: skip
    states, values = table.distinct("states"), (0.04, 0.06, 0.1, 0.2)
    axes.set_xticks(states, [f"{s:g}" for s in states])
    axes.set_yticks(values, [f"{v:g}" for v in values])
    axes.minorticks_off()
    axes.set(xlabel="states S", ylabel="revealing constant alpha")
    axes.legend()
