r"""Claims of "Boundary-Guided Policy Optimization for Memory-efficient RL of Diffusion Large Language Models".

Tabular masked-diffusion models: ``theta`` are logits ``((V+1)**L, L, V)``. ``ell_j`` is the weighted masked log-likelihood on mask j,
``d_j = ell_j(theta) - ell_j(theta_old)`` on the same mask, ``A`` the advantage, ``R_elbo = A exp(mean d)`` and ``R_lb`` its lower bound.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from scipy.integrate import quad

from klsim.claims import Effect, Identity, Inequality, Limit, Paper
from klsim.distributions import log_normalize
from klsim.objectives import bgpo, elbo_ratio
from klsim.problems.masked_diffusion import (
    MaskedDiffusionLM,
    count_scheme,
    elbo,
    elbo_by_orders,
    elbo_samples,
    from_joint,
    masked_sets,
    output_law,
)
from klsim.spaces import Choice, Floats, Integers, Seeds, Space

paper = Paper(
    "bgpo",
    title="Boundary-Guided Policy Optimization for Memory-efficient RL of Diffusion Large Language Models",
    authors="Nianyi Lin, Jiajie Zhang, Lei Hou, Juanzi Li",
    year=2025,
    arxiv="2510.11683",
)


def model_of(theta):
    return MaskedDiffusionLM(log_normalize(theta))


def random_theta(rng, length=3, vocab=3, scale=1.0):
    return scale * rng.standard_normal(((vocab + 1) ** length, length, vocab))


def samples(theta, answer, masks, weights):
    """``ell_j`` of every mask."""
    return elbo_samples(model_of(theta), answer, masks, weights)


def sample_gradients(theta, answer, masks, weights):
    """``grad ell_j`` in the logits, ``(masks, states, L, V)``: only the row of the masked sequence moves."""
    length, vocab = theta.shape[1:]
    p = np.exp(log_normalize(theta))
    out = np.zeros((len(masks), *theta.shape))
    digits = np.where(masks, vocab, np.array(answer))
    states = digits @ (vocab + 1) ** np.arange(length)[::-1]
    for j, state in enumerate(states):
        for i in np.flatnonzero(masks[j]):
            out[j, state, i] = -weights[j] * p[state, i]
            out[j, state, i, answer[i]] += weights[j]
    return out


def ratio_value(d, a):
    """``R_elbo`` and ``R_lb`` of log-ratios ``(n,)``, through the losses of klsim."""
    zero = np.zeros((1, len(d)))
    return -float(elbo_ratio(d[None], zero, [a])[0]), -float(bgpo(d[None], zero, [a])[0])


def bound_weights(d, a):
    """``dR/d ell_j`` of R_elbo and R_lb."""
    n = len(d)
    return a * math.exp(d.mean()) / n * np.ones(n), (a * np.ones(n) if a >= 0 else a * np.exp(d)) / n


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim(
    "C1",
    "The bound is below the ratio objective everywhere",
    statement=r"$\frac1{n_t}\sum_jA(1+d_j)$ for $A\ge0$ and $\frac1{n_t}\sum_jAe^{d_j}$ for $A<0$ are at most $Ae^{\bar d}$.",
    where="Eq. 7, 9, 12-14; Lemmas 1, 2",
)
C1_SPACE = Space(seed=Seeds(), n=Integers(1, 32), scale=Choice(0.01, 0.1, 1.0, 3.0))


def _draw(seed, n, scale):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal(n), 2 * rng.standard_normal()


@C1.check(Inequality(1e-12), C1_SPACE, batched=False, instances=2000)
def lower_bound(seed, n, scale):
    d, a = _draw(seed, n, scale)
    ratio, bound = ratio_value(d, a)
    return bound, ratio, abs(a) * math.exp(np.abs(d).max())


@lower_bound.control("with the two lemmas swapped")
def swapped(seed, n, scale):
    d, a = _draw(seed, n, scale)
    other = np.mean(a * (1 + d)) if a < 0 else np.mean(a * np.exp(d))
    return other, ratio_value(d, a)[0], abs(a) * math.exp(np.abs(d).max())


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim(
    "C2",
    "On-policy the bound equals the ratio objective in value and gradient",
    statement=r"At $\theta=\theta_{old}$ with the same masks in both terms $R_{lb}=R_{elbo}=A$ and"
    r" $\nabla R_{lb}=\nabla R_{elbo}=\frac A{n_t}\sum_j\nabla\ell_j$.",
    where="Sec. 3.2, Eq. 15-17",
)


def _instance(seed, n=6):
    rng = np.random.default_rng(seed)
    theta, answer = random_theta(rng), tuple(rng.integers(0, 3, 3))
    return rng, theta, answer, rng.standard_normal(), count_scheme(3, n, rng)


def _numeric_gradient(function, theta, rows, h=1e-6):
    """Central differences in the given rows of the logits."""
    out = np.zeros_like(theta)
    for index in itertools.product(rows, range(theta.shape[1]), range(theta.shape[2])):
        step = np.zeros_like(theta)
        step[index] = h
        out[index] = (function(theta + step) - function(theta - step)) / (2 * h)
    return out


# central differences with h = 1e-6: 1e-7
@C2.check(Identity(1e-7), Space(seed=Seeds()), batched=False, instances=20)
def on_policy(seed):
    _, theta, answer, a, (masks, weights) = _instance(seed)
    old = samples(theta, answer, masks, weights)
    mean = np.mean(sample_gradients(theta, answer, masks, weights), axis=0)
    rows = np.flatnonzero(np.abs(mean).sum(axis=(1, 2)) > 0)[:3]
    parts = {}
    for index, name in enumerate(("R_elbo", "R_lb")):
        numeric = _numeric_gradient(
            lambda t, i=index: ratio_value(samples(t, answer, masks, weights) - old, a)[i], theta, rows
        )
        parts[f"gradient of {name}"] = (numeric[rows], a * mean[rows], 1.0)
        parts[f"value of {name}"] = (ratio_value(np.zeros(len(old)), a)[index], a, 1.0)
    return parts


@on_policy.control("with independent masks for the old policy")
def independent_masks(seed):
    rng, theta, answer, a, (masks, weights) = _instance(seed)
    other = count_scheme(3, len(masks), rng)
    d = samples(theta, answer, masks, weights) - samples(theta, answer, *other)
    return {"value": (ratio_value(d, a)[0], ratio_value(d, a)[1], 1.0)}


@on_policy.control("off-policy")
def off_policy(seed):
    rng, theta, answer, a, (masks, weights) = _instance(seed)
    moved = theta + 0.5 * rng.standard_normal(theta.shape)
    d = samples(moved, answer, masks, weights) - samples(theta, answer, masks, weights)
    gradients = sample_gradients(moved, answer, masks, weights)
    first, second = (np.einsum("j,j...->...", w, gradients) for w in bound_weights(d, a))
    return {"gradient": (first, second, 1.0)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim(
    "C3",
    "Linearity: the bound's gradient accumulates in constant memory",
    statement=r"Back-propagating $g_j/n_t$ one mask at a time gives exactly $\nabla R_{lb}$, and the peak of stored activations does not depend"
    r" on $n_t$; single-pass autodiff of $R_{elbo}$ stores $n_t$ graphs. The same sum for the exponential objective is not its gradient"
    r" off-policy.",
    where="Algorithm 1, Fig. 1 left",
    requires=("torch",),
)
C3b = paper.claim(
    "C3b",
    "Constant memory is a property of the algorithm: two passes give the exact ratio gradient",
    statement=r"$\nabla R_{elbo}=w\cdot\frac1{n_t}\sum_j\nabla\ell_j$ with the scalar $w=Ae^{\bar d}$: computed without gradients first, then"
    r" accumulated mask by mask.",
    where="derived; corrects the contrast of Fig. 1",
    origin="derived",
    requires=("torch",),
)
SIZES = (1, 4, 16, 64)


class Denoiser:
    """An MLP denoiser in torch (one-hot 8 x 6 -> 32 tanh -> 8 x 5), its old copy, and masks for one answer."""

    def __init__(self, seed, n, drift):
        import torch

        self.torch = torch
        rng = np.random.default_rng(seed)
        self.length, self.vocab = 8, 5
        shapes = (
            (self.length * (self.vocab + 1), 32),
            (32,),
            (32, self.length * self.vocab),
            (self.length * self.vocab,),
        )
        self.old = [torch.tensor(rng.standard_normal(s) / math.sqrt(s[0])) for s in shapes]
        self.parameters = [(w + drift * torch.tensor(rng.standard_normal(w.shape))).requires_grad_() for w in self.old]
        self.answer = torch.tensor(rng.integers(0, self.vocab, self.length))
        masks, weights = count_scheme(self.length, n, rng)
        self.masks, self.weights = torch.tensor(masks), torch.tensor(weights)

    def ell(self, j, parameters):
        """Weighted masked log-likelihood on mask j."""
        torch = self.torch
        shown = torch.where(self.masks[j], torch.full_like(self.answer, self.vocab), self.answer)
        one_hot = torch.nn.functional.one_hot(shown, self.vocab + 1).double().reshape(-1)
        w1, b1, w2, b2 = parameters
        logits = (torch.tanh(one_hot @ w1 + b1) @ w2 + b2).reshape(self.length, self.vocab)
        logp = torch.log_softmax(logits, dim=-1).gather(1, self.answer[:, None])[:, 0]
        return self.weights[j] * (logp * self.masks[j]).sum()

    def old_ells(self):
        with self.torch.no_grad():
            return self.torch.stack([self.ell(j, self.old) for j in range(len(self.masks))])

    def gradient(self, losses):
        """Flat gradient accumulated over an iterable of scalar losses; the peak of saved bytes beside it."""
        torch = self.torch
        sizes = {}
        now = peak = 0

        def pack(tensor):
            nonlocal now, peak
            holder = _Saved(tensor)
            sizes[id(holder)] = tensor.numel() * tensor.element_size()
            now += sizes[id(holder)]
            peak = max(peak, now)
            holder.on_delete = partial(release, id(holder))
            return holder

        def release(key):
            nonlocal now
            now -= sizes.pop(key)

        total = [torch.zeros_like(p) for p in self.parameters]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
            for loss in losses:
                for t, g in zip(total, torch.autograd.grad(loss(), self.parameters)):
                    t += g
        return np.concatenate([t.numpy().ravel() for t in total]), peak

    def methods(self, a):
        """Loss closures of every way to get a gradient: accumulated bgpo, single-pass ratio, two-pass ratio, naive."""
        torch, n, old = self.torch, len(self.masks), self.old_ells()

        def d(j):
            return self.ell(j, self.parameters) - old[j]

        def piece(j):
            return -a * (1 + d(j)) / n if a >= 0 else -a * torch.exp(d(j)) / n

        with torch.no_grad():
            weight = a * torch.exp(torch.stack([d(j) for j in range(n)]).mean())
        return {
            "bgpo": [lambda j=j: piece(j) for j in range(n)],
            "bgpo, one pass": [lambda: sum(piece(j) for j in range(n))],
            "elbo": [lambda: -a * torch.exp(torch.stack([d(j) for j in range(n)]).mean())],
            "elbo, two passes": [lambda j=j: -weight * self.ell(j, self.parameters) / n for j in range(n)],
            "elbo, naive": [lambda j=j: -a * torch.exp(d(j)) / n for j in range(n)],
        }


class _Saved:
    """Keeps a saved tensor and reports its deletion."""

    def __init__(self, tensor):
        self.tensor = tensor
        self.on_delete = None

    def __del__(self):
        if self.on_delete is not None:
            self.on_delete()


def memory_and_gradients(seed, n, a, drift=0.03):
    """``{method: (gradient, peak bytes)}``."""
    net = Denoiser(seed, n, drift)
    return {name: net.gradient(losses) for name, losses in net.methods(a).items()}


@C3.check(Identity(1e-12), Space(seed=Integers(0, 1000), a=Choice(1.5, -1.5)), batched=False, instances=6)
def accumulation(seed, a):
    results = {n: memory_and_gradients(seed, n, a) for n in (1, 4, 16)}
    many, one = results[16], results[1]
    return {
        "gradient": (many["bgpo"][0], many["bgpo, one pass"][0], 1.0),
        "bgpo memory is flat": (float(many["bgpo"][1]), float(one["bgpo"][1])),
        "a single graph already": (one["bgpo"][0], one["elbo"][0] if a < 0 else one["bgpo"][0], 1.0),
    }


@accumulation.control("the naive sum is the gradient of the ratio objective")
def naive_sum(seed, a):
    found = memory_and_gradients(seed, 16, a)
    return {"gradient": (found["elbo, naive"][0], found["elbo"][0], 1.0)}


@C3.check(Inequality(1e-12), examples=[{"seed": 0, "a": 1.5}, {"seed": 1, "a": -1.5}])
def memory_of_a_single_pass(seed, a):
    """Single-pass autodiff of 64 masks stores at least 15 times what 4 masks store (16 but for constants)."""
    few, many = (memory_and_gradients(seed, n, a) for n in (4, 64))
    return {
        "elbo": (15.0 * few["elbo"][1], float(many["elbo"][1])),
        "bgpo in one pass is no better": (15.0 * few["bgpo, one pass"][1], float(many["bgpo, one pass"][1])),
    }


@memory_of_a_single_pass.control("accumulated bgpo grows too")
def accumulated_grows(seed, a):
    few, many = (memory_and_gradients(seed, n, a) for n in (4, 64))
    return {"bgpo": (15.0 * few["bgpo"][1], float(many["bgpo"][1]))}


@C3b.check(Identity(1e-12), Space(seed=Integers(0, 1000), a=Choice(1.5, -1.5)), batched=False, instances=6)
def two_passes(seed, a):
    few, many = (memory_and_gradients(seed, n, a) for n in (4, 16))
    return {
        "gradient": (many["elbo, two passes"][0], many["elbo"][0], 1.0),
        "memory is flat": (float(many["elbo, two passes"][1]), float(few["elbo, two passes"][1])),
    }


@two_passes.control("bgpo's gradient is the ratio's off-policy")
def bound_gradient(seed, a):
    found = memory_and_gradients(seed, 16, a)
    return {"gradient": (found["bgpo"][0], found["elbo"][0], 1.0)}


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim(
    "C4",
    "The bound is tight to second order",
    statement=r"Along $\theta_{old}+\epsilon u$ the gap is $\frac A2\bar d^2+O(\epsilon^3)$ for $A\ge0$ and"
    r" $\frac{|A|}2\mathrm{Var}_j(d_j)+O(\epsilon^3)$ for $A<0$.",
    where="not stated in the paper",
    origin="derived",
)
EPSILONS = np.array([0.04, 0.02, 0.01, 0.005])


def gaps(seed, a, *, shared=True):
    rng, theta, answer, _, (masks, weights) = _instance(seed)
    old_masks = (masks, weights) if shared else count_scheme(3, len(masks), rng)
    g = sample_gradients(theta, answer, masks, weights).mean(axis=0)
    noise = rng.standard_normal(theta.shape)
    u = g / np.linalg.norm(g) + 0.5 * noise / np.linalg.norm(noise)
    old = samples(theta, answer, *old_masks)
    found, leading = [], []
    for eps in EPSILONS:
        d = samples(theta + eps * u / np.linalg.norm(u), answer, masks, weights) - old
        ratio, bound = ratio_value(d, a)
        found.append(ratio - bound)
        leading.append(abs(a) * (d.mean() ** 2 if a > 0 else d.var()) / 2)
    return np.array(found), np.array(leading)


@C4.check(Limit(rate=-2.0, rate_tol=0.15))
def second_order():
    return {f"A = {a:+g}": (1 / EPSILONS, gaps(0, a)[0]) for a in (1.0, -1.0)}


@second_order.control("with independent masks")
def mismatched_masks():
    return {"A = -1": (1 / EPSILONS, gaps(0, -1.0, shared=False)[0])}


@C4.check(Limit(rate=-1.0, rate_tol=0.4, tol=0.05))
def leading_term():
    """gap / leading term - 1, at first order in eps."""
    return {f"A = {a:+g}": (1 / EPSILONS, np.divide(*gaps(0, a)) - 1) for a in (1.0, -1.0)}


@leading_term.control("half of it")
def half_the_term():
    return {f"A = {a:+g}": (1 / EPSILONS, 2 * np.divide(*gaps(0, a)) - 1) for a in (1.0, -1.0)}


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim(
    "C5",
    "What n_t does: variance, not bias",
    statement=r"$E\nabla R_{lb}$ over mask draws does not depend on $n_t$; on-policy it is $A\nabla B$, the ELBO gradient, already at $n_t=1$; its"
    r" variance is $\mathrm{Var}_1/n_t$. Only the exponential objective has a bias that falls with $n_t$ off-policy, like $1/n_t$.",
    where="contrast with Sec. 3.2, 4.3, Fig. 3",
    origin="derived",
    assumptions="Count scheme (finite second moments).",
)
NS = np.array([1, 2, 3, 4])


def enumerated(seed, a, drift=0.7):
    """Exact mean gradients of R_elbo and R_lb and variance of R_lb for n = 1 … 4, and the exact ratio gradient."""
    rng = np.random.default_rng(seed)
    length, vocab = 3, 2
    theta_old = random_theta(rng, length, vocab)
    theta = theta_old + drift * rng.standard_normal(theta_old.shape)
    answer = tuple(rng.integers(0, vocab, length))
    sets = list(masked_sets(length))
    masks = np.array([[i in s for i in range(length)] for s in sets])
    weights = length / masks.sum(axis=1)
    chance = np.array([1 / (length * math.comb(length, len(s))) for s in sets])
    d = samples(theta, answer, masks, weights) - samples(theta_old, answer, masks, weights)
    gradients = sample_gradients(theta, answer, masks, weights).reshape(len(sets), -1)
    used = np.abs(gradients).sum(axis=0) > 0
    gradients = gradients[:, used]
    out = {"elbo": [], "lb": [], "variance": []}
    for n in NS:
        picks = np.array(list(itertools.product(range(len(sets)), repeat=int(n))))
        p = np.prod(chance[picks], axis=1)
        dn = d[picks]
        mean_gradient = gradients[picks].mean(axis=1)
        out["elbo"].append((p * a * np.exp(dn.mean(axis=1))) @ mean_gradient)
        factor = np.full(dn.shape, a) if a >= 0 else a * np.exp(dn)
        lb = np.einsum("tn,tnk->tk", factor, gradients[picks]) / n
        mean = p @ lb
        out["lb"].append(mean)
        out["variance"].append(float(p @ np.sum((lb - mean) ** 2, axis=1)))
    exact_gradient = chance @ gradients
    exact = a * math.exp(chance @ d) * exact_gradient
    return {k: np.array(v) for k, v in out.items()} | {"exact": exact, "elbo gradient": a * exact_gradient}


@C5.check(Identity(1e-11), Space(seed=Integers(0, 10**6), a=Choice(1.0, -1.0)), batched=False, instances=10)
def mean_and_variance(seed, a):
    found, on_policy_found = enumerated(seed, a), enumerated(seed, a, drift=0.0)
    return {
        "mean independent of n_t": (found["lb"], np.broadcast_to(found["lb"][0], found["lb"].shape), 1.0),
        "variance": (found["variance"] * NS, np.full(4, found["variance"][0]), 1.0),
        "on-policy unbiased": (on_policy_found["lb"][0], on_policy_found["elbo gradient"], 1.0),
    }


@mean_and_variance.control("n_t removes the off-policy bias of the bound")
def bias_removed(seed, a):
    found = enumerated(seed, a)
    return {"bias": (found["lb"][-1], found["exact"], 1.0)}


@C5.check(Limit(rate=-1.0, rate_tol=0.25))
def bias_of_the_ratio():
    found = enumerated(0, 1.0, drift=0.2)
    return NS.astype(float), np.linalg.norm(found["elbo"] - found["exact"], axis=1)


@bias_of_the_ratio.control("the bound's falls too")
def bias_of_the_bound():
    found = enumerated(0, 1.0, drift=0.2)
    return NS.astype(float), np.linalg.norm(found["lb"] - found["exact"], axis=1)


C5_printed = paper.claim(
    "C5-printed",
    "A larger n_t reduces the bias of the gradient",
    statement=r"The bias of BGPO's on-policy gradient falls from $n_t=1$ to $n_t=4$, by at least $10^{-3}$ of the gradient.",
    where="Sec. 3.2, 4.3, Fig. 3 (bias against an n_t = 256 gradient)",
    expect="refuted",
    correction=r"On-policy it is unbiased for every $n_t$. The distance to one $n_t=256$ gradient falls because of *variance*.",
)


@C5_printed.check(Inequality(1e-12), Space(seed=Integers(0, 10**6)), batched=False, instances=10)
def bias_falls(seed):
    found = enumerated(seed, 1.0, drift=0.0)
    bias = np.linalg.norm(found["lb"] - found["elbo gradient"], axis=1)
    return 1e-3 * np.linalg.norm(found["elbo gradient"]), bias[0] - bias[3]


@bias_falls.control("its standard deviation does")
def deviation_falls(seed):
    found = enumerated(seed, 1.0, drift=0.0)
    deviation = np.sqrt(found["variance"])
    return 1e-3 * np.linalg.norm(found["elbo gradient"]), deviation[0] - deviation[3]


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim(
    "C6",
    "The count scheme is unbiased and bounded; the 1/t estimator has infinite second and exponential moments",
    statement=r"With $t\sim U[\epsilon,1]$ and weight $\frac1t$: $E\ell^2=L\log\frac1\epsilon+(L^2-L)(1-\epsilon)$ for $\log p=-1$. The count scheme"
    r" ($l\sim U\{1..L\}$, weight $\frac Ll$) has the same mean $\sum_SB(|S|,L-|S|+1)\sum_{i\in S}\log p(y_i|y_{-S})$ and $Ee^d\le e^{L\Delta}$.",
    where="Eq. 3-5 (moments derived)",
    origin="derived",
)


@C6.check(
    Identity(1e-8), Space(length=Integers(1, 8), epsilon=Floats(1e-5, 0.5, log=True)), batched=False, instances=60
)
def second_moment(length, epsilon):
    """Quadrature in log t of E[ell^2 | t]."""

    def inside(s):
        t = math.exp(s)
        return (length * t * (1 - t) + (length * t) ** 2) / t

    value = quad(inside, math.log(epsilon), 0.0, epsabs=1e-12, epsrel=1e-12)[0]
    return value, length * math.log(1 / epsilon) + (length**2 - length) * (1 - epsilon), 1.0


@second_moment.control("bounded by L squared")
def bounded_moment(length, epsilon):
    return length * math.log(1 / epsilon) + (length**2 - length) * (1 - epsilon), float(length**2), 1.0


def time_scheme_mean(theta, answer):
    """The 1/t scheme's mean by Gauss quadrature over t and all masked sets."""
    length = len(answer)
    sets = list(masked_sets(length))
    masks = np.array([[i in s for i in range(length)] for s in sets])
    plain = samples(theta, answer, masks, np.ones(len(sets)))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    t = (nodes + 1) / 2
    size = masks.sum(axis=1)[:, None]
    chance = t ** (size - 1) * (1 - t) ** (length - size)  # P(S | t) / t
    return float(np.sum(plain[:, None] * chance * weights / 2))


