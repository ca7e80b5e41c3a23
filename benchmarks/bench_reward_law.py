"""Law of the reward of 2,048 letters: with its tails, against FFT squaring without them."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

from benchmarks.table import Row
from klsim.memoryless import MemorylessSource

P, STEPS = np.array([0.5, 0.3, 0.2]), np.array([0, 1, 3])


def setup(letters):
    return MemorylessSource(np.log(P), STEPS.astype(float)), letters


def klsim(data):
    source, letters = data
    return source.lattice_law(letters)


def fft_power(data):
    """Plain FFT squaring: noise of 1e-17 drowns the tails, which go down to 1e-1400."""
    law = np.zeros(4)
    law[STEPS] = P
    for _ in range(round(np.log2(data[1]))):
        law = fftconvolve(law, law)
    return law


def difference(data):
    """Of the probabilities; klsim's tails are relative-accurate too (tests/kernels/test_lattice.py)."""
    law = klsim(data)
    return float(np.abs(np.exp(law.log_prob) - fft_power(data)[np.rint(law.value).astype(int)]).max())


ROWS = (
    Row(
        "lattice reward law, 2,048 letters, tails kept",
        "scipy fftconvolve squaring (no tails)",
        setup,
        2048,
        (64, 512, 4096, 65_536),
        klsim,
        fft_power,
        difference,
        2e-15,
        target=0.1,
        unit="letters",
    ),
)
