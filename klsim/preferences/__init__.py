r"""Preferences between responses: fits, what preference losses converge to, Nash policies, self-play, finite data.

A preference matrix has ``P_ij = P(i is preferred to j)``, ``P_ij + P_ji = 1``. Comparisons of i and j are made with
frequency ``w_ij`` (symmetric). The problem is `klsim.problems.PreferenceBandit`.
"""

from klsim.preferences.fits import bradley_terry_fit, bradley_terry_groups, ipo_fit
from klsim.preferences.matrices import (
    bradley_terry,
    checked_preference,
    checked_weights,
    from_log_odds,
    loser_shares,
    winner_shares,
)
from klsim.preferences.nash import Nash, exploitability, regularized_nash
from klsim.preferences.policies import (
    KTOFixedPoint,
    chi2_po_policy,
    dpo_policy,
    ipo_policy,
    kto_fixed_point,
    orpo_policy,
    simpo_policy,
)
from klsim.preferences.samples import Comparisons, finite_fit_probability, sample_wins
from klsim.preferences.self_play import SelfPlay, magnetic_descent, nash_md, proximal_play, sppo, sppo_step

__all__ = [
    "Comparisons",
    "KTOFixedPoint",
    "Nash",
    "SelfPlay",
    "bradley_terry",
    "bradley_terry_fit",
    "bradley_terry_groups",
    "checked_preference",
    "checked_weights",
    "chi2_po_policy",
    "dpo_policy",
    "exploitability",
    "finite_fit_probability",
    "from_log_odds",
    "ipo_fit",
    "ipo_policy",
    "kto_fixed_point",
    "loser_shares",
    "magnetic_descent",
    "nash_md",
    "orpo_policy",
    "proximal_play",
    "regularized_nash",
    "sample_wins",
    "simpo_policy",
    "sppo",
    "sppo_step",
    "winner_shares",
]
