"""Tests decoding of images in many formats."""

import collections
import importlib.machinery
import io
import sys
import types
import warnings

import cv2
import numpy as np
import pytest
from helpers import encode, png_that_declares
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_jax.data import decoding
from fer_jax.data.decoding import PictureError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = COLOR[..., 0]
PALETTE = Image.fromarray(COLOR).quantize(256)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GRAY, GRAY),
        (GRAY[..., None], GRAY),
        (COLOR, COLOR),
        (np.dstack([COLOR, GRAY]), COLOR),  # alpha is ignored
        (GRAY > 128, np.where(GRAY > 128, 255, 0)),
        (Image.fromarray(COLOR), COLOR),
        (Image.fromarray(GRAY), GRAY),
        (Image.fromarray(np.dstack([COLOR, GRAY])), COLOR),
        (Image.fromarray(GRAY > 128), np.where(GRAY > 128, 255, 0)),
        (Image.fromarray(GRAY).convert("RGB"), GRAY),
        (Image.fromarray(GRAY).convert("RGBA"), GRAY),
        (Image.fromarray(GRAY).convert("P"), GRAY),
        (PALETTE, np.asarray(PALETTE.convert("RGB"))),
    ],
)
def test_arrays_images_and_files(given, expected, tmp_path):
    forms = [given]
    if isinstance(given, Image.Image):
        content = encode(given, "PNG")
        given.save(tmp_path / "a.png")
        forms += [content, io.BytesIO(content), tmp_path / "a.png", str(tmp_path / "a.png")]
    for form in forms:
        found = decoding.read(form)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_every_format_has_an_ending_and_is_read(kind, tmp_path):
    image = Image.fromarray(np.tile(np.uint8([[90]]), (32, 32)))
    ending = {"JPEG": "jfif", "TIFF": "tif", "JPEG2000": "jp2"}.get(kind, kind.lower())
    image.save(tmp_path / f"a.{ending}", kind)
    assert ending in ("ppm", "pgm") or f".{ending}" in decoding.IMAGE_ENDINGS
    np.testing.assert_allclose(decoding.read(tmp_path / f"a.{ending}"), 90, atol=2)


HEIC = b"\0\0\0\x18ftypheic" + encode(Image.fromarray(COLOR))  # as the fake package expects it


@pytest.fixture
def pillow_heif(monkeypatch):
    """Installs a fake package pillow_heif."""
    package = types.ModuleType("pillow_heif")
    package.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None)

    def register_heif_opener():
        entry = lambda file, name: Image.open(io.BytesIO(file.read()[12:])), None  # noqa: E731
        monkeypatch.setitem(Image.OPEN, "HEIF", entry)

    package.register_heif_opener = register_heif_opener
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    decoding.image_endings.cache_clear()
    yield
    decoding.image_endings.cache_clear()


def test_heic_is_read_with_its_package(pillow_heif, tmp_path):
    (tmp_path / "a.HEIC").write_bytes(HEIC)
    assert {".heic", ".heif", ".jpg"} < set(decoding.image_endings())
    for form in (HEIC, io.BytesIO(HEIC), tmp_path / "a.HEIC"):
        np.testing.assert_array_equal(decoding.read(form), COLOR)
    with pytest.raises(PictureError, match="the image: cannot be decoded: .*; expected a whole image file"):
        decoding.read(HEIC[:40])


