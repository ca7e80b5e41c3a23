"""S: choosing one of n samples: soft best-of-n, majority vote, rejection, best-of-n by a noisy score."""

from __future__ import annotations

import numpy as np
from scipy import stats

from klsim import best_of_n
from klsim.claims import Effect, Identity, Inequality, Limit
from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import kl, tv
from klsim.estimator_moments import draws
from klsim.selection_rules import majority_vote, noisy_best_of_n, rejection, soft_best_of_n
from klsim.spaces import Floats, Integers, Policies, Rewards, Sizes, Space

from .collection import paper

SAMPLED = {"log_p": Policies(), "reward": Rewards(), "n": Integers(1, 5), "A": Sizes(1, 4)}


def chosen(log_p, n, weights):
    """Law of the choice by enumeration: draw i is taken with the share of ``weights(outcomes)[i]``."""
    outcomes, probability = draws(log_p, n)
    share = weights(outcomes)
    share = share / share.sum(axis=1, keepdims=True)
    return np.array([probability @ (share * (outcomes == a)).sum(axis=1) for a in range(len(log_p))])


# S1 ------------------------------------------------------------------------------------------------
S1 = paper.claim("S1", r"""
    Soft best-of-n in closed form: one integral for any n

    $P(y)=n\,p_yw_y\int_0^\infty e^{-sw_y}M(s)^{n-1}ds$, $M(s)=\sum_xp_xe^{-sw_x}$, $w=e^{r/T}$, is the law of a draw taken with probability
    $w_i/\sum_jw_j$. At $T\to0$ it is best-of-n, at $T\to\infty$ and at $n=1$ the reference.

    where: rule: arXiv 2505.03156; integral derived
    """)  # fmt: skip


@S1.check(
    Identity(1e-12, scale=1),
    Space(**SAMPLED, T=Floats(0.05, 20.0, log=True)),
    instances=60,
    batched=False,
    false={"of n - 1 draws": {"fewer": 1}},
)
def soft_by_enumeration(log_p, reward, n, T, *, fewer=0):
    law = chosen(log_p, max(n - fewer, 1), lambda y: np.exp((reward[y] - reward.max()) / T))
    return np.exp(soft_best_of_n(log_p, reward, n, T)), law


@S1.check(Identity(1e-12, scale=1), Space(log_p=Policies(), levels=Integers(2, 6), n=Integers(1, 500)), instances=60, batched=False,
          false={"at T = 1": {"T": 1.0}})  # fmt: skip
def cold_is_best_of_n(log_p, levels, n, *, T=1e-3):
    """Rewards with gaps of 1, a thousand temperatures."""
    reward = np.arange(len(log_p)) % levels * 1.0
    return np.exp(soft_best_of_n(log_p, reward, n, T)), np.exp(best_of_n.log_policy(log_p, reward, n))


# S2 ------------------------------------------------------------------------------------------------
S2 = paper.claim("S2", r"""
    The KL of soft best-of-n from the tilted law falls like 1/n

    $\mathrm{KL}(\pi_T\Vert\text{soft best-of-}n)=\Theta(1/n)$, $\pi_T\propto\pi_{ref}e^{r/T}$.

    where: the rate 1/n of arXiv 2505.03156, read as the rate of the KL
    instead: 1/n bounds it; the laws differ by order $1/n$, so the KL falls like $1/n^2$.
    by: S2-rate
    origin: as commonly read
    """)  # fmt: skip
SIZES = 2.0 ** np.arange(5, 15)
EXAMPLE = log_normalize(np.array([0.3, -0.4, 1.0, 0.1])), np.array([0.0, 1.0, 0.4, -0.7])


def distance(measure, T=0.7):
    log_p, reward = EXAMPLE
    target = tilt(log_p, reward, T)
    return SIZES, [float(measure(target, soft_best_of_n(log_p, reward, int(n), T))) for n in SIZES]


@S2.check(Limit(rate=-1.0, rate_tol=0.2), true={"the total variation": {"measure": tv}})
def kl_like_one_over_n(*, measure=kl):
    return distance(measure)


