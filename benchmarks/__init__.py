"""Benchmarks: hot paths against the peer a user would otherwise pick, side by side in one run."""
