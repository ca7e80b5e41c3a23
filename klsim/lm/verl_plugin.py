"""Importing this registers klsim's losses in verl: ``VERL_USE_EXTERNAL_MODULES=klsim.lm.verl_plugin``."""

from klsim.lm.verl import register

register()
