"""Figures of salsa: where averaging helps, what it costs, and the geometry of the two penalties."""

from __future__ import annotations

import numpy as np

from klsim.distributions import expectation, log_normalize
from klsim.divergences import kl
from klsim.optima import kl_regularized
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import STEPS, Sft, World, pool, reinforce

figures = Figures()
INSTANCES = 400


def drawn(run, correlation=0.0, aligned=True):
    return Sft.draw([run.rng("sft", i) for i in range(INSTANCES)], correlation, aligned)


def gain(sft, beta=None):
    """Soup minus the mean of the two models, before RL or at equal beta."""
    laws = (sft.p1, sft.p2, pool(sft.p1, sft.p2))
    one, two, both = (
        expectation(p, sft.reward) if beta is None else kl_regularized(p, sft.reward, beta).reward for p in laws
    )
    return both - (one + two) / 2


@figures.figure(
    "reward-by-weight",
    title="Reward of the optimum against the mixing weight",
    caption="40 responses, two SFT models with independent errors around the reward, 400 instances; difference to the weight 0 (the first model)"
    " with its 95 % interval. The best weight is near the middle at every beta (C4; the paper's reward against mixing weight is on LLMs).",
    draw=Lines("w", "gain", by="beta", label="beta = {}", xlabel="weight w of the second model", ylabel="reward minus that at w = 0",
               levels={0.0: ""}),
)  # fmt: skip
def reward_by_weight(run):
    sft, weights = drawn(run), np.linspace(0, 1, 11)
    for beta in (0.3, 0.7, 2.0):
        rewards = [kl_regularized(pool(sft.p1, sft.p2, w), sft.reward, beta).reward for w in weights]
        yield {"beta": beta, "w": weights, **over_seeds(gain=np.transpose(rewards) - rewards[0][:, None])}


@figures.figure(
    "gain-by-correlation",
    title="The gain of averaging against the correlation of the SFT errors",
    caption="400 instances, 95 % interval; soup minus the mean of the two models. Solid: errors around the reward; dashed: around something unrelated"
    " to it. There the gain before RL vanishes, the gain at equal beta does not: it is no evidence of a better place (C4-located).",
    draw=Lines("correlation", "gain", by="gain of", xlabel="correlation of the two models' errors", ylabel="gain in reward",
               levels={0.0: ""}, styles={"before RL, unrelated": {"linestyle": "--"}, "at beta = .7, unrelated": {"linestyle": "--"}}),
)  # fmt: skip
def gain_by_correlation(run):
    correlations = np.linspace(0, 1, 9)
    for aligned in (True, False):
        models = [drawn(run, rho, aligned) for rho in correlations]
        for name, beta in (("before RL", None), ("at beta = .7", 0.7)):
            gains = np.transpose([gain(sft, beta) for sft in models])
            yield {
                "gain of": name + ("" if aligned else ", unrelated"),
                "correlation": correlations,
                **over_seeds(gain=gains),
            }


@figures.figure(
    "training-curves",
    title="REINFORCE with one SFT model, or the soup, as reference",
    caption="Log-linear policies, SFT fits of 40 pairs, beta = .5, exact scores, 30 worlds, same draws for both references; band: 95 % interval"
    " over worlds (differences are paired and far tighter, C6). The soup lets the policy go further.",
    size=(9.0, 3.8),
    draw=Many("panel", {
        "reward": Lines("step", "value", by="reference", xlabel="REINFORCE step", ylabel="reward on training contexts", markers=False),
        "KL": Lines("step", "value", by="reference", xlabel="REINFORCE step", ylabel="KL to the start, nats", markers=False),
    }, titles={"reward": "reward", "KL": "distance from the start"}),
)  # fmt: skip
def training_curves(run):
    world, marks = World.draw([run.rng("world", seed) for seed in range(30)]), tuple(range(0, STEPS, 20))
    for name, ref in (("one SFT model", world.theta1), ("soup", (world.theta1 + world.theta2) / 2)):
        final, kept = reinforce(world, ref, 0.5, record=marks)
        scores = np.array([world.scores(theta) for theta in (*kept, final)])
        for panel, column in (("reward", 0), ("KL", 2)):
            yield {"panel": panel, "reference": name, "step": [*marks, STEPS], **over_seeds(value=scores[:, column].T)}


@figures.figure(
    "reward-against-kl",
    title="Reward against distance: equal beta is not equal distance",
    caption="Left: one instance of C5, exact optima over beta in [.1, 10]; the soup's optima against their KL to the first model, to the second and"
    " to the soup; crosses: beta = .7. Against the KL to the first model they lie below its own frontier. Right: sampled REINFORCE, mean of"
    " 30 worlds, beta from .15 to 1.2; crosses: beta = .5 (C5, C6).",
    size=(9.5, 4.2),
)
def reward_against_kl(run):
    sft, betas = Sft.draw([run.rng("instance")]), np.logspace(1, -1, 41)
    p1, p2, reward = sft.p1[0], sft.p2[0], sft.reward[0]
    own, soup = (kl_regularized(p, reward, betas) for p in (p1, pool(p1, p2)))
    yield {"panel": "exact", "curve": "frontier of model 1", "beta": betas, "kl": own.kl, "reward": own.reward}
    for name, centre in (
        ("soup, KL to model 1", p1),
        ("soup, KL to model 2", p2),
        ("soup, KL to the soup", pool(p1, p2)),
    ):
        yield {"panel": "exact", "curve": name, "beta": betas, "kl": kl(soup.log_policy, centre), "reward": soup.reward}
    world, steps = (
        World.draw([run.rng("world", seed) for seed in range(30)]),
        np.array([0.15, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2]),
    )
    for name, ref in (("one SFT model", world.theta1), ("soup", (world.theta1 + world.theta2) / 2)):
        scores = np.array([world.scores(reinforce(world, ref, beta)) for beta in steps]).mean(axis=2)
        yield {"panel": "REINFORCE", "curve": name, "beta": steps, "kl": scores[:, 2], "reward": scores[:, 0]}


