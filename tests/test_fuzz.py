"""Every public callable, found by inspection, keeps its contract: see `tests.fuzzing`."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("klsim_fuzzing", Path(__file__).with_name("fuzzing.py"))
fuzzing = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = fuzzing
_spec.loader.exec_module(fuzzing)


@pytest.mark.parametrize(
    "calls", [pytest.param(5_000, id="5000"), pytest.param(200_000, id="2e5", marks=pytest.mark.slow)]
)
def test_no_nan_no_other_error_no_change_no_hang(calls):
    made, found = fuzzing.fuzz(calls)
    assert made == calls
    assert not found, f"{len(found)} of {made} calls broke the contract:\n" + "\n".join(found[:20])


def test_nothing_is_left_out_in_silence():
    everything = {**fuzzing.targets(left_out=True)}
    assert set(fuzzing.LEFT_OUT) <= set(everything), "names that are gone"
    assert len(everything) - len(fuzzing.LEFT_OUT) >= 200


def test_a_call_is_a_function_of_its_number():
    call = fuzzing.targets()["optima.kl_regularized"]
    for seed in range(20):
        shown = [re.sub("0x[0-9a-f]+", "", fuzzing.shown_call("optima.kl_regularized", call, seed)) for _ in range(2)]
        assert shown[0] == shown[1]


def test_the_contract_can_be_broken():
    broken = {
        "nan": lambda log_p: float("nan"),
        "error": lambda log_p: [][1],
        "unnamed": lambda log_p: int("x"),
        "changed": lambda log_p: (
            log_p.__setitem__(0, 7.0) if hasattr(log_p, "fill") and log_p.dtype == "float64" else None
        ),
    }
    for name, call in broken.items():
        assert any(fuzzing.violation(name, call, seed) for seed in range(40)), name
