"""Chunked vocabulary losses against the objectives over whole log-softmax tables, in float64 and below."""

import math

import pytest
import torch

from klsim.divergences import GENERATORS, Alpha
from klsim.lm import logit_chunks
from klsim.lm.vocab_losses import LinearHead, linear_divergence, linear_g_opd, linear_gkd, linear_log_probs
from klsim.objectives import TokenBatch, divergence, g_opd_full, gkd

N, V = 7, 11


def head(hidden, scale=1.0, seed=0, rows=N, vocabulary=V, dtype=torch.float64):
    generator = torch.Generator().manual_seed(100 * hidden + seed)
    states = scale * torch.randn(rows, hidden, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, hidden, generator=generator, dtype=torch.float64)
    return LinearHead(states.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_())


def log_softmax(head, temperature=1.0):
    logits = head.hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    return (logits / temperature).log_softmax(-1)


def naive(objective, student, teacher, ref=None, weights=None, temperature=1.0, **parameters):
    """The objective of `klsim.objectives` on whole tables, as a weighted sum over tokens."""
    log_pi = log_softmax(student, temperature)
    weights = torch.ones(len(log_pi), dtype=log_pi.dtype) if weights is None else weights
    batch = TokenBatch(
        log_pi.new_zeros(1, len(log_pi)),
        vocab_log_probs=log_pi[None],
        teacher_vocab_log_probs=log_softmax(teacher, temperature).detach()[None],
        ref_vocab_log_probs=None if ref is None else log_softmax(ref, temperature).detach()[None],
    )
    return objective(batch, aggregate=lambda value, mask: (value[0] * weights).sum(), **parameters)[0]


def gradients(loss, head):
    return torch.autograd.grad(loss, [x for x in head if x is not None], retain_graph=True)


def assert_same(ours, reference, head, rtol=1e-12):
    torch.testing.assert_close(ours, reference, rtol=rtol, atol=rtol)
    for a, b in zip(gradients(ours, head), gradients(reference, head)):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


