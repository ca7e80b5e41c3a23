"""Vocabulary losses of language models on CUDA: naive, Liger-Kernel, klsim and the bare matrix products.

``python -m benchmarks.lm_cuda [--json FILE] [--tiny] [--only LOSS …]``. Forward and backward of 8,192 tokens, hidden size
2,048, bfloat16, at vocabularies of 49,152 and 152,064; the programs are those of `benchmarks.bench_vocab_losses`. For
every loss the programs take turns after a warm-up; times are CUDA events, the table has medians and quartiles, and
ratios are medians over neighbouring runs. Memory is what ``max_memory_allocated`` grows by in one run, gradients included.
*products* are those of size ``N V H`` that no method avoids (logits of every head, gradients of hidden states and of the
student's head), unchunked, in bfloat16, into memory that is there already.

Wanted: klsim at most 1.25 times the products, and Liger at least 1.5 times klsim. Where one is missed, the ten dearest
kernels of klsim's step are printed. ``--tiny`` runs the same code on the CPU (or on a device that is there) at sizes of
seconds: it checks the script, its ratios mean nothing. The JSON file is written anew after every loss.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_vocab_losses import (
    LOSSES,
    MIX,
    Loss,
    Sizes,
    errors,
    heads,
    liger_jsd,
    log_softmax,
    products,
    step,
    tokens,
)
from klsim.lm.vocab_losses import linear_divergence, linear_g_opd, linear_gkd, linear_log_probs

PRODUCTS_AT_MOST, LIGER_AT_LEAST = 1.25, 1.5
FULL = [Sizes(8192, 2048, vocabulary, torch.bfloat16, "cuda") for vocabulary in (49_152, 152_064)]
TINY = [Sizes(48, 16, 300, torch.bfloat16)]
WARM_UP, REPEATS = 3, 12


def unchecked(loss: Callable[..., torch.Tensor], *names: str, **options: Any) -> Loss:
    """A mean loss of klsim without the checks that wait for the device: what a training step would run."""

    def run(student, teacher, ref):
        given = dict(zip(("student", "teacher", "ref"), (student, teacher, ref)))
        flat = [x for n in names for x in given[n]] if loss is not linear_g_opd else [given[n] for n in names]
        return loss(*flat, check=False, **options) / len(student[0])

    return run


def klsim_nll(student, teacher, ref):
    return -linear_log_probs(*student, tokens(student), check=False).log_probs.mean()


def naive_nll(student, teacher, ref):
    return -log_softmax(student).gather(1, tokens(student)[:, None]).mean()


def liger_nll() -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    function = LigerFusedLinearCrossEntropyLoss()
    return lambda student, teacher, ref: function(student[1], student[0], tokens(student))


@dataclass(frozen=True)
class Case:
    """One loss: how many heads it has, and its programs (Liger's made when it is there)."""

    heads: int
    klsim: Loss
    naive: Loss
    liger: Callable[[], Loss] | None = None
    wanted: bool = True


CASES = {
    "reverse KL": Case(2, unchecked(linear_divergence, "student", "teacher"), LOSSES["KL"][1]),
    "JSD": Case(2, unchecked(linear_gkd, "student", "teacher", mix=MIX), LOSSES["JSD"][1], lambda: liger_jsd(1024)),
    "G-OPD": Case(3, unchecked(linear_g_opd, "student", "teacher", "ref"), LOSSES["G-OPD"][1]),
    # klsim forms the logits twice, for it gives the log-probabilities themselves; Liger's cross-entropy is their mean
    "log-probs": Case(1, klsim_nll, naive_nll, liger_nll, wanted=False),
}


@dataclass
class Line:
    """One program of one loss. Times in milliseconds."""

    loss: str
    program: str
    tokens: int
    hidden: int
    vocabulary: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    extra_mib: float | None = None
    over_products: float | None = None
    over_klsim: float | None = None
    error: str | None = None


def has_liger() -> bool:
    if not torch.cuda.is_available():
        return False
    try:
        import liger_kernel.chunked_loss  # noqa: F401
    except ImportError:
        return False
    return True


def programs(case: Case) -> dict[str, Callable[[Sizes], Callable[[], None]]]:
    """In the order of the table; a program is prepared for a size and then called."""
    found = {"products": products(case.heads), "klsim": step(case.klsim), "naive": step(case.naive)}
    if case.liger is not None and has_liger():
        found["Liger"] = lambda sizes: step(case.liger())(sizes)  # type: ignore[misc]
    return found


def milliseconds(run: Callable[[], None], device: str) -> Callable[[], float]:
    """Start one run; what is returned waits for it and gives its time."""
    if device != "cuda":
        begin = time.perf_counter()
        run()
        taken = 1e3 * (time.perf_counter() - begin)
        return lambda: taken
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()

    def waited() -> float:
        end.synchronize()
        return start.elapsed_time(end)

    return waited


def extra_memory(run: Callable[[], None], sizes: Sizes) -> float | None:
    """MiB that one run needs beyond its inputs."""
    if sizes.device != "cuda":
        return None
    for x in heads(sizes)[0]:
        x.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(name: str, sizes: Sizes, repeats: int) -> tuple[list[Line], dict[str, Callable[[], None]]]:
    """All programs of a loss; one that fails (memory, a library) is a line with its error."""
    case, lines, ready = CASES[name], {}, {}
    for program, prepare in programs(case).items():
        line = lines[program] = Line(name, program, sizes.tokens, sizes.hidden, sizes.vocabulary)
        try:
            run = prepare(sizes)
            for _ in range(WARM_UP):
                run()
            line.extra_mib = extra_memory(run, sizes)
            ready[program] = run
        except Exception as error:  # of another library, or the device's memory
            line.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        for x in heads(sizes)[0]:
            x.grad = None
        if sizes.device == "cuda":
            torch.cuda.empty_cache()
    times: dict[str, list[float]] = {program: [] for program in ready}
    for _ in range(repeats):
        for program, run in ready.items():
            times[program].append(milliseconds(run, sizes.device)())
    for program, found in times.items():
        line = lines[program]
        line.runs, line.median = len(found), statistics.median(found)
        line.low, _, line.high = statistics.quantiles(found, n=4)
        for other in ("products", "klsim"):
            if other in times:
                ratio = statistics.median(a / b for a, b in zip(found, times[other]))
                setattr(line, f"over_{other}", ratio)
    return list(lines.values()), ready


def missed(lines: list[Line]) -> list[str]:
    """Which of the two aims a loss misses, in words."""
    by = {line.program: line for line in lines}
    out, klsim, liger = [], by["klsim"], by.get("Liger")
    if klsim.over_products is None or klsim.over_products > PRODUCTS_AT_MOST:
        out.append(f"klsim / products = {shown(klsim.over_products)}, wanted <= {PRODUCTS_AT_MOST}")
    if liger is not None and liger.over_klsim is not None and liger.over_klsim < LIGER_AT_LEAST:
        out.append(f"Liger / klsim = {shown(liger.over_klsim)}, wanted >= {LIGER_AT_LEAST}")
    return out


def shown(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def profile(run: Callable[[], None], device: str) -> str:
    """The ten dearest kernels (operations, without a device) of a step."""
    on_cuda = device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_cuda else []
    with torch.profiler.profile(activities=activities) as found:
        run()
        if on_cuda:
            torch.cuda.synchronize()
    order = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    return str(found.key_averages().table(sort_by=order, row_limit=10, max_name_column_width=60))


def machine() -> dict[str, Any]:
    out: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for package in ("triton", "liger-kernel"):
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = None
    out["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return out


def table_head() -> str:
    return (
        "| loss | vocabulary | program | median ms | quartiles | extra MiB | / products | / klsim |\n"
        "|---|---|---|---|---|---|---|---|"
    )


def table_row(line: Line) -> str:
    if line.error is not None:
        return f"| {line.loss} | {line.vocabulary:,} | {line.program} | {line.error} | | | | |"
    spread = f"{shown(line.low)} … {shown(line.high)}"
    return (
        f"| {line.loss} | {line.vocabulary:,} | {line.program} | {shown(line.median)} | {spread} | "
        f"{shown(line.extra_mib, 0)} | {shown(line.over_products)} | {shown(line.over_klsim)} |"
    )


def accuracy(sizes: Sizes) -> dict[str, list[float]]:
    """Errors of klsim and of the naive form at 64 tokens against float64, on the device: value, gradient of hidden
    states, gradient of the head; largest error over largest entry."""
    small = replace(sizes, tokens=min(64, sizes.tokens))
    return {
        f"{program} {name}": errors(loss, case.naive, small)
        for name, case in CASES.items()
        for program, loss in (("klsim", case.klsim), ("naive", case.naive))
    }


def write(file: Path | None, result: dict[str, Any]) -> None:
    if file is not None:
        partial_file = file.with_suffix(".part")
        partial_file.write_text(json.dumps(result, indent=1) + "\n")
        partial_file.replace(file)


def run(sizes_of: list[Sizes], names: list[str], repeats: int, file: Path | None) -> dict[str, Any]:
    """Measure, print and write as it comes."""
    say = partial(print, flush=True)
    result: dict[str, Any] = {"machine": machine(), "rows": [], "missed": [], "errors": {}}
    say(json.dumps(result["machine"]))
    say(table_head())
    for sizes in sizes_of:
        for name in names:
            lines, ready = measured(name, sizes, repeats)
            say("\n".join(map(table_row, lines)))
            result["rows"] += [asdict(line) for line in lines]
            why = missed(lines) if CASES[name].wanted else []
            if why and "klsim" in ready:
                table = profile(ready["klsim"], sizes.device)
                result["missed"].append({"loss": name, "vocabulary": sizes.vocabulary, "why": why, "profile": table})
            write(file, result)
        heads.cache_clear()
        torch.compiler.reset()  # a training run knows one vocabulary: none is compiled as a size that varies
    for sizes in sizes_of:  # last, because it compiles everything once more
        result["errors"][str(sizes.vocabulary)] = accuracy(sizes)
        write(file, result)
        heads.cache_clear()
        torch.compiler.reset()
    for vocabulary, found in result["errors"].items():
        say(f"\nErrors at vocabulary {int(vocabulary):,}, bfloat16 against float64: value, dL/dh, dL/dW")
        for who, values in found.items():
            say(f"  {who}: " + ", ".join(f"{v:.1e}" for v in values))
    for entry in result["missed"]:
        say(f"\nMissed, {entry['loss']} at vocabulary {entry['vocabulary']:,}: {'; '.join(entry['why'])}")
        say(entry["profile"])
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_cuda", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file of the results")
    parser.add_argument("--tiny", action="store_true", help="the same code at sizes of seconds, on a CPU as well")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="losses")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print("no CUDA device: nothing measured (--tiny runs the same code on the CPU)", file=sys.stderr)
        return 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = [replace(s, device=device) for s in TINY] if given.tiny else FULL
    run(sizes, given.only, 4 if given.tiny else REPEATS, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
