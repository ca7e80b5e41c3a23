"""The torch bridge: objectives on the token log-probabilities of causal language models."""
