"""The same as fer-jax evaluate."""

import sys

from fer_jax.commands.evaluate import main

sys.exit(main())
