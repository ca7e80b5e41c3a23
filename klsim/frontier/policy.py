"""A trained policy against the frontier: what it spent, what that could have bought, what its reward needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klsim.estimators import k3 as k3_of
from klsim.frontier.dual import TRUSTED_SHARE, Dual, kl_at, value_at
from klsim.frontier.log_probs import ERRORS, Checked, check
from klsim.frontier.result import Estimate, PolicyPoint
from klsim.frontier.samples import Samples, column

__all__ = ["PolicySamples", "point"]

LOGPS = ("policy_logp", "ref_logp")
ABOVE_ONE = (
    "more efficient than any policy can be: log-probabilities of a part of the response, or another reward than the "
    "reference's?"
)


def _row(row: int) -> str:
    return f"row {row}"


@dataclass(frozen=True)
class PolicySamples:
    """Samples of a trained policy.

    Attributes:
        prompt, reward: one a row. label: of the checkpoint.
        policy_logp, ref_logp: nats, of whole responses; or log_ratio, their difference; or kl, any unbiased estimate of
            the KL of each response's prompt (its mean is taken).
        length: tokens of each response, if known.
        row_name: names a row in messages.
        unchecked: use log-probabilities that fail the checks of `klsim.frontier.log_probs` on their mean.
    """

    prompt: Any
    reward: Any
    policy_logp: Any = None
    ref_logp: Any = None
    log_ratio: Any = None
    kl: Any = None
    length: Any = None
    label: str = ""
    row_name: Callable[[int], str] = _row
    unchecked: bool = False

    def columns(self) -> dict[str, np.ndarray]:
        """``reward``, ``k1``, with log-probabilities ``k3`` and they themselves, and ``length`` if given.

        Raises:
            ValueError: lengths that differ, values that are not finite.
        """
        if self.log_ratio is None and self.kl is None:
            for name, other in (("policy_logp", "ref_logp"), ("ref_logp", "policy_logp")):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: is needed with {other} (or log_ratio, or kl)")
        given = {n: getattr(self, n) for n in ("policy_logp", "ref_logp", "log_ratio", "kl", "length")}
        read = {n: column(n, v) for n, v in given.items() if v is not None}
        out = {"reward": column("policy_reward", self.reward)}
        rows = len(np.asarray(self.prompt))
        for name, values in (out | read).items():
            if len(values) != rows:
                raise ValueError(f"{name}: has {len(values)} rows, policy_prompt {rows}")
        if "kl" in read:
            out["k1"] = read["kl"]
        elif "log_ratio" in read:
            out["k1"] = read["log_ratio"]
            out["k3"] = np.asarray(k3_of(out["k1"]))
        else:
            out |= {name: read[name] for name in LOGPS}
            out["k1"] = read["policy_logp"] - read["ref_logp"]
            out["k3"] = np.asarray(k3_of(out["k1"]))
        if "length" in read:
            out["length"] = read["length"]
        return out


def point(
    data: Samples,
    dual: Dual,
    samples: PolicySamples,
    codes: np.ndarray,
    columns: dict[str, np.ndarray],
    notes: list[str],
) -> PolicyPoint:
    """The policy's place; ``codes``: its rows' prompts, as in ``data``; ``columns`` as `PolicySamples.columns`."""
    boot, counts = dual.boot, np.bincount(codes, minlength=data.prompts)
    checked = Checked()
    prefix = f"{samples.label}: " if samples.label else ""
    if "k3" in columns:
        logps = {name: columns[name] for name in LOGPS if name in columns}
        checked = check(columns["k1"], logps, codes, samples.row_name, unchecked=samples.unchecked)
    notes += [prefix + note for note in checked.notes]
    with np.errstate(over="ignore", invalid="ignore"):
        used = {name: v for name, v in columns.items() if name not in LOGPS}
        sums = {n: data.block_sums(np.bincount(codes, v, minlength=data.prompts) / counts) for n, v in used.items()}
    reward, k1 = boot.of_mean(sums["reward"]), boot.of_mean(sums["k1"])
    if not np.any(columns["k1"]):
        k1 = Estimate(0.0, 0.0, 0.0)  # the reference itself
    if k1.reason and not checked.kl:
        worst = int(np.argmax(np.abs(columns["k1"] - np.mean(columns["k1"]))))
        notes.append(
            f"{prefix}{samples.row_name(worst)}: a log ratio of {columns['k1'][worst]:.4g} (the mean is "
            f"{k1.value:.4g}): few "
            f"responses carry the KL; without it the mean is {np.mean(np.delete(columns['k1'], worst)):.4g}"
        )
    k1 = replace(k1, reason=checked.kl or k1.reason)
    k3 = None
    if "k3" in sums:
        k3 = _k3(boot.of_mean(sums["k3"]) if np.isfinite(sums["k3"]).all() else None, columns["k1"], checked)
    needed, efficiency, best, missed = _against_frontier(data, dual, sums, reward, k1, notes, prefix)
    length = boot.of_mean(sums["length"]) if "length" in sums else None
    return PolicyPoint(
        samples.label, len(codes), data.prompts, reward, k1, k3, needed, efficiency, best, missed, length,
        None if length is None else _per_token(dual, sums, k1),
    )  # fmt: skip


def _k3(found: Estimate | None, ratio: np.ndarray, checked: Checked) -> Estimate:
    """k3 is a mean of inverse ratios, whose tail a file that lacks it does not show: it is trusted by their spread.

    A normal interval of n values needs ``n > 25 skewness^2`` (Cochran 1977, section 2.15); log ratios of variance s^2
    give their inverse the skewness ``(e^{s^2} + 2) sqrt(e^{s^2} - 1)`` of a lognormal law.
    """
    if found is None:
        return Estimate(np.nan, np.nan, np.nan, checked.kl or checked.k3 or "it overflows")
    grown = np.exp(min(float(np.var(ratio)), 50.0))
    needed = 25 * (grown + 2) ** 2 * (grown - 1)
    spread = ""
    if needed > len(ratio):
        spread = (
            f"log ratios with a standard deviation of {np.std(ratio):.2g} need {needed:.2g} samples for k3; read k1"
        )
    return replace(found, reason=checked.kl or checked.k3 or spread or found.reason)


def _per_token(dual: Dual, sums: dict[str, np.ndarray], k1: Estimate) -> Estimate:
    """KL over tokens, both summed over all responses."""
    boot = dual.boot
    both = np.stack([sums["k1"], sums["length"]], axis=1)
    drawn = boot.means(both)
    kl, length = boot.mean(both)
    influence = (boot.influence(sums["k1"]) - kl / length * boot.influence(sums["length"])) / length
    found = boot.around(float(kl / length), drawn[:, 0] / drawn[:, 1], influence)
    return replace(found, reason=k1.reason or found.reason)


def _against_frontier(
    data: Samples,
    dual: Dual,
    sums: dict[str, np.ndarray],
    reward: Estimate,
    k1: Estimate,
    notes: list[str],
    prefix: str,
) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Needed KL, efficiency, the frontier's reward at its KL, and what is missed of it (the last two in units)."""
    boot, lam = dual.boot, dual.lam
    own = (reward.value - data.lowest) / data.scale
    drawn = boot.means(np.stack([sums["reward"], sums["k1"]], axis=1))
    rewards, kls = (drawn[:, 0] - data.lowest) / data.scale, drawn[:, 1]
    reward_influence = boot.influence(sums["reward"]) / data.scale
    kl_influence = boot.influence(sums["k1"])
    # the KL that its reward needs is attained at lam[at]
    at = int(np.argmax(own * lam - dual.mean))
    needed_influence = lam[at] * reward_influence - boot.influence(dual.logs[:, at])
    resampled = kl_at(rewards, dual.resampled, lam)
    needed = boot.around(float(kl_at(own, dual.mean, lam)), resampled, needed_influence)
    spent = max(k1.value, 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(kls > 0, resampled / kls, 0.0)
    ratio = np.where(np.isfinite(ratio), ratio, 0.0)
    share = needed.value / spent if k1.value > 0 else 0.0
    efficiency = boot.around(share, ratio, (needed_influence - share * kl_influence) / spent)
    value, log_lam, edge = value_at(spent, dual.mean, lam)
    tilt = float(np.exp(log_lam))
    best_drawn = value_at(np.maximum(kls, 1e-12), dual.resampled, lam)[0]
    best_influence = dual.influence(tilt) + kl_influence / lam[dual.near(tilt)]
    best = boot.around(float(value), best_drawn, best_influence)
    missed = boot.around(float(value) - own, best_drawn - rewards, best_influence - reward_influence)

    reason = k1.reason or reward.reason
    if not reason and k1.value <= 0:
        reason = "its estimated KL is not positive: more samples of the policy are needed"
    above = efficiency.low > 1 and missed.value < -ERRORS * boot.stderr(missed)
    if not reason and above:
        notes.append(
            f"{prefix}its reward needs {needed.value:.3g} nats, its log-probabilities say {k1.value:.3g}: {ABOVE_ONE}"
        )
        reason = ABOVE_ONE
    at_spent = (
        reason or dual.beyond(spent, bool(edge)) or _unstable(dual.bias(tilt)[1], boot.stderr(missed), "missed reward")
    )
    moved = dual.bias(float(lam[at]))[1] * float(lam[at])
    at_needed = reason or _beyond(dual, needed) or _unstable(moved / spent, boot.stderr(efficiency), "efficiency")
    at_needed = at_needed or (_beyond(dual, replace(efficiency, high=efficiency.high * spent, low=needed.low)))
    units = {name: data.scale * getattr(missed, name) for name in ("value", "low", "high")}
    return (
        replace(needed, reason=at_needed or needed.reason),
        replace(efficiency, reason=at_needed or at_spent or efficiency.reason),
        replace(dual.in_units(best), reason=at_spent or best.reason),
        replace(missed, **units, reason=at_spent or missed.reason),
    )


def _unstable(moved: float, stderr: float, what: str) -> str:
    if moved > TRUSTED_SHARE * stderr:
        return f"too few samples a prompt: its {what} still moves with their number"
    return ""


def _beyond(dual: Dual, needed: Estimate) -> str:
    """Why an interval of a needed KL is not to be believed, or ""."""
    if needed.high > dual.reach:
        beyond = f"its interval reaches beyond the {dual.reach:.3g} nats that these samples can show"
        return f"{beyond}; at least {needed.low:.3g}"
    return ""
