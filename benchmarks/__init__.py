"""Benchmarks: every hot path of klsim beside its peer, measured side by side in one run."""

import klsim.kernels  # noqa: F401  before a peer loads numba's threads as they come, which spin where cores are shared
