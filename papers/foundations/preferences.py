"""P: preferences: DPO and IPO with population labels, coverage, mixed populations, Nash policies."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from klsim.claims import Identity, Inequality, Limit, Optimality
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.preferences import bradley_terry, bradley_terry_fit, exploitability, ipo_fit, regularized_nash
from klsim.spaces import Floats, Normals, Policies, Sizes, Space
from klsim.spaces.preferences import preferences

from .collection import paper

LAW = Normals("A").map(log_normalize)
PREFERENCE = preferences()
SIZE = {"A": Sizes(2, 6)}


def of_two(p):
    """The first of two responses is preferred with probability p."""
    return np.array([[0.5, p], [1 - p, 0.5]])


def dpo_loss(log_policy, log_ref, preference, weights, beta):
    """DPO's loss with population labels, pairs of frequency ``weights``."""
    h = beta * (log_policy - log_ref)
    return -np.sum(weights * preference * log_expit(h[:, None] - h[None])) / weights.sum()


# P1 ------------------------------------------------------------------------------------------------
P1 = paper.claim("P1", r"""
    With every pair compared, DPO converges to the tilt of the Bradley-Terry fit

    The minimiser of DPO's population loss over policies is $\pi_{ref}e^{\hat r/\beta}/Z$, $\hat r$ the maximum-likelihood rewards of the
    preference matrix, whether or not that is Bradley-Terry. IPO's is $\pi_{ref}e^{h}/Z$ with h the least-squares fit of
    $(P_{ij}-P_{ji})/2\tau$.

    where: DPO (arXiv 2305.18290), IPO (arXiv 2310.12036)
    assumes: all pairs compared, no preference of 0 or 1.
    """)  # fmt: skip


# the gradient of a quasi-Newton method ends near 1e-9, the curvature is at least 1e-3 here
@P1.check(Identity(1e-4, scale=1), Space(log_ref=LAW, preference=PREFERENCE, beta=Floats(0.2, 3.0), A=Sizes(2, 4)), instances=25, batched=False,
          false={"the fit times beta": {"power": 1.0}})  # fmt: skip
def dpo_by_a_generic_optimiser(log_ref, preference, beta, *, power=-1.0):
    preference, weights = np.clip(preference, 0.05, 0.95), 1 - np.eye(len(log_ref))

    def loss(x):
        h = beta * (x - log_ref)
        return dpo_loss(x, log_ref, preference, weights, beta), 2 * beta * np.sum(
            weights * (expit(h[:, None] - h[None]) - preference), axis=1
        ) / weights.sum() / 2

    found = log_normalize(minimize(loss, log_ref, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}).x)
    return np.exp(tilt(log_ref, bradley_terry_fit(preference), beta ** (-power))), np.exp(found)


@P1.check(Optimality(1e-12, scale=1), Space(log_ref=LAW, preference=PREFERENCE, tau=Floats(0.1, 3.0), move=Normals("A"), **SIZE), instances=100, batched=False,
          false={"the target of twice tau": {"times": 2.0}})  # fmt: skip
def no_policy_has_less_ipo_loss(log_ref, preference, tau, move, *, times=1.0):

    def loss(h):
        gap = h[:, None] - h[None]
        return np.sum(preference * (gap - 1 / (2 * tau)) ** 2 * (1 - np.eye(len(h))))

    h = ipo_fit(preference, times * tau)
    return -loss(h), -loss(h + 0.3 * move), loss(h)


# P2 ------------------------------------------------------------------------------------------------
P2 = paper.claim("P2", r"""
    DPO's KL regularisation keeps the policy near the reference

    For two responses the log-odds move by at most $c/\beta$, whatever the labels.

    where: as commonly read
    instead: They move by $\frac1\beta\log\frac P{1-P}$, without bound as labels become deterministic: for any $\beta$ the losing response goes to
    probability 0. IPO's move by $(2P-1)/2\tau$, at most $1/2\tau$.
    by: P2-moves
    origin: as commonly read
    """)  # fmt: skip


