"""One-line changes of correct losses: those that change an exact expected gradient are not met, the others are.

Whether a change changes one is measured in worlds of this file's own (other trees, other sizes, other junk), not in
those of the audit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from klsim.audit import audit
from klsim.audit.batches import AuditBatches
from klsim.audit.identify import ZERO
from klsim.audit.measure import one_thread
from klsim.audit.target import Target
from klsim.audit.worlds import Setting, World, world
from klsim.learning import TreeProblem, random_prompts
from klsim.learning.expected_gradient import enumerate_batches

torch = pytest.importorskip("torch")

DEFAULT = 1
"""Changes of every loss in the default suite; the others are marked slow."""
BASELINE = """
r = b.total_rewards()
same = (b.group[:, None] == b.group[None]).to(r.dtype)
n = same.sum(1)
"""


@dataclass(frozen=True)
class Correct:
    """A correct loss as source, what it descends, and one-line changes ``old -> new``."""

    source: str
    expect: str
    changes: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, object], ...] = ()


CORRECT = {
    "leave-one-out": Correct(
        BASELINE
        + """
adv = (r - same @ r / n) * n / (n - 1)
logp = (b.log_probs * b.weights).sum(1)
return -(adv.detach() * logp).mean()
""",
        "reward",
        (
            ("b.log_probs * b.weights", "b.log_probs"),
            ("adv.detach() * logp", "adv * logp"),
            ("return -(", "return ("),
            (").mean()", ").sum()"),
            (" * n / (n - 1)", ""),
            ("n / (n - 1)", "n / (n + 1)"),
            ("adv = (r - same @ r / n) * n / (n - 1)", "adv = r"),
            ("adv = (r - same @ r / n) * n / (n - 1)", "adv = r - r.mean()"),
            ("adv = (r - same @ r / n) * n / (n - 1)", "adv = r - 3.0"),
            ("same @ r / n", "same @ r"),
            ("b.group[:, None] == b.group[None]", "b.group[:, None] >= b.group[None]"),
            ("b.log_probs * b.weights", "b.old_log_probs * b.weights"),
            ("b.log_probs * b.weights", "b.log_probs * b.mask"),
            ("(b.log_probs * b.weights).sum(1)", "(b.log_probs * b.weights).mean(1)"),
            ("(b.log_probs * b.weights).sum(1)", "torch.where(b.mask, b.log_probs, 0.0).sum(-1)"),
            ("(b.log_probs * b.weights).sum(1)", "(b.log_probs * b.weights)[:, :2].sum(1)"),
            ("(b.log_probs * b.weights).sum(1)", "(b.log_probs * b.weights)[:, 1:].sum(1)"),
            ("(b.log_probs * b.weights).sum(1)", "b.log_probs[b.mask].sum()"),
            ("(b.log_probs * b.weights).sum(1)", "torch.stack([x[m].sum() for x, m in zip(b.log_probs, b.mask)])"),
            ("r = b.total_rewards()", "r = b.total_rewards() ** 2"),
            ("r = b.total_rewards()", "r = b.total_rewards().clamp(0, 1)"),
            ("r = b.total_rewards()", "r = b.total_rewards().round()"),
            ("r = b.total_rewards()", "r = b.total_rewards() + 5.0"),
            ("adv.detach()", "adv.sign()"),
            ("adv.detach()", "adv.flip(0)"),
            ("adv.detach()", "adv.clamp(min=0)"),
            ("* logp", "* logp.exp()"),
            ("* logp", "* (logp - logp.detach()).exp()"),
            ("* b.weights).sum(1)", "* (torch.arange(3) < b.weights.sum(1, keepdim=True))).sum(1)"),
        ),
    ),
    "KL in the reward": Correct(
        BASELINE
        + """
