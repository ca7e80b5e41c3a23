"""The loop over chunks: what it never does (wait for the device), how much it computes and holds, and the fused form."""

import dataclasses
import functools
import math

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from klsim.lm import logit_chunks, vocab_losses
from klsim.lm.logit_chunks import LinearHead, Plan, sweep
from klsim.lm.vocab_losses import linear_divergence, linear_g_opd, linear_gkd, linear_log_probs
from klsim.lm.vocab_rows import BY_HAND, g_opd_rows, log_prob_gradient_rows, log_prob_rows
from tests.lm.torch_modes import FakeCudaIndexing, PeakBytes, Waits

# torch's own, of its compiler and its fake tensors
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning"),
]
N, V, H = 20, 300, 16
ROWS = {**BY_HAND, "g_opd": functools.partial(g_opd_rows, lam=1.25)}
UNIT = 2.0**-8  # half a unit in the last place of bfloat16, relative


def head(seed, rows=N, vocabulary=V, dtype=torch.float32, bias=False):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, H, generator=generator) for n in (rows, vocabulary))
    return LinearHead(
        hidden.to(dtype).requires_grad_(),
        (0.5 * weight).to(dtype).requires_grad_(),
        torch.randn(vocabulary, generator=generator).requires_grad_() if bias else None,
    )


def log_probs(student, rows=N, **options):
    tokens = torch.arange(rows) * 7 % V
    out = linear_log_probs(student.hidden, student.weight, tokens, bias=student.bias, **options)
    return (out.log_probs + 0.1 * out.entropy).sum()


LOSSES = {
    "kl": lambda s, t, q, **o: linear_divergence(*s[:2], *t[:2], student_bias=s.bias, **o),
    "forward_kl": lambda s, t, q, **o: linear_divergence(*s[:2], *t[:2], student_bias=s.bias, generator="forward_kl", **o),
    "js": lambda s, t, q, **o: linear_gkd(*s[:2], *t[:2], student_bias=s.bias, **o),
    "hellinger": lambda s, t, q, **o: linear_divergence(*s[:2], *t[:2], student_bias=s.bias, generator="hellinger", **o),
    "g_opd": lambda s, t, q, **o: linear_g_opd(s, t, q, **o),
    "log_probs": lambda s, t, q, **o: log_probs(s, len(s.hidden), **o),
}  # fmt: skip


# Waiting for the device.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_an_unchecked_loss_never_waits(name, weighted, monkeypatch):
    monkeypatch.setattr(vocab_losses, "_is_one", lambda _: False)  # as on every device but the CPU
    heads = [head(i, bias=i == 0) for i in range(3)]
    weights = torch.arange(N) % 3 - 1.0
    options = {"token_weights": weights} if weighted and name != "log_probs" else {}
    with Waits(refuse=True):
        LOSSES[name](*heads, chunk=3, check=False, temperature=0.7, **options).backward()
    grads = [x.grad for x in heads[0]]
    for x in heads[0]:
        x.grad = None
    LOSSES[name](*heads, chunk=3, temperature=0.7, **options).backward()
    for a, b in zip(grads, heads[0]):
        torch.testing.assert_close(a, b.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_checked_loss_waits_as_often_whatever_the_number_of_chunks(name):
    counts = []
    for chunk in (1, N):
        heads = [head(i, bias=i == 0) for i in range(3)]
        with Waits() as waits:
            LOSSES[name](*heads, chunk=chunk).backward()
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


def test_unchecked_rows_of_weight_zero_are_not_looked_at():
    student, teacher = head(0), head(1)
    hidden = student.hidden.detach().clone()
    hidden[3] = math.nan
    hidden.requires_grad_()
    weights = (torch.arange(N) != 3).float()
    loss = linear_divergence(hidden, student.weight, *teacher[:2], token_weights=weights, check=False)
    loss.backward()
    expected = linear_divergence(*student[:2], *teacher[:2], token_weights=weights)
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(hidden.grad).all()
    assert (hidden.grad[3] == 0).all()


def test_check_is_a_boolean():
    with pytest.raises(TypeError, match="check: must be True or False, got None"):
        linear_divergence(*head(0)[:2], *head(1)[:2], check=None)


@pytest.fixture
def fake_cuda(monkeypatch):
    """Tensors that say they are on CUDA and hold nothing: an operation whose result depends on data raises."""

    def addmm(x, a, b, out_dtype, *, beta=1, alpha=1, out):
        assert out is x
        assert x.dtype == out_dtype == torch.float32
        assert a.dtype == b.dtype == torch.bfloat16
        assert x.device == a.device == b.device
        assert x.shape == (a.shape[0], b.shape[1])
        return out

    monkeypatch.setattr(torch, "addmm", addmm)  # torch has no fake kernel for its out_dtype
    with FakeTensorMode(), FakeCudaIndexing(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield


def on_fake_cuda(rows=N, dtype=torch.bfloat16, bias=False):
    shape = torch.empty(V, device="cuda", dtype=dtype) if bias else None
    return LinearHead(*(torch.empty(n, H, device="cuda", dtype=dtype) for n in (rows, V)), shape)


@pytest.mark.parametrize("name", ROWS)
def test_on_fake_cuda_nothing_depends_on_data(name, fake_cuda):
    heads = [on_fake_cuda(bias=i == 0) for i in range(3 if name == "g_opd" else 2)]
    plan = Plan(8, 4, torch.float32, 0.7, fused=True)
    values, gradients = sweep(heads, ROWS[name], torch.empty(N, device="cuda"), [True] * 3, plan)
    assert values.device.type == "cuda"
    for gradient, x in zip(gradients, heads[0]):
        assert gradient.device == x.device
        assert (gradient.dtype, gradient.shape) == (x.dtype, x.shape)
    with pytest.raises(DataDependentOutputException):
        bool(values.sum() > 0)


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("log_probs", "hellinger")])
def test_whole_calls_on_fake_cuda(name, fake_cuda, monkeypatch):
    heads = [on_fake_cuda() for _ in range(3)]
    assert LOSSES[name](*heads, check=False).dtype == torch.float32
    # torch.autocast("cuda") switches itself off without a device
    monkeypatch.setattr(vocab_losses, "_autocast_dtype", {"cuda": torch.bfloat16}.get)
    masters = [LinearHead(h.hidden.float(), h.weight.float()) for h in heads]
    assert LOSSES[name](*masters, check=False).dtype == torch.float32


