"""Measures the speed of predicting a video, beside the usual way: frame by frame and face by face.

    python benchmarks/predict.py --video clip.mp4

The same detector (YuNet, on a copy of the frame of the same size), network, and weights in all rows, from the
file to the probabilities of every face; the sides take turns in one process:

* fer_jax: what `fer-jax predict` does, except for writing the rows.
* keras: OpenCV reads a frame, YuNet detects faces, and Keras' `predict` gets one face at a time, as in FER
  packages.
* one by one: the same with fer_jax's own network, compiled for one face.

The first round is a warm-up. Needs the extra `test`. Measure with nothing else running.
"""

import itertools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
from interleaved import make_parser, medians

from fer_jax import runtime
from fer_jax.commands.common import at_least_one
from fer_jax.evaluation import cost
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection import assets
from fer_jax.inference.detection.detectors import MAX_SIDE_IN_VIDEO, YuNet
from fer_jax.inference.media import stream, tracking
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.output import table
from fer_jax.inference.predictor import Predictor
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights

if TYPE_CHECKING:
    import keras

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--video", required=True, metavar="FILE")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="after the warm-up (default: 3)")
    args = parser.parse_args(argv)
    runtime.tune_cpu()
    trained = LoadedModel(find_weights("cnn"))
    one = Classifier(trained, sizes=(1,))
    network = build_keras(trained)
    predictor = Predictor.load("cnn", batch_sizes=(64, 256))
    mean, std = trained.normalization["mean"], trained.normalization["std"]

    def by_keras(face: np.ndarray) -> np.ndarray:
        return network.predict((face[None] / np.float32(255) - mean) / std, verbose=0)

    faces: dict[str, int] = {}  # of each side
    sides: dict[str, Callable[[], None]] = {
        "fer_jax": lambda: faces.update(fer_jax=run_ours(args.video, predictor)),
        "keras": lambda: faces.update(keras=run_frame_by_frame(args.video, by_keras)),
        "one by one": lambda: faces.update(
            {"one by one": run_frame_by_frame(args.video, lambda face: one(face[None]))}
        ),
    }
    seconds = medians(sides, args.rounds)
    print(f"{args.video}, {frames(args.video)} frames, {cost.hardware()}, median of {args.rounds} rounds")
    print("| way | faces | frames a second | fer_jax is faster by |\n| --- | --- | --- | --- |")
    for name, median in seconds.items():
        speed = frames(args.video) / median
        print(f"| {name} | {faces[name]} | {speed:.1f} | {median / seconds['fer_jax']:.2f} |")
    return 0


def build_keras(trained: LoadedModel) -> "keras.Model":
    """Returns the network of `cnn_relu` in Keras, with its weights."""
    from keras import Input, Sequential, layers

    params, statistics = trained.variables["params"], trained.variables["batch_stats"]
    names = map("BatchNorm_{}".format, itertools.count())

    def norm_relu():
        return layers.BatchNormalization(epsilon=1e-3, name=next(names)), layers.ReLU()

    stack, number = [Input(trained.input_shape)], itertools.count()
    for depth in trained.model.depths:
        for _ in range(depth):
            name = f"Conv_{next(number)}"
            width = params[name]["kernel"].shape[-1]
            stack += [layers.Conv2D(width, 3, padding="same", use_bias=False, name=name), *norm_relu()]
        stack.append(layers.MaxPooling2D())
    hidden = layers.Dense(trained.model.hidden, use_bias=False, name="Dense_0")
    stack += [layers.GlobalAveragePooling2D(), hidden, *norm_relu()]
    stack.append(layers.Dense(trained.model.num_classes, activation="softmax", name="Dense_1"))
    network = Sequential(stack)
    for name, own in params.items():
        values = own | statistics.get(name, {})
        order = ("scale", "bias", "mean", "var") if "mean" in values else ("kernel", "bias")
        network.get_layer(name).set_weights([values[key] for key in order if key in values])
    return network


def run_ours(path: str, predictor: Predictor) -> int:
    """Predicts a video as the command line does; returns how many faces it has."""
    frames = stream.ahead(stream.detect([Input(path, path)], predictor))
    results = stream.classify(frames, predictor, tracking.Tracker())
    return sum(row["status"] == table.FACE for result in results for row in table.rows(*result))


def run_frame_by_frame(path: str, classify: Callable[[np.ndarray], np.ndarray]) -> int:
    """Predicts a video frame by frame and face by face; returns the number of faces."""
    video, faces, detector = cv2.VideoCapture(path), 0, None
    while True:
        whole, frame = video.read()
        if not whole:
            return faces
        scale = min(1.0, MAX_SIDE_IN_VIDEO / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if detector is None:
            model = str(assets.YUNET)
            detector = cv2.FaceDetectorYN.create(model, "", small.shape[1::-1], YuNet.MIN_SCORE)
        _, found = detector.detect(small)
        boxes = () if found is None else np.maximum(found[:, :4] / scale, 0).astype(int)
        for left, top, width, height in boxes:
            face = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_BGR2GRAY)
            classify(cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)[..., None])
            faces += 1


def frames(path: str) -> int:
    """Returns the number of frames that OpenCV counts."""
    return int(cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT))


if __name__ == "__main__":
    sys.exit(main())