S2_rate = paper.claim("S2-rate", r"""
    Soft best-of-n tends to the tilted law: differences like 1/n, the KL like 1/n²

    To first order the weight of y is multiplied by $1+\frac1n\big(\frac{E[w^2]}{E[w]^2}-\frac{w_y}{E[w]}\big)$, up to normalisation.

    where: derived
    """)  # fmt: skip


@S2_rate.check(Limit(rate=-2.0, rate_tol=0.2), false={"the total variation": {"measure": tv}})
def kl_like_one_over_n_squared(*, measure=kl):
    return distance(measure)


@S2_rate.check(Limit(rate=-2.0, rate_tol=0.2), false={"without w_y": {"own": 0.0}})
def first_order(*, own=1.0, T=0.7):
    """The largest distance of probabilities after the correction."""
    log_p, reward = EXAMPLE
    w, target = np.exp(reward / T), np.exp(tilt(log_p, reward, T))
    relative = w / (np.exp(log_p) @ w)
    left = []
    for n in SIZES:
        corrected = target * (1 - own * relative / n)
        left.append(np.abs(np.exp(soft_best_of_n(log_p, reward, int(n), T)) - corrected / corrected.sum()).max())
    return SIZES, left


# S3 ------------------------------------------------------------------------------------------------
S3 = paper.claim("S3", r"""
    Majority vote in closed form

    The chance that an answer is the most frequent of n, ties broken uniformly, is
    $n!\,[z^n]\sum_c\frac{(p_az)^c}{c!}\int_0^1\prod_{b\ne a}\big(\sum_{j<c}\frac{(p_bz)^j}{j!}+t\frac{(p_bz)^c}{c!}\big)dt$. Two votes are as
    good as one.

    where: derived
    """)  # fmt: skip


@S3.check(Identity(1e-13, scale=1), Space(log_p=Policies(), n=Integers(1, 6), A=Sizes(1, 4)), instances=60, batched=False,
          false={"ties to every winner": {"shared": False}})  # fmt: skip
def votes_by_enumeration(log_p, n, *, shared=True):
    outcomes, probability = draws(log_p, n)
    count = (outcomes[:, :, None] == np.arange(len(log_p))).sum(axis=1)
    wins = (count == count.max(axis=1, keepdims=True)) * 1.0
    return majority_vote(log_p, n), probability @ (wins / wins.sum(axis=1, keepdims=True) if shared else wins)


@S3.check(
    Identity(1e-11), Space(log_p=Policies(), A=Sizes(1, 8)), instances=60, batched=False, false={"three": {"votes": 3}}
)
def two_votes_are_one(log_p, *, votes=2):
    return majority_vote(log_p, votes), np.exp(log_p)


# S4 ------------------------------------------------------------------------------------------------
S4 = paper.claim("S4", r"""
    More votes never make self-consistency worse

    The accuracy of a majority vote does not fall from $n$ to $n+2$ votes.

    where: self-consistency (arXiv 2203.11171), as commonly used
    instead: It tends to 1 only where the right answer is the likeliest, and to 0 where another is likelier. With two answers it rises with odd
    $n$ exactly where the right one has more than half.
    by: S4-two
    origin: folklore
    """)  # fmt: skip


@S4.check(Inequality(1e-12), Space(log_p=Policies(), n=Integers(1, 15), A=Sizes(2, 4)), instances=60, batched=False,
          true={"of the likeliest of two answers": {"likeliest": True}})  # fmt: skip
def never_worse(log_p, n, *, likeliest=False):
    """The first answer is right; in the variant the likelier of the first and the rest."""
    if likeliest:
        p = float(np.exp(log_p[0]))
        log_p, n = np.log([max(p, 1 - p), max(min(p, 1 - p), 1e-12)]), n | 1
    return majority_vote(log_normalize(log_p), n)[0], majority_vote(log_normalize(log_p), n + 2)[0]


S4_two = paper.claim("S4-two", r"""
    Condorcet: with two answers and odd n a vote moves towards the likelier one, by an explicit amount

    From $n=2m-1$ to $n+2$ votes accuracy changes by $\binom{2m-1}{m}(2p-1)(p(1-p))^m$, positive iff $p>1/2$.

    where: Condorcet's jury theorem; the difference is folklore
    """)  # fmt: skip