kl = ((b.log_probs - b.ref_log_probs) * b.weights).sum(1)
r = r - 0.1 * kl.detach()
adv = (r - same @ r / n) * n / (n - 1)
return -(adv * (b.log_probs * b.weights).sum(1)).mean()
""",
        "reward - 0.1*reverse_kl",
        (
            ("kl.detach()", "kl"),
            ("(b.log_probs - b.ref_log_probs) * b.weights", "(b.log_probs - b.ref_log_probs)"),
            ("r - 0.1 *", "r + 0.1 *"),
            ("r - 0.1 *", "r - 0.2 *"),
            ("b.ref_log_probs", "b.teacher_log_probs"),
            ("b.ref_log_probs", "b.old_log_probs"),
            ("b.log_probs - b.ref_log_probs", "b.old_log_probs - b.ref_log_probs"),
            ("b.log_probs - b.ref_log_probs", "b.ref_log_probs - b.log_probs"),
            ("adv = (r - same @ r / n) * n / (n - 1)", "adv = r"),
            ("* b.weights).sum(1)\nr", "* b.weights)[:, 0]\nr"),
            ("kl.detach()", "kl.detach().clamp(min=0)"),
            ("kl.detach()", "(kl.detach() + 1.0)"),
        ),
    ),
    "k3 in the loss": Correct(
        BASELINE
        + """
d = b.ref_log_probs - b.log_probs
k3 = d.exp() - d - 1
adv = (r - same @ r / n) * n / (n - 1)
pg = -(adv * (b.log_probs * b.weights).sum(1)).mean()
return pg + 0.1 * (k3 * b.weights).sum(1).mean()
""",
        "reward - 0.1*forward_kl(frozen)",
        (
            ("k3 * b.weights", "k3"),
            ("k3 = d.exp() - d - 1", "k3 = d.exp() - d"),
            ("k3 = d.exp() - d - 1", "k3 = d.exp() - 1"),
            ("k3 = d.exp() - d - 1", "k3 = d.exp()"),
            ("k3 = d.exp() - d - 1", "k3 = d.exp() - 2 * d - 1"),
            ("k3 = d.exp() - d - 1", "k3 = d ** 2 / 2"),
            ("k3 = d.exp() - d - 1", "k3 = (d.exp() - d - 1).clamp(max=0.5)"),
            ("k3 = d.exp() - d - 1", "k3 = (b.log_probs - b.log_probs.detach()).exp() * (d.exp() - d - 1)"),
            ("k3 = d.exp() - d - 1", "k3 = d.expm1() - d"),
            ("d = b.ref_log_probs - b.log_probs", "d = b.log_probs - b.ref_log_probs"),
            ("return pg + 0.1", "return pg - 0.1"),
            ("0.1 * (k3", "0.01 * (k3"),
            ("(k3 * b.weights).sum(1).mean()", "(k3 * b.weights).sum() / len(k3)"),
            ("(k3 * b.weights).sum(1).mean()", "(k3 * b.weights).mean()"),
            ("(k3 * b.weights).sum(1).mean()", "(k3 * b.weights).sum() / b.weights.sum()"),
            ("(k3 * b.weights).sum(1).mean()", "(k3 * b.weights).sum(1).max()"),
            ("return pg + 0.1 *", "return 0.1 * pg +"),
        ),
    ),
    "mean over the response": Correct(
        BASELINE
        + """
adv = r - same @ r / n
each = (adv[:, None] * b.log_probs * b.weights).sum(1) / b.weights.sum(1)
return -each.mean()
""",
        "(1 - 1/G)*reward_per_token",
        (
            ("/ b.weights.sum(1)", "/ b.weights.sum(1).clamp(min=1)"),
            ("/ b.weights.sum(1)", "/ b.weights.sum(1).max()"),
            ("/ b.weights.sum(1)", "/ b.weights.shape[1]"),
            ("/ b.weights.sum(1)", "/ b.weights.sum(1).mean()"),
            ("/ b.weights.sum(1)", "/ b.weights.sum(1).sqrt()"),
            ("/ b.weights.sum(1)", "/ b.mask.sum(-1)"),
            ("adv = r - same @ r / n", "adv = r"),
            ("adv = r - same @ r / n", "adv = (r - same @ r / n) / (r.std() + 1e-6)"),
            ("return -each.mean()", "return -each.median()"),
        ),
    ),
    "mean over the batch's tokens": Correct(
        BASELINE
        + """
