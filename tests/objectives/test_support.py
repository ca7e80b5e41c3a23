"""Top-k distillation, skew KLs, MiniLLM and importance-weighted OPD: by hand, where they are smallest, extremes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.learning import TreeProblem, expected_gradient, functional_gradient, random_prompts
from klsim.objectives import TokenBatch

P = np.array([0.5, 0.3, 0.15, 0.05])
T = np.array([0.1, 0.6, 0.2, 0.1])


def one(pi=P, teacher=T):
    """One response of one token."""
    with np.errstate(divide="ignore"):
        pi, teacher = np.log(pi), np.log(teacher)
    likely = np.argmax(pi)
    return TokenBatch(
        pi[None, likely : likely + 1], vocab_log_probs=pi[None, None], teacher_vocab_log_probs=teacher[None, None]
    )


def top(**options):
    return float(o.top_k_opd(one(), **options)[0])


def kl(p, q):
    p, q = np.asarray(p), np.asarray(q)
    return float(np.sum(p * np.log(p / q)))


def test_three_forms_by_hand():
    # the teacher's two best tokens are 1 and 2
    p, t = P[[1, 2]], T[[1, 2]]
    assert np.isclose(top(k=2, form="truncated"), np.sum(p * np.log(p / t)))
    assert np.isclose(top(k=2, form="renormalized"), kl(p / p.sum(), t / t.sum()))
    assert np.isclose(top(k=2), kl([*p, 1 - p.sum()], [*t, 1 - t.sum()]))
    assert np.isclose(top(k=2, direction="forward", form="truncated"), np.sum(t * np.log(t / p)))
    assert np.isclose(top(k=2, direction="forward", form="renormalized"), kl(t / t.sum(), p / p.sum()))
    assert np.isclose(top(k=2, direction="forward"), kl([*t, 1 - t.sum()], [*p, 1 - p.sum()]))
    # the student's are 0 and 1
    p, t = P[[0, 1]], T[[0, 1]]
    assert np.isclose(top(k=2, support="student", form="truncated"), np.sum(p * np.log(p / t)))
    assert np.isclose(top(k=1), kl([0.3, 0.7], [0.6, 0.4]))
    assert abs(top(k=1, form="renormalized")) < 1e-15
    for form in ("truncated", "renormalized", "tail"):
        assert np.isclose(top(k=4, form=form), kl(P, T))
        assert np.isclose(top(k=4, form=form, direction="forward"), kl(T, P))
    assert np.isclose(o.top_k_opd(one(), k=2)[1]["teacher_mass"], 0.8)


def test_ties_go_to_the_lower_index():
    kept = o.top_k_tokens(np.log([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4]]), 3)
    assert kept.tolist() == [[True, True, True, False], [True, True, False, True]]
    with pytest.raises(ValueError, match="k"):
        o.top_k_tokens(np.log(P), 5)


def test_the_tail_form_is_at_most_the_kl():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p, t = rng.dirichlet(np.ones(6), 2)
        values = [float(o.top_k_opd(one(p, t), k=k)[0]) for k in range(1, 7)]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))  # finer partitions see more
        assert values[0] >= -1e-15


def gradient(pi, **options):
    logits = torch.tensor(np.log(pi), requires_grad=True)
    log = torch.log_softmax(logits, dim=-1)[None, None]
    made = TokenBatch(log[..., 0], vocab_log_probs=log, teacher_vocab_log_probs=torch.tensor(np.log(T))[None, None])
    o.top_k_opd(made, k=2, **options)[0].backward()
    return np.abs(logits.grad.numpy()).max()


@pytest.mark.parametrize(
    ("form", "direction", "end"),
    [
        ("truncated", "reverse", [0.7 * (1 - 0.8 / math.e), 0.6 / math.e, 0.2 / math.e, 0.3 * (1 - 0.8 / math.e)]),
        ("truncated", "forward", [0.0, 0.75, 0.25, 0.0]),
        ("renormalized", "reverse", [0.3, 0.45, 0.15, 0.1]),
        ("renormalized", "forward", [0.3, 0.45, 0.15, 0.1]),
        ("tail", "reverse", [0.15, 0.6, 0.2, 0.05]),
        ("tail", "forward", [0.15, 0.6, 0.2, 0.05]),
    ],
)
def test_where_the_forms_are_smallest(form, direction, end):
    """T on its two best tokens, T/e on them, or T's ratio of the two: the rest of the mass lies anywhere."""
    end = np.maximum(end, 1e-14)
    assert gradient(end, form=form, direction=direction) < 1e-12
    if form != "tail":
        assert gradient(T, form=form, direction=direction) > 0.1 or form == "renormalized"
    moved = end * np.array([1.0, 1.3, 1.0, 1.0])
    assert gradient(moved / moved.sum(), form=form, direction=direction) > 0.01
    value = float(o.top_k_opd(one(end, T), k=2, form=form, direction=direction)[0])
    other = float(o.top_k_opd(one(moved / moved.sum(), T), k=2, form=form, direction=direction)[0])
    assert value < other


def test_missing_support():
    inside = one(np.array([0.5, 0.5, 0.0, 0.0]), T)
    assert np.isclose(o.top_k_opd(inside, k=2)[0], 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.2))
    assert np.isinf(o.top_k_opd(inside, k=2, direction="forward", form="truncated")[0])
    certain = one(P, np.array([0.0, 1.0, 0.0, 0.0]))
    value = float(o.top_k_opd(certain, k=1)[0])
    assert 0.7 * 20 < value < 0.7 * 40  # a teacher with no tail at all: one rounding error of it
    assert np.isfinite(o.top_k_opd(one(np.array([0.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])), k=1)[0])