@P2.check(
    Inequality(1e-9),
    Space(doubt=Floats(1e-9, 0.4, log=True), beta=Floats(0.1, 3.0)),
    instances=60,
    batched=False,
    true={"IPO's": {"method": "ipo"}},
)
def bounded_move(doubt, beta, *, method="dpo"):
    """Move of the log-odds, against three times 1/(2 beta)."""
    preference = of_two(1 - doubt)
    h = bradley_terry_fit(preference) / beta if method == "dpo" else ipo_fit(preference, beta)
    return h[0] - h[1], 3 / (2 * beta)


P2_moves = paper.claim("P2-moves", r"""
    How far DPO and IPO move two responses

    $\log\frac{\pi(w)}{\pi(l)}-\log\frac{\pi_{ref}(w)}{\pi_{ref}(l)}$ is $\frac1\beta\log\frac P{1-P}$ for DPO and $\frac{2P-1}{2\tau}$ for IPO.

    where: IPO (arXiv 2310.12036), Section 4
    """)  # fmt: skip


@P2_moves.check(Identity(1e-9), Space(gap=Floats(0.05, 8.0), beta=Floats(0.1, 3.0)), instances=60, batched=False,
                false={"IPO with 1/tau": {"two": 1.0}})  # fmt: skip
def moves(gap, beta, *, two=2.0):
    preference = of_two(expit(gap))
    dpo, ipo = bradley_terry_fit(preference), ipo_fit(preference, beta)
    return {
        "dpo": ((dpo[0] - dpo[1]) / beta, gap / beta),
        "ipo": (ipo[0] - ipo[1], (2 * expit(gap) - 1) / (two * beta)),
    }


# P3 ------------------------------------------------------------------------------------------------
P3 = paper.claim("P3", r"""
    Where nothing was compared DPO leaves the policy as it was

    A response outside the comparisons keeps at most its probability under the reference.

    where: folklore of offline alignment
    instead: The loss does not see it: mass may move there without any change of the loss, up to all of it. The optimum is a family with one
    free share.
    by: P3-blind
    origin: folklore
    """)  # fmt: skip


def with_unseen(log_ref, preference, share):
    """A policy with this share on the last response, which is in no comparison, and the optimum on the others."""
    seen = slice(0, -1)
    inner = tilt(log_normalize(log_ref[seen]), bradley_terry_fit(preference[seen, seen]), 1.0)
    return np.append(inner + np.log1p(-share), np.log(share))


@P3.check(Inequality(1e-9), Space(log_ref=LAW, preference=PREFERENCE, share=Floats(0.01, 0.99), A=Sizes(3, 6)), instances=60, batched=False,
          true={"a response that is compared with all, and loses": {"compared": True}})  # fmt: skip
def keeps_its_probability(log_ref, preference, share, *, compared=False):
    """The largest share of it among minimisers of the loss; in the variant there is one minimiser."""
    if compared:
        beaten = np.clip(preference, 0.1, 0.9)
        beaten[-1, :-1], beaten[:-1, -1] = 0.05, 0.95
        return np.exp(tilt(log_ref, bradley_terry_fit(beaten), 1.0))[-1], np.exp(log_ref[-1])
    seen = 1 - np.eye(len(log_ref))
    seen[-1] = seen[:, -1] = 0
    losses = [
        dpo_loss(with_unseen(log_ref, preference, s), log_ref, preference, seen, 1.0)
        for s in (np.exp(log_ref[-1]), share)
    ]
    return share if losses[1] <= losses[0] + 1e-12 else 0.0, np.exp(log_ref[-1])


P3_blind = paper.claim("P3-blind", r"""
    DPO's loss is blind to the share of what was never compared

    $L(\pi)$ is the same for every share of an uncompared response, the policy inside the compared ones kept.

    where: derived
    """)  # fmt: skip


@P3_blind.check(Identity(1e-12, scale=1), Space(log_ref=LAW, preference=PREFERENCE, share=Floats(0.001, 0.999), A=Sizes(3, 6)), instances=60, batched=False,
                false={"if it is compared once in a thousand": {"seen": 1e-3}})  # fmt: skip