adv = (r - same @ r / n) * n / (n - 1)
d = b.ref_log_probs - b.log_probs
each = -adv[:, None] * b.log_probs + 0.1 * (d.exp() - d - 1)
return (each * b.weights).sum() / b.weights.sum()
""",
        "token_mean(reward - 0.1*forward_kl(frozen))",
        (
            ("/ b.weights.sum()", "/ b.weights.sum().clamp(min=1)"),
            ("/ b.weights.sum()", "/ b.weights.numel()"),
            ("/ b.weights.sum()", "/ (b.weights.sum() + 1)"),
            ("return (each * b.weights).sum() / b.weights.sum()", "return each[b.mask].mean()"),
            ("return (each * b.weights).sum() / b.weights.sum()", "return ((each * b.weights).sum(1) / b.weights.sum(1)).mean()"),
            ("(each * b.weights).sum() / b.weights.sum()", "each.sum() / b.weights.sum()"),
            ("(each * b.weights).sum() / b.weights.sum()", "(each * b.weights).mean()"),
            ("-adv[:, None]", "adv[:, None]"),
        ),
    ),
    "sequence importance weight": Correct(
        """
r = b.total_rewards()
ratio = ((b.log_probs - b.old_log_probs) * b.weights).sum(1).exp()
return -(ratio * r).mean()
""",
        "reward",
        (
            ("* b.weights).sum(1)", ").sum(1)"),
            ("ratio * r", "ratio.detach() * r * (b.log_probs * b.weights).sum(1)"),
            ("ratio * r", "ratio.clamp(max=1.2) * r"),
            ("ratio * r", "ratio.log() * r"),
            (".sum(1).exp()", ".exp().sum(1)"),
            (".sum(1).exp()", ".exp().prod(1)"),
            ("b.old_log_probs", "b.log_probs.detach()"),
            ("b.old_log_probs", "b.ref_log_probs"),
            ("ratio * r", "ratio / ratio.sum().detach() * len(r) * r"),
            ("ratio * r", "(ratio - 1) * r"),
        ),
        (("off_policy", "exact"),),
    ),
    "distillation": Correct(
        """
s, t = b.vocab_log_probs, b.teacher_vocab_log_probs
kl = (s.exp() * (s - t)).sum(-1)
return (kl * b.weights).sum(1).mean()
""",
        "-reverse_kl(teacher, frozen)",
        (
            ("kl * b.weights", "kl"),
            ("s.exp() * (s - t)", "t.exp() * (t - s)"),
            ("s.exp() * (s - t)", "s.exp() * (t - s)"),
            ("s.exp() * (s - t)", "s * (s - t)"),
            ("s.exp() * (s - t)", "s.exp().detach() * (s - t)"),
            ("s.exp() * (s - t)", "s.exp() * (s - t).detach()"),
            ("s.exp() * (s - t)", "s.exp() * (s - t + 2.0)"),
            (".sum(-1)", ".mean(-1)"),
            (".sum(-1)", ".amax(-1)"),
            ("b.teacher_vocab_log_probs", "b.ref_vocab_log_probs"),
            ("kl = (s.exp() * (s - t)).sum(-1)", "kl = (s.exp() * (s - (t / 2).log_softmax(-1))).sum(-1)"),
            ("kl = (s.exp() * (s - t)).sum(-1)", "kl = (s.exp() * (s - t)).sum(-1).clamp(min=0.1)"),
            (".sum(1).mean()", ".sum(0).mean()"),
            (".sum(1).mean()", ".sum() / len(kl)"),
        ),
    ),
    "generalised JSD": Correct(
        """
s, t = b.vocab_log_probs, b.teacher_vocab_log_probs
m = (0.9 * t.exp() + 0.1 * s.exp()).log()
v = 0.9 * (t.exp() * (t - m)).sum(-1) + 0.1 * (s.exp() * (s - m)).sum(-1)
return (v * b.weights).sum(1).mean()
""",
        "-jsd(teacher, frozen, weight=0.9)",
        (
            ("m = (0.9 * t.exp() + 0.1 * s.exp()).log()", "m = (0.1 * t.exp() + 0.9 * s.exp()).log()"),
            ("m = (0.9 * t.exp() + 0.1 * s.exp()).log()", "m = 0.9 * t + 0.1 * s"),
            ("m = (0.9 * t.exp() + 0.1 * s.exp()).log()", "m = (0.9 * t.exp() + 0.1 * s.exp()).log().detach()"),
            ("v = 0.9 * (t", "v = 0.1 * (t"),
            ("+ 0.1 * (s.exp() * (s - m)).sum(-1)", ""),
            ("m = (0.9 * t.exp() + 0.1 * s.exp()).log()", "m = torch.logaddexp(t + math.log(0.9), s + math.log(0.1))"),
        ),
    ),
    "top-k with a tail": Correct(
        """