WEIGHTS = torch.tensor([0.5, 1.0, 0.0, 2.0, -1.0, 0.25, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("generator", [*GENERATORS, Alpha(0.3)], ids=str)
def test_divergence_of_every_generator(generator, chunk, temperature):
    student, teacher = head(5), head(3)
    ours = linear_divergence(
        *student[:2], *teacher[:2], generator=generator, token_weights=WEIGHTS, temperature=temperature, chunk=chunk
    )
    reference = naive(
        divergence, student, teacher, weights=WEIGHTS, temperature=temperature, generator=generator, against="teacher"
    )
    assert_same(ours, reference, student, 1e-10)


@pytest.mark.parametrize("mix", [0.0, 0.01, 0.5, 0.9, 1.0])
def test_generalised_jensen_shannon(mix):
    student, teacher = head(5), head(3)
    ours = linear_gkd(*student[:2], *teacher[:2], mix=mix, token_weights=WEIGHTS, temperature=0.8, chunk=2)
    assert_same(ours, naive(gkd, student, teacher, weights=WEIGHTS, temperature=0.8, mix=mix), student)


@pytest.mark.parametrize("lam", [1.25, 1.0, 0.5, 0.0, -2.0])
def test_g_opd_with_three_hidden_sizes(lam):
    student, teacher, ref = head(5), head(3), head(8)
    ours = linear_g_opd(student, teacher, ref, lam=lam, token_weights=WEIGHTS, temperature=0.8, chunk=2)
    assert_same(ours, naive(g_opd_full, student, teacher, ref, WEIGHTS, 0.8, lam=lam), student)


def test_worked_by_hand():
    student = LinearHead(torch.zeros(1, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True))
    teacher = LinearHead(torch.ones(1, 1), torch.tensor([[math.log(3.0)], [0.0]]))
    # pi = (1/2, 1/2), T = (3/4, 1/4)
    reverse = linear_divergence(*student[:2], *teacher[:2])
    forward = linear_divergence(*student[:2], *teacher[:2], generator="forward_kl")
    assert float(reverse.detach()) == pytest.approx(0.5 * math.log(4 / 3), abs=1e-7)
    assert float(forward.detach()) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_and_entropy(temperature):
    student = head(5)._replace(bias=torch.linspace(-1, 1, V, dtype=torch.float64, requires_grad=True))
    tokens = torch.arange(N) % V
    ours = linear_log_probs(student.hidden, student.weight, tokens, bias=student.bias, temperature=temperature, chunk=3)
    log_pi = log_softmax(student, temperature)
    log_probs, entropy = log_pi.gather(1, tokens[:, None])[:, 0], -(log_pi.exp() * log_pi).sum(-1)
    for a, b in ((ours.log_probs, log_probs), (ours.entropy, entropy)):
        assert_same(a @ WEIGHTS, b @ WEIGHTS, student)
    assert_same(ours.log_probs @ WEIGHTS + ours.entropy.sum(), log_probs @ WEIGHTS + entropy.sum(), student)


def test_gradcheck():
    student, teacher, ref = head(3, rows=3, vocabulary=4), head(2, rows=3, vocabulary=4), head(2, 1.0, 1, 3, 4)
    bias, other = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias.requires_grad_()
    weights = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    shared = {"token_weights": weights, "temperature": 0.7, "chunk": 2}
    losses = [
        lambda h, w, b: linear_divergence(h, w, *teacher[:2], student_bias=b, teacher_bias=other, **shared),
        lambda h, w, b: linear_divergence(h, w, *teacher[:2], student_bias=b, generator="hellinger", **shared),
        lambda h, w, b: linear_divergence(h, w, *teacher[:2], student_bias=b, generator="forward_kl", **shared),
        lambda h, w, b: linear_gkd(h, w, *teacher[:2], student_bias=b, mix=0.3, **shared),
        lambda h, w, b: linear_g_opd((h, w, b), teacher, ref, lam=1.5, **shared),
        lambda h, w, b: tuple(linear_log_probs(h, w, torch.tensor([3, 0, 1]), bias=b, temperature=0.7, chunk=2)),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, (student.hidden, student.weight, bias))


def test_the_product_rule_with_the_incoming_gradient_and_a_second_backward():
    student, teacher = head(5), head(3)
    loss = linear_divergence(*student[:2], *teacher[:2])
    once = torch.autograd.grad(loss, student[:2], retain_graph=True)
    tripled = torch.autograd.grad(3 * loss, student[:2], retain_graph=True)
    again = torch.autograd.grad(loss, student[:2])
    for a, b, c in zip(once, tripled, again):
        torch.testing.assert_close(b, 3 * a)
        torch.testing.assert_close(c, a)


def test_only_what_is_asked_for_gets_a_gradient():
    student, teacher = head(5), head(3)
    loss = linear_divergence(student.hidden, student.weight.detach(), *teacher[:2])
    loss.backward()
    assert student.hidden.grad is not None
    assert teacher.hidden.grad is None
    assert teacher.weight.grad is None
    with torch.no_grad():
        assert not linear_divergence(*student[:2], *teacher[:2]).requires_grad


# Below float64. With eps the unit of the arithmetic, a product of length H has logits with errors of at most
# H eps sum|h W| (in practice sqrt(H) eps |s|), a softmax passes an error d of its logits on as at most 2d relative in
# every probability, and sums over the vocabulary add a few eps: a value sum pi x has an error below
# (2d + 8 eps) max|x|, a gradient entry of G the same, and G W another sqrt(V) eps. With H = 64, |s| <= 8 and |x| <= 20 this
# is 20 (2 * 8 * 8 eps + 8 eps) < 4000 eps = 2.4e-4 at the very worst, so 1e-5 of the largest entry is what rounding
# that does not conspire must meet.
def relative_error(a, b):
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def all_losses(student, teacher, ref, **shared):
    return {
        "kl": linear_divergence(*student[:2], *teacher[:2], **shared),
        "forward_kl": linear_divergence(*student[:2], *teacher[:2], generator="forward_kl", **shared),
        "js": linear_gkd(*student[:2], *teacher[:2], mix=0.3, **shared),
        "hellinger": linear_divergence(*student[:2], *teacher[:2], generator="hellinger", **shared),
        "g_opd": linear_g_opd(student, teacher, ref, lam=1.25, **shared),
    }


def doubled(head):
    return LinearHead(*(x.detach().double().requires_grad_() for x in head[:2]))


@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    # half precision: the inputs are exact in float32, where all arithmetic is; only the gradients handed back are
    # rounded, by half a unit in the last place: 2^-8 relative in bfloat16 (8 bits), 2^-11 in float16 (11 bits)
    [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 1e-5, 2**-8 + 1e-5), (torch.float16, 1e-5, 2**-11 + 1e-5)],
)
def test_error_of_lower_precision_against_float64(dtype, value, gradient):
    heads = [head(64, 0.3, i, rows=40, vocabulary=9000, dtype=dtype) for i in range(3)]
    exact = [doubled(h) for h in heads]
    ours, reference = all_losses(*heads), all_losses(*exact)
    for name, loss in ours.items():
        assert loss.dtype == torch.float32
        assert relative_error(loss.detach(), reference[name].detach()) <= value, name
        for a, b in zip(gradients(loss, heads[0][:2]), gradients(reference[name], exact[0][:2])):
            assert a.dtype == dtype
            # an entry of the gradient is rounded relative to itself, at most to the largest
            assert relative_error(a, b) <= gradient, name


