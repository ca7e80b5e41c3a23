"""Findings of the gallery: where a loss does something else than its name or documentation says, shown by a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klsim.audit.measure import Audit, audit
from klsim.audit.targets import load_target

__all__ = ["FINDINGS", "Finding", "findings"]


@dataclass(frozen=True)
class Finding:
    """Something that the documentation of a trainer does not say; printed only where the audit shows it.

    Attributes:
        target: of the gallery. text: what is found, and what would be right. shown: whether an audit shows it.
        expect: what the name or documentation says, as an expectation that the audit does not meet. options: more
            arguments of `klsim audit`, and what they are in Python. program: in place of a command, Python that prints
            what is found.
    """

    target: str
    text: str
    shown: Callable[[Audit], bool]
    expect: str = ""
    options: tuple[str, Mapping[str, Any]] = ("", {})
    program: str = ""

    def demonstrated(self) -> str:
        """The command or program, and what it prints."""
        if self.program:
            return f"```python\n{self.program.strip()}\n```\n\nprints `{_printed(self.program)}`."
        expect = f" --expect '{self.expect}'" if self.expect else ""
        flags = f" {self.options[0]}" if self.options[0] else ""
        found = audit(load_target(self.target), expect=self.expect or None, **self.options[1])
        return f"    klsim audit '{self.target}'{expect}{flags}\n\n> {found.verdict}"


def _printed(program: str) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "finding", "exec"), {})
    return out.getvalue().strip()


def _coefficient(a: Audit, name: str) -> float:
    return a.equal.coefficients.get(name, 0.0)


def _start(a: Audit) -> float:
    return next(p.up for p in a.pushes if p.situation == "at the reference")


_TIES = """
from dataclasses import replace
import torch
from klsim.audit import load_target
from klsim.audit.worlds import world
loss, here = load_target("trl:online_dpo").loss(), world("pairs")
rows = torch.tensor(here.draws[0][0])
for order in (rows, rows.flip(0)):
    batch = here.batches.batch(order)
    print(f"{float(loss(replace(batch, rewards=torch.ones(2)))):.4f}", end=" ")