t, i = b.teacher_vocab_log_probs.topk(2, -1)
s = b.vocab_log_probs.gather(-1, i)
pt, qt = 1 - t.exp().sum(-1), 1 - s.exp().sum(-1)
v = (t.exp() * (t - s)).sum(-1) + pt * (pt.log() - qt.log())
return (v * b.weights).sum(1).mean()
""",
        "-forward_kl(teacher, frozen, tail, top=2)",
        (
            (" + pt * (pt.log() - qt.log())", ""),
            ("topk(2, -1)", "topk(3, -1)"),
            ("b.teacher_vocab_log_probs.topk", "b.ref_vocab_log_probs.topk"),
            ("pt * (pt.log() - qt.log())", "-pt * qt.log()"),
            ("qt = 1 - t.exp().sum(-1), 1 - s.exp().sum(-1)", "qt = 1 - t.exp().sum(-1), (1 - s.exp().sum(-1)).detach()"),
        ),
    ),
    "supervised": Correct(
        "return -(b.log_probs * b.weights).sum(1).mean()",
        "-forward_kl(teacher)",
        (
            (" * b.weights", ""),
            ("return -", "return "),
            (".sum(1).mean()", ".sum() / b.weights.sum()"),
            (".sum(1).mean()", ".mean()"),
            ("-(b.log_probs", "-((b.log_probs - b.old_log_probs)"),
            ("-(b.log_probs", "-(b.log_probs.exp()"),
        ),
        (("responses", "teacher"),),
    ),
    "preference pairs": Correct(
        """
h = ((b.log_probs - b.ref_log_probs) * b.weights).sum(1)
gap = h[b.preferred] - h[~b.preferred]
return -torch.nn.functional.logsigmoid(0.3 * gap).mean()
""",
        "-dpo(beta=0.3)",
        (
            (" * b.weights", ""),
            ("b.log_probs - b.ref_log_probs", "b.log_probs"),
            ("h[b.preferred] - h[~b.preferred]", "h[~b.preferred] - h[b.preferred]"),
            ("0.3 * gap", "0.1 * gap"),
            ("* b.weights).sum(1)", "* b.weights).sum(1) / b.weights.sum(1)"),
            ("-torch.nn.functional.logsigmoid(0.3 * gap)", "torch.nn.functional.softplus(-0.3 * gap)"),
            ("-torch.nn.functional.logsigmoid(0.3 * gap)", "(1 - 0.3 * gap).relu()"),
        ),
        (("worlds", ("pairs",)),),
    ),
    "entropy bonus": Correct(
        BASELINE
        + """
adv = (r - same @ r / n) * n / (n - 1)
p = b.vocab_log_probs
entropy = -(p.exp() * p).sum(-1)
pg = -(adv * (b.log_probs * b.weights).sum(1)).mean()
return pg - 0.2 * (entropy * b.weights).sum(1).mean()
""",
        "reward + 0.2*entropy(frozen)",
        (
            ("pg - 0.2", "pg + 0.2"),
            ("entropy * b.weights", "entropy"),
            ("entropy = -(p.exp() * p).sum(-1)", "entropy = -p.gather(-1, b.tokens[..., None])[..., 0]"),
            ("entropy = -(p.exp() * p).sum(-1)", "entropy = -(p.exp() * p.detach()).sum(-1)"),
            ("entropy = -(p.exp() * p).sum(-1)", "entropy = -(p.exp().detach() * p).sum(-1)"),
            ("p = b.vocab_log_probs", "p = b.old_vocab_log_probs"),
        ),
    ),
    "value head": Correct(
        """
