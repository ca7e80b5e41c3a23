"""Every named functional is accepted where names are: an expectation, `explain`, `klsim audit --expect`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from klsim.audit import audit  # noqa: E402
from klsim.audit.expectation import parse_expectation  # noqa: E402
from klsim.audit.targets import load_target  # noqa: E402
from klsim.learning import TreeProblem, explain, functional_gradient, random_prompts  # noqa: E402
from klsim.learning.functionals import BASES, NEEDED  # noqa: E402

VALUES = {"k": 3, "beta": 0.3, "weight": 0.4, "alpha": 0.2}


def written(base):
    """A functional with the options that it needs."""
    needed = "sampled" if base == "log_prob" else f"{NEEDED[base]}={VALUES[NEEDED[base]]}" if base in NEEDED else ""
    return f"{base}({needed})" if needed else base


@pytest.mark.parametrize("base", BASES)
def test_an_expectation_takes_it(base):
    found = parse_expectation(f"2*{written(base)} - beta*reverse_kl(frozen)", {"beta": 0.5})
    assert found.coefficients == {written(base): 2.0, "reverse_kl(frozen)": -0.5}


PROBLEMS = [TreeProblem(random_prompts(2, seed, off_policy=True, binary=False)) for seed in range(3)]


@pytest.mark.parametrize("base", [b for b in BASES if b != "reward"])
def test_explain_takes_it_and_finds_its_share(base):
    name = written(base)
    mixed = [2 * functional_gradient(name, p) + functional_gradient("reward", p) for p in PROBLEMS]
    found = explain(mixed, PROBLEMS, ["reward", name])
    assert found.residual < 1e-10
    assert found.identifiable
    assert found.coefficients[name] == pytest.approx(2.0, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("better", [1.0, -1.0])
def test_the_audit_holds_losses_against_them(better, tmp_path):
    """Of two responses the larger (or smaller) reward counts: their leave-one-out gain."""
    file = tmp_path / "loss.py"
    file.write_text(f"""
import torch

def loss(batch):
    log_p, total = (batch.log_probs * batch.mask).sum(-1), torch.zeros((), dtype=torch.float64)
    for g in batch.group.unique():
        rows = batch.group == g
        r, own = batch.rewards[rows], log_p[rows]
        r = r.sum(-1) if r.ndim == 2 else r
        if len(r) < 2:
            continue
        pairs = torch.combinations(torch.arange(len(r)), 2)
        best = {better} * ({better} * r[pairs]).max(dim=-1).values
        total = total - (best[:, None] * own[pairs]).sum() / len(pairs)
    return total / len(batch.group.unique())
""")
    name = "max_at_k(k=2)" if better > 0 else "min_at_k(k=2)"
    other = "min_at_k(k=2)" if better > 0 else "max_at_k(k=2)"
    target = load_target(f"{file}:loss")
    assert audit(target, expect=name, quick=True).met
    assert not audit(target, expect=other, quick=True).met
