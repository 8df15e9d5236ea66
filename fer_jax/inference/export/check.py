"""Compares exports with the network: probabilities, accuracy, and latency."""

import dataclasses
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from fer_jax import batch_inference
from fer_jax.data import splits
from fer_jax.data.dataset import read
from fer_jax.data.sources import synthetic
from fer_jax.evaluation import labelled_split
from fer_jax.evaluation.metrics import bootstrap, classification
from fer_jax.inference.export import TOLERANCE, MismatchError
from fer_jax.inference.export.program import Program

Run = Callable[[np.ndarray], np.ndarray]

FACES, CALIBRATION_FACES, BATCH = 512, 512, 64
CALLS, WARM_UP = {1: 50, 64: 7}, 2  # timed calls by batch size, after untimed ones
SPLIT, SYNTHETIC = "validation", "synthetic faces"


@dataclasses.dataclass(frozen=True)
class SampleFaces:
    """Faces for verifying exports.

    Attributes:
      name: origin of the faces.
      images: uint8 [N, S, S, C].
      labels: int [N]; None for synthetic faces.
      classes: number of classes of the labels.
      groups: int [N], equal for identical images.
      calibration: training faces uint8 [M, S, S, C]; None without data.
      expected: the network's probabilities float64 [N, K].
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    classes: int
    groups: np.ndarray | None
    calibration: np.ndarray | None
    expected: np.ndarray


def load_faces(program: Program, data: str | None = None) -> SampleFaces:
    """Loads the validation split of a dataset, or synthetic faces.

    Raises:
      As `labelled_split.load_labelled`.
    """
    trained = program.trained
    if data is None:
        images, _ = synthetic.generate(-(-FACES // 7), seed=0, split=SPLIT)
        images = program.fit(images[:FACES])
        return SampleFaces(SYNTHETIC, images, None, 0, None, None, run_all(program.run, images))
    labelled = labelled_split.load_labelled(trained, data, SPLIT)
    images = program.fit(labelled.faces.images)
    training = labelled_split.load_split(trained, data, "train").images
    chosen = np.linspace(0, training.shape[0] - 1, min(CALIBRATION_FACES, training.shape[0])).astype(int)
    return SampleFaces(
        f"{SPLIT} of {read.read_manifest(data)['name']}",
        images,
        labelled.faces.labels,
        len(labelled.names),
        splits.duplicate_groups(labelled.faces.images),
        program.fit(training[chosen]),
        run_all(program.run, images),
    )


def run_all(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Returns the outputs for a batch of any size, computed in batches of `BATCH`."""
    return np.concatenate([run(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)])


def compare(program: Program, run: Run, faces: SampleFaces) -> dict[str, Any]:
    """Compares an export with the network.

    Returns:
      'faces', the number of compared faces; 'of', their origin; 'largest_difference' of probabilities;
      'same_prediction', the share of faces with the same prediction; and, with labels, 'accuracy' of the
      export on all faces, 'accuracy_of_the_network' with its 'interval_95', and 'accuracy_change'.
    """
    count = FACES if faces.labels is None else len(faces.images)
    inputs = program.prepare(faces.images[:count])
    found, expected = program.probabilities(run_all(run, inputs)), faces.expected
    first = slice(FACES)
    result = {
        "faces": len(found[first]),
        "of": faces.name,
        "largest_difference": float(abs(found[first] - expected[first]).max()),
        "same_prediction": float((found[first].argmax(1) == expected[first].argmax(1)).mean()),
    }
    if faces.labels is None:
        return result
    found, expected = (batch_inference.restrict(probs, faces.classes) for probs in (found, expected))
    accuracy = classification.accuracy(found, faces.labels)
    drawn = bootstrap.resample(expected, faces.labels, faces.groups)
    return result | {
        "accuracy": accuracy,
        "accuracy_of_the_network": classification.accuracy(expected, faces.labels),
        "interval_95": bootstrap.interval(drawn["accuracy"]).tolist(),
        "accuracy_change": accuracy - classification.accuracy(expected, faces.labels),
    }


def require_same(found: dict[str, Any]) -> None:
    """Checks the result of `compare` for a float32 export.

    Raises:
      MismatchError: a probability differs by more than `TOLERANCE`, or a prediction differs.
    """
    if not found["largest_difference"] <= TOLERANCE or found["same_prediction"] < 1:
        raise MismatchError(
            f"the export differs from the network by up to {found['largest_difference']:.2g} in probability "
            f"and agrees in {found['same_prediction']:.1%} of {found['faces']} predictions; expected "
            f"at most {TOLERANCE:.0e}, and 100 %: nothing was written. Please report this with the checkpoint"
        )


def latency(run: Run, inputs: np.ndarray) -> dict[str, float]:
    """Returns the median time of a batch of inputs like these in milliseconds, by size (`CALLS`)."""
    found = {}
    for size, calls in CALLS.items():
        batch = np.resize(inputs, (size, *inputs.shape[1:]))
        seconds = timeit.repeat(lambda batch=batch: run(batch), number=1, repeat=WARM_UP + calls)
        found[str(size)] = 1000 * float(np.median(seconds[-calls:]))
    return found
