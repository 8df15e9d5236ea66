"""Visitors' files: what is read, and what is refused before it can do harm."""

import io
import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from fer_jax.inference.app import uploads
from fer_jax.inference.app.uploads import UploadError


def encoded(kind, size=(40, 30), **options):
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) % 251
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def png_that_declares(width, height):
    """A PNG whose header promises more than comes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def video(seconds=1, size=(64, 48), rate=4, kind="mp4", codec="mpeg4"):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(int(seconds * rate)):
            frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_pictures_are_read(kind):
    image = uploads.read_upload(encoded(kind), "a")
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8


def test_pictures_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    assert uploads.read_upload(encoded("JPEG", exif=exif), "a").shape == (40, 30, 3)


def test_a_picture_with_something_behind_it_is_but_the_picture():
    polyglot = encoded("JPEG") + b"<html><script>alert(1)</script></html>PK\x03\x04"
    np.testing.assert_array_equal(
        uploads.read_upload(polyglot, "a"), uploads.read_upload(encoded("JPEG"), "a")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.jpg is empty"),
        (b"<html><script>alert(1)</script></html>", "x.jpg: cannot be decoded: it is not an image"),
        (b"PK\x03\x04" + bytes(1000), "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that can be read"),
        (encoded("PNG")[:200], "image file is truncated"),
        (encoded("JPEG")[:-400], "image file is truncated"),
        (png_that_declares(1_000_000, 1_000_000), "declares 1000000000000 pixels, more than the limit"),
        (png_that_declares(9_000, 9_000), "declares 9000 x 9000 pixels, more than the limit of 50,000,000"),
        (png_that_declares(7_000, 7_000), "cannot be decoded"),
        (bytes(20_000_001), "has 20 MB, more than 20 MB"),
    ],
    ids="empty html zip eps cut_png cut_jpeg bomb large broken heavy".split(),
)
def test_what_is_no_picture_is_a_message(content, message):
    with pytest.raises(UploadError, match=message):
        uploads.read_upload(content, "x.jpg")


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_videos_are_opened(kind, codec):
    file, seconds = uploads.open_video(video(2, kind=kind, codec=codec), "a")
    assert seconds == pytest.approx(2, abs=0.3)
    with av.open(file) as container:
        assert len(list(container.decode(video=0))) == 8


def sound():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a video that can be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video that can be read"),
        (encoded("PNG"), "not a video"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "damaged or no video"),
        (video()[:300], "holds no moving pictures, or is cut off"),
        (sound(), "holds no moving pictures, or"),
        (video(70, rate=1), "lasts 70 seconds, more than 60"),
        (video(0.25, (4096, 2304)), "4,096 x 2,304 pixels, more than 3840 x 2160"),
        (bytes(100_000_001), "has 100 MB, more than 100 MB"),
    ],
    ids="playlist concat picture mere_start cut sound long large heavy".split(),
)
def test_what_is_no_short_video_is_a_message(content, message):
    with pytest.raises(UploadError, match=message):
        uploads.open_video(content, "x.mp4")


def test_names_are_shown_as_they_are():
    """A backslash before every mark that Markdown could read."""
    assert uploads.plain("![x](http://a.b/c) $1$ :red[_é_].jpg") == (
        r"\!\[x\]\(http\:\/\/a\.b\/c\) \$1\$ \:red\[_é_\]\.jpg"
    )