def blind(log_ref, preference, share, *, seen=0.0):
    weights = 1 - np.eye(len(log_ref))
    weights[-1, :-1] = weights[:-1, -1] = seen
    losses = [dpo_loss(with_unseen(log_ref, preference, s), log_ref, preference, weights, 1.0) for s in (0.5, share)]
    return losses[0], losses[1]


# P4 ------------------------------------------------------------------------------------------------
P4 = paper.claim("P4", r"""
    A reward model fitted on the preferences of a mixed population ranks responses by average utility

    Of two responses the fit puts the one with the higher average utility over the groups first.

    where: as commonly read
    instead: It ranks them by Borda count, the average chance to win: $\sum_j\sigma(\hat r_i-\hat r_j)=\sum_jP_{ij}$. A few who care much count no
    more than a few who care little.
    by: P4-borda
    origin: as commonly read
    """)  # fmt: skip
GROUPS = {
    "first": Normals("A", scale=2.0),
    "second": Normals("A", scale=2.0),
    "share": Floats(0.05, 0.95),
    "loud": Floats(1.0, 10.0),
}


def population(first, second, share, loud):
    """Preferences and average utilities of two groups, the first of which cares ``loud`` times as much."""
    return share * bradley_terry(loud * first) + (1 - share) * bradley_terry(second), share * loud * first + (
        1 - share
    ) * second


@P4.check(
    Inequality(1e-9), Space(**GROUPS, A=Sizes(2, 5)), instances=60, batched=False, true={"one group": {"mixed": False}}
)
def average_utility(first, second, share, loud, *, mixed=True):
    """Of every pair: minus the product of the differences, where it has the wrong sign."""
    preference, utility = population(first, second if mixed else loud * first, share, loud)
    fit = bradley_terry_fit(np.clip(preference, 1e-9, 1 - 1e-9))
    wrong = -(fit[:, None] - fit[None]) * (utility[:, None] - utility[None])
    return wrong.max(), 0.0, np.abs(fit).max() * np.abs(utility).max()


P4_borda = paper.claim("P4-borda", r"""
    The Bradley-Terry fit reproduces every response's average chance to win, and ranks by it

    $\sum_j\sigma(\hat r_i-\hat r_j)=\sum_jP_{ij}$ when all pairs are compared as often; hence the order of $\hat r$ is that of Borda counts.

    where: Siththaranjan et al. (arXiv 2312.08358), Theorem 3.1
    """)  # fmt: skip


@P4_borda.check(
    Identity(1e-9),
    Space(preference=PREFERENCE, A=Sizes(2, 7)),
    instances=60,
    batched=False,
    false={"with unequal frequencies": {"equal": False}},
)
def borda(preference, *, equal=True):
    weights = 1.0 + (0 if equal else 1) * np.add.outer(np.arange(len(preference)), np.arange(len(preference)))
    return bradley_terry(bradley_terry_fit(preference, weights)).sum(axis=1), preference.sum(axis=1)


# P5 ------------------------------------------------------------------------------------------------
P5 = paper.claim("P5", r"""
    The regularised Nash policy: one fixed point, which nothing exploits

    $\pi=\pi_{ref}e^{P\pi/\tau}/Z$ has one solution; $\max_\mu P(\mu\succ\pi)-\tau\mathrm{KL}(\mu)+\tau\mathrm{KL}(\pi)-\frac12$ is 0 there and positive
    elsewhere, at least $\tau\mathrm{KL}(\pi^*\Vert\pi)$.

    where: NLHF (arXiv 2312.00886); the lower bound derived
    """)  # fmt: skip
GAME = {"preference": preferences(scale=3.0), "log_ref": LAW, "tau": Floats(0.01, 5.0, log=True)}


@P5.check(
    Identity(1e-9, scale=1),
    Space(**GAME, **SIZE),
    instances=60,
    batched=False,
    false={"the tilt of the average chance to win": {"against": "ref"}},
)
def fixed_point(preference, log_ref, tau, *, against="itself"):
    found = np.exp(regularized_nash(preference, log_ref, tau).log_policy)
    return found, np.exp(tilt(log_ref, preference @ (found if against == "itself" else np.exp(log_ref)), tau))


