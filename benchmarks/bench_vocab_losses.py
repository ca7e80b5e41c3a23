"""Distillation losses over a vocabulary of 64,000 from hidden states and heads, forward and backward.

``python -m benchmarks vocab_losses``: times beside the peers. ``python -m benchmarks.bench_vocab_losses``: time, peak
memory and errors of every loss and every peer:

* *products*: the matrix products that no method can avoid (logits of every head, gradients of hidden states and of the
  student's head), unchunked, into memory that is there already;
* *naive*: log-softmax tables and autograd; *Liger*: its chunked Jensen-Shannon loss, which is plain torch, but imported
  with kernels that need triton; skipped where it is not installed.

Every entry runs in a process of its own, in turn, best of the rounds. Memory is what the largest resident size of the
process grows by from before the first call (inputs built) to after it, gradients included. `benchmarks.lm_cuda` does
the same on a CUDA device.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from klsim.lm.vocab_losses import linear_divergence, linear_g_opd, linear_gkd, linear_log_probs

MIX, LAM = 0.5, 1.25
ROUNDS, REPEATS = 2, 3


@dataclass(frozen=True)
class Sizes:
    tokens: int
    hidden: int
    vocabulary: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


CPU = Sizes(1024, 512, 64_000)
SMALL = Sizes(64, 512, 64_000)


@cache
def heads(sizes: Sizes) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Student, teacher and reference with logits of standard deviation 3."""
    torch.manual_seed(0)
    out = []
    for _ in range(3):
        hidden = torch.randn(sizes.tokens, sizes.hidden, dtype=sizes.dtype, device=sizes.device)
        weight = torch.randn(sizes.vocabulary, sizes.hidden, dtype=sizes.dtype, device=sizes.device)
        out.append((hidden, weight.mul_(3 * sizes.hidden**-0.5)))
    for x in out[0]:
        x.requires_grad_()
    return tuple(out)


Loss = Callable[..., torch.Tensor]


def klsim_kl(student, teacher, ref):
    return linear_divergence(*student, *teacher) / len(student[0])


def klsim_jsd(student, teacher, ref):
    return linear_gkd(*student, *teacher, mix=MIX) / len(student[0])


def klsim_g_opd(student, teacher, ref):
    return linear_g_opd(student, teacher, ref, lam=LAM) / len(student[0])


def klsim_log_probs(student, teacher, ref):
    out = linear_log_probs(*student, tokens(student))
    return -(out.log_probs + 0.1 * out.entropy).mean()


def tokens(student):
    return torch.arange(len(student[0]), device=student[0].device) * 37 % len(student[1])


def log_softmax(head):
    logits = head[0] @ head[1].T
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def naive_kl(student, teacher, ref):
    log_pi, log_t = log_softmax(student), log_softmax(teacher)
    return torch.nn.functional.kl_div(log_t, log_pi, log_target=True, reduction="batchmean")


def naive_jsd(student, teacher, ref):
    log_pi, log_t = log_softmax(student), log_softmax(teacher)
    log_m = torch.logaddexp(log_pi + torch.tensor(1 - MIX).log(), log_t + torch.tensor(MIX).log())
    to_teacher = torch.nn.functional.kl_div(log_m, log_t, log_target=True, reduction="batchmean")
    return MIX * to_teacher + (1 - MIX) * torch.nn.functional.kl_div(
        log_m, log_pi, log_target=True, reduction="batchmean"
    )


def naive_g_opd(student, teacher, ref):
    log_pi, log_t, log_q = map(log_softmax, (student, teacher, ref))
    return (log_pi.exp() * (log_pi - LAM * log_t - (1 - LAM) * log_q)).sum(-1).mean()


def naive_log_probs(student, teacher, ref):
    log_pi = log_softmax(student)
    chosen = log_pi.gather(1, tokens(student)[:, None])[:, 0]
    return -(chosen - 0.1 * (log_pi.exp() * log_pi).sum(-1)).mean()


def liger_jsd(chunk: int) -> Loss:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    def loss(student, teacher, ref):
        module = LigerFusedLinearJSDLoss(0.0, 1.0, beta=MIX, chunk_size=chunk, compiled=student[0].is_cuda)
        return module(*student, *teacher, torch.zeros(len(student[0]), dtype=torch.int64, device=student[0].device))

    return loss


def products(count: int) -> Callable[[Sizes], Callable[[], None]]:
    """The unavoidable products of a loss with so many heads."""

    def prepare(sizes: Sizes) -> Callable[[], None]:
        (hidden, weight), *others = [tuple(x.detach() for x in head) for head in heads(sizes)[:count]]
        logits = hidden.new_empty(sizes.tokens, sizes.vocabulary)
        gradients = torch.empty_like(hidden), torch.empty_like(weight)

        def run() -> None:
            for head in (*others, (hidden, weight)):
                torch.mm(head[0], head[1].T, out=logits)
            torch.mm(logits, weight, out=gradients[0])
            torch.mm(logits.T, hidden, out=gradients[1])

        return run

    return prepare


def step(loss: Loss) -> Callable[[Sizes], Callable[[], None]]:
    """One forward and backward pass."""

    def prepare(sizes: Sizes) -> Callable[[], None]:
        given = heads(sizes)

        def run() -> None:
            for x in given[0]:
                x.grad = None
            loss(*given).backward()

        return run

    return prepare


