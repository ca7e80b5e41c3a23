"""``python -m klsim``, for launchers: ``accelerate launch -m klsim train CONFIG.toml``."""

from klsim.cli import main

if __name__ == "__main__":
    main()