def test_skew_kl_by_hand():
    forward = kl(T, 0.1 * T + 0.9 * P)
    assert np.isclose(o.skew_kl(one())[0], forward)
    assert np.isclose(o.skew_kl(one(), direction="reverse", skew=0.3)[0], kl(P, 0.3 * P + 0.7 * T))
    assert np.isclose(o.skew_kl(one(), skew=0.0)[0], kl(T, P))
    assert np.isclose(o.skew_kl(one(), skew=0.0, direction="reverse")[0], kl(P, T))
    halves = (o.skew_kl(one(), skew=0.5)[0] + o.skew_kl(one(), skew=0.5, direction="reverse")[0]) / 2
    assert np.isclose(halves, o.gkd(one(), mix=0.5)[0])
    far = one(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0]))
    assert np.isclose(o.skew_kl(far)[0], -math.log(0.1))  # the bound
    with pytest.raises(ValueError, match="must be < 1"):
        o.skew_kl(one(), skew=1.0)


# Two responses of 3 tokens and 1; log T/pi = log 2, -log 2, log 3 and log 4.
LOG = np.log([[0.4, 0.4, 0.2], [0.2, 0.5, 0.5]])
TEACHER = np.log([[0.8, 0.2, 0.6], [0.8, 0.5, 0.5]])
MASK = np.array([[True, True, True], [True, False, False]])
GAP = (TEACHER - LOG) * MASK


def sequences(**changes):
    vocab = np.stack([LOG, np.log1p(-np.exp(LOG))], axis=-1)
    teacher = np.stack([TEACHER, np.log1p(-np.exp(TEACHER))], axis=-1)
    fields = {
        "log_probs": LOG, "teacher_log_probs": TEACHER, "mask": MASK, "vocab_log_probs": vocab,
        "teacher_vocab_log_probs": teacher,
    }  # fmt: skip
    return TokenBatch(**(fields | changes))


def test_minillm_by_hand():
    p, t = np.exp(LOG), np.exp(TEACHER)
    step = p * np.log(p / t) + (1 - p) * np.log((1 - p) / (1 - t))
    ahead = np.array([GAP[0, 1] + GAP[0, 2], GAP[0, 2], 0.0])
    plain = (step[0] - ahead * LOG[0]).sum() + step[1, 0]
    assert np.isclose(o.minillm(sequences(), length_normalized=False)[0], plain / 2)
    normalized = (step[0] - ahead / [2, 1, 1] * LOG[0]).sum() + step[1, 0]
    assert np.isclose(o.minillm(sequences())[0], normalized / 2)
    mixed = sequences(old_log_probs=LOG - math.log(3))
    assert np.isclose(o.minillm(mixed)[0], 3 * normalized / 2)
    assert np.isclose(o.minillm(mixed, clip_weight=2.0)[0], 2 * normalized / 2)
    assert np.isclose(o.minillm(mixed, importance=False)[0], normalized / 2)
    assert np.isclose(o.minillm(sequences())[1]["kl"], -GAP[MASK].mean())


def test_length_normalisation_leaves_the_gradient_of_the_kl_from_three_tokens_on():
    short, long = (TreeProblem(random_prompts(1, 3, horizon=h)) for h in (2, 3))
    for problem, exact in ((short, True), (long, False)):
        found = expected_gradient(o.minillm, problem, group_size=1).gradient
        target = functional_gradient("reverse_kl(teacher)", problem)
        share = np.linalg.norm(found - target) / np.linalg.norm(target)
        assert (share < 1e-12) if exact else (share > 0.01)
    plain = expected_gradient(lambda b: o.minillm(b, length_normalized=False), long, group_size=1).gradient
    assert np.allclose(plain, functional_gradient("reverse_kl(teacher)", long), atol=1e-13)


def test_iw_opd_by_hand():
    size = np.abs(GAP[0])
    first = 1 + 0.5 * (1 - np.array([0, size[0], size[0] + size[1]]) / size.sum())
    assert np.allclose(o.iw_opd_weights(sequences()), [[*first], [1.5, 1.0, 1.0]])
    expected = -((first * GAP[0] * LOG[0]).sum() + 1.5 * GAP[1, 0] * LOG[1, 0]) / 4
    assert np.isclose(o.iw_opd(sequences())[0], expected)
    plain = sequences(log_probs=LOG)
    assert np.isclose(o.iw_opd(plain, gamma=0.0)[0], -(GAP * LOG).sum() / 4)
    same = sequences(teacher_log_probs=LOG)
    assert o.iw_opd(same)[0] == 0.0
    assert np.all(o.iw_opd_weights(same)[MASK] == 1.5)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("form", ["truncated", "renormalized", "tail"])
def test_gradients_are_finite_where_laws_are_nearly_certain(form, k):
    logits = torch.tensor([[200.0, 0.0, -200.0, 1.0]], requires_grad=True, dtype=torch.float64)
    log = torch.log_softmax(logits, dim=-1)[None]
    teacher = torch.log_softmax(torch.tensor([[0.0, 200.0, -200.0, 1.0]], dtype=torch.float64), dim=-1)[None]
    for direction in ("reverse", "forward"):
        made = TokenBatch(log[..., 0], vocab_log_probs=log, teacher_vocab_log_probs=teacher)
        value = o.top_k_opd(made, k=k, form=form, direction=direction)[0]
        (found,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert torch.isfinite(value)
        assert torch.isfinite(found).all()