@C6.check(Identity(1e-12), Space(seed=Seeds(), length=Choice(2, 3, 4)), batched=False, instances=30)
def four_forms_of_the_mean(seed, length):
    rng = np.random.default_rng(seed)
    theta, answer = random_theta(rng, length, 2), tuple(rng.integers(0, 2, length))
    sets = list(masked_sets(length))
    masks = np.array([[i in s for i in range(length)] for s in sets])
    chance = np.array([1 / (length * math.comb(length, len(s))) for s in sets])
    count = chance @ samples(theta, answer, masks, length / masks.sum(axis=1))
    model = model_of(theta)
    exact = float(elbo(model, answer))
    return {
        "count scheme": (count, exact),
        "orders": (elbo_by_orders(model, answer).mean(), exact),
        "1/t scheme": (time_scheme_mean(theta, answer), exact),
    }


@four_forms_of_the_mean.control("the unweighted masked log-likelihood")
def unweighted(seed, length):
    rng = np.random.default_rng(seed)
    theta, answer = random_theta(rng, length, 2), tuple(rng.integers(0, 2, length))
    sets = list(masked_sets(length))
    masks = np.array([[i in s for i in range(length)] for s in sets])
    chance = np.array([1 / (length * math.comb(length, len(s))) for s in sets])
    return {
        "count scheme": (
            chance @ samples(theta, answer, masks, np.ones(len(sets))),
            float(elbo(model_of(theta), answer)),
        )
    }


