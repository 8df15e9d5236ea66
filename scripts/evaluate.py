"""Runs fer-jax evaluate."""

import sys

from fer_jax.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
