"""Tests uploads: accepted files, and files that are rejected before decoding."""

import numpy as np
import pytest
from clips import encode_clip, encode_tone
from helpers import encode, png_that_declares
from PIL import Image

from fer_jax.inference.app import analysis, uploads
from fer_jax.inference.app.uploads import UploadError
from fer_jax.inference.media import VideoError
from fer_jax.inference.media.video import read_frames


def encoded(kind, size=(40, 30), **options):
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) % 251
    return encode(pixels.astype(np.uint8), kind, **options)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    return encoded("JPEG", exif=exif)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        *((encoded(kind), (40, 30)) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF")),
        (turned(), (30, 40)),
        (encoded("JPEG") + b"<html><script>alert(1)</script></html>PK\x03\x04", (40, 30)),
    ],
    ids="jpeg png webp bmp gif turned polyglot".split(),
)
def test_images_are_read_upright(content, size, tiny_predictor):
    one = analysis.analyze("a", content, tiny_predictor)
    assert one.frame.error is None and one.frame.size == size and len(one.faces) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.jpg is empty"),
        (b"<html><script>alert(1)</script></html>", "x.jpg: cannot be decoded: it is not an image"),
        (encoded("JPEG")[:-400], "image file is truncated"),
        (png_that_declares(9_000, 9_000), "declares 9000 x 9000 pixels, above the limit of 50,000,000"),
        (bytes(20_000_001), "has 20 MB, more than 20 MB"),
    ],
    ids="empty html cut large heavy".split(),
)
def test_what_is_no_image_is_a_message(content, message, tiny_predictor):
    one = analysis.analyze("x.jpg", content, tiny_predictor)
    assert message in one.frame.error and one.frame.size is None and not one.faces


@pytest.mark.parametrize("kind", ("mp4", "matroska", "avi"))
def test_videos_are_accepted(kind):
    file, seconds = uploads.open_video(encode_clip(2, kind=kind), "a")
    assert seconds == pytest.approx(2, abs=0.3) and len(list(read_frames(file))) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a supported video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a supported video"),
        (encoded("PNG"), "not a supported video"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "x.mp4 cannot be decoded .*: expected a complete video file"),
        (encode_clip()[:300], "x.mp4 has no video"),
        (encode_tone(), "x.mp4 has no video"),
        (encode_clip(70, rate=1), "lasts 70 seconds, more than 60"),
        (encode_clip(0.25, (4096, 2304)), "4,096 x 2,304 pixels, more than 3840 x 2160"),
        (bytes(100_000_001), "has 100 MB, more than 100 MB"),
    ],
    ids="playlist concat image mere_start cut sound long large heavy".split(),
)
def test_what_is_no_short_video_is_a_message(content, message):
    with pytest.raises((UploadError, VideoError), match=message):
        uploads.open_video(content, "x.mp4")


def test_names_are_shown_as_they_are():
    """Every character with a meaning in Markdown is escaped by a backslash."""
    assert uploads.plain("![x](http://a.b/c) $1$ :red[_é_].jpg") == (
        r"\!\[x\]\(http\:\/\/a\.b\/c\) \$1\$ \:red\[_é_\]\.jpg"
    )
