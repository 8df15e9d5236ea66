"""Trains and evaluates a network: the same as `python -m fer_jax.main`."""

import sys

from absl import app, flags

from fer_jax import main as training


def main() -> None:
    """Trains and evaluates; exits as `fer_jax.main` does."""
    # absl's --help shows the docstring and flags of the main module.
    sys.modules["__main__"].__doc__ = training.__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(training.__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.argv = ["--help" if word == "-h" else word for word in sys.argv]
    app.run(training.main, flags_parser=training.parse_flags)