def test_without_its_package_heic_is_counted_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # which no import finds
    decoding.image_endings.cache_clear()
    with pytest.raises(PictureError, match=r"is a HEIC image: pip install 'fer_jax\[heif\]' to read it"):
        decoding.read(HEIC)
    skipped = collections.Counter({".txt": 1, ".heic": 1200, "": 2})
    expected = "1,200 .heic, 2 without an extension, 1 .txt (pip install 'fer_jax[heif]' to read HEIC)"
    assert decoding.describe_endings(skipped) == expected
    assert decoding.describe_endings(collections.Counter([".txt"])) == "1 .txt"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_says_of_the_camera_is_undone(orientation):
    # By the EXIF standard, row 0 and column 0 of the stored image are these sides of the scene.
    stored = {
        1: COLOR,
        2: COLOR[:, ::-1],
        3: COLOR[::-1, ::-1],
        4: COLOR[::-1],
        5: COLOR.swapaxes(0, 1),
        6: COLOR.swapaxes(0, 1)[::-1],
        7: COLOR.swapaxes(0, 1)[::-1, ::-1],
        8: COLOR.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(decoding.read(content), COLOR)
    np.testing.assert_array_equal(decoding.read(Image.open(io.BytesIO(content))), COLOR)


# --- other pixel formats ---


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    dtype=st.sampled_from([np.uint16, np.int32, np.int64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_are_scaled_by_the_bits_in_use_in_arrays_images_and_files_alike(bits, dtype, seed):
    white = 2**bits - 1
    values = np.random.default_rng(seed).integers(0, white + 1, (6, 5)).astype(dtype)
    values[0, :2] = 0, white
    expected = np.rint(values / white * 255)
    forms = [values, Image.fromarray(values.astype(np.uint16)), Image.fromarray(values.astype(np.int32))]
    forms += [encode(forms[1], "PNG"), encode(forms[1], "TIFF")]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for form in forms:
            np.testing.assert_array_equal(decoding.read(form), expected)
    assert (len(told) == len(forms)) == (bits != 16)
    words = f"use {bits} bits are assumed to be 0 (black) to {white} (white)"
    assert all(words in str(one.message) for one in told)


def test_floats_are_taken_as_0_to_1():
    values = np.float32([[0, 0.25], [0.5, 1]])
    image = Image.fromarray(values)
    for form in (values, values.astype(np.float64), image, encode(image, "TIFF")):
        with pytest.warns(UserWarning, match=r"float pixels are assumed to be 0 \(black\) to 1 \(white\)"):
            np.testing.assert_array_equal(decoding.read(form), [[0, 64], [128, 255]])
    color = np.float32(COLOR) / 255
    with pytest.warns(UserWarning, match="float pixels"):
        np.testing.assert_array_equal(decoding.read(color), COLOR)


def test_16_bit_color_is_scaled_or_refused_where_pillow_would_turn_it_black():
    deep = cv2.imencode(".png", COLOR[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decoding.read(deep), COLOR)
    dark = cv2.imencode(".png", COLOR.astype(np.uint16) * 16)[1].tobytes()
    with pytest.raises(PictureError, match="the image: 16-bit color whose values are all below 4096"):
        decoding.read(dark)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (COLOR.astype(np.float32), "picture 3: float32 from .* to .*; expected uint8, integers of 0 or more"),
        (np.float64([[0, np.nan]]), "picture 3: float64 from nan"),
        (np.int16([[-1, 7]]), "picture 3: int16 from -1 to 7"),
        (np.int64([[2**40]]), "picture 3: int64"),
        (np.complex64([[1]]), "picture 3: complex64"),
        (Image.fromarray(np.float32([[0, 255]])), "picture 3: float32 from 0.0 to 255.0"),
    ],
)
def test_pixels_that_say_nothing_of_black_and_white_are_refused(values, message):
    with pytest.raises(PictureError, match=message):
        decoding.read(values, "picture 3")


# --- rejected images ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((0, 4), np.uint8), r"picture 3: uint8 \[0, 4\]; expected \[H, W\]"),
        (np.zeros((2, 2, 2), np.uint8), r"uint8 \[2, 2, 2\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
        (Image.new("RGB", (0, 5)), "picture 3: 0 x 5 pixels"),
        (None, "picture 3: a NoneType; expected a path, bytes, a binary file, a Pillow image, or an array"),
        (b"bytes", "picture 3: cannot be decoded: it is not an image"),
        (io.StringIO("text"), "picture 3: a StringIO; expected a path, bytes, a binary file"),
        ("https://a.org/b.jpg", "'https://a.org/b.jpg': is no file; download"),
        ("data:image/png;base64,iVBORw0KGgo=", "'data:image/png;base64,.*': is no file; .* decode it"),
        ("nothere.png", "nothere.png: does not exist"),
        (".", "is a folder; expected an image file"),
        ("a\0.png", "'a.x00.png': is not a valid file name"),
    ],
)
def test_what_is_no_image_is_refused_by_name(given, message):
    with pytest.raises(PictureError, match=message):
        decoding.read(given, "picture 3")


def jpeg_with_damaged_exif():
    """Returns a JPEG whose EXIF data is damaged after the orientation."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "abc"
    content = bytearray(encode(Image.new("L", (8, 8), 7), "JPEG", exif=exif.tobytes()))
    content[content.index(b"Exif") + 17] = 0
    return bytes(content)


TRUNCATED = encode(Image.fromarray(RNG.integers(0, 256, (48, 48), dtype=np.uint8)), "JPEG")[:1000]
WEBP = b"RIFF\x16\0\0\0WEBPVP8X\x0a" + bytes(7) + b"\xfe\x3f\0" * 2 + b"VP8L" + bytes(4)  # a header
AVIF = encode(Image.new("L", (8, 8), 7), "AVIF")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("exif.jpg", jpeg_with_damaged_exif(), "cannot be decoded: required argument is not an integer"),
        ("truncated.jpg", TRUNCATED, "cannot be decoded: image file is truncated"),
        ("bomb.png", png_that_declares(40_000, 40_000), "pixels, above the limit of 80,000,000; it was"),
        ("big.png", png_that_declares(10_000, 10_000), "pixels, above the limit of 80,000,000; it was"),
        ("most.png", png_that_declares(2**31 - 1, 2**31 - 1), "above the limit of 80,000,000; it was"),
        ("large.png", png_that_declares(9_000, 9_000), "declares 9000 x 9000 pixels, above the limit of"),
        ("text.jpg", b"this is no image", "it is not an image that can be read"),
        ("empty.png", b"", "it is not an image that can be read"),
        ("page.gif", b"GIF89a\x01\x00", "cannot be decoded"),
        ("cut.webp", encode(Image.fromarray(COLOR), "WEBP")[:-20], "cannot be decoded"),
        ("big.webp", WEBP, "limit"),
        ("circle.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "cannot be decoded"),
        ("a.eps", encode(Image.fromarray(COLOR), "EPS"), "it is not an image that can be read"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is not an image that can be read"),
        ("a.zip", b"PK\x03\x04" + bytes(1000), "it is not an image that can be read"),
        ("a.avif", AVIF.replace(b"pitm", b"none"), "cannot be decoded: Failed to decode image"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    for form, called in ((path, str(path)), (content, name), (io.BytesIO(content), name)):
        with pytest.raises(PictureError) as caught:
            decoding.read(form, name)
        assert caught.value.where == called and reason in caught.value.reason
        assert str(caught.value) == f"{called}: {caught.value.reason}"


def test_a_damaged_image_that_pillow_opened_lazily():
    with pytest.raises(PictureError, match="the image: cannot be decoded: image file is truncated"):
        decoding.read(Image.open(io.BytesIO(TRUNCATED)))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def deny(path, *_):  # root can read files without permissions
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(PictureError, match=r"locked\.png: no permission to read it; check"):
        decoding.read(tmp_path / "locked.png")


def test_grey_becomes_color_where_it_must():
    np.testing.assert_array_equal(decoding.to_rgb(GRAY), np.dstack([GRAY] * 3))
    assert decoding.to_rgb(COLOR) is COLOR