@P5.check(
    Inequality(1e-10, scale=1),
    Space(**GAME, other=LAW, **SIZE),
    instances=100,
    batched=False,
    false={"three times that": {"times": 3.0}},
)
def others_can_be_exploited(preference, log_ref, tau, other, *, times=1.0):
    """The solution played against any policy gains at least tau times the KL from the solution to it."""
    found = regularized_nash(preference, log_ref, tau).log_policy
    gain = np.exp(found) @ preference @ np.exp(other) - 0.5 - tau * (kl(found, log_ref) - kl(other, log_ref))
    return {
        "gain": (gain, exploitability(other, preference, log_ref, tau)),
        "bound": (times * tau * kl(other, found), gain),
    }


# P6 ------------------------------------------------------------------------------------------------
P6 = paper.claim("P6", r"""
    With Bradley-Terry preferences the regularised Nash policy is the RLHF policy

    The Nash policy of $P_{ij}=\sigma(r_i-r_j)$ is the tilt $\pi_{ref}e^{r/\beta}/Z$ for a suitable temperature ($\tau=\beta/4$).

    where: as commonly read
    instead: Only to first order in small rewards, with $\tau=\beta/4$: a chance to win saturates, a reward does not. The Nash policy moves less.
    by: P6-small
    origin: as commonly read
    """)  # fmt: skip


@P6.check(
    Identity(1e-6, scale=1),
    Space(reward=Normals("A"), log_ref=LAW, beta=Floats(0.3, 5.0), **SIZE),
    instances=60,
    batched=False,
    true={"two equal rewards": {"size": 0.0}},
)
def nash_is_rlhf(reward, log_ref, beta, *, size=1.0):
    nash = regularized_nash(bradley_terry(size * reward), log_ref, beta / 4).log_policy
    return np.exp(nash), np.exp(tilt(log_ref, size * reward, beta))


P6_small = paper.claim("P6-small", r"""
    For small rewards the two agree, with a quarter of the temperature

    The distance of the Nash policy at $\tau=\beta/4$ from the tilt at $\beta$ falls like the cube of the rewards.

    where: derived: sigma is odd around 1/2 with slope 1/4
    """)  # fmt: skip


@P6_small.check(Limit(rate=3.0, rate_tol=0.2), false={"tau = beta/2": {"ratio": 2.0}})
def cubic(*, ratio=4.0):
    sizes, log_ref = 2.0 ** -np.arange(0, 7), log_normalize(np.array([0.2, -0.5, 0.4, 0.0]))
    reward = np.array([1.0, 0.3, -0.6, 0.1])
    away = []
    for size in sizes:
        nash = regularized_nash(bradley_terry(size * reward), log_ref, 1.0 / ratio).log_policy
        away.append(np.abs(np.exp(nash) - np.exp(tilt(log_ref, size * reward, 1.0))).max())
    return sizes, away


# P7 ------------------------------------------------------------------------------------------------
P7 = paper.claim("P7", r"""
    The policy with the highest win rate against the reference loses to nobody

    It is preferred to every single response at least half of the time.

    where: folklore of win rates as an aim
    instead: With cyclic preferences it is beaten; the Nash policy ($\tau\to0$) is preferred to every response at least half of the time.
    by: P5
    origin: folklore
    """)  # fmt: skip


@P7.check(Inequality(1e-6), Space(preference=preferences(scale=3.0), log_ref=Policies(), A=Sizes(2, 6)), instances=60, batched=False,
          true={"the Nash policy": {"nash": True}})  # fmt: skip
def never_loses(preference, log_ref, *, nash=False):
    """Half, against its worst chance to win; the Nash policy at tau = 1e-4 of a uniform reference may lose tau log A."""
    law = np.eye(len(preference))[int(np.argmax(preference @ np.exp(log_ref)))]
    if nash:
        law = np.exp(regularized_nash(preference, np.full(len(preference), -np.log(len(preference))), 1e-3).log_policy)
    return 0.5 - (1e-3 * np.log(len(preference)) if nash else 0.0), (law @ preference).min()
