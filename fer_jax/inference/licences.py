"""States the intended use and the licenses of weights."""

import os
import pathlib
from typing import Any

from fer_jax import pretrained
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.download import digest

CODE_LICENCE = "Apache-2.0"
INTENDED_USE = (
    "For research and teaching. The network predicts the expression of a face, not what a person feels. Its "
    "training labels are noisy, and its faces do not represent any population: do not use it to judge "
    "people."
)


def checkpoint(source: os.PathLike | str) -> dict[str, str | None]:
    """Returns the name and the SHA-256 of a weights file; the SHA-256 is None for a folder."""
    path = pathlib.Path(source)
    best = path / weights_file.BEST_WEIGHTS
    path = best if best.is_file() else path
    return {"name": path.name, "sha256": digest(path) if path.is_file() else None}


def weights_licence(source: os.PathLike | str, began_with: dict[str, Any] | None) -> str:
    """Returns the license of weights, which is known for bundled weights.

    `began_with` is 'pretrained' in their metadata.
    """
    own = [digest(path) for path in pathlib.Path(pretrained.__file__).parent.glob("*.safetensors")]
    text = CODE_LICENCE if checkpoint(source)["sha256"] in own else "chosen by the authors of the weights"
    return f"{text}; initialized from {began_with['file']}, {began_with['licence']}" if began_with else text