def test_small_divergences_are_no_noise():
    """Student and teacher differ by delta in their logits: KL = delta^2/2 Var; an absolute error is a few eps, not eps/KL."""
    student = head(64, 0.3, rows=20, vocabulary=500, dtype=torch.float32)
    other = LinearHead(student.hidden.detach() * (1 + 1e-3), student.weight.detach())
    for generator in ("kl", "forward_kl", "js"):
        ours = linear_divergence(*student[:2], *other[:2], generator=generator).detach()
        exact = linear_divergence(*doubled(student)[:2], *doubled(other)[:2], generator=generator).detach()
        assert abs(float(ours) - float(exact)) <= 20 * 4 * torch.finfo(torch.float32).eps
    assert float(linear_divergence(*student[:2], *student[:2]).detach()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("size", [1e4, 3e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype, size):
    """Logits of about ±1e4: rounding of the logits themselves, size * eps, is the error."""
    heads = [head(4, 1.0, i, dtype=dtype) for i in range(3)]
    heads = [LinearHead((h.hidden.detach() * size / 4).requires_grad_(), h.weight) for h in heads]
    exact = [doubled(h) for h in heads]
    tolerance = 16 * size * torch.finfo(dtype).eps
    reference = {"kl": naive(divergence, *exact[:2], generator="kl", against="teacher"),
                 "forward_kl": naive(divergence, *exact[:2], generator="forward_kl", against="teacher"),
                 "js": naive(gkd, *exact[:2], mix=0.3),
                 "g_opd": naive(g_opd_full, *exact)}  # fmt: skip
    for name, loss in all_losses(*heads).items():
        assert torch.isfinite(loss), name
        assert all(torch.isfinite(g).all() for g in gradients(loss, heads[0][:2])), name
        if name in reference:
            bound = tolerance * max(1.0, abs(float(reference[name].detach())))
            assert abs(float(loss.detach()) - float(reference[name].detach())) <= bound, name
    out = linear_log_probs(*heads[0][:2], torch.zeros(N, dtype=torch.int64))
    assert torch.isfinite(out.log_probs).all()
    assert torch.isfinite(out.entropy).all()
    assert (out.entropy >= 0).all()


def test_one_token_and_one_entry_of_the_vocabulary():
    for rows, vocabulary in ((1, V), (N, 1), (1, 1)):
        heads = [head(h, rows=rows, vocabulary=vocabulary) for h in (5, 3, 8)]
        for name, loss in all_losses(*heads).items():
            value = float(loss.detach())
            if vocabulary == 1:
                assert value == pytest.approx(0.0, abs=1e-12), name
                assert all(float(g.abs().max()) <= 1e-12 for g in gradients(loss, heads[0][:2])), name
            assert math.isfinite(value)


def test_rows_of_weight_zero_are_not_looked_at():
    student, teacher = head(5), head(3)
    spoilt = student.hidden.detach().clone()
    spoilt[2] = math.nan
    spoilt.requires_grad_()
    loss = linear_divergence(spoilt, student.weight, *teacher[:2], token_weights=WEIGHTS)
    torch.testing.assert_close(
        loss.detach(), linear_divergence(*student[:2], *teacher[:2], token_weights=WEIGHTS).detach()
    )
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()
    assert (spoilt.grad[2] == 0).all()
    nothing = linear_divergence(*student[:2], *teacher[:2], token_weights=torch.zeros(N))
    assert float(nothing.detach()) == 0.0
    assert all((g == 0).all() for g in gradients(nothing, student[:2]))


def test_non_contiguous_inputs():
    student, teacher = head(5), head(3)
    wide = torch.stack([student.hidden.detach()] * 2, -1).requires_grad_()
    transposed = student.weight.detach().T.contiguous().requires_grad_()
    ours = linear_divergence(wide[..., 1], transposed.T, teacher.hidden.T.contiguous().T, teacher.weight)
    reference = linear_divergence(*student[:2], *teacher[:2])
    torch.testing.assert_close(ours, reference)
    (a, b), (c, d) = torch.autograd.grad(ours, (wide, transposed)), gradients(reference, student[:2])
    torch.testing.assert_close(a[..., 1], c)
    torch.testing.assert_close(b.T, d)


def test_blocks_of_a_cast_head(monkeypatch):
    monkeypatch.setattr(logit_chunks, "_VOCABULARY_BLOCK", 4)
    student, teacher = (head(h, dtype=torch.bfloat16) for h in (5, 3))
    ours = linear_divergence(*student[:2], *teacher[:2], temperature=0.5, chunk=2)
    exact = doubled(student)
    reference = naive(divergence, exact, doubled(teacher), temperature=0.5, against="teacher")
    torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients(ours, student[:2]), gradients(reference, exact[:2])):
        assert relative_error(a, b) <= 2**-8 + 1e-5


def test_weight_gradients_of_bfloat16_are_summed_in_float32():
    """4096 equal rows: a sum kept in bfloat16 stops growing at 256 times a term."""
    rows = 4096
    hidden = torch.ones(rows, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    linear_divergence(hidden, weight, hidden, teacher, generator="forward_kl", chunk=8).backward()
    expected = rows * (0.5 - 1 / (1 + math.exp(-1)))
    assert float(weight.grad[0, 0]) == pytest.approx(expected, rel=2**-8)


def test_products_that_torch_widens_itself(wide):
    """The branch for CUDA."""
    student, teacher = (head(h, dtype=torch.bfloat16) for h in (5, 3))
    bias = torch.linspace(-1, 1, V)
    ours = linear_divergence(*student[:2], *teacher[:2], student_bias=bias, temperature=0.5, chunk=2)
    exact = doubled(student)
    reference = naive(
        divergence, exact._replace(bias=bias.double()), doubled(teacher), temperature=0.5, against="teacher"
    )
    torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-5)
    for x, y in zip(gradients(ours, student[:2]), gradients(reference, exact[:2])):
        assert relative_error(x, y) <= 2 * 2**-8 + 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_agrees_with_float64(dtype):
    """Logits are exact products of the inputs; in bfloat16 G is rounded (2^-8), then the gradient (2^-8)."""
    heads = [head(64, 0.3, i, rows=40, vocabulary=9000, dtype=dtype) for i in range(3)]
    moved = [LinearHead(*(x.detach().cuda().requires_grad_() for x in h[:2])) for h in heads]
    exact = [doubled(h) for h in heads]
    ours, reference = all_losses(*moved, chunk=16, temperature=0.9), all_losses(*exact, temperature=0.9)
    rounding = 1e-5 + (2 * 2**-8 if dtype == torch.bfloat16 else 0)
    for name, loss in ours.items():
        assert relative_error(loss.detach().cpu(), reference[name].detach()) <= 1e-5, name
        for a, b in zip(gradients(loss, moved[0][:2]), gradients(reference[name], exact[0][:2])):
            assert relative_error(a.cpu(), b) <= rounding, name


def masked(head, *excluded):
    bias = torch.zeros(V, dtype=torch.float64)
    bias[list(excluded)] = -math.inf
    return head._replace(bias=bias)


def test_excluded_tokens_give_no_nan():
    student, teacher, ref = masked(head(5), 1, 4), masked(head(3), 1, 4), masked(head(8), 1, 4)
    small = [LinearHead(h.hidden, h.weight[[i for i in range(V) if i not in (1, 4)]]) for h in (student, teacher, ref)]
    shared = {"student_bias": student.bias, "teacher_bias": teacher.bias, "temperature": 0.5}
    for generator in ("kl", "forward_kl", "js", "chi2", "hellinger", "tv"):
        ours = linear_divergence(*student[:2], *teacher[:2], generator=generator, **shared)
        reference = linear_divergence(*small[0][:2], *small[1][:2], generator=generator, temperature=0.5)
        assert_same(ours, reference, LinearHead(student.hidden, student.weight), 1e-10)
    ours = linear_g_opd(student, teacher, ref, lam=1.5)
    assert_same(ours, linear_g_opd(*small, lam=1.5), LinearHead(student.hidden, student.weight))
    out = linear_log_probs(*student[:2], torch.tensor([1, 0, 2, 3, 5, 6, 4]), bias=student.bias)
    assert out.log_probs.isinf().tolist() == [True, False, False, False, False, False, True]
    assert torch.isfinite(out.entropy).all()
    assert all(torch.isfinite(g).all() for g in gradients(out.entropy.sum() + out.log_probs[1:6].sum(), student[:2]))


def test_supports_that_differ():
    """JS is finite, and the reverse KL where only the student excludes; infinite losses are refused."""
    student, teacher = head(5), head(3)
    for own, other in ((masked(student, 1), teacher), (student, masked(teacher, 1))):
        ours = linear_gkd(*own[:2], *other[:2], mix=0.3, student_bias=own.bias, teacher_bias=other.bias)
        assert_same(ours, naive(gkd, own, other, mix=0.3), LinearHead(student.hidden, student.weight), 1e-10)
    own = masked(student, 1)
    ours = linear_divergence(*own[:2], *teacher[:2], student_bias=own.bias)
    assert_same(ours, naive(divergence, own, teacher, against="teacher"), LinearHead(student.hidden, student.weight))
    with pytest.raises(ValueError, match=r"student_bias\[1\] = -inf: the teacher has mass on this token"):
        linear_divergence(*own[:2], *teacher[:2], student_bias=own.bias, generator="forward_kl")
    with pytest.raises(ValueError, match=r"teacher_bias\[1\] = -inf: the student has mass on this token"):
        linear_divergence(*student[:2], *teacher[:2], teacher_bias=own.bias)
    with pytest.raises(ValueError, match=r"ref_bias\[1\] = -inf: the student has mass"):
        linear_g_opd(student, teacher, masked(head(8), 1))


def test_autocast_does_not_lower_the_arithmetic():
    student, teacher = (head(h, dtype=torch.float32) for h in (5, 3))
    plain = linear_divergence(*student[:2], *teacher[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = linear_divergence(*student[:2], *teacher[:2])
    assert float(plain.detach()) == float(cast.detach())


def spoilt(value):
    return head(5).hidden.detach().index_put((torch.tensor(4), torch.tensor(1)), torch.tensor(value).double())


GOOD = head(5)
TEACHER = head(3)
IDS = torch.zeros(N, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linear_divergence(GOOD.hidden.detach().numpy(), *GOOD[1:2], *TEACHER[:2]), TypeError, "student_hidden: must be a floating tensor"),
        (lambda: linear_divergence(GOOD.hidden.long(), GOOD.weight, *TEACHER[:2]), TypeError, "student_hidden: must be a floating tensor"),
        (lambda: linear_divergence(GOOD.hidden[None], GOOD.weight, *TEACHER[:2]), ValueError, r"student_hidden: needs shape \[N, H\]"),
        (lambda: linear_divergence(GOOD.hidden[:0], GOOD.weight, *TEACHER[:2]), ValueError, r"student_hidden: needs shape \[N, H\]"),
        (lambda: linear_divergence(GOOD.hidden[:3], GOOD.weight, *TEACHER[:2]), ValueError, "teacher_hidden: must have the 3 rows of student_hidden, got 7"),
        (lambda: linear_divergence(GOOD.hidden, GOOD.weight[:3], *TEACHER[:2]), ValueError, "teacher_weight: must have the 3 tokens of the vocabulary of student_weight, got 11"),
        (lambda: linear_divergence(GOOD.hidden, GOOD.weight[:, :3], *TEACHER[:2]), ValueError, r"student_weight: must have shape \[V, 5\]"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], student_bias=torch.zeros(3)), ValueError, r"student_bias: must have shape \[11\]"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], student_bias=torch.full((V,), math.nan)), ValueError, r"student_bias\[0\] = nan: must be finite or -inf"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], student_bias=torch.full((V,), -math.inf)), ValueError, "student_bias: excludes every token"),
        (lambda: linear_divergence(spoilt(math.nan), GOOD.weight, *TEACHER[:2]), ValueError, r"student_hidden\[4\]: must be finite"),
        (lambda: linear_divergence(spoilt(math.inf), GOOD.weight, *TEACHER[:2], token_weights=WEIGHTS), ValueError, r"student_hidden\[4\]: must be finite"),
        (lambda: linear_divergence(*TEACHER[:2], spoilt(math.nan), GOOD.weight), ValueError, r"teacher_hidden\[4\]: must be finite"),
        (lambda: linear_divergence(TEACHER.hidden, TEACHER.weight / 0.0, *GOOD[:2]), ValueError, r"student_weight\[0, 0\] = .*inf: must be finite"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], generator="no"), ValueError, "generator = 'no'"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], temperature=0.0), ValueError, "temperature = 0.0"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], temperature=math.inf), ValueError, "temperature = inf"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], chunk=0), ValueError, "chunk = 0: must be >= 1"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], chunk=2.0), TypeError, "chunk = 2.0"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], token_weights=[1.0] * N), TypeError, "token_weights: must be a real tensor"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], token_weights=torch.ones(3)), ValueError, r"token_weights: must have shape \[7\]"),
        (lambda: linear_divergence(*GOOD[:2], *TEACHER[:2], token_weights=WEIGHTS / 0), ValueError, r"token_weights\[0\] = inf: must be finite"),
        (lambda: linear_gkd(*GOOD[:2], *TEACHER[:2], mix=1.5), ValueError, "mix = 1.5"),
        (lambda: linear_g_opd(GOOD, TEACHER), ValueError, "ref: lam other than 1 needs a reference|ref = 1.25"),
        (lambda: linear_g_opd(GOOD, TEACHER, TEACHER, lam=math.inf), ValueError, "lam = inf"),
        (lambda: linear_log_probs(*GOOD[:2], IDS.double()), TypeError, "tokens: must be a tensor of integers"),
        (lambda: linear_log_probs(*GOOD[:2], IDS[:3]), ValueError, r"tokens: must have shape \[7\]"),
        (lambda: linear_log_probs(*GOOD[:2], IDS + V), ValueError, r"tokens\[0\] = 11: must be 0 … 10"),
        (lambda: linear_log_probs(spoilt(math.nan), GOOD.weight, IDS), ValueError, r"hidden\[4\]: must be finite"),
    ],
)  # fmt: skip
def test_malformed_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