def test_log_probs_on_fake_cuda(fake_cuda):
    student = on_fake_cuda()
    tokens = torch.empty(N, device="cuda", dtype=torch.int64)
    out = linear_log_probs(*student[:2], tokens, check=False)
    assert out.log_probs.device.type == out.entropy.device.type == "cuda"
    plan, column = Plan(8, 4, torch.float32, 1.0, fused=True), torch.empty(N, 1, device="cuda")
    for rows, logits in logit_chunks.logits_by_chunk([student], plan):
        columns = (tokens[:, None], column, column, column)
        left = logit_chunks.over_rows(log_prob_gradient_rows, rows, logits, columns, plan, left=torch.bfloat16)
        assert (left.dtype, left.shape) == (torch.bfloat16, logits[0].shape)


# How much is computed and held.


@pytest.mark.parametrize(
    ("name", "forward", "products"),
    [("kl", 2, 4), ("forward_kl", 2, 4), ("js", 2, 4), ("hellinger", 2, 4), ("g_opd", 3, 5), ("log_probs", 1, 4)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products(name, forward, products, dtype):
    """As the docstring of `klsim.lm.vocab_losses` says, in products of ``2 N V H`` operations."""
    heads = [head(i, dtype=dtype) for i in range(3)]
    one = 2 * N * V * H
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        LOSSES[name](*heads, chunk=3)
    assert counted.get_total_flops() == forward * one
    with FlopCounterMode(display=False) as counted:
        LOSSES[name](*heads, chunk=3).backward()
    assert counted.get_total_flops() == products * one


def peak(name, rows, chunk, naive=False):
    heads = [head(i, rows) for i in range(3)]
    with PeakBytes() as held:
        if naive:
            log_pi, log_t = ((h.hidden @ h.weight.T).log_softmax(-1) for h in heads[:2])
            (log_pi.exp() * (log_pi - log_t.detach())).sum().backward()
        else:
            LOSSES[name](*heads, chunk=chunk, check=False).backward()
    return held.peak


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "hellinger"])
def test_memory_is_that_of_a_chunk(name):
    """Logits of every head and two tiles of scratch (here as tall as a chunk), the gradients of head and hidden states,
    and some numbers a row of at most 8 bytes: nothing of size ``N V``."""
    count = {"g_opd": 3, "log_probs": 1}.get(name, 2)
    for rows, chunk in ((64, 4), (512, 4), (512, 16)):
        numbers = 4 * ((count + 2) * chunk * V + V * H + rows * H)
        # a column of float64 a row is 8 bytes: values, weights, what comes in; row constants of a chunk likewise
        assert 4 * count * chunk * V < peak(name, rows, chunk) <= numbers + 8 * 24 * rows + 8 * 24 * chunk
    assert peak(name, 512, 4, naive=True) > 4 * 512 * V


