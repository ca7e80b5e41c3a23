"""The gallery: what do popular losses optimise? Audits of the installed trainers, as a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klsim.audit.identify import EXACT, Combination, combination_text, share_text
from klsim.audit.measure import Audit, audit
from klsim.audit.targets import load_target
from klsim.audit.traits import SUCCESSES
from klsim.audit.verdict import dependencies, effect_text
from klsim.audit.worlds import clipped_share
from klsim.files import write_atomically
from klsim.parallel import execute

__all__ = ["GALLERY", "gallery", "gallery_markdown", "write_gallery"]

_TRL = (
    *(f"trl:grpo?loss_type={kind}" for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")),
    "trl:grpo?loss_type=cispo&epsilon_high=5",
    "trl:grpo?loss_type=grpo&importance_sampling_level=sequence",
    "trl:grpo?loss_type=dapo&scale_rewards=none",
    "trl:grpo?loss_type=dapo&scale_rewards=batch",
    *(f"trl:grpo?loss_type={kind}&beta=0.1" for kind in ("dapo", "dr_grpo", "cispo")),
    *(f"trl:grpo?loss_type={kind}&beta=0.1&use_bias_correction_kl=false" for kind in ("dapo", "grpo")),
    "trl:grpo?loss_type=dr_grpo&entropy_coef=0.1",
    "trl:grpo?loss_type=dr_grpo&delta=1.5",
    "trl:grpo?loss_type=dr_grpo&off_policy_mask_threshold=0.1",
    *(
        f"trl:grpo?loss_type=dr_grpo&vllm_importance_sampling_correction=true&vllm_importance_sampling_mode={mode}"
        for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
    ),
    "trl:rloo?beta=0",
    "trl:rloo?beta=0.1",
    "trl:rloo?beta=0&normalize_advantages=true",
    *(f"trl:{kind}?beta={beta}" for kind in ("distillation", "gkd") for beta in (0, 0.5, 1)),
)
_LIGER = (
    *(f"liger:grpo?loss_type={kind}&beta=0.1" for kind in ("grpo", "dapo", "dr_grpo")),
    "liger:grpo?loss_type=dapo&beta=0.1&use_bias_correction_kl=true",
    *(f"liger:jsd?beta={beta}" for beta in (0, 0.5, 1)),
)
_VERL = (
    *(f"verl:{kind}" for kind in ("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "geo_mean", "cispo")),
    *(f"verl:{kind}" for kind in ("clip_cov", "kl_cov", "dro?policy_loss.dro_beta=1")),
    *(f"verl:vanilla?kl_loss_coef=0.1&kl_loss_type={k}" for k in ("kl", "abs", "mse", "low_var_kl", "k3+")),
    *(f"verl:vanilla?loss_agg_mode=seq-mean-token-{kind}" for kind in ("mean", "sum", "sum-norm")),
    *(
        f"verl:vanilla?loss_agg_mode=seq-mean-token-sum&adv_estimator={kind}"
        for kind in ("rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "gpg", "opo", "grpo_passk", "remax",
                     "optimal_token_baseline", "gae")
    ),
    "verl:vanilla?norm_adv_by_std_in_grpo=false",
    *(f"verl:vanilla?loss_agg_mode=seq-mean-token-sum&rollout_is={kind}" for kind in ("token", "sequence")),
)  # fmt: skip
_OTHERS = (
    *(
        f"torchrl:{kind}"
        for kind in ("grpo", "dapo", "cispo", "grpo?aggregation=prompt_mean", "grpo?kl_to_ref_coeff=0.1")
    ),
    *(f"openrlhf:policy?estimator={kind}" for kind in ("group_norm", "rloo", "dr_grpo", "reinforce_baseline")),
    "openrlhf:policy?policy_loss_type=gspo",
    "openrlhf:policy?estimator=dr_grpo&token_level_loss=false",
    *(f"openrlhf:policy?estimator=dr_grpo&is_correction_level={level}" for level in ("token", "seq")),
    "openrlhf:dpo?beta=0.1",
    *(f"swift:jsd?beta={beta}" for beta in (0, 0.5, 1)),
    "torchtune:grpo",
)
GALLERY = (*_TRL, *_LIGER, *_VERL, *_OTHERS)


@dataclass(frozen=True)
class _Task:
    target: str

    def run(self) -> Audit | str:
        from threadpoolctl import threadpool_limits

        try:
            with threadpool_limits(1):
                return audit(load_target(self.target))
        except Exception as error:  # a trainer that is not there or does not import, or whose loss moved: reported
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def gallery(*, jobs: int = 1, on_done: Callable[[str], None] = lambda name: None) -> dict[str, Audit | str]:
    """Audits of `GALLERY`; the reason as text where one could not be made."""
    found: list[Any] = [None] * len(GALLERY)
    for index, result in execute([_Task(target) for target in GALLERY], jobs=jobs):
        found[index] = result
        on_done(GALLERY[index])
    return dict(zip(GALLERY, found))


def _best(a: Audit) -> tuple[Combination, str]:
    """The most general exact combination, and where it holds."""
    if a.variable.exact:
        return a.variable, ""
    large = a.found.get("large batch")
    if large is not None and large.exact:
        return large, " as the batch grows"
    return (a.equal, " with equal lengths only") if a.equal.exact else (a.variable, "")


_WORDS = {
    "reward": "E[r]",
    "reward_per_token": "E[(r - p)/length]",
    "token_mean(reward)": "E[r]/E[length]",
    "reverse_kl": "KL(pi‖ref)",
    "reverse_kl(frozen)": "KL(pi‖ref) token by token",
    "forward_kl(frozen)": "KL(ref‖pi) token by token",
    "token_mean(reverse_kl(frozen))": "mean KL(pi‖ref) of a token",
    "token_mean(forward_kl(frozen))": "mean KL(ref‖pi) of a token",
    "forward_kl(teacher, frozen)": "KL(teacher‖pi) token by token",
    "reverse_kl(teacher, frozen)": "KL(pi‖teacher) token by token",
    "js(teacher, frozen)": "JS to the teacher token by token",
    "token_mean(forward_kl(teacher, frozen))": "mean KL(teacher‖pi) of a token",
    "token_mean(reverse_kl(teacher, frozen))": "mean KL(pi‖teacher) of a token",
    "token_mean(js(teacher, frozen))": "mean JS to the teacher of a token",
}


def _ascends(a: Audit) -> str:
    found, where = _best(a)
    if not found.coefficients:
        return "nothing"
    if not found.exact:
        return f"no named objective ({share_text(found.residual)} left)"
    parts = [f"{-c:+.3g} {_WORDS.get(n, n)}" for n, c in found.coefficients.items()]
    return " ".join(parts).removeprefix("+") + where


def _long(a: Audit) -> str:
    """What it does to long responses."""
    names = set(_best(a)[0].coefficients)
    if a.properties.coupling.startswith("depends on the longest"):
        return "all are divided by the longest of the batch"
    if any(n.startswith("token_mean") for n in names):
        return "weigh by their tokens"
    if names & {"reward_per_token"} or any(n.startswith("sequence_mean") for n in names):
        return "each response counts once: tokens of long ones less"
    if a.properties.trimmed:
        return "as short ones, if batches are padded to one width"
    return "as short ones" if a.variable.exact else "see the full table"


def _prompts(a: Audit) -> str:
    """What it does to easy and hard prompts."""
    if not any(a.prompt_weights):
        return "no reward"
    mixes = "; mixes prompts" if a.properties.coupling.startswith("mixes") else ""
    if a.std_normalised:
        return f"hard and easy ones count more (1/std){mixes}"
    if max(abs(w - 1) for w in a.prompt_weights) < 2e-3:
        return f"alike{mixes}"
    weights = ", ".join(f"{w:.2f} at p = {p:g}" for p, w in zip(SUCCESSES, a.prompt_weights) if p in (0.1, 0.5, 0.9))
    return weights + mixes


def _off(a: Audit) -> str:
    if not a.fits:
        return "-"
    if all(f.residual < EXACT and abs(f.scale - 1) < EXACT for f in a.fits):
        return "the same"
    return ", ".join("exact" if f.residual < EXACT else f"{f.cosine:.2f}" for f in a.fits)


def _padding(a: Audit) -> str:
    p = a.properties
    if p.masked:
        return "masked positions act"
    parts = ["the padded width acts"] if p.trimmed and not p.coupling else []
    parts += [f"masked responses: {p.cut.partition(':')[0]}"] if p.cut else []
    return "; ".join(parts) or "does not act"


def gallery_markdown(audits: dict[str, Audit | str]) -> str:
    """The page's two tables: one for a minute, one with everything."""
    short = [
        "| loss | ascends | long responses | easy and hard prompts | off-policy (far, slight, sampler) | padding |",
        "|---|---|---|---|---|---|",
    ]
    full = [
        "| loss | equal lengths | variable lengths | as the batch grows | off-policy | options, per unit | depends |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, a in audits.items():
        if isinstance(a, str):
            short.append(_row(f"`{name}`", f"not audited: {a}", "", "", "", ""))
            continue
        short.append(_row(f"`{name}`", _ascends(a), _long(a), _prompts(a), _off(a), _padding(a)))
        effects = "; ".join(f"{e.parameter}: {effect_text(e)}" for e in a.effects)
        off = a.found.get("off-policy")
        cells = (_short(a.equal), _short(a.variable), _short(a.found.get("large batch")), _short(off), effects)
        depends = re.sub(r" \(/[^)]*\)", "", "; ".join(dependencies(a)))  # without the places in installed files
        full.append(_row(f"`{name}`", *cells, depends))
    return "\n".join(short) + "\n\n## Everything\n\n" + "\n".join(full) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(found: Combination | None) -> str:
    if found is None:
        return ""
    return combination_text(found) if found.exact else f"no functional ({share_text(found.residual)} left)"


@dataclass(frozen=True)
class _Finding:
    """Something that the documentation of a trainer does not say; printed only where the audit shows it."""

    target: str
    text: str
    shown: Callable[[Audit], bool]


FINDINGS: Sequence[_Finding] = (
    _Finding(
        "trl:grpo?loss_type=cispo",
        "CISPO clamps the ratio itself at `epsilon_high`; with the default that other loss types need (0.2) every"
        " on-policy token is weighted by 0.2, and `beta` counts five-fold beside it. `epsilon_high=5` is CISPO.",
        lambda a: abs(abs(a.equal.coefficients.get("reward", 0.0)) * 5 * 3 * 2**0.5 - 1) < 0.01,
    ),
    _Finding(
        "torchrl:grpo?kl_to_ref_coeff=0.1",
        "The policy term is a mean over response tokens, but the KL to the reference is a mean over all positions,"
        " masked ones included: its weight falls with the padding of the batch.",
        lambda a: a.properties.trimmed,
    ),
    _Finding(
        "verl:vanilla?kl_loss_coef=0.1&kl_loss_type=kl",
        "`kl_loss_type=kl` (k1 back-propagated) has no gradient with equal lengths or summed tokens; by a mean over"
        " tokens or responses it has that of the length instead, and descending it lengthens responses.",
        lambda a: not any("kl" in n for n in a.equal.coefficients) and not a.variable.exact,
    ),
    _Finding(
        "verl:vanilla?kl_loss_coef=0.1&kl_loss_type=low_var_kl",
        "`low_var_kl` (k3 back-propagated) is the gradient of the forward KL(ref‖pi) of every token on the policy's own"
        " prefixes, not of the reverse KL whose value it estimates; `k3+` is the reverse one.",
        lambda a: "forward_kl(frozen)" in a.equal.coefficients,
    ),
    _Finding(
        "trl:grpo?loss_type=grpo&importance_sampling_level=sequence",
        "With `beta`, the bias-corrected KL of a sequence's ratio is `1/T^2 reverse_kl + (T-1)/T^2 forward_kl(frozen)`"
        " for responses of T tokens: the longer they are, the more of it is the forward KL again.",
        lambda a: any(e.parameter == "beta" and "forward_kl(frozen)" in e.change.coefficients for e in a.effects),
    ),
)


def _findings(audits: dict[str, Audit | str]) -> str:
    lines = []
    for finding in FINDINGS:
        a = audits.get(finding.target)
        if isinstance(a, Audit) and finding.shown(a):
            found = f"{_short(a.equal)} with equal lengths, {_short(a.variable)} with variable ones"
            lines.append(f"- {finding.text} `klsim audit '{finding.target}'` ({a.version}): {found}.")
    return "\n".join(lines) or "None."


def write_gallery(path: Path, audits: dict[str, Audit | str]) -> None:
    """The documentation page, with the versions that were audited."""
    versions = sorted({a.version for a in audits.values() if isinstance(a, Audit) and a.version})
    share = f"{clipped_share('off-policy'):.0%}"
    text = f"""# What do popular losses optimise?

Written by `klsim audit --gallery`; do not edit. Audited: {", ".join(versions) or "nothing (no trainer is installed)"}.

Each row is the exact expected gradient of the trainer's own loss code on enumerated token trees, as the combination of
population gradients that it is. Conditions: horizon 3 with an end of sequence (or without: "equal lengths", three
tokens), binary rewards, groups of two, one prompt a batch; "as the batch grows": all groups of two prompts, as often as
their probability says, in one batch, which is the limit of many groups; masked positions hold junk.

- **ascends**: `+1 E[r] -0.1 KL(pi‖ref)` is what training maximises. In groups of two, the standard deviation of a mixed
  group is `1/sqrt 2` (hence .707), a group mean without leave-one-out keeps half (hence .5), and a constant maximal
  length of three divides by three. "Token by token": over visited prefixes with their visits held fixed.
- **long responses**: how a response's length changes its weight.
- **easy and hard prompts**: the weight of `grad p` beside a prompt with p = 1/2 in one batch,
  groups of four.
- **off-policy**: cosine of the gradient with what the loss descends on-policy: with logits 1/2 apart ({share} of the
  tokens have a ratio outside [0.8, 1.2], so that this is mostly the clip), 0.03 apart (no ratio is outside: clips are
  open), and with a sampler that is neither the policy nor the trainer's old policy. "-": no combination on-policy.
- **padding**: whether masked positions, the padded width, or responses that are masked altogether act.

TRL and OpenRLHF compute advantages while they generate: they are those that they document. "No functional": no
combination of three in the library explains the gradient; the share left over by the nearest is shown. Means over a
batch's tokens (bnpo, dapo) are ratios: at a fixed batch they couple its responses and differ with micro-batches.
Standard deviations: with graded rewards no row that divides by the group's is a multiple of the reward's gradient.

How far to trust this: in 13 correct losses, 137 one-line changes (a dropped mask, detach, mean, sign, index,
coefficient or baseline) were audited; the 102 that change an exact expected gradient are all not met, the 35 equivalent
rewritings all are (`tests/audit/test_defects.py`).

## In a minute

{gallery_markdown(audits)}
## Findings

Where an option does something else than its name or documentation says, with the command that shows it:

{_findings(audits)}
"""
    write_atomically(path, text)
