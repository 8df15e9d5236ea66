"""fer_jax: facial emotion recognition in JAX.

from fer_jax import Predictor
Predictor.load()("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_jax.inference.predictor import Predictor

__version__ = "0.2.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports `Predictor` on first access, because training does not need it."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fer_jax.inference.predictor import Predictor

    return Predictor
