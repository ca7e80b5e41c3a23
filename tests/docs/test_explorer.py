"""The explorer's numbers are klsim's: read from the page in a browser, compared to 1e-9."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from klsim import best_of_n, estimators
from klsim.distributions import log_normalize
from klsim.optima import kl_regularized
from tests.report.chromium import CHROMIUM, in_chromium

PAGE = Path(__file__).parents[2] / "docs" / "explorer" / "index.html"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine"),
]

STATES = [
    ([1.6, 1.0, 0.2, -1.2], [0.0, 0.4, 0.6, 1.0], 0.3, 1.25, 8),
    ([0.0, 0.0], [1.0, -1.0], 0.01, 2.0, 64),  # nearly deterministic
    ([-8.0, 8.0, 3.0], [1.0, 0.5, 0.5], 0.05, 0.0, 1),  # rare best action, ties, lam = 0
    ([0.3, -0.3, 0.1, 0.2, -2.0, 4.0, 0.0, 1.0], [0.2] * 8, 32.0, 1.0, 17),  # constant reward
]


@pytest.mark.parametrize(("logits", "reward", "beta", "lam", "n"), STATES)
def test_the_numbers_are_those_of_klsim(tmp_path, logits, reward, beta, lam, n):
    words = [f"logits={','.join(map(str, logits))}", f"reward={','.join(map(str, reward))}"]
    address = PAGE.as_uri() + "#" + "&".join([*words, f"beta={beta}", f"lam={lam}", f"n={n}"])
    ran = in_chromium(address, tmp_path)
    assert "CONSOLE" not in ran.stderr
    shown = json.loads(html.unescape(re.search(r'data-numbers="([^"]*)"', ran.stdout)[1]))

    log_ref, reward = log_normalize(np.array(logits)), np.array(reward)
    policies = {"reference": log_ref, "best_of_n": best_of_n.log_policy(log_ref, reward, n)}
    optimum = kl_regularized(log_ref, reward, beta)
    policies["optimum"] = optimum.log_policy
    policies["student"] = kl_regularized(log_ref, reward, beta / lam).log_policy if lam else log_ref
    for name, log_policy in policies.items():
        pi = np.exp(log_policy)
        np.testing.assert_allclose(np.exp(shown[name]["log_policy"]), pi, rtol=1e-9, atol=1e-300)
        assert shown[name]["reward"] == pytest.approx(pi @ reward, abs=1e-9)
        kept = pi > 0
        assert shown[name]["kl"] == pytest.approx(np.sum(pi[kept] * (log_policy - log_ref)[kept]), abs=1e-9)
    assert shown["optimum"]["value"] == pytest.approx(float(optimum.value), abs=1e-9)
    assert shown["best_of_n"]["kl"] == pytest.approx(float(best_of_n.kl(log_ref, reward, n)), abs=1e-9)

    pi, ratio = np.exp(optimum.log_policy), optimum.log_policy - log_ref
    for name in ("k1", "k2", "k3"):
        values = getattr(estimators, name)(ratio)
        assert shown["estimators"][name]["mean"] == pytest.approx(pi @ values, abs=1e-9)
        assert shown["estimators"][name]["bias"] == pytest.approx(pi @ values - float(optimum.kl), abs=1e-9)
        std = np.sqrt(pi @ (values - pi @ values) ** 2)
        assert shown["estimators"][name]["std"] == pytest.approx(std, abs=1e-9)


@pytest.mark.parametrize("words", ["", "logits=1,x&reward=0,1", "beta=-1&n=1e9&lam=nan", "logits=<script>&reward=1"])
def test_any_address_gives_a_page(tmp_path, words):
    ran = in_chromium(f"{PAGE.as_uri()}#{words}", tmp_path)
    assert "CONSOLE" not in ran.stderr
    assert "best_of_n" in ran.stdout
    assert "NaN" not in ran.stdout
