"""Lists the bundled networks."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The most accurate on images without near duplicates in training first, the default.
BUNDLED = ("cnn_1m_64", "effnet_b0", "cnn_64", "cnn_250k")
DEFAULT = BUNDLED[0]
FOLDER = Path(__file__).parent


def find_weights(source: os.PathLike | str) -> str:
    """Returns the path of weights: `source` itself, or that of a network in `BUNDLED`.

    Raises:
      FileNotFoundError: `source` is neither.
    """
    if str(source) in BUNDLED:
        return str(FOLDER / f"{source}_fer2013.safetensors")
    if not Path(source).exists():
        raise FileNotFoundError(
            f"there are no weights {source}: expected a .safetensors file, a run directory, or a bundled "
            f"network: {', '.join(BUNDLED)}"
        )
    return str(source)


def name_of(source: os.PathLike | str) -> str | None:
    """Returns the name in `BUNDLED` of the weights at `source`, or None."""
    path = os.path.realpath(source)
    return next((name for name in BUNDLED if os.path.realpath(find_weights(name)) == path), None)


def network_name(source: os.PathLike | str, model: Mapping[str, Any] | None) -> str:
    """Returns the name of a network: in `BUNDLED`, or else its architecture, "name" in `model`."""
    return name_of(source) or (model or {}).get("name", "unknown model")