@pytest.mark.parametrize("name", ROWS)
def test_memory_of_the_fused_form_on_fake_cuda(name, fake_cuda, monkeypatch):
    """The same, with G in bfloat16, and no scratch: what a kernel keeps to itself is not memory."""

    def one_kernel(function, logits, columns, left):
        rows = len(logits[0])
        return torch.empty(rows, dtype=torch.float64, device="cuda"), torch.empty(rows, V, dtype=left, device="cuda")

    monkeypatch.setattr(logit_chunks, "_fused", one_kernel)
    count, held = 3 if name == "g_opd" else 2, []
    for rows, chunk in ((64, 8), (512, 8), (512, 16)):
        heads, weights = [on_fake_cuda(rows) for _ in range(count)], torch.empty(rows, device="cuda")
        with PeakBytes() as bytes_:
            sweep(heads, ROWS[name], weights, [True, True, False], Plan(chunk, chunk, torch.float32, 1.0, fused=True))
        held.append(bytes_.peak)
        gradients = (4 + 2) * (V + rows) * H
        assert held[-1] <= (4 * count + 2 * 2) * chunk * V + gradients + 8 * 4 * rows + 8 * chunk
    assert held[2] - held[1] >= 4 * count * 8 * V


@pytest.mark.parametrize(
    ("count", "most", "chunk"),
    [(8192, 1765, 1664), (8192, 5461, 4096), (8192, 10**6, 8192), (100, 1765, 128), (8192, 90, 90), (5, 0, 1)],
)
def test_chunks_of_an_accelerator_are_even_and_whole_tiles(count, most, chunk):
    assert vocab_losses._even_chunk(count, most) == chunk


# Half precision.