ENTRIES: dict[str, Callable[[Sizes], Callable[[], None]]] = {
    "products of KL and JSD": products(2),
    "klsim KL": step(klsim_kl),
    "naive KL": step(naive_kl),
    "klsim JSD": step(klsim_jsd),
    "naive JSD": step(naive_jsd),
    "Liger JSD, its default chunk of 1024": lambda sizes: step(liger_jsd(1024))(sizes),
    "Liger JSD, chunk of 256": lambda sizes: step(liger_jsd(256))(sizes),
    "products of G-OPD": products(3),
    "klsim G-OPD": step(klsim_g_opd),
    "naive G-OPD": step(naive_g_opd),
    "klsim log-probs and entropy": step(klsim_log_probs),
    "naive log-probs and entropy": step(naive_log_probs),
}
LOSSES = {
    "KL": (klsim_kl, naive_kl),
    "JSD": (klsim_jsd, naive_jsd),
    "G-OPD": (klsim_g_opd, naive_g_opd),
    "log-probs and entropy": (klsim_log_probs, naive_log_probs),
}


def value_and_gradients(loss: Loss, given) -> list[torch.Tensor]:
    value = loss(*given)
    return [value.detach().double(), *(g.double() for g in torch.autograd.grad(value, given[0]))]


def errors(loss: Loss, exact: Loss, sizes: Sizes) -> list[float]:
    """Of the value, and of the gradients of hidden states and head (largest error over largest entry)."""
    given = heads(sizes)
    double = tuple(tuple(x.detach().double() for x in head) for head in given)
    for x in double[0]:
        x.requires_grad_()
    pairs = zip(value_and_gradients(loss, given), value_and_gradients(exact, double))
    return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]


def liger_installed() -> bool:
    try:
        liger_jsd(1024)
    except ImportError as error:
        print(f"Liger is skipped: {error}", file=sys.stderr)
        return False
    return True


def cases():
    """For ``python -m benchmarks``; the difference is the largest error against float64, of values and gradients."""
    size = f"{CPU.tokens:,} tokens, vocabulary {CPU.vocabulary:,}"

    def error(name: str) -> Callable[[], float]:
        return lambda: max(errors(*LOSSES[name], SMALL))

    entries = {name: prepare(CPU) for name, prepare in ENTRIES.items() if "Liger" not in name}
    yield (
        f"reverse KL and its gradients, {size}",
        entries["klsim KL"],
        "its four matrix products",
        entries["products of KL and JSD"],
        error("KL"),
    )
    yield (
        f"Jensen-Shannon and its gradients, {size}",
        entries["klsim JSD"],
        "log-softmax and autograd",
        entries["naive JSD"],
        error("JSD"),
    )
    if liger_installed():
        yield (
            f"Jensen-Shannon and its gradients, {size}",
            entries["klsim JSD"],
            "Liger, chunked",
            step(liger_jsd(256))(CPU),
            error("JSD"),
        )
    yield (
        f"G-OPD (three heads) and its gradients, {size}",
        entries["klsim G-OPD"],
        "its five matrix products",
        entries["products of G-OPD"],
        error("G-OPD"),
    )


def measured(name: str, sizes: Sizes) -> dict[str, float]:
    """Extra peak memory of the first call in MiB and seconds of the best of the next, in this process."""
    heads(sizes)
    run = ENTRIES[name](sizes)
    # the thread pools and libraries that a first product starts are not the loss's
    torch.mm(torch.ones(64, 64), torch.ones(64, 64)).exp_().sum()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return {"MiB": extra / 1024, "seconds": min(seconds)}


def in_its_own_process(name: str) -> dict[str, float] | None:
    command = [sys.executable, "-m", "benchmarks.bench_vocab_losses", "--one", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"| {name} | {(done.stderr.strip().splitlines() or ['failed'])[-1]} | |")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def table() -> None:
    names = [n for n in ENTRIES if "Liger" not in n or liger_installed()]
    rounds: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    for _ in range(ROUNDS):
        for name in names:
            found = in_its_own_process(name)
            if found is not None:
                rounds[name].append(found)
    print("| | time | extra peak memory |\n|---|---|---|")
    for name, found in rounds.items():
        if found:
            seconds, memory = (min(f[key] for f in found) for key in ("seconds", "MiB"))
            print(f"| {name} | {seconds:.3f} s | {memory:,.0f} MiB |")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(sys.argv[2], CPU)))
        return
    print(
        f"{CPU.tokens} tokens, hidden size {CPU.hidden}, vocabulary {CPU.vocabulary}, float32, {torch.get_num_threads()} threads"
    )
    table()
    print(f"\nErrors at {SMALL.tokens} tokens against naive float64: value, gradient of hidden states, of the head")
    print("| | float32 | bfloat16 |\n|---|---|---|")
    for name, (ours, naive) in LOSSES.items():
        for who, loss in (("klsim", ours), ("naive", naive)):
            shown = [
                ", ".join(f"{e:.1e}" for e in errors(loss, naive, replace(SMALL, dtype=d)))
                for d in (torch.float32, torch.bfloat16)
            ]
            print(f"| {who} {name} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    main()