C6_printed = paper.claim(
    "C6-printed",
    "Eq. 3-5: with t ~ U[0, 1] and weight 1/t the estimator and its exponential ratio have finite moments",
    statement=r"For four tokens with log-ratio $\Delta=.02$ each, $E e^{d}\le2$ with $t\sim U[\epsilon,1]$ for every floor $\epsilon>0$.",
    where="Eq. 3-5",
    expect="refuted",
    correction=r"The second moment diverges like $L\log\frac1\epsilon$ and $Ee^d$ like $e^{L\Delta/\epsilon}$: 1.08 at $\epsilon=10^{-2}$, $7\cdot10^{17}$ at"
    r" $10^{-3}$. Use the count scheme, or a floor that scales with the log-ratios *and* a clamp on $d$.",
)


def exponential_moment(epsilon, delta=0.02, length=4):
    """``E e^d`` of the 1/t scheme with all log-ratios ``delta``, by quadrature in log t."""

    def inside(s):
        t = math.exp(s)
        return (1 - t + t * math.exp(delta / t)) ** length * t

    points = np.linspace(math.log(epsilon), 0.0, 41)
    return sum(quad(inside, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in itertools.pairwise(points))


@C6_printed.check(Inequality(1e-12), examples=[{"epsilon": 1e-2}, {"epsilon": 3e-3}, {"epsilon": 1e-3}])
def bounded_ratio(epsilon):
    return exponential_moment(epsilon), 2.0


@bounded_ratio.control("the count scheme", examples=[{"epsilon": 0.0}])
def count_scheme_ratio(epsilon):
    # every weight is L/l and l tokens are masked: d = L delta for every mask
    return math.exp(4 * 0.02), 2.0


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim(
    "C7",
    "The ELBO gap is not an effect of n_t: it vanishes iff the orders agree",
    statement=r"$B(y)=\frac1{L!}\sum_\sigma\log p_\sigma(y)\le\log\frac1{L!}\sum_\sigma p_\sigma(y)$, the log-likelihood of random-order sampling; equality iff all"
    r" orders agree, and then $\sum_y\pi(y)A(y)\nabla B(y)=\nabla E_\pi r$.",
    where="Sec. 2.2 (exact condition derived)",
    origin="derived",
)
WORDS = list(itertools.product(range(3), repeat=3))


@C7.check(Inequality(1e-12), Space(seed=Seeds()), batched=False, instances=20)
def below_the_likelihood(seed):
    model = model_of(random_theta(np.random.default_rng(seed), scale=1.5))
    law = output_law(model)
    orders = np.array([elbo_by_orders(model, y) for y in WORDS])
    return {
        "ELBO below the likelihood": (np.array([float(elbo(model, y)) for y in WORDS]), law, 1.0),
        "likelihood is the mean over orders": (np.abs(np.log(np.exp(orders).mean(axis=1)) - law), 1e-12, 1.0),
    }


@below_the_likelihood.control("the likelihood is below the ELBO")
def above_the_likelihood(seed):
    model = model_of(random_theta(np.random.default_rng(seed), scale=1.5))
    return {"gap": (output_law(model), np.array([float(elbo(model, y)) for y in WORDS]), 1.0)}


def _policy_gradients(theta, reward):
    """``(grad E_pi r, sum_y pi A grad B)``, the first by differences of the exact law."""
    law = output_law(model_of(theta))
    pi = np.exp(law)
    advantage = reward - pi @ reward
    sets = list(masked_sets(3))
    masks = np.array([[i in s for i in range(3)] for s in sets])
    weights = 3 / masks.sum(axis=1)
    chance = np.array([1 / (3 * math.comb(3, len(s))) for s in sets])
    elbo_gradient = sum(
        pi[n] * advantage[n] * np.einsum("j,j...->...", chance, sample_gradients(theta, y, masks, weights))
        for n, y in enumerate(WORDS)
    )
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((6, *theta.shape))
    h = 1e-5
    true = [
        (np.exp(output_law(model_of(theta + h * u))) - np.exp(output_law(model_of(theta - h * u)))) @ reward / (2 * h)
        for u in directions
    ]
    return np.array(true), np.array([np.sum(elbo_gradient * u) for u in directions])


# directional central differences with h = 1e-5
@C7.check(Identity(1e-8), Space(seed=Integers(0, 10**6)), batched=False, instances=6)
def consistent_models(seed):
    rng = np.random.default_rng(seed)
    model = from_joint(np.log(rng.dirichlet(np.ones(27))), 3, 3)
    true, elbo_based = _policy_gradients(np.asarray(model.log_prob), rng.random(27))
    gap = [float(elbo(model, y)) for y in WORDS] - output_law(model)
    return {"gap": (gap, np.zeros(27), 1.0), "policy gradient": (true, elbo_based, 1.0)}


@consistent_models.control("for inconsistent conditionals")
def inconsistent_models(seed):
    rng = np.random.default_rng(seed)
    true, elbo_based = _policy_gradients(random_theta(rng, scale=1.5), rng.random(27))
    return {"policy gradient": (true, elbo_based, 1.0)}


# C8 ------------------------------------------------------------------------------------------------
LENGTH, VOCAB, GROUP, LR = 4, 3, 8, 4.0
REWARD = np.array(
    [
        np.mean([(b - a) % VOCAB == 1 for a, b in itertools.pairwise(y)])
        for y in itertools.product(range(VOCAB), repeat=LENGTH)
    ]
)
PLACE = (VOCAB + 1) ** np.arange(LENGTH)[::-1]


def rollouts(rng, p):
    """GROUP random-order samples: tokens ``(G, L)``."""
    tokens = np.full((GROUP, LENGTH), VOCAB)
    orders = np.argsort(rng.random((GROUP, LENGTH)), axis=1)
    for step in range(LENGTH):
        at = orders[:, step]
        rows = p[tokens @ PLACE, at]
        tokens[np.arange(GROUP), at] = np.minimum(
            (rng.random((GROUP, 1)) > np.cumsum(rows, axis=1)).sum(axis=1), VOCAB - 1
        )
    return tokens


def masks_for(rng, n):
    """Count-scheme masks ``(G, n, L)`` with weights ``(G, n)``."""
    masks, weights = count_scheme(LENGTH, GROUP * n, rng)
    return masks.reshape(GROUP, n, LENGTH), weights.reshape(GROUP, n)


def ells(log_p, tokens, masks, weights):
    """``ell_ij`` and the states they touch."""
    states = np.where(masks, VOCAB, tokens[:, None]) @ PLACE
    rows = np.take_along_axis(log_p[states], tokens[:, None, :, None], axis=-1)[..., 0]
    return weights * np.sum(rows * masks, axis=-1), states


def ascend(theta, log_p, tokens, masks, weights, states, factor):
    """``theta + LR mean_i mean_j factor_ij grad ell_ij``."""
    pull = (factor * weights)[..., None] * masks / factor.size
    step = np.zeros_like(theta)
    position = np.broadcast_to(np.arange(LENGTH), masks.shape)
    where = np.broadcast_to(states[..., None], masks.shape)
    chosen = np.broadcast_to(tokens[:, None], masks.shape)
    np.add.at(step, (where, position, chosen), pull)
    np.add.at(step, (where, position), -pull[..., None] * np.exp(log_p)[where, position])
    return theta + LR * step


RULES = {
    "bgpo": lambda d, a: np.where(a >= 0, a, a * np.exp(d)),
    "tangent": lambda d, a: np.broadcast_to(a, d.shape),
    "Jensen": lambda d, a: a * np.exp(d),
    "elbo": lambda d, a: np.broadcast_to(a * np.exp(d.mean(axis=1, keepdims=True)), d.shape),
}


def train(seed, n, *, steps=60, epochs=1, rule="bgpo", lr_scale=1.0):
    """Final exact reward of tabular training; NaN if it overflowed."""
    rng = np.random.default_rng(seed)
    theta = 0.3 * rng.standard_normal(((VOCAB + 1) ** LENGTH, LENGTH, VOCAB))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            log_p = theta - np.logaddexp.reduce(theta, axis=-1, keepdims=True)
            tokens = rollouts(rng, np.exp(log_p))
            reward = REWARD[tokens @ VOCAB ** np.arange(LENGTH)[::-1]]
            masks, weights = masks_for(rng, n)
            if reward.std() < 1e-12:
                continue
            a = ((reward - reward.mean()) / reward.std())[:, None]
            old, _ = ells(log_p, tokens, masks, weights)
            for _ in range(epochs):
                log_p = theta - np.logaddexp.reduce(theta, axis=-1, keepdims=True)
                now, states = ells(log_p, tokens, masks, weights)
                factor = lr_scale * RULES[rule](now - old, a)
                theta = ascend(theta, log_p, tokens, masks, weights, states, factor)
            if not np.all(np.isfinite(theta)):
                return math.nan
    return float(np.exp(output_law(model_of(theta))) @ REWARD)


C8 = paper.claim(
    "C8",
    "A larger n_t learns faster; the bound does not overflow where the ratio does",
    statement=r"At fixed rollouts, steps and learning rate the final reward is higher with $n_t=16$ than with 1. With four epochs a batch at a"
    r" large step the exponential objective overflows in some runs, the bound in none.",
    where="Table 2, Table 3 (effects re-stated on a tabular model)",
)


@C8.check(Effect(seeds=30), batched=False)
def more_masks(rng):
    seed = int(rng.integers(2**31))
    return train(seed, 16) - train(seed, 1)


@more_masks.control("with step size 0")
def no_step(rng):
    seed = int(rng.integers(2**31))
    return train(seed, 16, lr_scale=0.0, steps=2) - train(seed, 1, lr_scale=0.0, steps=2)


@C8.check(Effect(seeds=30), batched=False)
def overflow(rng):
    seed = int(rng.integers(2**31))
    lost = {rule: float(math.isnan(train(seed, 4, epochs=4, rule=rule))) for rule in ("bgpo", "elbo")}
    return {"the ratio overflows in some runs": lost["elbo"], "the bound in none": 0.5 - lost["bgpo"]}


@overflow.control("the bound overflows too")
def bound_overflows(rng):
    return {"the bound overflows": float(math.isnan(train(int(rng.integers(2**31)), 4, epochs=4, rule="bgpo")))}
