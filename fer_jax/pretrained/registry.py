"""The trained networks that come with the package."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

# The most accurate first, which is the default.
BUNDLED = {
    "cnn_1m_64": "cnn_1m_64_fer2013.safetensors",
    "cnn_64": "cnn_64_fer2013.safetensors",
    "cnn_again": "cnn_again_fer2013.safetensors",
    "cnn": "cnn_fer2013.safetensors",
    "cnn_1m": "cnn_1m_fer2013.safetensors",
    "cnn_250k": "cnn_250k_fer2013.safetensors",
}
DEFAULT = next(iter(BUNDLED))


def find_weights(source: os.PathLike | str) -> str:
    """The path of weights: `source` itself, or that of one of `BUNDLED`.

    Raises:
      FileNotFoundError: there is neither.
    """
    if str(source) in BUNDLED:
        return str(resources.files("fer_jax.pretrained") / BUNDLED[str(source)])
    if not Path(source).exists():
        raise FileNotFoundError(
            f"there are no weights {source}: expected a .safetensors file, a run's directory or one of: "
            f"{', '.join(BUNDLED)}"
        )
    return str(source)


def name_of(source: os.PathLike | str) -> str | None:
    """The name in `BUNDLED` of the weights that lie at `source`, None of others."""
    path = os.path.realpath(source)
    return next((name for name in BUNDLED if os.path.realpath(find_weights(name)) == path), None)


def network_name(source: os.PathLike | str, model: Mapping[str, Any] | None) -> str:
    """What to call the network whose weights lie at `source`: its name in `BUNDLED`, else its architecture's.

    Args:
      source: where they lie.
      model: the facts about it, of which "name" is the architecture's; None where they are not known.
    """
    return name_of(source) or (model or {}).get("name", "unknown model")
