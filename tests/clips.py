"""Writes small videos for tests."""

import io
from fractions import Fraction

import av
import numpy as np

CLOCK = Fraction(1, 1000)


def write_clip(path, images, times=None, *, rate=10, sound=None, rotate=None):
    """Writes a video of images uint8 [H, W, 3].

    Args:
      path: path of the file; its extension sets the format.
      images: the frames.
      times: timestamps in milliseconds; None for a constant frame rate.
      rate: frames per second.
      sound: codec of an audio track; None for no audio.
      rotate: rotation in degrees in the display matrix.
    """
    times = times or [1000 * i // rate for i in range(len(images))]
    # AVI has no timestamps, only a frame rate.
    clock = Fraction(1, rate) if str(path).endswith(".avi") else CLOCK
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=rate, options={"crf": "1", "preset": "ultrafast", "bf": "0"})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt, video.time_base, video.codec_context.time_base = "yuv444p", clock, clock
        if rotate is not None:
            video.set_display_rotation(rotate)
        audio = file.add_stream(sound, rate=8000) if sound else None
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time, 1000) / clock), clock
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio:
            _write_tone(file, audio, times[-1] / 1000 + 1 / rate)
    return path


def encode_clip(seconds=1, size=(64, 48), rate=4, kind="mp4", codec="mpeg4"):
    """Returns an encoded black video."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(int(seconds * rate)):
            frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def encode_tone():
    """Returns an encoded file with audio only."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _write_tone(file, stream, seconds):
    samples = (8000 * np.sin(np.arange(int(8000 * seconds)) / 3)).astype(np.int16)
    for start in range(0, len(samples), 400):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 400], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def steps(count, height=48, width=64):
    """Returns distinct images: image i has the gray level 8 + 8 * i and a white corner."""
    images = [np.full((height, width, 3), 8 + 8 * i, np.uint8) for i in range(count)]
    for image in images:
        image[: height // 4, : width // 4] = 255
    return images


def level(image):
    """Returns the index of an image from `steps`, by its gray level."""
    return round((float(np.median(image)) - 8) / 8)
