"""Describes an export in metadata: usage, accuracy, origin, and license."""

from typing import Any

import flax
import jax

from fer_jax import __version__
from fer_jax.inference import licences
from fer_jax.inference.detection.detectors import MIN_ROLL, MediaPipe, YuNet
from fer_jax.inference.export.program import INPUT, Program
from fer_jax.pretrained.registry import network_name


def describe(program: Program, precision: str, versions: dict[str, Any]) -> dict[str, Any]:
    """Returns the metadata of an export without its verification, as JSON types.

    Args:
      program: the exported network.
      precision: precision of the file.
      versions: versions of the format and its tools.
    """
    metadata = program.trained.metadata
    side, _, channels = program.face_shape
    preprocess, labels = metadata["preprocess"], metadata["emotions"]
    network = network_name(program.trained.source, metadata["model"])
    inside, checkpoint = program.preprocessing == "inside", licences.checkpoint(program.trained.source)
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
                "0 to 255"
                if inside
                else "(p / 255 - mean) / std of pixels p from 0 to 255, computed by the caller"
            ),
            "colours": "gray" if channels == 1 else "RGB; a gray face is repeated three times",
            "preprocessing": program.preprocessing,
            # Side of the training faces, before they were enlarged to the input size.
            "side_in_training": (metadata.get("faces") or {}).get("side"),
            "mean": preprocess["mean"],
            "std": preprocess["std"],
            "interpolation": preprocess["interpolation"],
            "fill": preprocess["fill"],
        },
        "photographs": _describe_crops(program),
        "output": {
            "name": program.output,
            "shape": ["N", len(labels)],
            "dtype": "float32",
            "softmax": program.softmax,
            "temperature": program.trained.temperature,
            "temperature_applied": program.softmax == "inside",
        },
        "precision": precision,
        "licence": {
            "code": licences.CODE_LICENCE,
            "weights": licences.weights_licence(program.trained.source, metadata.get("pretrained")),
            "data": f"the weights were trained on {metadata['data']['name']}, which has its own terms",
        },
        "accuracy": {
            "trained_on": metadata["data"]["name"],
            "evaluation": metadata.get("evaluation"),
            "selection": metadata.get("selection"),
        },
        "intended_use": licences.INTENDED_USE,
        "checkpoint": checkpoint,
        "versions": {"fer_jax": __version__, "jax": jax.__version__, "flax": flax.__version__} | versions,
    }


def _describe_crops(program: Program) -> dict[str, Any]:
    """Describes how to crop faces from photographs, as `cropping.crop`."""
    side, _, channels = program.trained.face_shape
    inside = program.preprocessing == "inside"
    return {
        "how": (
            "Use a square frame around the detector's box: its side is scale times the longer side of the "
            "box, and its center is down times this side below the center of the box. Mirror the image at "
            "its edges. Rotate faces with a roll of at least min_roll degrees upright. Resize the frame to "
            "side x side pixels and the given channels (bilinear, antialiased)"
            + (": this is the input." if inside else ", enlarge it to the input with its interpolation.")
        ),
        "frames": {
            name: {"scale": one.SCALE, "down": one.DOWN, "min_score": one.MIN_SCORE}
            for name, one in (("yunet", YuNet), ("mediapipe", MediaPipe))
        },
        "min_roll": MIN_ROLL,
        "side": side,
        "channels": channels,
    }
