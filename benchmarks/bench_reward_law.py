"""Law of the reward of 2,000 letters: exact types and lattice against repeated FFT convolution."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

from klsim.memoryless import MemorylessSource

P, STEPS, M = np.array([0.5, 0.3, 0.2]), np.array([0, 1, 3]), 2048


def fft_power():
    """Plain FFT squaring: fast, but noise of 1e-16 drowns the tails."""
    law = np.zeros(4)
    law[STEPS] = P
    for _ in range(11):
        law = fftconvolve(law, law)
    return law


def cases():
    source = MemorylessSource(np.log(P), STEPS.astype(float))
    yield (
        "reward law of 2,048 letters on a lattice (klsim: tails to 1e-1400, FFT: noise below 1e-17)",
        lambda: source.lattice_law(M),
        "SciPy fftconvolve squaring",
        fft_power,
        lambda: np.abs(
            np.exp(source.lattice_law(M).log_prob) - fft_power()[source.lattice_law(M).value.astype(int)]
        ).max(),
    )
