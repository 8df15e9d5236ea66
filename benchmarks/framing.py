"""Measures how a dataset's images are cropped relative to detected boxes, and the accuracy of other crops.

    python benchmarks/framing.py --checkpoint cnn.safetensors --data data/fer2013 --detector yunet

A network expects faces cropped as in its training data. The script pads each image of a dataset with gray and
detects its face. It prints quantiles of the image's size and center relative to the detector's box: SCALE and
DOWN in `fer_jax/inference/detection/detectors.py`. Then it crops the faces again around the boxes, with
several margins, with and without rotating them upright, and compares the accuracy with that of the original
images.
"""

import argparse
import dataclasses
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax.commands import common
from fer_jax.evaluation import labelled_split
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection import detectors
from fer_jax.inference.detection.cropping import crop
from fer_jax.inference.structures import Box

SIDE, AROUND = 192, 96  # side of an enlarged image and width of the gray padding, in pixels
MARGINS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def main(argv: list[str] | None = None) -> int:
    parser = common.make_parser(__doc__)
    parser.add_argument("--detector", default="yunet", choices=("yunet", "mediapipe"))
    parser.add_argument("--limit", type=common.at_least_one, default=1500, help="number of images")
    return common.run(study, parser.parse_args(argv))


def study(args: argparse.Namespace) -> int:
    """Prints both tables; returns the exit code.

    Raises:
      ValueError: the detector finds no face in any image.
    """
    classifier = Classifier(common.open_weights(args), sizes=(256,))
    faces = labelled_split.load_split(classifier.trained, args.data, args.split)
    faces = faces.take(np.sort(np.random.default_rng(0).permutation(len(faces))[: args.limit]))
    detector, found = detectors.create(args.detector, min_roll=0.0), {}
    for i in tqdm(range(len(faces)), "detecting faces", unit=" images"):
        wide = enlarge(faces.images[[i]][0])
        inside = [one for one in detector.detect(np.pad(wide, AROUND, constant_values=128)) if _centred(one)]
        if inside:
            found[i] = (wide, inside[0])
    if not found:
        raise ValueError(f"{args.detector} finds no face in {args.split} of {args.data}")
    print(f"{args.detector}: a face in {len(found)} of {len(faces)} images of {args.split}\n")
    print_frames([one for _, one in found.values()])
    labels = faces.labels[list(found)]
    whole = classifier(faces.images[list(found)])
    print(f"\naccuracy on these images, in percent: {_percent(whole, labels)} without cropping")
    print("| margin | not rotated | rotated upright |\n| --- | --- | --- |")
    for margin in MARGINS:
        cells = [_percent(classifier(cut(found.values(), classifier, margin, up)), labels) for up in (0, 1)]
        print(f"| {margin} | {' | '.join(cells)} |")
    return 0


def enlarge(image):
    """Returns a face uint8 [H, W, 1] as uint8 [SIDE, SIDE]."""
    return np.asarray(Image.fromarray(image[..., 0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def print_frames(found) -> None:
    """Prints quantiles of the boxes' size, position, and roll relative to the images."""
    boxes = np.array([one.box for one in found])
    longer = boxes[:, 2:].max(axis=1)
    centers = boxes[:, :2] + boxes[:, 2:] / 2 - AROUND
    rows = {
        "image's side / box's longer side": SIDE / longer,
        "image's center right of box's, over the image's side": 0.5 - centers[:, 0] / SIDE,
        "image's center below box's, over the image's side": 0.5 - centers[:, 1] / SIDE,
        "roll in degrees": np.array([one.roll for one in found]),
    }
    print(f"| quantile | {' | '.join(f'{q:g}' for q in QUANTILES)} |\n|{' --- |' * (len(QUANTILES) + 1)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in np.quantile(values, QUANTILES))} |")


def cut(found, classifier, margin, upright):
    """Returns faces uint8 [N, S, S, C], cropped from the enlarged images around the detector's boxes."""
    faces = []
    for image, one in found:
        side, (x, y) = margin * one.frame.width, one.frame.center
        frame = Box(x - side / 2 - AROUND, y - side / 2 - AROUND, side, side)
        one = dataclasses.replace(one, frame=frame, roll=one.roll if upright else 0.0)
        faces.append(crop(image, one, classifier.side, classifier.channels))
    return np.stack(faces)


def _centred(one) -> bool:
    """Returns whether the center of a detection is in the image, not in the padding."""
    return all(AROUND < value < AROUND + SIDE for value in one.box.center)


def _percent(probabilities, labels) -> str:
    return f"{100 * (probabilities.argmax(axis=1) == labels).mean():.2f}"


if __name__ == "__main__":
    sys.exit(main())
