"""What an export says of itself: how to use it, how good it is, where it comes from, on what terms."""

import pathlib
from typing import Any

import flax
import jax

from fer_jax import __version__, checkpoints, pretrained
from fer_jax.inference.exports.program import INPUT, Program
from fer_jax.pretrained.download import digest

CODE_LICENCE = "Apache-2.0"
INTENDED_USE = (
    "For research and teaching. The network names the expression that a face shows, not what a person feels. "
    "Its training's labels are noisy and its faces are no sample of any population: do not use it to judge "
    "people."
)


def describe(program: Program, precision: str, versions: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an export but for what is measured on it; JSON.

    Args:
      program: what is exported.
      precision: of the file.
      versions: of the format and its tools.
    """
    facts = program.trained.facts
    side, _, channels = program.trained.input_shape
    preprocess, labels, network = facts["preprocess"], facts["emotions"], facts["model"]["name"]
    inside, checkpoint = program.preprocessing == "inside", _checkpoint(program.trained.source)
    return {
        "description": (
            f"{network}, facial emotion recognition by fer_jax {__version__}: faces {side}x{side} to "
            f"{program.output} of {', '.join(labels)}"
        ),
        "labels": labels,
        "input": {
            "name": INPUT,
            "shape": ["N", side, side, channels],
            "layout": "NHWC",
            "dtype": "uint8" if inside else "float32",
            "pixels": (
                "0 to 255, as they are"
                if inside
                else "(p / 255 - mean) / std of pixels p from 0 to 255, to be done by the caller"
            ),
            "colours": "grey" if channels == 1 else "RGB; a grey face is repeated three times",
            "preprocessing": program.preprocessing,
            "mean": preprocess["mean"],
            "std": preprocess["std"],
            "interpolation": preprocess["interpolation"],
            "fill": preprocess["fill"],
        },
        "output": {
            "name": program.output,
            "shape": ["N", len(labels)],
            "dtype": "float32",
            "softmax": program.softmax,
            "temperature": program.temperature,
            "temperature_applied": program.softmax == "inside",
        },
        "precision": precision,
        "licence": {
            "code": CODE_LICENCE,
            "weights": _licence(checkpoint["sha256"], facts.get("pretrained")),
            "data": f"the weights were trained on {facts['data']['name']}, which has its own terms",
        },
        "accuracy": {"trained_on": facts["data"]["name"], "selection": facts.get("selection")},
        "intended_use": INTENDED_USE,
        "checkpoint": checkpoint,
        "versions": {"fer_jax": __version__, "jax": jax.__version__, "flax": flax.__version__} | versions,
    }


def _licence(sha256: str | None, began_with: dict[str, Any] | None) -> str:
    """That of the weights: this project's own have one, others' are for whoever trained them to say."""
    own = [digest(path) for path in pathlib.Path(pretrained.__file__).parent.glob("*.safetensors")]
    text = CODE_LICENCE if sha256 in own else "for whoever trained them to say"
    return f"{text}; they began with {began_with['file']}, {began_with['licence']}" if began_with else text


def _checkpoint(source: str) -> dict[str, str | None]:
    """Name and SHA-256 of a file of weights; a checkpoint that is a folder has no checksum of its own."""
    path = pathlib.Path(source)
    best = path / checkpoints.BEST_WEIGHTS
    path = best if best.is_file() else path
    return {"name": path.name, "sha256": digest(path) if path.is_file() else None}