@S4_two.check(Identity(1e-13, scale=1), Space(p=Floats(0.02, 0.98), m=Integers(1, 20)), instances=100, batched=False,
              false={"without 2p - 1": {"lead": 0.0}, "with C(2m, m)": {"choose": 2.0}})  # fmt: skip
def change_of_accuracy(p, m, *, lead=1.0, choose=1.0):
    before, after = (majority_vote(np.log([p, 1 - p]), n)[0] for n in (2 * m - 1, 2 * m + 1))
    ways = stats.binom.pmf(m, 2 * m - 1, p) / (p**m * (1 - p) ** (m - 1))
    return after - before, choose * ways * (lead * (2 * p - 1) + (1 - lead)) * (p * (1 - p)) ** m


# S5 ------------------------------------------------------------------------------------------------
S5 = paper.claim("S5", r"""
    Rejection with n draws: law, KL, and where it is best-of-n

    The first of n draws with $r\ge\tau$, else the last, has the law $p(y)\frac{1-q^n}{1-q}$ above and $p(y)q^{n-1}$ below, $q=P(r<\tau)$. Its KL is
    $(1-q^n)\log\frac{1-q^n}{1-q}+q^n(n-1)\log q$. With rewards 0 and 1 and $0<\tau\le1$ it is best-of-n.

    where: folklore
    """)  # fmt: skip
TESTED = {"log_p": Policies(), "reward": Rewards(), "n": Integers(1, 5), "at": Floats(0.0, 1.0), "A": Sizes(1, 4)}


@S5.check(
    Identity(1e-13, scale=1),
    Space(**TESTED),
    instances=60,
    batched=False,
    false={"the first where none is": {"otherwise": 0}},
)
def rejection_by_enumeration(log_p, reward, n, at, *, otherwise=-1):
    threshold = reward.min() + at * np.ptp(reward)

    def taken(outcomes):
        fine = reward[outcomes] >= threshold
        place = np.where(fine.any(axis=1), fine.argmax(axis=1), otherwise % n)
        return np.eye(n)[place]

    # the last of n draws that all fail has the law of any of them: the first would do as well if it were the last
    law = (
        chosen(log_p, n, taken)
        if otherwise
        else chosen(log_p, max(n - 1, 1), lambda y: np.eye(y.shape[1])[np.zeros(len(y), int)])
    )
    return np.exp(rejection(log_p, reward, n, threshold)), law


@S5.check(Identity(1e-10, scale=1e-3), Space(log_p=Policies(), right=Policies(), n=Integers(1, 60), A=Sizes(2, 6)), instances=100, batched=False,
          false={"as of best-of-n, log n - (n-1)/n": {"continuous": True}, "without the failures": {"failures": 0.0}})  # fmt: skip
