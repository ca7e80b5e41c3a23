"""The gallery: what do popular losses optimise? Audits of the installed trainers, as a table."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klsim.audit.measure import Audit, Combination, audit, combination_text, effect_text
from klsim.audit.targets import load_target
from klsim.files import write_atomically
from klsim.parallel import execute

__all__ = ["GALLERY", "gallery", "gallery_markdown", "write_gallery"]

_TRL = (
    *(f"trl:grpo?loss_type={kind}" for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")),
    "trl:grpo?loss_type=cispo&epsilon_high=5",
    "trl:grpo?loss_type=grpo&importance_sampling_level=sequence",
    "trl:grpo?loss_type=dapo&scale_rewards=none",
    "trl:grpo?loss_type=dapo&scale_rewards=batch",
    "trl:grpo?loss_type=dapo&beta=0.1",
    "trl:grpo?loss_type=dapo&beta=0.1&use_bias_correction_kl=false",
    "trl:grpo?loss_type=grpo&beta=0.1&use_bias_correction_kl=false",
    "trl:rloo?beta=0",
    "trl:rloo?beta=0.1",
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
    *(f"verl:vanilla?loss_agg_mode=seq-mean-token-{kind}" for kind in ("mean", "sum")),
    *(f"verl:vanilla?adv_estimator={kind}" for kind in ("rloo", "reinforce_plus_plus_baseline", "gpg", "opo")),
    "verl:vanilla?norm_adv_by_std_in_grpo=false",
)
GALLERY = (*_TRL, *_LIGER, *_VERL)
_MODULES = {"trl": "trl", "liger": "liger_kernel", "verl": "verl"}


@dataclass(frozen=True)
class _Task:
    target: str

    def run(self) -> Audit | str:
        from threadpoolctl import threadpool_limits

        scheme = self.target.partition(":")[0]
        if importlib.util.find_spec(_MODULES[scheme]) is None:
            return f"{_MODULES[scheme]} is not installed"
        try:
            with threadpool_limits(1):
                return audit(load_target(self.target))
        except Exception as error:  # a trainer that does not import, or whose loss moved: reported, not hidden
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def gallery(*, jobs: int = 1, on_done: Callable[[str], None] = lambda name: None) -> dict[str, Audit | str]:
    """Audits of `GALLERY`; the reason as text where one could not be made."""
    found: list[Any] = [None] * len(GALLERY)
    for index, result in execute([_Task(target) for target in GALLERY], jobs=jobs):
        found[index] = result
        on_done(GALLERY[index])
    return dict(zip(GALLERY, found))


def gallery_markdown(audits: dict[str, Audit | str]) -> str:
    """One row a target."""
    lines = [
        "| loss | equal lengths | far | variable lengths | off-policy | options, per unit | prompt weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, a in audits.items():
        if isinstance(a, str):
            lines.append(f"| `{name}` | not audited: {a} | | | | | |")
            continue
        effects = "; ".join(
            f"{e.parameter}: {effect_text(e) if e.change.exact else 'no functional'}" for e in a.effects
        )
        weights = "by the group's std" if a.std_normalised else _weights(a)
        far = "the same" if a.far_as_near else "differs"
        other = "the same" if a.off_policy_as_on else _short(a.off_policy)
        cells = (f"`{name}`", _short(a.equal), far, _short(a.variable), other, effects, weights)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _short(found: Combination) -> str:
    return combination_text(found) if found.exact else f"no functional ({found.residual:.0%} left)"


def _weights(a: Audit) -> str:
    if not any(a.prompt_weights):
        return "no reward term"
    return (
        "equal" if max(abs(w - 1) for w in a.prompt_weights) < 2e-3 else ", ".join(f"{w:.2f}" for w in a.prompt_weights)
    )


def write_gallery(path: Path, audits: dict[str, Audit | str]) -> None:
    """The documentation page, with the versions that were audited."""
    versions = sorted({a.version for a in audits.values() if isinstance(a, Audit) and a.version})
    text = f"""# What do popular losses optimise?

Written by `klsim audit --gallery`; do not edit. Audited: {", ".join(versions) or "nothing (no trainer is installed)"}.

Each row is the exact expected gradient of the trainer's own loss code on enumerated token trees (binary rewards, one
prompt a batch, groups of two), as the combination of population gradients that it is: a loss that descends
`-1 reward + 0.1 reverse_kl` ascends `E[r] - 0.1 KL(pi‖ref)`. `frozen`: per token, over visited prefixes with their
visits held fixed; `reward_per_token`: `E[(r - p)/|y|]`. "No functional": no combination of three in the library
explains the gradient; the share of it left over by the nearest is shown (`klsim audit` on the row's target prints it).
Columns: responses of equal length; the same with a policy far from the reference; variable lengths; responses of equal
length by another policy; what one more unit of an option adds; the weights of `grad p` in groups of 8 as p varies ("by
the group's std": `1/sqrt(p(1-p))` for large groups; whitening over a batch shows as the same, since a batch holds one
prompt). TRL computes advantages while it generates: they are those that it documents.

Constants: in groups of two, the standard deviation of a mixed group is `1/sqrt 2`, and responses of equal length have
two tokens, so that a mean over tokens is half the sum: hence `1/(2 sqrt 2) = 0.354`. With importance sampling by
sequence, the bias-corrected KL of responses with T tokens is `1/T^2 reverse_kl + (T-1)/T^2 forward_kl(frozen)` (found
for T = 2, 3, 4 in the tests): the longer they are, the more of it is the forward KL again.

{gallery_markdown(audits)}"""
    write_atomically(path, text)
