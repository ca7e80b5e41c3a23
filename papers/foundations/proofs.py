"""B: inequalities proven on boxes, by ball arithmetic."""

from __future__ import annotations

from klsim.claims import Proven

from .collection import paper

FLINT = ("flint",)


def binary_kl(p, q):
    """KL of Bernoulli laws, of balls."""
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


# B1 ------------------------------------------------------------------------------------------------
B1 = paper.claim("B1", r"""
    With rewards 0 and 1 the KL of best-of-n is below that of continuous rewards: proven on a box

    $(1-q^n)\log\frac{1-q^n}{1-q}+(n-1)q^n\log q\le\log n-\frac{n-1}n$ for all real $n\in[2,64]$ and $q\in[.02,.98]$.

    where: Beirami et al. (arXiv 2401.01879), for all reward laws
    """, requires=FLINT)  # fmt: skip


@B1.check(Proven({"q": (0.02, 0.98), "n": (2.0, 64.0)}), false={"log n - 1": {"more": 0.0}})
def kl_of_best_of_n(q, n, *, more=1.0):
    fails = (n * q.log()).exp()
    return (1 - fails) * ((1 - fails) / (1 - q)).log() + (n - 1) * fails * q.log(), n.log() - 1 + more / n


# B2 ------------------------------------------------------------------------------------------------
B2 = paper.claim("B2", r"""
    Pinsker and the χ² bound for two outcomes, proven on a box

    $2(p-q)^2\le\mathrm{KL}(p\Vert q)\le\frac{(p-q)^2}{q(1-q)}$ for $p\in[.05,.25]$, $q\in[.6,.95]$.

    where: Pinsker; Gibbs and Su (2002)
    """, requires=FLINT)  # fmt: skip


@B2.check(Proven({"p": (0.05, 0.25), "q": (0.6, 0.95)}),
          false={"2.5 instead of 2": {"lower": 2.5}, "half of the upper bound": {"upper": 0.5}})  # fmt: skip
def pinsker(p, q, *, lower=2.0, upper=1.0):
    return {
        "lower": (lower * (p - q) ** 2, binary_kl(p, q)),
        "upper": (binary_kl(p, q), upper * (p - q) ** 2 / (q * (1 - q))),
    }


# B3 ------------------------------------------------------------------------------------------------
B3 = paper.claim("B3", r"""
    KL is bounded by four times the squared distance

    $\mathrm{KL}(p\Vert q)\le4(p-q)^2$: near equality it is $\frac{(p-q)^2}{2q(1-q)}$.

    where: as commonly used near equality
    instead: Only where q is not near 0 or 1: proven for $q\in[.35,.65]$ and p at least .1 away.
    by: B2
    origin: folklore
    """, requires=FLINT)  # fmt: skip


@B3.check(Proven({"p": (0.05, 0.25), "q": (0.35, 0.99)}), true={"q up to .65": {"most": 0.65}})
def four_times(p, q, *, most=0.99):
    q = 0.35 + (q - 0.35) * (most - 0.35) / 0.64
    return binary_kl(p, q), 4 * (p - q) ** 2


# B4 ------------------------------------------------------------------------------------------------
B4 = paper.claim("B4", r"""
    Where pass@k weighs a success more than pass@1: proven for all real k in [2, 32]

    At $p=1-k^{-1/(k-1)}$ the weights $k(1-p)^{k-1}$ and 1 are equal; below by .01 or more pass@k's is larger, above smaller.

    where: K3-threshold
    """, requires=FLINT)  # fmt: skip


@B4.check(Proven({"k": (2.0, 32.0), "away": (0.01, 0.2)}), false={"at 1/k": {"at_k": True}})
def weight_of_a_success(k, away, *, at_k=False):
    threshold = 1 / k if at_k else 1 - (-k.log() / (k - 1)).exp()
    below, above = (k.log() + (k - 1) * (1 - threshold + sign * away).log() for sign in (1, -1))
    return {"below": (-below, 0), "above": (above, 0)}