def kl_of_rejection(log_p, right, n, *, continuous=False, failures=1.0):
    reward = (right > np.median(right)) * 1.0
    q = float(np.exp(log_p) @ (reward < 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        passed = (1 - q**n) * np.log((1 - q**n) / (1 - q)) if q < 1 else 0.0
        lost = q**n * (n - 1) * np.log(q) if q > 0 else 0.0
    closed = np.log(n) - (n - 1) / n if continuous else passed + failures * lost
    return kl(rejection(log_p, reward, n, 0.5), log_p), closed


@S5.check(Identity(1e-13, scale=1), Space(log_p=Policies(), reward=Rewards(), n=Integers(1, 60)), instances=60, batched=False,
          false={"with graded rewards": {"levels": 3}})  # fmt: skip
def with_two_levels_it_is_best_of_n(log_p, reward, n, *, levels=2):
    order = np.argsort(np.argsort(reward, kind="stable"), kind="stable")
    graded = np.minimum(order * levels // len(reward), levels - 1) * 1.0
    return np.exp(rejection(log_p, graded, n, 1.0)), np.exp(best_of_n.log_policy(log_p, graded, n))


# S6 ------------------------------------------------------------------------------------------------
S6 = paper.claim("S6", r"""
    An independent error of the score only slows best-of-n down: more samples never lower the true reward

    With independent errors of one law the expected true reward of the best of $4n$ is at least that of the best of n.

    where: folklore of best-of-n with a reward model
    instead: With heavy tails (Student's t) the chosen sample is the one with the largest error, and the true reward goes back to that of the
    reference. With a log-concave error (normal) it never falls.
    by: S6-normal, S6-heavy
    origin: folklore
    """)  # fmt: skip
NOISES = {"t2": stats.t(2), "normal": stats.norm()}
SCORED = {
    "log_p": Policies(),
    "reward": Rewards(),
    "size": Floats(0.05, 5.0, log=True),
    "n": Integers(1, 200),
    "A": Sizes(2, 4),
}


def true_reward(log_p, reward, size, n, noise):
    """Expected reward of the draw with the best score, errors ``size`` times those of the law ``noise``."""
    unit = max(float(np.ptp(reward)), 1e-300)
    return float(expectation(noisy_best_of_n(log_p, reward / unit / size, n, NOISES[noise], nodes=801), reward))


@S6.check(
    Inequality(1e-9, scale=1), Space(**SCORED), instances=60, batched=False, true={"normal errors": {"noise": "normal"}}
)
def more_samples_never_hurt(log_p, reward, size, n, *, noise="t2"):
    return true_reward(log_p, reward, size, n, noise), true_reward(log_p, reward, size, 4 * n, noise)


S6_normal = paper.claim("S6-normal", r"""
    Best-of-n by a score with a normal error: its law by one integral, and a true reward that never falls

    $P(y)=n\,p_y\int f(x-r_y)H(x)^{n-1}dx$. For log-concave errors $E[r\mid r+e=x]$ rises with x (monotone likelihood ratio), and the best score
    of more samples is stochastically larger.

    where: derived
    """)  # fmt: skip


@S6_normal.check(
    Inequality(1e-9, scale=1),
    Space(**SCORED),
    instances=60,
    batched=False,
    false={"a t error with two degrees": {"noise": "t2"}},
)
def never_falls(log_p, reward, size, n, *, noise="normal"):
    return true_reward(log_p, reward, size, n, noise), true_reward(log_p, reward, size, n + 1, noise)


# 40 x 4,000 choices: the standard error of a frequency is below .0013, the distance of the control above .02
@S6_normal.check(
    Effect(seeds=40, alternative="within", null=0.0, margin=0.01), false={"the law for n + 2": {"more": 2}}
)
def law_against_simulation(rng, *, more=0):
    log_p, reward, n = np.log([0.5, 0.3, 0.15, 0.05]), np.array([0.0, 0.5, 1.0, 1.5]), 4
    drawn = rng.choice(4, (4000, n), p=np.exp(log_p))
    place = (reward[drawn] + rng.standard_normal(drawn.shape)).argmax(axis=1)
    frequency = np.bincount(drawn[np.arange(4000), place], minlength=4) / 4000
    law = np.exp(noisy_best_of_n(log_p, reward, n + more, NOISES["normal"]))
    return {f"outcome {a}": frequency[a] - law[a] for a in range(4)}


S6_heavy = paper.claim("S6-heavy", r"""
    With heavy-tailed errors best-of-n ends where it began

    For a t error with $\nu$ degrees the law tends to the reference like $n^{-1/\nu}$: far out $f(x-r)/f(x)\to1+(\nu+1)r/x$, and the best of n
    scores lies at $x\sim n^{1/\nu}$.

    where: derived
    """)  # fmt: skip


@S6_heavy.check(Limit(rate=-0.5, rate_tol=0.1), false={"a t error with four degrees": {"degrees": 4}})
def back_to_the_reference(*, degrees=2):
    log_p, reward = np.log([0.7, 0.3]), np.array([0.0, 1.0])
    sizes = 4.0 ** np.arange(6, 14)
    return sizes, [
        float(tv(noisy_best_of_n(log_p, reward, int(n), stats.t(degrees), nodes=8001), log_p)) for n in sizes
    ]
