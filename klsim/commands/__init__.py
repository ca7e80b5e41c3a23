"""The bodies of commands; `klsim.cli` declares their options and imports them when they run."""
