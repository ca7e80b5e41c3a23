r"""Are these log-probabilities those of the samples? Checks before they are used.

Samples ``y ~ pi`` with ``x = log pi(y) - log ref(y)`` satisfy

.. math:: \log\pi, \log\mathrm{ref} \le 0, \qquad E[x] = \mathrm{KL} \ge 0, \qquad
          E[e^{-x}] = \mathrm{ref}(\mathrm{supp}\,\pi) \le 1,

with equality in the last where pi can give all that ref gives. ``k3 - k1`` is ``e^{-x} - 1``: the last is also the
agreement of k1 and k3. By Markov's inequality a mean of ``e^{-x}`` above t has a probability below 1/t, whatever the
law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["ERRORS", "Checked", "check"]

ROUNDING = 1e-3
"""Nats: what sums of log-probabilities in single precision exceed 0 by."""
ERRORS = 4.0
"""Standard errors (of means over prompts) that are no chance: P < 1e-4."""
IMPOSSIBLE = 1e4
SMALL = 0.2
"""Log ratios of this size: their inverse has no tail, so that its mean is known to its standard error."""


@dataclass(frozen=True)
class Checked:
    """What the checks say.

    Attributes:
        kl, k3: why k1 (and what follows from it) and k3 are not to be trusted; empty if nothing speaks against them.
        notes: what a reader must know.
    """

    kl: str = ""
    k3: str = ""
    notes: tuple[str, ...] = ()


def check(
    ratio: np.ndarray,
    logps: Mapping[str, np.ndarray],
    codes: np.ndarray,
    row_name: Callable[[int], str],
    *,
    unchecked: bool = False,
) -> Checked:
    """Check log-probabilities (``name -> values``; may be empty) and ``ratio = log pi - log ref`` of samples of pi.

    ``codes``: the prompt of each sample. ``unchecked`` skips what judges means over the samples, and refuses only
    what no log-probability can be.

    Raises:
        ValueError: a log-probability above 0, a KL significantly below 0, ratios that are none of whole responses.
    """
    positive = {name: np.flatnonzero(values > ROUNDING) for name, values in logps.items()}
    for name, rows in positive.items():
        if rows.size > len(ratio) / 2:
            raise ValueError(
                f"{row_name(int(rows[0]))}: {name} is {logps[name][rows[0]]:g}, and the logarithm of a probability is "
                "not "
                f"positive; {rows.size} of {len(ratio)} are: negative log-likelihoods, whose sign has to be turned?"
            )
    checked = _check_ratios(ratio, codes, row_name, unchecked=unchecked)
    for name, rows in positive.items():
        if rows.size:
            worst = int(rows[np.argmax(logps[name][rows])])
            far = int(np.argmax(np.abs(ratio - np.median(ratio))))
            raise ValueError(
                f"{row_name(worst)}: {name} is {logps[name][worst]:g}, and the logarithm of a probability is not "
                "positive "
                f"({rows.size} of {len(ratio)} rows, the first {row_name(int(rows[0]))}). k1 = {np.mean(ratio):.4g} "
                "nats; the "
                f"log ratio farthest from the others is {ratio[far]:.4g}, {row_name(far)}; without it k1 = "
                f"{np.mean(np.delete(ratio, far)):.4g}"
            )
    return checked


def _check_ratios(ratio: np.ndarray, codes: np.ndarray, row_name: Callable[[int], str], *, unchecked: bool) -> Checked:
    """Means of the log ratios and of their inverse."""
    mean, error = _over_prompts(ratio, codes)
    worst = int(np.argmin(ratio))
    with np.errstate(over="ignore"):
        inverse, noise = _over_prompts(np.exp(-ratio), codes)
    swapped = mean < -ERRORS * error or (mean < -2 * error and inverse > 1 + ERRORS * noise)
    if swapped and not unchecked:
        raise ValueError(
            f"log-probabilities: the KL of the policy to the reference would be {mean:.3g} ± {error:.2g} nats, and no "
            "KL is "
            f"negative: are policy and reference swapped, or were the samples drawn elsewhere? The lowest log ratio is "
            f"{ratio[worst]:.4g}, {row_name(worst)}"
        )
    shift = float(-ratio[worst])
    log_mean = shift + math.log(float(np.mean(np.exp(-ratio - shift))))
    if log_mean > math.log(IMPOSSIBLE):
        text = (
            f"exp(ref - policy) has the mean 1 over samples of the policy, here it is e^{log_mean:.4g}: "
            f"{row_name(worst)} has "
            f"a log ratio of {ratio[worst]:.4g}. k1 with it {np.mean(ratio):.4g}, without it "
            f"{np.mean(np.delete(ratio, worst)):.4g} nats"
        )
        return Checked("log-probabilities that cannot be right (see the notes)", "see k1", (text,))
    if inverse > 1 + ERRORS * noise:
        text = (
            f"exp(ref - policy) averages {inverse:.4g} ± {noise:.2g} over the samples, and cannot exceed 1: they were "
            "not "
            "drawn from the policy as its log-probabilities say (another temperature, top-p or checkpoint?); the "
            "largest: "
            f"{row_name(worst)}, log ratio {ratio[worst]:.4g}"
        )
        return Checked("log-probabilities of another policy than the samples' (see the notes)", "see k1", (text,))
    if inverse < 1 - ERRORS * noise:
        return _too_small(ratio, inverse, noise, unchecked)
    return Checked()


def _too_small(ratio: np.ndarray, inverse: float, noise: float, unchecked: bool) -> Checked:
    """``E[exp(-x)] < 1``: per-token means, or a policy that never gives what the reference does."""
    k1, k3 = float(np.mean(ratio)), inverse - 1 + float(np.mean(ratio))
    small = float(np.quantile(np.abs(ratio), 0.95)) < SMALL
    # of whole responses, KL = Var[x]/2 to leading order where x is small
    if small and k1 > 2 * float(np.var(ratio)) and not unchecked:
        raise ValueError(
            f"log-probabilities: exp(ref - policy) averages {inverse:.5g} ± {noise:.1g}, it has to be 1; k1 = {k1:.3g} "
            "and "
            f"k3 = {k3:.3g} nats disagree: per-token means instead of sums over the response? (If the policy indeed "
            "never "
            f"gives what holds {1 - inverse:.2g} of the reference's probability: --unchecked)"
        )
    text = (
        f"exp(ref - policy) averages {inverse:.3g} ± {noise:.1g} instead of 1: these samples of the policy never show "
        "what "
        f"holds {1 - inverse:.2g} of the reference's probability, or its log-probabilities are not those of whole "
        "responses; "
        "k3 cannot see that, read k1"
    )
    return Checked("", f"exp(ref - policy) averages {inverse:.3g}, not 1", (text,))


def _over_prompts(values: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Mean over prompts of prompt means, and its standard error."""
    counts = np.bincount(codes)
    present = counts > 0
    means = np.bincount(codes, values)[present] / counts[present]
    if len(means) < 2 or not np.all(np.isfinite(means)):  # exp(ref - policy) can overflow
        return float(means.mean()), math.inf
    return float(means.mean()), float(np.std(means, ddof=1)) / math.sqrt(len(means))