"""

FINDINGS: Sequence[Finding] = (
    Finding(
        "trl:grpo?loss_type=cispo",
        "TRL's CISPO clamps the ratio itself at `epsilon_high`; with the default that other loss types need (0.2) every"
        " on-policy token is weighted by 0.2, and `beta` counts five-fold beside it. `epsilon_high=5` is CISPO.",
        lambda a: abs(abs(_coefficient(a, "reward")) * 5 * 3 * 2**0.5 - 1) < 0.01,
    ),
    Finding(
        "torchrl:grpo?kl_to_ref_coeff=0.1",
        "torchrl's policy term is a mean over response tokens, but the KL to the reference is a mean over all"
        " positions, masked ones included: its weight falls with the padding of the batch.",
        lambda a: a.properties.trimmed,
    ),
    Finding(
        "torchrl:distillation?normalize_by_seq_length=false",
        "torchrl's `kl_direction=reverse` minimises the forward KL(teacher‖pi) of every token on the student's"
        " prefixes. Its documentation says so in a note; the option's name and the logged value say the reverse.",
        lambda a: set(a.variable.coefficients) == {"forward_kl(teacher, frozen)"},
        "-reverse_kl(teacher, frozen)",
    ),
    Finding(
        "torchrl:distillation?kl_direction=forward",
        "torchrl's `kl_direction=forward` is meant for the teacher's responses; on the student's own it is no KL.",
        lambda a: not a.equal.exact,
    ),
    Finding(
        "verl:vanilla?kl_loss_coef=0.1&kl_loss_type=kl",
        "verl's `kl_loss_type=kl` (k1 back-propagated) has no gradient with equal lengths or summed tokens; by a mean"
        " over tokens or responses it has that of the length instead, and descending it lengthens responses.",
        lambda a: not any("kl" in n for n in a.equal.coefficients) and not a.variable.exact,
    ),
    Finding(
        "verl:vanilla?kl_loss_coef=0.1&kl_loss_type=low_var_kl",
        "verl's `low_var_kl` (k3 back-propagated) is the gradient of the forward KL(ref‖pi) of every token on the"
        " policy's own prefixes, not of the reverse KL whose value it estimates; `k3+` is the reverse one.",
        lambda a: "forward_kl(frozen)" in a.equal.coefficients,
    ),
    Finding(
        "trl:gmpo?beta=0.1",
        "So is the KL of TRL's GMPO, which lacks the bias correction that its GRPO has by default.",
        lambda a: "forward_kl(frozen)" in a.equal.coefficients,
    ),
    Finding(
        "trl:grpo?loss_type=grpo&importance_sampling_level=sequence",
        "With `beta`, TRL's bias-corrected KL of a sequence's ratio is"
        " `1/T^2 reverse_kl + (T-1)/T^2 forward_kl(frozen)` for responses of T tokens: the longer they are, the more of"
        " it is the forward KL again.",
        lambda a: any(e.parameter == "beta" and "forward_kl(frozen)" in e.change.coefficients for e in a.effects),
    ),
    Finding(
        "trl:dpo?loss_type=ipo",
        "`ipo` is not one loss: TRL's DPO, CPO and TPO trainers divide log ratios by the length, its online DPO and"
        " OpenRLHF do not (as the paper). The same `beta` means another target, and long responses are pushed less.",
        lambda a: any("averaged" in n for n in a.variable.coefficients),
        "-ipo(beta=beta)",
    ),
    Finding(
        "openrlhf:dpo?beta=0.1&ipo=true",
        "The other convention, as in the paper:",
        lambda a: set(a.variable.coefficients) == {"ipo(beta=0.1)"},
        "-ipo(beta=beta)",
    ),
    Finding(
        "trl:dpo?label_smoothing=0.1",
        "TRL's DPO ignores `label_smoothing` with `loss_type=sigmoid` (cDPO in other trainers, OpenRLHF's for one);"
        " only `robust`, `exo_pair`, `aot` and `aot_unpaired` read it.",
        lambda a: any(e.parameter == "label_smoothing" and not e.acts for e in a.effects),
        options=("--must-act label_smoothing", {"must_act": ("label_smoothing",)}),
    ),
    Finding(
        "trl:cpo?loss_type=simpo",
        "TRL's `loss_type=simpo` keeps CPO's likelihood term (`cpo_alpha=1`): the chosen response is pushed up at the"
        " reference far more than the rejected one is pushed down. SimPO is `cpo_alpha=0`; Liger's `simpo` likewise"
        " adds it unless `compute_nll_loss=false`.",
        lambda a: _start(a) > 0.5,
    ),
    Finding(
        "liger:kto",
        "Liger's KTO ignores the reference unless `use_ref_model=true`, also where the reference's hidden states are"
        " given: at the reference its two pushes are not those of `beta/4`, and the pair's lengths act.",
        lambda a: abs(_start(a) / (0.25 * 0.1 / 2) - 1) > 1e-4,
    ),
    Finding(
        "trl:online_dpo?loss_type=sigmoid",
        "TRL's online DPO calls the first of two responses with equal rewards chosen: ties train on noise. Two"
        " responses with the same reward, in both orders:",
        lambda a: True,
        program=_TIES,
    ),
)
"""What differs from a trainer's documentation, as the gallery prints it."""


def findings(audits: Mapping[str, Audit | str]) -> str:
    """Those that the audits show, each with what shows it."""
    shown = []
    for finding in FINDINGS:
        a = audits.get(finding.target)
        if isinstance(a, Audit) and finding.shown(a):
            shown.append(f"{finding.text}\n\n{finding.demonstrated()}")
    return "\n\n".join(f"{k}. {text}" for k, text in enumerate(shown, 1)) or "None."