@reward_against_kl.draw
def _(table, figure):
    for axes, (panel, at) in zip(figure.subplots(1, 2), (("exact", 0.7), ("REINFORCE", 0.5))):
        rows = table.rows(panel=panel)
        for name, style in zip(rows.distinct("curve"), ("-", "--", ":", "-.")):
            curve = rows.rows(curve=name)
            (line,) = axes.plot(curve["kl"], curve["reward"], style, label=name)
            near = np.argmin(np.abs(np.log(curve["beta"] / at)))
            axes.plot(
                curve["kl"][near], curve["reward"][near], "x", color=line.get_color(), markersize=8, markeredgewidth=2
            )
        axes.set(xlabel="KL, nats" if panel == "exact" else "KL to the start, nats", title=panel)
        axes.legend(loc="lower right")
    figure.axes[0].set_ylabel("reward of the optimum")
    figure.axes[1].set_ylabel("reward on training contexts")


P1, P2, REWARD = np.log([0.7, 0.2, 0.1]), np.log([0.1, 0.2, 0.7]), np.array([0.0, 1.0, 0.3])


def ball(centre, radius, count=181):
    """The boundary of ``KL(pi ‖ centre) <= radius``, in polar coordinates of the simplex around the centre."""
    middle, points = np.exp(centre), []
    for angle in np.linspace(0, 2 * np.pi, count):
        ray = np.cos(angle) * np.array([1, -1, 0]) / np.sqrt(2) + np.sin(angle) * np.array([1, 1, -2]) / np.sqrt(6)
        low, high = 0.0, float(np.min(-middle[ray < 0] / ray[ray < 0]))
        for _ in range(60):
            half = (low + high) / 2
            law = log_normalize(np.log(np.maximum(middle + half * ray, 1e-300)))
            low, high = (half, high) if kl(law, centre) < radius else (low, half)
        points.append(middle + low * ray)
    return np.array(points)


@figures.figure(
    "geometry",
    title="Two models, their soup, and the optima",
    caption="p1 = (.7, .2, .1), p2 = (.1, .2, .7), reward (0, 1, .3), beta = .5. Balls of reverse KL .2 around p1 and around the soup; dashed: mixtures"
    " of the models, dotted: those of their optima (straight in log-ratios). The optimum of the soup is the pool of the optima, (.119, .664, .217)"
    " between (.297, .626, .077) and (.035, .518, .447) (C2, C3).",
    size=(6.5, 5.6),
)
def geometry(run):
    weights, optima = np.linspace(0, 1, 61), [kl_regularized(p, REWARD, 0.5).log_policy for p in (P1, P2)]
    parts = {
        "KL(pi ‖ p1) <= .2": ball(P1, 0.2),
        "KL(pi ‖ soup) <= .2": ball(pool(P1, P2), 0.2),
        "pools of the models": _pools(P1, P2, weights),
        "pools of the optima": _pools(*optima, weights),
    }
    points = {
        "p1": P1,
        "p2": P2,
        "soup": pool(P1, P2),
        "optimum of p1": optima[0],
        "optimum of p2": optima[1],
        "optimum of the soup": pool(*optima),
    }
    for kind, group in (("curve", parts), ("point", {name: np.exp(law)[None] for name, law in points.items()})):
        for name, laws in group.items():
            yield {"kind": kind, "what": name, "a": laws[:, 0], "b": laws[:, 1], "c": laws[:, 2]}


def _pools(one, two, weights):
    return np.array([np.exp(pool(one, two, w)) for w in weights])


@geometry.draw
def _(table, figure):
    axes = figure.subplots()
    axes.set_aspect("equal")

    def flat(rows):
        return rows["b"] / 2 + rows["c"], rows["b"] * np.sqrt(3) / 2

    axes.plot([0, 1, 0.5, 0], [0, 0, np.sqrt(3) / 2, 0], color="0.3", linewidth=1)
    for corner, (x, y), side in (
        ("response 1", (0, 0), "top"),
        ("response 3", (1, 0), "top"),
        ("response 2 (best)", (0.5, 0.87), "bottom"),
    ):
        axes.annotate(
            corner, (x, y), ha="center", va=side, xytext=(0, -4 if side == "top" else 4), textcoords="offset points"
        )
    for name, style in zip(table.rows(kind="curve").distinct("what"), ("-", "-", "--", ":")):
        axes.plot(*flat(table.rows(kind="curve", what=name)), style, label=name)
    for name, marker in zip(table.rows(kind="point").distinct("what"), ("o", "s", "D", "o", "s", "D")):
        optimum = name.startswith("optimum")
        axes.plot(*flat(table.rows(kind="point", what=name)), marker, color="black", markersize=7, label=name,
                  markerfacecolor="black" if optimum else "white")  # fmt: skip
    axes.axis("off")
    axes.legend(loc="upper left", bbox_to_anchor=(0.72, 1.0))
