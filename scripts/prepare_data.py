"""Runs fer-jax prepare."""

import sys

from fer_jax.commands.prepare import main

if __name__ == "__main__":
    sys.exit(main())
