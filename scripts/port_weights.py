"""Runs fer-jax port-weights."""

import sys

from fer_jax.commands.port_weights import main

if __name__ == "__main__":
    sys.exit(main())
