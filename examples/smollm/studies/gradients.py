r"""Are the gradients of KL estimators on a language model what the audit finds on token trees?

The policy pi is the base after a few steps of RLOO, the reference q is the base. At every prefix s that pi visits,
logits give both laws over the whole vocabulary, and with them, without sampling,

.. math:: g(s) = \nabla_{logits} KL(\pi(.|s)\|q(.|s)) = \pi \circ (\log(\pi/q) - KL)

*In the logits.* A loss of single tokens has the gradient ``w_y (e_y - pi)`` for a drawn token y; autograd of the
library's loss on all tokens at once gives every ``w_y``, and so the exact mean and variance over y. Intervals are over
prompts alone.

*In weights*, those of the last normalisation: the gradient of every completion, by backward through the head. Here the
KL in the reward has its place, whose credit crosses tokens. For each loss the audit names the functionals that its
expected gradient is made of on trees; their gradients on the same completions are exact but for the visits, and the
difference of the two must have the mean 0 (`klsim` ``klbayes`` C8, ``gopd`` C13):

* predicted: k1 in the loss 0; k2, k1 and k3 times the ratio, the whole vocabulary: the reverse KL of visited prefixes;
  k3: the forward KL; k1 in the reward: the reverse KL of sequences; top-k: neither (the tail is one token to it);
* refuted, for a loss, if the interval of the bias excludes 0. Where the interval of its distance to the reverse KL
  contains 0 too, the two are not told apart: they agree as pi approaches q.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from klsim.audit import audit
from klsim.objectives import TokenBatch, divergence, kl_in_loss, kl_in_reward, rloo, sequence_sum, top_k_opd
from klsim.objectives.policy_gradient import token_ratio
from klsim.report.figures import COLOURS, Figures, Run, Table
from studies import intervals
from studies.laws import Read, read
from studies.runs import Lab, Training, split
from studies.sums import FewShot

TASKS = {"sum": FewShot()}
TOP = 8
REVERSE, FORWARD = "reverse_kl(frozen)", "forward_kl(frozen)"


@dataclass(frozen=True)
class Form:
    """Sizes; policies: after how many steps of RLOO the gradients are looked at."""

    model: str = "smollm2-135m"
    policies: tuple[int, ...] = (3, 8)
    training: Training = field(default_factory=lambda: Training(8, prompts=4, group=4, learning_rate=3e-5))
    train_prompts: int = 64
    prompts: int = 12
    samples: int = 12
    seed: int = 0


FORMS = {
    "tiny": Form("tiny", (2, 6), Training(6, 4, 4, 2e-3, save_steps=2), train_prompts=8, prompts=6, samples=4),
    "quick": Form(),
    "full": Form(policies=(4, 12, 40), training=Training(40, 16, 4, 1e-5, save_steps=10), train_prompts=256, prompts=64,
                 samples=32),
    "gpu": Form(policies=(4, 12, 40), training=Training(40, 16, 8, 1e-5), train_prompts=256, prompts=48, samples=32),
}  # fmt: skip


def pure_kl(batch: TokenBatch, beta: float = 1.0) -> Any:
    """RLOO of ``r - beta sum_t log(pi/q)``, on-policy."""
    return rloo(kl_in_reward(batch, beta=beta), ratio=token_ratio)


def top_k(batch: TokenBatch, form: str) -> Any:
    """The reverse KL to the reference on the policy's k most likely tokens."""
    vocabulary = batch.vocab_log_probs.shape[-1]
    as_teacher = batch.replace(teacher_vocab_log_probs=batch.ref_vocab_log_probs)
    return top_k_opd(as_teacher, k=min(TOP, vocabulary // 2), form=form, support="student", aggregate=sequence_sum)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Estimator:
    """A loss; ``single``: its gradient at a prefix depends on the token drawn there alone; ``whole``: on no token."""

    loss: Callable[[TokenBatch], Any]
    single: bool = False
    whole: bool = False


ESTIMATORS: Mapping[str, Estimator] = {
    "k1 in the loss": Estimator(partial(kl_in_loss, estimator="k1", aggregate=sequence_sum), single=True),
    "k2 in the loss": Estimator(partial(kl_in_loss, estimator="k2", aggregate=sequence_sum), single=True),
    "k3 in the loss": Estimator(partial(kl_in_loss, estimator="k3", aggregate=sequence_sum), single=True),
    "k1 times ratio": Estimator(
        partial(kl_in_loss, estimator="k1", importance=True, aggregate=sequence_sum), single=True
    ),
    "k3 times ratio": Estimator(
        partial(kl_in_loss, estimator="k3", importance=True, aggregate=sequence_sum), single=True
    ),
    "k1 in the reward": Estimator(pure_kl),
    f"top {TOP}, truncated": Estimator(partial(top_k, form="truncated"), whole=True),
    f"top {TOP} and a tail": Estimator(partial(top_k, form="tail"), whole=True),
    "whole vocabulary": Estimator(partial(divergence, generator="kl", aggregate=sequence_sum), whole=True),
}


def verdicts() -> dict[str, dict[str, Any]]:
    """What the audit finds on token trees: the functionals with their coefficients, and whether they are all of it."""
    out = {}
    for name, estimator in ESTIMATORS.items():
        # five tokens leave top-k a tail
        found = audit(estimator.loss, quick=True, vocab=5 if estimator.whole else None).variable
        out[name] = {"exact": bool(found.exact), "residual": float(found.residual), "of": dict(found.coefficients)}
    return out


def batch_of(log_policy: torch.Tensor, log_ref: torch.Tensor, tokens: torch.Tensor) -> TokenBatch:
    """Completions as a batch, with rewards 0."""

    def chosen(laws: torch.Tensor) -> torch.Tensor:
        return laws.gather(-1, tokens[..., None])[..., 0]

    return TokenBatch(
        log_probs=chosen(log_policy), tokens=tokens, ref_log_probs=chosen(log_ref), vocab_log_probs=log_policy,
        ref_vocab_log_probs=log_ref, rewards=torch.zeros_like(log_policy[:, 0, 0]),
        group=torch.zeros_like(tokens[:, 0]),
    )  # fmt: skip


def value(result: Any) -> torch.Tensor:
    """The loss, without its metrics."""
    return result[0] if isinstance(result, tuple) else result


def logit_gradient(loss: Callable[[TokenBatch], Any], found: Read) -> torch.Tensor:
    """Of every completion's share of the loss, in the logits, ``(S, T, V)``: their mean over S is the loss's."""
    logits = found.log_policy.clone().requires_grad_()
    total = value(loss(batch_of(torch.log_softmax(logits, -1), found.log_other, found.tokens)))
    if not total.requires_grad:
        return torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient * len(found.tokens)


def functionals(found: Read) -> dict[str, torch.Tensor]:
    """Gradients in the logits of what the audit names, per completion; exact at visited prefixes."""
    pi, ratio = found.log_policy.exp(), found.log_policy - found.log_other
    kl = (pi * ratio).sum(-1, keepdim=True)
    reverse = pi * (ratio - kl)
    ahead = kl[..., 0].flip(1).cumsum(1).flip(1) - kl[..., 0]
    score = -pi
    score.scatter_add_(-1, found.tokens[..., None], torch.ones_like(score[..., :1]))
    # what a token does to the KL of later prefixes; the other completions' mean is a baseline
    others = (ahead.sum(0) - ahead) / (len(ahead) - 1)
    return {
        REVERSE: reverse,
        FORWARD: pi - found.log_other.exp(),
        "reverse_kl": reverse + (ahead - others)[..., None] * score,
    }


def single_token(
    loss: Callable[[TokenBatch], Any], log_policy: torch.Tensor, log_ref: torch.Tensor, audited: Mapping[str, float]
) -> np.ndarray:
    """`moments` of the mean gradient over all tokens of one prefix, exactly, with the trace of its covariance."""
    leaf = log_policy.clone().requires_grad_()
    every = torch.arange(len(leaf), device=leaf.device)[:, None]
    total = value(loss(TokenBatch(log_probs=leaf[:, None], tokens=every, ref_log_probs=log_ref[:, None])))
    weight = torch.zeros_like(log_policy)
    if total.requires_grad:
        weight = torch.autograd.grad(total, leaf)[0] * len(leaf)
    pi = log_policy.exp()
    mean = pi * (weight - (pi * weight).sum())
    second = (pi * weight.square() * (1 - 2 * pi + pi.square().sum())).sum()
    return moments(mean, log_policy, log_ref, audited, second - mean.square().sum())


def moments(
    mean: torch.Tensor,
    log_policy: torch.Tensor,
    log_ref: torch.Tensor,
    audited: Mapping[str, float],
    spread: torch.Tensor | float,
) -> np.ndarray:
    """Of a mean gradient m at one prefix, g that of the reverse KL, a what the audit names: ``|m|^2, <m, g>, |g|^2,
    |m - g|^2, |m - a|^2`` and the spread."""
    pi, ratio = log_policy.exp(), log_policy - log_ref
    laws = {REVERSE: pi * (ratio - (pi * ratio).sum()), FORWARD: pi - log_ref.exp()}
    exact = laws[REVERSE]
    named = sum((audited[name] * law for name, law in laws.items() if name in audited), torch.zeros_like(mean))
    sums = [mean @ mean, mean @ exact, exact @ exact, (mean - exact).square().sum(), (mean - named).square().sum()]
    return np.array([*(float(x) for x in sums), max(float(spread), 0.0)])


def in_logits(found: Read, audited: Mapping[str, Any]) -> dict[str, list[float]]:
    """Sums of `moments` over the visited prefixes of a prompt, a completion; nothing for losses of sequences."""
    out = {}
    policy, ref = found.log_policy, found.log_other
    words, width = found.tokens.tolist(), found.tokens.shape[1]
    # equal prefixes have equal moments
    visits = Counter(tuple(word[:t]) for word in words for t in range(width))
    first = {tuple(word[:t]): (s, t) for s, word in enumerate(words) for t in range(width)}
    places, counts = list(first.values()), np.array([visits[prefix] for prefix in first])
    for name, estimator in ESTIMATORS.items():
        if estimator.single:
            parts = [single_token(estimator.loss, policy[p], ref[p], audited[name]["of"]) for p in places]
        elif estimator.whole:
            mean = logit_gradient(estimator.loss, found)
            parts = [moments(mean[p], policy[p], ref[p], audited[name]["of"], 0.0) for p in places]
        else:
            continue
        out[name] = (counts @ np.array(parts) / len(words)).tolist()
    return out


def in_weights(found: Read, head: torch.Tensor) -> dict[str, np.ndarray]:
    """Gradients in the weights of the last normalisation, ``(S, H)``, of all losses and functionals."""
    logits = {name: logit_gradient(e.loss, found) for name, e in ESTIMATORS.items()} | functionals(found)
    stacked = torch.stack(list(logits.values()))
    states = (stacked.to(head.dtype) @ head).double() * found.states
    return {name: x.numpy() for name, x in zip(logits, states.sum(dim=2).cpu())}


def of_prompt(
    lab: Lab, policy: Any, ref: Any, prompt: str, form: Form, audited: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Both views of one prompt: sums in the logits, means and spreads in the weights."""
    task = next(iter(lab.tasks.values()))
    found = read(policy, ref, lab.tokenizer, prompt, form.samples, task.max_completion_tokens, seed)
    weights = in_weights(found, policy.get_output_embeddings().weight.detach())
    pi = found.log_policy.exp()
    return {
        "kl": float((pi * (found.log_policy - found.log_other)).sum(-1).sum(-1).mean()),
        "logits": in_logits(found, audited),
        "mean": {name: x.mean(axis=0).tolist() for name, x in weights.items()},
        "spread": {name: float(x.var(axis=0, ddof=1).sum()) for name, x in weights.items()},
    }


def compute(lab: Lab, form: Form) -> dict[str, Any]:
    """The stages: the audit, the policies, and every policy's gradients."""
    train, new = split(lab.tasks, form.train_prompts, form.prompts, form.seed)
    audited = lab.stages.stage("audit", verdicts)
    out: dict[str, Any] = {"audit": audited, "policies": {}}
    done, start = 0, "base"
    for steps in form.policies:
        key = f"policy-{steps}"
        part = Training(**{**vars(form.training), "steps": steps - done})
        lab.trained(key, rloo, train, part, seed=form.seed + steps, start=start, ref=None)
        prompts = lab.stages.stage(f"gradients-{steps}", partial(_gradients, lab, key, new, form, audited))
        out["policies"][str(steps)] = summary(prompts, audited)
        lab.stages.forget(start)
        done, start = steps, key
    lab.stages.forget(start)
    return out


def _gradients(lab: Lab, key: str, rows: list[Any], form: Form, audited: Mapping[str, Any]) -> list[dict[str, Any]]:
    policy, ref = lab.load(key), lab.load()
    seeds = range(1000 * form.seed, 1000 * form.seed + len(rows))
    return [of_prompt(lab, policy, ref, row["prompt"], form, audited, seed) for row, seed in zip(rows, seeds)]


def summary(prompts: list[dict[str, Any]], audited: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of one policy, with intervals over prompts."""
    means = {name: np.array([p["mean"][name] for p in prompts]) for name in prompts[0]["mean"]}
    exact = means[REVERSE]
    size = float(np.linalg.norm(exact.mean(axis=0)))
    if size == 0:
        raise ValueError("the policy is still the reference (no group had different rewards?): there is no gradient")
    rows = {}
    for name in ESTIMATORS:
        spread = np.array([p["spread"][name] for p in prompts])
        row: dict[str, Any] = {
            "cosine": intervals.of_prompts(_cosine, np.stack([means[name], exact], axis=1)),
            "off reverse KL": _relative(means[name] - exact, size),
            "noise": _scaled(intervals.mean(spread), size**2),
        }
        parts = {k: c for k, c in audited[name]["of"].items() if k in means}
        if audited[name]["exact"]:
            predicted = sum((c * means[k] for k, c in parts.items()), np.zeros_like(exact))
            row["off the audit's"] = _relative(means[name] - predicted, size)
        if name in prompts[0]["logits"]:
            sums = np.array([p["logits"][name] for p in prompts])
            row["logits: cosine"] = intervals.of_prompts(_cosine_of_moments, sums)
            row["logits: bias"] = intervals.of_prompts(lambda x: np.sqrt(_ratio(x[3], x[2])), sums)
            if audited[name]["exact"]:
                row["logits: off the audit's"] = intervals.of_prompts(lambda x: np.sqrt(_ratio(x[4], x[2])), sums)
            row["logits: noise"] = intervals.of_prompts(lambda x: _ratio(x[5], x[2]), sums)
        row["verdict"] = _verdict(row, audited[name])
        rows[name] = row
    return {"kl": intervals.mean(np.array([p["kl"] for p in prompts])), "estimators": rows}


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else 0.0


def _cosine_of_moments(sums: np.ndarray) -> float:
    """0 for a mean gradient that is nothing but rounding."""
    return _ratio(sums[1], np.sqrt(sums[0] * sums[2])) if sums[0] > EXACT**2 * sums[2] else 0.0


def _cosine(pair: np.ndarray) -> float:
    return _ratio(float(pair[0] @ pair[1]), float(np.linalg.norm(pair[0]) * np.linalg.norm(pair[1])))


def _scaled(interval: tuple[float, ...], size: float) -> tuple[float, ...]:
    return tuple(x / size for x in interval)


def _relative(gaps: np.ndarray, size: float) -> tuple[float, ...]:
    return _scaled(intervals.length_of_mean(gaps), size)


EXACT = 1e-6
"""Of a bias in the logits that is none: sums of rounding, 2^-53 a term, of laws that are float32 to begin with."""


def _verdict(row: Mapping[str, Any], audited: Mapping[str, Any]) -> str:
    """Exact over the next token where a loss is one of single tokens, from the samples' interval where it is not."""
    if not audited["exact"]:
        return f"{row['logits: bias'][0]:.2g} off the reverse KL" if "logits: bias" in row else "no prediction"
    exact = "logits: off the audit's" in row
    off = row["logits: off the audit's"][0] > EXACT if exact else row["off the audit's"][1] > 0
    if off:
        return "REFUTED: not what the audit names"
    if exact and row["off the audit's"][1] > EXACT and row["noise"][0] > 0:
        return "holds exactly; these samples miss its mean"
    return "holds, exactly" if exact else "no bias shown"


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What is printed: title, header, rows."""
    out = []
    for steps, policy in found["policies"].items():
        rows = []
        for name, row in policy["estimators"].items():
            names = " ".join(f"{c:+.3g} {k}" for k, c in found["audit"][name]["of"].items() if k != "reward") or "0"
            if not found["audit"][name]["exact"]:
                names = f"no functional ({found['audit'][name]['residual']:.0%} left)"
            rows.append([
                name, names.removeprefix("+"), intervals.text(row["cosine"]),
                intervals.text(row["off reverse KL"], 2),
                intervals.text(row["off the audit's"], 2) if "off the audit's" in row else "",
                f"{row['noise'][0]:.3g}", row["verdict"],
            ])  # fmt: skip
        header = [
            "estimator",
            "audit on trees",
            "cosine to reverse KL",
            "bias to it",
            "bias to the audit's",
            "noise",
            "verdict",
        ]
        title = (
            f"after {steps} steps, KL {intervals.text(policy['kl'])} nats: last normalisation, in units of the exact"
            " gradient of the reverse KL"
        )
        out.append((title, header, rows))
        rows = [
            [
                name,
                *(
                    intervals.text(row[f"logits: {x}"]) if f"logits: {x}" in row else ""
                    for x in ("cosine", "bias", "off the audit's")
                ),
                f"{row['logits: noise'][0]:.3g}",
            ]
            for name, row in policy["estimators"].items()
            if "logits: cosine" in row
        ]
        out.append(
            (
                f"after {steps} steps: in the logits, exact over the next token",
                ["estimator", "cosine", "bias", "bias to the audit's", "noise"],
                rows,
            )
        )
    return out


def columns(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The figure's table."""
    rows = []
    for policy in found["policies"].values():
        for name, row in policy["estimators"].items():
            for measure, key in (("cosine", "cosine"), ("bias", "off reverse KL"), ("noise", "noise")):
                value, low, high = row[key]
                rows.append(
                    {
                        "kl": policy["kl"][0],
                        "estimator": name,
                        "measure": measure,
                        "value": value,
                        "low": low,
                        "high": high,
                    }
                )
    return {name: [row[name] for row in rows] for name in rows[0]}


figures = Figures()


@figures.figure(
    "gradients",
    title="Gradients of KL estimators on a language model",
    caption="Policies after a few steps of RLOO from the base, their mean KL to it below. Gradients in the weights"
    " of the last normalisation against the exact one of the reverse KL at visited prefixes: cosine of the means,"
    " length of the difference, and variance of one completion's, in units of the exact one. Bars: 95 % intervals over"
    " prompts.",
    size=(11.0, 4.2),
)
def figure(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by study.py")


@figure.draw
def _(table: Table, canvas: Any) -> None:
    places = canvas.subplots(1, 3)
    names = table.distinct("estimator")
    for place, measure in zip(places, ("cosine", "bias", "noise")):
        for i, name in enumerate(names):
            rows = table.rows(estimator=name, measure=measure)
            x = rows["kl"] * (1 + 0.012 * (i - len(names) / 2))
            error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            colour = COLOURS[i % len(COLOURS)]
            place.errorbar(
                x, rows["value"], error, marker="os^Dv<>ph"[i % 9], color=colour, capsize=2, lw=1, label=name
            )
        place.set(
            title={
                "cosine": "cosine to the reverse KL",
                "bias": "bias / |exact|",
                "noise": "variance of one / |exact|²",
            }[measure]
        )
        place.set_xlabel("KL of the policy to the base, nats a completion")
    places[2].set_yscale("symlog", linthresh=1.0)
    places[2].set_ylim(-0.2, None)
    canvas.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