r = b.total_rewards()
v = b.values
adv = (r[:, None] - v).detach()
pg = -(adv * b.log_probs * b.weights).sum(1).mean()
return pg + 0.25 * ((v - r[:, None]) ** 2 * b.weights).sum(1).mean()
""",
        "reward - 0.5*value_loss",
        (
            (".detach()", ""),
            ("** 2 * b.weights", "** 2"),
            ("0.25 *", "0.5 *"),
            ("v = b.values", "v = b.old_values"),
            ("(r[:, None] - v).detach()", "(v - r[:, None]).detach()"),
            ("(r[:, None] - v).detach()", "r[:, None].detach()"),
            ("(v - r[:, None]) ** 2", "(v - r[:, None]).abs()"),
            ("(r[:, None] - v).detach()", "(r[:, None] - v[:, :1]).detach()"),
        ),
    ),
}  # fmt: skip


def made(source):
    """The loss with some source."""
    import math

    body = "\n".join("    " + line for line in source.strip().splitlines())
    scope = {"torch": torch, "math": math}
    exec(f"def loss(b):\n{body}", scope)
    return scope["loss"]


def cases():
    for name, correct in CORRECT.items():
        yield pytest.param(name, None, id=name)
        for k, change in enumerate(correct.changes):
            marks = () if k < DEFAULT else pytest.mark.slow
            yield pytest.param(name, change, id=re.sub(r"\W+", "-", f"{name} {k} {change[1]}").strip("-"), marks=marks)


def changed(source, change):
    old, new = change
    assert source.count(old) >= 1, f"{old!r} is not in the source"
    return source.replace(old, new, 1)


@cache
def own_worlds(kind):
    """Worlds that the audit does not have: other seeds, sizes and layouts, graded rewards."""
    rng = np.random.default_rng(3)

    def prompts(count, **how):
        out = random_prompts(count, 9000, near=0.8, off_policy=kind == "exact", **how)
        return [replace(p, log_behaviour=p.log_teacher) for p in out] if kind == "teacher" else out

    if kind in ("pairs", "limit"):
        return ()
    if kind == "top":
        problem = TreeProblem(prompts(2, vocab=5, horizon=1, eos=None), [0, 1])
        problem = problem.with_rewards(rng.standard_normal(len(problem.reward)))
        made = AuditBatches(problem, width=3, layout="left", seed=9)
        return (World("own", made, tuple(enumerate_batches(problem, 2))),)
    out = []
    for trees, together, group, layout in (
        (prompts(1, vocab=3, horizon=2), [0], 3, "left"),
        (prompts(2, vocab=2, horizon=3), [0, 0], 2, "right"),
        (prompts(1, vocab=2, horizon=3), [0], 2, "holes"),
    ):
        problem = TreeProblem(trees, together)
        problem = problem.with_rewards(rng.standard_normal(len(problem.reward)))
        made = AuditBatches(problem, width=3, layout=layout, seed=9)
        out.append(World("own", made, tuple(enumerate_batches(problem, group)), group))
    return tuple(out)


@cache
def differs(name, change):
    """Whether a change of a correct loss changes an exact expected gradient."""
    correct = CORRECT[name]
    one, two = made(correct.source), made(changed(correct.source, change))
    options = dict(correct.options)
    kind = "limit" if "token_mean" in correct.expect else "pairs" if "dpo" in correct.expect else ""
    kind = kind or str(
        options.get("off_policy") or options.get("responses") or ("top" if "top=" in correct.expect else "")
    )
    worlds = own_worlds(kind)
    if kind == "pairs":
        worlds = (world("pairs", Setting()),)
    if kind == "limit":
        worlds = (world("large batch", Setting()), world("large batch, far", Setting()))
    for here in worlds:
        try:
            with one_thread():
                gap = here.gradient(one) - here.gradient(two)
        except Exception:
            return True
        if float(np.linalg.norm(gap)) > 100 * ZERO * here.unit:
            return True
    return False


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "change"), list(cases()))
def test_a_change_is_noticed_exactly_if_it_changes_an_expected_gradient(name, change):
    correct = CORRECT[name]
    source = correct.source if change is None else changed(correct.source, change)
    loss = made(source)
    same = change is None or not differs(name, change)
    try:
        met = audit(Target(name, lambda: loss), expect=correct.expect, quick=True, **dict(correct.options)).met
    except ValueError:  # refused: its gradient is not finite, or depends on the order
        met = False
    assert met == same


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_there_are_enough_of_both_kinds():
    """102 defects and 35 equivalent rewritings, as docs/audit-gallery.md counts them."""
    kinds = [differs(name, change) for name, c in CORRECT.items() for change in c.changes]
    assert (sum(kinds), len(kinds) - sum(kinds)) == (102, 35)
