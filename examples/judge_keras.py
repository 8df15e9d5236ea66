"""Writes a Keras model's probabilities for a split of a dataset to a CSV file for fer-jax compare.

    KERAS_BACKEND=jax python examples/judge_keras.py --model my.keras --data data/fer2013 --out keras.csv
    fer-jax compare keras.csv runs/cnn --data data/fer2013 --out runs/comparison

The saved model (.keras, .h5) maps faces [B, S, S, 1 or 3] to probabilities or logits of emotions. With
KERAS_BACKEND=jax, TensorFlow is not needed. Faces are resized to the model's input size (bilinear), gray
faces are repeated to three channels for models that take color, and pixels are scaled:

  --scale unit   to [0, 1] (default)
  --scale sign   to [-1, 1]
  --scale none   not at all (0 to 255), for models that scale their input

--classes lists the classes of the model's outputs in order; the default is FER2013's order. Keras sorts
image folders by name: --classes angry disgust fear happy neutral sad surprise. Contempt is dropped, and the
other probabilities are renormalized. For models of other frameworks, write a CSV file in the same format.
"""

import argparse
import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fer_jax import batch_inference  # noqa: E402
from fer_jax.commands import common  # noqa: E402
from fer_jax.data.dataset import read  # noqa: E402
from fer_jax.data.emotions import EMOTIONS, class_names  # noqa: E402
from fer_jax.evaluation import predictions_file  # noqa: E402
from fer_jax.evaluation.metrics import classification  # noqa: E402

SCALES = {"unit": (1 / 255, 0.0), "sign": (2 / 255, -1.0), "none": (1.0, 0.0)}


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="model saved by Keras (.keras or .h5)")
    add("--data", required=True, metavar="DATA", help="dataset from fer-jax prepare")
    common.add_split(parser, "split of the dataset")
    add("--out", required=True, type=pathlib.Path, metavar="CSV", help="file for the predictions")
    add("--classes", nargs="+", choices=class_names(8), default=EMOTIONS, metavar="NAME")
    add("--scale", choices=SCALES, default="unit", help="scaling of the pixels")
    add("--logits", action="store_true", help="apply softmax, for models that return logits")
    return common.run(write, parser.parse_args(argv))


def write(args: argparse.Namespace) -> int:
    """Writes the predictions; returns the exit code."""
    found = judge(args)
    predictions_file.write(args.out, found)
    right = (found.probs.argmax(axis=1) == found.labels).mean()
    print(f"{len(found.ids):,} images of {args.split}, accuracy {100 * right:.2f} %: {args.out}")
    print(f"next: fer-jax compare {args.out} RUN --data {args.data} --split {args.split} --out DIR")
    return 0


def judge(args: argparse.Namespace) -> predictions_file.Predictions:
    """Returns the model's probabilities for the split."""
    if missing := [name for name in EMOTIONS if name not in args.classes]:
        raise ValueError(
            f"--classes lacks {', '.join(missing)}: expected all seven emotions, in the order of the outputs"
        )
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    model = keras.saving.load_model(args.model, compile=False)
    _, height, width, channels = model.input_shape
    faces = read.load(args.data, args.split, image_size=None if _are_alike(args.data) else height or 48)
    factor, offset = SCALES[args.scale]
    probs = []
    for start in range(0, len(faces), 256):
        x = faces.images[np.arange(start, min(start + 256, len(faces)))].astype(np.float32)
        if x.shape[-1] != channels:
            if x.shape[-1] != 1:
                raise ValueError(f"the faces of {args.data} are in color, but the model takes gray faces")
            x = np.repeat(x, channels, axis=-1)
        if height and x.shape[1:3] != (height, width):
            x = keras.ops.image.resize(x, (height, width), interpolation="bilinear")
        y = model(np.asarray(x) * factor + offset, training=False)
        probs.append(keras.ops.convert_to_numpy(keras.ops.softmax(y) if args.logits else y))
    probs = np.concatenate(probs).astype(np.float64)
    if probs.shape[1] != len(args.classes):
        raise ValueError(
            f"the model has {probs.shape[1]} outputs, but --classes has {len(args.classes)} names"
        )
    classification.check(probs, np.zeros(len(probs), int))  # fails for logits, for example
    in_our_order = [args.classes.index(name) for name in class_names(8) if name in args.classes]
    probs = batch_inference.restrict(probs[:, in_our_order], len(EMOTIONS))
    return predictions_file.Predictions(list(faces.ids), probs, faces.labels, list(EMOTIONS))


def _are_alike(data_dir: str) -> bool:
    """Returns whether all faces of a dataset have the same size."""
    return read.read_manifest(data_dir)["image_shape"] is not None


if __name__ == "__main__":
    sys.exit(main())
