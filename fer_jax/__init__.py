"""fer_jax: facial emotion recognition in JAX.

from fer_jax import Predictor
Predictor.load()("photo.jpg")
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_jax.inference.predictor import Predictor

# ONNX Runtime's wheels report their use to Microsoft, and store a device ID in the home directory, unless
# this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports `Predictor` on first access, because training does not need it."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fer_jax.inference.predictor import Predictor

    return Predictor
