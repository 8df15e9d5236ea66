"""Pictures in every form that people have them in."""

import io

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import decoding
from fer_jax.data.decoding import PictureError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def saved(image, tmp_path, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (COLOUR, COLOUR),
        (np.dstack([COLOUR, GREY]), COLOUR),  # transparency is left out
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(np.dstack([COLOUR, GREY])), COLOUR),
        (Image.fromarray(GREY > 128), np.where(GREY > 128, 255, 0)),
        (Image.fromarray(COLOUR).quantize(256), None),
    ],
)
def test_arrays_and_pillow_images(given, expected):
    found = decoding.read(given)
    assert found.dtype == np.uint8
    if expected is None:
        expected = np.asarray(given.convert("RGB"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_says_of_the_camera_is_undone(orientation, tmp_path):
    # What a camera so held writes, by the EXIF standard: row 0 and column 0 are these sides of the scene.
    stored = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.swapaxes(0, 1),
        6: COLOUR.swapaxes(0, 1)[::-1],
        7: COLOUR.swapaxes(0, 1)[::-1, ::-1],
        8: COLOUR.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(np.ascontiguousarray(stored)), tmp_path, "a.png", exif=exif)
    np.testing.assert_array_equal(decoding.read(path), COLOUR)
    np.testing.assert_array_equal(decoding.read(str(path)), COLOUR)
    with Image.open(path) as image:
        np.testing.assert_array_equal(decoding.read(image), COLOUR)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (COLOUR.astype(np.float32), r"picture 3 is float32 \[5, 7, 3\]; expected uint8"),
        (np.zeros((0, 4), np.uint8), r"picture 3 is uint8 \[0, 4\]"),
        (np.zeros((2, 2, 2), np.uint8), r"uint8 \[2, 2, 2\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
        (None, "picture 3 is a NoneType; expected a path, a Pillow image or a uint8 array"),
        (b"bytes", "picture 3 is a bytes"),
        ("nothere.png", "nothere.png does not exist"),
        (".", "is a folder; expected an image file"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(given, message):
    with pytest.raises(PictureError, match=message):
        decoding.read(given, "picture 3")


def test_damaged_files_are_refused_by_name(tmp_path):
    path = saved(Image.fromarray(np.repeat(np.repeat(COLOUR, 20, 0), 20, 1)), tmp_path, "a.jpg")
    whole = path.read_bytes()
    for name, content in {
        "cut.jpg": whole[: len(whole) // 2],
        "text.png": b"hello",
        "empty.png": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=f"{name}: cannot be decoded"):
            decoding.read(tmp_path / name)
    with pytest.raises(PictureError, match="the picture cannot be decoded"):
        decoding.read(Image.open(io.BytesIO(whole[: len(whole) // 2])))


def test_grey_becomes_colour_where_it_must():
    np.testing.assert_array_equal(decoding.to_rgb(GREY), np.dstack([GREY] * 3))
    assert decoding.to_rgb(COLOUR) is COLOUR
