"""The same as fer-jax prepare."""

import sys

from fer_jax.commands.prepare import main

sys.exit(main())
