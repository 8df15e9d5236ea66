"""fer-jax train: the same as python -m fer_jax.main."""

from absl import app

from fer_jax import main as training


def main() -> None:
    """Trains and evaluates; exits as `fer_jax.main` does."""
    app.run(training.main, flags_parser=training.parse_flags)
