"""Hypothesis in tests: the same examples every time, no deadline on slow machines."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "klsim", deadline=None, derandomize=True, print_blob=False, max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
settings.load_profile("klsim")
