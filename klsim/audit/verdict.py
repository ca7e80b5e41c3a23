"""An audit in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klsim.audit.expected import OPTIONAL
from klsim.audit.identify import EXACT, combination_text, share_text

if TYPE_CHECKING:
    from klsim.audit.effects import Effect
    from klsim.audit.expected import Met
    from klsim.audit.measure import Audit

__all__ = ["dependencies", "effect_text", "met_text", "verdict"]

_KL_WORDS = {
    "forward_kl(frozen)": "its KL term is the per-token forward KL(ref‖pi) on the policy's own prefixes",
    "reverse_kl(frozen)": "its KL term is the per-token reverse KL with frozen visits",
    "reverse_kl": "its KL term is the reverse KL of sequences",
}


def effect_text(effect: Effect) -> str:
    """What one more unit does, in words."""
    if effect.problem:
        return effect.problem
    if not effect.acts:
        return "no effect"
    if effect.on_pairs:
        return "acts"
    equal, variable = (combination_text(c) for c in (effect.change, effect.variable))
    if equal == variable:
        return equal if effect.change.coefficients else "no effect on-policy, some elsewhere"
    return f"{equal} (equal lengths); {variable} (variable lengths)"


def met_text(met: Met) -> str:
    """One world: what is left over, and why."""
    left = "" if met.met else f"{share_text(met.residual)} left"
    return ", ".join(x for x in (left, met.why) if x)


def dependencies(a: Audit) -> list[str]:
    """What the loss depends on besides the responses themselves."""
    p, out = a.properties, []
    if p.masked:
        out.append("depends on masked positions")
    failed = {m.world: m for m in a.expected if not m.met}
    places = {"holes", "left padding", "pairs, holes", "pairs, left padding"}
    if not p.masked and places & set(failed) and not {"lengths", "pairs"} & set(failed):
        out.append("depends on where the masked positions are")
    if any(m.why == "only with rewards at tokens" for m in a.expected):
        out.append("finds the last token only in right-padded responses (fine with rewards at tokens)")
    if p.coupling:
        out.append(p.coupling)
    if p.micro_batches > EXACT:
        out.append(f"micro-batches do not add up to the batch ({share_text(p.micro_batches)} apart)")
    if p.trimmed and not p.coupling:
        out.append("depends on the width to which a batch is padded")
    if p.alone.startswith(("the reward enters", "not finite")):
        out.append(f"in groups of one {p.alone}" if p.alone[0] == "t" else "not finite in groups of one")
    if p.cut:
        out.append(f"responses that are masked altogether: {p.cut}")
    return out


def _descends(a: Audit) -> list[str]:
    found = a.found
    near = a.equal
    where = "equal lengths" if "equal lengths" in found else "preference pairs" if a.takes_pairs else "in its worlds"
    parts = [f"descends {combination_text(near)} ({where})"]
    parts += [words for name, words in _KL_WORDS.items() if near.exact and name in near.coefficients]
    entropy = [c for name, c in near.coefficients.items() if "entropy" in name] if near.exact else []
    parts += ["raises the entropy (a bonus)" if c < 0 else "lowers the entropy" for c in entropy[:1]]
    variable = a.variable
    if "equal lengths" in found and combination_text(variable) != combination_text(near):
        parts.append(f"with variable lengths {combination_text(variable)}")
    if variable.exact and {"reward_per_token", "reward_over_length"} & set(variable.coefficients):
        parts.append("weights responses by 1/length")
    large = found.get("large batch")
    if large is not None and large.exact and not variable.exact:
        parts.append(f"as the batch grows, {combination_text(large)}")
    taught = found.get("teacher's responses")
    if taught is not None and taught.exact and taught.coefficients and not variable.coefficients:
        parts.append(f"on the teacher's responses {combination_text(taught)}")
    return parts


def _off_policy(a: Audit) -> list[str]:
    if not a.fits or a.off_policy_as_on or not a.equal.coefficients:
        return []
    if all(f.residual < EXACT and abs(f.scale - 1) < EXACT for f in a.fits):
        return ["the same off-policy"]
    sizes = ", ".join(
        f"{f.world} cosine {f.cosine:.2f}, {'exact' if f.residual < EXACT else share_text(f.residual) + ' left'}"
        + ("" if f.residual >= EXACT or abs(f.scale - 1) < EXACT else f" at scale {f.scale:.3g}")
        for f in a.fits
    )
    where = "" if a.expectation is not None or a.variable.exact or a.setting.equal else "with equal lengths, "
    return [f"biased off-policy ({where}{sizes})"]


def _expectation(a: Audit) -> list[str]:
    if a.expectation is None:
        return []
    failed = [m for m in a.expected if not m.met]
    text = repr(a.expectation.text)
    if not failed:
        scales = sorted({f"{m.scale:.3g}" for m in a.expected if m.scale and abs(m.scale - 1) > EXACT})
        note = f" at scale {', '.join(scales)}" if scales else ""
        note += ", one pair a batch" if a.expectation.about_pairs and a.properties.coupling else ""
        note += ", as the batch grows" if a.expectation.of_a_batch else ""
        refused = [w for w in OPTIONAL if w in a.skipped]
        return [f"meets {text}{note}" + (f" (not evaluated: {', '.join(refused)})" if refused else "")]
    opposite = all("opposite" in m.why for m in failed if abs(m.scale) > 0)
    where = "; ".join(f"{m.world}: {met_text(m)}" for m in failed[:3])
    more = f"; {len(failed) - 3} more worlds" if len(failed) > 3 else ""
    sign = ", it meets its opposite (the sign is flipped)" if opposite and any(m.scale for m in failed) else ""
    return [f"does NOT meet {text}{sign}, in {len(failed)} of {len(a.expected)} worlds ({where}{more})"]


def verdict(a: Audit) -> str:
    """What a loss descends, on what it depends and whether it meets the expectation, in one sentence."""
    parts = _descends(a) + dependencies(a)
    if a.setting.vocab > 2:
        parts.append(f"audited with a vocabulary of {a.setting.vocab}")
    for effect in a.effects:
        if effect.problem:
            parts.append(f"{effect.parameter} was {effect.problem}")
        elif not effect.acts:
            parts.append(f"{effect.parameter} has no effect")
        elif not effect.on_pairs and not effect.change.coefficients and not effect.variable.coefficients:
            parts.append(f"{effect.parameter} has no effect on-policy")
    if a.std_normalised:
        parts.append("rescales prompts by the group's standard deviation, 1/sqrt(p(1-p)) for large groups")
    if a.equal.exact and a.equal.coefficients and not a.far_as_near and not {"far", "pairs, far"} & set(a.skipped):
        parts.append("not far from the reference, where something is clamped")
    parts += _off_policy(a) + _expectation(a)
    parts += [f"{name} had to act and does not" for name in a.idle]
    if a.left_out:
        parts.append(f"left out: {', '.join(a.left_out)}")
    if a.quick:
        parts.append("effects, prompt weights, noise and training were left out")
    return "; ".join(parts) + "."
