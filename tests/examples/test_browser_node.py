"""The page's crops and table, made by Node.js without a browser, are those of Python."""

import csv
import json
import shutil
import subprocess

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from fer_jax.data import decoding
from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.detection import cropping, detectors
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.inference.output import table
from fer_jax.inference.structures import Box, DetectedFrame, Detection, Face

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js: apt install nodejs")
PAGE = ROOT / "examples" / "browser"


def run(body, module="crop.js", **given):
    """Evaluates an expression of JavaScript with a module of the page."""
    script = f"""
      import * as page from "{(PAGE / module).as_uri()}";
      let text = "";
      for await (const part of process.stdin) text += part;
      const given = JSON.parse(text);
      console.log(JSON.stringify({body}, (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x));
    """
    command = [NODE, "--input-type=module", "-e", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def plane(image):
    """A gray image as the page holds it."""
    height, width = image.shape
    return {"values": image.ravel().tolist(), "width": width, "height": height}


def frame(detection):
    """A detection's frame as the page holds it."""
    x, y = detection.frame.center
    return {"x": x, "y": y, "side": detection.frame.width, "roll": np.deg2rad(detection.roll)}


def detected(left, top, side, roll=0.0):
    box = Box(left, top, side, side)
    return Detection(box, 1.0, box, roll=roll)


@pytest.mark.parametrize("side", [48, 64])
def test_frames_are_cut_out_as_pillow_does_it(side):
    """Inside, beyond each edge, larger than the image, tiny; upright, and leaning either way."""
    image = np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
    image = np.asarray(Image.fromarray(image).resize((360, 270), Image.Resampling.BICUBIC))
    found = [
        detected(*place, roll)
        for place in (
            (100.3, 60.7, 150.2),
            (-40, -20.5, 120),
            (250, 180, 140.9),
            (-30, -80, 420),
            (9.5, 9.2, 7),
        )
        for roll in (0.0, 17.5, -33.0)
    ]
    ours = run(
        "given.frames.map((frame) => page.crop(given.plane, frame, given.side))",
        plane=plane(image),
        frames=[frame(one) for one in found],
        side=side,
    )
    for one, face in zip(found, ours, strict=True):
        expected = cropping.crop(image, one, side, 1)[..., 0].astype(int)
        difference = abs(np.reshape(face, (side, side)) - expected)
        # Pillow computes with integers.
        assert difference.max() <= (2 if one.roll else 1) and difference.mean() < 0.2, one


def test_a_photographs_face_is_the_predictors_to_the_pixel():
    pixels = decoding.read(SAMPLE)
    (one,) = detectors.create("yunet").detect(pixels)
    height, width = pixels.shape[:2]
    rgba = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    for channels in (1, 3):
        ours = run(
            "page.toPlanes(given.data, given.width, given.height, given.channels)"
            ".map((plane) => page.crop(plane, given.frame, 48))",
            data=rgba.ravel().tolist(),
            width=width,
            height=height,
            channels=channels,
            frame=frame(one),
        )
        expected = cropping.crop(pixels, one, 48, channels).transpose(2, 0, 1).reshape(channels, -1)
        assert abs(np.array(ours) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(48, 48), (31, 200), (300, 97)])
def test_whole_images_are_resized_as_pillow_does_it(size):
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    expected = Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR)
    found = np.reshape(run("page.resize(given.plane, 48)", plane=plane(image)), (48, 48))
    assert abs(found - np.asarray(expected, int)).max() <= 1


def test_the_table_has_the_columns_and_values_of_the_commands():
    probabilities = np.array([[0.1, 0.02, 0.2, 0.5, 0.08, 0.05, 0.05], [0.4, 0.3, 0.3, 0, 0, 0, 0]])
    detections = [detected(1.04, -2, 3), detected(7, 8, 9.5)]
    faces = [Face(one, EMOTIONS, row, 0.5) for one, row in zip(detections, probabilities, strict=True)]
    rows = table.rows(DetectedFrame((9, 9), source='a, "b".png'), faces)
    rows += table.rows(DetectedFrame((9, 9), source="c.png"))
    expected = list(csv.DictReader(table.to_csv(rows, EMOTIONS).decode().splitlines()))
    pairs = zip(detections, probabilities.tolist(), strict=True)
    seen = [{"box": one.box._asdict(), "score": one.score, "probabilities": row} for one, row in pairs]
    images = [{"name": 'a, "b".png', "faces": seen}, {"name": "c.png", "faces": []}]
    body = "page.toCsv(given.images, given.labels, 0.5)"
    found = list(csv.DictReader(run(body, "table.js", images=images, labels=EMOTIONS).splitlines()))

    def values(lines):
        return [[float(x) if x[:1].isdigit() or x[:1] == "-" else x for x in one.values()] for one in lines]

    assert list(found[0]) == list(expected[0]) and values(found) == values(expected)