@pytest.mark.parametrize("name", ["kl", "forward_kl", "js", "g_opd", "log_probs"])
def test_bfloat16_gradients_have_the_error_of_their_rounding(name, wide):
    r"""G is rounded to bfloat16 (relative error u = 2^-8 an entry), its products accumulate in float32, and the result is
    rounded once more: ``|error of sum G h| <= u sum |G| |h| + u |sum G h|``, to first order, elementwise. Float32 adds: logits
    wrong by at most ``d = H eps sum |h W|``, here below 16 * 40 * 1.2e-7 = 7.7e-5, hence G by some 4 d = 3.1e-4 of the terms
    it is made of, which is below u / 10: the factor 1.1."""
    rows = 40
    heads = [head(i, rows, dtype=torch.bfloat16) for i in range(3)]
    exact = [LinearHead(*(x.detach().double().requires_grad_() for x in h[:2])) for h in heads]
    ours = LOSSES[name](*heads, chunk=16)
    logits = (exact[0].hidden @ exact[0].weight.T).detach().requires_grad_()
    identity = torch.eye(V, dtype=torch.float64)
    reference = LOSSES[name](LinearHead(logits, identity), *exact[1:])
    (g,) = torch.autograd.grad(reference, logits)
    hidden, weight = (x.detach() for x in exact[0][:2])
    assert float(ours.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    sums = (g @ weight, g.T @ hidden)
    sizes = (g.abs() @ weight.abs(), g.abs().T @ hidden.abs())
    for found, value, size in zip(torch.autograd.grad(ours, heads[0][:2]), sums, sizes):
        used = (found.double() - value).abs() / (UNIT * (1.1 * size + value.abs()))
        assert float(used.max()) <= 1
        assert float(used.max()) > 0.02  # the bound is of the size of what it bounds


def test_float32_parameters_under_autocast_are_cast_as_a_linear_layer_casts_them(wide):
    heads = [head(i) for i in range(2)]
    cast = [LinearHead(*(x.detach().bfloat16() for x in h[:2])) for h in heads]
    weights = torch.ones(N)
    plan = Plan(6, 6, torch.float32, 1.0, factors=torch.bfloat16)
    with torch.no_grad():
        values, gradients = sweep(heads, BY_HAND["kl"], weights, [True, True, False], plan)
        expected, rounded = sweep(cast, BY_HAND["kl"], weights, [True, True, False], Plan(6, 6, torch.float32, 1.0))
    assert torch.equal(values, expected)
    for a, b in zip(gradients[:2], rounded[:2]):
        assert a.dtype == torch.float32
        assert torch.equal(a.bfloat16(), b)


def test_the_precision_of_autocast():
    assert vocab_losses._autocast_dtype("cpu") is None
    with torch.autocast("cpu", torch.bfloat16):
        assert vocab_losses._autocast_dtype("cpu") == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert vocab_losses._autocast_dtype("cpu") is None


# The fused form.


def fused_plan(*args, **options):
    return dataclasses.replace(Plan(*args, **options), fused=True)


@pytest.fixture
def compiled(monkeypatch):
    """The functions of rows as torch.compile traces and decomposes them, one graph each; the kernels are torch's own."""
    compiling = torch.compile(logit_chunks._on_copies, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(logit_chunks, "_compiled", lambda: compiling)
    monkeypatch.setattr(vocab_losses, "Plan", fused_plan)


def same_as_tiles(name, dtype=torch.float64, rtol=1e-12):
    heads = [head(i, dtype=dtype, bias=i == 0) for i in range(3)]
    given = [x for x in heads[0] if x is not None]
    loss = LOSSES[name](*heads, chunk=8, temperature=0.7)
    found = [loss.detach(), *torch.autograd.grad(loss, given)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocab_losses, "Plan", Plan)
        loss = LOSSES[name](*heads, chunk=8, temperature=0.7)
        expected = [loss.detach(), *torch.autograd.grad(loss, given)]
    assert not logit_chunks._refused
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


FUSED = ["kl", "forward_kl", "js", "g_opd", "log_probs"]


@pytest.mark.parametrize("name", FUSED)
def test_the_fused_form_is_the_same_function(name, compiled):
    same_as_tiles(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUSED)
def test_the_kernels_of_inductor_are_the_same_function(name, monkeypatch):
    """What runs on CUDA, in the form that inductor gives it on the CPU."""
    monkeypatch.setattr(vocab_losses, "Plan", fused_plan)
    same_as_tiles(name)
    same_as_tiles(name, torch.float32, 1e-4)


def test_log_prob_gradients_alone_when_compiled(compiled):
    student = head(0)
    tokens = torch.arange(N)
    (found,) = torch.autograd.grad(linear_log_probs(*student[:2], tokens, chunk=8).log_probs.sum(), student.hidden)
    log_pi = (student.hidden @ student.weight.T).log_softmax(-1)
    (expected,) = torch.autograd.grad(log_pi[tokens, tokens].sum(), student.hidden)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_where_nothing_can_be_compiled_a_warning_says_so_once(monkeypatch):
    def broken():
        def fail(*_):
            raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no Triton here"), None)

        return fail

    monkeypatch.setattr(logit_chunks, "_compiled", broken)
    monkeypatch.setattr(logit_chunks, "_refused", [])
    heads = [head(i) for i in range(3)]
    expected = LOSSES["kl"](*heads, chunk=8).detach()
    monkeypatch.setattr(vocab_losses, "Plan", fused_plan)
    with pytest.warns(
        RuntimeWarning, match="torch.compile failed, chunked losses run slower: .*no Triton here"
    ) as seen:
        found = [LOSSES["kl"](*heads, chunk=8).detach() for _ in range(2)]
    assert len(seen) == 1
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected)


@pytest.mark.parametrize("name", FUSED)
def test_an_unchecked_loss_is_one_graph_of_a_compiled_step(name):
    heads = [head(i) for i in range(3)]
    step = torch.compile(lambda *h: LOSSES[name](*h, chunk=8, check=False), backend="eager", fullgraph=True)
    found, expected = step(*heads), LOSSES[name](*heads, chunk=8)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(torch.autograd.grad(found, heads[0][:2]), torch.autograd.grad(expected, heads[0][:2])):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_wide_products_inside_a_compiled_step(wide):
    heads = [head(i, dtype=torch.bfloat16) for i in range(2)]
    step = torch.compile(lambda *h: LOSSES["kl"](*h, None, chunk=8, check=False), backend="eager", fullgraph=True)
    found, expected = step(*heads), LOSSES["kl"](*heads, None, chunk=8)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(torch.autograd.grad(found, heads[0][:2]), torch.autograd.grad(expected, heads[0][:2])):
        torch.testing.assert_close(a, b, rtol=2 * UNIT, atol=1e-3)


def test_values_of_log_probs_worked_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    values = log_prob_rows([logits.clone()], [torch.empty(1, 3)], torch.tensor([[1]]))
    assert values[:, 0].tolist() == pytest.approx([math.log(0.25), 1.5 * math.log(2)], abs=1e-6)
    log_prob_gradient_rows(
        [logits], [torch.empty(1, 3)], torch.tensor([[1]]), torch.tensor([[2.0]]), None, torch.zeros(1, 1)
    )
    assert logits[0].tolist() == pytest.approx([-1.0, 1.5, -0.5], abs=1e-6)
