"""Runs `fer-jax` as `python -m fer_jax`."""

import sys

from fer_jax.cli import main

sys.exit(main())
