"""The gallery: what do popular losses optimise? Audits of the installed trainers, as a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klsim.audit.findings import findings
from klsim.audit.gallery_targets import GALLERY, LEFT_OUT
from klsim.audit.identify import EXACT, Combination, combination_text, share_text
from klsim.audit.measure import Audit, audit
from klsim.audit.pairs import GAP
from klsim.audit.targets import load_target
from klsim.audit.traits import SUCCESSES
from klsim.audit.verdict import dependencies, effect_text
from klsim.audit.worlds import clipped_share
from klsim.files import write_atomically
from klsim.parallel import execute

__all__ = ["GALLERY", "gallery", "gallery_markdown", "write_gallery"]


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


def gallery_markdown(audits: Mapping[str, Audit | str]) -> str:
    """Every loss on responses in words, a row each; losses on pairs; everything."""
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
        elif not a.takes_pairs:
            short.append(_row(f"`{name}`", _ascends(a), _long(a), _prompts(a), _off(a), _padding(a)))
            effects = "; ".join(f"{e.parameter}: {effect_text(e)}" for e in a.effects)
            off = a.found.get("off-policy")
            cells = (_short(a.equal), _short(a.variable), _short(a.found.get("large batch")), _short(off), effects)
            full.append(_row(f"`{name}`", *cells, _depends(a)))
    parts = (short, "## Preference pairs", PAIRS_TEXT, _pairs_table(audits), "## Everything", full)
    return "\n\n".join(x if isinstance(x, str) else "\n".join(x) for x in parts) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(found: Combination | None) -> str:
    if found is None:
        return ""
    return combination_text(found) if found.exact else f"no functional ({share_text(found.residual)} left)"


def _depends(a: Audit) -> str:
    places = r" \(/[^)]*\)"  # in installed files
    return re.sub(places, "", "; ".join(dependencies(a)))


PAIRS_TEXT = f"""\
A loss on pairs pushes the chosen response up by one number and the rejected one down by another (the weights of their
`grad log pi`). Both are given at the reference, and then relative to that: where the pair is ranked rightly or
wrongly (both log ratios to the reference are {GAP:g} nats; without a reference, the policy's own), and where the chosen
response has three tokens and the rejected one has one (1: length does not matter; 0.33: divided by length)."""


def _pairs_table(audits: Mapping[str, Audit | str]) -> list[str]:
    lines = [
        "| loss | is | pushes up, down | ranked rightly | ranked wrongly | chosen 3 times as long | depends |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, a in audits.items():
        if not isinstance(a, Audit) or not a.takes_pairs:
            continue
        push = {p.situation: p for p in a.pushes}
        start = push["at the reference"]
        cells = [f"{start.up:.3g}, {start.down:.3g}"]
        for situation in ("ranked rightly", "ranked wrongly", "chosen of 3 tokens, rejected of 1"):
            here = push[situation]
            if here.left:
                cells.append("token by token")
                continue
            cells.append(", ".join(_relative(x, y) for x, y in ((here.up, start.up), (here.down, start.down))))
        is_ = combination_text(a.variable) if a.variable.exact else "no DPO or IPO"
        lines.append(_row(f"`{name}`", is_, *cells, _depends(a)))
    return lines


def _relative(value: float, start: float) -> str:
    if abs(start) < EXACT:
        return "0" if abs(value) < EXACT else f"{value:.3g} from 0"
    return f"{value / start + 0.0:.2f}"


Test = Callable[[Audit], bool]
_GROUPS: Sequence[tuple[str, Test]] = (
    ("**The expected reward itself, whatever the lengths**", lambda a: set(a.variable.coefficients) == {"reward"}
     and a.variable.exact),
    ("**Each response counts once** (1/length: tokens of long responses count less)",
     lambda a: _long(a).startswith("each response")),
    ("**A mean over the batch's tokens**: a ratio, E[r]/E[length] or mean divergence, so that batches and micro-batches"
     " differ", lambda a: _long(a) == "weigh by their tokens"),
    ("**Hard and easy prompts count more** (the group's standard deviation)", lambda a: a.std_normalised),
    ("**Prompts act on each other** (rewards or responses of one change the gradient of another)",
     lambda a: a.properties.coupling.startswith("mixes")),
    ("**A KL term that is the forward KL** of each token, where a reverse one is meant or logged",
     lambda a: any("forward_kl" in n and "teacher" not in n for n in _best(a)[0].coefficients)),
    ("**Nearly unbiased for responses of another policy while clips are open** (2% left)",
     lambda a: any(f.world == "slightly off-policy" and f.residual < 2e-2 for f in a.fits)),
    ("**Masked positions or the padded width act**", lambda a: a.properties.masked or (a.properties.trimmed
     and not a.properties.coupling)),
    ("**A response that is masked altogether breaks them** (refused or not finite)", lambda a: bool(a.properties.cut)),
    ("**Nothing that has a name here**", lambda a: not _best(a)[0].exact and not a.takes_pairs),
)  # fmt: skip


def _minute(audits: Mapping[str, Audit | str]) -> str:
    """Groups of losses by what they do."""
    found = {name: a for name, a in audits.items() if isinstance(a, Audit) and not a.takes_pairs}
    lines = []
    for title, test in _GROUPS:
        names = [name for name, a in found.items() if test(a)]
        lines.append(f"- {title}: {len(names)} of {len(found)}. {_listed(names)}")
    return "\n".join(lines)


def _listed(names: Iterable[str]) -> str:
    """By trainer, without the options that all of a trainer's losses here share."""
    by_loss: dict[str, list[str]] = {}
    for name in names:
        head, _, options = name.partition("?")
        values = "/".join(part.partition("=")[2] if part.count("=") else part for part in options.split("&") if part)
        by_loss.setdefault(head, []).append(values)
    return "; ".join(
        f"`{head}`" + (f" ({', '.join(v or 'as it comes' for v in values)})" if any(values) else "")
        for head, values in by_loss.items()
    )


def write_gallery(path: Path, audits: Mapping[str, Audit | str]) -> None:
    """The documentation page, with the versions that were audited."""
    versions = sorted({a.version for a in audits.values() if isinstance(a, Audit) and a.version})
    share = f"{clipped_share('off-policy'):.0%}"
    left_out = "\n".join(f"- {name}: {why}." for name, why in LEFT_OUT.items())
    text = f"""# What do popular losses optimise?

Written by `klsim dev gallery`; do not edit. Audited: {", ".join(versions) or "nothing (no trainer is installed)"};
the pins are in [audit-gallery-requirements.txt](audit-gallery-requirements.txt).

## In a minute

{_minute(audits)}

Preference losses have a [table of their own](#preference-pairs); what differs from a trainer's documentation is under
[findings](#findings), each with the command that shows it.

## Loss by loss

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
- **off-policy**: cosine of the gradient with what the loss descends on-policy (with equal lengths where it has a name
  only there): with logits 1/2 apart ({share} of the tokens have a ratio outside [0.8, 1.2], so that this is mostly the
  clip), 0.03 apart (no ratio is outside: clips are open), and with a sampler that is neither the policy nor the
  trainer's old policy. "-": no combination on-policy.
- **padding**: whether masked positions, the padded width, or responses that are masked altogether act.

TRL and OpenRLHF compute advantages while they generate: they are those that they document. "No functional": no
combination of three in the library explains the gradient; the share left over by the nearest is shown. Means over a
batch's tokens (bnpo, dapo) are ratios: at a fixed batch they couple its responses and differ with micro-batches.
Standard deviations: with graded rewards no row that divides by the group's is a multiple of the reward's gradient.

How far to trust this: {TRUST}

{gallery_markdown(audits)}
## Findings

Where a loss does something else than its name or documentation says, with the smallest command or program that shows
it; what it prints stands below it.

{findings(audits)}

## Not audited

{left_out}
"""
    write_atomically(path, text)


TRUST = """in 13 correct losses, 137 one-line changes (a dropped mask, detach, mean, sign, index,
coefficient or baseline) were audited; the 102 that change an exact expected gradient are all not met, the 35 equivalent
rewritings all are (`tests/audit/test_defects.py`)."""
